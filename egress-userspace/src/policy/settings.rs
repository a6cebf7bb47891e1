//! The settings of a policy file, everything but its rules: receives a file's top level, gives values and, once all
//! rules are known, the policy with its notices.

use std::{collections::BTreeSet, path::PathBuf};

use super::{
    Dns, Fault, Inbound, Loopback, Mode, Notice, OnEscape, Origin, Policy, Require, Restriction, Rule, Unix,
    Upstream, dns, launchers, ports,
    reader::{Fields, Reader},
    yaml::{Node, Value, shorten},
};

/// Longest name of a policy.
const NAME_MAX: usize = 63;

/// The settings of a file whose every setting is sound.
pub(super) struct Settings {
    name: String,
    description: Option<String>,
    mode: Mode,
    loopback: (Loopback, Option<Origin>),
    unix: (Unix, Option<Origin>),
    inbound: (Inbound, Option<Origin>),
    require: Require,
    on_escape: OnEscape,
    permits: BTreeSet<Restriction>,
    upstream: Upstream,
    dns: Dns,
}

/// Reads `version`, which every file has.
pub(super) fn version(reader: &mut Reader<'_>, fields: &Fields<'_>) {
    match fields.get("version") {
        None => reader.fault(&(0..0), Fault::MissingKey { key: "version", place: "the policy" }),
        Some((_, Node { value: Value::Integer(text), .. })) if text == "1" => {}
        Some((_, Node { value: Value::Integer(text) | Value::Number(text), span })) => {
            reader.fault(span, Fault::Version(text.clone()));
        }
        Some((_, node)) => {
            let found = node.value.describe();
            reader.fault(&node.span, Fault::WrongType { expected: "the number 1", found });
        }
    }
}

/// Reads `name`. `None` if it is absent or no name.
pub(super) fn name(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<String> {
    let (_, node) = fields.get("name")?;
    let name = reader.text(node, "a name in text form")?;
    let sound = name.len() <= NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !sound {
        reader.fault(&node.span, Fault::Name(shorten(name)));
    }
    sound.then(|| name.to_owned())
}

/// Reads `description`.
pub(super) fn description(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<String> {
    let (_, node) = fields.get("description")?;
    reader.text(node, "a text").map(str::to_owned)
}

impl Settings {
    /// Reads every setting, also behind a fault. `None` if there was one without which there is no policy.
    pub(super) fn read(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Self> {
        if !fields.contains_key("name") {
            reader.fault(&(0..0), Fault::MissingKey { key: "name", place: "the policy" });
        }
        let name = name(reader, fields);
        let description = description(reader, fields);
        let mode = field(fields, "mode", |node| {
            let words = [("enforce", Mode::Enforce), ("audit", Mode::Audit)];
            reader.word(node, "mode", "`enforce` or `audit`", &words)
        });
        let loopback = field(fields, "loopback", |node| loopback(reader, node));
        let unix = field(fields, "unix", |node| {
            let words = [("own", Unix::Own), ("any", Unix::Any), ("none", Unix::None)];
            reader.word(node, "unix setting", "`own`, `any` or `none`", &words)
        });
        let inbound = field(fields, "inbound", |node| inbound(reader, node));
        let require = field(fields, "require", |node| {
            let words = [("kernel", Require::Kernel), ("full", Require::Full)];
            reader.word(node, "require setting", "`kernel` or `full`", &words)
        });
        let on_escape = field(fields, "escape", |node| {
            let words = [("report", OnEscape::Report), ("kill", OnEscape::Kill)];
            reader.word(node, "escape setting", "`report` or `kill`", &words)
        });
        let permits = field(fields, "permit", |node| Some(permits(reader, node)));
        let (upstream, dns) = match fields.get("dns") {
            Some((_, node)) => dns::read(reader, node),
            None => (Some(Upstream::System), Dns::default()),
        };
        let origin = |key| fields.get(key).map(|(span, _): &(_, &Node)| reader.source.origin(span.start));
        Some(Self {
            name: name?,
            description,
            mode: mode.unwrap_or(Mode::Enforce),
            loopback: (loopback.unwrap_or(Loopback::Own), origin("loopback")),
            unix: (unix.unwrap_or(Unix::Own), origin("unix")),
            inbound: (inbound.unwrap_or(Inbound::Deny), origin("inbound")),
            require: require.unwrap_or_default(),
            on_escape: on_escape.unwrap_or_default(),
            permits: permits.unwrap_or_default(),
            upstream: upstream?,
            dns,
        })
    }

    /// The policy of these settings and rules.
    pub(super) fn into_policy(self, rules: Vec<Rule>, files: Vec<PathBuf>) -> Policy {
        let notices = self.notices(&rules);
        Policy {
            name: self.name,
            description: self.description,
            mode: self.mode,
            rules,
            loopback: self.loopback.0,
            loopback_origin: self.loopback.1,
            unix: self.unix.0,
            unix_origin: self.unix.1,
            inbound: self.inbound.0,
            inbound_origin: self.inbound.1,
            require: self.require,
            on_escape: self.on_escape,
            permits: self.permits,
            dns_upstream: self.upstream,
            dns: self.dns,
            notices,
            files,
        }
    }

    /// What is a way out by itself, though the policy says so.
    fn notices(&self, rules: &[Rule]) -> Vec<Notice> {
        let mut notices: Vec<Notice> = rules.iter().filter_map(launchers::notice).collect();
        if let (Unix::Any, origin) = &self.unix {
            let message =
                "`unix: any` opens every local service, those included that start programs outside the scope";
            notices.push(Notice { origin: origin.clone(), message: message.into() });
        }
        notices
    }
}

fn field<T>(fields: &Fields<'_>, key: &str, read: impl FnOnce(&Node) -> Option<T>) -> Option<T> {
    fields.get(key).and_then(|(_, node)| read(node))
}

fn loopback(reader: &mut Reader<'_>, node: &Node) -> Option<Loopback> {
    if matches!(node.value, Value::List(_)) {
        let ports = ports::read(reader, node)?;
        if ports::is_dns_only(&ports) {
            reader.fault(&node.span, Fault::DnsPorts("loopback setting"));
        }
        return Some(Loopback::Ports(ports));
    }
    let words = [("own", Choice::Own), ("any", Choice::Any), ("none", Choice::None)];
    let expected = "`own`, `any`, `none` or a list of ports";
    Some(match reader.word(node, "loopback setting", expected, &words)? {
        Choice::Own => Loopback::Own,
        Choice::Any => Loopback::Any,
        Choice::None => Loopback::None,
    })
}

#[derive(Clone, Copy)]
enum Choice {
    Own,
    Any,
    None,
}

fn inbound(reader: &mut Reader<'_>, node: &Node) -> Option<Inbound> {
    if matches!(node.value, Value::List(_)) {
        return ports::read(reader, node).map(Inbound::Ports);
    }
    let words = [("deny", false), ("allow", true)];
    let allow = reader.word(node, "inbound setting", "`deny`, `allow` or a list of ports", &words)?;
    Some(if allow { Inbound::Allow } else { Inbound::Deny })
}

fn permits(reader: &mut Reader<'_>, node: &Node) -> BTreeSet<Restriction> {
    let items = reader.list(node, "a list of names such as [io_uring, userns]").unwrap_or_default();
    let mut permits = BTreeSet::new();
    for item in items {
        let Some(text) = reader.text(item, "a name such as io_uring") else { continue };
        match Restriction::from_name(text) {
            Some(restriction) => {
                permits.insert(restriction);
            }
            None => reader.fault(&item.span, Fault::Restriction(shorten(text))),
        }
    }
    permits
}
