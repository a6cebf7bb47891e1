//! Which name an address was last known under: for people who read events, never for a verdict.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use egress_common::Address;

use super::{hosts::Hosts, normal, permit::Outcome};

/// Most learned addresses kept; the oldest go first.
const MAX_LEARNED: usize = 65_536;

/// Address to name: what was last answered, else what the hosts file says.
#[derive(Clone, Debug, Default)]
pub struct NameBook {
    hosts: BTreeMap<Address, String>,
    learned: BTreeMap<Address, String>,
    order: VecDeque<Address>,
}

impl NameBook {
    /// With the canonical names of a hosts file.
    pub fn new(hosts: &Hosts) -> Self {
        let first = |(address, names): (IpAddr, &[String])| {
            names.first().map(|name| (Address::from(address).judged(), name.clone()))
        };
        Self { hosts: hosts.iter().filter_map(first).collect(), ..Self::default() }
    }

    /// Notes that a name was answered with an address.
    pub fn note(&mut self, name: &str, address: IpAddr) {
        let address = Address::from(address).judged();
        if self.learned.insert(address, normal(name)).is_none() {
            self.order.push_back(address);
        }
        if self.learned.len() > MAX_LEARNED
            && let Some(oldest) = self.order.pop_front()
        {
            self.learned.remove(&oldest);
        }
    }

    /// Notes what a lookup told of addresses; a refused address too, so that its denial shows the name.
    pub fn learn(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Opened { name, addresses, .. } => {
                addresses.iter().for_each(|&address| self.note(name, address));
            }
            Outcome::Refused { name, address, .. } => self.note(name, *address),
            Outcome::Failed { .. } | Outcome::Full { .. } | Outcome::Unwritable { .. } => {}
        }
    }

    /// The name of an address, in whatever form the address comes.
    pub fn name(&self, address: Address) -> Option<&str> {
        let address = address.judged();
        self.learned.get(&address).or_else(|| self.hosts.get(&address)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_last_answer_goes_before_the_hosts_file() {
        let mut book =
            NameBook::new(&Hosts::parse("192.0.2.1 canonical.example alias\n192.0.2.2 two.example\n"));
        let name = |book: &NameBook, text: &str| book.name(address(text).into()).map(str::to_owned);
        assert_eq!(name(&book, "192.0.2.1").as_deref(), Some("canonical.example"));
        book.note("First.example.", address("192.0.2.1"));
        book.note("second.example", address("192.0.2.1"));
        assert_eq!(name(&book, "192.0.2.1").as_deref(), Some("second.example"));
        assert_eq!(name(&book, "64:ff9b::192.0.2.2").as_deref(), Some("two.example"));
        assert_eq!(name(&book, "192.0.2.3"), None);
    }

    #[test]
    fn a_rotating_name_cannot_grow_it_without_end() {
        let mut book = NameBook::default();
        let nth =
            |n: usize| IpAddr::from(((0x2001_0db8_u128 << 96) + u128::try_from(n).unwrap()).to_be_bytes());
        for n in 0..=MAX_LEARNED {
            book.note("a.example", nth(n));
        }
        assert_eq!((book.learned.len(), book.order.len()), (MAX_LEARNED, MAX_LEARNED));
        assert_eq!(book.name(nth(0).into()), None);
        assert_eq!(book.name(nth(MAX_LEARNED).into()), Some("a.example"));
    }
}
