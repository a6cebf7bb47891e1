//! Folding of repetitions, so that a flood cannot bury a terminal: decides what is shown, counts what is not.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use egress_common::{Reason, Verdict};

use super::{
    detail::Detail,
    question::Question,
    record::{Protocol, Record},
};
use crate::dns::told::DnsReason;

/// How long equal lines are counted before their number is told.
const WINDOW: Duration = Duration::from_secs(1);

/// Equal lines shown in a window.
const SHOWN: u64 = 3;

/// Different lines shown in a window.
const MAX_KEYS: usize = 64;

/// What makes two attempts, or two questions, equal to a reader.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum Key {
    /// An attempt.
    Attempt {
        /// Verdict and reason.
        why: (Verdict, Reason),
        /// Kind of traffic.
        protocol: Protocol,
        /// Where to.
        destination: Option<(IpAddr, Option<u16>)>,
        /// What else it was about.
        detail: Option<Detail>,
        /// Who.
        pid: Option<u32>,
    },
    /// A question.
    Question {
        /// Verdict and reason.
        why: (Verdict, DnsReason),
        /// The name.
        name: String,
        /// Its type; `None` for those of which clients ask several in one lookup.
        query_type: Option<u16>,
        /// Who.
        pid: Option<u32>,
    },
}

/// Types of which clients ask several for one name at a time: A, AAAA, SVCB, HTTPS.
const COMPANIONS: [u16; 4] = [1, 28, 64, 65];

impl Key {
    /// Of an attempt.
    pub fn of(record: &Record) -> Self {
        Self::Attempt {
            why: (record.verdict, record.reason),
            protocol: record.protocol,
            destination: record.destination.as_ref().map(|to| (to.address, to.port)),
            detail: record.detail.clone(),
            pid: record.process.as_ref().map(|process| process.pid),
        }
    }

    /// Of a question.
    pub fn of_question(question: &Question) -> Self {
        Self::Question {
            why: (question.verdict, question.reason),
            name: question.name.clone(),
            query_type: (!COMPANIONS.contains(&question.query_type)).then_some(question.query_type),
            pid: question.process.as_ref().map(|process| process.pid),
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
    /// Type of the first question.
    query_type: u16,
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
        self.shows_question(key, 0, subject, now)
    }

    /// Whether a question is shown; one lookup asks for several types, of which the first stands for all.
    pub fn shows_question(
        &mut self,
        key: Key,
        query_type: u16,
        subject: impl FnOnce() -> String,
        now: Instant,
    ) -> bool {
        self.ends.get_or_insert(now + WINDOW);
        if let Some(window) = self.windows.get_mut(&key) {
            if window.query_type != query_type {
                return false;
            }
            window.seen += 1;
            return window.seen <= SHOWN;
        }
        if self.windows.len() >= MAX_KEYS {
            self.beyond += 1;
            return false;
        }
        self.windows.insert(key, Window { seen: 1, query_type, subject: subject() });
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
