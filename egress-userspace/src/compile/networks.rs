//! Merges every rule that covers a network into one entry, so that one longest-prefix lookup is complete.
//! Receives rules by network, gives the network and port tables.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use egress_common::{Address, Class, Network, RuleId, Transport};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Compiled, PortRange, sets::Sets};
use crate::policy::{Action, Rule};

/// A rule on one network.
#[derive(Clone, Debug)]
pub(super) struct Cover {
    pub(super) rule: RuleId,
    pub(super) allow: bool,
    pub(super) prefix: Prefix,
    pub(super) ports: Vec<PortRange>,
    pub(super) transports: Vec<Transport>,
    /// The rule's text and origin, which settle what is named where rules are equally close.
    pub(super) text: String,
}

impl Cover {
    pub(super) fn of_rule(id: RuleId, network: IpNet, rule: &Rule) -> Self {
        Self {
            rule: id,
            allow: rule.action == Action::Allow,
            prefix: Prefix::from(network),
            ports: rule.ports.clone(),
            transports: rule.transports.clone(),
            text: format!("{rule}\n{}", rule.origin),
        }
    }

    /// Opens ports for both transports.
    pub(super) fn allow(id: RuleId, network: IpNet, ports: Vec<PortRange>, compiled: &Compiled) -> Self {
        let text =
            compiled.rule(id).map(|rule| format!("{}\n{}", rule.text, rule.origin)).unwrap_or_default();
        let transports = vec![Transport::Tcp, Transport::Udp];
        Self { rule: id, allow: true, prefix: Prefix::from(network), ports, transports, text }
    }
}

/// A network in the 16-byte form. Ordered so that a network comes before all that lie inside it, and those before
/// anything else. Families never contain each other, though `::/0` would as numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub(super) struct Prefix {
    v4: bool,
    first: u128,
    bits: u8,
}

impl Prefix {
    /// Where IPv4 begins: the boundary that keeps IPv6 rules out of it.
    const V4: Self = Self { v4: true, first: 0xffff_0000_0000, bits: Address::MAPPED_BITS };

    pub(super) fn bits(&self) -> u8 {
        self.bits
    }

    pub(super) fn contains(&self, other: &Self) -> bool {
        self.v4 == other.v4
            && self.bits <= other.bits
            && (self.bits == 0 || (self.first ^ other.first) >> (128 - u32::from(self.bits)) == 0)
    }
}

impl From<IpNet> for Prefix {
    fn from(network: IpNet) -> Self {
        let network = network.trunc();
        let address = Address::from(network.addr());
        let v4 = network.addr().is_ipv4();
        let above = if v4 { Address::MAPPED_BITS } else { 0 };
        Self { v4, first: address.number(), bits: network.prefix_len() + above }
    }
}

/// Networks of the host itself that `loopback:` speaks of. A metadata service may be on the host itself, too, and
/// even then only a `cidr` rule for it opens it.
pub(super) fn loopback(own: &[IpAddr]) -> impl Iterator<Item = IpNet> {
    let own = own.iter().filter(|address| class(**address) != Class::Metadata).copied().map(IpNet::from);
    special()
        .into_iter()
        .filter(|(_, class)| *class == Class::Loopback)
        .map(|(network, _)| network)
        .chain(own)
}

/// Addresses of the host as they are judged, each once, without those that are loopback everywhere.
pub(super) fn own(addresses: &[IpAddr]) -> BTreeSet<Address> {
    let judged = addresses.iter().map(|address| Address::from(*address).judged());
    judged.filter(|address| class(address.to_ip()) != Class::Loopback).collect()
}

/// The class of the smallest special network that holds the address, the host's own addresses apart.
pub(crate) fn class(address: IpAddr) -> Class {
    special()
        .into_iter()
        .filter(|(network, _)| network.contains(&address))
        .max_by_key(|(network, _)| network.prefix_len())
        .map_or(Class::Plain, |(_, class)| class)
}

