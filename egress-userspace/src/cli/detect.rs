//! `egress policy detect`: asks the tools of this machine which hosts they are set up to use, prints rules for them.

mod tools;
mod url;

use std::{collections::BTreeMap, process::ExitCode};

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use serde_json::{Value, json};

use self::{
    tools::Answer,
    url::{Endpoint, Host},
};
use super::{Output, policy::print_json};

/// Tools that can be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Tool {
    /// Its indexes.
    Pip,
    /// Its registry and scoped registries.
    Npm,
    /// Its registries and replaced sources.
    Cargo,
    /// Its package sources.
    Apt,
    /// Remotes of the repository in the current directory.
    Git,
    /// Its module proxies.
    Go,
    /// Proxy variables of the environment.
    Proxy,
}

#[derive(Args, Debug)]
pub(super) struct Detect {
    /// Tools to ask; all of them if none is named.
    tools: Vec<Tool>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn main(arguments: &Detect) -> ExitCode {
    let tools = if arguments.tools.is_empty() { Tool::value_variants() } else { &arguments.tools };
    let mut found: BTreeMap<Endpoint, Vec<String>> = BTreeMap::new();
    let mut notes = Vec::new();
    for tool in tools {
        let answer = ask(*tool);
        for (endpoint, from) in answer.found {
            let sources = found.entry(endpoint).or_default();
            if !sources.contains(&from) {
                sources.push(from);
            }
        }
        notes.extend(answer.notes);
    }
    notes.dedup();
    match arguments.output {
        Output::Text => print!("{}", rules(&found, &notes)),
        Output::Json => {
            let rules: Vec<Value> = found.iter().map(|(endpoint, from)| rule_json(endpoint, from)).collect();
            print_json(&json!({ "version": 1, "rules": rules, "notes": notes }));
        }
    }
    ExitCode::SUCCESS
}

fn ask(tool: Tool) -> Answer {
    match tool {
        Tool::Pip => tools::pip(),
        Tool::Npm => tools::npm(),
        Tool::Cargo => tools::cargo(),
        Tool::Apt => tools::apt(),
        Tool::Git => tools::git(),
        Tool::Go => tools::go(),
        Tool::Proxy => tools::proxy(),
    }
}

/// Rules to paste into a policy.
fn rules(found: &BTreeMap<Endpoint, Vec<String>>, notes: &[String]) -> String {
    let mut text = String::from("# What the tools of this machine are set up to use.\n");
    for note in notes {
        text.push_str(&format!("# Note: {}\n", printable(note)));
    }
    if found.is_empty() {
        text.push_str("allow: []\n");
        return text;
    }
    text.push_str("allow:\n");
    for (endpoint, sources) in found {
        for source in sources {
            text.push_str(&format!("  # {}\n", printable(source)));
        }
        let target = match &endpoint.host {
            Host::Name(name) => format!("host: \"{name}\""),
            Host::Address(address) => format!("cidr: \"{}\"", IpNet::from(*address)),
        };
        text.push_str(&format!("  - {target}\n    ports: [{}]\n", endpoint.port));
    }
    text
}

/// A comment ends with its line, whatever a configuration holds.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn rule_json(endpoint: &Endpoint, from: &[String]) -> Value {
    match &endpoint.host {
        Host::Name(name) => json!({ "host": name, "ports": [endpoint.port], "from": from }),
        Host::Address(address) => {
            json!({ "cidr": IpNet::from(*address).to_string(), "ports": [endpoint.port], "from": from })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_a_policy_and_comments_stay_comments() {
        let mut found = BTreeMap::new();
        let endpoint = |text: &str| url::endpoint(text).unwrap();
        found.insert(
            endpoint("https://mirror.example/"),
            vec!["a\nallow: everything".to_owned(), "b".to_owned()],
        );
        found.insert(endpoint("https://[2001:db8::7]:8443/"), vec!["c".to_owned()]);
        let text = format!("version: 1\nname: p\n{}", rules(&found, &["d\re".to_owned()]));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.yaml");
        std::fs::write(&path, text).unwrap();
        let policy = crate::policy::load(&path, &[]).unwrap();
        let rules: Vec<String> = policy.rules.iter().map(ToString::to_string).collect();
        assert_eq!(rules, ["host mirror.example ports 443/tcp", "cidr 2001:db8::7/128 ports 8443/tcp"]);
    }
}
