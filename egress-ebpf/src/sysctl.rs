//! `cgroup/sysctl`: kernel settings that root writes, such as programs to be run outside (`core_pattern`).
//!
//! Everybody else can write settings of network namespaces of their own only, which lead nowhere.

use aya_ebpf::{helpers::bpf_get_current_uid_gid, macros::cgroup_sysctl, programs::SysctlContext};
use egress_common::{Decision, Hook, Reason};

use crate::{
    maps,
    report::{Attempt, report},
    socket::{current_if_known, low},
};

#[cgroup_sysctl]
fn sysctl(ctx: SysctlContext) -> i32 {
    // SAFETY: the context is the kernel's; the field is a readable word.
    let write = unsafe { (*ctx.sysctl).write };
    if write == 0 || low(bpf_get_current_uid_gid()) != 0 {
        return 1;
    }
    let scope = maps::scope();
    let reason = if scope.slot == 0 { Reason::NoPolicy } else { Reason::Sysctl };
    let decision = Decision::deny(reason, 0).in_mode(&scope);
    report(&scope, Hook::Sysctl, decision, || Attempt::of(current_if_known(), 0, 0));
    i32::from(decision.passes())
}
