//! `cgroup/recvmsg4`, `cgroup/recvmsg6`: the sender that a client is shown. Resolvers that are asked without connecting (musl,
//! c-ares) take an answer only from the server that they asked.
//!
//! recvmsg6 sees IPv4-mapped senders too. Judges nothing.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use egress_common::question::DNS;

use crate::{
    dns, maps,
    socket::{destination, set_destination, socket_of},
};

#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    restore(&ctx, false)
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    restore(&ctx, true)
}

/// Puts the server in place of the listener. Whatever comes of it, the program passes: the kernel allows nothing else here.
#[inline(always)]
pub(crate) fn restore(ctx: &SockAddrContext, v6: bool) -> i32 {
    let scope = maps::scope();
    let (address, port) = destination(ctx, v6);
    if let Some(server) = dns::server_behind(socket_of(ctx), &scope, address, port) {
        set_destination(ctx, v6, server, DNS);
    }
    1
}
