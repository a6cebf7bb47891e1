//! The kernel's tables in memory: receives a compiled policy and permits, answers [`egress_common::decide()`] as the
//! kernel's maps do.

use std::{cell::Cell, collections::BTreeMap};

use egress_common::{
    Address, Decision, Flow, Network, Peer, Permit, PermitKey, PortRule, Scope, Tables, Transport, decide,
    decide_inbound,
};
use prefix_trie::PrefixMap;

use super::{Compiled, HostRule};

/// The slot that the policy is in.
pub const SLOT: u32 = 1;

/// Tables that hold one compiled policy in slot [`SLOT`].
pub struct MemoryTables {
    networks: PrefixMap<(u128, u8), Network>,
    ports: BTreeMap<(u32, u8), PrefixMap<(u16, u8), PortRule>>,
    permits: BTreeMap<PermitKey, Permit>,
    scope: Scope,
    now: Cell<u64>,
}

impl MemoryTables {
    /// Without permits, at time 0.
    pub fn new(compiled: &Compiled) -> Self {
        let mut networks = PrefixMap::new();
        for ((address, bits), network) in &compiled.networks {
            networks.insert((address.number(), *bits), *network);
        }
        let mut ports: BTreeMap<_, PrefixMap<_, _>> = BTreeMap::new();
        for ((set, transport, port, bits), rule) in &compiled.ports {
            ports.entry((*set, *transport)).or_default().insert((*port, *bits), *rule);
        }
        let scope = Scope {
            slot: SLOT,
            epoch: 1,
            audit: u8::from(compiled.audit),
            blocks: u8::from(compiled.needs_blocks()),
            inbound: compiled.inbound,
            own: u8::from(compiled.own),
            icmp: u8::from(compiled.icmp),
            broadcast: u8::from(compiled.broadcast),
            unix_open: u8::from(compiled.unix_is_open()),
            ..Scope::default()
        };
        Self { networks, ports, permits: BTreeMap::new(), scope, now: Cell::new(0) }
    }

    /// The scope's state.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Sets the clock.
    pub fn set_now(&self, now: u64) {
        self.now.set(now);
    }

    /// Opens an address under a host rule until `expires`, as an answer to its name does.
    pub fn permit(&mut self, rule: &HostRule, address: Address, expires: u64) {
        self.permits.extend(rule.permits(SLOT, address, expires));
    }

    /// Writes one permit.
    pub fn insert(&mut self, key: PermitKey, permit: Permit) {
        self.permits.insert(key, permit);
    }

    /// The decision, before the scope's mode is applied.
    pub fn decide(&self, flow: &Flow) -> Decision {
        decide(self, &self.scope, flow)
    }

    /// The decision about what comes in from outside, before the scope's mode is applied.
    pub fn decide_inbound(&self, transport: Transport, port: u16, peer: Peer) -> Decision {
        decide_inbound(self, &self.scope, transport, port, peer)
    }
}

impl Tables for MemoryTables {
    fn network(&self, slot: u32, address: &Address) -> Option<Network> {
        let key = (address.number(), 128);
        (slot == SLOT).then(|| self.networks.get_lpm(&key).map(|(_, network)| *network))?
    }

    fn port(&self, slot: u32, set: u32, transport: Transport, port: u16) -> Option<PortRule> {
        let ports = self.ports.get(&(set, transport as u8)).filter(|_| slot == SLOT)?;
        ports.get_lpm(&(port, 16)).map(|(_, rule)| *rule)
    }

    fn permit(&self, key: &PermitKey) -> Option<Permit> {
        self.permits.get(key).copied()
    }

    fn now(&self) -> u64 {
        self.now.get()
    }
}
