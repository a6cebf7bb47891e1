//! What the kernel side tells userspace, and what it keeps on a socket.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Address, rule::RuleId};

/// The hook that saw an attempt; the kernel side has a file of the same name for each.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
#[repr(u8)]
pub enum Hook {
    /// `cgroup/sock_create`
    Create = 0,
    /// `cgroup/connect4`, `cgroup/connect6`
    Connect = 1,
    /// `cgroup/sendmsg4`, `cgroup/sendmsg6`
    Sendmsg = 2,
    /// `cgroup_skb/egress`
    Packet = 3,
}

impl Hook {
    /// Number of hooks.
    pub const COUNT: usize = 4;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Create, Self::Connect, Self::Sendmsg, Self::Packet];

    /// From a byte of an event.
    pub fn from_u8(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }

    /// The word in events and on screen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Connect => "connect",
            Self::Sendmsg => "sendmsg",
            Self::Packet => "packet",
        }
    }
}

/// The process behind an attempt: the one that made the call or, for packets, the last one that created,
/// connected or sent on the socket.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Owner {
    /// Process id (the kernel's tgid) in the initial pid namespace; 0 if unknown.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub pid: u32,
    /// Effective user id in the initial user namespace.
    pub uid: u32,
    /// Effective group id in the initial user namespace.
    pub gid: u32,
    /// Thread name, zero padded.
    pub comm: [u8; 16],
}

/// What the hooks keep on a socket (socket-local storage). All zero is a socket that nothing was approved for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tag {
    /// Who uses the socket.
    pub owner: Owner,
    /// The approved peer.
    pub address: Address,
    /// The approved peer's port.
    pub port: u16,
    /// Port of the last datagram that was sent to an address of its own.
    pub sent_port: u16,
    /// [`crate::Scope::epoch`] of the approval; 0 is none.
    pub epoch: u32,
    /// The rule that approved, 0 if none did (audit).
    pub rule: RuleId,
    /// The approval's [`crate::Reason`] as a byte.
    pub reason: u8,
    /// 1: the approval was reported.
    pub reported: u8,
    /// 1: a datagram socket that had more than one peer; its tag approves nothing any more.
    pub moved: u8,
    /// Zero.
    pub pad: u8,
    /// Address of the last datagram that was sent to an address of its own.
    pub sent_address: Address,
    /// [`crate::Scope::epoch`] when it was sent.
    pub sent_epoch: u32,
    /// Zero.
    pub pad2: u32,
}

/// One attempt, as it comes through the ring buffer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub time: u64,
    /// [`crate::Scope::cgroup`]: whose policy judged. 0 before the first policy.
    pub scope: u64,
    /// Id of the cgroup of the process (or, for packets, of the socket), at or below the scope's.
    pub cgroup: u64,
    /// Socket cookie; 0 if the hook has none.
    pub cookie: u64,
    /// Who.
    pub owner: Owner,
    /// Where to; all zero for [`Hook::Create`].
    pub address: Address,
    /// Destination port; 0 where there is none.
    pub port: u16,
    /// IP protocol number (262 is MPTCP).
    pub protocol: u16,
    /// The rule that decided, 0 if none did.
    pub rule: RuleId,
    /// `AF_INET` or `AF_INET6` of the socket.
    pub family: u8,
    /// `SOCK_STREAM`, `SOCK_DGRAM`, `SOCK_RAW` …; 0 if the hook does not see it.
    pub socket_type: u8,
    /// A [`Hook`] as a byte.
    pub hook: u8,
    /// A [`crate::Verdict`] as a byte.
    pub verdict: u8,
    /// A [`crate::Reason`] as a byte.
    pub reason: u8,
    /// Zero.
    pub pad: [u8; 3],
}

const _: () = {
    assert!(size_of::<Owner>() == 32);
    assert!(size_of::<Tag>() == 88);
    assert!(size_of::<Event>() == 96);
};
