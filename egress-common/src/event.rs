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
    /// `cgroup_skb/ingress`
    Ingress = 4,
    /// `cgroup/setsockopt`
    Setsockopt = 5,
    /// `cgroup/connect_unix`, `cgroup/sendmsg_unix`, and the supervisor that connects in their place
    Unix = 6,
    /// `cgroup/sysctl`
    Sysctl = 7,
    /// `cgroup/dev`
    Device = 8,
    /// BPF LSM
    Lsm = 9,
    /// What `egress run` takes away before the command starts (seccomp, Landlock, capabilities)
    Launch = 10,
}

impl Hook {
    /// Number of hooks.
    pub const COUNT: usize = 11;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Create,
        Self::Connect,
        Self::Sendmsg,
        Self::Packet,
        Self::Ingress,
        Self::Setsockopt,
        Self::Unix,
        Self::Sysctl,
        Self::Device,
        Self::Lsm,
        Self::Launch,
    ];

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
            Self::Ingress => "ingress",
            Self::Setsockopt => "setsockopt",
            Self::Unix => "unix",
            Self::Sysctl => "sysctl",
            Self::Device => "device",
            Self::Lsm => "lsm",
            Self::Launch => "launch",
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
    /// [`crate::Scope::cgroup`] of the scope that it was made in; 0 if that had no policy yet.
    pub scope: u64,
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
    /// 1: it may send to broadcast addresses (SO_BROADCAST).
    pub broadcast: u8,
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
    /// Where to, or from where for [`Hook::Ingress`]; all zero for [`Hook::Create`], [`Hook::Setsockopt`], [`Hook::Unix`],
    /// [`Hook::Sysctl`] and [`Hook::Device`].
    pub address: Address,
    /// Destination port (of the scope's own socket for [`Hook::Ingress`]); 0 where there is none. The option's number for
    /// [`Hook::Setsockopt`], the device's minor number for [`Hook::Device`].
    pub port: u16,
    /// IP protocol number (262 is MPTCP). The option's level for [`Hook::Setsockopt`], the device's major number for
    /// [`Hook::Device`].
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

/// One attempt to get out of the scope, refused elsewhere than at a socket hook of its cgroup. Comes through the same ring
/// buffer; told from an [`Event`] by its size.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Escape {
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub time: u64,
    /// [`crate::Scope::cgroup`]: whose policy judged.
    pub scope: u64,
    /// Id of the cgroup of the process, at or below the scope's.
    pub cgroup: u64,
    /// Who.
    pub owner: Owner,
    /// The process outside that was to be reached; 0 if it is about none.
    pub target: u32,
    /// Which socket family, system call, bpf command or capability it was, after the [`crate::Reason`].
    pub number: u32,
    /// A [`Hook`] as a byte.
    pub hook: u8,
    /// A [`crate::Verdict`] as a byte.
    pub verdict: u8,
    /// A [`crate::Reason`] as a byte.
    pub reason: u8,
    /// Zero.
    pub pad: u8,
    /// What it was about, zero padded: the name of a unix socket (an abstract one begins with `@`), a file, a system call.
    pub text: [u8; 108],
}

impl Escape {
    /// All zero.
    pub const ZERO: Self = Self {
        time: 0,
        scope: 0,
        cgroup: 0,
        owner: Owner { tgid: 0, pid: 0, uid: 0, gid: 0, comm: [0; 16] },
        target: 0,
        number: 0,
        hook: 0,
        verdict: 0,
        reason: 0,
        pad: 0,
        text: [0; 108],
    };
}

const _: () = {
    assert!(size_of::<Escape>() == 176);
    assert!(size_of::<Owner>() == 32);
    assert!(size_of::<Tag>() == 96);
    assert!(size_of::<Event>() == 96);
};
