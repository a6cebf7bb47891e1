//! Bounds on names that only a wildcard allows, each of which could carry data out: how long, how many new ones a minute,
//! and how many exchanges about known ones. Holds bounded memory.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::RandomState},
    hash::BuildHasher,
};

use egress_common::RuleId;

use super::told::DnsReason;
use crate::policy::Bounds;

/// Names that are remembered as known; of more, the oldest are forgotten and count as new again.
const REMEMBERED: usize = 16_384;

/// The time in which new names and exchanges are counted, in nanoseconds.
const MINUTE: u64 = 60_000_000_000;

/// What comes within so many nanoseconds is counted as one number, and as if the last of it had come at the end: never too
/// little counts, and memory does not follow the number.
const STEP: u64 = 100_000_000;

/// The bound that a name oversteps by its length. `suffix` is that of the wildcard, whose labels are the policy's own
/// choice.
pub fn too_long(bounds: &Bounds, name: &str, suffix: &str) -> Option<DnsReason> {
    if name.len() > usize::from(bounds.name) {
        return Some(DnsReason::NameBound);
    }
    let front = name.strip_suffix(suffix).unwrap_or(name);
    let long = front.split('.').any(|label| length(label) > usize::from(bounds.label));
    long.then_some(DnsReason::LabelBound)
}

/// Bytes of a label, of whose text an escape is four.
fn length(label: &str) -> usize {
    label.len() - 3 * label.bytes().filter(|byte| *byte == b'\\').count()
}

/// Counts new names and exchanges by rule.
#[derive(Debug)]
pub(super) struct Guard {
    bounds: Bounds,
    hasher: RandomState,
    known: HashSet<u64>,
    order: VecDeque<u64>,
    /// The new names of the last minute.
    recent: HashMap<RuleId, Recent>,
    /// The exchanges of the last minute.
    exchanges: HashMap<RuleId, Recent>,
}

/// How many came, by step.
#[derive(Debug, Default)]
struct Recent {
    steps: VecDeque<(u64, u32)>,
    sum: u32,
}

impl Recent {
    /// Counts one more unless that would be too many; whether it did.
    fn admit(&mut self, now: u64, most: u32) -> bool {
        while let Some(&(step, count)) = self.steps.front()
            && now.saturating_sub((step + 1) * STEP) >= MINUTE
        {
            self.sum -= count;
            self.steps.pop_front();
        }
        if self.sum >= most {
            return false;
        }
        self.sum += 1;
        match self.steps.back_mut() {
            Some((step, count)) if *step == now / STEP => *count += 1,
            _ => self.steps.push_back((now / STEP, 1)),
        }
        true
    }
}

