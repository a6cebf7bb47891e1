//! The programs of the kernel side, and where each is attached.

use aya_obj::generated::bpf_attach_type;
use egress_common::Hook;

/// A program of the kernel side.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum KernelProgram {
    /// The boundary: every IP packet of the scope's sockets.
    Packet,
    /// Socket creation.
    Create,
    /// Connects of IPv4 sockets.
    Connect4,
    /// Connects of IPv6 sockets, IPv4-mapped destinations included.
    Connect6,
    /// Datagrams with an address, IPv4.
    Sendmsg4,
    /// Datagrams with an address, IPv6.
    Sendmsg6,
}

impl KernelProgram {
    /// All of them, the boundary first: what is attached first covers the time until the rest is.
    pub const ALL: [Self; 6] =
        [Self::Packet, Self::Create, Self::Connect4, Self::Connect6, Self::Sendmsg4, Self::Sendmsg6];

    /// Name of the program in the object, in the kernel and of its pin.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Create => "create",
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Sendmsg4 => "sendmsg4",
            Self::Sendmsg6 => "sendmsg6",
        }
    }

    /// The word in events for what it sees.
    pub const fn hook(self) -> Hook {
        match self {
            Self::Packet => Hook::Packet,
            Self::Create => Hook::Create,
            Self::Connect4 | Self::Connect6 => Hook::Connect,
            Self::Sendmsg4 | Self::Sendmsg6 => Hook::Sendmsg,
        }
    }

    /// The kernel's name for where it is attached (`enum bpf_attach_type`).
    pub const fn attach_type(self) -> u32 {
        let attach_type = match self {
            Self::Packet => bpf_attach_type::BPF_CGROUP_INET_EGRESS,
            Self::Create => bpf_attach_type::BPF_CGROUP_INET_SOCK_CREATE,
            Self::Connect4 => bpf_attach_type::BPF_CGROUP_INET4_CONNECT,
            Self::Connect6 => bpf_attach_type::BPF_CGROUP_INET6_CONNECT,
            Self::Sendmsg4 => bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG,
            Self::Sendmsg6 => bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG,
        };
        attach_type as u32
    }

    /// The hook as the kernel's documentation writes it.
    pub const fn kernel_name(self) -> &'static str {
        match self {
            Self::Packet => "cgroup_skb/egress",
            Self::Create => "cgroup/sock_create",
            Self::Connect4 => "cgroup/connect4",
            Self::Connect6 => "cgroup/connect6",
            Self::Sendmsg4 => "cgroup/sendmsg4",
            Self::Sendmsg6 => "cgroup/sendmsg6",
        }
    }
}
