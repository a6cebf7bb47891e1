//! Which attacks are none under a policy, because it allows what they do. Asks the same decision as the kernel.

use std::net::{IpAddr, Ipv4Addr};

use egress_common::{Address, Flow, Peer, Transport, Verdict};

use super::{
    aim::{GOOD4, bad4, bad6, port},
    table::{Attack, Opened},
};
use crate::{
    compile::{Compiled, memory::MemoryTables},
    policy::{Inbound, Loopback, Policy, PortRange, Unix},
};

/// A policy that can be asked.
pub(super) struct Fit<'a> {
    policy: &'a Policy,
    tables: MemoryTables,
}

impl<'a> Fit<'a> {
    /// Of a policy.
    pub(super) fn new(policy: &'a Policy, compiled: &Compiled) -> Self {
        Self { policy, tables: MemoryTables::new(compiled) }
    }

    fn open(&self, address: IpAddr, port: u16) -> bool {
        [Transport::Tcp, Transport::Udp].into_iter().any(|transport| {
            let flow =
                Flow { transport, address: Address::from(address), port, local_port: 0, peer: Peer::Remote };
            self.tables.decide(&flow).verdict == Verdict::Allow
        })
    }

    /// Why the attack is none; `None` if it is one.
    pub(super) fn allows(&self, index: usize, attack: &Attack) -> Option<String> {
        let port = port(index);
        let within = |ports: &[PortRange]| ports.iter().any(|range| range.contains(port));
        let setting = match attack.opened {
            Opened::Address => {
                let metadata = IpAddr::from(Ipv4Addr::new(169, 254, 169, 254));
                let used = [
                    (bad4(index).into(), 443),
                    (bad6(index).into(), 443),
                    (IpAddr::from(GOOD4), port),
                    (metadata, port),
                ];
                let open = used.into_iter().find(|&(address, port)| self.open(address, port));
                return open.map(|(address, port)| format!("a rule allows {address} port {port}"));
            }
            Opened::Loopback => match &self.policy.loopback {
                Loopback::Any => true,
                Loopback::Ports(ports) => within(ports),
                Loopback::None | Loopback::Own => false,
            },
            Opened::Inbound => match &self.policy.inbound {
                Inbound::Allow => true,
                Inbound::Ports(ports) => within(ports),
                Inbound::Deny => false,
            },
            Opened::Unix => self.policy.unix == Unix::Any,
        };
        let name = match attack.opened {
            Opened::Loopback => "loopback",
            Opened::Inbound => "inbound",
            Opened::Unix | Opened::Address => "unix",
        };
        setting.then(|| format!("the policy's `{name}:` allows it"))
    }

    /// Whether the rule that the run adds is not denied by the policy.
    pub(super) fn lets_honest_through(&self) -> bool {
        use crate::policy::{Action, Target};
        !self.policy.rules.iter().any(|rule| {
            rule.action == Action::Deny
                && matches!(&rule.target, Target::Network(network) if network.contains(&IpAddr::from(GOOD4)))
        })
    }
}
