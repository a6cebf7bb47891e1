//! `cgroup/setsockopt`: options that send data of their own, or lead packets elsewhere than their destination says.
//!
//! No address hook sees them, and IGMP and MLD reports are packets of the kernel's own that no hook sees at all.

use aya_ebpf::{bindings::bpf_sockopt, macros::cgroup_sockopt, programs::SockoptContext};
use egress_common::{Decision, Hook, Owner, Reason};

use crate::{
    maps,
    report::{Attempt, report},
    socket::{self, low_half},
};

const SOL_IP: u32 = 0;
const SOL_SOCKET: u32 = 1;
const SOL_TCP: u32 = 6;
const SOL_IPV6: u32 = 41;
const IPPROTO_UDP: u32 = 17;
const SO_REUSEADDR: u32 = 2;
const SO_REUSEPORT: u32 = 15;
const SO_BROADCAST: u32 = 6;

/// Values longer than this are not shown to programs, and older kernels refuse the call unless the program says that it
/// leaves the value alone.
const PAGE: i32 = 4096;

#[cgroup_sockopt(setsockopt)]
fn setsockopt(ctx: SockoptContext) -> i32 {
    let option = ctx.sockopt;
    // SAFETY: the context is the kernel's; the fields are readable words.
    let (level, name, length) =
        unsafe { ((*option).level.cast_unsigned(), (*option).optname.cast_unsigned(), (*option).optlen) };
    if !is_closed(level, name) {
        if level == SOL_SOCKET && is_udp(option) {
            limit(option, name);
        }
        if length > PAGE {
            // SAFETY: the field is writable; 0 leaves the program's own value in place.
            unsafe { (&raw mut (*option).optlen).write_volatile(0) };
        }
        return 1;
    }
    let scope = maps::scope();
    let reason = if scope.slot == 0 { Reason::NoPolicy } else { Reason::SocketOption };
    let decision = Decision::deny(reason, 0).in_mode(&scope);
    // SAFETY: the context's socket is never null.
    let tag = socket::tag(unsafe { (*option).__bindgen_anon_1.sk });
    // SAFETY: not null, and the kernel's pointer to a tag. Before 5.18 these programs cannot ask who runs.
    let owner = || if tag.is_null() { Owner::default() } else { unsafe { (*tag).owner } };
    report(&scope, Hook::Setsockopt, decision, || Attempt::of(owner(), low_half(level), low_half(name)));
    i32::from(decision.passes())
}

/// What is set on a UDP socket, and yet not in full. Audit refuses nothing.
#[inline(always)]
fn limit(option: *mut bpf_sockopt, name: u32) {
    let scope = maps::scope();
    match name {
        _ if scope.audit == 1 => {}
        SO_REUSEADDR | SO_REUSEPORT => set_nothing(option),
        SO_BROADCAST if scope.broadcast == 1 => note_broadcast(option),
        // Nothing may be sent to all: the kernel itself refuses it then. Some libraries set it on every socket.
        SO_BROADCAST => set_nothing(option),
        _ => {}
    }
}

#[inline(always)]
fn is_udp(option: *const bpf_sockopt) -> bool {
    // SAFETY: the context is the kernel's, its socket never null.
    unsafe { (*(*option).__bindgen_anon_1.sk).protocol == IPPROTO_UDP }
}

/// Has the call succeed without effect. Above all a UDP port of the scope is not to be shared with sockets of others: of
/// several, `peer` would look one up, and the kernel give the datagram to another (one that is bound to a device), or to
/// all (a broadcast).
#[inline(always)]
fn set_nothing(option: *mut bpf_sockopt) {
    // SAFETY: the value lies between both ends, which the kernel gives; it is written only where it is whole.
    unsafe {
        let value = (*option).__bindgen_anon_2.optval.cast::<u32>();
        if value.add(1).cast() <= (*option).__bindgen_anon_3.optval_end {
            value.write_volatile(0);
        }
    }
}

/// Notes that the socket may connect to broadcast addresses: see `connect`.
#[inline(always)]
fn note_broadcast(option: *const bpf_sockopt) {
    // SAFETY: the context's socket is never null.
    let tag = socket::tag_or_new(unsafe { (*option).__bindgen_anon_1.sk });
    if !tag.is_null() {
        // SAFETY: not null, and the kernel's pointer to a tag.
        unsafe { (*tag).broadcast = 1 };
    }
}

/// Numbers from the kernel's `in.h`, `in6.h`, `socket.h` and `tcp.h`.
#[inline(always)]
const fn is_closed(level: u32, name: u32) -> bool {
    // Joining a group: IP_ADD_MEMBERSHIP … IP_BLOCK_SOURCE are 35-41, MCAST_JOIN_GROUP … MCAST_MSFILTER 42-48 for both
    // families. Leaving one also sends a report, but only of what was joined.
    let group = matches!(name, 42 | 43 | 44 | 46 | 48);
    match level {
        // IP_OPTIONS, IP_FREEBIND, IP_TRANSPARENT, IP_ADD_MEMBERSHIP, IP_BLOCK_SOURCE, IP_ADD_SOURCE_MEMBERSHIP, IP_MSFILTER
        SOL_IP => group || matches!(name, 4 | 15 | 19 | 35 | 38 | 39 | 41),
        // IPV6_2292PKTOPTIONS, IPV6_ADD_MEMBERSHIP, IPV6_JOIN_ANYCAST (both report to routers), IPV6_HOPOPTS,
        // IPV6_RTHDRDSTOPTS, IPV6_RTHDR, IPV6_DSTOPTS, IPV6_TRANSPARENT, IPV6_FREEBIND
        SOL_IPV6 => group || matches!(name, 6 | 20 | 27 | 54 | 55 | 57 | 59 | 75 | 78),
        // SO_BINDTODEVICE, SO_MARK, SO_ATTACH_REUSEPORT_CBPF and _EBPF (a program of the agent's own would choose which
        // listener of a port hears what `peer` looked up), SO_BINDTOIFINDEX
        SOL_SOCKET => matches!(name, 25 | 36 | 51 | 52 | 62),
        // TCP_REPAIR: a connection without a handshake.
        SOL_TCP => name == 19,
        _ => false,
    }
}
