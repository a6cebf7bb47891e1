//! What a run came to: the kernel's exact counters, and the destinations that were seen denied.

use std::collections::BTreeMap;

use egress_common::{Counters, Hook, Reason, Verdict, lsm::LsmCounters};
use serde::Serialize;

use super::{
    escape::host_name,
    question::{FAILURES, shown_name},
    record::{DecodeError, Record},
    text::what,
};
use crate::dns::told::{DnsReason, Told};

/// Different denied destinations that are kept apart.
const MAX_DESTINATIONS: usize = 4096;

/// Denied destinations that a summary names.
const TOP: usize = 10;

/// Gathers what passes by during a run.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    denied: Ranking,
    escapes: Ranking,
    supervised: BTreeMap<(Verdict, Hook, Reason), u64>,
    undecodable: u64,
    last_error: Option<DecodeError>,
    questions: BTreeMap<(Verdict, DnsReason), u64>,
    refused_names: Ranking,
    questions_lost: u64,
}

/// Different things and how often each was seen, in bounded memory.
#[derive(Clone, Debug, Default)]
struct Ranking {
    counts: BTreeMap<String, u64>,
    beyond: u64,
}

impl Ranking {
    fn add(&mut self, key: String) {
        if self.counts.len() >= MAX_DESTINATIONS && !self.counts.contains_key(&key) {
            self.beyond += 1;
        } else {
            *self.counts.entry(key).or_default() += 1;
        }
    }

    /// The most frequent, and how many the others were.
    fn top<T>(&self, item: impl Fn(String, u64) -> T) -> (Vec<T>, u64) {
        let mut top: Vec<(&String, u64)> = self.counts.iter().map(|(key, &count)| (key, count)).collect();
        // Stable: equal counts stay in the order of their names.
        top.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let others: u64 = top.iter().skip(TOP).map(|(_, count)| count).sum();
        let top = top.into_iter().take(TOP).map(|(key, count)| item(key.clone(), count)).collect();
        (top, others + self.beyond)
    }
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

/// Attempts to get out of the scope in one way, as far as events told of them.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Escapes {
    /// Which way, as people read it.
    pub what: String,
    /// Events seen.
    pub count: u64,
}

/// Number of questions of one kind.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct QuestionCount {
    /// The verdict.
    pub verdict: &'static str,
    /// Why.
    pub reason: &'static str,
    /// How often.
    pub count: u64,
}

/// A name that was refused, or would have been.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct RefusedName {
    /// The name, as its questions have it.
    pub name: String,
    /// Questions.
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
    /// Attempts that the supervisor refused or saw: they are in no other number, and each has an event.
    pub supervised: Vec<Count>,
    /// The attempts to get out of the scope most often seen, at most ten.
    pub escapes: Vec<Escapes>,
    /// Events of other attempts to get out.
    pub escapes_others: u64,
    /// Events that could not be read.
    pub undecodable: u64,
    /// The last reason why.
    pub decode_error: Option<DecodeError>,
    /// Questions for names by verdict and reason.
    pub questions: Vec<QuestionCount>,
    /// The names most often refused, at most ten.
    pub refused_names: Vec<RefusedName>,
    /// Questions for other refused names.
    pub refused_names_others: u64,
    /// Questions that got lost: they are in no other number.
    pub questions_lost: u64,
}

impl Tally {
    /// Counts an attempt.
    pub fn add(&mut self, record: &Record) {
        if record.is_escape() {
            self.escapes.add(what(record));
        } else if record.verdict != Verdict::Allow {
            self.denied.add(what(record));
        }
    }

    /// Counts an attempt that the supervisor refused or saw, which is in no counter of the kernel.
    pub fn supervised(&mut self, record: &Record) {
        *self.supervised.entry((record.verdict, record.hook, record.reason)).or_default() += 1;
        self.add(record);
    }

    /// Counts a question.
    pub fn question(&mut self, told: &Told) {
        *self.questions.entry((told.verdict, told.reason)).or_default() += 1;
        if told.verdict == Verdict::Allow
            || FAILURES.contains(&told.reason)
            || told.reason == DnsReason::Search
        {
            return;
        }
        self.refused_names.add(told.name.clone());
    }

    /// Counts questions that got lost; true for the first, which are worth a line at once.
    pub fn lost(&mut self, questions: u64) -> bool {
        let first = self.questions_lost == 0 && questions > 0;
        self.questions_lost += questions;
        first
    }

    /// Counts an event that could not be read; true for the first, which is worth a line at once.
    pub fn undecodable(&mut self, error: DecodeError) -> bool {
        self.undecodable += 1;
        self.last_error = Some(error);
        self.undecodable == 1
    }