/// Networks that only a rule inside them can open.
pub(crate) fn special() -> Vec<(IpNet, Class)> {
    let v4 = |a, b, c, d, bits| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits));
    let v6 =
        |a, b, last, bits| IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, last), bits));
    vec![
        (v4(127, 0, 0, 0, 8), Class::Loopback),
        (v4(0, 0, 0, 0, 8), Class::Loopback),
        (v6(0, 0, 1, 128), Class::Loopback),
        (v6(0, 0, 0, 128), Class::Loopback),
        // AWS, Google, Azure, Oracle and others
        (v4(169, 254, 169, 254, 32), Class::Metadata),
        // AWS: credentials of containers and pods
        (v4(169, 254, 170, 2, 32), Class::Metadata),
        (v4(169, 254, 170, 23, 32), Class::Metadata),
        // Alibaba
        (v4(100, 100, 100, 200, 32), Class::Metadata),
        // Azure's host agent
        (v4(168, 63, 129, 16, 32), Class::Metadata),
        // Oracle
        (v4(192, 0, 0, 192, 32), Class::Metadata),
        // AWS
        (v6(0xfd00, 0xec2, 0x254, 128), Class::Metadata),
        (v6(0xfd00, 0xec2, 0x23, 128), Class::Metadata),
        // Google
        (v6(0xfd20, 0xce, 0x254, 128), Class::Metadata),
        (v4(169, 254, 0, 0, 16), Class::LinkLocal),
        (v6(0xfe80, 0, 0, 10), Class::LinkLocal),
        (v4(224, 0, 0, 0, 4), Class::Multicast),
        (v6(0xff00, 0, 0, 8), Class::Multicast),
        (v4(240, 0, 0, 0, 4), Class::Broadcast),
    ]
}

/// The special networks and the host's own addresses, wide ones first. An own address is the host itself, whatever
/// network it lies in.
fn classes(own: &[IpAddr]) -> Vec<(Prefix, Class)> {
    let own: Vec<Prefix> = own.iter().copied().map(IpNet::from).map(Prefix::from).collect();
    let everywhere = special().into_iter().map(|(network, class)| (Prefix::from(network), class));
    let mut classes: Vec<(Prefix, Class)> = everywhere.filter(|(prefix, _)| !own.contains(prefix)).collect();
    classes.extend(own.iter().map(|prefix| (*prefix, Class::Loopback)));
    classes.sort_unstable_by_key(|(prefix, _)| *prefix);
    classes
}

/// Fills the network and port tables. Walks all networks from wide to narrow with those that hold the current one on
/// a stack, so that 10,000 networks cost 10,000 steps.
pub(super) fn merge(covers: &[Cover], inbound: Option<&Cover>, compiled: &mut Compiled) {
    let mut covers: Vec<&Cover> = covers.iter().collect();
    covers.sort_by(|a, b| (a.prefix, &a.text, a.rule).cmp(&(b.prefix, &b.text, b.rule)));
    let special = classes(&compiled.own_addresses);

    let prefixes: BTreeSet<Prefix> = covers
        .iter()
        .map(|cover| cover.prefix)
        .chain(special.iter().map(|(prefix, _)| *prefix))
        .chain([Prefix::V4])
        .collect();
    let mut sets = Sets::default();
    compiled.inbound = inbound.map_or(0, |cover| sets.number(&[cover]));
    let (mut rules, mut classes) = (Vec::new(), Vec::new());
    let (mut next_rules, mut next_classes) = (covers.into_iter().peekable(), special.into_iter().peekable());
    for prefix in prefixes {
        rules.retain(|cover: &&Cover| cover.prefix.contains(&prefix));
        classes.retain(|(holder, _): &(Prefix, Class)| holder.contains(&prefix));
        while let Some(cover) = next_rules.next_if(|cover| cover.prefix == prefix) {
            rules.push(cover);
        }
        while let Some(class) = next_classes.next_if(|(holder, _)| *holder == prefix) {
            classes.push(class);
        }
        // The last one pushed is the innermost.
        let (inside, class) = match classes.last() {
            Some((holder, class)) => (Some(*holder), *class),
            None => (None, Class::Plain),
        };
        let counts =
            |cover: &&&Cover| !cover.allow || inside.is_none_or(|holder| holder.contains(&cover.prefix));
        let (span, set) = sets.intern(&rules.iter().filter(counts).copied().collect::<Vec<_>>());
        let network = Network { set, span, class: class as u8, pad: [0; 3] };
        compiled.networks.insert((Address::from_number(prefix.first), prefix.bits), network);
    }
    compiled.ports = sets.into_ports();
}
