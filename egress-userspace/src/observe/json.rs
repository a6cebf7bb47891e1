//! Lines for programs: one JSON object a line, of the schema `schema/events.v1.json`: `start` once, then `names`,
//! `dns`, `attempt` and `escape` as they come, `summary` last.

mod question;

use std::{
    io::{self, Write},
    net::IpAddr,
};

use serde::Serialize;
use serde_json::ser::Formatter;

use super::{
    detail::Detail,
    question::Question,
    record::{self, Record},
    sink::Lines,
    summary::Summary,
    text::what,
    time::rfc3339,
};
use crate::dns::outcome::Outcome;

pub use question::question_line;

/// Version of the schema, the field `v`. Within a version fields are only added. Every object has `v`, `type` and
/// `time` (RFC 3339, UTC); what is not known is `null`, never left out. The text is ASCII, anything else is escaped, so
/// that it is safe to print.
pub const VERSION: u32 = 1;

/// The schema itself.
pub const SCHEMA: &str = include_str!("../../schema/events.v1.json");

/// Writes JSON lines.
#[derive(Debug)]
pub struct JsonSink<W> {
    lines: Lines<W>,
}

impl<W: Write> JsonSink<W> {
    /// To `out`, which should not be buffered: a line is one write.
    pub fn new(out: W) -> Self {
        Self { lines: Lines::new(out, "events") }
    }

    /// With an alarm of the caller's for a failed write.
    pub fn with_lines(lines: Lines<W>) -> Self {
        Self { lines }
    }

    /// The beginning of a run.
    pub fn start(&mut self, start: &Start<'_>, time: u64) {
        self.lines.line(&start_line(start, time));
    }

    /// An attempt.
    pub fn attempt(&mut self, record: &Record) {
        self.lines.line(&attempt_line(record));
    }

    /// A question.
    pub fn question(&mut self, question: &Question) {
        self.lines.line(&question_line(question));
    }

    /// What lookups came to.
    pub fn names(&mut self, outcomes: &[Outcome], time: u64) {
        if !outcomes.is_empty() {
            self.lines.line(&names_line(outcomes, time));
        }
    }

    /// The end of a run.
    pub fn summary(&mut self, summary: &Summary, time: u64) {
        self.lines.line(&summary_line(summary, time));
    }

    /// Lines that could not be written.
    pub fn lost(&self) -> u64 {
        self.lines.lost()
    }

    /// What the lines went to.
    pub fn get_ref(&self) -> &W {
        self.lines.get_ref()
    }
}

/// What a run begins with.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Start<'a> {
    /// Version of `egress`.
    pub egress: &'a str,
    /// Name of the policy.
    pub policy: Option<&'a str>,
    /// Files it was read from, the named one first.
    pub files: &'a [String],
    /// Digest of the policy, if the caller has one.
    pub digest: Option<&'a str>,
    /// Whether denials are only reported.
    pub audit: bool,
    /// Cgroup id of the scope.
    pub scope: u64,
    /// Path of its cgroup.
    pub cgroup_path: &'a str,
    /// The command with its arguments.
    pub command: &'a [String],
    /// What was given back to it by name.
    pub lifted: &'a [&'static str],
    /// The paths that stay open, by their names in the table of paths.
    pub open: &'a [&'static str],
}

#[derive(Serialize)]
struct StartLine<'a> {
    v: u32,
    r#type: &'static str,
    time: String,
    egress: &'a str,
    policy: Option<&'a str>,
    files: &'a [String],
    digest: Option<&'a str>,
    mode: &'static str,
    scope: u64,
    cgroup_path: &'a str,
    command: &'a [String],
    lifted: &'a [&'static str],
    open: &'a [&'static str],
}

#[derive(Serialize)]
struct AttemptLine<'a> {
    v: u32,
    r#type: &'static str,
    time: String,
    verdict: &'static str,
    hook: &'static str,
    reason: &'static str,
    direction: &'static str,
    protocol: Option<String>,
    protocol_number: Option<u16>,
    socket_type: Option<&'static str>,
    address: Option<IpAddr>,
    port: Option<u16>,
    name: Option<&'a str>,
    names: &'a [String],
    literal: Option<bool>,
    subject: Option<String>,
    rule: Option<Rule<'a>>,
    process: Option<Process<'a>>,
    scope: u64,
    cgroup: u64,
    cgroup_path: Option<&'a str>,
    cookie: Option<u64>,
    remedy: Option<&'a str>,
}

