//! `cgroup/connect_unix`, `cgroup/sendmsg_unix` (6.7): refuses every connect and every addressed datagram on unix sockets of
//! the scope but those of the broker, which has seen whose the other end is. `cgroup/getsockname_unix` tells the broker
//! whether a socket was made in the scope.
//!
//! The library knows none of these attach types: the programs are declared as connect4, whose context they share, and the
//! loader puts the right type in.

use aya_ebpf::{
    helpers::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_pid_tgid},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use egress_common::{Address, Decision, Hook, Reason, Scope};

use crate::{
    maps,
    report::report,
    socket::{attempt, socket_of, tag_or_new, used_by_current},
};

#[cgroup_sock_addr(connect4)]
fn connect_unix(ctx: SockAddrContext) -> i32 {
    judge(&ctx)
}

#[cgroup_sock_addr(connect4)]
fn sendmsg_unix(ctx: SockAddrContext) -> i32 {
    judge(&ctx)
}

/// Runs only for sockets that were made in the scope; the mark says so to the broker, which asked.
#[cgroup_sock_addr(connect4)]
fn getsockname_unix(ctx: SockAddrContext) -> i32 {
    let scope = maps::scope();
    if is_broker(&scope) {
        let tag = tag_or_new(socket_of(&ctx));
        if !tag.is_null() {
            used_by_current(tag);
            // SAFETY: just seen not to be null.
            unsafe { (*tag).scope = scope.cgroup };
        }
    }
    1
}

#[inline(always)]
fn judge(ctx: &SockAddrContext) -> i32 {
    let scope = maps::scope();
    if scope.slot != 0 && (scope.unix_open == 1 || is_broker(&scope)) {
        return 1;
    }
    let reason = if scope.slot == 0 { Reason::NoPolicy } else { Reason::Unix };
    let decision = Decision::deny(reason, 0).in_mode(&scope);
    report(&scope, Hook::Unix, decision, || attempt(ctx, Address::ZERO, 0));
    i32::from(decision.passes())
}

/// Levels of cgroups that are looked through: systems nest them a handful deep.
const LEVELS: i32 = 16;

/// A process inside the scope is never the broker, though after the broker's death it may get its number.
#[inline(always)]
fn is_broker(scope: &Scope) -> bool {
    let tgid = bpf_get_current_pid_tgid() >> 32;
    if scope.broker == 0 || tgid != u64::from(scope.broker) {
        return false;
    }
    for level in 1..=LEVELS {
        // SAFETY: takes a number, and gives 0 where there is no such ancestor.
        if unsafe { bpf_get_current_ancestor_cgroup_id(level) } == scope.cgroup {
            return false;
        }
    }
    true
}
