//! `socket_create`, `socket_connect`, `socket_sendmsg`: families that lead out past IP, and network sockets that no hook of
//! the scope's cgroup sees, since they were made outside it.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use egress_common::{Reason, lsm::State};

use super::{
    About, current_inside, fact, is_lifted,
    kernel::{Pointer, follow, read, sock_inside},
    refuse,
};

const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_NETLINK: u32 = 16;

/// Route, socket diagnosis, audit, uevent and generic: what ordinary programs ask the kernel by.
const NETLINK_PROTOCOLS: u64 = 1 | 1 << 4 | 1 << 9 | 1 << 15 | 1 << 16;

#[lsm(hook = "socket_create")]
fn lsm_create(ctx: LsmContext) -> i32 {
    if !current_inside() {
        return 0;
    }
    let (family, protocol, by_kernel): (u32, u32, u32) = (ctx.arg(0), ctx.arg(2), ctx.arg(3));
    let passes = match family {
        AF_UNIX | AF_INET | AF_INET6 => true,
        AF_NETLINK if protocol < 64 && NETLINK_PROTOCOLS >> protocol & 1 == 1 => true,
        AF_NETLINK => is_lifted(State::NETLINK),
        _ => is_lifted(State::FAMILIES),
    };
    if passes || by_kernel != 0 {
        return 0;
    }
    refuse(About::word(Reason::Family, family, b""))
}

#[lsm(hook = "socket_connect")]
fn lsm_connect(ctx: LsmContext) -> i32 {
    if current_inside() { judge(ctx.arg(0), b"connect a socket from outside") } else { 0 }
}

#[lsm(hook = "socket_sendmsg")]
fn lsm_sendmsg(ctx: LsmContext) -> i32 {
    if current_inside() { judge(ctx.arg(0), b"send on a socket from outside") } else { 0 }
}

/// Refuses a `struct socket` that was made outside.
#[inline(always)]
pub(super) fn judge(socket: Pointer, word: &'static [u8]) -> i32 {
    match foreign(socket) {
        0 => 0,
        family => refuse(About::word(Reason::Descriptor, family, word)),
    }
}

/// The family of a network socket that was made outside the scope; 0 for others, and for those that the kernel keeps for
/// itself (a network file system's), which have no file.
#[inline(always)]
fn foreign(socket: Pointer) -> u32 {
    let sock = follow(socket, fact!(offsets.socket_sk));
    if sock.is_null() || follow(socket, fact!(offsets.socket_file)).is_null() {
        return 0;
    }
    let family = u32::from(read::<u16>(sock, fact!(offsets.sock_family)));
    if family == AF_UNIX || family == AF_NETLINK || sock_inside(sock) {
        return 0;
    }
    family
}
