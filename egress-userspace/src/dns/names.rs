//! Which names an address was answered for, and which of them opened it: for people who read events, never for a verdict.
//!
//! Memory follows the permits that are in the table; of other addresses only the latest are known.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use egress_common::Address;

use super::{hosts::Hosts, normal};

/// Most addresses without a permit that are known; the oldest go first.
const MAX_PASSING: usize = 4_096;

/// Most names kept for one address; the oldest go first.
const MAX_NAMES: usize = 16;

/// What is known of an address.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The name that it was last answered for.
    last: Option<Arc<str>>,
    /// The names that opened it, the latest last; empty once its last permit is gone.
    opened: Vec<Arc<str>>,
    /// It is in [`NameBook::passing`].
    passes: bool,
}

/// Address to names: what was answered, else what the hosts file says.
#[derive(Clone, Debug, Default)]
pub struct NameBook {
    hosts: BTreeMap<Address, String>,
    known: HashMap<Address, Known>,
    /// Addresses without a permit, oldest first, each once; those that have one meanwhile too.
    passing: VecDeque<Address>,
}

impl NameBook {
    /// With the canonical names of a hosts file.
    pub fn new(hosts: &Hosts) -> Self {
        let first = |(address, names): (IpAddr, &[String])| {
            names.first().map(|name| (Address::from(address).judged(), name.clone()))
        };
        Self { hosts: hosts.iter().filter_map(first).collect(), ..Self::default() }
    }

    /// Notes that a name opened an address, until [`NameBook::closed`].
    pub fn opened(&mut self, name: &Arc<str>, address: IpAddr) {
        let known = self.known.entry(Address::from(address).judged()).or_default();
        known.last = Some(Arc::clone(name));
        if known.opened.last() != Some(name) {
            known.opened.retain(|other| other != name);
            if known.opened.len() == MAX_NAMES {
                known.opened.remove(0);
            }
            known.opened.push(Arc::clone(name));
        }
    }

    /// Notes that a name was answered with an address that it did not open.
    pub fn note(&mut self, name: &str, address: IpAddr) {
        let address = Address::from(address).judged();
        let known = self.known.entry(address).or_default();
        known.last = Some(normal(name).into());
        if known.opened.is_empty() {
            self.pass(address);
        }
    }

    /// Notes that the last permit of an address is gone.
    pub fn closed(&mut self, address: Address) {
        if let Some(known) = self.known.get_mut(&address)
            && !known.opened.is_empty()
        {
            known.opened.clear();
            self.pass(address);
        }
    }

    fn pass(&mut self, address: Address) {
        let Some(known) = self.known.get_mut(&address) else { return };
        if std::mem::replace(&mut known.passes, true) {
            return;
        }
        self.passing.push_back(address);
        if self.passing.len() > MAX_PASSING
            && let Some(oldest) = self.passing.pop_front()
            && let Some(known) = self.known.get_mut(&oldest)
        {
            known.passes = false;
            if known.opened.is_empty() {
                self.known.remove(&oldest);
            }
        }
    }

    /// The name that an address was last answered for, in whatever form the address comes.
    pub fn name(&self, address: Address) -> Option<&str> {
        let address = address.judged();
        let last = self.known.get(&address).and_then(|known| known.last.as_deref());
        last.or_else(|| self.hosts.get(&address).map(String::as_str))
    }

    /// The names that opened an address, the latest first; those whose own time is over too, as long as another keeps it
    /// open or it has not been forgotten.
    pub fn names(&self, address: Address) -> Vec<&str> {
        let known = self.known.get(&address.judged());
        known.map_or_else(Vec::new, |known| known.opened.iter().rev().map(AsRef::as_ref).collect())
    }

    /// Number of addresses that are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether the address was in an answer that is still known: if not, it was probably given as a number.
    pub fn answered(&self, address: Address) -> bool {
        self.known.contains_key(&address.judged())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn nth(n: usize) -> IpAddr {
        IpAddr::from(((0x2001_0db8_u128 << 96) + u128::try_from(n).unwrap()).to_be_bytes())
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
        assert!(book.answered(address("192.0.2.1").into()) && !book.answered(address("192.0.2.2").into()));
    }

    #[test]
    fn all_names_that_opened_an_address_are_told() {
        let mut book = NameBook::default();
        let shared = address("192.0.2.1");
        for name in ["a.example", "b.example", "a.example"] {
            book.opened(&name.into(), shared);
        }
        book.note("denied.example", shared);
        assert_eq!(book.names(shared.into()), ["a.example", "b.example"]);
        assert_eq!(book.name(shared.into()), Some("denied.example"));
        book.closed(shared.into());
        assert!(book.names(shared.into()).is_empty() && book.answered(shared.into()));
        for n in 0..=MAX_NAMES {
            book.opened(&format!("n{n}.example").into(), shared);
        }
        // Mutation seen to fail here: the bound left out.
        assert_eq!(book.names(shared.into()).len(), MAX_NAMES);
    }

    #[test]
    fn a_rotating_name_cannot_grow_it_without_end() {
        let mut book = NameBook::default();
        book.opened(&"held.example".into(), nth(0));
        for n in 1..=MAX_PASSING + 1 {
            book.note("a.example", nth(n));
        }
        assert_eq!((book.known.len(), book.passing.len()), (MAX_PASSING + 1, MAX_PASSING));
        assert!(!book.answered(nth(1).into()) && book.answered(nth(2).into()));
        assert_eq!(book.name(nth(MAX_PASSING + 1).into()), Some("a.example"));
        assert_eq!(book.names(nth(0).into()), ["held.example"]);
        for n in 0..1000 {
            book.opened(&"b.example".into(), nth(n));
            book.closed(nth(n).into());
            assert!(book.passing.len() <= MAX_PASSING && book.known.len() <= MAX_PASSING + 1);
        }
    }
}
