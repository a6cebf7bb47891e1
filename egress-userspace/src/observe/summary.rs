//! What a run came to: the kernel's exact counters, and the destinations that were seen denied.

use std::collections::BTreeMap;

use egress_common::{Counters, Hook, Reason, Verdict};
use serde::Serialize;

use super::{
    record::{DecodeError, Record},
    text::what,
};

/// Different denied destinations that are kept apart.
const MAX_DESTINATIONS: usize = 4096;

/// Denied destinations that a summary names.
const TOP: usize = 10;

/// Gathers what passes by during a run.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    denied: BTreeMap<String, u64>,
    beyond: u64,
    undecodable: u64,
    last_error: Option<DecodeError>,
}

/// Exact numbers of one verdict.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct VerdictTotal {
    /// The verdict.
    pub verdict: &'static str,
    /// How often; the sum of the others.
    pub attempts: u64,
    /// Events that were written.
    pub emitted: u64,
    /// Events that were not: over the rate, or a repetition of what was allowed.
    pub suppressed: u64,
    /// Events that were lost.
    pub dropped: u64,
}

/// Exact number of attempts of one kind.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Count {
    /// The verdict.
    pub verdict: &'static str,
    /// Who saw it.
    pub hook: &'static str,
    /// Why.
    pub reason: &'static str,
    /// How often.
    pub count: u64,
}

/// A destination that was denied, or would have been, as far as events told of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Denied {
    /// Protocol, name and address as people read them.
    pub destination: String,
    /// Events seen.
    pub count: u64,
}

/// What a run came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Summary {
    /// For each verdict: deny, allow, audit.
    pub verdicts: Vec<VerdictTotal>,
    /// Those that are not zero, by verdict, hook and reason.
    pub attempts: Vec<Count>,
    /// The destinations most often denied, at most ten.
    pub denied: Vec<Denied>,
    /// Events of denials to other destinations.
    pub denied_others: u64,
    /// Events that could not be read.
    pub undecodable: u64,
    /// The last reason why.
    pub decode_error: Option<DecodeError>,
}

impl Tally {
    /// Counts an attempt.
    pub fn add(&mut self, record: &Record) {
        if record.verdict == Verdict::Allow {
            return;
        }
        let key = what(record);
        if self.denied.len() >= MAX_DESTINATIONS && !self.denied.contains_key(&key) {
            self.beyond += 1;
        } else {
            *self.denied.entry(key).or_default() += 1;
        }
    }

    /// Counts an event that could not be read; true for the first, which is worth a line at once.
    pub fn undecodable(&mut self, error: DecodeError) -> bool {
        self.undecodable += 1;
        self.last_error = Some(error);
        self.undecodable == 1
    }

    /// The summary with the kernel's counters, added up over all CPUs.
    pub fn summary(&self, counters: &Counters) -> Summary {
        let mut denied: Vec<Denied> = self
            .denied
            .iter()
            .map(|(destination, &count)| Denied { destination: destination.clone(), count })
            .collect();
        // Stable: equal counts stay in the order of their names.
        denied.sort_by_key(|denied| std::cmp::Reverse(denied.count));
        let others: u64 = denied.iter().skip(TOP).map(|denied| denied.count).sum();
        denied.truncate(TOP);
        Summary {
            verdicts: Verdict::ALL.iter().map(|&verdict| total(verdict, counters)).collect(),
            attempts: counts(counters),
            denied,
            denied_others: others + self.beyond,
            undecodable: self.undecodable,
            decode_error: self.last_error,
        }
    }
}

fn total(verdict: Verdict, counters: &Counters) -> VerdictTotal {
    let fate = &counters.fate[verdict as usize];
    VerdictTotal {
        verdict: verdict.name(),
        attempts: counters.total(verdict),
        emitted: fate.emitted,
        suppressed: fate.suppressed,
        dropped: fate.dropped,
    }
}

fn counts(counters: &Counters) -> Vec<Count> {
    let mut counts = Vec::new();
    for verdict in Verdict::ALL {
        for hook in Hook::ALL {
            for reason in Reason::ALL {
                let count = counters.attempts[verdict as usize][hook as usize][reason as usize];
                if count > 0 {
                    let (verdict, hook, reason) = (verdict.name(), hook.name(), reason.name());
                    counts.push(Count { verdict, hook, reason, count });
                }
            }
        }
    }
    counts
}

