//! Keys and values of the kernel's tables. Sizes are asserted; padding is written out, never implied.
//!
//! Integers are in host byte order except where a field says "big endian" (LPM keys compare bit by bit from
//! the first byte on).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Address;

/// Number of a rule in a compiled policy; leads back to a file and line. 0 is "no rule".
pub type RuleId = u32;

/// IP protocol number of a judged flow: only these are ever allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
#[repr(u8)]
pub enum Transport {
    /// `IPPROTO_ICMP`, and `IPPROTO_ICMPV6` too: echo requests, which have no port (0).
    Icmp = 1,
    /// `IPPROTO_TCP`
    Tcp = 6,
    /// `IPPROTO_UDP`
    Udp = 17,
}

impl Transport {
    /// From an IP protocol number.
    #[inline(always)]
    pub const fn from_protocol(protocol: u8) -> Option<Self> {
        match protocol {
            1 | 58 => Some(Self::Icmp),
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }
}

/// Longest prefix match over (slot, address); the prefix length of an entry is [`NetworkKey::SLOT_BITS`] plus the
/// address's (IPv4: plus [`Address::MAPPED_BITS`]).
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct NetworkKey {
    /// Policy slot; always matched whole.
    pub slot: u32,
    /// First address of the network.
    pub address: Address,
}

impl NetworkKey {
    /// Bits of the key before the address.
    pub const SLOT_BITS: u32 = 32;
}

/// What a network is, beside being covered by rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
#[repr(u8)]
pub enum Class {
    /// Nothing special: host permits apply.
    Plain = 0,
    /// The host itself (127/8, ::1, 0.0.0.0, ::, and its own addresses).
    Loopback = 1,
    /// Cloud metadata services.
    Metadata = 2,
    /// 169.254/16, fe80::/10.
    LinkLocal = 3,
    /// 224/4, ff00::/8.
    Multicast = 4,
    /// 255.255.255.255 and the reserved 240/4.
    Broadcast = 5,
}

impl Class {
    /// From the byte in [`Network::class`]; an unknown byte is the strictest reading of it.
    #[inline(always)]
    pub const fn from_u8(class: u8) -> Self {
        match class {
            0 => Self::Plain,
            1 => Self::Loopback,
            2 => Self::Metadata,
            3 => Self::LinkLocal,
            4 => Self::Multicast,
            _ => Self::Broadcast,
        }
    }
}

/// Value of the network table: every rule that covers the network, wider networks included, is already merged
/// into its ports, so that one lookup is complete.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Network {
    /// Port set to look the port up in, where [`Network::span`] is empty; 0 is the empty set.
    pub set: u32,
    /// All ports of the network, where they are one span of one rule, as most are: saves the look-up in the set,
    /// which costs as much as the one that led here.
    pub span: Span,
    /// A [`Class`] as a byte.
    pub class: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// A run of ports under one rule.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Span {
    /// The rule.
    pub rule: RuleId,
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
    /// [`Span::TCP`], [`Span::UDP`], [`Span::ICMP`] or several; 0 is no span.
    pub transports: u8,
    /// 1 allows; anything else denies.
    pub allow: u8,
    /// Zero.
    pub pad: [u8; 2],
}

impl Span {
    /// Bit of TCP in [`Span::transports`].
    pub const TCP: u8 = 1;
    /// Bit of UDP in [`Span::transports`].
    pub const UDP: u8 = 2;
    /// Bit of ICMP echo in [`Span::transports`].
    pub const ICMP: u8 = 4;

    /// Whether there is one at all.
    #[inline(always)]
    pub const fn is_some(&self) -> bool {
        self.transports != 0
    }

    /// The rule, if the span holds the port.
    #[inline(always)]
    pub const fn port(&self, transport: Transport, port: u16) -> Option<PortRule> {
        let bit = match transport {
            Transport::Tcp => Self::TCP,
            Transport::Udp => Self::UDP,
            Transport::Icmp => Self::ICMP,
        };
        if self.transports & bit != 0 && self.first <= port && port <= self.last {
            Some(PortRule { rule: self.rule, allow: self.allow, pad: [0; 3] })
        } else {
            None
        }
    }
}

/// Longest prefix match over (slot, set, transport, port): a port range is the list of its aligned blocks.
/// The prefix length of an entry is [`PortKey::EXACT_BITS`] plus the port bits.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PortKey {
    /// Policy slot.
    pub slot: u32,
    /// Port set, see [`Network::set`].
    pub set: u32,
    /// A [`Transport`] as a byte.
    pub transport: u8,
    /// Zero.
    pub pad: u8,
    /// First port of the block, big endian.
    pub port: [u8; 2],
}

impl PortKey {
    /// Bits of the key before the port.
    pub const EXACT_BITS: u32 = 80;
}

