//! Verdicts in words: receives a compiled policy and a destination, gives the verdict with its reason, rule and line,
//! and for a denial what came nearest and what would allow it. Never decides by itself: it asks
//! [`egress_common::decide()`].

mod destination;
mod local;
mod name;
mod nearest;
mod remedy;

use std::net::IpAddr;

use egress_common::{Address, Decision, Flow, Peer, Reason, Transport, Verdict};

use crate::{
    compile::{Compiled, RuleInfo, memory::MemoryTables},
    dns::{special::refusal_of_rule, told::DnsReason},
    policy::{Inbound, Loopback, Policy},
};

pub use destination::{Destination, DestinationError, To};
pub(crate) use remedy::{name_line, wider};
pub use remedy::{remedy, unix_line};

/// Why a destination is allowed or denied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    /// The connection was judged.
    Flow(Reason),
    /// The question for its name is refused, so that no address is opened.
    Question(DnsReason),
}

impl Why {
    /// The word in events and on screen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flow(reason) => reason.name(),
            Self::Question(reason) => reason.name(),
        }
    }

    /// As a sentence without a full stop.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Flow(reason) => reason_text(reason),
            Self::Question(reason) => reason.text(),
        }
    }
}

/// What a question for a name gets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Question {
    /// Whether it is answered; [`Verdict::Audit`] if only because nothing is refused.
    pub verdict: Verdict,
    /// Why.
    pub reason: DnsReason,
    /// What the client is told, in words.
    pub answer: String,
}

/// A verdict in words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Explanation {
    /// What was asked about.
    pub destination: Destination,
    /// What happens to it.
    pub verdict: Verdict,
    /// Why.
    pub reason: Why,
    /// The rule that decided, if one did.
    pub rule: Option<RuleInfo>,
    /// What a question for the name gets, if it is a name.
    pub question: Option<Question>,
    /// For a denial: rules that came nearest, each with what keeps it from allowing.
    pub nearest: Vec<(String, RuleInfo)>,
    /// For a denial: the line of policy that would allow it.
    pub remedy: Option<String>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// What the policy does with a destination. Asks no resolver: of a name it says what its addresses will meet.
pub fn explain(policy: &Policy, compiled: &Compiled, destination: &Destination) -> Explanation {
    let mut notes = Vec::new();
    let asked = match &destination.to {
        To::Name(name) => Some(name::ask(compiled, name)),
        To::Address(_) => None,
        To::Unix(name) => return local::unix(policy, compiled, destination, name),
        To::Inbound => return local::inbound(policy, compiled, destination),
    };
    let (decision, reason) = judge(compiled, destination, asked.as_ref(), &mut notes);
    notes.extend(dns_note(decision.reason, destination.port));
    notes.extend(asked.as_ref().and_then(|asked| name::widened(compiled, asked)));
    let verdict = decision.in_mode(&MemoryTables::new(compiled).scope()).verdict;
    let denied = decision.verdict == Verdict::Deny;
    if verdict == Verdict::Audit {
        notes.push("audit mode: it is reported and let pass".into());
    }
    let address = match &destination.to {
        To::Address(address) => *address,
        _ => ANY_ADDRESS,
    };
    let name = asked.as_ref().map(|asked| asked.name.as_str());
    let remedy = denied
        .then(|| remedy(name, address, destination.port, destination.transport, decision.reason))
        .flatten()
        .map(|line| beside_what_is_set(policy, destination.port, line));
    Explanation {
        destination: destination.clone(),
        verdict,
        reason,
        rule: compiled.rule(decision.rule).cloned(),
        question: asked.as_ref().map(|asked| question(compiled, asked)),
        nearest: if denied { nearest::nearest(policy, destination, reason) } else { Vec::new() },
        remedy,
        notes,
    }
}

fn judge(
    compiled: &Compiled,
    destination: &Destination,
    asked: Option<&name::Asked>,
    notes: &mut Vec<String>,
) -> (Decision, Why) {
    let decision = match (&destination.to, asked) {
        (To::Address(address), _) => decide_address(compiled, *address, destination, notes),
        (To::Name(_), Some(asked)) if asked.reason == DnsReason::Local && asked.rules.is_empty() => {
            decide_address(compiled, LOCALHOST, destination, notes)
        }
        (To::Name(_), Some(asked)) => match name::decide(compiled, asked, destination, notes) {
            Some(decision) => decision,
            None => {
                let reason = match asked.reason {
                    DnsReason::DenyRule => Reason::DenyRule,
                    _ => Reason::NoRule,
                };
                return (Decision::deny(reason, asked.rule.unwrap_or(0)), Why::Question(asked.reason));
            }
        },
        _ => Decision::deny(Reason::NoRule, 0),
    };
    (decision, Why::Flow(decision.reason))
}

