//! `unix_stream_connect`, `unix_may_send`: unix sockets are judged by whose the other one is, and one outside by the name
//! that it is bound to, which only its owner can give it.

use core::arch::asm;

use aya_ebpf::{
    helpers::generated::bpf_probe_read_kernel,
    macros::{lsm, map},
    maps::{HashMap, LpmTrie, lpm_trie::Key},
    programs::LsmContext,
};
use egress_common::{
    Reason,
    lsm::{Unix, UnixName, UnixRule},
};

use super::{
    About, Text, count_allowed, current_inside, fact,
    kernel::{Pointer, follow, read, sock_inside},
    refuse, state,
};

const NO_PREALLOC: u32 = 1;

#[map]
static UNIX_NAMES: HashMap<UnixName, UnixRule> = HashMap::with_max_entries(4_096, NO_PREALLOC);

#[map]
static UNIX_PREFIXES: LpmTrie<[u8; UnixName::MAX], UnixRule> = LpmTrie::with_max_entries(4_096, 0);

/// Length of a family, which a socket's name begins with in the kernel.
const FAMILY: u32 = 2;
const UNIX_MAX: u32 = 108;

#[lsm(hook = "unix_stream_connect")]
fn lsm_unix_stream(ctx: LsmContext) -> i32 {
    judge(ctx.arg(0), ctx.arg(1), true)
}

#[lsm(hook = "unix_may_send")]
fn lsm_unix_send(ctx: LsmContext) -> i32 {
    let (from, to): (Pointer, Pointer) = (ctx.arg(0), ctx.arg(1));
    let sk = fact!(offsets.socket_sk);
    judge(follow(from, sk), follow(to, sk), false)
}

/// Judges what the running task does from the socket `from` towards the socket `to`: as `Compiled::decide_unix` does.
#[inline(always)]
fn judge(from: Pointer, to: Pointer, connect: bool) -> i32 {
    let inside = current_inside();
    let peer_inside = sock_inside(to);
    if !inside && !peer_inside {
        return 0;
    }
    // What tells of an attempt from outside is the name that the other side has given itself.
    let named = if inside { to } else { from };
    let mut name = UnixName { bits: 0, name: [0; UnixName::MAX] };
    read_name(named, &mut name);
    let rule = rule_of(&name);
    let setting = state().unix;
    let refused =
        |reason, number| refuse(About { reason, target: 0, number, text: Text::Name(&raw const name.name) });
    if let Some(rule) = rule
        && rule.allow != 1
    {
        return refused(Reason::DenyRule, rule.rule);
    }
    // Of a pair that the scope made, neither has a name, and neither leads anywhere.
    let open = setting != Unix::None as u8 || (!connect && name.bits == 0);
    if (inside && peer_inside && open) || setting == Unix::Any as u8 {
        return 0;
    }
    match rule {
        Some(rule) => {
            count_allowed(rule.rule);
            0
        }
        None => refused(Reason::Unix, 0),
    }
}

/// The rule of a name: the one for exactly it, else the one for its longest listed beginning.
#[inline(always)]
fn rule_of(name: &UnixName) -> Option<&'static UnixRule> {
    if name.bits == 0 {
        return None;
    }
    // SAFETY: an entry that userspace removes meanwhile stays readable until the program ends (RCU).
    if let Some(rule) = unsafe { UNIX_NAMES.get(name) } {
        return Some(rule);
    }
    // SAFETY: both are a number of bits and as many bytes.
    let key = unsafe { &*(&raw const *name).cast::<Key<[u8; UnixName::MAX]>>() };
    UNIX_PREFIXES.get(key)
}

/// Reads the name that a socket is bound to; of length zero if it has none that a rule could speak of.
#[inline(always)]
fn read_name(sock: Pointer, into: &mut UnixName) {
    let address = follow(sock, fact!(offsets.unix_sock_addr));
    if address.is_null() {
        return;
    }
    let length = read::<u32>(address, fact!(offsets.unix_address_len));
    let Some(length) = length.checked_sub(FAMILY) else { return };
    // A path as long as can be comes with its terminator beyond the field.
    let mut length = if length > UNIX_MAX { UNIX_MAX } else { length };
    // SAFETY: changes nothing, which the kernel's verifier cannot see and the compiler must not.
    unsafe { asm!("{length} &= 127", length = inout(reg) length) };
    if length == 0 || length > UNIX_MAX {
        return;
    }
    let source = address.wrapping_byte_add((fact!(offsets.unix_address_name) + FAMILY) as usize);
    // SAFETY: at most the size of the field, as just checked; the helper checks the address.
    let failed = unsafe { bpf_probe_read_kernel(into.name.as_mut_ptr().cast(), length, source) };
    if failed != 0 {
        return;
    }
    if into.name[0] == 0 {
        into.name[0] = b'@';
        into.bits = length * 8;
        return;
    }
    if into.name[0] == b'@' {
        // A path that would pass for an abstract name. Rules are about whole paths, of which it is none.
        return;
    }
    // A path's length counts its terminator, unless the field is too short for it.
    let last = (length as usize - 1) % 128;
    let terminated = last < UnixName::MAX && into.name[last] == 0;
    into.bits = (length - u32::from(terminated)) * 8;
}
