//! What a run came to: the kernel's exact counters, and the destinations that were seen denied.

use std::collections::BTreeMap;

use egress_common::{Counters, Hook, Reason, Verdict};
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
    denied: BTreeMap<String, u64>,
    beyond: u64,
    undecodable: u64,
    last_error: Option<DecodeError>,
    questions: BTreeMap<(Verdict, DnsReason), u64>,
    refused_names: BTreeMap<String, u64>,
    refused_beyond: u64,
    questions_lost: u64,
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

    /// Counts a question.
    pub fn question(&mut self, told: &Told) {
        *self.questions.entry((told.verdict, told.reason)).or_default() += 1;
        if told.verdict == Verdict::Allow
            || FAILURES.contains(&told.reason)
            || told.reason == DnsReason::Search
        {
            return;
        }
        if let Some(count) = self.refused_names.get_mut(&told.name) {
            *count += 1;
        } else if self.refused_names.len() >= MAX_DESTINATIONS {
            self.refused_beyond += 1;
        } else {
            self.refused_names.insert(told.name.clone(), 1);
        }
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
        let mut denied: Vec<Denied> = self
            .denied
            .iter()
            .map(|(destination, &count)| Denied { destination: destination.clone(), count })
            .collect();
        // Stable: equal counts stay in the order of their names.
        denied.sort_by_key(|denied| std::cmp::Reverse(denied.count));
        let others: u64 = denied.iter().skip(TOP).map(|denied| denied.count).sum();
        denied.truncate(TOP);
        let (refused_names, refused_names_others) = self.refused_names();
        Summary {
            verdicts: Verdict::ALL.iter().map(|&verdict| total(verdict, counters)).collect(),
            attempts: counts(counters),
            denied,
            denied_others: others + self.beyond,
            undecodable: self.undecodable,
            decode_error: self.last_error,
            questions: self.question_counts(),
            refused_names,
            refused_names_others,
            questions_lost: self.questions_lost,
        }
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

    /// The most refused, and the questions for the others.
    fn refused_names(&self) -> (Vec<RefusedName>, u64) {
        let mut names: Vec<RefusedName> = self
            .refused_names
            .iter()
            .map(|(name, &count)| RefusedName { name: name.clone(), count })
            .collect();
        names.sort_by_key(|refused| std::cmp::Reverse(refused.count));
        let others: u64 = names.iter().skip(TOP).map(|refused| refused.count).sum();
        names.truncate(TOP);
        (names, others + self.refused_beyond)
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
