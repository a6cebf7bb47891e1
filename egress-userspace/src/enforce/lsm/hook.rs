//! The hooks of the LSM layer by name.

/// A hook of the LSM layer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum LsmHook {
    /// Connects of unix sockets, in both directions.
    UnixStreamConnect,
    /// Datagrams of unix sockets, in both directions.
    UnixMaySend,
    /// Socket families.
    SocketCreate,
    /// Connects of sockets that were made outside.
    SocketConnect,
    /// Sends of sockets that were made outside.
    SocketSendmsg,
    /// Sockets and rings that come in from outside.
    FileReceive,
    /// Writes to sockets and cgroup files that were opened outside.
    FilePermission,
    /// Opening cgroup files for writing.
    InodePermission,
    /// Reaching into processes outside.
    PtraceAccessCheck,
    /// Signals to processes outside.
    TaskKill,
    /// The bpf(2) system call.
    Bpf,
    /// Mounts that lead out.
    SbMount,
}

impl LsmHook {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::UnixStreamConnect,
        Self::UnixMaySend,
        Self::SocketCreate,
        Self::SocketConnect,
        Self::SocketSendmsg,
        Self::FileReceive,
        Self::FilePermission,
        Self::InodePermission,
        Self::PtraceAccessCheck,
        Self::TaskKill,
        Self::Bpf,
        Self::SbMount,
    ];

    /// The kernel's name of the hook.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnixStreamConnect => "unix_stream_connect",
            Self::UnixMaySend => "unix_may_send",
            Self::SocketCreate => "socket_create",
            Self::SocketConnect => "socket_connect",
            Self::SocketSendmsg => "socket_sendmsg",
            Self::FileReceive => "file_receive",
            Self::FilePermission => "file_permission",
            Self::InodePermission => "inode_permission",
            Self::PtraceAccessCheck => "ptrace_access_check",
            Self::TaskKill => "task_kill",
            Self::Bpf => "bpf",
            Self::SbMount => "sb_mount",
        }
    }

    /// Name of the program in the object, in the kernel and of its pin.
    pub const fn program(self) -> &'static str {
        match self {
            Self::UnixStreamConnect => "lsm_unix_stream",
            Self::UnixMaySend => "lsm_unix_send",
            Self::SocketCreate => "lsm_create",
            Self::SocketConnect => "lsm_connect",
            Self::SocketSendmsg => "lsm_sendmsg",
            Self::FileReceive => "lsm_receive",
            Self::FilePermission => "lsm_file",
            Self::InodePermission => "lsm_inode",
            Self::PtraceAccessCheck => "lsm_ptrace",
            Self::TaskKill => "lsm_kill",
            Self::Bpf => "lsm_bpf",
            Self::SbMount => "lsm_mount",
        }
    }

    /// What stays open without it, in a few words.
    pub const fn closes(self) -> &'static str {
        match self {
            Self::UnixStreamConnect => "connects to and from unix sockets outside",
            Self::UnixMaySend => "datagrams to and from unix sockets outside",
            Self::SocketCreate => "packet, vsock and other families past IP",
            Self::SocketConnect => "connects of sockets made outside",
            Self::SocketSendmsg => "sends of sockets made outside",
            Self::FileReceive => "sockets and rings passed in from outside",
            Self::FilePermission => "writes through descriptors opened outside",
            Self::InodePermission => "leaving the cgroup",
            Self::PtraceAccessCheck => "ptrace and memory of processes outside",
            Self::TaskKill => "signals to processes outside",
            Self::Bpf => "detaching the programs with bpf(2)",
            Self::SbMount => "mounts of control groups and of network file systems",
        }
    }
}