impl Summary {
    /// The lines for a person.
    pub fn lines(&self) -> Vec<String> {
        let attempts = |verdict: Verdict| {
            self.verdicts
                .iter()
                .find(|total| total.verdict == verdict.name())
                .map_or(0, |total| total.attempts)
        };
        let (denied, allowed, audit) =
            (attempts(Verdict::Deny), attempts(Verdict::Allow), attempts(Verdict::Audit));
        let mut first = format!("egress: {denied} denied, {allowed} allowed");
        if audit > 0 {
            first.push_str(&format!(", {audit} passed only because of audit mode"));
        }
        let mut lines = vec![first];
        for denied in &self.denied {
            lines.push(format!("  {:>6} × {}", denied.count, denied.destination));
        }
        if self.denied_others > 0 {
            lines.push(format!("  {:>6} × other destinations", self.denied_others));
        }
        lines.extend(self.verdicts.iter().filter_map(missing_line));
        if let Some(error) = self.decode_error {
            lines.push(format!(
                "egress: events that could not be read: {} (the last: {error})",
                self.undecodable
            ));
        }
        lines
    }
}

/// What was not shown of one verdict; repetitions of what is allowed are left out by design and need no line.
fn missing_line(total: &VerdictTotal) -> Option<String> {
    let suppressed = if total.verdict == Verdict::Allow.name() { 0 } else { total.suppressed };
    if suppressed + total.dropped == 0 {
        return None;
    }
    let VerdictTotal { verdict, dropped, .. } = total;
    Some(format!(
        "egress: {verdict}: {suppressed} events left out over the rate, {dropped} lost to a full buffer; all were judged and counted"
    ))
}

#[cfg(test)]
mod tests {
    use egress_common::{Address, Event};
    use insta::assert_snapshot;

    use super::*;
    use crate::observe::record::tests::{denied, of, raw_socket};

    fn counters() -> Counters {
        let mut counters = Counters::ZERO;
        counters.attempts[0][1][1] = 10;
        counters.attempts[0][0][11] = 2;
        counters.attempts[1][3][12] = 7;
        counters.fate[0].emitted = 9;
        counters.fate[0].suppressed = 2;
        counters.fate[0].dropped = 1;
        counters.fate[1].suppressed = 7;
        counters
    }

    #[test]
    fn it_tells_totals_and_the_most_denied() {
        let mut tally = Tally::default();
        for _ in 0..3 {
            tally.add(&of(&denied()));
        }
        tally.add(&of(&raw_socket()));
        tally.add(&of(&Event { verdict: Verdict::Allow as u8, port: 1, ..denied() }));
        assert!(tally.undecodable(DecodeError::Hook(9)));
        assert!(!tally.undecodable(DecodeError::Length { got: 3 }));
        assert_snapshot!(tally.summary(&counters()).lines().join("\n"), @r"
        egress: 12 denied, 7 allowed
               3 × tcp collect.attacker.example (203.0.113.66:443)
               1 × socket raw/icmp
        egress: deny: 2 events left out over the rate, 1 lost to a full buffer; all were judged and counted
        egress: events that could not be read: 2 (the last: event of 3 bytes instead of 96)
        ");
    }

    #[test]
    fn a_quiet_run_is_one_line() {
        let mut counters = Counters::ZERO;
        counters.attempts[1][1][13] = 3;
        counters.fate[1].suppressed = 2;
        counters.fate[1].emitted = 1;
        assert_snapshot!(Tally::default().summary(&counters).lines().join("\n"), @"egress: 0 denied, 3 allowed");
        counters.attempts[2][1][1] = 4;
        assert_snapshot!(Tally::default().summary(&counters).lines().join("\n"), @"egress: 0 denied, 3 allowed, 4 passed only because of audit mode");
    }

    #[test]
    fn what_it_does_not_name_it_counts() {
        // Mutation seen to fail here: `beyond` left out of `denied_others`.
        let mut tally = Tally::default();
        let total = u32::try_from(MAX_DESTINATIONS).unwrap() + 500;
        for n in 0..total {
            let [_, b, c, d] = n.to_be_bytes();
            tally.add(&of(&Event { address: Address::from_v4([192, b, c, d]), ..denied() }));
        }
        let summary = tally.summary(&Counters::ZERO);
        assert_eq!(summary.denied.len(), TOP);
        assert_eq!(tally.denied.len(), MAX_DESTINATIONS);
        let named: u64 = summary.denied.iter().map(|denied| denied.count).sum();
        assert_eq!(named + summary.denied_others, u64::from(total));
    }

    #[test]
    fn counts_are_those_of_the_kernel() {
        let summary = Tally::default().summary(&counters());
        let of = |verdict: usize| &summary.verdicts[verdict];
        assert_eq!((of(0).attempts, of(0).emitted, of(0).suppressed, of(0).dropped), (12, 9, 2, 1));
        assert_eq!((of(1).attempts, of(2).attempts), (7, 0));
        let counts: Vec<String> = summary
            .attempts
            .iter()
            .map(|c| format!("{} {} {} {}", c.verdict, c.hook, c.reason, c.count))
            .collect();
        assert_eq!(counts, ["deny create socket-type 2", "deny connect no-rule 10", "allow packet rule 7"]);
    }
}
