//! Text to a tree of values that know where they stand. The only file that knows the YAML parser. Refuses what a
//! policy has no use for: anchors, tags, several documents, duplicate keys, deep nesting.

use std::{ops::Range, sync::Arc};

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::{Fault, Problem, Source};

/// Deepest nesting; a policy needs five.
const DEPTH_MAX: usize = 16;
/// Keys of a mapping among which duplicates are looked for: any key beyond is an unknown one.
const KEYS_MAX: usize = 64;

/// A value and the bytes it stands at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Node {
    pub(super) span: Range<usize>,
    pub(super) value: Value,
}

/// A value of the YAML 1.2 core schema.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// A whole number in plain decimal form.
    Integer(String),
    /// Any other number.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Value {
    /// For messages: "a list".
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".into(),
            Self::Bool(value) => format!("the truth value `{value}`"),
            Self::Integer(text) | Self::Number(text) => format!("the number `{text}`"),
            Self::Text(text) => format!("the text `{}`", shorten(text)),
            Self::List(_) => "a list".into(),
            Self::Map(_) => "a mapping".into(),
        }
    }
}

/// A text short enough for a message.
pub(super) fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

/// Parses one document; `None` if its root cannot be had. Problems that leave a tree are reported beside it.
pub(super) fn parse(source: &Arc<Source>, problems: &mut Vec<Problem>) -> Option<Node> {
    if let Some((at, c)) = source.text.char_indices().find(|(_, c)| is_unprintable(*c)) {
        let fault = Fault::Syntax(format!("control character U+{:04X}", u32::from(c)));
        problems.push(Problem::new(source, at..at + c.len_utf8(), fault));
        return None;
    }
    let offsets = source.text.char_indices().map(|(at, _)| at).chain([source.text.len()]).collect();
    let mut builder = Builder { source, problems, offsets, open: Vec::new(), root: None };
    let mut documents = 0;
    for event in Parser::new_from_str(&source.text) {
        match event {
            Ok((Event::DocumentStart(_), span)) => {
                documents += 1;
                if documents > 1 {
                    builder.fault(&span, Fault::SecondDocument);
                    return None;
                }
            }
            Ok((event, span)) => builder.event(event, &span)?,
            Err(error) => {
                builder.syntax(&error);
                return None;
            }
        }
    }
    match builder.root.take() {
        Some(Node { value: Value::Null, .. }) | None => {
            problems.push(Problem::new(source, 0..0, Fault::Empty));
            None
        }
        root => root,
    }
}

/// Characters that YAML does not allow unescaped.
fn is_unprintable(c: char) -> bool {
    (c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}')) || matches!(c, '\u{fffe}' | '\u{ffff}')
}

struct Builder<'a> {
    source: &'a Arc<Source>,
    problems: &'a mut Vec<Problem>,
    /// Byte offset of each character.
    offsets: Vec<usize>,
    open: Vec<Open>,
    root: Option<Node>,
}

/// A collection whose end has not come.
enum Open {
    List(usize, Vec<Node>),
    Map(usize, Vec<(Node, Node)>, Option<Node>),
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: &Span) -> Option<()> {
        let at = self.bytes(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse(span, anchor != 0, tag.is_some());
                let value = match style {
                    ScalarStyle::Plain => plain(&text),
                    _ => Value::Text(text.into_owned()),
                };
                self.add(Node { span: at, value });
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse(span, anchor != 0, tag.is_some());
                self.open.push(Open::List(at.start, Vec::new()));
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse(span, anchor != 0, tag.is_some());
                self.open.push(Open::Map(at.start, Vec::new(), None));
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(at.end),
            Event::Alias(_) => {
                self.fault(span, Fault::Unsupported("anchors and aliases"));
                self.add(Node { span: at, value: Value::Null });
            }
            _ => {}
        }
        if self.open.len() > DEPTH_MAX {
            self.fault(span, Fault::TooDeep);
            return None;
        }
        Some(())
    }

    fn close(&mut self, end: usize) {
        let node = match self.open.pop() {
            Some(Open::List(start, items)) => Node { span: start..end.max(start), value: Value::List(items) },
            Some(Open::Map(start, entries, _)) => {
                Node { span: start..end.max(start), value: Value::Map(entries) }
            }
            None => return,
        };
        self.add(node);
    }

    fn add(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, key)) => match key.take() {
                None => *key = Some(node),
                Some(key) => {
                    match entries.iter().take(KEYS_MAX).find(|(other, _)| other.value == key.value) {
                        None => entries.push((key, node)),
                        Some((first, _)) => {
                            let first = first.span.clone();
                            let name = match &key.value {
                                Value::Text(text) => shorten(text),
                                other => other.describe(),
                            };
                            let fault = Fault::DuplicateKey { key: name };
                            self.problems.push(
                                Problem::new(self.source, key.span, fault)
                                    .related(first, "first written here"),
                            );
                        }
                    }
                }
            },
        }
    }

    fn refuse(&mut self, span: &Span, anchor: bool, tag: bool) {
        if anchor {
            self.fault(span, Fault::Unsupported("anchors and aliases"));
        }
        if tag {
            self.fault(span, Fault::Unsupported("tags"));
        }
    }

    fn fault(&mut self, span: &Span, fault: Fault) {
        self.problems.push(Problem::new(self.source, self.bytes(span), fault));
    }

    fn syntax(&mut self, error: &saphyr_parser::ScanError) {
        // What is missing at the end is shown behind the last thing there is.
        let at = self.byte(error.marker().index()).min(self.source.text.trim_end().len());
        let line_start = self.source.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let indent = self.source.text[line_start..].bytes().take_while(|b| b.is_ascii_whitespace());
        let tab = indent.enumerate().find(|(_, b)| *b == b'\t').map(|(offset, _)| line_start + offset);
        let (span, message) = match tab {
            Some(tab) => (tab..tab + 1, "a tab cannot indent; use spaces".to_owned()),
            None => (at..at + 1, error.info().to_owned()),
        };
        self.problems.push(Problem::new(self.source, span, Fault::Syntax(message)));
    }

    fn byte(&self, character: usize) -> usize {
        self.offsets.get(character).copied().unwrap_or(self.source.text.len())
    }

    fn bytes(&self, span: &Span) -> Range<usize> {
        self.byte(span.start.index())..self.byte(span.end.index())
    }
}

/// What a plain scalar stands for (YAML 1.2.2 §10.3.2).
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_decimal(text) => Value::Integer(text.to_owned()),
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'))
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let special = matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN");
    let radix = |prefix: &str, radix: u32| {
        text.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    let digits = unsigned.starts_with(|c: char| c.is_ascii_digit())
        || unsigned.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    special || radix("0o", 8) || radix("0x", 16) || (digits && unsigned.parse::<f64>().is_ok())
}
