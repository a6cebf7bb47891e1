//! Meaning to rules: receives a [`crate::policy::Policy`], gives the entries of the kernel's tables and the list that
//! leads each rule id back to a line. Knows nothing of kernels.

pub mod memory;
pub(crate) mod networks;
mod sets;
mod unix;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use egress_common::{Address, Network, NetworkKey, Permit, PermitKey, PortKey, PortRule, RuleId, Transport};
use ipnet::IpNet;

use crate::policy::{Action, Dns, Inbound, Loopback, Mode, Policy, Rule, Target, Unix, covers};

pub use crate::policy::{Origin, PortRange};
pub use unix::{UnixName, UnixRule};

/// A rule as people see it: what a verdict, an event and a counter name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuleInfo {
    /// Where it was written.
    pub origin: Origin,
    /// The rule in one line, as in `host api.example ports 443/tcp`.
    pub text: String,
}

/// A rule that speaks of a name; its addresses are learned at run time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostRule {
    /// Its number.
    pub id: RuleId,
    /// Exact name or `*.suffix`, normalised.
    pub host: String,
    /// The ports it opens, sorted, not overlapping.
    pub ports: Vec<PortRange>,
    /// The transports it opens.
    pub transports: Vec<Transport>,
    /// Whether it may resolve to private, loopback and CGNAT addresses, and those of the host itself.
    pub private: bool,
    /// Addresses of the host itself, which only `private` lets it resolve to.
    pub own: Arc<[IpAddr]>,
}

/// A compiled policy: everything that the kernel's tables need, apart from what names resolve to.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// Rule `id` is `rules[id - 1]`.
    pub rules: Vec<RuleInfo>,
    /// Network table: prefix length of the address in its 16-byte form (0–128) and first address.
    pub networks: BTreeMap<(Address, u8), Network>,
    /// Port table: (set, transport, first port, port bits 0–16).
    pub ports: BTreeMap<(u32, u8, u16, u8), PortRule>,
    /// Rules by name; includes wildcards.
    pub hosts: Vec<HostRule>,
    /// Names that are never permitted, though an allow rule covers them, with the rule that says so.
    pub denied_hosts: Vec<(String, RuleId)>,
    /// Audit mode.
    pub audit: bool,
    /// How names are asked.
    pub dns: Dns,
    /// Sockets of the scope may talk to each other on this host.
    pub own: bool,
    /// Port set of what may come in from outside; 0: nothing.
    pub inbound: u32,
    /// Some rule opens ICMP echo.
    pub icmp: bool,
    /// Some rule may open a broadcast address.
    pub broadcast: bool,
    /// Unix sockets.
    pub unix: Unix,
    /// Rules about unix sockets, in the order of their numbers; `unix: any` is one too.
    pub unix_rules: Vec<UnixRule>,
    /// Addresses of the host itself, apart from those of its loopback networks, which are special everywhere.
    pub own_addresses: Arc<[IpAddr]>,
}

/// Compiles a policy for a host of which no address is known.
pub fn compile(policy: &Policy) -> Compiled {
    compile_on(policy, &[])
}

/// Compiles a policy for a host that has these addresses. They are the host itself as 127.0.0.1 is: no wide rule speaks of
/// them. It opens no resolver: names are asked by the supervisor, from outside the scope.
pub fn compile_on(policy: &Policy, own: &[IpAddr]) -> Compiled {
    let own = networks::own(own);
    let mut compiled = Compiled {
        audit: policy.mode == Mode::Audit,
        dns: policy.dns.clone(),
        own: policy.loopback != Loopback::None,
        unix: policy.unix,
        own_addresses: own.iter().map(|address| address.to_ip()).collect(),
        ..Compiled::default()
    };
    let mut covers = Vec::new();
    for rule in &policy.rules {
        let id = compiled.add(rule.origin.clone(), rule.to_string());
        match &rule.target {
            Target::Network(network) => {
                compiled.broadcast |= opens_broadcast(rule, network);
                covers.push(networks::Cover::of_rule(id, *network, rule));
            }
            Target::Host { name, private, .. } => compiled.host(id, name, *private, rule),
            Target::Unix(pattern) => {
                compiled.unix_rules.extend(UnixRule::all(id, rule.action == Action::Allow, pattern));
            }
        }
    }
    compiled.drop_denied_names();
    compiled.icmp = compiled.opens_icmp(&covers);
    compiled.loopback(policy, &mut covers);
    compiled.unix_any(policy);
    let inbound = compiled.inbound(policy);
    networks::merge(&covers, inbound.as_ref(), &mut compiled);
    compiled
}

/// Whether a rule may open the broadcast address of some network, the last address of which ends in a one.
fn opens_broadcast(rule: &Rule, network: &IpNet) -> bool {
    let IpNet::V4(network) = network else { return false };
    let last = network.broadcast().octets()[3];
    rule.action == Action::Allow && rule.transports.contains(&Transport::Udp) && last & 1 == 1
}

/// An entry for an LPM map of the kernel: prefix length in bits of the whole key, and the key.
pub type LpmEntry<K> = (u32, K);

impl Compiled {
    /// Numbers a rule.
    fn add(&mut self, origin: Origin, text: String) -> RuleId {
        self.rules.push(RuleInfo { origin, text });
        RuleId::try_from(self.rules.len()).unwrap_or(RuleId::MAX)
    }

    fn host(&mut self, id: RuleId, name: &str, private: bool, rule: &Rule) {
        match rule.action {
            Action::Deny => self.denied_hosts.push((name.to_owned(), id)),
            Action::Allow => self.hosts.push(HostRule {
                id,
                host: name.to_owned(),
                ports: rule.ports.clone(),
                transports: rule.transports.clone(),
                private,
                own: Arc::clone(&self.own_addresses),
            }),
        }
    }

