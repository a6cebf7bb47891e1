//! Findings in plain sentences. Every name, path and process name is escaped.

use std::collections::BTreeSet;

use egress_common::Reason;

use super::{Attempt, Escape, Findings, Found, Process, Question, Rule};
use crate::{
    dns::told::DnsReason,
    observe::{
        escape::{host_name, plain_text, process_name},
        text::sentence,
    },
};

/// Said wherever an address is open under a name.
const SHARED: &str = "A permitted address serves every name behind it, whoever asks: egress sees addresses and ports, \
                      not the name inside TLS.";

impl Findings {
    /// What happened, why, and what would change it, a sentence or two each.
    pub fn sentences(&self) -> Vec<String> {
        let mut told = match &self.found {
            None => Vec::new(),
            Some(Found::Attempt(attempt)) => self.of_attempt(attempt),
            Some(Found::Escape(escape)) => of_escape(escape),
            Some(Found::Question(question)) => self.of_question(question),
        };
        let matching = self.attempts + self.questions + self.escapes;
        if matching > 1 {
            let (attempts, questions) = (self.attempts, self.questions);
            let escapes = match self.escapes {
                0 => String::new(),
                escapes => format!(", escape attempts: {escapes}"),
            };
            let last = if self.is_refusal() { "last refusal" } else { "last" };
            told.push(format!(
                "The file has {matching} events that match (attempts: {attempts}, questions: {questions}{escapes}); this is the {last}."
            ));
        }
        told
    }

    fn is_refusal(&self) -> bool {
        match &self.found {
            Some(Found::Attempt(attempt)) => attempt.is_refused(),
            Some(Found::Question(question)) => question.is_refused(),
            Some(Found::Escape(_)) => true,
            None => false,
        }
    }