    /// The summary with the kernel's counters, added up over all CPUs.
    pub fn summary(&self, counters: &Counters) -> Summary {
        let (denied, denied_others) = self.denied.top(|destination, count| Denied { destination, count });
        let (escapes, escapes_others) = self.escapes.top(|what, count| Escapes { what, count });
        let (refused_names, refused_names_others) =
            self.refused_names.top(|name, count| RefusedName { name, count });
        Summary {
            verdicts: Verdict::ALL.iter().map(|&verdict| total(verdict, counters)).collect(),
            attempts: counts(counters),
            denied,
            denied_others,
            supervised: self.supervised_counts(),
            escapes,
            escapes_others,
            undecodable: self.undecodable,
            decode_error: self.last_error,
            questions: self.question_counts(),
            refused_names,
            refused_names_others,
            questions_lost: self.questions_lost,
        }
    }

    fn supervised_counts(&self) -> Vec<Count> {
        let count = |(&(verdict, hook, reason), &count): (&(Verdict, Hook, Reason), &u64)| Count {
            verdict: verdict.name(),
            hook: hook.name(),
            reason: reason.name(),
            count,
        };
        self.supervised.iter().map(count).collect()
    }

    fn question_counts(&self) -> Vec<QuestionCount> {
        let counts = self.questions.iter();
        let count = |(&(verdict, reason), &count): (&(Verdict, DnsReason), &u64)| QuestionCount {
            verdict: verdict.name(),
            reason: reason.name(),
            count,
        };
        counts.map(count).collect()
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
                let count = counters.count(verdict, hook, reason);
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
    /// With the counters of the LSM layer, which are the kernel's too: the law holds of the sums.
    #[must_use]
    pub fn with_lsm(mut self, counters: &LsmCounters) -> Self {
        for (verdict, total) in Verdict::ALL.into_iter().zip(&mut self.verdicts) {
            let fate = &counters.fate[verdict as usize];
            total.emitted += fate.emitted;
            total.suppressed += fate.suppressed;
            total.dropped += fate.dropped;
            for reason in Reason::ALL {
                let count = counters.count(verdict, reason);
                total.attempts += count;
                if count > 0 {
                    let (verdict, hook, reason) = (verdict.name(), Hook::Lsm.name(), reason.name());
                    self.attempts.push(Count { verdict, hook, reason, count });
                }
            }
        }
        self
    }

    /// The lines for a person.
    pub fn lines(&self) -> Vec<String> {
        let attempts = |verdict: Verdict| -> u64 {
            let of_kernel = self.verdicts.iter().filter(|total| total.verdict == verdict.name());
            // What the supervisor saw get out was allowed by nobody.
            let refused = |count: &&Count| count.verdict == verdict.name() && verdict != Verdict::Allow;
            let supervised = self.supervised.iter().filter(refused);
            of_kernel.map(|total| total.attempts).chain(supervised.map(|count| count.count)).sum()
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
        lines.extend(self.escape_lines());
        lines.extend(self.question_line());
        for refused in &self.refused_names {
            lines.push(format!("  {:>6} × dns {}", refused.count, host_name(shown_name(&refused.name))));
        }
        if self.refused_names_others > 0 {
            lines.push(format!("  {:>6} × dns other names", self.refused_names_others));
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

impl Summary {
    /// What tried to get out of the scope, if anything did.
    fn escape_lines(&self) -> Vec<String> {
        let seen: u64 = self.escapes.iter().map(|escape| escape.count).sum::<u64>() + self.escapes_others;
        if seen == 0 {
            return Vec::new();
        }
        let mut lines = vec![format!("egress: escape attempts: {seen}")];
        lines.extend(self.escapes.iter().map(|seen| format!("  {:>6} × {}", seen.count, seen.what)));
        if self.escapes_others > 0 {
            lines.push(format!("  {:>6} × other ways", self.escapes_others));
        }
        lines
    }

    /// How many questions were asked and what came of them, if there were any. Guesses with a search suffix are left out.
    fn question_line(&self) -> Option<String> {
        let (mut answered, mut refused, mut audited, mut failures) = (0, 0, 0, 0);
        for QuestionCount { verdict, reason, count } in &self.questions {
            let is = |others: &[DnsReason]| others.iter().any(|other| other.name() == *reason);
            if is(&[DnsReason::Search]) {
                continue;
            }
            *match *verdict {
                _ if is(&FAILURES) => &mut failures,
                "allow" => &mut answered,
                "audit" => &mut audited,
                _ => &mut refused,
            } += count;
        }
        if answered + refused + audited + failures + self.questions_lost == 0 {
            return None;
        }
        let mut line = format!("egress: questions for names: {refused} refused, {answered} answered");
        if audited > 0 {
            line.push_str(&format!(", {audited} answered only because of audit mode"));
        }
        if failures > 0 {
            line.push_str(&format!(", {failures} failed"));
        }
        if self.questions_lost > 0 {
            line.push_str(&format!(", {} lost", self.questions_lost));
        }
        Some(line)
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
mod tests;
