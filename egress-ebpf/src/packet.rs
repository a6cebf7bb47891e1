//! `cgroup_skb/egress`: the boundary. Sees every IP packet of the scope's sockets, after NAT, before fragmentation and
//! segmentation; a denial here cannot be undone by another program.
//!
//! Passes *plain* packets only: with options, extension headers or fragment bits a packet goes elsewhere than its
//! destination field says, or hides its ports. A parser that refuses them cannot be talked round.

use core::arch::asm;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::{bpf_get_socket_cookie, bpf_sk_fullsock, bpf_skb_cgroup_id},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use egress_common::{
    Address, Decision, Flow, Hook, Owner, Peer, Reason, Scope, Tag, Transport, Verdict, question::DNS,
};

use crate::{
    dns, maps, peer,
    report::{Attempt, report},
    socket,
};

/// As the context has it: big endian.
const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Where an IPv6 header says what follows it.
const IPV6_NEXT: usize = 6;
/// Source and destination port are the first four bytes of TCP and UDP.
const PORTS: usize = 4;
/// Where a TCP header has its flags, and two of them.
const TCP_FLAGS: usize = 13;
/// Where a TCP header has its own length, in words, in the upper half of the byte.
const TCP_WORDS: usize = 12;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Protocols, as a header has them.
const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
/// Type and length of the option with a packet's length.
const JUMBO_OPTION: [u8; 2] = [0xc2, 4];
/// Index of the loopback device in every network namespace (`LOOPBACK_IFINDEX` of the kernel).
const LOOPBACK_DEVICE: u32 = 1;
/// Types of ICMP and ICMPv6, the first byte of either.
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST6: u8 = 128;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What the headers say. Every field has a value in every packet: of one that was never set older kernels' verifiers see that
/// the compiler leaves whatever the register held.
pub(crate) struct Packet {
    pub(crate) address: Address,
    pub(crate) source: Address,
    protocol: u8,
    transport: Transport,
    port: u16,
    pub(crate) local_port: u16,
    /// The [`Reason`] as a byte where the packet is refused whatever the policy says; else 0.
    refused: u8,
}

impl Packet {
    /// Whether its ports and transport mean something.
    #[inline(always)]
    pub(crate) const fn is_plain(&self) -> bool {
        self.refused == 0
    }

    #[inline(always)]
    pub(crate) const fn flow(&self) -> Flow {
        Flow {
            transport: self.transport,
            address: self.address,
            port: self.port,
            local_port: self.local_port,
            peer: Peer::Remote,
        }
    }

    /// Where it comes from and where it goes.
    #[inline(always)]
    pub(crate) const fn ends(&self) -> (peer::End, peer::End) {
        ((self.source, self.local_port), (self.address, self.port))
    }
}

