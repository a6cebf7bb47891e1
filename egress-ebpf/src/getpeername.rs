//! `cgroup/getpeername4`, `cgroup/getpeername6`: the peer that a client is shown.
//!
//! getpeername6 sees IPv4-mapped peers too. Judges nothing.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::recvmsg::restore;

#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    restore(&ctx, false)
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    restore(&ctx, true)
}
