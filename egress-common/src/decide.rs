//! The decision. Receives a scope's state, a flow and a way to look tables up; gives verdict, reason and rule.
//!
//! Every hook and every userspace command calls [`decide`]; nothing else makes a verdict about a destination.

use crate::{
    Address,
    question::is_dns,
    rule::{Class, Network, Permit, PermitKey, PortRule, RuleId, Scope, Transport},
};

/// What happens to an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// Refused.
    Deny = 0,
    /// Let pass.
    Allow = 1,
    /// Would have been refused, but the scope is in audit mode.
    Audit = 2,
}

impl Verdict {
    /// Number of verdicts.
    pub const COUNT: usize = 3;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Deny, Self::Allow, Self::Audit];

    /// From a byte of an event.
    pub fn from_u8(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }

    /// The word in events and on screen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
            Self::Audit => "audit",
        }
    }
}

/// Why. The order is part of the event format.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The scope has no policy yet.
    NoPolicy = 0,
    /// No rule covers the destination.
    NoRule = 1,
    /// A rule under `deny:` covers it.
    DenyRule = 2,
    /// A name opened the address, but the answer's time is over.
    Expired = 3,
    /// The host itself, and `loopback:` does not open it.
    Loopback = 4,
    /// A metadata service without a `cidr` rule of its own.
    Metadata = 5,
    /// A link-local address without a `cidr` rule of its own.
    LinkLocal = 6,
    /// A multicast address without a `cidr` rule of its own.
    Multicast = 7,
    /// A broadcast or reserved address without a `cidr` rule of its own.
    Broadcast = 8,
    /// A transport other than TCP and UDP.
    Transport = 9,
    /// A packet with IP options, extension headers or fragment bits: its destination field is not where it goes.
    NotPlain = 10,
    /// A socket of a kind that no rule can open (raw, ping, UDP-Lite, MPTCP, SCTP …).
    SocketType = 11,
    /// A `cidr` rule or the `loopback:` setting covers it.
    Rule = 12,
    /// A name's answer opened it.
    Permit = 13,
    /// Port 53 or 853: names are asked of the scope's own listener only, whatever a rule says.
    Dns = 14,
}

impl Reason {
    /// Number of reasons.
    pub const COUNT: usize = 15;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::NoPolicy,
        Self::NoRule,
        Self::DenyRule,
        Self::Expired,
        Self::Loopback,
        Self::Metadata,
        Self::LinkLocal,
        Self::Multicast,
        Self::Broadcast,
        Self::Transport,
        Self::NotPlain,
        Self::SocketType,
        Self::Rule,
        Self::Permit,
        Self::Dns,
    ];

    /// From a byte of an event.
    pub fn from_u8(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }

    /// The word in events and on screen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoPolicy => "no-policy",
            Self::NoRule => "no-rule",
            Self::DenyRule => "deny-rule",
            Self::Expired => "expired",
            Self::Loopback => "loopback",
            Self::Metadata => "metadata",
            Self::LinkLocal => "link-local",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Transport => "transport",
            Self::NotPlain => "not-plain",
            Self::SocketType => "socket-type",
            Self::Rule => "rule",
            Self::Permit => "permit",
            Self::Dns => "dns",
        }
    }
}

/// One attempt to reach a destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct Flow {
    /// TCP or UDP.
    pub transport: Transport,
    /// Where to.
    pub address: Address,
    /// Destination port.
    pub port: u16,
    /// Source port of a packet that can be a listener's answer, else 0. Only loopback looks at it.
    pub local_port: u16,
}

/// Verdict with its grounds.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct Decision {
    /// Allow or deny.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The rule that decided, 0 if none did.
    pub rule: RuleId,
}

impl Decision {
    /// Refused.
    #[inline(always)]
    pub const fn deny(reason: Reason, rule: RuleId) -> Self {
        Self { verdict: Verdict::Deny, reason, rule }
    }

    /// Let pass.
    #[inline(always)]
    pub const fn allow(reason: Reason, rule: RuleId) -> Self {
        Self { verdict: Verdict::Allow, reason, rule }
    }