#[cgroup_skb(egress)]
fn packet(ctx: SkBuffContext) -> i32 {
    let scope = maps::scope();
    let packet = parse(&ctx);
    let sock = full_socket(&ctx);
    let tag = if sock.is_null() { core::ptr::null_mut() } else { socket::tag(sock) };
    if !packet.is_plain() {
        let reason =
            if packet.refused == Reason::NotPlain as u8 { Reason::NotPlain } else { Reason::Transport };
        return refuse(&ctx, &scope, &packet, tag, reason);
    }
    let flow = packet.flow();
    match dns::question(&ctx, &scope, &flow, packet.source, sock, tag) {
        dns::Question::No => {}
        dns::Question::Known(verdict) => return verdict,
        dns::Question::Closed(server) => return refuse_question(&ctx, &scope, &packet, tag, server),
    }
    let local = on_loopback(&ctx);
    let approved = scope.slot != 0 && !tag.is_null() && socket::approves(tag, &scope, sock);
    if approved && !(local && by_rule(tag, &flow)) {
        return pass(&ctx, &scope, &packet, tag);
    }
    let peer = if local {
        let (from, to) = packet.ends();
        let data = carries_data(&ctx, &flow);
        peer::at(ctx.skb.skb.cast(), &scope, flow.transport, from, to, data)
    } else {
        Peer::Remote
    };
    let peer = match forget(&ctx, peer as u32) {
        0 => Peer::Remote,
        1 => Peer::Own,
        3 => Peer::Nobody,
        _ => Peer::Foreign,
    };
    let local_port = if answers(&ctx, &flow) { flow.local_port } else { 0 };
    // The end of a connection, to an own socket that waits for nothing more: no look-up shows those.
    let ends = local_port != 0 && matches!(peer, Peer::Nobody) && !carries_data(&ctx, &flow);
    let peer = if ends { Peer::Own } else { peer };
    let flow = Flow { local_port, peer, ..flow };
    let decision = settle(&ctx, maps::decide_packet(&scope, &flow)).in_mode(&scope);
    if matches!(decision.verdict, Verdict::Allow) {
        tell_once(&ctx, &scope, &packet, tag, &flow, decision);
        return 1;
    }
    // SAFETY: the context is the kernel's.
    if maps::is_admitted(unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) }, &scope, &flow) {
        return 1;
    }
    report(&scope, Hook::Packet, decision, || attempt(&ctx, &packet, tag));
    i32::from(decision.passes())
}

/// The packet's socket if it is one with state, peer and storage; null otherwise.
#[inline(always)]
pub(crate) fn full_socket(ctx: &SkBuffContext) -> *mut bpf_sock {
    // SAFETY: the verifier knows both pointers.
    unsafe {
        let sock = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if sock.is_null() { sock } else { bpf_sk_fullsock(sock) }
    }
}

/// Whether the packet goes through the loopback device: between two sockets of this host.
#[inline(always)]
pub(crate) fn on_loopback(ctx: &SkBuffContext) -> bool {
    // SAFETY: the context is the kernel's.
    unsafe { (*ctx.skb.skb).ifindex == LOOPBACK_DEVICE }
}

/// The same number, which the verifier no longer knows: else it would walk what follows once for each way that led here.
#[inline(always)]
fn forget(ctx: &SkBuffContext, mut number: u32) -> u32 {
    // SAFETY: the context is the kernel's; the scratch words are the program's own while it runs. In assembly, because older
    // kernels want the offset in the access itself.
    unsafe {
        asm!(
            "*(u32 *)({ctx} + {at}) = {number}",
            "{number} = *(u32 *)({ctx} + {at})",
            ctx = in(reg) ctx.skb.skb,
            at = const core::mem::offset_of!(__sk_buff, cb),
            number = inout(reg) number,
        );
    }
    number
}

/// The same decision, of which the verifier no longer knows the grounds.
#[inline(always)]
fn settle(ctx: &SkBuffContext, decision: Decision) -> Decision {
    let verdict = if decision.passes() { Verdict::Allow } else { Verdict::Deny };
    let reason = forget(ctx, decision.reason as u32);
    // SAFETY: the byte of a reason, as it was written.
    let reason = unsafe { core::mem::transmute::<u8, Reason>(socket::low_byte(reason)) };
    Decision { verdict, reason, rule: decision.rule }
}

/// Whether an approval is by a rule that is to be asked again, since what leaves through the loopback device reaches this
/// host under whatever address: a wide rule does not speak of it. Not so where address translation led here.
#[inline(always)]
fn by_rule(tag: *const Tag, flow: &Flow) -> bool {
    // SAFETY: the caller checked for null.
    let tag = unsafe { &*tag };
    tag.reason == Reason::Rule as u8 && tag.address == flow.address
}

