//! `cgroup_skb/ingress`: what comes in from outside: connections that are opened to the scope's listeners, and datagrams
//! that answer nothing.
//!
//! A refusal is silent for the sender: no answer tells that somebody listens.

use aya_ebpf::{bindings::bpf_sock, macros::cgroup_skb, programs::SkBuffContext};
use egress_common::{
    Address, Decision, Flow, Hook, Peer, Reason, Scope, Tag, Transport, Verdict, decide_inbound,
};

use crate::{
    dns, maps,
    packet::{self, Packet},
    peer,
    report::{Attempt, report},
    socket,
};

#[cgroup_skb(ingress)]
fn ingress(ctx: SkBuffContext) -> i32 {
    let sock = packet::full_socket(&ctx);
    if sock.is_null() {
        return 1;
    }
    // SAFETY: not null, as just checked; the fields are readable words.
    let (protocol, state, port) = unsafe { ((*sock).protocol, (*sock).state, (*sock).src_port) };
    match protocol {
        // Only to a listener: what the scope began has a socket of its own, and so has what was accepted.
        6 if state != peer::LISTEN => 1,
        6 => {
            let (scope, packet) = (maps::scope(), packet::parse(&ctx));
            inbound(&ctx, &scope, &packet, Transport::Tcp, socket::low_half(port))
        }
        17 => datagram(&ctx, sock, socket::low_half(port)),
        // Ping sockets hear answers to their own requests only.
        1 | 58 => 1,
        _ => refuse(&ctx, &maps::scope(), &packet::parse(&ctx), 0, Decision::deny(Reason::SocketType, 0)),
    }
}

#[inline(always)]
fn datagram(ctx: &SkBuffContext, sock: *mut bpf_sock, port: u16) -> i32 {
    let scope = maps::scope();
    let packet = packet::parse(ctx);
    let tag = socket::tag(sock);
    if packet.is_plain() && scope.slot != 0 {
        let (address, from) = (packet.source, packet.local_port);
        if dns::is_listener(&scope, address, from) || answers(tag, &scope, sock, address, from) {
            return 1;
        }
        // Whoever may be sent to by rule may also send.
        let peer = if packet::on_loopback(ctx) { Peer::Foreign } else { Peer::Remote };
        let back = Flow { transport: Transport::Udp, address, port: from, local_port: 0, peer };
        if maps::decide_packet(&scope, &back).passes() {
            return 1;
        }
    }
    inbound(ctx, &scope, &packet, Transport::Udp, port)
}

/// Whether a datagram's sender is the last one that was sent to, or the approved peer.
#[inline(always)]
fn answers(tag: *const Tag, scope: &Scope, sock: *const bpf_sock, address: Address, port: u16) -> bool {
    if tag.is_null() {
        return false;
    }
    let approved = socket::approves(tag, scope, sock) && socket::peer(sock) == (address, port);
    // SAFETY: not null, and the kernel's pointer to a tag.
    let tag = unsafe { &*tag };
    approved || (tag.sent_epoch == scope.epoch && tag.sent_port == port && tag.sent_address == address)
}

/// Judges what is no answer. To whoever sends a datagram that is let in answers may go then.
#[inline(always)]
fn inbound(ctx: &SkBuffContext, scope: &Scope, packet: &Packet, transport: Transport, port: u16) -> i32 {
    let peer = if packet.is_plain() && packet::on_loopback(ctx) {
        let (from, to) = packet.ends();
        peer::sender(ctx.skb.skb.cast(), scope, transport, from, to)
    } else {
        Peer::Foreign
    };
    let decision = decide_inbound(&maps::Maps::known(), scope, transport, port, peer);
    if decision.passes() {
        let datagram = matches!(transport, Transport::Udp);
        if matches!(decision.reason, Reason::Inbound) && packet.is_plain() && datagram {
            maps::admit(ctx, scope, packet.source, packet.local_port);
        }
        return 1;
    }
    refuse(ctx, scope, packet, port, decision)
}

#[inline(always)]
fn refuse(ctx: &SkBuffContext, scope: &Scope, packet: &Packet, port: u16, decision: Decision) -> i32 {
    let decision = decision.in_mode(scope);
    if !matches!(decision.verdict, Verdict::Allow) {
        report(scope, Hook::Ingress, decision, || Attempt {
            address: packet.source,
            port,
            ..packet::attempt(ctx, packet, core::ptr::null())
        });
    }
    i32::from(decision.passes())
}
