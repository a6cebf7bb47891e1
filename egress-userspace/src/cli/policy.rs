//! `egress policy check|explain|detect`: reads policy files and says what they mean. Needs no root.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use egress_common::Verdict;
use serde_json::{Value, json};

use super::{Output, color, detect};
use crate::{
    compile::{self, RuleInfo},
    explain::{self, Destination, Explanation},
    policy::{self, Errors, Inbound, Loopback, Notice, Origin, Policy},
    scope::addresses::own_addresses,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check policy files: every error with its line, the settings that hold, and what opens more than it seems to.
    ///
    /// Exit code: 0 all files are valid, 1 one is not, 2 wrong usage.
    Check(Check),
    /// Say what a policy does with destinations, by which rule, and what would change it.
    ///
    /// Exit code: 0 all are allowed, 1 one is denied (also in audit mode), 2 wrong usage or an invalid file.
    Explain(Explain),
    /// Ask the tools on this machine which hosts they are set up to use, and print rules for them.
    ///
    /// Reads configuration only; asks nothing over the network. Exit code: 0, 2 wrong usage.
    Detect(detect::Detect),
}

#[derive(Args, Debug)]
pub(super) struct Check {
    /// Policy files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
pub(super) struct Explain {
    /// Policy file.
    file: PathBuf,
    /// Destinations: host:port, ip:port or `[v6]:port`, each with /udp for UDP; host/icmp for ping; unix:path for the unix
    /// socket of a process outside, `unix:@name` for an abstract one; inbound:port for a connection from outside.
    #[arg(required = true)]
    destinations: Vec<Destination>,
    /// Rules added as by `egress run --allow`.
    #[arg(long, value_name = "HOST:PORT")]
    allow: Vec<String>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn main(command: Command) -> ExitCode {
    match command {
        Command::Check(arguments) => check(&arguments),
        Command::Explain(arguments) => explain(&arguments),
        Command::Detect(arguments) => detect::main(&arguments),
    }
}

fn check(arguments: &Check) -> ExitCode {
    let results: Vec<_> =
        arguments.files.iter().map(|file| (file.as_path(), policy::load(file, &[]))).collect();
    match arguments.output {
        Output::Text => {
            for (file, result) in &results {
                match result {
                    Ok(policy) => print_checked(file, policy),
                    Err(errors) => eprintln!("{}", errors.render(color(&io::stderr()))),
                }
            }
        }
        Output::Json => {
            let files: Vec<Value> = results.iter().map(|(file, result)| checked_json(file, result)).collect();
            print_json(&json!({ "version": 1, "files": files }));
        }
    }
    ExitCode::from(u8::from(results.iter().any(|(_, result)| result.is_err())))
}

fn print_checked(file: &Path, policy: &Policy) {
    let number = policy.rules.len();
    let rules = if number == 1 { "rule" } else { "rules" };
    println!("{}: ok: {}, {number} {rules}", file.display(), policy.name);
    println!("  {}", settings(policy));
    for notice in &policy.notices {
        println!("  note: {notice}");
    }
}

/// The settings that say what is open beside the rules, in one line.
fn settings(policy: &Policy) -> String {
    let mut text = format!(
        "loopback {}, unix {}, inbound {}, require {}, escape {}",
        loopback(policy),
        policy.unix.name(),
        inbound(policy),
        policy.require.name(),
        policy.on_escape.name(),
    );
    if !policy.permits.is_empty() {
        text.push_str(", permit ");
        text.push_str(&permits(policy).join(","));
    }
    text
}

fn loopback(policy: &Policy) -> String {
    match &policy.loopback {
        Loopback::Own => "own".into(),
        Loopback::None => "none".into(),
        Loopback::Any => "any".into(),
        Loopback::Ports(ports) => policy::list(ports),
    }
}

fn inbound(policy: &Policy) -> String {
    match &policy.inbound {
        Inbound::Deny => "deny".into(),
        Inbound::Allow => "allow".into(),
        Inbound::Ports(ports) => policy::list(ports),
    }
}

fn permits(policy: &Policy) -> Vec<&'static str> {
    policy.permits.iter().map(|restriction| restriction.name()).collect()
}

fn settings_json(policy: &Policy) -> Value {
    json!({
        "loopback": loopback(policy),
        "unix": policy.unix.name(),
        "inbound": inbound(policy),
        "require": policy.require.name(),
        "escape": policy.on_escape.name(),
        "permit": permits(policy),
    })
}

fn checked_json(file: &Path, result: &Result<Policy, Errors>) -> Value {
    match result {
        Ok(policy) => json!({
            "file": file,
            "valid": true,
            "name": policy.name,
            "rules": policy.rules.iter().map(|rule| rule_json(&rule.origin, &rule.to_string())).collect::<Vec<_>>(),
            "settings": settings_json(policy),
            "notices": policy.notices.iter().map(notice_json).collect::<Vec<_>>(),
            "errors": [],
        }),
        Err(errors) => json!({ "file": file, "valid": false, "errors": errors_json(errors) }),
    }
}

fn explain(arguments: &Explain) -> ExitCode {
    let policy = match policy::load(&arguments.file, &arguments.allow) {
        Ok(policy) => policy,
        Err(errors) => {
            match arguments.output {
                Output::Text => eprintln!("{}", errors.render(color(&io::stderr()))),
                Output::Json => print_json(
                    &json!({ "version": 1, "file": arguments.file, "errors": errors_json(&errors) }),
                ),
            }
            return ExitCode::from(2);
        }
    };
    // What cannot be listed cannot be told from other addresses.
    let own = own_addresses().unwrap_or_default();
    let compiled = compile::compile_on(&policy, &own);
    let explanations: Vec<_> = arguments
        .destinations
        .iter()
        .map(|destination| explain::explain(&policy, &compiled, destination))
        .collect();
    match arguments.output {
        Output::Text => explanations.iter().for_each(print_explanation),
        Output::Json => {
            let results: Vec<Value> = explanations.iter().map(explanation_json).collect();
            let (file, name) = (&arguments.file, &policy.name);
            print_json(&json!({ "version": 1, "file": file, "policy": name, "results": results }));
        }
    }
    let denied = explanations.iter().any(|explanation| explanation.verdict != Verdict::Allow);
    ExitCode::from(u8::from(denied))
}

fn print_explanation(explanation: &Explanation) {
    let Explanation { destination, verdict, reason, rule, question, nearest, remedy, notes } = explanation;
    println!("{} {destination}: {}", verdict.name(), reason.text());
    if let Some(rule) = rule {
        println!("  rule: {} ({})", rule.text, rule.origin);
    }
    if let Some(question) = question {
        println!("  question: {}", question.answer);
    }
    for (why, rule) in nearest {
        println!("  nearest: {} ({}): {why}", rule.text, rule.origin);
    }
    for note in notes {
        println!("  note: {note}");
    }
    if let Some(remedy) = remedy {
        println!("  to allow it: {remedy}");
    }
}

fn explanation_json(explanation: &Explanation) -> Value {
    let Explanation { destination, verdict, reason, rule, question, nearest, remedy, notes } = explanation;
    let info = |rule: &RuleInfo| rule_json(&rule.origin, &rule.text);
    let nearest: Vec<Value> =
        nearest.iter().map(|(why, rule)| json!({ "why": why, "rule": info(rule) })).collect();
    let question = question.as_ref().map(|question| {
        let (verdict, reason) = (question.verdict.name(), question.reason.name());
        json!({ "verdict": verdict, "reason": reason, "answer": question.answer })
    });
    json!({
        "destination": destination.to_string(),
        "verdict": verdict.name(),
        "reason": reason.name(),
        "rule": rule.as_ref().map(info),
        "question": question,
        "nearest": nearest,
        "remedy": remedy,
        "notes": notes,
    })
}

fn rule_json(origin: &Origin, text: &str) -> Value {
    match origin {
        Origin::File { path, line } => json!({ "text": text, "file": path.as_path(), "line": line }),
        Origin::CommandLine(from) | Origin::Builtin(from) => json!({ "text": text, "from": from }),
    }
}

fn notice_json(notice: &Notice) -> Value {
    match &notice.origin {
        Some(Origin::File { path, line }) => {
            json!({ "message": notice.message, "file": path.as_path(), "line": line })
        }
        Some(origin) => json!({ "message": notice.message, "from": origin.to_string() }),
        None => json!({ "message": notice.message }),
    }
}

fn errors_json(errors: &Errors) -> Vec<Value> {
    let error = |problem: &policy::Problem| {
        let location = problem.location();
        json!({
            "message": problem.fault.to_string(),
            "expected": problem.fault.expected(),
            "site": problem.site(),
            "file": location.map(|(path, ..)| path),
            "line": location.map(|(_, line, _)| line),
            "column": location.map(|(_, _, column)| column),
        })
    };
    errors.0.iter().map(error).collect()
}

/// In printable ASCII: values may hold what a client chose, and some terminals take other characters for commands.
pub(super) fn print_json(value: &Value) {
    let mut text = String::new();
    let mut units = [0; 2];
    // Beyond ASCII a JSON text has characters in strings only, where each may stand escaped.
    for c in format!("{value:#}").chars() {
        if c.is_ascii() && c != '\u{7f}' {
            text.push(c);
        } else {
            text.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    // Whoever reads it may have seen enough.
    let _gone = writeln!(io::stdout(), "{text}");
}
