//! Why something was refused, from the events of a run: receives the lines and perhaps a destination, gives the event that
//! answers and what else the lines know of it. Judges nothing; what it prints was chosen by a client and is escaped.

mod event;
mod lines;
mod subject;
mod tell;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead},
    net::IpAddr,
};

pub use event::{Attempt, Escape, Event, Process, Question, Rule};
pub use subject::{Subject, SubjectError, To};

/// Most addresses that a name is followed through.
const MAX_ADDRESSES: usize = 4_096;
/// Most names that are told of one address.
const MAX_NAMES: usize = 64;

/// The event that answers.
#[derive(Clone, Debug)]
pub enum Found {
    /// An attempt.
    Attempt(Box<Attempt>),
    /// An attempt to get out of the scope.
    Escape(Box<Escape>),
    /// A question for a name.
    Question(Box<Question>),
}

/// What the lines say.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The last refusal that matches, else the last that matches at all.
    pub found: Option<Found>,
    /// The last question for the name behind the attempt, or one whose answer gave its address.
    pub question: Option<Box<Question>>,
    /// Attempts that match; without a destination those that were refused.
    pub attempts: u64,
    /// Attempts to get out of the scope; none where a destination was asked for.
    pub escapes: u64,
    /// Questions that match; without a destination those that were refused or failed.
    pub questions: u64,
    /// Permitted names by address, for the addresses of what was found.
    pub opened: BTreeMap<IpAddr, BTreeSet<String>>,
    /// Events of refusals that the kernel counted and did not write.
    pub left_out: u64,
    /// Lines that are events of `egress`.
    pub understood: u64,
    /// Lines that are none.
    pub foreign: u64,
    /// The last line is cut off.
    pub torn: bool,
}

/// Reads the lines twice: for the event, and for what else is known of its addresses.
///
/// # Errors
/// Those of opening and reading.
pub fn search<R: BufRead>(
    subject: Option<&Subject>,
    mut open: impl FnMut() -> io::Result<R>,
) -> io::Result<Findings> {
    let all = Findings::default();
    let mut search = Search { subject, addresses: BTreeSet::new(), refused: None, other: None, all };
    let read = lines::each(open()?, |event| search.take(event))?;
    let mut findings = search.finish();
    (findings.understood, findings.foreign, findings.torn) = (read.understood, read.foreign, read.torn);
    if findings.found.is_some() {
        let mut context = Context::new(&findings);
        lines::each(open()?, |event| context.take(event))?;
        (findings.opened, findings.question) = (context.opened, context.question);
    }
    Ok(findings)
}

struct Search<'s> {
    subject: Option<&'s Subject>,
    /// Addresses that answers gave for the subject's name.
    addresses: BTreeSet<IpAddr>,
    /// The last refusal that matches.
    refused: Option<Found>,
    /// The last that matches and is none.
    other: Option<Found>,
    all: Findings,
}

impl Search<'_> {
    fn take(&mut self, event: Event) {
        match event {
            Event::Attempt(attempt) => {
                let matches = match self.subject {
                    Some(subject) => subject.is_tried_by(&attempt, &self.addresses),
                    None => attempt.is_refused(),
                };
                if matches {
                    self.all.attempts += 1;
                    self.keep(attempt.is_refused(), Found::Attempt(attempt));
                }
            }
            Event::Escape(escape) if self.subject.is_none() => {
                self.all.escapes += 1;
                // Without a destination only what was refused is looked for, and what got out is worse.
                self.keep(true, Found::Escape(escape));
            }
            Event::Question(question) => {
                let matches = match self.subject {
                    Some(subject) => subject.is_asked_by(&question),
                    None => question.is_refused() || question.has_failed(),
                };
                if matches {
                    self.all.questions += 1;
                    if self.subject.is_some_and(|subject| subject.is_name(&question.name)) {
                        self.follow(&question);
                    }
                    self.keep(question.is_refused(), Found::Question(question));
                }
            }
            Event::Summary { left_out } => self.all.left_out += left_out,
            Event::Escape(_) | Event::Opened(_) | Event::Other => {}
        }
    }

    fn follow(&mut self, question: &Question) {
        for address in &question.addresses {
            if self.addresses.len() < MAX_ADDRESSES {
                self.addresses.insert(*address);
            }
        }
    }

    fn keep(&mut self, refused: bool, found: Found) {
        let place = if refused { &mut self.refused } else { &mut self.other };
        *place = Some(found);
    }

    fn finish(self) -> Findings {
        Findings { found: self.refused.or(self.other), ..self.all }
    }
}

/// What else is known of the addresses of what was found.
struct Context {
    addresses: BTreeSet<IpAddr>,
    name: Option<String>,
    is_attempt: bool,
    opened: BTreeMap<IpAddr, BTreeSet<String>>,
    question: Option<Box<Question>>,
}

impl Context {
    fn new(findings: &Findings) -> Self {
        let (addresses, name) = match &findings.found {
            Some(Found::Attempt(attempt)) => (attempt.address.into_iter().collect(), attempt.name.clone()),
            Some(Found::Question(question)) => {
                let addresses =
                    question.addresses.iter().chain(question.dropped.iter().map(|dropped| &dropped.address));
                (addresses.copied().collect(), Some(question.name.clone()))
            }
            Some(Found::Escape(_)) | None => (BTreeSet::new(), None),
        };
        let is_attempt = matches!(findings.found, Some(Found::Attempt(_)));
        Self { addresses, name, is_attempt, opened: BTreeMap::new(), question: None }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Question(question) => {
                if question.verdict == "allow" {
                    self.open(&question.name, &question.addresses);
                }
                let named = self.name.as_ref() == Some(&question.name);
                let gave = question.addresses.iter().any(|address| self.addresses.contains(address));
                if self.is_attempt && (named || gave) {
                    self.question = Some(question);
                }
            }
            Event::Opened(opened) => {
                opened.iter().for_each(|opened| self.open(&opened.name, &opened.addresses));
            }
            Event::Attempt(attempt) => {
                if let Some(address) = attempt.address {
                    attempt.names.iter().for_each(|name| self.open(name, &[address]));
                }
            }
            Event::Summary { .. } | Event::Escape(_) | Event::Other => {}
        }
    }

    fn open(&mut self, name: &str, addresses: &[IpAddr]) {
        for address in addresses.iter().filter(|address| self.addresses.contains(address)) {
            let names = self.opened.entry(*address).or_default();
            if names.len() < MAX_NAMES {
                names.insert(name.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests;
