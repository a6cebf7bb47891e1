//! Lines for people. One line says who tried, where to, why it was refused and what would allow it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::IpAddr,
    time::{Duration, Instant},
};

use egress_common::{Hook, Reason, Verdict};

use super::{
    detail::Detail,
    escape::{host_name, plain_text, process_name},
    fold::{Fold, Key, Repeated},
    question::{FAILURES, Question},
    record::{Destination, Process, Record, RuleRef},
    sink::Lines,
    time::{local_offset, time_of_day},
};
use crate::{
    dns::{outcome::Outcome, told::Dropped},
    policy::query_type_name,
};

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
        if record.verdict == Verdict::Allow && !self.style.allowed && !record.is_escape() {
            return;
        }
        self.flush_due(now);
        let short = || subject(record);
        if self.fold.shows(Key::of(record), short, now) {
            let line = line(record, self.style, (self.offset)(record.time));
            self.lines.line(line.as_bytes());
        }
    }

    /// Shows a question, if a person needs to know of it, or counts it as a repetition.
    pub fn question(&mut self, question: &Question, now: Instant) {
        if !question.is_news() && !self.style.allowed {
            return;
        }
        self.flush_due(now);
        let short = || question_subject(question);
        if self.fold.shows_question(Key::of_question(question), question.query_type, short, now) {
            let line = question_line(question, self.style, (self.offset)(question.time));
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

/// Most refused answers, and most names with troubles, that are remembered as told: clients choose names below wildcards.
const MAX_TOLD: usize = 1024;

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
                if self.refused.len() >= MAX_TOLD {
                    self.refused.clear();
                }
                self.refused.insert((name.to_owned(), *address)).then_some(line).flatten()
            }
            (_, Some(line)) => {
                if self.troubles.len() >= MAX_TOLD {
                    self.troubles.clear();
                }
                let known = self.troubles.insert(name.to_owned(), line.clone());
                (known.as_ref() != Some(&line)).then_some(line)
            }
            (_, None) => self.troubles.remove(name).map(|_| format!("egress: {} is open", host_name(name))),
        }
    }
}

/// The line of one attempt, at an offset from UTC in seconds.
pub fn line(record: &Record, style: Style, offset: i64) -> String {
    let time = time_of_day(record.time, offset);
    let colour = if record.is_escaped() { Verdict::Deny } else { record.verdict };
    let verdict = coloured(word(record), colour, style);
    let mut line = format!("{time} {verdict} {}", what_and_who(record));
    line.push_str(&format!(" {}: {}", record.reason.name(), known_and_sentence(record)));
    line.push_str(&rule_in_brackets(record.rule.as_ref()));
    if let Some(remedy) = &record.remedy {
        line.push_str(&format!("; to allow: {}", plain_text(remedy)));
    }
    line
}

/// The line of one question, at an offset from UTC in seconds.
pub fn question_line(question: &Question, style: Style, offset: i64) -> String {
    let time = time_of_day(question.time, offset);
    let word = coloured(question_word(question), question.verdict, style);
    let mut line = format!("{time} {word} {}", asked_by(question));
    let reason = question.reason;
    line.push_str(&format!(" {}: {}", reason.name(), reason.text()));
    line.push_str(&rule_in_brackets(question.rule.as_ref()));
    line.push_str(&taken_out(&question.dropped));
    let ways: Vec<String> =
        question.remedy.iter().chain(&question.setting).map(|way| plain_text(way)).collect();
    if !ways.is_empty() {
        line.push_str(&format!("; to allow: {}", ways.join(" or ")));
    }
    line
}

/// Most addresses of an answer that a line names.
const SHOWN_ADDRESSES: usize = 3;

fn taken_out(dropped: &[Dropped]) -> String {
    let Some(first) = dropped.first() else { return String::new() };
    let addresses: Vec<String> =
        dropped.iter().take(SHOWN_ADDRESSES).map(|dropped| dropped.address.to_string()).collect();
    let more = match dropped.len().saturating_sub(SHOWN_ADDRESSES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("; taken out of the answer: {}{more}: {}", addresses.join(", "), first.why)
}

fn question_word(question: &Question) -> &'static str {
    match question.verdict {
        _ if FAILURES.contains(&question.reason) => "FAIL",
        Verdict::Allow if !question.dropped.is_empty() => "DROP",
        verdict => verdict_word(verdict),
    }
}

fn asked_by(question: &Question) -> String {
    let name = host_name(question.shown_name());
    let class = if question.class == IN { String::new() } else { format!(" class {}", question.class) };
    format!("dns {name} {}{class} {}", query_type_name(question.query_type), who(question.process.as_ref()))
}

/// The class that names are asked in.
const IN: u16 = 1;

/// Verdict, name and process, to tell of repetitions.
fn question_subject(question: &Question) -> String {
    format!("{} {}", question_word(question), asked_by(question))
}

fn coloured(word: &str, verdict: Verdict, style: Style) -> String {
    let colour = match verdict {
        Verdict::Deny => RED,
        Verdict::Audit => YELLOW,
        Verdict::Allow => GREEN,
    };
    if style.colours { format!("{colour}{word}{RESET}") } else { word.to_owned() }
}

