//! `cgroup/dev`: devices that carry packets, bytes or memory past every socket. A list, since most devices lead nowhere;
//! numbers that a kernel hands out as it goes (vport, tap) are not in it, and are root's.

use aya_ebpf::{macros::cgroup_device, programs::DeviceContext};
use egress_common::{Decision, Hook, Reason};

use crate::{
    maps,
    report::{Attempt, report},
    socket::{current_if_known, low_half},
};

/// `BPF_DEVCG_DEV_CHAR`, in the lower half of the access type.
const CHAR: u32 = 2;
/// `BPF_DEVCG_ACC_MKNOD`, in the upper half: making a node reaches nothing by itself.
const MAKE: u32 = 1;
/// `BPF_DEVCG_ACC_WRITE`, as well.
const WRITE: u32 = 4;

#[cgroup_device]
fn device(ctx: DeviceContext) -> i32 {
    // SAFETY: the context is the kernel's; the fields are readable words.
    let (access, major, minor) =
        unsafe { ((*ctx.device).access_type, (*ctx.device).major, (*ctx.device).minor) };
    let writes = (access >> 16) & WRITE != 0;
    if access & 0xffff != CHAR || access >> 16 == MAKE || !is_closed(major, minor, writes) {
        return 1;
    }
    let scope = maps::scope();
    let reason = if scope.slot == 0 { Reason::NoPolicy } else { Reason::Device };
    let decision = Decision::deny(reason, 0).in_mode(&scope);
    report(&scope, Hook::Device, decision, || {
        Attempt::of(current_if_known(), low_half(major), low_half(minor))
    });
    i32::from(decision.passes())
}

/// Numbers from the kernel's `admin-guide/devices.txt` and `miscdevice.h`.
#[inline(always)]
const fn is_closed(major: u32, minor: u32, writes: bool) -> bool {
    match major {
        // mem, kmem, port; the kernel's log, which goes to wherever logs go
        1 => matches!(minor, 1 | 2 | 4) || (minor == 11 && writes),
        // serial lines; the first 64 are virtual consoles
        4 => minor >= 64,
        // the machine's console
        5 => minor == 1,
        // tun, uinput (keys for somebody else's session), vhost-net, vhost-vsock
        10 => matches!(minor, 200 | 223 | 238 | 241),
        // ppp; serial lines over USB (two), USB itself, serial lines of small machines, hypervisor consoles, InfiniBand
        108 | 166 | 188 | 189 | 204 | 229 | 231 => true,
        _ => false,
    }
}
