//! The programs of the kernel side, and where each is attached.

use aya_obj::generated::bpf_attach_type;

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
    /// Senders of datagrams as they are shown, IPv4.
    Recvmsg4,
    /// Senders of datagrams as they are shown, IPv6 and IPv4-mapped.
    Recvmsg6,
    /// Peers as they are shown, IPv4.
    Getpeername4,
    /// Peers as they are shown, IPv6 and IPv4-mapped.
    Getpeername6,
    /// What comes in from outside.
    Ingress,
    /// Options that lead packets elsewhere, or send data of their own.
    Setsockopt,
    /// Kernel settings that root writes.
    Sysctl,
    /// Devices that carry packets or memory.
    Device,
    /// Connects of unix sockets (6.7).
    ConnectUnix,
    /// Datagrams with an address, unix sockets (6.7).
    SendmsgUnix,
    /// Tells the broker whether a unix socket was made in the scope (6.7).
    GetsocknameUnix,
}

impl KernelProgram {
    /// All of them, the boundary first: what is attached first covers the time until the rest is.
    pub const ALL: [Self; 17] = [
        Self::Packet,
        Self::Ingress,
        Self::Create,
        Self::Connect4,
        Self::Connect6,
        Self::Sendmsg4,
        Self::Sendmsg6,
        Self::Recvmsg4,
        Self::Recvmsg6,
        Self::Getpeername4,
        Self::Getpeername6,
        Self::Setsockopt,
        Self::Sysctl,
        Self::Device,
        Self::ConnectUnix,
        Self::SendmsgUnix,
        Self::GetsocknameUnix,
    ];

    /// Name of the program in the object, in the kernel and of its pin.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Create => "create",
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Sendmsg4 => "sendmsg4",
            Self::Sendmsg6 => "sendmsg6",
            Self::Recvmsg4 => "recvmsg4",
            Self::Recvmsg6 => "recvmsg6",
            Self::Getpeername4 => "getpeername4",
            Self::Getpeername6 => "getpeername6",
            Self::Ingress => "ingress",
            Self::Setsockopt => "setsockopt",
            Self::Sysctl => "sysctl",
            Self::Device => "device",
            Self::ConnectUnix => "connect_unix",
            Self::SendmsgUnix => "sendmsg_unix",
            Self::GetsocknameUnix => "getsockname_unix",
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
            Self::Recvmsg4 => bpf_attach_type::BPF_CGROUP_UDP4_RECVMSG,
            Self::Recvmsg6 => bpf_attach_type::BPF_CGROUP_UDP6_RECVMSG,
            Self::Getpeername4 => bpf_attach_type::BPF_CGROUP_INET4_GETPEERNAME,
            Self::Getpeername6 => bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME,
            Self::Ingress => bpf_attach_type::BPF_CGROUP_INET_INGRESS,
            Self::Setsockopt => bpf_attach_type::BPF_CGROUP_SETSOCKOPT,
            Self::Sysctl => bpf_attach_type::BPF_CGROUP_SYSCTL,
            Self::Device => bpf_attach_type::BPF_CGROUP_DEVICE,
            Self::ConnectUnix => bpf_attach_type::BPF_CGROUP_UNIX_CONNECT,
            Self::SendmsgUnix => bpf_attach_type::BPF_CGROUP_UNIX_SENDMSG,
            Self::GetsocknameUnix => bpf_attach_type::BPF_CGROUP_UNIX_GETSOCKNAME,
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
            Self::Recvmsg4 => "cgroup/recvmsg4",
            Self::Recvmsg6 => "cgroup/recvmsg6",
            Self::Getpeername4 => "cgroup/getpeername4",
            Self::Getpeername6 => "cgroup/getpeername6",
            Self::Ingress => "cgroup_skb/ingress",
            Self::Setsockopt => "cgroup/setsockopt",
            Self::Sysctl => "cgroup/sysctl",
            Self::Device => "cgroup/dev",
            Self::ConnectUnix => "cgroup/connect_unix",
            Self::SendmsgUnix => "cgroup/sendmsg_unix",
            Self::GetsocknameUnix => "cgroup/getsockname_unix",
        }
    }

    /// Whether a kernel without it is refused. What is not required closes paths that something else closes there, or that
    /// are said to stay open.
    pub const fn required(self) -> bool {
        !self.is_raw()
    }

    /// Whether its attach type is none that the library knows, so that it is loaded without it.
    pub(super) const fn is_raw(self) -> bool {
        matches!(self, Self::ConnectUnix | Self::SendmsgUnix | Self::GetsocknameUnix)
    }
}
