//! Rules about unix sockets as the entries of two tables: exact names, and beginnings of names of which the longest decides.

use std::collections::BTreeMap;

use egress_common::lsm::{UnixName as Key, UnixRule as Entry};

use crate::compile::UnixRule;

/// Entries of the kernel's two tables of names.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) exact: BTreeMap<Key, Entry>,
    pub(super) prefixes: BTreeMap<Key, Entry>,
}

/// Lays deny rules over allow rules, so that the one entry that a name finds is the verdict. A pattern that is longer than
/// any name is left out: no socket has such a name.
pub(super) fn names(rules: &[UnixRule]) -> Names {
    let mut names = Names::default();
    for rule in rules {
        let (text, is_prefix) = parts(&rule.pattern);
        let Some(key) = Key::new(text.as_bytes()) else { continue };
        let denied = rules.iter().find(|other| !other.allow && covers(&other.pattern, &rule.pattern));
        let winner = denied.unwrap_or(rule);
        let entry = Entry { rule: winner.id, allow: u8::from(winner.allow), pad: [0; 3] };
        let table = if is_prefix { &mut names.prefixes } else { &mut names.exact };
        table.entry(key).or_insert(entry);
    }
    names
}

/// The text before a final `*`, and whether there is one.
fn parts(pattern: &str) -> (&str, bool) {
    pattern.strip_suffix('*').map_or((pattern, false), |text| (text, true))
}

/// Whether every name of the second pattern is one of the first.
fn covers(pattern: &str, other: &str) -> bool {
    match parts(pattern) {
        (text, true) => parts(other).0.starts_with(text),
        (text, false) => text == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Compiled, UnixName};

    fn rule(id: u32, allow: bool, pattern: &str) -> UnixRule {
        UnixRule { id, allow, pattern: pattern.to_owned() }
    }

    /// As the kernel looks a name up.
    fn found(names: &Names, name: &str) -> Option<bool> {
        if let Some(entry) = names.exact.get(&Key::new(name.as_bytes()).expect("a short name")) {
            return Some(entry.allow == 1);
        }
        let longest = (0..=name.len()).rev().find_map(|length| {
            names.prefixes.get(&Key::new(&name.as_bytes()[..length]).expect("a short name"))
        });
        longest.map(|entry| entry.allow == 1)
    }

    /// What the rules mean.
    fn meant(rules: &[UnixRule], name: &str) -> Option<bool> {
        let compiled = Compiled { unix_rules: rules.to_vec(), ..Compiled::default() };
        let name = match name.strip_prefix('@') {
            Some(name) => UnixName::Abstract(name.as_bytes()),
            None => UnixName::Path(name.as_bytes()),
        };
        compiled.unix_rule(name).map(|rule| rule.allow)
    }

    /// Every triple of patterns that overlap, against every name at their edges. Seen to fail with the rule itself in place of
    /// the deny rule that covers it.
    #[test]
    fn one_entry_says_what_all_rules_mean() {
        let patterns = ["/", "/*", "/a", "/a*", "/ab", "/ab*", "@a", "@*"];
        let probes = ["/", "/a", "/ab", "/abc", "/b", "@", "@a", "@ab"];
        let all: Vec<UnixRule> = (1..)
            .zip(patterns.iter().flat_map(|pattern| [(true, pattern), (false, pattern)]))
            .map(|(id, (allow, pattern))| rule(id, allow, pattern))
            .collect();
        for first in &all {
            for second in &all {
                for third in &all {
                    let rules = [first.clone(), second.clone(), third.clone()];
                    let names = names(&rules);
                    for name in probes {
                        assert_eq!(found(&names, name), meant(&rules, name), "{rules:?} {name}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_pattern_longer_than_any_name_is_no_entry() {
        let names = names(&[rule(1, true, &"x".repeat(109)), rule(2, true, &"x".repeat(108))]);
        assert_eq!(names.exact.len(), 1);
    }
}
