//! `ptrace_access_check`, `task_kill`, `bpf`: reaching into processes outside the scope, and into the enforcement itself.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use egress_common::{Reason, lsm::State};

use super::{
    About, Text, current_inside, is_lifted,
    kernel::{Pointer, task_inside, tgid},
    refuse,
};

/// Set where the kernel only looks what a list of processes may show.
const NO_AUDIT: u32 = 4;
const EPERM: i32 = 1;

/// ptrace, a process's memory, descriptors, links and maps.
#[lsm(hook = "ptrace_access_check")]
fn lsm_ptrace(ctx: LsmContext) -> i32 {
    let (task, mode): (Pointer, u32) = (ctx.arg(0), ctx.arg(1));
    if !current_inside() || task_inside(task) || is_lifted(State::PTRACE) {
        return 0;
    }
    if mode & NO_AUDIT != 0 {
        return if super::state().scope.audit == 1 { 0 } else { -EPERM };
    }
    refuse(About { reason: Reason::Process, target: tgid(task), number: mode, text: Text::Word(b"ptrace") })
}

#[lsm(hook = "task_kill")]
fn lsm_kill(ctx: LsmContext) -> i32 {
    let (task, signal): (Pointer, u32) = (ctx.arg(0), ctx.arg(2));
    if !current_inside() || task_inside(task) || is_lifted(State::SIGNALS) {
        return 0;
    }
    refuse(About { reason: Reason::Process, target: tgid(task), number: signal, text: Text::Word(b"kill") })
}

#[lsm(hook = "bpf")]
fn lsm_bpf(ctx: LsmContext) -> i32 {
    let command: u32 = ctx.arg(0);
    if !current_inside() || is_lifted(State::BPF) {
        return 0;
    }
    refuse(About::word(Reason::Bpf, command, b""))
}
