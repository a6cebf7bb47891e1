//! Ways to get a byte out of a scope, or to have somebody outside act for it, one or more for each hook.

use std::{os::fd::AsRawFd as _, sync::atomic::AtomicU8};

use egress::enforce::LsmHook;
use egress_common::Reason;
use nix::sys::socket::SockType;

use crate::{call, outside::Outside};

/// One way.
#[derive(Clone, Copy)]
pub(crate) struct Attack {
    /// What it is.
    pub(crate) name: &'static str,
    /// The hook that stops it, and without which it succeeds.
    pub(crate) hook: LsmHook,
    /// Why it is refused.
    pub(crate) reason: Reason,
    /// What the record says that it was about: the end of the text.
    pub(crate) text: &'static str,
    /// Who makes the call.
    pub(crate) from: From,
    /// The call, made by a process inside, or for [`From::Outside`] by one outside.
    pub(crate) call: fn(&Outside) -> i32,
}

/// Who makes the call.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum From {
    /// A process of the scope.
    Inside,
    /// A process outside, while somebody inside listens.
    Outside,
}

const fn inside(
    name: &'static str,
    hook: LsmHook,
    reason: Reason,
    text: &'static str,
    call: fn(&Outside) -> i32,
) -> Attack {
    Attack { name, hook, reason, text, from: From::Inside, call }
}

use LsmHook as Hook;
use Reason::{Bpf, Cgroup, Descriptor, Family, Namespace, Process, Unix};

