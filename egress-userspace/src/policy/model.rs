//! The meaning of a policy: plain types without positions in a text, each rule with where it was written.

use std::{collections::BTreeSet, fmt, net::SocketAddr, path::PathBuf, sync::Arc};

use egress_common::Transport;
use ipnet::IpNet;

use super::Restriction;

/// Where a rule was written.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Origin {
    /// In a policy file.
    File {
        /// The file as named on the command line or by `include`.
        path: Arc<PathBuf>,
        /// Line, counted from 1.
        line: usize,
    },
    /// On the command line: `--allow api.example:443`.
    CommandLine(String),
    /// By a setting's default or the system: "dns: system resolver 192.0.2.53".
    Builtin(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::CommandLine(text) | Self::Builtin(text) => f.write_str(text),
        }
    }
}

/// An inclusive range of ports. The whole range 0–65535 is "all ports".
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, not below `first`.
    pub last: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// A single port.
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Whether the port lies within.
    pub const fn contains(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// Whether denials are enforced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// What is not allowed is refused.
    Enforce,
    /// What would be refused is reported and let pass.
    Audit,
}

/// The list a rule stands in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum Action {
    /// `allow:`
    Allow,
    /// `deny:`
    Deny,
}

/// What a rule speaks of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// A name in normal form: exact, or `*.suffix`.
    Host {
        /// The name.
        name: String,
        /// May resolve to private, loopback and CGNAT addresses.
        private: bool,
        /// A wildcard that is meant to be as broad as it is.
        broad: bool,
    },
    /// A network.
    Network(IpNet),
    /// Unix sockets: an absolute path, or `@` and an abstract name; a `*`, only ever the last character, stands for any
    /// rest.
    Unix(String),
}

/// One entry of `allow:` or `deny:`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Its list.
    pub action: Action,
    /// What it speaks of.
    pub target: Target,
    /// Its ports, sorted, neither overlapping nor touching; ICMP's only one is 0. Empty for unix sockets only.
    pub ports: Vec<PortRange>,
    /// Its transports, in the order of their numbers. Empty for unix sockets only.
    pub transports: Vec<Transport>,
    /// Where it was written.
    pub origin: Origin,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.action == Action::Deny {
            f.write_str("deny ")?;
        }
        let private = match &self.target {
            Target::Host { name, private, .. } => {
                write!(f, "host {name}")?;
                *private
            }
            Target::Network(network) => {
                write!(f, "cidr {network}")?;
                false
            }
            Target::Unix(pattern) => return write!(f, "unix {pattern}"),
        };
        if self.action == Action::Deny && matches!(self.target, Target::Host { .. }) {
            return Ok(());
        }
        match (self.ports.as_slice(), self.transports.as_slice()) {
            (_, [Transport::Icmp]) => f.write_str(" icmp")?,
            ([PortRange::ALL], all) => write!(f, " all ports/{}", transports(all))?,
            (ports, some) => write!(f, " ports {}/{}", list(ports), transports(some))?,
        }
        if private { f.write_str(" private") } else { Ok(()) }
    }
}

/// Port ranges as people write them: `22,8000-8100`.
pub(crate) fn list(ports: &[PortRange]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn transports(transports: &[Transport]) -> &'static str {
    match transports {
        [Transport::Tcp] => "tcp",
        [Transport::Udp] => "udp",
        _ => "any",
    }
}

/// The `loopback:` setting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Loopback {
    /// Nothing on the host itself, sockets of the same scope included.
    None,
    /// Sockets of the same scope.
    Own,
    /// Everything on the host itself, over TCP and UDP.
    Any,
    /// Sockets of the same scope, and these ports of everybody's, over TCP and UDP.
    Ports(Vec<PortRange>),
}

/// The `unix:` setting.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Unix {
    /// Sockets of the same scope.
    #[default]
    Own,
    /// Every socket.
    Any,
    /// No socket but those that a rule names, of the same scope or not.
    None,
}

impl Unix {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Any => "any",
            Self::None => "none",
        }
    }
}

/// The `inbound:` setting: connections and datagrams from outside the scope. Answers to what the scope began always pass.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Inbound {
    /// None comes in.
    Deny,
    /// All do.
    Allow,
    /// Those to these ports do, over TCP and UDP.
    Ports(Vec<PortRange>),
}

