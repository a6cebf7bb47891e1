//! The maps, and [`Tables`] over them. Written by userspace only, but for tags, counters and events.

use core::{
    arch::asm,
    cell::UnsafeCell,
    ffi::c_void,
    ptr::{null, null_mut},
};

use aya_ebpf::{
    bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, bpf_map_def, bpf_map_type},
    btf_maps::SkStorage,
    helpers::{bpf_get_local_storage, bpf_get_socket_cookie, bpf_ktime_get_boot_ns},
    macros::{btf_map, map},
    maps::{HashMap, LpmTrie, LruHashMap, RingBuf, lpm_trie::Key},
    programs::{SkBuffContext, SockAddrContext},
};
use egress_common::{
    Address, Asker, AskerKey, Caller, Counters, Decision, Flow, Listener, ListenerKey, Network, NetworkKey,
    Peer, Permit, PermitKey, PortKey, PortRule, Scope, Servers, Tables, Tag, Transport,
};

use crate::peer;

#[map]
static NETWORKS: LpmTrie<NetworkKey, Network> = LpmTrie::with_max_entries(65_536, 0);

#[map]
static PORTS: LpmTrie<PortKey, PortRule> = LpmTrie::with_max_entries(262_144, 0);

/// Not preallocated: memory follows what is permitted, and only userspace, which can wait, ever adds.
#[map]
static PERMITS: HashMap<PermitKey, Permit> = HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// What an accepted socket gets of its listener's tag tells whose it is, so tags are cloned (`BPF_F_CLONE`): the library's
/// own type has no flags.
#[btf_map]
pub(crate) static TAGS: TagStorage = TagStorage::new();

/// Socket-local storage needs a definition with BTF: each field's type says a number, the value is never looked at.
#[repr(C)]
pub(crate) struct TagStorage {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const Tag,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the definition is read by the loader and never touched afterwards.
unsafe impl Sync for TagStorage {}

impl TagStorage {
    const fn new() -> Self {
        Self { r#type: null(), key: null(), value: null(), max_entries: null(), map_flags: null() }
    }
}

/// The servers that a socket believes to ask. Apart from the tag, since few sockets ask.
#[btf_map]
pub(crate) static SERVERS: SkStorage<Servers> = SkStorage::new();

#[map]
pub(crate) static LISTENERS: HashMap<ListenerKey, Listener> =
    HashMap::with_max_entries(1_024, BPF_F_NO_PREALLOC);

/// Entries live until the listener takes them with the question; the oldest go first, so that questions which never
/// arrived cannot fill it.
#[map]
pub(crate) static ASKERS: LruHashMap<AskerKey, Asker> = LruHashMap::with_max_entries(8_192, 0);

/// Senders of datagrams that `inbound:` let in, each with the epoch; the oldest go first.
#[map]
static CALLERS: LruHashMap<Caller, u32> = LruHashMap::with_max_entries(4_096, 0);

#[map]
pub(crate) static ARRIVALS: RingBuf = RingBuf::with_byte_size(1 << 16, 0);

/// Cgroup-local storage under the cgroup id alone, so that all programs of a scope share one value (5.9).
/// The library's own type has one value for each attach type, which no single write could change.
#[repr(transparent)]
struct Storage(UnsafeCell<bpf_map_def>);

// SAFETY: the definition is read by the loader and never touched afterwards.
unsafe impl Sync for Storage {}

impl Storage {
    #[expect(clippy::cast_possible_truncation, reason = "sizes of a few bytes; a const fn has no TryFrom")]
    const fn new<V>(type_: u32) -> Self {
        Self(UnsafeCell::new(bpf_map_def {
            type_,
            key_size: size_of::<u64>() as u32,
            value_size: size_of::<V>() as u32,
            max_entries: 0,
            map_flags: 0,
            id: 0,
            pinning: 0,
        }))
    }