impl Guard {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            hasher: RandomState::new(),
            known: HashSet::new(),
            order: VecDeque::new(),
            recent: HashMap::new(),
            exchanges: HashMap::new(),
        }
    }

    /// Admits a name under a rule's wildcard, or says which bound it oversteps. Only a name that is admitted counts.
    pub(super) fn admit(
        &mut self,
        rule: RuleId,
        suffix: &str,
        name: &str,
        now: u64,
    ) -> Result<(), DnsReason> {
        if let Some(reason) = too_long(&self.bounds, name, suffix) {
            return Err(reason);
        }
        // A collision, which takes luck since the key is secret, would let one name pass uncounted.
        let hash = self.hasher.hash_one(name);
        if self.known.contains(&hash) {
            return Ok(());
        }
        if !self.recent.entry(rule).or_default().admit(now, self.bounds.new_names) {
            return Err(DnsReason::RateBound);
        }
        self.remember(hash);
        Ok(())
    }

    /// Counts an exchange about a name of a rule's wildcard unless that would be too many.
    pub(super) fn admit_exchange(&mut self, rule: RuleId, now: u64) -> Result<(), DnsReason> {
        let admitted = self.exchanges.entry(rule).or_default().admit(now, self.bounds.exchanges());
        if admitted { Ok(()) } else { Err(DnsReason::RateBound) }
    }

    fn remember(&mut self, hash: u64) {
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.known.insert(hash);
        self.order.push_back(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { label: 5, name: 20, new_names: 3 };

    #[test]
    fn lengths_end_where_they_end() {
        // Mutations seen to fail here: `>=` for `>` in either bound; the wildcard's own labels counted; an escape
        // counted as four.
        for (name, suffix, expected) in [
            ("abcde.x", ".x", None),
            ("abcdef.x", ".x", Some(DnsReason::LabelBound)),
            ("a.abcdef.x", ".x", Some(DnsReason::LabelBound)),
            ("a.packages", ".packages", None),
            ("a\\000bcd.x", ".x", None),
            ("a\\000bcde.x", ".x", Some(DnsReason::LabelBound)),
            ("abc.abc.abc.abc.abcd", ".abcd", None),
            ("abc.abc.abc.abc.abcde", ".abcde", Some(DnsReason::NameBound)),
        ] {
            assert_eq!(too_long(&BOUNDS, name, suffix), expected, "{name}");
        }
    }

    #[test]
    fn the_fourth_new_name_waits_for_the_first_to_be_a_minute_old() {
        // Mutations seen to fail here: `>` for `>=` at the minute and at the count; a refused name remembered or
        // counted; one count for all rules.
        let mut guard = Guard::new(BOUNDS);
        let mut admit = |rule, name, now| guard.admit(rule, ".x", name, now);
        assert_eq!(admit(1, "a.x", 0), Ok(()));
        assert_eq!(admit(1, "b.x", STEP), Ok(()));
        assert_eq!(admit(1, "a.x", STEP), Ok(()));
        assert_eq!(admit(1, "c.x", 3 * STEP - 1), Ok(()));
        for _ in 0..2 {
            assert_eq!(admit(1, "d.x", 3 * STEP), Err(DnsReason::RateBound));
        }
        assert_eq!(admit(1, "c.x", 3 * STEP), Ok(()), "known");
        assert_eq!(admit(2, "e.x", 3 * STEP), Ok(()), "another rule");
        assert_eq!(admit(1, "d.x", MINUTE + STEP - 1), Err(DnsReason::RateBound));
        assert_eq!(admit(1, "d.x", MINUTE + STEP), Ok(()));
        assert_eq!(admit(1, "f.x", MINUTE + STEP), Err(DnsReason::RateBound));
        assert_eq!(admit(1, "f.x", MINUTE + 2 * STEP - 1), Err(DnsReason::RateBound));
        assert_eq!(admit(1, "f.x", MINUTE + 2 * STEP), Ok(()));
    }

    #[test]
    fn the_exchanges_of_a_rule_end_and_come_back() {
        // Mutations seen to fail here: one count for all rules; one count with the new names.
        let mut guard = Guard::new(BOUNDS);
        for _ in 0..90 {
            assert_eq!(guard.admit_exchange(1, 0), Ok(()));
        }
        assert_eq!(guard.admit_exchange(1, MINUTE + STEP - 1), Err(DnsReason::RateBound));
        assert_eq!((guard.admit_exchange(2, 0), guard.admit(1, ".x", "a.x", 0)), (Ok(()), Ok(())));
        assert_eq!(guard.admit_exchange(1, MINUTE + STEP), Ok(()));
    }

    #[test]
    fn memory_does_not_follow_the_number_of_new_names() {
        // Mutation seen to fail here: a step for each name.
        let mut recent = Recent::default();
        for n in 0..1_000_000 {
            assert!(recent.admit(n * 100_000, u32::MAX));
        }
        assert!(recent.steps.len() <= 602, "{}", recent.steps.len());
        assert_eq!(recent.sum, recent.steps.iter().map(|(_, count)| count).sum::<u32>());
    }

    #[test]
    fn none_is_none() {
        let mut guard = Guard::new(Bounds { new_names: 0, ..BOUNDS });
        assert_eq!(guard.admit(1, ".x", "a.x", 0), Err(DnsReason::RateBound));
    }

    #[test]
    fn memory_ends_and_the_oldest_is_forgotten() {
        // Mutation seen to fail here: the oldest not taken out of the set.
        let mut guard = Guard::new(Bounds { new_names: u32::MAX, ..BOUNDS });
        for n in 0..=REMEMBERED {
            assert_eq!(guard.admit(1, ".x", &format!("{n}.x"), 0), Ok(()));
        }
        assert_eq!((guard.known.len(), guard.order.len()), (REMEMBERED, REMEMBERED));
        guard.bounds.new_names = 0;
        assert_eq!(guard.admit(1, ".x", "0.x", 0), Err(DnsReason::RateBound));
        assert_eq!(guard.admit(1, ".x", "1.x", 0), Ok(()));
    }
}
