//! What is known of a socket: its tag, its peer, its user.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_get_socket_cookie,
        bpf_sk_storage_get,
    },
    programs::SockAddrContext,
};
use egress_common::{Address, Decision, Flow, Owner, Scope, Tag, Transport};

use crate::{
    maps::TAGS,
    report::{Attempt, current_cgroup},
};

pub(crate) const AF_INET6: u32 = 10;

/// The socket's tag, made if there is none. Null if the socket's option memory is used up: then nothing is approved
/// for it beyond what each packet's own destination is.
#[inline(always)]
pub(crate) fn tag_or_new(socket: *mut bpf_sock) -> *mut Tag {
    storage(socket, BPF_SK_STORAGE_GET_F_CREATE.into())
}

/// The socket's tag, or null.
#[inline(always)]
pub(crate) fn tag(socket: *mut bpf_sock) -> *mut Tag {
    storage(socket, 0)
}

#[inline(always)]
fn storage(socket: *mut bpf_sock, flags: u64) -> *mut Tag {
    let map: *mut c_void = (&raw const TAGS).cast_mut().cast();
    // SAFETY: the verifier knows the map and the socket; the value is a `Tag` by the map's definition.
    unsafe { bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), flags) }.cast()
}

/// The process that runs now.
#[inline(always)]
pub(crate) fn current() -> Owner {
    let pid_tgid = bpf_get_current_pid_tgid();
    let uid_gid = bpf_get_current_uid_gid();
    Owner {
        tgid: high(pid_tgid),
        pid: low(pid_tgid),
        uid: low(uid_gid),
        gid: high(uid_gid),
        comm: bpf_get_current_comm().unwrap_or_default(),
    }
}

/// Set by the loader where programs that sit at no socket may ask who runs (5.18 and later, step by step).
#[unsafe(no_mangle)]
static CURRENT_KNOWN: u8 = 0;

/// The process that runs now, for programs that sit at no socket; unknown on older kernels.
#[inline(always)]
pub(crate) fn current_if_known() -> Owner {
    // SAFETY: a constant to the kernel, but not to the compiler: the loader writes it before the map is frozen.
    if unsafe { core::ptr::read_volatile(&raw const CURRENT_KNOWN) } == 1 {
        current()
    } else {
        Owner::default()
    }
}

/// Notes the process that runs now as the socket's user.
#[inline(always)]
pub(crate) fn used_by_current(tag: *mut Tag) {
    // SAFETY: callers pass the non-null pointer that the kernel gave.
    let owner = unsafe { &mut (*tag).owner };
    if owner.tgid != high(bpf_get_current_pid_tgid()) {
        *owner = current();
    }
}