    #[inline(always)]
    fn get(&self) -> *mut c_void {
        // SAFETY: the loader puts the map's address here; the helper never fails for an attached program.
        unsafe { bpf_get_local_storage(self.0.get().cast(), 0) }
    }
}

#[unsafe(link_section = "maps")]
#[unsafe(export_name = "SCOPE")]
static SCOPE: Storage = Storage::new::<Scope>(bpf_map_type::BPF_MAP_TYPE_CGROUP_STORAGE_DEPRECATED);

#[unsafe(link_section = "maps")]
#[unsafe(export_name = "COUNTERS")]
static COUNTERS: Storage =
    Storage::new::<Counters>(bpf_map_type::BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE_DEPRECATED);

/// State of the scope whose program runs. One copy: a concurrent update replaces the whole value (RCU).
#[inline(always)]
pub(crate) fn scope() -> Scope {
    // SAFETY: the storage has the size and alignment of `Scope`, and every bit pattern is one.
    unsafe { *SCOPE.get().cast::<Scope>() }
}

/// This CPU's counters of the scope.
#[inline(always)]
pub(crate) fn counters() -> *mut Counters {
    COUNTERS.get().cast()
}

/// Adds one. Atomic, because a program can be preempted or interrupted by another one of the same CPU. In assembly,
/// because the compiler offers no atomic addition on a target without compare-and-swap.
#[inline(always)]
pub(crate) fn increment(counter: *mut u64) {
    // SAFETY: the pointer leads into this scope's counters, which live as long as the program runs.
    unsafe { asm!("lock *(u64 *)({counter} + 0) += {one}", counter = in(reg) counter, one = in(reg) 1_u64) };
}

/// `CLOCK_BOOTTIME` in nanoseconds: goes on while the machine sleeps, as answers age.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: no arguments, no failure.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// [`egress_common::decide`] over the maps, for a connect or send: who is at a destination on this host is looked up in the
/// namespace of its socket.
#[inline(always)]
pub(crate) fn decide(ctx: &SockAddrContext, scope: &Scope, flow: &Flow) -> Decision {
    egress_common::decide(&Maps { ctx: ctx.sock_addr.cast() }, scope, flow)
}

/// [`egress_common::decide`] over the maps, for a packet, of which it is known who will hear it.
#[inline(always)]
pub(crate) fn decide_packet(scope: &Scope, flow: &Flow) -> Decision {
    egress_common::decide(&Maps::known(), scope, flow)
}

/// Lets the socket that hears a datagram answer its sender.
#[inline(always)]
pub(crate) fn admit(ctx: &SkBuffContext, scope: &Scope, address: Address, port: u16) {
    // SAFETY: the context is the kernel's.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) };
    // A full table makes room by itself.
    let _full = CALLERS.insert(Caller { cookie, address, port, pad: [0; 3] }, scope.epoch, 0);
}

/// Whether the socket may answer there, since `inbound:` let a datagram in from there.
#[inline(always)]
pub(crate) fn is_admitted(cookie: u64, scope: &Scope, flow: &Flow) -> bool {
    if scope.inbound == 0 || !matches!(flow.transport, Transport::Udp) {
        return false;
    }
    let caller = Caller { cookie, address: flow.address, port: flow.port, pad: [0; 3] };
    // SAFETY: an entry that is replaced meanwhile stays readable until the program ends (RCU).
    unsafe { CALLERS.get(caller) }.is_some_and(|epoch| *epoch == scope.epoch)
}

/// The tables in the kernel's maps.
pub(crate) struct Maps {
    /// Where to look sockets up; null: not at all.
    ctx: *mut c_void,
}

impl Maps {
    /// Where who is at the other end is known already.
    #[inline(always)]
    pub(crate) const fn known() -> Self {
        Self { ctx: null_mut() }
    }
}

impl Tables for Maps {
    #[inline(always)]
    fn network(&self, slot: u32, address: &Address) -> Option<Network> {
        let key = Key::new(NetworkKey::SLOT_BITS + 128, NetworkKey { slot, address: *address });
        NETWORKS.get(&key).copied()
    }

    #[inline(always)]
    fn port(&self, slot: u32, set: u32, transport: Transport, port: u16) -> Option<PortRule> {
        let data = PortKey { slot, set, transport: transport as u8, pad: 0, port: port.to_be_bytes() };
        PORTS.get(Key::new(PortKey::EXACT_BITS + 16, data)).copied()
    }

    #[inline(always)]
    fn permit(&self, key: &PermitKey) -> Option<Permit> {
        // SAFETY: an entry that userspace removes or replaces meanwhile stays readable until the program ends (RCU).
        unsafe { PERMITS.get(key) }.copied()
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        now()
    }

    #[inline(always)]
    fn peer(&self, scope: &Scope, flow: &Flow) -> Peer {
        if self.ctx.is_null() || !matches!(flow.peer, Peer::Remote) {
            return flow.peer;
        }
        let to = (flow.address, flow.port);
        match peer::at(self.ctx, scope, flow.transport, (Address::ZERO, 0), to, false) {
            // A connected socket hears its own peer only, and who sends has no address yet: `packet` knows better, and is
            // as quick to refuse. (0.0.0.0/8 but for its first address leads out as any other.)
            Peer::Nobody if matches!(flow.transport, Transport::Udp) && !is_zero_net(flow.address) => {
                Peer::Own
            }
            peer => peer,
        }
    }
}

/// 0.0.0.0/8
#[inline(always)]
fn is_zero_net(address: Address) -> bool {
    address.is_v4() && address.words()[3].to_ne_bytes()[0] == 0
}
