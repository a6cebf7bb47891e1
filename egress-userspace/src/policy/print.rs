//! Meaning back to text: receives a policy, gives YAML that loads to the same meaning, with everything written out and
//! the includes in place.

use std::borrow::Cow;

use egress_common::Transport;
use serde::Serialize;

use super::{
    Action, Inbound, Loopback, Mode, Policy, PortRange, Refusal, Rule, Target, Upstream, query_type_name,
};

#[derive(Serialize)]
struct Text<'a> {
    version: u8,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    mode: &'static str,
    allow: Vec<Entry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny: Vec<Entry>,
    loopback: serde_yaml::Value,
    unix: &'static str,
    inbound: serde_yaml::Value,
    require: &'static str,
    escape: &'static str,
    permit: Vec<&'static str>,
    dns: Dns,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Dns {
    upstream: serde_yaml::Value,
    types: Vec<Cow<'static, str>>,
    refusal: &'static str,
    ech: &'static str,
    wildcard: Wildcard,
    eager: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Wildcard {
    label: u8,
    name: u8,
    new_names: u32,
}

#[derive(Default, Serialize)]
struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cidr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<serde_yaml::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    private: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broad: Option<bool>,
}

impl Policy {
    /// The policy as one file. Command-line rules become rules under `allow:`.
    ///
    /// # Errors
    ///
    /// Those of the YAML writer.
    pub fn to_yaml(&self) -> Result<String, serde_yaml::Error> {
        let entries =
            |action| self.rules.iter().filter(|rule| rule.action == action).map(entry).collect::<Vec<_>>();
        let text = Text {
            version: 1,
            name: &self.name,
            description: self.description.as_deref(),
            mode: match self.mode {
                Mode::Enforce => "enforce",
                Mode::Audit => "audit",
            },
            allow: entries(Action::Allow),
            deny: entries(Action::Deny),
            loopback: match &self.loopback {
                Loopback::None => "none".into(),
                Loopback::Own => "own".into(),
                Loopback::Any => "any".into(),
                Loopback::Ports(ranges) => ports(ranges),
            },
            unix: self.unix.name(),
            inbound: match &self.inbound {
                Inbound::Deny => "deny".into(),
                Inbound::Allow => "allow".into(),
                Inbound::Ports(ranges) => ports(ranges),
            },
            require: self.require.name(),
            escape: self.on_escape.name(),
            permit: self.permits.iter().map(|restriction| restriction.name()).collect(),
            dns: dns(self),
        };
        serde_yaml::to_string(&text)
    }
}

fn dns(policy: &Policy) -> Dns {
    let settings = &policy.dns;
    Dns {
        upstream: match &policy.dns_upstream {
            Upstream::System => "system".into(),
            Upstream::List(servers, _) => servers.iter().map(ToString::to_string).collect(),
        },
        types: settings.types.iter().map(|number| query_type_name(*number)).collect(),
        refusal: match settings.refusal {
            Refusal::NxDomain => "nxdomain",
            Refusal::Refused => "refused",
        },
        ech: if settings.keep_ech { "keep" } else { "strip" },
        wildcard: Wildcard {
            label: settings.wildcard.label,
            name: settings.wildcard.name,
            new_names: settings.wildcard.new_names,
        },
        eager: settings.eager,
    }
}

fn entry(rule: &Rule) -> Entry {
    let mut entry = Entry::default();
    match &rule.target {
        Target::Host { name, private, broad } => {
            entry.host = Some(name.clone());
            entry.private = private.then_some(true);
            entry.broad = broad.then_some(true);
        }
        Target::Network(network) => entry.cidr = Some(network.to_string()),
        Target::Unix(pattern) => entry.unix = Some(pattern.clone()),
    }
    // All ports of all transports is what a deny rule means without either, and has no other spelling: port 0
    // cannot be written.
    let whole = rule.ports == [PortRange::ALL];
    if !whole && !rule.ports.is_empty() && rule.transports != [Transport::Icmp] {
        entry.ports = Some(ports(&rule.ports));
    }
    let denied_name = rule.action == Action::Deny && matches!(rule.target, Target::Host { .. });
    entry.protocol = match rule.transports.as_slice() {
        _ if denied_name => None,
        [] => None,
        [Transport::Tcp] => Some("tcp"),
        [Transport::Udp] => Some("udp"),
        [Transport::Icmp] => Some("icmp"),
        _ => Some("any"),
    };
    entry
}

/// Single ports as numbers, ranges as texts.
fn ports(ranges: &[PortRange]) -> serde_yaml::Value {
    let values = ranges.iter().map(|range| match range.first == range.last {
        true => serde_yaml::Value::from(u64::from(range.first)),
        false => serde_yaml::Value::from(range.to_string()),
    });
    serde_yaml::Value::Sequence(values.collect())
}