/// Tells of an allowed flow that no other hook told of: echo requests, and the first packet of a connected datagram
/// socket to one of the same scope.
#[inline(always)]
fn tell_once(
    ctx: &SkBuffContext,
    scope: &Scope,
    packet: &Packet,
    tag: *mut Tag,
    flow: &Flow,
    decision: Decision,
) {
    let told = match flow.transport {
        Transport::Tcp => true,
        Transport::Icmp => false,
        Transport::Udp if tag.is_null() || !matches!(decision.reason, Reason::Own) => true,
        Transport::Udp => {
            // SAFETY: not null, and the kernel's pointer to a tag.
            let reported = unsafe { &mut (*tag).reported };
            core::mem::replace(reported, 1) == 1
        }
    };
    if !told {
        report(scope, Hook::Packet, decision, || attempt(ctx, packet, tag));
    }
}

/// Whether a TCP packet carries more than a header; others always do.
#[inline(always)]
fn carries_data(ctx: &SkBuffContext, flow: &Flow) -> bool {
    if !matches!(flow.transport, Transport::Tcp) {
        return true;
    }
    let (header, words) = if is_v4(ctx) {
        let bytes = headers::<[u8; IPV4_HEADER + TCP_WORDS + 1]>(ctx);
        (IPV4_HEADER, bytes.map(|bytes| bytes[IPV4_HEADER + TCP_WORDS] >> 4))
    } else {
        let bytes = headers::<[u8; IPV6_HEADER + TCP_WORDS + 1]>(ctx);
        (IPV6_HEADER, bytes.map(|bytes| bytes[IPV6_HEADER + TCP_WORDS] >> 4))
    };
    // SAFETY: the context is the kernel's.
    let length = unsafe { (*ctx.skb.skb).len } as usize;
    words.is_none_or(|words| length > header + usize::from(words) * 4)
}

/// Whether a packet can be a listener's answer, which its source port may open: one of a TCP connection, and not the one
/// that opens it. Anything else would let whoever binds a listed port reach every port of the host from it.
#[inline(always)]
pub(crate) fn answers(ctx: &SkBuffContext, flow: &Flow) -> bool {
    if !matches!(flow.transport, Transport::Tcp) {
        return false;
    }
    let flags = if is_v4(ctx) {
        headers::<[u8; IPV4_HEADER + TCP_FLAGS + 1]>(ctx).map(|header| header[IPV4_HEADER + TCP_FLAGS])
    } else {
        // What is longer than the header can say carries data: it opens nothing.
        headers::<[u8; IPV6_HEADER + TCP_FLAGS + 1]>(ctx)
            .map(|header| if header[IPV6_NEXT] == HOP_BY_HOP { ACK } else { header[IPV6_HEADER + TCP_FLAGS] })
    };
    flags.is_some_and(|flags| flags & (SYN | ACK) != SYN)
}

/// Passes a packet of an approved flow; the first one of a datagram flow is the attempt that is told.
#[inline(always)]
fn pass(ctx: &SkBuffContext, scope: &Scope, packet: &Packet, tag: *mut Tag) -> i32 {
    // SAFETY: the caller checked for null.
    let known = unsafe { &mut *tag };
    if known.reported == 0 {
        known.reported = 1;
        let reason = if known.reason == Reason::Permit as u8 { Reason::Permit } else { Reason::Rule };
        // The approved peer, which address translation may have made another one of in the packet.
        let attempt = || Attempt { address: known.address, port: known.port, ..attempt(ctx, packet, tag) };
        report(scope, Hook::Packet, Decision::allow(reason, known.rule), attempt);
    }
    1
}

/// Refuses a question whose listener is gone.
#[inline(always)]
fn refuse_question(
    ctx: &SkBuffContext,
    scope: &Scope,
    packet: &Packet,
    tag: *const Tag,
    server: Address,
) -> i32 {
    let decision = Decision::deny(Reason::Dns, 0).in_mode(scope);
    let attempt = || Attempt { address: server, port: DNS, ..attempt(ctx, packet, tag) };
    report(scope, Hook::Packet, decision, attempt);
    i32::from(decision.passes())
}