/// Value of the port table. Deny rules are already laid over allow rules.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PortRule {
    /// The rule that this block of ports comes from.
    pub rule: RuleId,
    /// 1 allows; anything else denies.
    pub allow: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// Exact key of the permit table: a block of ports of one address, opened by a name.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PermitKey {
    /// Policy slot.
    pub slot: u32,
    /// First port of the block.
    pub port: u16,
    /// A [`Transport`] as a byte.
    pub transport: u8,
    /// Log2 of the number of ports in the block: one of [`PermitKey::BLOCKS`].
    pub block: u8,
    /// The address.
    pub address: Address,
}

impl PermitKey {
    /// Sizes of port blocks (log2) in the order in which they are looked up. A host rule with a range of ports
    /// is a few blocks an address instead of one entry a port.
    pub const BLOCKS: [u8; 5] = [0, 4, 8, 12, 16];

    /// The key of the block of `1 << block` ports that holds `port`.
    #[inline(always)]
    pub const fn new(slot: u32, transport: Transport, address: Address, port: u16, block: u8) -> Self {
        let mask = if block >= 16 { 0 } else { 0xffff << block };
        Self { slot, port: port & mask, transport: transport as u8, block, address }
    }
}

/// Value of the permit table.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Permit {
    /// First nanosecond of `CLOCK_BOOTTIME` at which this permit no longer holds.
    pub expires: u64,
    /// The host rule that opened it.
    pub rule: RuleId,
    /// Zero.
    pub pad: u32,
}

/// Key of the table of senders that a datagram socket may answer ([`Scope::inbound`]); the value is the epoch.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Caller {
    /// Cookie of the socket that heard the sender.
    pub cookie: u64,
    /// The sender.
    pub address: Address,
    /// Its port.
    pub port: u16,
    /// Zero.
    pub pad: [u16; 3],
}

/// State of a scope, in the cgroup-local storage of its cgroup. All zero, as the kernel makes it at attach,
/// is "deny everything".
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Scope {
    /// Slot of the scope's policy in the tables; 0 is no policy: deny everything.
    pub slot: u32,
    /// Changes with every policy written to any scope: a flow tag from another epoch is stale.
    pub epoch: u32,
    /// The scope's cgroup id (inode of its directory), to label events with.
    pub cgroup: u64,
    /// 1: report what would be denied and let it pass.
    pub audit: u8,
    /// 1: some host rule has ports other than single ones, so [`PermitKey::BLOCKS`] beyond the first are in use.
    pub blocks: u8,
    /// First of the [`crate::question::PORTS`] ports of the scope's DNS listeners; 0: DNS is closed.
    pub dns_port: u16,
    /// Events a CPU may emit in each [`crate::counter::WINDOW_NS`] for each verdict; the rest is suppressed and
    /// counted. 0 emits none.
    pub event_rate: u32,
    /// Port set ([`Network::set`]) of what `inbound:` opens; 0: nothing may come in.
    pub inbound: u32,
    /// The process (tgid in the initial pid namespace) that connects unix sockets on behalf of the scope, after it has
    /// seen to whom; 0: none.
    pub broker: u32,
    /// Depth of the scope's cgroup below the root, by which the kernel tells whether another socket's lies in it.
    pub level: u8,
    /// 1: sockets of the same scope may talk to each other on this host (`loopback:` other than `none`).
    pub own: u8,
    /// 1: the unix hooks let everything pass, since the policy says so, or another layer judges.
    pub unix_open: u8,
    /// 1: some rule opens ICMP echo, so ping sockets can be made.
    pub icmp: u8,
    /// 1: some rule may open a broadcast address, so SO_BROADCAST takes effect.
    pub broadcast: u8,
    /// Zero.
    pub pad: [u8; 3],
}

impl Scope {
    /// All zero: denies everything.
    pub const ZERO: Self = Self {
        slot: 0,
        epoch: 0,
        cgroup: 0,
        audit: 0,
        blocks: 0,
        dns_port: 0,
        event_rate: 0,
        inbound: 0,
        broker: 0,
        level: 0,
        own: 0,
        unix_open: 0,
        icmp: 0,
        broadcast: 0,
        pad: [0; 3],
    };
}

const _: () = {
    assert!(size_of::<NetworkKey>() == 20);
    assert!(size_of::<Network>() == 20);
    assert!(size_of::<Span>() == 12);
    assert!(size_of::<PortKey>() == 12);
    assert!(size_of::<PortRule>() == 8);
    assert!(size_of::<PermitKey>() == 24);
    assert!(size_of::<Permit>() == 16);
    assert!(size_of::<Caller>() == 32);
    assert!(size_of::<Scope>() == 40);
};
