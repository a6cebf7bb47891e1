//! `egress doctor`: what this kernel offers and what is enforced; with `--attack`, the proof.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, ValueEnum};

use super::{color, exit, policy::print_json};
use crate::{attack::Options, doctor, policy};

/// Exit codes: 0 everything required is there (with --attack: nothing leaked), 1 something is not (leaked), 2 wrong usage,
/// and 112 to 125 as of `egress run` where nothing could be found out.
#[derive(Args, Debug)]
pub(super) struct Doctor {
    /// Attack a scope of its own, in network namespaces of its own, and judge at the receiving side what got out.
    #[arg(long)]
    attack: bool,
    /// Judge by this policy instead of one that allows next to nothing.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// With --attack: attack as this user (name or id); for root, as an ordinary user too.
    #[arg(long, value_name = "USER", requires = "attack")]
    user: Option<String>,
    /// With --attack: only attacks whose ids begin so, as in `a` or `k-relay`.
    #[arg(long, value_name = "ID", requires = "attack")]
    only: Vec<String>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

/// How the findings are printed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For test reports; with --attack.
    Junit,
}

/// Prints the findings; the exit code sums them up.
pub(super) fn main(arguments: &Doctor) -> ExitCode {
    match (arguments.attack, arguments.output) {
        (true, _) => attack(arguments),
        (false, Format::Junit) => refuse("--output junit goes with --attack"),
        (false, _) => examine(arguments),
    }
}

fn attack(arguments: &Doctor) -> ExitCode {
    let (policy, user, only) = (arguments.policy.clone(), arguments.user.clone(), arguments.only.clone());
    super::attack::main(&Options { policy, user, only, run: Vec::new() }, arguments.output)
}

fn examine(arguments: &Doctor) -> ExitCode {
    let policy = match &arguments.policy {
        Some(file) => policy::load(file, &[]),
        None => policy::from_command_line(&[]),
    };
    let policy = match policy {
        Ok(policy) => policy,
        Err(errors) => {
            return fail(
                exit::POLICY,
                &format!("the policy is invalid\n{}", errors.render(color(&io::stderr()))),
            );
        }
    };
    match doctor::examine(&policy, None) {
        Ok(report) => {
            match arguments.output {
                Format::Json => print_json(&report.json()),
                Format::Text | Format::Junit => {
                    let _gone = write!(io::stdout(), "{}", report.text(color(&io::stdout())));
                }
            }
            ExitCode::from(u8::from(!report.is_enough()))
        }
        Err(error) => fail(exit::of_run_error(&error), &error.to_string()),
    }
}

fn fail(code: u8, text: &str) -> ExitCode {
    let _gone = writeln!(io::stderr(), "egress: {text}");
    ExitCode::from(code)
}

fn refuse(text: &str) -> ExitCode {
    let _gone = writeln!(io::stderr(), "egress: {text}");
    ExitCode::from(exit::USAGE)
}
