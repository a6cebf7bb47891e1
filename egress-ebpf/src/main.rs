//! The kernel side: one file for each hook family, all calling [`egress_common::decide`].
//!
//! Programs sit on a scope's cgroup. `packet` is the boundary that every IP packet of the scope's sockets passes, and
//! `ingress` the one for what comes in; `connect`, `sendmsg` and `create` come before them to give the program an errno at
//! once and the event a process. `setsockopt`, `sysctl` and `device` close what never becomes such a packet. Questions to
//! name servers are led to the scope's own listener on the way: see `dns`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod connect;
mod create;
mod device;
mod dns;
mod getpeername;
mod ingress;
mod lsm;
mod maps;
mod packet;
mod peer;
mod recvmsg;
mod report;
mod sendmsg;
mod setsockopt;
mod socket;
mod sysctl;
mod unix;

/// The kernel offers most helpers to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // A reachable panic would be a back edge that the verifier refuses, so none can ship.
    loop {}
}