fn rule_in_brackets(rule: Option<&RuleRef>) -> String {
    match rule {
        None => String::new(),
        Some(rule) if rule.origin.is_empty() => format!(" (rule {})", rule.id),
        Some(rule) => format!(" ({})", plain_text(&rule.origin)),
    }
}

/// The reason in words, with what answers told of the address.
/// Of a unix socket that the hook itself refused.
const UNIX_UNTOLD: &str = "nobody can tell whose it is: only an address that was given to connect(), or to sendto() in another length \
     than the internet's 16 and 28 bytes, can be judged; not one of sendmsg() or io_uring";

fn known_and_sentence(record: &Record) -> String {
    let sentence = match record.reason {
        Reason::Cgroup if record.is_escaped() => "the process is not bounded any more; root outside did this",
        _ if record.is_escaped() => "this does not hold any more; root outside did this",
        Reason::Unix if record.detail == Some(Detail::Unix { name: None }) => UNIX_UNTOLD,
        reason => sentence(reason),
    };
    let Some(to) = &record.destination else { return sentence.to_owned() };
    let mut names: Vec<String> = to.names.iter().take(SHOWN_ADDRESSES).map(|name| host_name(name)).collect();
    if let (true, Some(name)) = (names.is_empty(), &to.name) {
        names.push(host_name(name));
    }
    let more = match to.names.len().saturating_sub(SHOWN_ADDRESSES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let names = names.join(", ");
    match record.reason {
        Reason::Expired if !names.is_empty() => format!("expired permit for {names}{more}: {sentence}"),
        Reason::NoRule if to.literal && to.name.is_none() => {
            format!("{sentence}, a literal address that no answer gave")
        }
        Reason::NoRule | Reason::Permit | Reason::DenyRule if to.names.len() > 1 => {
            format!("{sentence}; the address serves {names}{more}")
        }
        _ => sentence.to_owned(),
    }
}

/// Verdict, destination and process, to tell of repetitions.
fn subject(record: &Record) -> String {
    format!("{} {}", word(record), what_and_who(record))
}

/// The verdict of an attempt; one to get out of the scope is a class of its own.
fn word(record: &Record) -> &'static str {
    match record.verdict {
        Verdict::Deny if record.is_escape() => "ESCAPE DENIED",
        Verdict::Allow if record.is_escape() => "ESCAPED",
        verdict => verdict_word(verdict),
    }
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Deny => "DENY",
        Verdict::Allow => "ALLOW",
        Verdict::Audit => "AUDIT",
    }
}

/// Protocol and destination, the kind of socket that was to be made, or what else it was about.
pub fn what(record: &Record) -> String {
    let protocol = record.protocol.name();
    match (&record.detail, &record.destination) {
        (Some(detail @ Detail::Inbound { .. }), Some(from)) => {
            return format!("inbound {protocol} from {} {}", destination(from), detail.words());
        }
        (Some(detail), _) => return detail.words(),
        (None, _) => {}
    }
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
    format!("{} {}", what(record), who(record.process.as_ref()))
}

fn who(process: Option<&Process>) -> String {
    match process {
        Some(process) => format!("{}[{}]", process_name(&process.comm), process.pid),
        None => "unknown-process".to_owned(),
    }
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
        Reason::Expired => "the DNS answer that opened it has run out; asking anew opens it again",
        Reason::Loopback => "it is the host itself, which `loopback:` does not open",
        Reason::Metadata => "it is a metadata service, which only a `cidr` rule opens",
        Reason::LinkLocal => "it is link-local, which only a `cidr` rule opens",
        Reason::Multicast => "it is multicast, which only a `cidr` rule opens",
        Reason::Broadcast => "it is broadcast or reserved, which only a `cidr` rule opens",
        Reason::Transport => "only TCP, UDP and ping can be allowed",
        Reason::NotPlain => "IP options, extension headers, fragments or a chosen device hide where it goes",
        Reason::SocketType => {
            "only TCP and UDP sockets can be made, and for ping where a rule says `protocol: icmp`"
        }
        Reason::Rule => "a rule covers it",
        Reason::Permit => "an allowed name opened it",
        Reason::Dns => "ports 53 and 853 are closed: names are asked through egress's own resolver",
        Reason::Own => "on this host, and no socket of anybody else",
        Reason::Inbound => "it comes from outside the scope, and `inbound:` does not open the port",
        Reason::SocketOption => "the option sends data of its own, or leads packets elsewhere than they say",
        Reason::Unix => "it is a unix socket of a process outside, which no `unix` rule opens",
        Reason::Family => "sockets of this family lead out past IP",
        Reason::Descriptor => "the socket was made outside the scope",
        Reason::Process => "the process is outside the scope",
        Reason::Cgroup => "it would leave the scope",
        Reason::Bpf => "bpf(2) could detach what enforces the policy",
        Reason::Namespace => "it leads to another network, or to the cgroups",
        Reason::Sysctl => "kernel settings reach beyond the scope",
        Reason::Device => "the device carries packets or memory past the scope",
        Reason::Syscall => "the call is taken away at launch; `--permit` gives it back",
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
