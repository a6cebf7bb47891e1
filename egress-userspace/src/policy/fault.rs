//! What can be wrong with a policy, and how it is shown: file, line, column, the line and a caret, and what was
//! expected.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use thiserror::Error;

use super::{Restriction, Source, source::SIZE_MAX};

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum Fault {
    #[error("cannot read policy file {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: String },
    #[error("policy file is larger than {} MiB", SIZE_MAX >> 20)]
    TooLarge,
    #[error("policy file is not UTF-8")]
    NotUtf8,
    #[error("policy file is empty")]
    Empty,
    #[error("invalid YAML: {0}")]
    Syntax(String),
    #[error("{0} are not part of the policy format")]
    Unsupported(&'static str),
    #[error("more than one document in a policy file")]
    SecondDocument,
    #[error("nested deeper than any policy is")]
    TooDeep,
    #[error("unknown key `{key}` in {place}")]
    UnknownKey { key: String, place: &'static str, known: &'static [&'static str] },
    #[error("duplicate key `{key}`")]
    DuplicateKey { key: String },
    #[error("key `{key}` is missing in {place}")]
    MissingKey { key: &'static str, place: &'static str },
    #[error("wrong type: expected {expected}, found {found}")]
    WrongType { expected: &'static str, found: String },
    #[error("{what} `{value}` is not known")]
    UnknownWord { what: &'static str, value: String, known: &'static str },
    #[error("policy version {0} is not known to this program")]
    Version(String),
    #[error("`{0}` is no name for a policy")]
    Name(String),
    #[error("`{host}` is no host name: {why}")]
    Host { host: String, why: &'static str, hint: String },
    #[error("`{cidr}` is no network: {why}")]
    Cidr { cidr: String, why: &'static str, hint: String },
    #[error("`{port}` is no port: {why}")]
    Port { port: String, why: &'static str },
    #[error("number {number} is out of range")]
    Number { number: String, least: u32, most: u32 },
    #[error("{0} can never match: ports 53 and 853 are closed whatever a policy says")]
    DnsPorts(&'static str),
    #[error("port range {0} is reversed")]
    ReversedRange(String),
    #[error("empty {0}")]
    EmptyList(&'static str),
    #[error("empty rule")]
    EmptyRule,
    #[error("a rule speaks of one thing: {0}")]
    SeveralTargets(&'static str),
    #[error("`{key}` does not go with {what}")]
    DoesNotGoWith { key: &'static str, what: &'static str },
    #[error("`{name}` is no name of a unix socket: {why}")]
    UnixName { name: String, why: &'static str, hint: &'static str },
    #[error("protocol `{protocol}` cannot be opened")]
    Protocol { protocol: String, why: &'static str },
    #[error("`{0}` is not among what `egress run` takes away")]
    Restriction(String),
    #[error("`{0}` is no resolver address")]
    Resolver(String),
    #[error("rule can never match: {0}")]
    Impossible(String),
    #[error("included file sets `{0}`: it may contribute allow and deny lists only")]
    IncludedKey(String),
    #[error("include loop: {0}")]
    IncludeLoop(String),
    #[error("more than {0} files are included")]
    TooManyFiles(usize),
    #[error("cannot read `--allow` rule: {0}")]
    CommandLine(String),
}

impl Fault {
    /// What belongs there instead, if that can be said.
    pub fn expected(&self) -> Option<String> {
        let text = match self {
            Self::Empty => "write at least `version: 1` and a `name:`".into(),
            Self::Unsupported(_) => "write the value out".into(),
            Self::SecondDocument => "one file is one policy: remove this and what follows".into(),
            Self::UnknownKey { key, known, .. } => match closest(key, known) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("expected one of: {}", known.join(", ")),
            },
            Self::MissingKey { key: "version", .. } => "add `version: 1`".into(),
            Self::MissingKey { key, .. } => format!("add `{key}:`"),
            Self::UnknownWord { known, .. } => format!("expected {known}"),
            Self::Version(_) => "expected 1".into(),
            Self::Name(_) => {
                "expected letters, digits, `-`, `_` and `.`, at most 63, a letter or digit first".into()
            }
            Self::Host { hint, .. } | Self::Cidr { hint, .. } if !hint.is_empty() => hint.clone(),
            Self::Port { .. } => "expected a port from 1 to 65535 or a range such as 8000-8100".into(),
            Self::Number { least, most, .. } => format!("expected a whole number from {least} to {most}"),
            Self::DnsPorts("allow rule") => {
                "names are asked through egress itself: list the names with `host:`; `dns: upstream:` says who is asked"
                    .into()
            }
            Self::DnsPorts("deny rule") => "remove it: it is closed already".into(),
            Self::DnsPorts(_) => {
                "leave 53 and 853 out; a local resolver is asked through egress: see `dns: upstream:`".into()
            }
            Self::ReversedRange(_) => "write the smaller port first".into(),
            Self::EmptyList("port list") => "leave `ports` out for the default, or name at least one".into(),
            Self::EmptyRule => "expected `host:`, `cidr:` or `unix:`".into(),
            Self::Resolver(_) => {
                "expected an address, with a port if it is not 53: 192.0.2.53, 192.0.2.53:5353, [2001:db8::53]:53"
                    .into()
            }
            Self::UnixName { hint, .. } if !hint.is_empty() => (*hint).into(),
            Self::Protocol { why, .. } => (*why).into(),
            Self::Restriction(_) => {
                format!("expected one of: {}", Restriction::ALL.map(Restriction::name).join(", "))
            }
            Self::CommandLine(_) => {
                "expected HOST:PORT, ADDRESS:PORT, [ADDRESS]:PORT or NETWORK/BITS:PORT, and /udp for UDP; or HOST/icmp, or unix:PATH"
                    .into()
            }
            _ => return None,
        };
        Some(text)
    }
}

/// The known word that a typing mistake may have meant.
fn closest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let lower = word.to_ascii_lowercase();
    known
        .iter()
        .copied()
        .filter(|known| distance(&lower, known) <= 2)
        .min_by_key(|known| distance(&lower, known))
}

/// Edit distance of two short words.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A fault with its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// What is wrong.
    pub fault: Fault,
    /// Where.
    pub place: Place,
    /// Another place in the same text that belongs to it, with what it is.
    pub related: Option<(Range<usize>, String)>,
}

/// Where a problem is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// In a file's text, bytes from..to.
    Text(Arc<Source>, Range<usize>),
    /// In a file whose text there is none of.
    File(PathBuf),
    /// In this argument of the command line.
    CommandLine(String),
}

impl Problem {
    pub(super) fn new(source: &Arc<Source>, span: Range<usize>, fault: Fault) -> Self {
        Self { fault, place: Place::Text(Arc::clone(source), span), related: None }
    }

    pub(super) fn without_text(path: &Path, fault: Fault) -> Self {
        Self { fault, place: Place::File(path.to_owned()), related: None }
    }

    pub(super) fn on_command_line(text: &str, fault: Fault) -> Self {
        Self { fault, place: Place::CommandLine(text.to_owned()), related: None }
    }

    pub(super) fn related(mut self, span: Range<usize>, what: impl Into<String>) -> Self {
        self.related = Some((span, what.into()));
        self
    }

    /// File, line and column, where there are such.
    pub fn location(&self) -> Option<(&Path, usize, usize)> {
        match &self.place {
            Place::Text(source, span) => {
                let (line, column) = source.position(span.start);
                Some((source.path.as_path(), line, column))
            }
            _ => None,
        }
    }

    /// Where, in one word: `policy.yaml:3:7`, a path or a command-line argument.
    pub fn site(&self) -> String {
        match (&self.place, self.location()) {
            (_, Some((path, line, column))) => format!("{}:{line}:{column}", path.display()),
            (Place::CommandLine(text), _) => format!("--allow {text}"),
            (Place::File(path), _) => path.display().to_string(),
            (Place::Text(source, _), None) => source.path.display().to_string(),
        }
    }

    /// As people read it: message, place, line and caret.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let title = self.fault.to_string();
        let expected = self.fault.expected();
        let Place::Text(source, span) = &self.place else {
            let site = self.site();
            let mut group = Group::with_title(Level::ERROR.primary_title(&title))
                .element(annotate_snippets::Origin::path(&site));
            if let Some(expected) = &expected {
                group = group.element(Level::HELP.message(expected));
            }
            return renderer.render(&[group]);
        };
        let path = source.path.to_string_lossy();
        let mut annotation = AnnotationKind::Primary.span(caret(&source.text, span));
        if let Some(expected) = &expected {
            annotation = annotation.label(expected);
        }
        let mut snippet =
            Snippet::source(source.text.as_str()).line_start(1).path(path.as_ref()).annotation(annotation);
        if let Some((span, what)) = &self.related {
            snippet = snippet.annotation(AnnotationKind::Context.span(caret(&source.text, span)).label(what));
        }
        renderer.render(&[Level::ERROR.primary_title(&title).element(snippet)])
    }
}

/// A span that can be drawn: on character boundaries, on one line and within the text.
fn caret(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = floor(text, span.start.min(text.len()));
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let end = floor(text, span.end.clamp(start, line_end));
    start..end
}

fn floor(text: &str, mut offset: usize) -> usize {
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// Every problem of a policy.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
pub struct Errors(pub Vec<Problem>);

/// Most problems that are drawn; the rest is counted.
const RENDERED_MAX: usize = 100;

impl Errors {
    /// By file in the order of reading, then from top to bottom; the command line last.
    pub(super) fn in_order(mut problems: Vec<Problem>, files: &[PathBuf]) -> Self {
        problems.sort_by_cached_key(|problem| match &problem.place {
            Place::Text(source, span) => {
                let file = files.iter().position(|file| *file == *source.path).unwrap_or(files.len());
                (0, file, span.start)
            }
            Place::File(_) => (1, 0, 0),
            Place::CommandLine(_) => (2, 0, 0),
        });
        Self(problems)
    }

    /// As people read them, one after the other, with their number at the end.
    pub fn render(&self, color: bool) -> String {
        let mut text = String::new();
        for problem in self.0.iter().take(RENDERED_MAX) {
            text.push_str(&problem.render(color));
            text.push_str("\n\n");
        }
        let number = self.0.len();
        if number > RENDERED_MAX {
            text.push_str(&format!("the first {RENDERED_MAX} are shown; "));
        }
        text.push_str(&format!("{number} {}", if number == 1 { "error" } else { "errors" }));
        text
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}