    /// What the reading itself left open.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.understood == 0 {
            remarks.push("no line of the file is an event of egress".to_owned());
        } else if self.foreign > 0 {
            remarks.push(format!("{} lines are no events of egress and were passed over", self.foreign));
        }
        if self.torn {
            remarks.push("the last line is cut off and was passed over".to_owned());
        }
        if self.left_out > 0 {
            remarks.push(format!(
                "{} refusals were counted but have no event, because there were too many at once",
                self.left_out
            ));
        }
        remarks
    }

    /// The entry of `allow:` that would allow it.
    pub fn remedy(&self) -> Option<&str> {
        match self.found.as_ref()? {
            Found::Attempt(attempt) => attempt.remedy.as_deref(),
            Found::Escape(_) => None,
            Found::Question(question) => question.remedy.as_deref(),
        }
    }

    /// The setting that would allow it.
    pub fn setting(&self) -> Option<&str> {
        match self.found.as_ref()? {
            Found::Attempt(_) | Found::Escape(_) => None,
            Found::Question(question) => question.setting.as_deref(),
        }
    }

    /// The permitted names of the addresses of what was found.
    pub fn names(&self) -> BTreeSet<&str> {
        self.opened.values().flatten().map(String::as_str).collect()
    }

    fn of_attempt(&self, attempt: &Attempt) -> Vec<String> {
        let (time, process) = (plain_text(&attempt.time), who(attempt.process.as_ref()));
        let outcome = outcome(&attempt.verdict, "it was let through", "it was refused");
        let mut told = vec![match attempt.direction.as_deref() {
            Some("in") => format!("{} tried to reach {process} at {time}, {outcome}.", source(attempt)),
            _ => format!("{process} tried to {} at {time}, {outcome}.", deed(attempt)),
        }];
        told.push(because(&attempt.reason, flow_reason(attempt).as_deref(), attempt.rule.as_ref()));
        match &self.question {
            Some(question) if question.is_refused() => told.push(format!(
                "The name {} was asked for at {} and refused ({}).",
                shown(&question.name),
                plain_text(&question.time),
                plain_text(&question.reason),
            )),
            Some(question) if !question.addresses.is_empty() => told.push(format!(
                "The address came with the answer for {}, asked for at {}.",
                shown(&question.name),
                plain_text(&question.time),
            )),
            _ if attempt.literal == Some(true)
                && attempt.name.is_none()
                && attempt.direction.as_deref() != Some("in") => told.push(
                "It is a literal address: no answer gave it to this scope, so the program had it from elsewhere."
                    .to_owned(),
            ),
            _ => {}
        }
        told.extend(self.names_of_attempt(attempt));
        told.extend(ways(attempt.remedy.as_deref(), None));
        told
    }

    fn of_question(&self, question: &Question) -> Vec<String> {
        let rcode = plain_text(&question.rcode);
        let (answered, refused) = match question.has_failed() {
            true => (format!("it failed ({rcode})"), format!("it failed ({rcode})")),
            false => (format!("it was answered ({rcode})"), format!("it was refused ({rcode})")),
        };
        let mut told = vec![format!(
            "{} asked for {} ({}) at {}, {}.",
            who(question.process.as_ref()),
            shown(&question.name),
            plain_text(&question.query_type),
            plain_text(&question.time),
            outcome(&question.verdict, &answered, &refused),
        )];
        told.push(because(&question.reason, dns_reason(&question.reason), question.rule.as_ref()));
        for dropped in question.dropped.iter().take(5) {
            told.push(format!(
                "{} was taken out of the answer: {}.",
                dropped.address,
                plain_text(&dropped.why)
            ));
        }
        told.extend(self.names_of_question(question));
        told.extend(ways(question.remedy.as_deref(), question.setting.as_deref()));
        told
    }

    /// Which names opened the address of an attempt, and what that means.
    fn names_of_attempt(&self, attempt: &Attempt) -> Option<String> {
        let list = self.list()?;
        Some(match (attempt.is_refused(), self.names().len()) {
            (true, _) if attempt.reason == Reason::Expired.name() => format!("Opened before by: {list}."),
            (true, 1) => format!("The address is open on the ports of the rules for {list}."),
            (true, _) => {
                format!("The address is shared, and open on the ports of the rules for {list}. {SHARED}")
            }
            (false, 1) => format!("The address was opened by {list}. {SHARED}"),
            (false, _) => format!("The address is shared; it was opened by {list}. {SHARED}"),
        })
    }

    /// The same of the addresses of a question; of a refused name there are none but in audit mode, which is no proof
    /// that it shares none.
    fn names_of_question(&self, question: &Question) -> Option<String> {
        let name = shown(&question.name);
        match (question.is_refused(), self.list()) {
            (true, Some(list)) => Some(format!("Its address is open all the same, under {list}. {SHARED}")),
            (true, None) if question.verdict == "deny" && closes_the_name(&question.reason) => Some(format!(
                "This closes the name, not the machine behind it: if {name} shares an address with a permitted name, that \
                 address is open under the permitted one. {SHARED}"
            )),
            (true, None) => None,
            (false, Some(list)) => {
                Some(format!("The addresses of the answer are open under {list}. {SHARED}"))
            }
            (false, None) => None,
        }
    }

    fn list(&self) -> Option<String> {
        let names: Vec<String> = self.names().into_iter().map(shown).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

/// Whether a question was refused for its name, rather than for its form or its answer.
fn closes_the_name(reason: &str) -> bool {
    use DnsReason::{DenyRule, LabelBound, NameBound, NotListed, RateBound};
    [NotListed, DenyRule, LabelBound, NameBound, RateBound].iter().any(|closing| closing.name() == reason)
}

fn who(process: Option<&Process>) -> String {
    let Some(process) = process else { return "A process that is not known".to_owned() };
    let name = process_name(process.comm.as_bytes());
    match &process.exe {
        Some(exe) => format!("{name}[{}] ({})", process.pid, plain_text(exe)),
        None => format!("{name}[{}]", process.pid),
    }
}

/// What an attempt to get out was, and why it was refused.
fn of_escape(escape: &Escape) -> Vec<String> {
    let outcome = outcome(&escape.verdict, "it has happened", "it was refused");
    let (process, what) = (who(escape.process.as_ref()), plain_text(&escape.what));
    let text = Reason::ALL.into_iter().find(|reason| reason.name() == escape.reason).map(sentence);
    vec![
        format!("{process}: {what} at {}, {outcome}.", plain_text(&escape.time)),
        because(&escape.reason, text, None),
        "This is an attempt to get out of the scope, which no rule allows.".to_owned(),
    ]
}

fn deed(attempt: &Attempt) -> String {
    let subject = attempt.subject.as_deref().map(plain_text);
    match (attempt.hook.as_deref(), subject) {
        (Some("setsockopt"), Some(option)) => format!("set the socket option {option}"),
        (Some("unix"), Some(name)) => format!("reach the unix socket {name}"),
        (Some("unix"), None) => "reach a unix socket".to_owned(),
        (_, Some(subject)) => format!("open a socket of {}: {subject}", plain_text(&attempt.reason)),
        (_, None) => format!("reach {}", destination(attempt)),
    }
}

fn source(attempt: &Attempt) -> String {
    let from = attempt.address.map_or("Somebody outside".to_owned(), |address| address.to_string());
    match attempt.port {
        Some(port) => format!("{from} ({} to own port {port} of the scope)", protocol(attempt)),
        None => format!("{from} ({})", protocol(attempt)),
    }
}

fn protocol(attempt: &Attempt) -> String {
    attempt.protocol.as_deref().map_or("ip".to_owned(), plain_text)
}

fn destination(attempt: &Attempt) -> String {
    let protocol = protocol(attempt);
    let Some(address) = attempt.address else {
        let kind =
            attempt.socket_type.as_deref().map_or(String::new(), |kind| format!("{} ", plain_text(kind)));
        return format!("the network with a {kind}socket of {protocol}");
    };
    let place = match attempt.port {
        Some(port) => std::net::SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    };
    match &attempt.name {
        Some(name) => format!("{} ({protocol} {place})", shown(name)),
        None => format!("{protocol} {place}"),
    }
}

fn outcome(verdict: &str, passed: &str, refused: &str) -> String {
    match verdict {
        "allow" => format!("and {passed}"),
        "deny" => format!("and {refused}"),
        "audit" => format!("and {passed} only because of audit mode"),
        other => format!("with the verdict {}", plain_text(other)),
    }
}

fn because(word: &str, text: Option<&str>, rule: Option<&Rule>) -> String {
    let word = plain_text(word);
    let text = text.map_or(String::new(), |text| format!(": {text}"));
    match rule {
        Some(rule) if !rule.origin.is_empty() => {
            format!("Reason: {word}{text}. Rule: {} ({}).", plain_text(&rule.text), plain_text(&rule.origin))
        }
        _ => format!("Reason: {word}{text}."),
    }
}

fn flow_reason(attempt: &Attempt) -> Option<String> {
    let reason = Reason::ALL.into_iter().find(|reason| reason.name() == attempt.reason)?;
    Some(match &attempt.name {
        Some(name) if reason == Reason::Expired => {
            format!("expired permit for {}: {}", shown(name), sentence(reason))
        }
        _ => sentence(reason).to_owned(),
    })
}

fn dns_reason(word: &str) -> Option<&'static str> {
    DnsReason::ALL.into_iter().find(|reason| reason.name() == word).map(DnsReason::text)
}

fn ways(remedy: Option<&str>, setting: Option<&str>) -> Option<String> {
    let ways: Vec<String> = remedy.into_iter().chain(setting).map(plain_text).collect();
    (!ways.is_empty()).then(|| format!("To allow it: {}", ways.join(" or ")))
}

/// A name that a client may have chosen; the root is a dot.
fn shown(name: &str) -> String {
    if name.is_empty() { ".".to_owned() } else { host_name(name) }
}
