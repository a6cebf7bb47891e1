//! `cgroup/sock_create`: of the internet families only TCP and UDP sockets are made.
//!
//! No address hook sees raw, ping and UDP-Lite sends, and MPTCP opens connections of the kernel's own.

use aya_ebpf::{
    EbpfContext as _, bindings::bpf_sock, helpers::bpf_get_socket_cookie, helpers::bpf_set_retval,
    macros::cgroup_sock, programs::SockContext,
};
use egress_common::{Address, Decision, Hook, Reason, Scope, Transport};

use crate::{
    dns, maps,
    report::{Attempt, current_cgroup, report},
    socket::{current, low_byte, low_half, tag_or_new, used_by_current},
};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_ICMP: u32 = 1;
const IPPROTO_ICMPV6: u32 = 58;
const EPROTONOSUPPORT: i32 = 93;

/// Set by the loader where the kernel has `bpf_set_retval` (5.18): the program then gets EPROTONOSUPPORT, on which
/// clients fall back to TCP, instead of EPERM.
#[unsafe(no_mangle)]
static SET_RETVAL: u8 = 0;

#[cgroup_sock(sock_create)]
fn create(ctx: SockContext) -> i32 {
    let sock = ctx.sock;
    // SAFETY: the context is the kernel's; the three fields are readable words.
    let (family, socket_type, protocol) = unsafe { ((*sock).family, (*sock).type_, (*sock).protocol) };
    let scope = maps::scope();
    let judged = (socket_type == SOCK_STREAM && protocol == Transport::Tcp as u32)
        || (socket_type == SOCK_DGRAM && protocol == Transport::Udp as u32);
    if judged {
        note_owner(sock, &scope);
        dns::prepare(&ctx, &scope, current);
        return 1;
    }
    // A ping socket sends echo requests, which `packet` judges; the kernel has its own say on who may make one.
    if scope.icmp == 1 && socket_type == SOCK_DGRAM && matches!(protocol, IPPROTO_ICMP | IPPROTO_ICMPV6) {
        note_owner(sock, &scope);
        return 1;
    }
    let reason = if scope.slot == 0 { Reason::NoPolicy } else { Reason::SocketType };
    let decision = Decision::deny(reason, 0).in_mode(&scope);
    let attempt = || Attempt {
        owner: current(),
        cgroup: current_cgroup(),
        // SAFETY: the context is the kernel's.
        cookie: unsafe { bpf_get_socket_cookie(ctx.as_ptr()) },
        address: Address::ZERO,
        port: 0,
        protocol: low_half(protocol),
        family: low_byte(family),
        socket_type: low_byte(socket_type),
    };
    report(&scope, Hook::Create, decision, attempt);
    if !decision.passes() && retval_is_settable() {
        // SAFETY: sets a number.
        unsafe { bpf_set_retval(-EPROTONOSUPPORT) };
    }
    i32::from(decision.passes())
}

/// Whose socket it is: which process's, for packets, which have none; which scope's, for what others of the scope send.
#[inline(always)]
fn note_owner(sock: *mut bpf_sock, scope: &Scope) {
    let tag = tag_or_new(sock);
    if !tag.is_null() {
        used_by_current(tag);
        // SAFETY: not null, and the kernel's pointer to a tag.
        unsafe { (*tag).scope = scope.cgroup };
    }
}

#[inline(always)]
fn retval_is_settable() -> bool {
    // SAFETY: a constant to the kernel, but not to the compiler: the loader writes it before the map is frozen.
    unsafe { core::ptr::read_volatile(&raw const SET_RETVAL) == 1 }
}
