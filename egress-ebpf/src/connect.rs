//! `cgroup/connect4`, `cgroup/connect6`: TCP (Fast Open too), and the peer of a datagram socket. Redirects questions.
//!
//! connect6 sees IPv4-mapped destinations as such; connect4 only those of IPv4 sockets.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use egress_common::{Address, Decision, Flow, Hook, Peer, Reason, Scope, Transport, Verdict};

use crate::{
    dns, maps,
    report::report,
    socket::{self, attempt, destination, socket_of},
};

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    connect(&ctx, false)
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    connect(&ctx, true)
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, v6: bool) -> i32 {
    let scope = maps::scope();
    // SAFETY: the context is the kernel's; `protocol` is readable.
    let protocol = unsafe { (*ctx.sock_addr).protocol };
    let (address, port) = destination(ctx, v6);
    let flow = |transport| Flow { transport, address, port, local_port: 0, peer: Peer::Remote };
    match protocol {
        6 => stream(ctx, &scope, v6, flow(Transport::Tcp)),
        17 => datagram(ctx, &scope, v6, flow(Transport::Udp)),
        // A ping socket has no port, whatever the program writes there.
        1 | 58 if scope.icmp == 1 => datagram(ctx, &scope, v6, Flow { port: 0, ..flow(Transport::Icmp) }),
        _ => other(ctx, &scope, address, port),
    }
}

#[inline(always)]
fn stream(ctx: &SockAddrContext, scope: &Scope, v6: bool, flow: Flow) -> i32 {
    if dns::redirect(ctx, scope, v6, &flow) {
        return 1;
    }
    let decision = maps::decide(ctx, scope, &flow).in_mode(scope);
    // Who is on this host may change: each packet there is judged again.
    if decision.passes() && !matches!(decision.reason, Reason::Own) {
        let tag = socket::tag_or_new(socket_of(ctx));
        if !tag.is_null() {
            socket::used_by_current(tag);
            socket::approve(tag, scope, &flow, decision, true);
        }
    }
    report(scope, Hook::Connect, decision, || attempt(ctx, flow.address, flow.port));
    i32::from(decision.passes())
}

/// A datagram connect sends nothing: getaddrinfo makes one for each candidate address only to learn its own source
/// address. So it is neither refused nor an attempt, unless the peer is many ([`is_heard_here`]); it only notes an approved
/// peer, and `packet` judges what is sent.
#[inline(always)]
fn datagram(ctx: &SockAddrContext, scope: &Scope, v6: bool, flow: Flow) -> i32 {
    if dns::redirect(ctx, scope, v6, &flow) {
        return 1;
    }
    let decision = maps::decide(ctx, scope, &flow);
    let tag = socket::tag_or_new(socket_of(ctx));
    if tag.is_null() {
        // What is corked for this peer could not be told from what a later connect approves.
        return refuse_unless_allowed(ctx, scope, &flow, decision);
    }
    socket::used_by_current(tag);
    // SAFETY: not null, as just checked.
    let broadcast = unsafe { (*tag).broadcast } == 1 && may_be_broadcast(flow.address);
    if is_heard_here(decision, broadcast) {
        return refuse_unless_allowed(ctx, scope, &flow, decision);
    }
    if decision.passes() && !matches!(decision.reason, Reason::Own) {
        socket::approve(tag, scope, &flow, decision, false);
    } else {
        socket::disapprove(tag);
    }
    1
}

/// A broadcast address of whatever network ends in a one.
#[inline(always)]
fn may_be_broadcast(address: Address) -> bool {
    address.is_v4() && u32::from_be(address.words()[3]) & 1 == 1
}

/// Whether sockets of this host would hear what is refused at `packet`: of a datagram to many the kernel gives them a copy of its
/// own first, which no hook sees. Without SO_BROADCAST no broadcast address can be connected to: see `setsockopt`.
#[inline(always)]
fn is_heard_here(decision: Decision, broadcast: bool) -> bool {
    !decision.passes() && (broadcast || matches!(decision.reason, Reason::Multicast | Reason::Broadcast))
}

#[inline(always)]
fn refuse_unless_allowed(ctx: &SockAddrContext, scope: &Scope, flow: &Flow, decision: Decision) -> i32 {
    let decision = decision.in_mode(scope);
    if !matches!(decision.verdict, Verdict::Allow) {
        report(scope, Hook::Connect, decision, || attempt(ctx, flow.address, flow.port));
    }
    i32::from(decision.passes())
}

/// Ping, MPTCP and the like: refused at `create`, so this is a socket from before the attach.
#[inline(always)]
fn other(ctx: &SockAddrContext, scope: &Scope, address: Address, port: u16) -> i32 {
    let reason = if scope.slot == 0 { Reason::NoPolicy } else { Reason::SocketType };
    let decision = Decision::deny(reason, 0).in_mode(scope);
    report(scope, Hook::Connect, decision, || attempt(ctx, address, port));
    i32::from(decision.passes())
}
