//! What does not leave the host: unix sockets, what comes in, and the host's own addresses. Receives what is asked about,
//! gives verdicts by the same functions that judge at run time.

use std::net::IpAddr;

use egress_common::{Decision, Peer, Reason, Verdict};

use super::{Destination, Explanation, Why, beside_what_is_set, remedy::unix_line};
use crate::{
    compile::{Compiled, RuleInfo, UnixName, UnixRule, memory::MemoryTables},
    policy::{Action, Policy, Target, Unix},
};

/// What the policy does with a unix socket of a process outside, by the name that it is bound to.
pub(super) fn unix(
    policy: &Policy,
    compiled: &Compiled,
    destination: &Destination,
    name: &str,
) -> Explanation {
    let bound = match name.strip_prefix('@') {
        Some(name) => UnixName::Abstract(name.as_bytes()),
        None => UnixName::Path(name.as_bytes()),
    };
    let decision = compiled.decide_unix(Some(bound), false);
    let mut notes = Vec::new();
    if decision.reason == Reason::Unix {
        notes.push(match compiled.unix {
            Unix::None => "`unix: none` closes sockets of the same scope too".to_owned(),
            _ => "a socket of the same scope is reached by this name".to_owned(),
        });
    }
    if decision.reason == Reason::Rule {
        notes.push("holds for the socket that is bound to this name, whatever links lead there".into());
    }
    let nearest = policy.rules.iter().filter(|_| decision.reason == Reason::DenyRule).filter_map(|rule| {
        let (Target::Unix(pattern), Action::Allow) = (&rule.target, rule.action) else { return None };
        let covers = UnixRule { id: 0, allow: true, pattern: pattern.clone() }.covers(bound);
        let info = RuleInfo { origin: rule.origin.clone(), text: rule.to_string() };
        covers.then(|| ("covers it, but deny goes before allow".to_owned(), info))
    });
    let remedy = if decision.reason == Reason::Unix { unix_line(name) } else { None };
    Explanation { nearest: nearest.collect(), remedy, ..of(compiled, destination, decision, notes) }
}

/// What the policy does with a connection that somebody outside opens to a port of the scope.
pub(super) fn inbound(policy: &Policy, compiled: &Compiled, destination: &Destination) -> Explanation {
    let (transport, port) = (destination.transport, destination.port);
    let decision = MemoryTables::new(compiled).decide_inbound(transport, port, Peer::Remote);
    let notes = match decision.verdict {
        Verdict::Deny => vec!["answers to what the scope began come in whatever the port".to_owned()],
        _ => Vec::new(),
    };
    let remedy = (decision.verdict == Verdict::Deny)
        .then(|| beside_what_is_set(policy, port, format!("inbound: [{port}]")));
    Explanation { remedy, ..of(compiled, destination, decision, notes) }
}

/// What more there is to say of an address of the host itself.
pub(super) fn note(compiled: &Compiled, address: IpAddr, reason: Reason) -> Option<String> {
    if reason != Reason::Loopback {
        return None;
    }
    let itself =
        if compiled.own_addresses.contains(&address) { "it is an address of this host; " } else { "" };
    Some(match compiled.own {
        true => format!("{itself}a socket of the same scope is reached there, anybody else's is not"),
        false => format!("{itself}`loopback: none` closes sockets of the same scope too"),
    })
}

fn of(
    compiled: &Compiled,
    destination: &Destination,
    decision: Decision,
    mut notes: Vec<String>,
) -> Explanation {
    let verdict = decision.in_mode(&MemoryTables::new(compiled).scope()).verdict;
    if verdict == Verdict::Audit {
        notes.push("audit mode: it is reported and let pass".into());
    }
    Explanation {
        destination: destination.clone(),
        verdict,
        reason: Why::Flow(decision.reason),
        rule: compiled.rule(decision.rule).cloned(),
        question: None,
        nearest: Vec::new(),
        remedy: None,
        notes,
    }
}
