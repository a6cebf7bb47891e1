//! Every way that a byte could leave a scope, what closes it, and what is left: one table for `doctor`, for `require: full`
//! and for SECURITY.md. Receives what a kernel and a launch can do, gives the paths that stay open.

mod capability;
mod document;
mod table;

use std::fmt;

pub use capability::{Capabilities, Hook, Lifted, LsmStatus, Restricted};
pub use document::{BEGIN, END, table};
pub use table::PATHS;

use crate::policy::{Inbound, Loopback, Policy, Restriction, Unix};

/// One way out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Path {
    /// Its name, which stays the same over versions.
    pub id: &'static str,
    /// What it is about.
    pub class: Class,
    /// What a process does.
    pub title: &'static str,
    /// Each of these closes it; of one, every guard is needed. None: nothing closes it, and `left` says why.
    pub closed_by: &'static [&'static [Guard]],
    /// The oldest kernel on which the first of them works; empty if nothing closes it.
    pub since: &'static str,
    /// What is left, or what the path needs; empty if nothing is.
    pub left: &'static str,
    /// How bad it is where it stays open.
    pub severity: Severity,
    /// The setting of the policy that opens it on purpose.
    pub setting: Option<Setting>,
}

/// How bad an open path is; the worst first.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum Severity {
    /// Any data to anywhere, by any user.
    Severe,
    /// Any data, with a privilege or a service on this host that helps.
    High,
    /// A few bytes, or only with a process outside that cooperates.
    Limited,
}

/// What a path is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
#[expect(missing_docs, reason = "each has its words in `Class::name`")]
pub enum Class {
    Tcp,
    Udp,
    Transports,
    Raw,
    Families,
    Headers,
    IoUring,
    Descriptors,
    Leaving,
    Inbound,
    Local,
    Multicast,
    Unix,
    Tunnels,
    Processes,
    Names,
    Beyond,
}

/// Something that closes paths.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guard {
    /// A program of the kernel side, by [`crate::enforce::KernelProgram::name`].
    Hook(&'static str),
    /// A hook of BPF LSM, in force for any scope.
    Lsm(&'static str),
    /// What `egress run` takes away by name.
    Launch(Restriction),
    /// What `egress run` always does: no descriptors, no capabilities that lead out, no new privileges, cgroups out of reach.
    Hygiene,
}

/// A setting of the policy that opens a path on purpose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Setting {
    /// `loopback: any`
    LoopbackAny,
    /// `unix: any`
    UnixAny,
    /// `inbound: allow`
    InboundAllow,
}

/// What becomes of a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// Closed, by these.
    Closed(&'static [Guard]),
    /// The policy opens it on purpose, by this setting.
    ByPolicy(&'static str),
    /// It stays open, because.
    Open(String),
    /// Nothing closes it, on any kernel.
    Beyond,
}

/// A path that stays open here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OpenPath {
    /// Which.
    pub path: &'static Path,
    /// Why.
    pub why: String,
}

/// The paths that stay open, the worst first. Those that the policy opens on purpose and those that nothing can close are
/// not among them.
pub fn open(capabilities: &Capabilities, policy: &Policy) -> Vec<OpenPath> {
    let mut open: Vec<OpenPath> = PATHS
        .iter()
        .filter_map(|path| match path.state(capabilities, policy) {
            State::Open(why) => Some(OpenPath { path, why }),
            State::Closed(_) | State::ByPolicy(_) | State::Beyond => None,
        })
        .collect();
    // Stable: within one severity in the order of the table.
    open.sort_by_key(|open| open.path.severity);
    open
}

impl Path {
    /// What becomes of it, with what there is and under a policy.
    pub fn state(&'static self, capabilities: &Capabilities, policy: &Policy) -> State {
        if let Some(setting) = self.setting.filter(|setting| setting.is_made(policy)) {
            return State::ByPolicy(setting.text());
        }
        let Some(first) = self.closed_by.first() else { return State::Beyond };
        let missing = |guards: &&'static [Guard]| -> Option<String> {
            guards.iter().find_map(|guard| capabilities.missing(*guard))
        };
        if let Some(guards) = self.closed_by.iter().find(|guards| missing(guards).is_none()) {
            return State::Closed(guards);
        }
        // What was given back by name is the nearest to be had.
        let given_back = self.closed_by.iter().flat_map(|guards| guards.iter());
        let given_back = given_back.copied().find_map(|guard| capabilities.given_back(guard));
        let given_back = given_back.map(|(by, restriction)| by.of(restriction));
        State::Open(given_back.or_else(|| missing(first)).unwrap_or_default())
    }
}

impl Path {
    /// What would close it here, in one line.
    pub fn advice(&self, capabilities: &Capabilities) -> String {
        let mut guards = self.closed_by.iter().flat_map(|guards| guards.iter());
        if let Some((by, restriction)) = guards.find_map(|guard| capabilities.given_back(*guard)) {
            return by.undone(restriction);
        }
        let ways: Vec<String> = self.closed_by.iter().map(|guards| document::guards_text(guards)).collect();
        format!("any of these closes it (Linux {} or later): {}", self.since, ways.join("; or "))
    }
}

impl Setting {
    fn is_made(self, policy: &Policy) -> bool {
        match self {
            Self::LoopbackAny => policy.loopback == Loopback::Any,
            Self::UnixAny => policy.unix == Unix::Any,
            Self::InboundAllow => policy.inbound == Inbound::Allow,
        }
    }

    /// As the policy has it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::LoopbackAny => "loopback: any",
            Self::UnixAny => "unix: any",
            Self::InboundAllow => "inbound: allow",
        }
    }
}

impl Class {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Transports => "other transports",
            Self::Raw => "raw and link-layer sockets",
            Self::Families => "other socket families",
            Self::Headers => "options and headers",
            Self::IoUring => "io_uring",
            Self::Descriptors => "sockets from outside",
            Self::Leaving => "leaving the scope",
            Self::Inbound => "inbound",
            Self::Local => "services of this host",
            Self::Multicast => "broadcast and multicast",
            Self::Unix => "unix sockets",
            Self::Tunnels => "tunnels and settings",
            Self::Processes => "processes and the kernel",
            Self::Names => "names",
            Self::Beyond => "beyond any kernel",
        }
    }
}

impl Severity {
    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Severe => "severe",
            Self::High => "high",
            Self::Limited => "limited",
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hook(name) => f.write_str(name),
            Self::Lsm(name) => write!(f, "LSM {name}"),
            Self::Launch(restriction) => write!(f, "launch ({})", restriction.name()),
            Self::Hygiene => f.write_str("launch"),
        }
    }
}

#[cfg(test)]
mod tests;