fn question(compiled: &Compiled, asked: &name::Asked) -> Question {
    let verdict = match asked.passes() {
        true => Verdict::Allow,
        false if compiled.audit => Verdict::Audit,
        false => Verdict::Deny,
    };
    Question { verdict, reason: asked.reason, answer: name::answer(compiled, asked) }
}

fn dns_note(reason: Reason, port: u16) -> Option<String> {
    if reason != Reason::Dns {
        return None;
    }
    Some(match port {
        egress_common::question::DNS => {
            "a question to port 53 of any server reaches egress instead, which answers it for the names that the policy lists"
                .into()
        }
        _ => "clients that prefer DNS over TLS or QUIC fall back to port 53, where egress answers".into(),
    })
}

/// A setting stands once in a file: a line for it keeps what it opens already.
fn beside_what_is_set(policy: &Policy, port: u16, line: String) -> String {
    let (setting, ports) = match (&policy.loopback, &policy.inbound) {
        (Loopback::Ports(ports), _) if line.starts_with("loopback:") => ("loopback", ports),
        (_, Inbound::Ports(ports)) if line.starts_with("inbound:") => ("inbound", ports),
        _ => return line,
    };
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    format!("{setting}: [{}, {port}]", ports.join(", "))
}

/// Stands for whatever a name resolves to: an address that no table speaks of.
const ANY_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// What `localhost` is.
const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn decide_address(
    compiled: &Compiled,
    address: IpAddr,
    destination: &Destination,
    notes: &mut Vec<String>,
) -> Decision {
    let address = Address::from(address);
    let judged = address.judged();
    if judged != address {
        notes.push(format!("judged by the IPv4 address inside it, {judged}"));
    }
    let flow = Flow {
        transport: destination.transport,
        address,
        port: destination.port,
        local_port: 0,
        peer: Peer::Remote,
    };
    let decision = MemoryTables::new(compiled).decide(&flow);
    notes.extend(local::note(compiled, judged.to_ip(), decision.reason));
    let by_name = matches!(decision.reason, Reason::NoRule | Reason::Loopback);
    let names: Vec<&str> = opened_by_names(compiled, destination, judged.to_ip()).take(5).collect();
    if by_name && !names.is_empty() {
        notes.push(format!(
            "the address is open on this port while a listed name resolves to it: {}",
            names.join(", ")
        ));
    }
    decision
}

/// Names and wildcards that are open on the destination's port and may resolve to its address.
fn opened_by_names<'c>(
    compiled: &'c Compiled,
    destination: &Destination,
    address: IpAddr,
) -> impl Iterator<Item = &'c str> {
    let (port, transport) = (destination.port, destination.transport);
    compiled
        .hosts
        .iter()
        .filter(move |host| {
            let opens = host.ports.iter().any(|range| range.contains(port));
            opens && host.transports.contains(&transport) && refusal_of_rule(host, address).is_none()
        })
        .map(|host| host.host.as_str())
}

/// `tcp`, `udp` or `icmp`.
pub(crate) fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::Icmp => "icmp",
    }
}

/// A reason as a sentence without a full stop.
pub const fn reason_text(reason: Reason) -> &'static str {
    match reason {
        Reason::NoPolicy => "the scope has no policy yet",
        Reason::NoRule => "no rule covers it",
        Reason::DenyRule => "a deny rule covers it",
        Reason::Expired => "the answer that opened it has expired",
        Reason::Loopback => "it is this host itself, and `loopback` does not open it",
        Reason::Metadata => "it is a metadata service, which only a `cidr` rule for it opens",
        Reason::LinkLocal => "it is link-local, which only a `cidr` rule within opens",
        Reason::Multicast => "it is multicast, which only a `cidr` rule within opens",
        Reason::Broadcast => "it is broadcast or reserved, which only a `cidr` rule within opens",
        Reason::Transport => "it is neither TCP, UDP nor ping",
        Reason::NotPlain => {
            "the packet has options, extension headers, is a fragment, or leaves for this host through another device"
        }
        Reason::SocketType => {
            "only TCP and UDP sockets can be made, and for ping where a rule says `protocol: icmp`"
        }
        Reason::Rule => "a rule covers it",
        Reason::Permit => "its name is allowed",
        Reason::Dns => "ports 53 and 853 are closed: names are asked through egress's own resolver",
        Reason::Own => "it is a socket of the same scope",
        Reason::Inbound => "it comes from outside the scope",
        Reason::Unix => "it is a unix socket of a process outside the scope, and no `unix` rule opens it",
        // No question of `explain` is about these.
        Reason::SocketOption
        | Reason::Family
        | Reason::Descriptor
        | Reason::Process
        | Reason::Cgroup
        | Reason::Bpf
        | Reason::Namespace
        | Reason::Sysctl
        | Reason::Device
        | Reason::Syscall => "it leads out of the scope",
    }
}
