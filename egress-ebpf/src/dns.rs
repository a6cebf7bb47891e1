//! Where names are asked: every question to port 53 goes to the scope's own listener in the client's network namespace.
//!
//! `connect` and `sendmsg` rewrite the destination and note the server that the client believes to ask; `recvmsg` and
//! `getpeername` put it back; `packet` lets exactly the listener be reached, and tells it who asks.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::{
        bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_sk_storage_get, bpf_skb_cgroup_id,
        bpf_skb_load_bytes,
    },
    programs::{SkBuffContext, SockAddrContext, SockContext},
};
use egress_common::{
    Address, Arrival, Asker, AskerKey, Flow, Listener, ListenerKey, Owner, Scope, Servers, Tag, Transport,
    question::{DNS, PAYLOAD, PORTS},
};

use crate::{
    maps::{self, ARRIVALS, ASKERS, LISTENERS, SERVERS},
    socket::{self, set_destination, socket_of},
};

const LOOPBACK4: Address = Address::from_v4([127, 0, 0, 1]);
const LOOPBACK6: Address = Address::from_number(1);

/// Returned by the packet hook: drops the packet without an error that a datagram's sender would see, as a full queue
/// would. A TCP connection tries again after a second.
const DROP_SILENTLY: i32 = 2;

/// Redirects a connect or send to port 53. False where that cannot be: the caller judges it as any other then, and the
/// policy refuses the port.
#[inline(always)]
pub(crate) fn redirect(ctx: &SockAddrContext, scope: &Scope, v6: bool, flow: &Flow) -> bool {
    if flow.port != DNS || scope.slot == 0 || scope.dns_port == 0 {
        return false;
    }
    let socket = socket_of(ctx);
    // SAFETY: the context's socket is never null; the field is readable. What is bound to a device cannot reach loopback.
    if unsafe { (*socket).bound_dev_if } != 0 {
        return false;
    }
    // SAFETY: the context is the kernel's.
    let netns = unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) };
    let state = listening(scope, netns);
    if matches!(state, Listening::No) {
        return false;
    }
    let (servers, tag) = (servers_or_new(socket), socket::tag_or_new(socket));
    if servers.is_null() || tag.is_null() {
        return false;
    }
    socket::used_by_current(tag);
    // SAFETY: not null, as just checked.
    let servers = unsafe { &mut *servers };
    servers.netns = netns;
    servers.epoch = scope.epoch;
    let index = match flow.transport {
        Transport::Tcp => {
            servers.servers[0] = flow.address;
            0
        }
        Transport::Udp => place(servers, flow.address),
        // Never at port 53.
        Transport::Icmp => 0,
    };
    if matches!(state, Listening::Unknown) {
        // Where loopback is down there will be no packet to tell of it.
        let key = AskerKey { listener: scope.dns_port + index, netns, ..AskerKey::default() };
        let asker = Asker { owner: socket::current(), server: flow.address, ..Asker::default() };
        arrive(scope, &key, &asker, None);
    }
    let listener = match (v6, flow.address.is_v4()) {
        (true, false) => LOOPBACK6,
        _ => LOOPBACK4,
    };
    set_destination(ctx, v6, listener, scope.dns_port + index);
    true
}

/// The place of a server among those of a socket: its own, else the next free one, else the oldest one's.
#[inline(always)]
fn place(servers: &mut Servers, server: Address) -> u16 {
    for index in 0..PORTS {
        if servers.servers[usize::from(index)] == server {
            return index;
        }
    }
    let index = servers.next & (u32::from(PORTS) - 1);
    servers.next += 1;
    servers.servers[index as usize] = server;
    socket::low_half(index)
}

/// The server behind an address that a client is about to be shown, if it is the listener's.
#[inline(always)]
pub(crate) fn server_behind(
    socket: *mut bpf_sock,
    scope: &Scope,
    address: Address,
    port: u16,
) -> Option<Address> {
    let index = index_of(scope, address, port)?;
    let servers = servers(socket);
    if servers.is_null() {
        return None;
    }
    // SAFETY: not null, as just checked; the index is below the number of ports.
    let server = unsafe { server_at(servers, index) };
    if server == Address::ZERO { None } else { Some(server) }
}

/// # Safety
/// The pointer is the kernel's, the index below the number of ports. Unchecked, because a check could panic.
#[inline(always)]
unsafe fn server_at(servers: *const Servers, index: usize) -> Address {
    // SAFETY: the caller's.
    unsafe { *(&raw const (*servers).servers).cast::<Address>().add(index) }
}

