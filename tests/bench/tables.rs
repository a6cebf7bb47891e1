//! What the tables hold, and where the load goes.

use std::net::Ipv6Addr;

use anyhow::Result;
use egress::compile::{self, Compiled, HostRule, PortRange};
use egress_common::{Address, Transport};
use egress_tests::scope::Scope;

/// Port of every permit and network.
pub(crate) const PORT: u16 = 443;
/// Destinations of one round.
const TARGETS: u32 = 4_096;

/// A filling of the tables.
#[derive(Clone, Copy)]
pub(crate) enum Tables {
    /// So many permits.
    Permits(u32),
    /// So many networks.
    Networks(u32),
}

impl Tables {
    pub(crate) const ALL: [Self; 4] =
        [Self::Permits(10), Self::Permits(10_000), Self::Permits(100_000), Self::Networks(10_000)];

    pub(crate) fn name(self) -> String {
        match self {
            Self::Permits(number) => format!("{number} permits"),
            Self::Networks(number) => format!("{number} networks"),
        }
    }

    /// The compiled policy; networks are single addresses with rules of their own.
    pub(crate) fn compiled(self) -> Compiled {
        let networks = match self {
            Self::Permits(_) => 0,
            Self::Networks(number) => number,
        };
        let rules: String = (0..networks)
            .map(|index| format!("  - {{ cidr: {}/128, protocol: any, ports: [{PORT}] }}\n", address(index)))
            .collect();
        let text =
            format!("version: 1\nname: bench\nallow:{}\n{rules}", if networks == 0 { " []" } else { "" });
        let file = tempfile::NamedTempFile::new().expect("make a policy file");
        std::fs::write(file.path(), text).expect("write the policy file");
        let policy = egress::policy::load(file.path(), &[]).expect("the policy is valid");
        compile::compile(&policy)
    }

    pub(crate) fn write_permits(self, scope: &Scope) -> Result<()> {
        let Self::Permits(number) = self else { return Ok(()) };
        let rule = HostRule {
            id: 0,
            host: "bench.example".to_owned(),
            ports: vec![PortRange { first: PORT, last: PORT }],
            transports: vec![Transport::Tcp, Transport::Udp],
            private: false,
            own: [].into(),
        };
        let permits = scope.enforced.engine.permits()?;
        for index in 0..number {
            for (key, permit) in rule.permits(1, Address::from(address(index)), u64::MAX) {
                permits.write(&key, &permit)?;
            }
        }
        Ok(())
    }

    /// Destinations, scattered over all entries.
    pub(crate) fn targets(self, round: usize) -> Vec<Ipv6Addr> {
        let number = match self {
            Self::Permits(number) | Self::Networks(number) => number,
        };
        let start = u32::try_from(round).unwrap_or(0);
        (0..TARGETS).map(|index| address((index + start).wrapping_mul(2_654_435_761) % number)).collect()
    }
}

/// The address of an entry, below 2001:db8::/32.
fn address(index: u32) -> Ipv6Addr {
    // A multiplicative hash, so that neighbours share no prefix by their number.
    let scattered = u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Ipv6Addr::from((0x2001_0db8_u128 << 96) | (u128::from(scattered) << 16) | 1)
}
