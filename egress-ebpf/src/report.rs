//! Counts an attempt and tells userspace of it.
//!
//! Every attempt adds one to `attempts` and one to exactly one of emitted, suppressed, dropped.

use core::arch::asm;

use aya_ebpf::helpers::bpf_get_current_cgroup_id;
use egress_common::{
    Address, Counters, Decision, Event, Hook, Owner, Scope, Verdict, counter::Fate, counter::WINDOW_NS,
};

use crate::maps::{EVENTS, counters, increment, now};

/// What a hook knows of an attempt, beside the decision.
pub(crate) struct Attempt {
    pub(crate) owner: Owner,
    pub(crate) cgroup: u64,
    pub(crate) cookie: u64,
    pub(crate) address: Address,
    pub(crate) port: u16,
    pub(crate) protocol: u16,
    pub(crate) family: u8,
    pub(crate) socket_type: u8,
}

impl Attempt {
    /// Of the running process or of a socket's, about something that is no destination.
    #[inline(always)]
    pub(crate) fn of(owner: Owner, protocol: u16, port: u16) -> Self {
        Self {
            owner,
            cgroup: current_cgroup(),
            cookie: 0,
            address: Address::ZERO,
            port,
            protocol,
            family: 0,
            socket_type: 0,
        }
    }
}

/// The id of the running process's cgroup.
#[inline(always)]
pub(crate) fn current_cgroup() -> u64 {
    // SAFETY: no arguments, no failure.
    unsafe { bpf_get_current_cgroup_id() }
}

/// Counts an attempt that gets no event because an equal one was told.
#[inline(always)]
pub(crate) fn count(hook: Hook, decision: Decision) {
    let counters = counters();
    add_attempt(counters, hook, decision);
    increment(&raw mut fate_of(counters, decision.verdict).suppressed);
}

/// Counts an attempt and emits its event, unless the scope's rate is used up or the ring is full. Who and where is
/// asked of `attempt` only for an event, since it costs more than the decision.
#[inline(always)]
pub(crate) fn report(scope: &Scope, hook: Hook, decision: Decision, attempt: impl FnOnce() -> Attempt) {
    let counters = counters();
    add_attempt(counters, hook, decision);
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(
        (),
        "{} verdict {} reason {} rule {}",
        hook.name(),
        decision.verdict as u8,
        decision.reason as u8,
        decision.rule
    );
    let fate = fate_of(counters, decision.verdict);
    let time = now();
    if !within_rate(fate, scope, time) {
        increment(&raw mut fate.suppressed);
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        increment(&raw mut fate.dropped);
        return;
    };
    let attempt = attempt();
    entry.write(Event {
        time,
        scope: scope.cgroup,
        cgroup: attempt.cgroup,
        cookie: attempt.cookie,
        owner: attempt.owner,
        address: attempt.address,
        port: attempt.port,
        protocol: attempt.protocol,
        rule: decision.rule,
        family: attempt.family,
        socket_type: attempt.socket_type,
        hook: hook as u8,
        verdict: decision.verdict as u8,
        reason: decision.reason as u8,
        pad: [0; 3],
    });
    entry.submit(0);
    increment(&raw mut fate.emitted);
}

#[inline(always)]
fn add_attempt(counters: *mut Counters, hook: Hook, decision: Decision) {
    // Flat, so that the verifier has one bound to see.
    let row = decision.verdict as usize * Counters::HOOKS + hook as usize;
    let index = row * Counters::COLUMNS + Counters::column(decision.reason);
    if index < Verdict::COUNT * Counters::HOOKS * Counters::COLUMNS {
        // SAFETY: the index is inside the array, as just checked.
        increment(unsafe { (&raw mut (*counters).attempts).cast::<u64>().add(index) });
    }
}

#[inline(always)]
fn fate_of<'a>(counters: *mut Counters, verdict: Verdict) -> &'a mut Fate {
    const { assert!(Verdict::COUNT == 3) };
    let mut index = verdict as usize;
    // SAFETY: changes one register, and not its value: the verifier sees the bound on the very register that is used, which
    // the compiler knows already and would not check.
    unsafe { asm!("{index} &= 3", "if {index} < 3 goto +1", "{index} = 0", index = inout(reg) index) };
    // SAFETY: the index is inside the array.
    unsafe { &mut *(&raw mut (*counters).fate).cast::<Fate>().add(index) }
}

/// Takes one event from the current window's budget. Verdicts have a budget each, so that a flood of allowed sends
/// cannot hide a denial.
#[inline(always)]
pub(crate) fn within_rate(fate: &mut Fate, scope: &Scope, time: u64) -> bool {
    if time.wrapping_sub(fate.window_start) > WINDOW_NS {
        fate.window_start = time;
        fate.window_used = 0;
    }
    fate.window_used += 1;
    // A scope without a policy has no rate either; its denials are worth telling all the same.
    let rate = if scope.slot == 0 { 64 } else { u64::from(scope.event_rate) };
    fate.window_used <= rate
}
