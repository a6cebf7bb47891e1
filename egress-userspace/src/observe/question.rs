//! One question for a name, enriched: receives what the resolver told of it, gives it with wall time, rule, process and
//! what would allow it. The name is the client's choice: whoever prints it escapes it.

use std::{borrow::Cow, net::IpAddr};

use egress_common::{Address, Transport, Verdict};

use super::record::{Process, RuleRef, process, rule};
use crate::{
    compile::{Compiled, HostRule, PortRange},
    dns::{
        special::refusal,
        told::{DnsReason, Dropped, Told},
    },
    explain::{name_line, wider},
    policy::{may_be_listed, query_type_name},
};

/// Port of the line that lists a name: a question says nothing of what is to follow.
const PORT: u16 = 443;

/// One question for a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Question {
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
    /// Answered, refused, or answered only because of audit mode.
    pub verdict: Verdict,
    /// Why.
    pub reason: DnsReason,
    /// The rule that decided.
    pub rule: Option<RuleRef>,
    /// The name in lower case, bytes outside printable ASCII as `\DDD`; empty for the root.
    pub name: String,
    /// Query type.
    pub query_type: u16,
    /// Query class.
    pub class: u16,
    /// How it was asked.
    pub transport: Transport,
    /// The server that the client believes to ask.
    pub server: Option<IpAddr>,
    /// Who; `None` if unknown.
    pub process: Option<Process>,
    /// Cgroup id of the process.
    pub cgroup: u64,
    /// Path of that cgroup, if known.
    pub cgroup_path: Option<String>,
    /// Socket cookie.
    pub cookie: Option<u64>,
    /// Response code.
    pub rcode: u16,
    /// Addresses that the answer carries.
    pub addresses: Vec<IpAddr>,
    /// Addresses that were taken out of it.
    pub dropped: Vec<Dropped>,
    /// Names on the way to the addresses.
    pub aliases: Vec<String>,
    /// Seconds that the client may keep the answer.
    pub ttl: Option<u32>,
    /// The entry of `allow:` that would allow it.
    pub remedy: Option<String>,
    /// The setting that would allow it.
    pub setting: Option<String>,
}

impl Question {
    /// What can be said without asking the system; `offset` leads from `CLOCK_BOOTTIME` to wall time.
    pub fn of(told: &Told, compiled: &Compiled, offset: u64) -> Self {
        let asker = &told.asker;
        let refused = told.verdict != Verdict::Allow;
        Self {
            time: told.time.saturating_add(offset),
            verdict: told.verdict,
            reason: told.reason,
            rule: told.rule.and_then(|id| rule(id, compiled)),
            name: told.name.clone(),
            query_type: told.query_type,
            class: told.class,
            transport: told.transport,
            server: (asker.server != Address::ZERO).then(|| asker.server.to_ip()),
            process: process(&asker.owner),
            cgroup: asker.cgroup,
            cgroup_path: None,
            cookie: (asker.cookie != 0).then_some(asker.cookie),
            rcode: told.rcode,
            addresses: told.addresses.clone(),
            dropped: told.dropped.clone(),
            aliases: told.aliases.clone(),
            ttl: told.ttl,
            remedy: remedy(told, compiled, refused),
            setting: if refused { setting(told, compiled) } else { None },
        }
    }

    /// The name for people; the root is a dot.
    pub fn shown_name(&self) -> &str {
        shown_name(&self.name)
    }

    /// Whether a person needs to know of it: it was refused, it failed, or an address was taken out.
    pub fn is_news(&self) -> bool {
        is_news(self.verdict, self.reason, &self.dropped)
    }
}

/// Whether a person needs to know of a question. A listed name with a search suffix is a client's own guess.
pub fn is_news(verdict: Verdict, reason: DnsReason, dropped: &[Dropped]) -> bool {
    reason != DnsReason::Search
        && (verdict != Verdict::Allow || FAILURES.contains(&reason) || !dropped.is_empty())
}

/// The policy would have had it answered, and something else prevented it.
pub const FAILURES: [DnsReason; 3] = [DnsReason::NoPermit, DnsReason::Upstream, DnsReason::NoListener];

/// The name for people; the root is a dot.
pub(super) fn shown_name(name: &str) -> &str {
    if name.is_empty() { "." } else { name }
}

fn remedy(told: &Told, compiled: &Compiled, refused: bool) -> Option<String> {
    let (ports, transports) = ([PortRange::one(PORT)], [Transport::Tcp]);
    match told.reason {
        DnsReason::NotListed | DnsReason::LabelBound | DnsReason::NameBound | DnsReason::RateBound
            if refused =>
        {
            name_line(&told.name, &ports, &transports, false)
        }
        _ if told.dropped.iter().any(|dropped| refusal(dropped.address, true).is_none()) => {
            let HostRule { ports, transports, .. } =
                compiled.hosts.iter().find(|host| Some(host.id) == told.rule)?;
            name_line(&told.name, ports, transports, true)
        }
        _ => None,
    }
}

fn setting(told: &Told, compiled: &Compiled) -> Option<String> {
    if told.reason != DnsReason::Type {
        let listing = compiled.hosts.iter().find(|host| Some(host.id) == told.rule);
        let wildcard = listing.map_or("", |host| host.host.as_str());
        return wider(told.reason, &compiled.dns.wildcard, &told.name, wildcard);
    }
    if !may_be_listed(told.query_type) {
        return None;
    }
    let mut types = compiled.dns.types.clone();
    types.push(told.query_type);
    types.sort_unstable();
    types.dedup();
    let names: Vec<Cow<'_, str>> = types.into_iter().map(query_type_name).collect();
    Some(format!("dns: {{ types: [{}] }}", names.join(", ")))
}

/// The name of a response code (RFC 6895 §2.3).
pub fn rcode_name(number: u16) -> Cow<'static, str> {
    Cow::Borrowed(match number {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        16 => "BADVERS",
        _ => return format!("RCODE{number}").into(),
    })
}

#[cfg(test)]
pub(crate) mod tests;