/// All of them.
pub(crate) const ATTACKS: [Attack; 28] = [
    inside("unix stream by path", Hook::UnixStreamConnect, Unix, "/stream", |outside| {
        call::unix_connect(SockType::Stream, &outside.path("stream"))
    }),
    inside("unix seqpacket by path", Hook::UnixStreamConnect, Unix, "/seqpacket", |outside| {
        call::unix_connect(SockType::SeqPacket, &outside.path("seqpacket"))
    }),
    inside("unix stream by abstract name", Hook::UnixStreamConnect, Unix, "", |outside| {
        call::unix_connect(SockType::Stream, &outside.abstracted())
    }),
    Attack {
        name: "unix stream from outside",
        hook: Hook::UnixStreamConnect,
        reason: Unix,
        text: "",
        from: From::Outside,
        call: |outside| call::unix_connect(SockType::Stream, &outside.path("inside-stream")),
    },
    inside("unix datagram by path", Hook::UnixMaySend, Unix, "/datagram", |outside| {
        call::unix_send(&outside.path("datagram"))
    }),
    inside("unix datagram connect", Hook::UnixMaySend, Unix, "/datagram", |outside| {
        call::unix_connect(SockType::Datagram, &outside.path("datagram"))
    }),
    inside("inherited unix datagram pair", Hook::UnixMaySend, Unix, "", |outside| {
        outside.pair.0.send(b"secret").err().map_or(0, |error| error.raw_os_error().unwrap_or(-1))
    }),
    Attack {
        name: "unix datagram from outside",
        hook: Hook::UnixMaySend,
        reason: Unix,
        text: "",
        from: From::Outside,
        call: |outside| call::unix_send(&outside.path("inside-datagram")),
    },
    inside("packet socket", Hook::SocketCreate, Family, "", |_| {
        call::make_socket(libc::AF_PACKET, libc::SOCK_RAW, 0)
    }),
    inside("packet socket by its old name", Hook::SocketCreate, Family, "", |_| {
        call::make_socket(libc::AF_INET, SOCK_PACKET, 0)
    }),
    inside("odd netlink protocol", Hook::SocketCreate, Family, "", |_| {
        call::make_socket(libc::AF_NETLINK, libc::SOCK_RAW, 10)
    }),
    inside(
        "connect of an inherited socket",
        Hook::SocketConnect,
        Descriptor,
        "connect a socket from outside",
        |outside| {
            outside
                .unconnected
                .connect("127.0.0.1:9")
                .err()
                .map_or(0, |error| error.raw_os_error().unwrap_or(-1))
        },
    ),
    inside(
        "send on an inherited socket",
        Hook::SocketSendmsg,
        Descriptor,
        "send on a socket from outside",
        |outside| {
            outside.connected.send(b"secret").err().map_or(0, |error| error.raw_os_error().unwrap_or(-1))
        },
    ),
    inside(
        "sendto on an inherited socket",
        Hook::SocketSendmsg,
        Descriptor,
        "send on a socket from outside",
        |outside| {
            let sent = outside.unconnected.send_to(b"secret", "127.0.0.1:9");
            sent.err().map_or(0, |error| error.raw_os_error().unwrap_or(-1))
        },
    ),
    inside(
        "socket in a message",
        Hook::FileReceive,
        Descriptor,
        "receive a socket from outside",
        |outside| {
            call::pass(&outside.giver, outside.connected.as_raw_fd());
            call::take_errno(&outside.taker)
        },
    ),
    inside("cgroup file opened before", Hook::FilePermission, Cgroup, "cgroup.max.descendants", |outside| {
        call::write(outside.limit.as_raw_fd(), b"max")
    }),
    inside("opening cgroup.procs", Hook::InodePermission, Cgroup, "cgroup.procs", |outside| {
        call::open_write(&outside.elsewhere.path().join("cgroup.procs"))
    }),
    inside("clone3 into another cgroup", Hook::InodePermission, Cgroup, "cgroup.procs", |outside| {
        call::clone_into(outside.elsewhere_directory.as_raw_fd())
    }),
    inside("making a cgroup", Hook::InodePermission, Cgroup, "", |outside| {
        let path = outside.elsewhere.path().join("mine");
        let made = std::fs::create_dir(&path);
        let _ = std::fs::remove_dir(&path);
        made.err().map_or(0, |error| error.raw_os_error().unwrap_or(-1))
    }),
    inside("ptrace", Hook::PtraceAccessCheck, Process, "ptrace", |outside| {
        call::trace(outside.victim.as_raw())
    }),
    inside("process_vm_writev", Hook::PtraceAccessCheck, Process, "ptrace", |outside| {
        call::write_memory(outside.victim.as_raw(), SCRATCH.as_ptr())
    }),
    inside("/proc/pid/mem", Hook::PtraceAccessCheck, Process, "ptrace", |outside| {
        // The kernel says EACCES here, whoever refuses.
        let errno = call::open_write(format!("/proc/{}/mem", outside.victim).as_ref());
        if errno == libc::EACCES { libc::EPERM } else { errno }
    }),
    inside("pidfd_getfd", Hook::PtraceAccessCheck, Process, "ptrace", |outside| {
        call::take_from_process(outside.victim.as_raw(), outside.taker.as_raw_fd())
    }),
    inside("a descriptor's link", Hook::PtraceAccessCheck, Process, "ptrace", |outside| {
        let link = format!("/proc/{}/fd/{}", outside.victim, outside.limit.as_raw_fd());
        let read = std::fs::read_link(link).err().map_or(0, |error| error.raw_os_error().unwrap_or(-1));
        if read == libc::EACCES { libc::EPERM } else { read }
    }),
    inside("signal", Hook::TaskKill, Process, "kill", |outside| {
        call::errno_of(nix::sys::signal::kill(outside.victim, nix::sys::signal::Signal::SIGCONT))
    }),
    inside("bpf", Hook::Bpf, Bpf, "", |_| call::make_map()),
    inside("mount of cgroup2", Hook::SbMount, Namespace, "cgroup2", |outside| {
        call::mount("cgroup2", &outside.directory.join("mount"))
    }),
    inside("mount of bpf", Hook::SbMount, Namespace, "bpf", |outside| {
        call::mount("bpf", &outside.directory.join("mount"))
    }),
];

/// Deprecated for thirty years, and as good as ever.
const SOCK_PACKET: i32 = 10;

/// Where the other process, a copy of this one, is written to.
static SCRATCH: AtomicU8 = AtomicU8::new(0);
