//! The shape of a policy file: receives its text, gives its settings, rules and includes with their places. Reads on
//! behind a fault, so that every fault of a file is found at once.

use std::{ops::Range, path::PathBuf, sync::Arc};

use super::{
    Action, Fault, Problem, Rule, Source, Target, protocol,
    reader::{Fields, Reader},
    settings::{self, Settings},
    target, unix,
    yaml::{self, Node, Value},
};

/// Keys of a policy.
const KEYS: &[&str] = &[
    "version",
    "name",
    "description",
    "mode",
    "include",
    "allow",
    "deny",
    "loopback",
    "unix",
    "inbound",
    "require",
    "escape",
    "permit",
    "dns",
];
/// Keys that an included file may have.
const INCLUDED_KEYS: &[&str] = &["version", "name", "description", "include", "allow", "deny"];
/// Keys of a rule under `allow:`.
const ALLOW_KEYS: &[&str] = &["host", "cidr", "unix", "ports", "protocol", "private", "broad"];
/// Keys of a rule under `deny:`.
const DENY_KEYS: &[&str] = &["host", "cidr", "unix", "ports", "protocol"];

/// A rule and where it stands; no place is the command line.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) rule: Rule,
    pub(super) site: Option<(Arc<Source>, Range<usize>)>,
}

impl Located {
    pub(super) fn on_command_line(rule: Rule) -> Self {
        Self { rule, site: None }
    }
}

/// What a file says.
#[derive(Default)]
pub(super) struct Shape {
    /// `None` in an included file, and where a fault left none.
    pub(super) settings: Option<Settings>,
    /// From top to bottom.
    pub(super) rules: Vec<Located>,
    /// From top to bottom.
    pub(super) includes: Vec<(PathBuf, Range<usize>)>,
}

/// Reads a file's text.
pub(super) fn read(source: &Arc<Source>, included: bool, problems: &mut Vec<Problem>) -> Shape {
    let mut shape = Shape::default();
    let Some(root) = yaml::parse(source, problems) else { return shape };
    let mut reader = Reader { source, problems };
    let Some(fields) = reader.fields(&root, "the policy", KEYS) else { return shape };
    settings::version(&mut reader, &fields);
    if included {
        for (key, (span, _)) in fields.iter().filter(|(key, _)| !INCLUDED_KEYS.contains(key)) {
            reader.fault(span, Fault::IncludedKey((*key).to_owned()));
        }
        settings::name(&mut reader, &fields);
        settings::description(&mut reader, &fields);
    } else {
        shape.settings = Settings::read(&mut reader, &fields);
    }
    if let Some((_, node)) = fields.get("include") {
        shape.includes = includes(&mut reader, node);
    }
    for (key, action) in [("allow", Action::Allow), ("deny", Action::Deny)] {
        if let Some((_, node)) = fields.get(key) {
            let items = reader.list(node, "a list of rules, or [] for none").unwrap_or_default();
            shape.rules.extend(items.iter().filter_map(|item| rule(&mut reader, action, item)));
        }
    }
    shape.rules.sort_by_key(|located| located.site.as_ref().map(|(_, span)| span.start));
    shape
}

fn includes(reader: &mut Reader<'_>, node: &Node) -> Vec<(PathBuf, Range<usize>)> {
    let items = reader.list(node, "a list of files").unwrap_or_default();
    let mut includes = Vec::new();
    for item in items {
        match reader.text(item, "a path") {
            Some("") => reader.fault(&item.span, Fault::EmptyList("path")),
            Some(text) => includes.push((PathBuf::from(text), item.span.clone())),
            None => {}
        }
    }
    includes
}

