//! Verdicts in words: receives a compiled policy and a destination, gives the verdict with its reason, rule and line,
//! and for a denial what came nearest and what would allow it. Never decides by itself: it asks
//! [`egress_common::decide()`].

mod nearest;

use std::{fmt, net::IpAddr, str::FromStr};

use egress_common::{Address, Decision, Flow, Reason, RuleId, Transport, Verdict};
use thiserror::Error;

use crate::{
    compile::{Compiled, RuleInfo, memory::MemoryTables},
    policy::{
        Loopback, Policy,
        net::{is_host_name, is_private},
        parse_host, split_port, split_transport,
    },
};

/// A destination that one asks about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Destination {
    /// A name or an address.
    pub to: To,
    /// Its port.
    pub port: u16,
    /// TCP unless it says otherwise.
    pub transport: Transport,
}

/// Name or address of a destination.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum To {
    /// A host name in normal form.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// Why a text is no destination.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
pub enum DestinationError {
    /// No port, or no name before it.
    #[error("`{0}` is no destination: expected host:port, ip:port or [v6]:port, and /udp for UDP")]
    Form(String),
    /// No port number.
    #[error("`{0}` is no destination: its port is no number from 1 to 65535")]
    Port(String),
    /// Neither a host name nor an address.
    #[error("`{0}` is no destination: its host is neither a name nor an address")]
    Host(String),
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let form = || DestinationError::Form(text.to_owned());
        let (rest, transports) = split_transport(text);
        let [transport] = transports[..] else { return Err(form()) };
        let (host, port) = split_port(rest).ok_or_else(form)?;
        let port = match port.parse::<u16>() {
            Ok(port) if port > 0 && !rest.ends_with(&format!("+{port}")) => port,
            _ => return Err(DestinationError::Port(text.to_owned())),
        };
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let to = match bare.unwrap_or(host).parse::<IpAddr>() {
            Ok(address) => To::Address(address),
            Err(_) => match parse_host(host) {
                Ok(name) if !name.starts_with("*.") => To::Name(name),
                _ => return Err(DestinationError::Host(text.to_owned())),
            },
        };
        Ok(Self { to, port, transport })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            To::Name(name) => write!(f, "{name}")?,
            To::Address(IpAddr::V4(v4)) => write!(f, "{v4}")?,
            To::Address(IpAddr::V6(v6)) => write!(f, "[{v6}]")?,
        }
        write!(f, ":{}/{}", self.port, transport_name(self.transport))
    }
}

/// A verdict in words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Explanation {
    /// What was asked about.
    pub destination: Destination,
    /// What happens to it.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The rule that decided, if one did.
    pub rule: Option<RuleInfo>,
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
    let decision = match &destination.to {
        To::Name(name) => decide_name(compiled, name, destination, &mut notes),
        To::Address(address) => decide_address(compiled, *address, destination, &mut notes),
    };
    let scope = MemoryTables::new(compiled).scope();
    let verdict = decision.in_mode(&scope).verdict;
    let denied = decision.verdict == Verdict::Deny;
    if verdict == Verdict::Audit {
        notes.push("audit mode: it is reported and let pass".into());
    }
    let (name, address) = match &destination.to {
        To::Name(name) => (Some(name.as_str()), ANY_ADDRESS),
        To::Address(address) => (None, *address),
    };
    let remedy = denied
        .then(|| remedy(name, address, destination.port, destination.transport, decision.reason))
        .flatten()
        .map(|line| beside_what_is_set(policy, destination.port, line));
    Explanation {
        destination: destination.clone(),
        verdict,
        reason: decision.reason,
        rule: compiled.rule(decision.rule).cloned(),
        nearest: if denied { nearest::nearest(policy, destination, decision.reason) } else { Vec::new() },
        remedy,
        notes,
    }
}

/// A setting stands once in a file: a line for it keeps what it opens already.
fn beside_what_is_set(policy: &Policy, port: u16, line: String) -> String {
    match &policy.loopback {
        Loopback::Ports(ports) if line.starts_with("loopback:") => {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            format!("loopback: [{}, {port}]", ports.join(", "))
        }
        _ => line,
    }
}

