//! What `egress run` takes away from a command before it starts, by name, so that each can be given back.

/// One thing that is taken away at launch. `--permit` and the policy's `permit:` give it back by name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Restriction {
    /// Rings of io_uring, whose calls no system call filter sees.
    IoUring,
    /// User namespaces. Taken away by default from commands of root only.
    UserNamespaces,
    /// `clone3`, which can start a process in another cgroup; callers fall back to `clone`.
    Clone3,
    /// ptrace and what needs the same rights. Taken away by default only where nothing else keeps it within the scope.
    Ptrace,
    /// Key requests that the kernel passes to a process of root outside.
    Keys,
    /// Socket families other than unix, inet, inet6 and netlink.
    Families,
    /// Netlink protocols other than route, generic, audit, uevent and socket diagnosis.
    Netlink,
    /// Pushing characters into a terminal.
    Terminal,
    /// System calls of another architecture's numbering.
    ForeignAbi,
    /// The bpf(2) system call.
    Bpf,
    /// Signals to processes outside.
    Signals,
    /// Unix sockets, on kernels where nothing can tell whose a listener is.
    UnixSockets,
}

impl Restriction {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::IoUring,
        Self::UserNamespaces,
        Self::Clone3,
        Self::Ptrace,
        Self::Keys,
        Self::Families,
        Self::Netlink,
        Self::Terminal,
        Self::ForeignAbi,
        Self::Bpf,
        Self::Signals,
        Self::UnixSockets,
    ];

    /// The word for it, as `--permit` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::UserNamespaces => "userns",
            Self::Clone3 => "clone3",
            Self::Ptrace => "ptrace",
            Self::Keys => "keys",
            Self::Families => "families",
            Self::Netlink => "netlink",
            Self::Terminal => "terminal",
            Self::ForeignAbi => "foreign-abi",
            Self::Bpf => "bpf",
            Self::Signals => "signals",
            Self::UnixSockets => "unix-sockets",
        }
    }

    /// From its word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|restriction| restriction.name() == name)
    }
}
