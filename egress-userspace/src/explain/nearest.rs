//! What came nearest to allowing a denied destination: receives the policy's rules, gives those worth showing with what
//! keeps each from allowing.

use std::net::IpAddr;

use egress_common::{Address, Reason, Transport, names};
use ipnet::IpNet;

use super::{Destination, To, Why};
use crate::{
    compile::RuleInfo,
    dns::told::DnsReason,
    policy::{Action, Policy, Rule, Target},
};

/// Most rules shown.
const SHOWN: usize = 3;

/// The nearest rules, closest first.
pub(super) fn nearest(policy: &Policy, destination: &Destination, reason: Why) -> Vec<(String, RuleInfo)> {
    if reason == Why::Flow(Reason::Dns) {
        return Vec::new();
    }
    let mut found: Vec<(u32, String, &Rule)> = policy
        .rules
        .iter()
        .filter(|rule| rule.action == Action::Allow)
        .filter_map(|rule| {
            let (rank, why) = match (&destination.to, &rule.target) {
                (To::Name(name), Target::Host { name: pattern, .. }) => {
                    name_near(name, pattern, rule, destination, reason)
                }
                (To::Address(address), Target::Network(network)) => network_near(
                    Address::from(*address).judged().to_ip(),
                    *network,
                    rule,
                    destination,
                    reason,
                ),
                _ => None,
            }?;
            Some((rank, why, rule))
        })
        .collect();
    found.sort_by(|(a, _, x), (b, _, y)| (a, &x.origin, x.to_string()).cmp(&(b, &y.origin, y.to_string())));
    // What only looks alike is of interest if nothing closer is there.
    let best = found.first().map_or(0, |(rank, ..)| *rank);
    found
        .into_iter()
        .filter(|(rank, ..)| *rank < ALIKE || *rank == best)
        .take(if best >= ALIKE { 1 } else { SHOWN })
        .map(|(_, why, rule)| (why, RuleInfo { origin: rule.origin.clone(), text: rule.to_string() }))
        .collect()
}

/// From this rank on a rule does not cover the destination's host at all.
const ALIKE: u32 = 10;

fn name_near(
    name: &str,
    pattern: &str,
    rule: &Rule,
    destination: &Destination,
    reason: Why,
) -> Option<(u32, String)> {
    if names::covers(pattern, name) {
        let wildcard = pattern.starts_with("*.");
        return Some(match (covers_port(rule, destination), wildcard) {
            (true, _) if reason == Why::Question(DnsReason::DenyRule) => {
                (0, "allows the name, but deny goes before allow".into())
            }
            (true, _) => (0, "covers the name, but not beyond the bounds of dns.wildcard".into()),
            (false, true) => (2, other_port("covers the name, but", rule)),
            (false, false) => (1, other_port("same host, but", rule)),
        });
    }
    let suffix = pattern.strip_prefix("*.");
    if suffix == Some(name) {
        return Some((3, "the wildcard covers names below, not the name itself".into()));
    }
    let exact = suffix.unwrap_or(pattern);
    if below(name, exact) {
        return Some((4, format!("`{exact}` is a parent domain; the rule covers that name alone")));
    }
    if below(exact, name) {
        return Some((5, format!("`{exact}` lies below it")));
    }
    let shared = name.rsplit('.').zip(exact.rsplit('.')).take_while(|(a, b)| a == b).count();
    match u32::try_from(shared) {
        Ok(shared @ 2..) => Some((ALIKE + 1000 - shared.min(1000), "shares the parent domain".into())),
        _ => None,
    }
}

fn below(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).is_some_and(|front| front.ends_with('.'))
}

fn network_near(
    address: IpAddr,
    network: IpNet,
    rule: &Rule,
    destination: &Destination,
    reason: Why,
) -> Option<(u32, String)> {
    if network.contains(&address) {
        return Some(match covers_port(rule, destination) {
            true if reason == Why::Flow(Reason::DenyRule) => {
                (0, "covers it, but deny goes before allow".into())
            }
            true => (0, "covers it, but is too wide to open what is special within it".into()),
            false => (1, other_port("same network, but", rule)),
        });
    }
    // Fewer leading bits in common are no nearness.
    let (common, least) = match (address, network.addr()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => ((a.to_bits() ^ b.to_bits()).leading_zeros(), 8),
        (IpAddr::V6(a), IpAddr::V6(b)) => ((a.to_bits() ^ b.to_bits()).leading_zeros(), 16),
        _ => return None,
    };
    (common >= least).then(|| (ALIKE + 128 - common.min(128), "the nearest network".into()))
}

fn covers_port(rule: &Rule, destination: &Destination) -> bool {
    rule.transports.contains(&destination.transport)
        && rule.ports.iter().any(|range| range.contains(destination.port))
}

fn other_port(what: &str, rule: &Rule) -> String {
    if rule.transports == [Transport::Icmp] {
        return format!("{what} only for ping");
    }
    let transports: Vec<_> =
        rule.transports.iter().map(|transport| super::transport_name(*transport)).collect();
    format!("{what} only on {}/{}", crate::policy::list(&rule.ports), transports.join("+"))
}