    /// As the scope's mode has it: in audit mode a denial becomes [`Verdict::Audit`].
    #[inline(always)]
    pub const fn in_mode(self, scope: &Scope) -> Self {
        match self.verdict {
            Verdict::Deny if scope.audit == 1 => Self { verdict: Verdict::Audit, ..self },
            _ => self,
        }
    }

    /// Whether the attempt goes on.
    #[inline(always)]
    pub const fn passes(&self) -> bool {
        !matches!(self.verdict, Verdict::Deny)
    }
}

/// The tables of compiled policies, in the kernel's maps or in memory.
pub trait Tables {
    /// The longest network that holds the address.
    fn network(&self, slot: u32, address: &Address) -> Option<Network>;

    /// The rule of the smallest block of `set` that holds the port.
    fn port(&self, slot: u32, set: u32, transport: Transport, port: u16) -> Option<PortRule>;

    /// The permit under exactly this key.
    fn permit(&self, key: &PermitKey) -> Option<Permit>;

    /// `CLOCK_BOOTTIME` in nanoseconds.
    fn now(&self) -> u64;
}

/// Decides about a destination. Ignores [`Scope::audit`]: see [`Decision::in_mode`].
#[inline(always)]
pub fn decide<T: Tables>(tables: &T, scope: &Scope, flow: &Flow) -> Decision {
    if scope.slot == 0 {
        return Decision::deny(Reason::NoPolicy, 0);
    }
    if is_dns(flow.port) {
        return Decision::deny(Reason::Dns, 0);
    }
    let address = flow.address.judged();
    let network = tables.network(scope.slot, &address).unwrap_or_default();
    let class = Class::from_u8(network.class);
    if let Some(rule) = covering(tables, scope, &network, flow.transport, flow.port) {
        return match rule.allow {
            1 => Decision::allow(Reason::Rule, rule.rule),
            _ => Decision::deny(Reason::DenyRule, rule.rule),
        };
    }
    if matches!(class, Class::Loopback) && flow.local_port != 0 {
        let own = covering(tables, scope, &network, flow.transport, flow.local_port);
        if let Some(PortRule { allow: 1, rule, .. }) = own {
            return Decision::allow(Reason::Rule, rule);
        }
    }
    let reason = match class {
        Class::Plain => Reason::NoRule,
        Class::Loopback => Reason::Loopback,
        Class::Metadata => return Decision::deny(Reason::Metadata, 0),
        Class::LinkLocal => return Decision::deny(Reason::LinkLocal, 0),
        Class::Multicast => return Decision::deny(Reason::Multicast, 0),
        Class::Broadcast => return Decision::deny(Reason::Broadcast, 0),
    };
    match permit(tables, scope, flow, address) {
        (Found::Holds, rule) => Decision::allow(Reason::Permit, rule),
        (Found::Expired, rule) => Decision::deny(Reason::Expired, rule),
        (Found::Nothing, _) => Decision::deny(reason, 0),
    }
}

/// What there is of permits for a flow.
#[derive(Clone, Copy)]
enum Found {
    Nothing,
    Expired,
    Holds,
}

/// The rule that covers a port of a network.
#[inline(always)]
fn covering<T: Tables>(
    tables: &T,
    scope: &Scope,
    network: &Network,
    transport: Transport,
    port: u16,
) -> Option<PortRule> {
    if network.span.is_some() {
        network.span.port(transport, port)
    } else if network.set != 0 {
        tables.port(scope.slot, network.set, transport, port)
    } else {
        None
    }
}

/// Whether a permit covers the flow, and its rule: of several the smallest block of ports that holds, else the smallest
/// that has expired. The rule is 0 rather than missing where there is none: Linux 5.10 refuses a program that carries a
/// value along which was never set, though nobody looks at it.
#[inline(always)]
fn permit<T: Tables>(tables: &T, scope: &Scope, flow: &Flow, address: Address) -> (Found, RuleId) {
    let mut best = (Found::Nothing, 0);
    for block in PermitKey::BLOCKS {
        let key = PermitKey::new(scope.slot, flow.transport, address, flow.port, block);
        if let Some(permit) = tables.permit(&key) {
            if tables.now() < permit.expires {
                return (Found::Holds, permit.rule);
            }
            if matches!(best.0, Found::Nothing) {
                best = (Found::Expired, permit.rule);
            }
        }
        if scope.blocks == 0 {
            break;
        }
    }
    best
}
