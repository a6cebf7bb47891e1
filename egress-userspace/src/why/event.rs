//! Events as they stand in the file, read leniently: fields that another version added are passed over, those that it does
//! not know yet are empty. Kinds of events that are of no interest here are [`Event::Other`].

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use crate::observe::{json::VERSION, question::FAILURES};

/// One line.
#[derive(Clone, Debug)]
pub enum Event {
    /// An attempt.
    Attempt(Box<Attempt>),
    /// An attempt to get out of the scope.
    Escape(Box<Escape>),
    /// A question for a name.
    Question(Box<Question>),
    /// Names that were opened outside of any question.
    Opened(Vec<Opened>),
    /// The end of a run, with the events of refusals that were counted and not written.
    Summary {
        /// Their number.
        left_out: u64,
    },
    /// Any other line of `egress`.
    Other,
}

/// An attempt.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the schema of events says what the fields are")]
pub struct Attempt {
    pub time: String,
    pub verdict: String,
    pub reason: String,
    pub direction: Option<String>,
    pub protocol: Option<String>,
    pub socket_type: Option<String>,
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    pub name: Option<String>,
    #[serde(default)]
    pub names: Vec<String>,
    pub literal: Option<bool>,
    pub hook: Option<String>,
    pub subject: Option<String>,
    pub rule: Option<Rule>,
    pub process: Option<Process>,
    pub remedy: Option<String>,
    /// The line itself.
    #[serde(skip)]
    pub line: Value,
}

/// An attempt to get out of the scope.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the schema of events says what the fields are")]
pub struct Escape {
    pub time: String,
    pub verdict: String,
    pub reason: String,
    pub what: String,
    pub process: Option<Process>,
    /// The line itself.
    #[serde(skip)]
    pub line: Value,
}

/// A question for a name.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the schema of events says what the fields are")]
pub struct Question {
    pub time: String,
    pub verdict: String,
    pub reason: String,
    pub name: String,
    pub query_type: String,
    pub rcode: String,
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    #[serde(default)]
    pub dropped: Vec<Dropped>,
    #[serde(default)]
    pub aliases: Vec<String>,
    pub rule: Option<Rule>,
    pub process: Option<Process>,
    pub remedy: Option<String>,
    pub setting: Option<String>,
    /// The line itself.
    #[serde(skip)]
    pub line: Value,
}

/// An address that was taken out of an answer.
#[derive(Clone, Debug, Deserialize)]
pub struct Dropped {
    /// The address.
    pub address: IpAddr,
    /// Why.
    pub why: String,
}

/// The rule that decided.
#[derive(Clone, Debug, Deserialize)]
pub struct Rule {
    /// Where it was written.
    pub origin: String,
    /// The rule in one line.
    pub text: String,
}

/// Who.
#[derive(Clone, Debug, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Thread name, which the process chose.
    pub comm: String,
    /// Executable.
    pub exe: Option<String>,
}

/// A name that a lookup opened.
#[derive(Clone, Debug, Deserialize)]
pub struct Opened {
    /// The name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Event {
    /// The event of a line; `None` for what is none.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(line).ok()?;
        if value.get("v")?.as_u64()? != u64::from(VERSION) {
            return None;
        }
        Some(match value.get("type")?.as_str()? {
            "attempt" => {
                let attempt = Attempt::deserialize(&value).ok()?;
                Self::Attempt(Box::new(Attempt { line: value, ..attempt }))
            }
            "escape" => {
                let escape = Escape::deserialize(&value).ok()?;
                Self::Escape(Box::new(Escape { line: value, ..escape }))
            }
            "dns" => {
                let question = Question::deserialize(&value).ok()?;
                Self::Question(Box::new(Question { line: value, ..question }))
            }
            "names" => Self::Opened(opened(&value)),
            "summary" => Self::Summary { left_out: left_out(&value) },
            _ => Self::Other,
        })
    }
}

fn opened(names: &Value) -> Vec<Opened> {
    let outcomes = names["outcomes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let opened = outcomes.iter().filter(|outcome| outcome["outcome"] == "opened");
    opened.filter_map(|outcome| Opened::deserialize(outcome).ok()).collect()
}

fn left_out(summary: &Value) -> u64 {
    let verdicts = summary["verdicts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let refused = verdicts.iter().filter(|total| total["verdict"] != "allow");
    let numbers = refused.flat_map(|total| [&total["suppressed"], &total["dropped"]]);
    numbers.filter_map(Value::as_u64).fold(0, u64::saturating_add)
}

impl Attempt {
    /// Whether it was refused, or would have been.
    pub fn is_refused(&self) -> bool {
        matches!(self.verdict.as_str(), "deny" | "audit")
    }
}

impl Question {
    /// Whether it was refused, or would have been. A client's guess with a search suffix is no refusal.
    pub fn is_refused(&self) -> bool {
        matches!(self.verdict.as_str(), "deny" | "audit") && self.reason != "search" && !self.has_failed()
    }

    /// Whether the policy would have had it answered, and something else prevented it.
    pub fn has_failed(&self) -> bool {
        FAILURES.iter().any(|failure| failure.name() == self.reason)
    }
}
