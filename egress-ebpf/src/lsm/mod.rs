//! BPF LSM: what a task of the scope does where no hook of its cgroup looks, and what tasks outside do to its unix sockets.
//!
//! The programs run for every task of the system: each first leaves for those that are none of its business. They belong to
//! one scope, whose cgroup is a constant like the places of the kernel's fields, which the loader finds in its type
//! information.

mod file;
mod kernel;
mod process;
mod socket;
mod unix;

use aya_ebpf::{
    helpers::bpf_get_current_ancestor_cgroup_id,
    macros::map,
    maps::{Array, PerCpuArray},
};
use egress_common::{
    Decision, Escape, Hook, Reason, Verdict,
    counter::Fate,
    lsm::{Facts, LsmCounters, Offsets, State},
};

use crate::{
    maps::{EVENTS, increment, now},
    report::{current_cgroup, within_rate},
    socket::current,
};

const EPERM: i32 = 1;

/// Filled by the loader.
#[unsafe(no_mangle)]
static LSM_FACTS: Facts = Facts {
    scope: 0,
    level: 0,
    pad: 0,
    // SAFETY: plain numbers, zero is valid.
    offsets: unsafe { core::mem::zeroed::<Offsets>() },
};

#[map]
static LSM_STATE: Array<State> = Array::with_max_entries(1, 0);

#[map]
static LSM_COUNTERS: PerCpuArray<LsmCounters> = PerCpuArray::with_max_entries(1, 0);

/// Reads one constant. The compiler must not know its value, the kernel does.
macro_rules! fact {
    ($($field:ident).+) => {{
        #[expect(clippy::allow_attributes, reason = "in some places an unsafe block is around")]
        #[allow(unused_unsafe, reason = "in some places an unsafe block is around")]
        // SAFETY: a field of a static.
        unsafe { core::ptr::read_volatile(&raw const $crate::lsm::LSM_FACTS.$($field).+) }
    }};
}
pub(crate) use fact;

/// Whether the running task is in the scope.
#[inline(always)]
fn current_inside() -> bool {
    // SAFETY: no pointers; a level that the task's cgroup does not have gives 0, which is no cgroup.
    let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(fact!(level).cast_signed()) };
    ancestor == fact!(scope)
}

/// The scope's state; all zero, which refuses, if there is none.
#[inline(always)]
fn state() -> State {
    LSM_STATE.get(0).copied().unwrap_or(State::ZERO)
}

#[inline(always)]
fn is_lifted(what: u32) -> bool {
    state().lifted & what != 0
}

/// What an attempt was about.
struct About {
    reason: Reason,
    target: u32,
    number: u32,
    text: Text,
}

/// Where the record's text comes from.
enum Text {
    /// Known here.
    Word(&'static [u8]),
    /// A zero-terminated string in the kernel's memory.
    Kernel(*const u8),
    /// A whole text of our own.
    Name(*const [u8; 108]),
}

impl About {
    #[inline(always)]
    const fn word(reason: Reason, number: u32, word: &'static [u8]) -> Self {
        Self { reason, target: 0, number, text: Text::Word(word) }
    }
}

/// Refuses, unless the scope is in audit mode, and tells of it; the hook's result.
#[inline(always)]
fn refuse(about: About) -> i32 {
    let state = state();
    let decision = Decision::deny(about.reason, 0).in_mode(&state.scope);
    report(&state, decision, about);
    if decision.passes() { 0 } else { -EPERM }
}

/// Counts an attempt and emits its record, unless the scope's rate is used up or the ring is full.
#[inline(always)]
fn report(state: &State, decision: Decision, about: About) {
    let Some(fate) = count(decision) else { return };
    let time = now();
    if !within_rate(fate, &state.scope, time) {
        increment(&raw mut fate.suppressed);
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<Escape>(0) else {
        increment(&raw mut fate.dropped);
        return;
    };
    let record = kernel::zeroed(&mut entry);
    record.time = time;
    record.scope = fact!(scope);
    record.cgroup = current_cgroup();
    record.owner = current();
    record.target = about.target;
    record.number = about.number;
    record.hook = Hook::Lsm as u8;
    record.verdict = decision.verdict as u8;
    record.reason = decision.reason as u8;
    match about.text {
        Text::Word(word) => {
            for (to, from) in record.text.iter_mut().zip(word) {
                *to = *from;
            }
        }
        Text::Kernel(string) => kernel::read_string(string, &mut record.text),
        Text::Name(name) => kernel::copy(name, &mut record.text),
    }
    entry.submit(0);
    increment(&raw mut fate.emitted);
}

/// Counts an attempt that a rule lets pass; it is not told.
#[inline(always)]
fn count_allowed(rule: u32) {
    if let Some(fate) = count(Decision::allow(Reason::Rule, rule)) {
        increment(&raw mut fate.suppressed);
    }
}

/// Counts an attempt; what becomes of its record is to be counted at the place that is given back.
#[inline(always)]
fn count<'a>(decision: Decision) -> Option<&'a mut Fate> {
    let counters = LSM_COUNTERS.get_ptr_mut(0)?;
    // Flat, so that the verifier has one bound to see.
    let index = decision.verdict as usize * Reason::COUNT + decision.reason as usize;
    if index < Verdict::COUNT * Reason::COUNT {
        // SAFETY: the index is inside the array, as just checked.
        increment(unsafe { (&raw mut (*counters).attempts).cast::<u64>().add(index) });
    }
    // SAFETY: one branch a verdict, each a constant offset into the counters.
    Some(unsafe {
        match decision.verdict {
            Verdict::Deny => &mut (*counters).fate[0],
            Verdict::Allow => &mut (*counters).fate[1],
            Verdict::Audit => &mut (*counters).fate[2],
        }
    })
}