/// Whether an address is one that the scope's listener answers from.
#[inline(always)]
pub(crate) fn is_listener(scope: &Scope, address: Address, port: u16) -> bool {
    index_of(scope, address, port).is_some()
}

/// Which of the listener's ports this is, if it is one.
#[inline(always)]
fn index_of(scope: &Scope, address: Address, port: u16) -> Option<usize> {
    let index = usize::from(port.wrapping_sub(scope.dns_port));
    let local = address == LOOPBACK4 || address == LOOPBACK6;
    if scope.dns_port != 0 && index < PORTS as usize && local { Some(bounded(index)) } else { None }
}

/// The same index, in a form that the verifier sees the bound of: the compiler would drop the mask as needless.
#[inline(always)]
fn bounded(mut index: usize) -> usize {
    const { assert!(PORTS == 8) };
    // SAFETY: changes one register, and not its value.
    unsafe { asm!("{index} &= 7", index = inout(reg) index) };
    index
}

/// Whether a send goes to the listener because this socket's connect was redirected there.
#[inline(always)]
pub(crate) fn is_redirected(socket: *mut bpf_sock, scope: &Scope, flow: &Flow) -> bool {
    server_behind(socket, scope, flow.address, flow.port).is_some()
}

/// What a packet is to the listener.
pub(crate) enum Question {
    /// Not for it, or of a socket that was not redirected.
    No,
    /// To be passed or dropped: the packet hook's return value.
    Known(i32),
    /// For a listener that is not there; to this server, as the client has it.
    Closed(Address),
}

/// Judges a packet to the listener, and tells the listener who asks.
#[inline(always)]
pub(crate) fn question(
    ctx: &SkBuffContext,
    scope: &Scope,
    flow: &Flow,
    source: Address,
    socket: *mut bpf_sock,
    tag: *const Tag,
) -> Question {
    let Some(index) = index_of(scope, flow.address, flow.port) else { return Question::No };
    if socket.is_null() || tag.is_null() || scope.slot == 0 {
        return Question::No;
    }
    let servers = servers(socket);
    if servers.is_null() {
        return Question::No;
    }
    // SAFETY: not null, as just checked; the index is below the number of ports.
    let (netns, epoch, server) = unsafe { ((*servers).netns, (*servers).epoch, server_at(servers, index)) };
    if epoch != scope.epoch || server == Address::ZERO {
        return Question::No;
    }
    let state = listening(scope, netns);
    // An IPv6 source can be anybody's (IPV6_FREEBIND), and the listener, which nothing confines, would answer there.
    let foreign = !source.is_v4() && source != LOOPBACK6;
    if foreign || matches!(state, Listening::No) {
        return Question::Closed(server);
    }
    if !opens(ctx, flow) {
        return Question::Known(1);
    }
    let payload = payload(flow);
    let key = AskerKey {
        address: source,
        port: flow.local_port,
        listener: flow.port,
        id: message_id(ctx, flow, payload),
        transport: flow.transport as u8,
        pad: 0,
        netns,
    };
    let asker = Asker {
        // SAFETY: not null, as just checked.
        owner: unsafe { (*tag).owner },
        server,
        // SAFETY: the context is the kernel's.
        cgroup: unsafe { bpf_skb_cgroup_id(ctx.skb.skb) },
        // SAFETY: the context is the kernel's.
        cookie: unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) },
    };
    if matches!(state, Listening::Unknown) {
        arrive(scope, &key, &asker, Some((ctx, payload)));
        return Question::Known(DROP_SILENTLY);
    }
    // Without an entry the listener says nothing, and the client asks again.
    let _full = ASKERS.insert(key, asker, 0);
    Question::Known(1)
}

/// Tells userspace of the first socket in a network namespace, so that a listener is there when the first question is.
#[inline(always)]
pub(crate) fn prepare(ctx: &SockContext, scope: &Scope, owner: impl FnOnce() -> Owner) {
    if scope.slot == 0 || scope.dns_port == 0 {
        return;
    }
    // SAFETY: the context is the kernel's.
    let netns = unsafe { bpf_get_netns_cookie(ctx.sock.cast()) };
    if matches!(listening(scope, netns), Listening::Unknown) {
        let asker = Asker { owner: owner(), ..Asker::default() };
        arrive(scope, &AskerKey { netns, ..AskerKey::default() }, &asker, None);
    }
}

/// Whether a listener answers in a network namespace.
#[derive(Clone, Copy)]
enum Listening {
    Yes,
    No,
    /// Nobody has looked for one yet.
    Unknown,
}