#[derive(Serialize)]
struct EscapeLine<'a> {
    v: u32,
    r#type: &'static str,
    time: String,
    verdict: &'static str,
    hook: &'static str,
    reason: &'static str,
    what: String,
    subject: Option<String>,
    number: Option<u32>,
    target: Option<u32>,
    process: Option<Process<'a>>,
    scope: u64,
    cgroup: u64,
    cgroup_path: Option<&'a str>,
}

#[derive(Serialize)]
struct Rule<'a> {
    id: u32,
    origin: &'a str,
    text: &'a str,
}

#[derive(Serialize)]
struct Process<'a> {
    pid: u32,
    tid: u32,
    uid: u32,
    gid: u32,
    comm: String,
    exe: Option<&'a str>,
    exe_deleted: bool,
}

impl<'a> Rule<'a> {
    fn of(rule: &'a record::RuleRef) -> Self {
        Self { id: rule.id, origin: &rule.origin, text: &rule.text }
    }
}

impl<'a> Process<'a> {
    fn of(process: &'a record::Process) -> Self {
        Self {
            pid: process.pid,
            tid: process.tid,
            uid: process.uid,
            gid: process.gid,
            comm: String::from_utf8_lossy(&process.comm).into_owned(),
            exe: process.exe.as_ref().map(|exe| exe.path.as_str()),
            exe_deleted: process.exe.as_ref().is_some_and(|exe| exe.deleted),
        }
    }
}

#[derive(Serialize)]
struct NamesLine<'a> {
    v: u32,
    r#type: &'static str,
    time: String,
    outcomes: Vec<NameLine<'a>>,
}

#[derive(Serialize)]
struct NameLine<'a> {
    name: &'a str,
    outcome: &'static str,
    addresses: Vec<IpAddr>,
    ttl: Option<u64>,
    open_for: u64,
    error: Option<String>,
}

#[derive(Serialize)]
struct SummaryLine<'a> {
    v: u32,
    r#type: &'static str,
    time: String,
    #[serde(rename = "verdicts")]
    verdicts: &'a [super::summary::VerdictTotal],
    attempts: &'a [super::summary::Count],
    denied: &'a [super::summary::Denied],
    denied_others: u64,
    undecodable: u64,
    supervised: &'a [super::summary::Count],
    escapes: &'a [super::summary::Escapes],
    escapes_others: u64,
    questions: &'a [super::summary::QuestionCount],
    refused_names: &'a [super::summary::RefusedName],
    refused_names_others: u64,
    questions_lost: u64,
}

/// The line of a run's beginning.
pub fn start_line(start: &Start<'_>, time: u64) -> Vec<u8> {
    line(&StartLine {
        v: VERSION,
        r#type: "start",
        time: rfc3339(time),
        egress: start.egress,
        policy: start.policy,
        files: start.files,
        digest: start.digest,
        mode: if start.audit { "audit" } else { "enforce" },
        scope: start.scope,
        cgroup_path: start.cgroup_path,
        command: start.command,
        lifted: start.lifted,
        open: start.open,
    })
}

/// The line of an attempt; one to get out of the scope is of a type of its own.
pub fn attempt_line(record: &Record) -> Vec<u8> {
    if record.is_escape() {
        return escape_line(record);
    }
    let to = record.destination.as_ref();
    let inbound = matches!(record.detail, Some(Detail::Inbound { .. }));
    let own_port = match record.detail {
        Some(Detail::Inbound { port }) => port,
        _ => None,
    };
    let traffic = !record.detail.as_ref().is_some_and(Detail::is_no_traffic);
    line(&AttemptLine {
        v: VERSION,
        r#type: "attempt",
        time: rfc3339(record.time),
        verdict: record.verdict.name(),
        hook: record.hook.name(),
        reason: record.reason.name(),
        direction: if inbound { "in" } else { "out" },
        protocol: traffic.then(|| record.protocol.name()),
        protocol_number: traffic.then_some(record.protocol.number),
        socket_type: record.protocol.socket_type(),
        address: to.map(|to| to.address),
        port: to.and_then(|to| to.port).or(own_port),
        name: to.and_then(|to| to.name.as_deref()),
        names: to.map_or(&[], |to| &to.names),
        literal: to.map(|to| to.literal),
        subject: record.detail.as_ref().and_then(Detail::subject),
        rule: record.rule.as_ref().map(Rule::of),
        process: record.process.as_ref().map(Process::of),
        scope: record.scope,
        cgroup: record.cgroup,
        cgroup_path: record.cgroup_path.as_deref(),
        cookie: record.cookie,
        remedy: record.remedy.as_deref(),
    })
}

