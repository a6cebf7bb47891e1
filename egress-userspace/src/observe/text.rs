//! Lines for people. One line says who tried, where to, why it was refused and what would allow it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::IpAddr,
    time::{Duration, Instant},
};

use egress_common::{Hook, Reason, Verdict};

use super::{
    escape::{host_name, plain_text, process_name},
    fold::{Fold, Key, Repeated},
    record::{Destination, Record},
    sink::Lines,
    time::{local_offset, time_of_day},
};
use crate::dns::permit::Outcome;

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const GREEN: &str = "\x1b[32m";
const RESET: &str = "\x1b[0m";

/// How lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Style {
    /// With colours: the caller knows whether it is a terminal and what `NO_COLOR` says.
    pub colours: bool,
    /// Show allowed attempts too.
    pub allowed: bool,
}

/// Lines for a person; repetitions are folded.
#[derive(Debug)]
pub struct TextSink<W> {
    lines: Lines<W>,
    style: Style,
    offset: fn(u64) -> i64,
    fold: Fold,
    told: Told,
}

impl<W: Write> TextSink<W> {
    /// To `out`, in local time.
    pub fn new(out: W, style: Style) -> Self {
        Self::with_zone(out, style, local_offset)
    }

    /// As [`TextSink::new`], with the offset from UTC (in seconds, at a time in nanoseconds) given.
    pub fn with_zone(out: W, style: Style, offset: fn(u64) -> i64) -> Self {
        Self {
            lines: Lines::new(out, "to stderr"),
            style,
            offset,
            fold: Fold::default(),
            told: Told::default(),
        }
    }

    /// Shows an attempt, or counts it as a repetition.
    pub fn attempt(&mut self, record: &Record, now: Instant) {
        if record.verdict == Verdict::Allow && !self.style.allowed {
            return;
        }
        self.flush_due(now);
        let short = || subject(record);
        if self.fold.shows(Key::of(record), short, now) {
            let line = line(record, self.style, (self.offset)(record.time));
            self.lines.line(line.as_bytes());
        }
    }

    /// Shows what became of a name, if a person needs to know and has not been told.
    pub fn outcome(&mut self, outcome: &Outcome) {
        if let Some(line) = self.told.news(outcome) {
            self.lines.line(line.as_bytes());
        }
    }

    /// Any other line.
    pub fn note(&mut self, line: &str) {
        self.lines.line(plain_text(line).as_bytes());
    }

    /// When [`TextSink::flush_due`] has repetitions to tell of, if any wait.
    pub fn next_flush(&self) -> Option<Instant> {
        self.fold.next_due()
    }

    /// Tells of the repetitions whose second is over.
    pub fn flush_due(&mut self, now: Instant) {
        let repeated = self.fold.due(now);
        self.repetitions(&repeated);
    }

    /// Tells of all repetitions that wait: before the summary.
    pub fn finish(&mut self) {
        let repeated = self.fold.all();
        self.repetitions(&repeated);
    }

    /// Lines that could not be written.
    pub fn lost(&self) -> u64 {
        self.lines.lost()
    }

    /// What the lines went to.
    pub fn get_ref(&self) -> &W {
        self.lines.get_ref()
    }

    fn repetitions(&mut self, repeated: &[Repeated]) {
        for repeated in repeated {
            self.lines.line(repeated.line().as_bytes());
        }
    }
}

/// Most refused answers that are remembered as told.
const MAX_REFUSED: usize = 1024;

/// What was told of names: a name is looked up again and again, and only news are worth a line.
#[derive(Debug, Default)]
struct Told {
    troubles: BTreeMap<String, String>,
    refused: BTreeSet<(String, IpAddr)>,
}

impl Told {
    fn news(&mut self, outcome: &Outcome) -> Option<String> {
        let name = outcome.name();
        match (outcome, outcome_line(outcome)) {
            (Outcome::Refused { address, .. }, line) => {
                if self.refused.len() >= MAX_REFUSED {
                    self.refused.clear();
                }
                self.refused.insert((name.to_owned(), *address)).then_some(line).flatten()
            }
            (_, Some(line)) => {
                let known = self.troubles.insert(name.to_owned(), line.clone());
                (known.as_ref() != Some(&line)).then_some(line)
            }
            (_, None) => self.troubles.remove(name).map(|_| format!("egress: {} is open", host_name(name))),
        }
    }
}

