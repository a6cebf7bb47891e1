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
    /// A transport other than TCP, UDP and ICMP echo.
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
    /// A socket of the same scope, or nobody at a loopback address.
    Own = 15,
    /// From outside the scope, and `inbound:` does not open the port.
    Inbound = 16,
    /// A socket option that sends data of its own, or leads packets elsewhere than their destination says.
    SocketOption = 17,
    /// A unix socket of a process outside the scope, and no `unix` rule opens it.
    Unix = 18,
    /// A socket family that leads out past IP (packet, vsock, …), which no rule can open.
    Family = 19,
    /// A network socket that was made outside the scope.
    Descriptor = 20,
    /// Reaching into a process outside the scope (ptrace, its memory, its descriptors, a terminal).
    Process = 21,
    /// Leaving the scope's cgroup.
    Cgroup = 22,
    /// The bpf(2) system call.
    Bpf = 23,
    /// A mount or namespace that leads to another network or to the cgroups.
    Namespace = 24,
    /// A kernel setting under /proc/sys.
    Sysctl = 25,
    /// A device that carries packets or memory (`/dev/net/tun`, `/dev/mem` …).
    Device = 26,
    /// A system call that `egress run` takes away (io_uring, request-key …) and that `--permit` gives back.
    Syscall = 27,
}

impl Reason {
    /// Number of reasons.
    pub const COUNT: usize = 28;

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
        Self::Own,
        Self::Inbound,
        Self::SocketOption,
        Self::Unix,
        Self::Family,
        Self::Descriptor,
        Self::Process,
        Self::Cgroup,
        Self::Bpf,
        Self::Namespace,
        Self::Sysctl,
        Self::Device,
        Self::Syscall,
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
            Self::Own => "own",
            Self::Inbound => "inbound",
            Self::SocketOption => "socket-option",
            Self::Unix => "unix",
            Self::Family => "family",
            Self::Descriptor => "descriptor",
            Self::Process => "process",
            Self::Cgroup => "cgroup",
            Self::Bpf => "bpf",
            Self::Namespace => "namespace",
            Self::Sysctl => "sysctl",
            Self::Device => "device",
            Self::Syscall => "syscall",
        }
    }

    /// Whether it is an attempt to get out of the scope, or to have somebody outside act for it, rather than to reach a
    /// destination: a class of events of its own.
    pub const fn is_escape(self) -> bool {
        matches!(
            self,
            Self::Descriptor
                | Self::Process
                | Self::Cgroup
                | Self::Bpf
                | Self::Namespace
                | Self::Sysctl
                | Self::Device
                | Self::Syscall
        )
    }
}

/// One attempt to reach a destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct Flow {
    /// TCP, UDP or ICMP echo.
    pub transport: Transport,
    /// Where to.
    pub address: Address,
    /// Destination port.
    pub port: u16,
    /// Source port of a packet that can be a listener's answer, else 0. Only `inbound:` looks at it.
    pub local_port: u16,
    /// Who is there, as far as the destination is on this host.
    pub peer: Peer,
}

/// Who has the other end of a flow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
#[repr(u8)]
pub enum Peer {
    /// Not on this host, or nobody has looked.
    #[default]
    Remote = 0,
    /// On this host: a socket of the same scope.
    Own = 1,
    /// On this host: a socket of somebody else.
    Foreign = 2,
    /// On this host: no socket that could be found.
    Nobody = 3,
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

    /// Who is at a destination on this host. Asked only where the answer decides.
    fn peer(&self, scope: &Scope, flow: &Flow) -> Peer {
        let _ = scope;
        flow.peer
    }
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
    // The answer of a listener that `inbound:` opens.
    if flow.local_port != 0
        && let Some(rule) = inbound(tables, scope, flow.transport, flow.local_port)
    {
        return Decision::allow(Reason::Inbound, rule.rule);
    }
    let address = flow.address.judged();
    let network = tables.network(scope.slot, &address).unwrap_or_default();
    let class = Class::from_u8(network.class);
    let loopback = matches!(class, Class::Loopback);
    let local = loopback || !matches!(flow.peer, Peer::Remote);
    match covering(tables, scope, &network, flow.transport, flow.port) {
        Some(rule) if rule.allow != 1 => return Decision::deny(Reason::DenyRule, rule.rule),
        // An address of the host that is no loopback address, in a namespace whose addresses the tables do not know:
        // no wide rule speaks of it.
        Some(rule) if loopback || !local => return Decision::allow(Reason::Rule, rule.rule),
        _ => {}
    }
    // Not where a translator would make a loopback address of it, somewhere else, nor where many hear it.
    let one = !matches!(class, Class::Multicast | Class::Broadcast | Class::Metadata);
    if local && one && scope.own == 1 && flow.address == address {
        let own = match tables.peer(scope, flow) {
            Peer::Own => true,
            // The kernel refuses by itself then, as programs that wait for a server expect. At other addresses somebody may
            // be there whom no look-up finds: bound to a device, or hearing for others.
            Peer::Nobody => address.is_loopback(),
            Peer::Foreign | Peer::Remote => false,
        };
        if own {
            return Decision::allow(Reason::Own, 0);
        }
    }
    if local && !loopback {
        return Decision::deny(Reason::Loopback, 0);
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

/// Decides about what comes in from outside: a connection that is opened, or a datagram that is no answer.
#[inline(always)]
pub fn decide_inbound<T: Tables>(
    tables: &T,
    scope: &Scope,
    transport: Transport,
    port: u16,
    peer: Peer,
) -> Decision {
    if scope.slot == 0 {
        return Decision::deny(Reason::NoPolicy, 0);
    }
    if scope.own == 1 && matches!(peer, Peer::Own) {
        return Decision::allow(Reason::Own, 0);
    }
    match inbound(tables, scope, transport, port) {
        Some(rule) => Decision::allow(Reason::Inbound, rule.rule),
        None => Decision::deny(Reason::Inbound, 0),
    }
}

/// The rule of `inbound:` that opens a port of the scope.
#[inline(always)]
fn inbound<T: Tables>(tables: &T, scope: &Scope, transport: Transport, port: u16) -> Option<PortRule> {
    if scope.inbound == 0 {
        return None;
    }
    let rule = tables.port(scope.slot, scope.inbound, transport, port)?;
    if rule.allow == 1 { Some(rule) } else { None }
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