/// The line of an attempt to get out of the scope.
fn escape_line(record: &Record) -> Vec<u8> {
    let (number, target) = match record.detail {
        Some(Detail::Act { number, target, .. }) => (Some(number), Some(target).filter(|pid| *pid != 0)),
        _ => (None, None),
    };
    line(&EscapeLine {
        v: VERSION,
        r#type: "escape",
        time: rfc3339(record.time),
        verdict: record.verdict.name(),
        hook: record.hook.name(),
        reason: record.reason.name(),
        what: what(record),
        subject: record.detail.as_ref().and_then(Detail::subject),
        number,
        target,
        process: record.process.as_ref().map(Process::of),
        scope: record.scope,
        cgroup: record.cgroup,
        cgroup_path: record.cgroup_path.as_deref(),
    })
}

/// The line of what lookups came to.
pub fn names_line(outcomes: &[Outcome], time: u64) -> Vec<u8> {
    let outcomes = outcomes.iter().map(name_line).collect();
    line(&NamesLine { v: VERSION, r#type: "names", time: rfc3339(time), outcomes })
}

fn name_line(outcome: &Outcome) -> NameLine<'_> {
    let line = |outcome_word| NameLine {
        name: outcome.name(),
        outcome: outcome_word,
        addresses: Vec::new(),
        ttl: None,
        open_for: 0,
        error: None,
    };
    match outcome {
        Outcome::Opened { addresses, ttl, missing, .. } => NameLine {
            addresses: addresses.clone(),
            ttl: Some(ttl.as_secs()),
            open_for: ttl.as_secs(),
            error: missing.as_ref().map(ToString::to_string),
            ..line("opened")
        },
        Outcome::Failed { error, open_for, .. } => {
            NameLine { open_for: open_for.as_secs(), error: Some(error.to_string()), ..line("failed") }
        }
        Outcome::Refused { address, why, .. } => {
            NameLine { addresses: vec![*address], error: Some((*why).to_owned()), ..line("refused") }
        }
        Outcome::Full { open_for, .. } => NameLine {
            open_for: open_for.as_secs(),
            error: Some("the table of permits is full".to_owned()),
            ..line("full")
        },
        Outcome::Unwritable { error, open_for, .. } => {
            NameLine { open_for: open_for.as_secs(), error: Some(error.clone()), ..line("unwritable") }
        }
    }
}

/// The line of a run's end.
pub fn summary_line(summary: &Summary, time: u64) -> Vec<u8> {
    line(&SummaryLine {
        v: VERSION,
        r#type: "summary",
        time: rfc3339(time),
        verdicts: &summary.verdicts,
        attempts: &summary.attempts,
        denied: &summary.denied,
        denied_others: summary.denied_others,
        undecodable: summary.undecodable,
        supervised: &summary.supervised,
        escapes: &summary.escapes,
        escapes_others: summary.escapes_others,
        questions: &summary.questions,
        refused_names: &summary.refused_names,
        refused_names_others: summary.refused_names_others,
        questions_lost: summary.questions_lost,
    })
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Ascii);
    // Only a map with keys that are no strings or a failing writer could refuse, and there is neither.
    match value.serialize(&mut serializer) {
        Ok(()) => bytes,
        Err(error) => format!("{{\"v\":{VERSION},\"type\":\"error\",\"error\":\"{error}\"}}").into_bytes(),
    }
}

/// Compact JSON in printable ASCII: some terminals take C1 and bidirectional characters for commands.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut units = [0; 2];
        for c in fragment.chars() {
            if c.is_ascii() && c != '\u{7f}' {
                write!(writer, "{c}")?;
            } else {
                c.encode_utf16(&mut units).iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