/// Refuses a packet that no rule can open.
#[inline(always)]
fn refuse(ctx: &SkBuffContext, scope: &Scope, packet: &Packet, tag: *const Tag, reason: Reason) -> i32 {
    let reason = if scope.slot == 0 { Reason::NoPolicy } else { reason };
    let decision = Decision::deny(reason, 0).in_mode(scope);
    report(scope, Hook::Packet, decision, || attempt(ctx, packet, tag));
    i32::from(decision.passes())
}

#[inline(always)]
pub(crate) fn parse(ctx: &SkBuffContext) -> Packet {
    if is_v4(ctx) { parse_v4(ctx) } else { parse_v6(ctx) }
}

#[inline(always)]
fn is_v4(ctx: &SkBuffContext) -> bool {
    ctx.skb.protocol() == ETH_P_IP
}

/// The first bytes of the packet, from the network header on. Headers always lie in the linear part here; if they ever
/// did not, the packet would be refused.
#[inline(always)]
fn headers<T>(ctx: &SkBuffContext) -> Option<&T> {
    // SAFETY: the context is the kernel's. The bytes up to `data_end` are readable while the program runs, and `T` is plain
    // data. Where the machine needs aligned access the verifier refuses the program.
    unsafe {
        let (data, end) = ((*ctx.skb.skb).data as usize, (*ctx.skb.skb).data_end as usize);
        if data + size_of::<T>() > end { None } else { Some(&*(data as *const T)) }
    }
}

/// The beginning of TCP and UDP alike, big endian.
#[derive(Clone, Copy)]
#[repr(C)]
struct Ports {
    source: u16,
    destination: u16,
}

impl Ports {
    #[inline(always)]
    fn from_word(word: u32) -> Self {
        let [a, b, c, d] = word.to_ne_bytes();
        Self { source: u16::from_ne_bytes([a, b]), destination: u16::from_ne_bytes([c, d]) }
    }
}

/// RFC 791, without options. Integers are big endian.
#[repr(C)]
struct Ipv4 {
    version_and_length: u8,
    service: u8,
    length: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
    ports: Ports,
}

/// RFC 8200. Integers are big endian.
#[repr(C)]
struct Ipv6 {
    version: u8,
    label: [u8; 3],
    length: u16,
    next_header: u8,
    hop_limit: u8,
    source: [u32; 4],
    destination: [u32; 4],
    ports: Ports,
}

/// RFC 2675, as the kernel writes it before a TCP packet of more than 65,535 bytes: what is not yet cut into segments, and on
/// the loopback device never is. A program's own header of this kind comes with a payload length, and its text would have
/// to be the packet's length. Integers are big endian.
#[repr(C)]
struct Jumbo {
    next_header: u8,
    words: u8,
    option: [u8; 2],
    length: u32,
    ports: u32,
}

/// RFC 8200 with such a header behind it.
#[repr(C)]
struct Ipv6Jumbo {
    header: [u8; IPV6_HEADER],
    jumbo: Jumbo,
}

const _: () = assert!(size_of::<Ipv4>() == IPV4_HEADER + PORTS && size_of::<Ipv6>() == IPV6_HEADER + PORTS);

/// ::1, big endian.
const LOOPBACK6: [u32; 4] = [0, 0, 0, 1_u32.to_be()];

/// Whether a packet for this host leaves through a device of the program's choice (IP_PKTINFO, SO_BINDTODEVICE …): it would
/// be on the wire, for whoever is next to read.
#[inline(always)]
fn strays(ctx: &SkBuffContext, local: bool) -> bool {
    // Without a branch: the verifier would follow both ways.
    local & !on_loopback(ctx)
}

/// Of the fragment field only this bit, "don't fragment", may be set.
const DONT_FRAGMENT: u16 = 0x4000_u16.to_be();

#[inline(always)]
fn parse_v4(ctx: &SkBuffContext) -> Packet {
    let Some(header) = headers::<Ipv4>(ctx) else {
        return unreadable();
    };
    let local = header.destination.to_ne_bytes()[0] == 127;
    // Version 4, five words: no options.
    let plain =
        header.version_and_length == 0x45 && header.fragment & !DONT_FRAGMENT == 0 && !strays(ctx, local);
    let (source, address) = (Address::from_v4_word(header.source), Address::from_v4_word(header.destination));
    packet_to(source, address, header.protocol, plain, &header.ports)
}

