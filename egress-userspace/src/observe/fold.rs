//! Folding of repetitions, so that a flood cannot bury a terminal: decides what is shown, counts what is not.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use egress_common::{Reason, Verdict};

use super::record::{Protocol, Record};

/// How long equal lines are counted before their number is told.
const WINDOW: Duration = Duration::from_secs(1);

/// Equal lines shown in a window.
const SHOWN: u64 = 3;

/// Different lines shown in a window.
const MAX_KEYS: usize = 64;

/// What makes two attempts equal to a reader.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct Key {
    verdict: Verdict,
    reason: Reason,
    protocol: Protocol,
    destination: Option<(std::net::IpAddr, Option<u16>)>,
    pid: Option<u32>,
}

impl Key {
    /// Of an attempt.
    pub fn of(record: &Record) -> Self {
        Self {
            verdict: record.verdict,
            reason: record.reason,
            protocol: record.protocol,
            destination: record.destination.as_ref().map(|to| (to.address, to.port)),
            pid: record.process.as_ref().map(|process| process.pid),
        }
    }
}

/// A number of attempts that were not shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Repeated {
    /// How many.
    pub count: u64,
    /// What they were equal to; `None` for different ones that were too many.
    pub subject: Option<String>,
}

impl Repeated {
    /// The line that tells of them.
    pub fn line(&self) -> String {
        let count = self.count;
        match &self.subject {
            Some(subject) => format!("… {count} more of the same in the last second: {subject}"),
            None => format!("… {count} more to other destinations in the last second"),
        }
    }
}

#[derive(Debug)]
struct Window {
    seen: u64,
    subject: String,
}

/// State of the folding.
#[derive(Debug, Default)]
pub struct Fold {
    ends: Option<Instant>,
    windows: BTreeMap<Key, Window>,
    beyond: u64,
}

impl Fold {
    /// Whether an attempt is shown. Call [`Fold::due`] first.
    pub fn shows(&mut self, key: Key, subject: impl FnOnce() -> String, now: Instant) -> bool {
        self.ends.get_or_insert(now + WINDOW);
        if let Some(window) = self.windows.get_mut(&key) {
            window.seen += 1;
            return window.seen <= SHOWN;
        }
        if self.windows.len() >= MAX_KEYS {
            self.beyond += 1;
            return false;
        }
        self.windows.insert(key, Window { seen: 1, subject: subject() });
        true
    }

    /// When something is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.ends
    }

    /// What was not shown, if the window is over.
    pub fn due(&mut self, now: Instant) -> Vec<Repeated> {
        if self.ends.is_some_and(|ends| ends <= now) { self.all() } else { Vec::new() }
    }

    /// What was not shown; begins a new window.
    pub fn all(&mut self) -> Vec<Repeated> {
        self.ends = None;
        let folded = std::mem::take(&mut self.windows).into_values().filter(|window| window.seen > SHOWN);
        let mut repeated: Vec<Repeated> = folded
            .map(|window| Repeated { count: window.seen - SHOWN, subject: Some(window.subject) })
            .collect();
        let beyond = std::mem::take(&mut self.beyond);
        if beyond > 0 {
            repeated.push(Repeated { count: beyond, subject: None });
        }
        repeated
    }
}