/// The line of one attempt, at an offset from UTC in seconds.
pub fn line(record: &Record, style: Style, offset: i64) -> String {
    let (colour, reset) = match (style.colours, record.verdict) {
        (false, _) => ("", ""),
        (true, Verdict::Deny) => (RED, RESET),
        (true, Verdict::Audit) => (YELLOW, RESET),
        (true, Verdict::Allow) => (GREEN, RESET),
    };
    let time = time_of_day(record.time, offset);
    let verdict = verdict_word(record.verdict);
    let mut line = format!("{time} {colour}{verdict}{reset} {}", what_and_who(record));
    line.push_str(&format!(" {}: {}", record.reason.name(), sentence(record.reason)));
    if let Some(rule) = &record.rule {
        let rule =
            if rule.origin.is_empty() { format!("rule {}", rule.id) } else { plain_text(&rule.origin) };
        line.push_str(&format!(" ({rule})"));
    }
    if let Some(remedy) = &record.remedy {
        line.push_str(&format!("; to allow: {}", plain_text(remedy)));
    }
    line
}

/// Verdict, destination and process, to tell of repetitions.
fn subject(record: &Record) -> String {
    format!("{} {}", verdict_word(record.verdict), what_and_who(record))
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Deny => "DENY",
        Verdict::Allow => "ALLOW",
        Verdict::Audit => "AUDIT",
    }
}

/// Protocol and destination, or the kind of socket that was to be made.
pub fn what(record: &Record) -> String {
    let protocol = record.protocol.name();
    match (&record.destination, record.hook) {
        (Some(to), _) => format!("{protocol} {}", destination(to)),
        (None, Hook::Create) => match record.protocol.socket_type() {
            Some(kind) => format!("socket {kind}/{protocol}"),
            None => format!("socket {protocol}"),
        },
        (None, _) => format!("{protocol} unknown-destination"),
    }
}

fn what_and_who(record: &Record) -> String {
    let who = match &record.process {
        Some(process) => format!("{}[{}]", process_name(&process.comm), process.pid),
        None => "unknown-process".to_owned(),
    };
    format!("{} {who}", what(record))
}

/// `name (address:port)`, or without a name `address:port`.
fn destination(to: &Destination) -> String {
    let address = match (to.address, to.port) {
        (address, Some(port)) if address.is_ipv6() => format!("[{address}]:{port}"),
        (address, Some(port)) => format!("{address}:{port}"),
        (address, None) => address.to_string(),
    };
    match &to.name {
        Some(name) => format!("{} ({address})", host_name(name)),
        None => address,
    }
}

/// The reason in words.
pub fn sentence(reason: Reason) -> &'static str {
    match reason {
        Reason::NoPolicy => "no policy is in force yet, so nothing may pass",
        Reason::NoRule => "no rule covers it",
        Reason::DenyRule => "a rule under `deny:` covers it",
        Reason::Expired => "the DNS answer that opened it has expired",
        Reason::Loopback => "it is the host itself, which `loopback:` does not open",
        Reason::Metadata => "it is a metadata service, which only a `cidr` rule opens",
        Reason::LinkLocal => "it is link-local, which only a `cidr` rule opens",
        Reason::Multicast => "it is multicast, which only a `cidr` rule opens",
        Reason::Broadcast => "it is broadcast or reserved, which only a `cidr` rule opens",
        Reason::Transport => "only TCP and UDP can be allowed",
        Reason::NotPlain => "IP options, extension headers or fragments hide where it goes",
        Reason::SocketType => "only TCP and UDP sockets can be made",
        Reason::Rule => "a rule covers it",
        Reason::Permit => "an allowed name opened it",
        Reason::Dns => "DNS over TLS and DNS past egress's own resolver are closed",
    }
}

/// What became of a name, if a person needs to know: nothing for a name that was opened in full.
pub fn outcome_line(outcome: &Outcome) -> Option<String> {
    let name = host_name(outcome.name());
    match outcome {
        Outcome::Opened { missing: None, .. } => None,
        Outcome::Opened { missing: Some(error), .. } => {
            Some(format!("egress: {name} is open in part: one address family is missing: {error}"))
        }
        Outcome::Failed { error, open_for, .. } => Some(not_opened(&name, &error.to_string(), *open_for)),
        Outcome::Refused { address, why, .. } => {
            Some(format!("egress: {name} does not open {address}: {why}"))
        }
        Outcome::Full { open_for, .. } => Some(not_opened(&name, "the table of permits is full", *open_for)),
        Outcome::Unwritable { error, open_for, .. } => Some(not_opened(&name, error, *open_for)),
    }
}

fn not_opened(name: &str, why: &str, open_for: Duration) -> String {
    let why = plain_text(why);
    match open_for.as_secs() {
        0 => format!("egress: {name} is closed: {why}"),
        _ => format!("egress: {name} stays open under its last answer only: {why}"),
    }
}

#[cfg(test)]
mod tests;