/// Stands for whatever a name resolves to: an address that no table speaks of.
const ANY_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

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
    let flow = Flow { transport: destination.transport, address, port: destination.port, local_port: 0 };
    let decision = MemoryTables::new(compiled).decide(&flow);
    let by_name = matches!(decision.reason, Reason::NoRule | Reason::Loopback);
    if by_name && opened_by_names(compiled, destination).next().is_some() {
        let names: Vec<&str> = opened_by_names(compiled, destination).take(5).collect();
        notes.push(format!(
            "the address is open on this port while a listed name resolves to it: {}",
            names.join(", ")
        ));
    }
    decision
}

/// Exact names that are open on the destination's port.
fn opened_by_names<'c>(compiled: &'c Compiled, destination: &Destination) -> impl Iterator<Item = &'c str> {
    let (port, transport) = (destination.port, destination.transport);
    compiled
        .hosts
        .iter()
        .filter(move |host| {
            host.transports.contains(&transport) && host.ports.iter().any(|range| range.contains(port))
        })
        .filter(|host| !host.host.starts_with("*."))
        .map(|host| host.host.as_str())
}

fn decide_name(
    compiled: &Compiled,
    name: &str,
    destination: &Destination,
    notes: &mut Vec<String>,
) -> Decision {
    if let Some(rule) = compiled.denied_name(name) {
        notes.push("the name is denied; an address that it shares with an allowed name is not".into());
        return Decision::deny(Reason::DenyRule, rule);
    }
    // Tables in which only the name's own permits are: what holds for any address without rules of its own.
    let names_only = Compiled { hosts: compiled.hosts.clone(), ..Compiled::default() };
    let mut tables = MemoryTables::new(&names_only);
    let address = Address::from(ANY_ADDRESS);
    for host in compiled.hosts.iter().rev().filter(|host| host.host == name) {
        tables.permit(host, address, 1);
    }
    let (transport, port) = (destination.transport, destination.port);
    let exact = tables.decide(&Flow { transport, address, port, local_port: 0 });
    if exact.verdict == Verdict::Allow {
        notes.push(resolved(compiled, exact.rule));
    }
    exact
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

/// `tcp` or `udp`.
pub(crate) fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}

/// A reason as a sentence without a full stop.
pub fn reason_text(reason: Reason) -> &'static str {
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
        Reason::Transport => "it is neither TCP nor UDP",
        Reason::NotPlain => "the packet has options, extension headers or is a fragment",
        Reason::SocketType => "no rule can open this kind of socket",
        Reason::Rule => "a rule covers it",
        Reason::Permit => "its name is allowed",
        Reason::Dns => {
            "names are asked of egress's own resolver only, which answers on port 53 of every server"
        }
    }
}

/// The one line of policy that would allow a denied destination, or `None` if no line can.
///
/// A line with `loopback:` is a setting of the policy's top level, the others are entries of `allow:`. The name is
/// used where a name can open the address; it may come from an untrusted answer, so one that is no host name is
/// passed over.
pub fn remedy(
    name: Option<&str>,
    address: IpAddr,
    port: u16,
    transport: Transport,
    reason: Reason,
) -> Option<String> {
    if port == 0 {
        return None;
    }
    let address = Address::from(address).judged().to_ip();
    match reason {
        Reason::NoRule | Reason::Expired => match name.map(normal).filter(|name| is_host_name(name)) {
            Some(name) => Some(host_line(&name, port, transport, is_private(address))),
            None => Some(cidr_line(address, port, transport)),
        },
        Reason::Metadata | Reason::LinkLocal | Reason::Multicast | Reason::Broadcast => {
            Some(cidr_line(address, port, transport))
        }
        Reason::Loopback => Some(format!("loopback: [{port}]")),
        Reason::NoPolicy | Reason::DenyRule | Reason::Transport | Reason::NotPlain | Reason::SocketType => {
            None
        }
        Reason::Rule | Reason::Permit | Reason::Dns => None,
    }
}

fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn host_line(name: &str, port: u16, transport: Transport, private: bool) -> String {
    // A name such as `1.5` or `null` would be a number or nothing to a YAML reader.
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.contains('.');
    let host = if plain { name.to_owned() } else { format!("\"{name}\"") };
    let private = if private { ", private: true" } else { "" };
    format!("- {{ host: {host}, ports: [{port}]{}{private} }}", protocol(transport))
}

fn cidr_line(address: IpAddr, port: u16, transport: Transport) -> String {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let mut cidr = format!("{address}/{bits}");
    // A plain scalar within braces cannot begin with a colon.
    if cidr.starts_with(':') {
        cidr = format!("\"{cidr}\"");
    }
    format!("- {{ cidr: {cidr}, ports: [{port}]{} }}", protocol(transport))
}

fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "",
        Transport::Udp => ", protocol: udp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: Option<&str>, address: &str, port: u16, transport: Transport, reason: Reason) -> String {
        remedy(name, address.parse().unwrap(), port, transport, reason).unwrap_or_else(|| "none".into())
    }

    #[test]
    fn a_name_is_used_where_a_name_can_open() {
        let tcp = Transport::Tcp;
        for (name, address, reason, expected) in [
            (
                Some("collect.attacker.example"),
                "203.0.113.66",
                Reason::NoRule,
                "- { host: collect.attacker.example, ports: [443] }",
            ),
            (Some("API.Example."), "203.0.113.66", Reason::Expired, "- { host: api.example, ports: [443] }"),
            (
                Some("db.example"),
                "10.0.0.1",
                Reason::NoRule,
                "- { host: db.example, ports: [443], private: true }",
            ),
            (Some("localdb"), "203.0.113.66", Reason::NoRule, "- { host: \"localdb\", ports: [443] }"),
            (None, "203.0.113.66", Reason::NoRule, "- { cidr: 203.0.113.66/32, ports: [443] }"),
            (None, "2001:db8::1", Reason::NoRule, "- { cidr: 2001:db8::1/128, ports: [443] }"),
            (None, "64:ff9b::203.0.113.66", Reason::NoRule, "- { cidr: 203.0.113.66/32, ports: [443] }"),
            (None, "::2", Reason::NoRule, "- { cidr: \"::2/128\", ports: [443] }"),
            // A name cannot open metadata.
            (
                Some("api.example"),
                "169.254.169.254",
                Reason::Metadata,
                "- { cidr: 169.254.169.254/32, ports: [443] }",
            ),
            (None, "127.0.0.1", Reason::Loopback, "loopback: [443]"),
        ] {
            assert_eq!(line(name, address, 443, tcp, reason), expected);
        }
    }

    #[test]
    fn udp_is_written_out() {
        assert_eq!(
            line(None, "203.0.113.66", 53, Transport::Udp, Reason::NoRule),
            "- { cidr: 203.0.113.66/32, ports: [53], protocol: udp }"
        );
        assert_eq!(
            line(Some("ntp.example"), "203.0.113.66", 123, Transport::Udp, Reason::NoRule),
            "- { host: ntp.example, ports: [123], protocol: udp }"
        );
    }

    #[test]
    fn what_no_line_opens_has_no_remedy() {
        for reason in [
            Reason::NoPolicy,
            Reason::DenyRule,
            Reason::Transport,
            Reason::NotPlain,
            Reason::SocketType,
            Reason::Rule,
            Reason::Permit,
        ] {
            assert_eq!(line(None, "203.0.113.66", 443, Transport::Tcp, reason), "none", "{reason:?}");
        }
        assert_eq!(line(None, "203.0.113.66", 0, Transport::Tcp, Reason::NoRule), "none");
    }

    #[test]
    fn a_hostile_name_never_reaches_the_line() {
        for name in ["a.example, ports: [1-65535]", "*.example", "", "a..example", "é.example", "192.0.2.1"]
        {
            assert_eq!(
                line(Some(name), "203.0.113.66", 443, Transport::Tcp, Reason::NoRule),
                "- { cidr: 203.0.113.66/32, ports: [443] }",
                "{name}"
            );
        }
    }
}
