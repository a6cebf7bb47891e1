//! What one attack aims at: addresses, ports, names and a token of its own, so that whatever arrives leads back to it and
//! attacks of one batch cannot be taken for each other. Known to both sides.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

/// Most attacks of a table: each has an address in 198.51.100.1–250 or 203.0.113.11–199.
pub(super) const MOST: usize = FIRST + 189;
const FIRST: usize = 250;

/// Allowed by the run's policy, TCP and UDP port 443.
pub(super) const GOOD4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// Allowed by the run's policy, TCP and UDP port 443.
pub(super) const GOOD6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, 0x10);
/// The attacking side's own.
pub(super) const AGENT4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The attacking side's own.
pub(super) const AGENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// Its next hop.
pub(super) const GATEWAY4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Its next hop.
pub(super) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// On the link itself.
pub(super) const LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x66);
/// Where helpers outside the scope send to; allowed to nobody.
pub(super) const MEET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 201);
/// Index of either end of the wire.
pub(super) const WIRE: u32 = 2;
/// Name of the attacking side's end.
pub(super) const DEVICE: &str = "agent0";
/// First of the ports that stand for attacks.
pub(super) const PORTS: u16 = 20_000;

const TOKEN: &str = "egx";

/// What the attacking side is told at its start.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Brief {
    /// Tells runs of the table apart.
    pub(super) nonce: u32,
    /// Where the helpers' unix sockets and pipes are.
    pub(super) directory: PathBuf,
    /// Processes outside the scope that belong to the same user: (attack, process, address of its buffer).
    pub(super) holders: Vec<(usize, i32, u64)>,
    /// The first name server of the system, if there is one.
    pub(super) resolver: Option<IpAddr>,
    /// The cgroup2 mount.
    pub(super) cgroups: PathBuf,
    /// The attacks to make.
    pub(super) attacks: Vec<usize>,
}

/// What one attack aims at.
#[derive(Clone, Debug)]
pub(super) struct Aim<'a> {
    /// Its place in the table.
    pub(super) index: usize,
    /// What is around.
    pub(super) brief: &'a Brief,
}

impl Aim<'_> {
    /// A text that nobody else sends.
    pub(super) fn token(&self) -> Vec<u8> {
        token(self.brief.nonce, self.index).into_bytes()
    }

    /// An address that no rule allows.
    pub(super) fn bad4(&self) -> Ipv4Addr {
        bad4(self.index)
    }

    /// An address that no rule allows.
    pub(super) fn bad6(&self) -> Ipv6Addr {
        bad6(self.index)
    }

    /// It, with the port that is usually open.
    pub(super) fn to4(&self) -> SocketAddr {
        (self.bad4(), 443).into()
    }

    /// It, with the port that is usually open.
    pub(super) fn to6(&self) -> SocketAddr {
        (self.bad6(), 443).into()
    }

    /// The IPv4 address in the form of an IPv6 address.
    pub(super) fn mapped(&self) -> SocketAddr {
        (self.bad4().to_ipv6_mapped(), 443).into()
    }

    /// What is allowed.
    pub(super) fn good4(&self) -> SocketAddr {
        (GOOD4, 443).into()
    }

    /// What is allowed.
    pub(super) fn good6(&self) -> SocketAddr {
        (GOOD6, 443).into()
    }

    /// A port that stands for this attack.
    pub(super) fn port(&self) -> u16 {
        port(self.index)
    }

    /// A neighbour on the link.
    pub(super) fn link(&self) -> SocketAddr {
        SocketAddrV6::new(LINK, self.port(), 0, WIRE).into()
    }

    /// An IPv4 group.
    pub(super) fn group4(&self) -> Ipv4Addr {
        group4(self.index)
    }

    /// An IPv6 group.
    pub(super) fn group6(&self) -> Ipv6Addr {
        group6(self.index)
    }

    /// The process outside, and where its buffer is.
    pub(super) fn holder(&self) -> Option<(i32, u64)> {
        let held = self.brief.holders.iter().find(|(index, ..)| *index == self.index);
        held.map(|&(_, process, buffer)| (process, buffer))
    }

    /// A socket or pipe of the helpers.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.brief.directory.join(name)
    }
}