/// The `require:` setting: on which kernels the policy may be attached.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Require {
    /// On those that close what such a kernel can close; what stays open is said.
    #[default]
    Kernel,
    /// On those only where no path stays open.
    Full,
}

impl Require {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Full => "full",
        }
    }
}

/// The `escape:` setting: what becomes of a scope out of which a process was moved, or whose programs were detached.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnEscape {
    /// It is reported.
    #[default]
    Report,
    /// It is reported, and every process of the scope is killed.
    Kill,
}

impl OnEscape {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Kill => "kill",
        }
    }
}

/// The `dns.upstream` setting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Upstream {
    /// The resolvers that the system uses.
    System,
    /// These, and where they were written.
    List(Vec<SocketAddr>, Origin),
}

/// The `dns.refusal` setting: how a question for a name that is not listed is answered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Refusal {
    /// There is no such name: clients go on at once.
    #[default]
    NxDomain,
    /// Refused: clients may ask their other servers first.
    Refused,
}

/// The `dns.wildcard` setting: bounds on names that only a wildcard allows, each of which could carry data out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    /// Longest label, in bytes.
    pub label: u8,
    /// Longest name, in bytes of its text without the trailing dot.
    pub name: u8,
    /// Most names a minute that were not asked for before.
    pub new_names: u32,
}

impl Bounds {
    /// Least and most of `label`.
    pub const LABEL: (u32, u32) = (1, 63);
    /// Least and most of `name`.
    pub const NAME: (u32, u32) = (1, 253);
    /// Least and most of `new-names`.
    pub const NEW_NAMES: (u32, u32) = (0, 1_000_000);

    /// Most exchanges a minute with name servers over all names of a wildcard: asking again and again carries data too. One
    /// about a known name tells which of at most 16,384 it is, so that ten of them tell less than one new name.
    pub fn exchanges(&self) -> u32 {
        self.new_names.saturating_mul(10).saturating_add(60)
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self { label: 40, name: 100, new_names: 30 }
    }
}

/// The `dns` settings, apart from the upstream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dns {
    /// Query types that are asked upstream, as numbers (RFC 1035 §3.2.2), sorted.
    pub types: Vec<u16>,
    /// How names that are not listed are answered.
    pub refusal: Refusal,
    /// Keep the keys of encrypted client hello in HTTPS and SVCB records, with which nobody on the way can see the name
    /// that a TLS connection is for.
    pub keep_ech: bool,
    /// Bounds on names that only a wildcard allows.
    pub wildcard: Bounds,
    /// Resolve exact names at the start and keep them open, for programs that get addresses otherwise than by DNS.
    pub eager: bool,
}

impl Dns {
    /// A, CNAME, AAAA, SVCB, HTTPS.
    pub const TYPES: [u16; 5] = [1, 5, 28, 64, 65];
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            types: Self::TYPES.to_vec(),
            refusal: Refusal::default(),
            keep_ech: false,
            wildcard: Bounds::default(),
            eager: false,
        }
    }
}

/// What a policy opens by more than it seems to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notice {
    /// Where it was written; `None` for a default.
    pub origin: Option<Origin>,
    /// What can be done with it.
    pub message: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// A policy with all that it includes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Whether denials are enforced.
    pub mode: Mode,
    /// Its rules: of its file from top to bottom, of the included files, of the command line.
    pub rules: Vec<Rule>,
    /// The host itself.
    pub loopback: Loopback,
    /// Where `loopback:` was written; `None` if it was not.
    pub loopback_origin: Option<Origin>,
    /// Unix sockets.
    pub unix: Unix,
    /// Where `unix:` was written; `None` if it was not.
    pub unix_origin: Option<Origin>,
    /// What comes from outside.
    pub inbound: Inbound,
    /// Where `inbound:` was written; `None` if it was not.
    pub inbound_origin: Option<Origin>,
    /// On which kernels it may be attached.
    pub require: Require,
    /// What becomes of the scope when a process got out of it.
    pub on_escape: OnEscape,
    /// What `egress run` does not take away from the command.
    pub permits: BTreeSet<Restriction>,
    /// Resolvers that are asked.
    pub dns_upstream: Upstream,
    /// How names are asked.
    pub dns: Dns,
    /// What of this opens more than it seems to.
    pub notices: Vec<Notice>,
    /// The files it was read from, its own first.
    pub files: Vec<PathBuf>,
}