#[inline(always)]
fn parse_v6(ctx: &SkBuffContext) -> Packet {
    let Some(header) = headers::<Ipv6>(ctx) else {
        return unreadable();
    };
    let (source, address) = (Address::from_words(header.source), Address::from_words(header.destination));
    let local = header.destination == LOOPBACK6;
    let protocol = header.next_header;
    let jumbo = if protocol == HOP_BY_HOP && header.length == 0 { jumbo_ports(ctx) } else { 0 };
    let (protocol, ports) =
        if jumbo == 0 { (protocol, header.ports) } else { (TCP, Ports::from_word(jumbo)) };
    // Hop-by-hop, routing, fragment, ESP, AH, destination options, mobility, HIP, shim6.
    let extended = matches!(protocol, 0 | 43 | 44 | 50 | 51 | 60 | 135 | 139 | 140);
    let plain = header.version >> 4 == 6 && !extended && !strays(ctx, local);
    packet_to(source, address, protocol, plain, &ports)
}

/// The ports of a TCP packet that is longer than an IPv6 header can say, as they are in memory; 0 for anything else.
#[inline(always)]
fn jumbo_ports(ctx: &SkBuffContext) -> u32 {
    let Some(packet) = headers::<Ipv6Jumbo>(ctx) else {
        return 0;
    };
    let jumbo = &packet.jumbo;
    let whole = u32::from_be(jumbo.length) as usize + IPV6_HEADER == ctx.skb.len() as usize;
    let known = jumbo.next_header == TCP && jumbo.words == 0 && jumbo.option == JUMBO_OPTION;
    if whole && known { forget(ctx, jumbo.ports) } else { 0 }
}

#[inline(always)]
fn packet_to(source: Address, address: Address, protocol: u8, plain: bool, ports: &Ports) -> Packet {
    let (port, local_port) = (u16::from_be(ports.destination), u16::from_be(ports.source));
    let packet = |transport, port, local_port, refused| Packet {
        address,
        source,
        protocol,
        transport,
        port,
        local_port,
        refused,
    };
    // Of ICMP echo requests only: nothing else has an honest sender here. Its first byte is the type.
    let echo = matches!(ports.source.to_ne_bytes()[0], ECHO_REQUEST | ECHO_REQUEST6);
    if !plain {
        return packet(Transport::Tcp, 0, 0, Reason::NotPlain as u8);
    }
    match Transport::from_protocol(protocol) {
        Some(Transport::Tcp) => packet(Transport::Tcp, port, local_port, 0),
        Some(Transport::Udp) => packet(Transport::Udp, port, local_port, 0),
        Some(Transport::Icmp) if echo => packet(Transport::Icmp, 0, 0, 0),
        _ => packet(Transport::Tcp, 0, 0, Reason::Transport as u8),
    }
}

#[inline(always)]
fn unreadable() -> Packet {
    let ports = Ports { source: 0, destination: 0 };
    packet_to(Address::ZERO, Address::ZERO, 0, false, &ports)
}

#[inline(always)]
pub(crate) fn attempt(ctx: &SkBuffContext, packet: &Packet, tag: *const Tag) -> Attempt {
    // SAFETY: not null, and the kernel's pointer to a tag.
    let owner = if tag.is_null() { Owner::default() } else { unsafe { (*tag).owner } };
    Attempt {
        owner,
        // SAFETY: the context is the kernel's.
        cgroup: unsafe { bpf_skb_cgroup_id(ctx.skb.skb) },
        // SAFETY: the context is the kernel's.
        cookie: unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) },
        address: packet.address,
        port: packet.port,
        protocol: u16::from(packet.protocol),
        family: if packet.address.is_v4() { AF_INET } else { AF_INET6 },
        socket_type: 0,
    }
}