/// An address that stands for an attack.
pub(super) fn bad4(index: usize) -> Ipv4Addr {
    let last = |number: usize| u8::try_from(number).unwrap_or_default();
    match index.checked_sub(FIRST) {
        None => Ipv4Addr::new(198, 51, 100, last(index + 1)),
        Some(more) => Ipv4Addr::new(203, 0, 113, last(more + 11)),
    }
}

fn group4(index: usize) -> Ipv4Addr {
    let [high, low] = u16::try_from(index).unwrap_or_default().to_be_bytes();
    Ipv4Addr::new(239, 77, high, low)
}

/// An address that stands for an attack.
pub(super) fn bad6(index: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x66, 0, 0, 0, 0, u16::try_from(index + 1).unwrap_or(u16::MAX))
}

fn group6(index: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0x7766, 0, u16::try_from(index + 1).unwrap_or(u16::MAX))
}

/// A port that stands for an attack.
pub(super) fn port(index: usize) -> u16 {
    PORTS + u16::try_from(index).unwrap_or_default()
}

/// A text that stands for an attack; also a label of a name.
pub(super) fn token(nonce: u32, index: usize) -> String {
    format!("{TOKEN}{nonce:08x}x{index:03}z")
}

/// The attacks whose tokens are in some bytes, in any case of letters.
pub(super) fn tokens_in(nonce: u32, bytes: &[u8]) -> Vec<usize> {
    let start = format!("{TOKEN}{nonce:08x}x");
    let found = |window: &[u8]| {
        let (head, tail) = window.split_at(start.len());
        (head.eq_ignore_ascii_case(start.as_bytes()) && tail[3].eq_ignore_ascii_case(&b'z'))
            .then(|| std::str::from_utf8(&tail[..3]).ok()?.parse().ok())?
    };
    bytes.windows(start.len() + 4).filter_map(found).collect()
}

/// The attack that an address stands for, if it does: also inside a translated form or a group.
pub(super) fn of_address(address: IpAddr) -> Option<usize> {
    match address {
        IpAddr::V4(v4) => match v4.octets() {
            [198, 51, 100, last] => usize::from(last).checked_sub(1),
            [203, 0, 113, last @ 11..=199] => Some(usize::from(last) - 11 + FIRST),
            [239, 77, high, low] => Some(usize::from(u16::from_be_bytes([high, low]))),
            _ => None,
        },
        IpAddr::V6(v6) => {
            let last = |index: usize| usize::from(v6.segments()[7]).checked_sub(1).filter(|_| index == 0);
            match v6.segments() {
                [0x2001, 0xdb8, 0x66, 0, 0, 0, 0, _] | [0xff3e, 0, 0, 0, 0, 0x7766, 0, _] => last(0),
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] => {
                    of_address(halves(high, low).into())
                }
                [0x2002, high, low, ..] => of_address(halves(high, low).into()),
                _ => None,
            }
        }
    }
}

fn halves(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Caught: `index` for `index + 1` in bad4; the form of NAT64 left out.
    #[test]
    fn whatever_stands_for_an_attack_leads_back_to_it() {
        let brief = Brief { nonce: 7, ..Brief::default() };
        for index in [0, 1, FIRST - 1, FIRST, MOST - 2, MOST - 1] {
            let aim = Aim { index, brief: &brief };
            for address in [
                IpAddr::from(aim.bad4()),
                aim.bad6().into(),
                aim.group4().into(),
                aim.group6().into(),
                Ipv6Addr::from((0x0064_ff9b_u128 << 96) | u128::from(aim.bad4().to_bits())).into(),
            ] {
                assert_eq!(of_address(address), Some(index), "{address}");
            }
            let mut around = b"before".to_vec();
            around.extend(aim.token().to_ascii_uppercase());
            around.extend(b"after");
            assert_eq!(tokens_in(7, &around), [index]);
            assert_eq!(tokens_in(8, &around), [0; 0]);
        }
        assert_eq!(of_address(GOOD4.into()), None);
        assert_eq!(of_address(GOOD6.into()), None);
        assert_eq!(of_address(MEET.into()), None);
    }
}
