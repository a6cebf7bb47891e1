//! Typed access to a file's values: receives nodes, gives plain values, and writes down each fault with its place.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use super::{
    Fault, Problem, Source,
    yaml::{Node, Value, shorten},
};

/// A file being read, and the faults found so far.
pub(super) struct Reader<'a> {
    pub(super) source: &'a Arc<Source>,
    pub(super) problems: &'a mut Vec<Problem>,
}

/// The entries of a mapping by key: where the key stands, and the value.
pub(super) type Fields<'n> = BTreeMap<&'n str, (Range<usize>, &'n Node)>;

impl Reader<'_> {
    pub(super) fn fault(&mut self, span: &Range<usize>, fault: Fault) {
        self.problems.push(Problem::new(self.source, span.clone(), fault));
    }

    fn wrong_type(&mut self, node: &Node, expected: &'static str) {
        let found = node.value.describe();
        self.fault(&node.span, Fault::WrongType { expected, found });
    }

    /// A mapping with known keys only.
    pub(super) fn fields<'n>(
        &mut self,
        node: &'n Node,
        place: &'static str,
        known: &'static [&'static str],
    ) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            self.wrong_type(node, "a mapping (`key: value`)");
            return None;
        };
        let mut fields = Fields::new();
        for (key, value) in entries {
            match &key.value {
                Value::Text(text) if known.contains(&text.as_str()) => {
                    fields.insert(text, (key.span.clone(), value));
                }
                Value::Text(text) => {
                    let fault = Fault::UnknownKey { key: shorten(text), place, known };
                    self.fault(&key.span, fault);
                }
                _ => self.wrong_type(key, "a key"),
            }
        }
        Some(fields)
    }

    /// A list, empty or not.
    pub(super) fn list<'n>(&mut self, node: &'n Node, expected: &'static str) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) => Some(items),
            _ => {
                self.wrong_type(node, expected);
                None
            }
        }
    }

    /// A text.
    pub(super) fn text<'n>(&mut self, node: &'n Node, expected: &'static str) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            _ => {
                self.wrong_type(node, expected);
                None
            }
        }
    }

    /// `true` or `false`; an absent field is `false`.
    pub(super) fn flag(&mut self, fields: &Fields<'_>, key: &str) -> bool {
        match fields.get(key) {
            None => false,
            Some((_, Node { value: Value::Bool(value), .. })) => *value,
            Some((_, node)) => {
                self.wrong_type(node, "`true` or `false`");
                false
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn number(&mut self, node: &Node, least: u32, most: u32) -> Option<u32> {
        match &node.value {
            Value::Integer(text) => {
                let number = text.parse().ok().filter(|number| (least..=most).contains(number));
                if number.is_none() {
                    self.fault(&node.span, Fault::Number { number: shorten(text), least, most });
                }
                number
            }
            _ => {
                self.wrong_type(node, "a whole number");
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        node: &Node,
        what: &'static str,
        expected: &'static str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let text = self.text(node, expected)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            self.fault(&node.span, Fault::UnknownWord { what, value: shorten(text), known: expected });
        }
        found
    }
}
