//! DNS questions on their way from a client inside a scope to the scope's own listener.
//!
//! Every question to port 53 is redirected to loopback in the client's network namespace, to one of
//! [`PORTS`] consecutive ports that [`crate::Scope::dns_port`] begins; which one tells the servers of one socket apart.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Address, event::Owner};

/// Port of DNS (RFC 1035 §4.2).
pub const DNS: u16 = 53;

/// Port of DNS over TLS (RFC 7858) and over QUIC (RFC 9250).
pub const DNS_OVER_TLS: u16 = 853;

/// Ports of a listener: a socket may ask this many servers and still be told which one answers.
pub const PORTS: u16 = 8;

/// Most bytes of a question that travel with [`Arrival`].
pub const PAYLOAD: usize = 512;

/// Whether the port is one that names are asked at, which no rule opens.
#[inline(always)]
pub const fn is_dns(port: u16) -> bool {
    port == DNS || port == DNS_OVER_TLS
}

/// Who asks a listener: written by the packet hook before the packet arrives, taken by the listener with the packet.
/// What has no entry is from outside the scope.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    PartialEq,
    Ord,
    PartialOrd,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct AskerKey {
    /// Source address of the packet.
    pub address: Address,
    /// Source port of the packet.
    pub port: u16,
    /// Port of the listener.
    pub listener: u16,
    /// Id of the DNS message, as a number; 0 for a TCP connection.
    pub id: u16,
    /// A [`crate::Transport`] as a byte.
    pub transport: u8,
    /// Zero.
    pub pad: u8,
    /// Cookie of the network namespace; listeners of several namespaces have the same ports.
    pub netns: u64,
}

/// The client behind a question.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Asker {
    /// Its process.
    pub owner: Owner,
    /// The server that it believes to ask, at port 53.
    pub server: Address,
    /// Id of its cgroup.
    pub cgroup: u64,
    /// Cookie of its socket.
    pub cookie: u64,
}

/// What is kept on a socket that asks: the servers in the order of the listener's ports.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Servers {
    /// The servers; all zero where there is none yet.
    pub servers: [Address; PORTS as usize],
    /// Cookie of the network namespace.
    pub netns: u64,
    /// Which is written next, beyond [`PORTS`] the oldest again.
    pub next: u32,
    /// [`crate::Scope::epoch`] of the redirect; 0 is none.
    pub epoch: u32,
}

/// Key of the table of listeners.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListenerKey {
    /// [`crate::Scope::cgroup`]
    pub scope: u64,
    /// Cookie of the network namespace.
    pub netns: u64,
}

/// Value of the table of listeners. No entry: nobody has looked for one yet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Listener {
    /// First nanosecond of `CLOCK_BOOTTIME` at which the listener counts as dead and its ports may be somebody else's;
    /// it renews this while it lives. 0: there can be no listener here.
    pub expires: u64,
}

/// A question in a network namespace that has no listener yet. The packet is dropped; this brings it to userspace, which
/// opens one and answers. Longer questions and TCP connections come again by themselves. Without a source port it is no
/// question yet: a socket that is about to ask [`Asker::server`], or without that the first socket there.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Arrival {
    /// [`crate::Scope::cgroup`]
    pub scope: u64,
    /// From where; also names the network namespace.
    pub key: AskerKey,
    /// Who.
    pub asker: Asker,
    /// Length of the payload; 0 if there is none or it is too long.
    pub length: u32,
    /// Zero.
    pub pad: u32,
    /// The DNS message.
    pub payload: [u8; PAYLOAD],
}

const _: () = {
    assert!(size_of::<AskerKey>() == 32);
    assert!(size_of::<Asker>() == 64);
    assert!(size_of::<Servers>() == 144);
    assert!(size_of::<ListenerKey>() == 16);
    assert!(size_of::<Listener>() == 8);
    assert!(size_of::<Arrival>() == 624);
};