#[inline(always)]
fn listening(scope: &Scope, netns: u64) -> Listening {
    let key = ListenerKey { scope: scope.cgroup, netns };
    // SAFETY: an entry that userspace removes or replaces meanwhile stays readable until the program ends (RCU).
    match unsafe { LISTENERS.get(key) } {
        None => Listening::Unknown,
        Some(&Listener { expires }) if maps::now() < expires => Listening::Yes,
        Some(_) => Listening::No,
    }
}

/// Whether a packet asks something new: a datagram always, of a TCP connection the packet that opens it.
#[inline(always)]
fn opens(ctx: &SkBuffContext, flow: &Flow) -> bool {
    match flow.transport {
        Transport::Udp => true,
        Transport::Tcp => !crate::packet::answers(ctx, flow),
        Transport::Icmp => false,
    }
}

const UDP_HEADER: u32 = 8;

/// Where a packet's payload begins.
#[inline(always)]
fn payload(flow: &Flow) -> u32 {
    if flow.address.is_v4() { 20 + UDP_HEADER } else { 40 + UDP_HEADER }
}

/// The first two bytes of a datagram; 0 if it has none.
#[inline(always)]
fn message_id(ctx: &SkBuffContext, flow: &Flow, payload: u32) -> u16 {
    let mut id = [0_u8; 2];
    if matches!(flow.transport, Transport::Udp) {
        // SAFETY: two bytes of ours; zero-filled by the kernel on failure.
        unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), payload, id.as_mut_ptr().cast(), 2) };
    }
    u16::from_be_bytes(id)
}

/// Sends what is known of a question to userspace, if there is room. If not, the client asks again.
#[inline(always)]
fn arrive(scope: &Scope, key: &AskerKey, asker: &Asker, message: Option<(&SkBuffContext, u32)>) {
    let Some(mut entry) = ARRIVALS.reserve::<Arrival>(0) else { return };
    let arrival = entry.as_mut_ptr();
    // SAFETY: room for a whole `Arrival`, which is plain data; what is not written stays unread because of `length`.
    unsafe {
        (&raw mut (*arrival).scope).write(scope.cgroup);
        (&raw mut (*arrival).key).write(*key);
        (&raw mut (*arrival).asker).write(*asker);
        (&raw mut (*arrival).length).write(0);
        (&raw mut (*arrival).pad).write(0);
        if let Some((ctx, payload)) = message
            && key.transport == Transport::Udp as u8
        {
            let mut length = u64::from(ctx.len().wrapping_sub(payload).wrapping_sub(1));
            // In assembly, or the compiler would compare one register and pass another one on: the verifier (of Linux 5.10)
            // must see both bounds of the register that it is passed in.
            asm!("{length} &= 0xffff", length = inout(reg) length);
            if length < PAYLOAD as u64 {
                asm!("{length} += 1", length = inout(reg) length);
                let target = (&raw mut (*arrival).payload).cast();
                if load_bytes(ctx.skb.skb.cast(), payload.into(), target, length) == 0 {
                    (&raw mut (*arrival).length).write(socket::low(length));
                }
            }
        }
    }
    entry.submit(0);
}

/// `bpf_skb_load_bytes` with a length that stays in its whole register.
///
/// # Safety
/// As the helper's: `to` has room for `length` bytes.
#[inline(always)]
unsafe fn load_bytes(skb: *const c_void, offset: u64, to: *mut c_void, length: u64) -> i64 {
    let helper: unsafe extern "C" fn(*const c_void, u64, *mut c_void, u64) -> i64 =
        // SAFETY: helpers are called by their number (`enum bpf_func_id`); this is BPF_FUNC_skb_load_bytes.
        unsafe { core::mem::transmute(26_usize) };
    // SAFETY: the caller's.
    unsafe { helper(skb, offset, to, length) }
}

#[inline(always)]
fn servers(socket: *mut bpf_sock) -> *mut Servers {
    storage(socket, 0)
}

#[inline(always)]
fn servers_or_new(socket: *mut bpf_sock) -> *mut Servers {
    storage(socket, BPF_SK_STORAGE_GET_F_CREATE.into())
}

#[inline(always)]
fn storage(socket: *mut bpf_sock, flags: u64) -> *mut Servers {
    let map: *mut c_void = (&raw const SERVERS).cast_mut().cast();
    // SAFETY: the verifier knows the map and the socket; the value is a `Servers` by the map's definition.
    unsafe { bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), flags) }.cast()
}