/// One entry of `allow:` or `deny:`.
fn rule(reader: &mut Reader<'_>, action: Action, node: &Node) -> Option<Located> {
    if node.value == Value::Null || node.value == Value::Map(Vec::new()) {
        reader.fault(&node.span, Fault::EmptyRule);
        return None;
    }
    let faults = reader.problems.len();
    let (place, keys) = match action {
        Action::Allow => ("an allow rule", ALLOW_KEYS),
        Action::Deny => ("a deny rule", DENY_KEYS),
    };
    let fields = reader.fields(node, place, keys)?;
    let (span, target) = rule_target(reader, node, action, &fields)?;
    let (ports, transports) = match &target {
        Target::Unix(_) => (Vec::new(), Vec::new()),
        _ => protocol::read(reader, action, &fields)?,
    };
    if reader.problems.len() > faults {
        return None;
    }
    let origin = reader.source.origin(node.span.start);
    let rule = Rule { action, target, ports, transports, origin };
    Some(Located { rule, site: Some((Arc::clone(reader.source), span)) })
}

/// What the rule speaks of, and where that stands.
fn rule_target(
    reader: &mut Reader<'_>,
    node: &Node,
    action: Action,
    fields: &Fields<'_>,
) -> Option<(Range<usize>, Target)> {
    let given: Vec<_> = ["host", "cidr", "unix"].into_iter().filter(|key| fields.contains_key(key)).collect();
    let key = match given.as_slice() {
        [key] => *key,
        [] => {
            // An unknown key has been reported already, and is likely meant to be the target.
            let unknown = matches!(&node.value, Value::Map(entries) if entries.len() > fields.len());
            if !unknown {
                reader.fault(&first_line(reader.source, &node.span), Fault::EmptyRule);
            }
            return None;
        }
        [_, second, ..] => {
            let span = fields[second].0.clone();
            reader
                .fault(&span, Fault::SeveralTargets("write one rule for each of `host`, `cidr` and `unix`"));
            return None;
        }
    };
    let value = fields[key].1;
    let parsed = match key {
        "host" => host(reader, value, action, fields),
        "cidr" => {
            does_not_go(reader, fields, &["private", "broad"], "`cidr`: it is for names");
            let text = reader.text(value, "a network such as 10.20.0.0/16")?;
            target::cidr(text).map(Target::Network).map_err(|fault| reader.fault(&value.span, fault)).ok()
        }
        _ => {
            does_not_go(reader, fields, &["ports", "protocol", "private", "broad"], "`unix`");
            unix(reader, value)
        }
    };
    parsed.map(|target| (value.span.clone(), target))
}

fn host(reader: &mut Reader<'_>, value: &Node, action: Action, fields: &Fields<'_>) -> Option<Target> {
    let private = reader.flag(fields, "private");
    let broad = reader.flag(fields, "broad");
    if action == Action::Deny {
        let what = "a denied `host`: the name is denied whatever the port";
        does_not_go(reader, fields, &["ports", "protocol"], what);
    }
    // A name of digits and dots is a number to YAML, and no host name either.
    let text = match &value.value {
        Value::Integer(text) | Value::Number(text) => text,
        _ => reader.text(value, "a host name")?,
    };
    let name = target::host(text).map_err(|fault| reader.fault(&value.span, fault)).ok()?;
    if !name.starts_with("*.") {
        does_not_go(reader, fields, &["broad"], "an exact name: it is for wildcards");
    }
    Some(Target::Host { name, private, broad })
}

fn unix(reader: &mut Reader<'_>, value: &Node) -> Option<Target> {
    let text = reader.text(value, "a path, or @ and an abstract name")?;
    unix::pattern(text).map(Target::Unix).map_err(|fault| reader.fault(&value.span, fault)).ok()
}

fn does_not_go(reader: &mut Reader<'_>, fields: &Fields<'_>, keys: &[&'static str], what: &'static str) {
    for key in keys {
        if let Some((span, _)) = fields.get(key) {
            reader.fault(span, Fault::DoesNotGoWith { key, what });
        }
    }
}

fn first_line(source: &Source, span: &Range<usize>) -> Range<usize> {
    let length = source.text[span.start..].find('\n').unwrap_or(source.text.len() - span.start);
    span.start..span.end.min(span.start + length)
}