const fn high(pair: u64) -> u32 {
    (pair >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
pub(crate) const fn low(pair: u64) -> u32 {
    pair as u32
}

/// Notes what was decided about a connect, if it passes.
///
/// A datagram socket keeps its first peer: data corked for one peer is sent after a connect to another, so a tag
/// that moved along would approve what the first connect was not.
#[inline(always)]
pub(crate) fn approve(tag: *mut Tag, scope: &Scope, flow: &Flow, decision: Decision, reported: bool) {
    // SAFETY: callers pass the non-null pointer that the kernel gave.
    let tag = unsafe { &mut *tag };
    let same = tag.address == flow.address && tag.port == flow.port;
    if flow.transport as u8 == Transport::Udp as u8 && tag.epoch != 0 && !same {
        tag.moved = 1;
        return;
    }
    tag.address = flow.address;
    tag.port = flow.port;
    tag.rule = decision.rule;
    tag.reason = decision.reason as u8;
    tag.reported = u8::from(reported || (tag.reported == 1 && same && tag.epoch == scope.epoch));
    tag.epoch = scope.epoch;
}

/// Address and port of the socket's peer; all zero without one.
#[inline(always)]
pub(crate) fn peer(socket: *const bpf_sock) -> (Address, u16) {
    // SAFETY: the verifier knows `socket` as a full socket; the fields are in network byte order. Volatile, because the
    // compiler would make one load at an offset that depends on the family, which the kernel refuses.
    unsafe {
        let port = u16::from_be((*socket).dst_port);
        if (*socket).family == AF_INET6 {
            let words = (&raw const (*socket).dst_ip6).cast::<u32>();
            let word = |index| words.add(index).read_volatile();
            (Address::from_words([word(0), word(1), word(2), word(3)]), port)
        } else {
            (Address::from_v4_word((&raw const (*socket).dst_ip4).read_volatile()), port)
        }
    }
}

/// Notes that a datagram socket has, or sent to, a peer that was not approved.
#[inline(always)]
pub(crate) fn disapprove(tag: *mut Tag) {
    // SAFETY: callers pass the non-null pointer that the kernel gave.
    unsafe { (*tag).moved = 1 }
}

/// Whether the tag approves what `socket` sends to `destination`: its current peer is the approved one under the
/// scope's current policy. The destination may differ only because address translation has been at the packet.
#[inline(always)]
pub(crate) fn approves(tag: *const Tag, scope: &Scope, socket: *const bpf_sock) -> bool {
    // SAFETY: callers pass the non-null pointer that the kernel gave.
    let tag = unsafe { &*tag };
    let (address, port) = peer(socket);
    tag.epoch == scope.epoch && tag.moved == 0 && tag.port == port && tag.address == address
}

/// The socket that a connect or send is made on.
#[inline(always)]
pub(crate) fn socket_of(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: the context is the kernel's.
    unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }
}

/// The destination that the program asked for.
#[inline(always)]
pub(crate) fn destination(ctx: &SockAddrContext, v6: bool) -> (Address, u16) {
    let ctx = ctx.sock_addr;
    // SAFETY: the context is the kernel's, fields are in network byte order. Address words are read one by one,
    // volatile, because the kernel refuses the wider loads that the compiler would make of them.
    unsafe {
        let port = u16::from_be(low_half(core::ptr::read_volatile(&raw const (*ctx).user_port)));
        if v6 {
            let words = (&raw const (*ctx).user_ip6).cast::<u32>();
            let word = |index| core::ptr::read_volatile(words.add(index));
            (Address::from_words([word(0), word(1), word(2), word(3)]), port)
        } else {
            (Address::from_v4_word(core::ptr::read_volatile(&raw const (*ctx).user_ip4)), port)
        }
    }
}

/// Puts another destination, or sender, in place of the program's.
#[inline(always)]
pub(crate) fn set_destination(ctx: &SockAddrContext, v6: bool, address: Address, port: u16) {
    let ctx = ctx.sock_addr;
    let words = address.words();
    // SAFETY: the context is the kernel's, fields are in network byte order. Volatile, word by word, because the kernel
    // refuses other stores.
    unsafe {
        if v6 {
            let target = (&raw mut (*ctx).user_ip6).cast::<u32>();
            target.write_volatile(words[0]);
            target.add(1).write_volatile(words[1]);
            target.add(2).write_volatile(words[2]);
            target.add(3).write_volatile(words[3]);
        } else {
            (&raw mut (*ctx).user_ip4).write_volatile(words[3]);
        }
        (&raw mut (*ctx).user_port).write_volatile(u32::from(port.to_be()));
    }
}

/// Ports and protocol numbers are in the lower half of their word.
#[expect(clippy::cast_possible_truncation, reason = "the upper half of a port or protocol is zero")]
pub(crate) const fn low_half(word: u32) -> u16 {
    word as u16
}

/// An attempt of the running process on the context's socket.
#[inline(always)]
pub(crate) fn attempt(ctx: &SockAddrContext, address: Address, port: u16) -> Attempt {
    let sock_addr = ctx.sock_addr;
    // SAFETY: the context is the kernel's; the three fields are readable words.
    let (family, socket_type, protocol) =
        unsafe { ((*sock_addr).family, (*sock_addr).type_, (*sock_addr).protocol) };
    Attempt {
        owner: current(),
        cgroup: current_cgroup(),
        // SAFETY: the context is the kernel's.
        cookie: unsafe { bpf_get_socket_cookie(sock_addr.cast()) },
        address,
        port,
        protocol: low_half(protocol),
        family: low_byte(family),
        socket_type: low_byte(socket_type),
    }
}

/// Families and socket types fit a byte.
#[expect(clippy::cast_possible_truncation, reason = "the kernel's families and types are below 256")]
pub(crate) const fn low_byte(word: u32) -> u8 {
    word as u8
}
