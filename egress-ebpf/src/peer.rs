//! Whose socket a flow reaches on this host: looked up as the kernel will look it up, and known by its tag.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_tuple},
    helpers::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release},
};
use egress_common::{Address, Peer, Scope, Transport};

use crate::socket;

const LOOPBACK4: Address = Address::from_v4([127, 0, 0, 1]);
const LOOPBACK6: Address = Address::from_number(1);
const ANY4: Address = Address::from_v4([0; 4]);

/// `BPF_TCP_LISTEN`
pub(crate) const LISTEN: u32 = 10;

/// An address and a port.
pub(crate) type End = (Address, u16);

/// Who has the socket that hears at `to` what is sent from `from`, in the network namespace of the program's context.
///
/// A socket is the scope's if a program of the scope saw it made, or the listener that accepted it. What is bound to a device
/// is not found by this look-up unless that is the loopback device, and the kernel may prefer it at the host's other addresses:
/// so `data` must there have a connection of its own to go to, which only the scope's own listener can have accepted.
#[inline(always)]
pub(crate) fn at(
    ctx: *mut c_void,
    scope: &Scope,
    transport: Transport,
    from: End,
    to: End,
    data: bool,
) -> Peer {
    let socket = look_up(ctx, transport, from, to);
    if socket.is_null() {
        return Peer::Nobody;
    }
    // SAFETY: not null, as just checked; the field is a readable word.
    let listens = unsafe { (*socket).state } == LISTEN && matches!(transport, Transport::Tcp);
    let own = is_own(socket, scope) && !(listens && data && !to.0.is_loopback());
    // SAFETY: the look-up took a reference.
    unsafe { bpf_sk_release(socket.cast()) };
    if own { Peer::Own } else { Peer::Foreign }
}

/// As [`at`], for what comes in: nobody there is somebody else, who has gone.
#[inline(always)]
pub(crate) fn sender(ctx: *mut c_void, scope: &Scope, transport: Transport, from: End, to: End) -> Peer {
    // The sender's socket is the one that would hear an answer.
    match at(ctx, scope, transport, to, from, false) {
        Peer::Nobody => Peer::Foreign,
        peer => peer,
    }
}

#[inline(always)]
fn is_own(socket: *mut bpf_sock, scope: &Scope) -> bool {
    let tag = socket::tag(socket);
    // SAFETY: not null, and the kernel's pointer to a tag.
    !tag.is_null() && scope.cgroup != 0 && unsafe { (*tag).scope } == scope.cgroup
}

/// The namespace of the context (`BPF_F_CURRENT_NETNS`).
const CURRENT: u64 = u64::MAX;
const IPV4_TUPLE: u32 = 12;
const IPV6_TUPLE: u32 = 36;

#[inline(always)]
fn look_up(ctx: *mut c_void, transport: Transport, from: End, to: End) -> *mut bpf_sock {
    // 0.0.0.0 and :: are the loopback addresses to the kernel too.
    let address = match to.0 {
        Address::ZERO => LOOPBACK6,
        ANY4 => LOOPBACK4,
        other => other,
    };
    let v4 = address.is_v4();
    let (near, far) = (address.words(), from.0.words());
    let ports = (u32::from(from.1.to_be()), u32::from(to.1.to_be()));
    // Two ports in one word, in memory order.
    let ports =
        if cfg!(target_endian = "little") { ports.0 | ports.1 << 16 } else { ports.0 << 16 | ports.1 };
    let mut tuple = if v4 {
        [far[3], near[3], ports, 0, 0, 0, 0, 0, 0]
    } else {
        [far[0], far[1], far[2], far[3], near[0], near[1], near[2], near[3], ports]
    };
    let tuple: *mut bpf_sock_tuple = tuple.as_mut_ptr().cast();
    // SAFETY: the tuple is as long as its family says; the context is the kernel's.
    unsafe {
        match (transport, v4) {
            (Transport::Tcp, true) => bpf_sk_lookup_tcp(ctx, tuple, IPV4_TUPLE, CURRENT, 0),
            (Transport::Tcp, false) => bpf_sk_lookup_tcp(ctx, tuple, IPV6_TUPLE, CURRENT, 0),
            (_, true) => bpf_sk_lookup_udp(ctx, tuple, IPV4_TUPLE, CURRENT, 0),
            (_, false) => bpf_sk_lookup_udp(ctx, tuple, IPV6_TUPLE, CURRENT, 0),
        }
    }
}
