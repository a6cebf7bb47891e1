//! Names: what a question for one gets, and what a connection to it meets afterwards. The question is judged by the very
//! filter that judges it when it is asked; search suffixes and the minute's other new names only the moment can tell.

use std::sync::Arc;

use egress_common::{Address, Decision, Flow, Peer, Reason, RuleId};

use super::{ANY_ADDRESS, Destination, remedy::wider};
use crate::{
    compile::{Compiled, HostRule, memory::MemoryTables},
    dns::{
        filter::{Filter, Ruling},
        message::{self, Incoming},
        told::DnsReason,
    },
    policy::{Bounds, Dns, Refusal, query_type_name},
};

/// Query types that give addresses.
const ADDRESS_TYPES: [u16; 2] = [1, 28];

/// What a question for a name comes to.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The name.
    pub(super) name: String,
    /// Why.
    pub(super) reason: DnsReason,
    /// The rule that lists or denies it.
    pub(super) rule: Option<RuleId>,
    /// The allow rules that cover it, the closest first.
    pub(super) rules: Arc<[HostRule]>,
}

impl Asked {
    /// Whether it is answered.
    pub(super) const fn passes(&self) -> bool {
        matches!(self.reason, DnsReason::Listed | DnsReason::Local)
    }

    /// Whether only a wildcard allows the name, and which.
    fn wildcard(&self) -> Option<&str> {
        let closest = self.rules.first()?;
        (closest.host != self.name).then_some(closest.host.as_str())
    }
}

/// Judges a question for addresses of a name.
pub(super) fn ask(compiled: &Compiled, name: &str) -> Asked {
    // A question that is refused for its type says nothing of the name.
    let dns = Dns { types: vec![ADDRESS_TYPES[0]], ..compiled.dns.clone() };
    let mut filter = Filter::new(&Compiled { dns, ..compiled.clone() }, Vec::new());
    let rules = filter.rules(name).map_or_else(|| Arc::from([]), |(rules, _)| rules);
    let question = message::ask(0, name, ADDRESS_TYPES[0], false).map(|bytes| message::read(&bytes));
    let (reason, rule) = match question {
        Ok(Incoming::Question(question)) => match filter.judge(&question, 0) {
            Ruling::Ask { rule, .. } => (DnsReason::Listed, Some(rule)),
            Ruling::Refuse { reason, rule } => (reason, rule),
            Ruling::Local(_) => (DnsReason::Local, None),
        },
        _ => (DnsReason::Malformed, None),
    };
    Asked { name: name.to_owned(), reason, rule, rules }
}

/// The setting that widens the bound which stops a name.
pub(super) fn widened(compiled: &Compiled, asked: &Asked) -> Option<String> {
    let setting = wider(asked.reason, &compiled.dns.wildcard, &asked.name, asked.wildcard()?)?;
    Some(format!("the bound is widened by {setting}"))
}

/// Judges a connection to whatever the name resolves to. `None`: its question is refused, so nothing is opened.
pub(super) fn decide(
    compiled: &Compiled,
    asked: &Asked,
    destination: &Destination,
    notes: &mut Vec<String>,
) -> Option<Decision> {
    // Tables in which only the name's own permits are: what holds for any address without rules of its own.
    let names_only = Compiled { hosts: compiled.hosts.clone(), ..Compiled::default() };
    let mut tables = MemoryTables::new(&names_only);
    if asked.passes() {
        // Of two that open the same the last one written stands: the closest.
        for host in asked.rules.iter().rev() {
            tables.permit(host, Address::from(ANY_ADDRESS), 1);
        }
    }
    let (transport, port) = (destination.transport, destination.port);
    let flow = Flow { transport, address: ANY_ADDRESS.into(), port, local_port: 0, peer: Peer::Remote };
    let decision = tables.decide(&flow);
    if asked.reason == DnsReason::DenyRule {
        notes.push("the name is denied; an address that it shares with an allowed name is not".into());
    }
    if decision.reason == Reason::Permit {
        notes.push(resolved(compiled, decision.rule));
        notes.extend(bounded(compiled, asked));
        notes.extend(no_addresses(compiled));
    }
    // What is closed whatever the name is says more than that the name is refused.
    (asked.passes() || decision.reason == Reason::Dns).then_some(decision)
}

fn resolved(compiled: &Compiled, rule: RuleId) -> String {
    let private = compiled.hosts.iter().any(|host| host.id == rule && host.private);
    let but = match private {
        true => "",
        false => "private, loopback, ",
    };
    format!(
        "holds for the addresses that the name resolves to, except {but}metadata, link-local and denied ones"
    )
}

/// The bounds on a name that only a wildcard allows.
fn bounded(compiled: &Compiled, asked: &Asked) -> Option<String> {
    let Bounds { label, name: longest, new_names } = compiled.dns.wildcard;
    let exchanges = compiled.dns.wildcard.exchanges();
    asked.wildcard().map(|_| {
        format!(
            "a wildcard allows it: within dns.wildcard labels may have {label} bytes, names {longest}, and {new_names} \
             new names are asked a minute, with {exchanges} questions to name servers for all names"
        )
    })
}

fn no_addresses(compiled: &Compiled) -> Option<String> {
    let none = !ADDRESS_TYPES.iter().any(|number| compiled.dns.types.contains(number));
    none.then(|| "dns.types has neither A nor AAAA, so that no question gives an address".into())
}

/// What the client is told, in words.
pub(super) fn answer(compiled: &Compiled, asked: &Asked) -> String {
    let types: Vec<_> = compiled.dns.types.iter().map(|number| query_type_name(*number)).collect();
    let refusal = match compiled.dns.refusal {
        Refusal::NxDomain => "NXDOMAIN",
        Refusal::Refused => "REFUSED",
    };
    match asked.reason {
        DnsReason::Local => "answered with the loopback addresses".into(),
        _ if asked.passes() => format!("asked upstream, for {}", types.join(", ")),
        reason if compiled.audit => format!("answered in audit mode only ({})", reason.name()),
        reason => format!("answered with {refusal} ({})", reason.name()),
    }
}