    /// A name whose every use is denied is not resolved at all, whoever reads the list.
    fn drop_denied_names(&mut self) {
        let denied = &self.denied_hosts;
        self.hosts.retain(|host| !denied.iter().any(|(pattern, _)| covers(pattern, &host.host)));
    }

    fn loopback(&mut self, policy: &Policy, covers: &mut Vec<networks::Cover>) {
        let (ports, text) = match &policy.loopback {
            Loopback::None | Loopback::Own => return,
            Loopback::Any => (vec![PortRange::ALL], "loopback any".to_owned()),
            Loopback::Ports(ports) => (ports.clone(), format!("loopback {}", crate::policy::list(ports))),
        };
        let id = self.add_setting(policy.loopback_origin.as_ref(), text);
        let own: Vec<IpAddr> = self.own_addresses.to_vec();
        for network in networks::loopback(&own) {
            covers.push(networks::Cover::allow(id, network, ports.clone(), self));
        }
    }

    /// Numbers a setting that opens something.
    fn add_setting(&mut self, origin: Option<&Origin>, text: String) -> RuleId {
        let origin = origin.cloned().unwrap_or_else(|| Origin::Builtin(text.clone()));
        self.add(origin, text)
    }

    /// What `inbound:` opens, of whatever network.
    fn inbound(&mut self, policy: &Policy) -> Option<networks::Cover> {
        let (ports, text) = match &policy.inbound {
            Inbound::Deny => return None,
            Inbound::Allow => (vec![PortRange::ALL], "inbound allow".to_owned()),
            Inbound::Ports(ports) => (ports.clone(), format!("inbound {}", crate::policy::list(ports))),
        };
        let id = self.add_setting(policy.inbound_origin.as_ref(), text);
        Some(networks::Cover::allow(id, IpNet::default(), ports, self))
    }

    fn unix_any(&mut self, policy: &Policy) {
        if policy.unix == Unix::Any {
            let id = self.add_setting(policy.unix_origin.as_ref(), "unix any".to_owned());
            let rule = |pattern: &str| UnixRule { id, allow: true, pattern: pattern.to_owned() };
            self.unix_rules.extend(["/*", "@*"].map(rule));
        }
    }

    fn opens_icmp(&self, covers: &[networks::Cover]) -> bool {
        covers.iter().any(|cover| cover.allow && cover.transports.contains(&Transport::Icmp))
            || self.hosts.iter().any(|host| host.transports.contains(&Transport::Icmp))
    }

    /// The rule that denies a name whatever else allows it.
    pub fn denied_name(&self, name: &str) -> Option<RuleId> {
        let covered = |(pattern, _): &&(String, RuleId)| egress_common::names::covers(pattern, name);
        self.denied_hosts.iter().find(covered).map(|(_, id)| *id)
    }

    /// The rule behind an id; `None` for 0 and unknown ids.
    pub fn rule(&self, id: RuleId) -> Option<&RuleInfo> {
        self.rules.get(usize::try_from(id).ok()?.checked_sub(1)?)
    }

    /// Entries of the kernel's network table for a slot.
    pub fn network_entries(&self, slot: u32) -> impl Iterator<Item = (LpmEntry<NetworkKey>, Network)> {
        self.networks.iter().map(move |(&(address, bits), &network)| {
            ((NetworkKey::SLOT_BITS + u32::from(bits), NetworkKey { slot, address }), network)
        })
    }

    /// Entries of the kernel's port table for a slot.
    pub fn port_entries(&self, slot: u32) -> impl Iterator<Item = (LpmEntry<PortKey>, PortRule)> {
        self.ports.iter().map(move |(&(set, transport, port, bits), &rule)| {
            let key = PortKey { slot, set, transport, pad: 0, port: port.to_be_bytes() };
            ((PortKey::EXACT_BITS + u32::from(bits), key), rule)
        })
    }

    /// Whether some host rule needs port blocks beyond single ports ([`egress_common::Scope::blocks`]).
    pub fn needs_blocks(&self) -> bool {
        self.hosts
            .iter()
            .flat_map(|host| &host.ports)
            .any(|range| port_blocks(*range).any(|(_, block)| block != 0))
    }
}

impl HostRule {
    /// The permits that open one address under this rule until `expires` (`CLOCK_BOOTTIME` ns).
    pub fn permits(
        &self,
        slot: u32,
        address: Address,
        expires: u64,
    ) -> impl Iterator<Item = (PermitKey, Permit)> {
        let permit = Permit { expires, rule: self.id, pad: 0 };
        self.transports.iter().flat_map(move |&transport| {
            self.ports
                .iter()
                .copied()
                .flat_map(port_blocks)
                .map(move |(port, block)| (PermitKey::new(slot, transport, address, port, block), permit))
        })
    }
}

/// Cuts a range into aligned blocks of the sizes in [`PermitKey::BLOCKS`]: (first port, log2 of the size), ascending.
pub fn port_blocks(range: PortRange) -> impl Iterator<Item = (u16, u8)> {
    let mut next = u32::from(range.first);
    let end = u32::from(range.last) + 1;
    std::iter::from_fn(move || {
        let block = PermitKey::BLOCKS
            .into_iter()
            .rev()
            .find(|&block| next % (1 << block) == 0 && next + (1 << block) <= end)?;
        let first = u16::try_from(next).ok()?;
        next += 1 << block;
        Some((first, block))
    })
}
