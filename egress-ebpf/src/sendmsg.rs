//! `cgroup/sendmsg4`, `cgroup/sendmsg6`: datagrams that carry an address of their own. Redirects questions.
//!
//! sendmsg4 sees IPv4-mapped destinations of IPv6 sockets too.

use aya_ebpf::{helpers::bpf_get_socket_cookie, macros::cgroup_sock_addr, programs::SockAddrContext};
use egress_common::{Address, Decision, Flow, Hook, Peer, Reason, Scope, Tag, Transport, Verdict};

use crate::{
    dns, maps,
    report::{count, report},
    socket::{self, attempt, destination, socket_of},
};

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    sendmsg(&ctx, false)
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    sendmsg(&ctx, true)
}

#[inline(always)]
fn sendmsg(ctx: &SockAddrContext, v6: bool) -> i32 {
    let (address, port) = destination(ctx, v6);
    if port == 0 {
        // A connected socket that sends with control messages comes here without an address: the datagram goes to
        // its peer, and `packet` sees that. (With an address of its own the kernel refuses port 0 beforehand.)
        return 1;
    }
    let scope = maps::scope();
    let flow = Flow { transport: Transport::Udp, address, port, local_port: 0, peer: Peer::Remote };
    // The kernel has chosen the device of a link-local address by now, and from there it is not loopback that is reached.
    let redirected = !is_link_local(address) && dns::redirect(ctx, &scope, v6, &flow);
    if redirected || dns::is_redirected(socket_of(ctx), &scope, &flow) {
        return 1;
    }
    let mut decision = maps::decide(ctx, &scope, &flow).in_mode(&scope);
    // SAFETY: the context is the kernel's.
    let cookie = || unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) };
    if !matches!(decision.verdict, Verdict::Allow) && maps::is_admitted(cookie(), &scope, &flow) {
        decision = Decision::allow(Reason::Inbound, 0);
    }
    let tag = socket::tag_or_new(socket_of(ctx));
    let mut repeated = false;
    if !tag.is_null() {
        socket::used_by_current(tag);
        if decision.passes() {
            repeated = note_sent(tag, &scope, &flow);
            if matches!(decision.reason, Reason::Own) {
                // SAFETY: not null, and the kernel's pointer to a tag.
                unsafe { (*tag).reported = 1 };
            }
        } else {
            // Another program may undo the denial: the datagram must not then pass as the peer's.
            socket::disapprove(tag);
        }
    }
    if repeated && matches!(decision.verdict, Verdict::Allow) {
        count(Hook::Sendmsg, decision);
    } else {
        report(&scope, Hook::Sendmsg, decision, || attempt(ctx, address, port));
    }
    i32::from(decision.passes())
}

/// fe80::/10.
#[inline(always)]
fn is_link_local(address: Address) -> bool {
    let first = u32::from_be(address.words()[0]);
    first >> 22 == 0xfe80 >> 6
}

/// Notes where a datagram goes; true if the one before it went there too.
#[inline(always)]
fn note_sent(tag: *mut Tag, scope: &Scope, flow: &Flow) -> bool {
    // SAFETY: the caller passes the non-null pointer that the kernel gave.
    let tag = unsafe { &mut *tag };
    if tag.epoch != 0 && (tag.address != flow.address || tag.port != flow.port) {
        // As with a second connect: what is corked for this address must not pass as the peer's.
        tag.moved = 1;
    } else if tag.epoch == scope.epoch {
        // The peer itself, as every send on a connected IPv6 socket to a mapped peer: `packet` need not tell it again.
        tag.reported = 1;
    }
    let same =
        tag.sent_address == flow.address && tag.sent_port == flow.port && tag.sent_epoch == scope.epoch;
    tag.sent_address = flow.address;
    tag.sent_port = flow.port;
    tag.sent_epoch = scope.epoch;
    same
}
