//! `file_receive`, `file_permission`, `inode_permission`, `sb_mount`: descriptors from outside, cgroup files that lead out of
//! the scope, and mounts that lead to another network.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use egress_common::Reason;

use super::{
    About, Text, current_inside, fact,
    kernel::{Pointer, direct, follow, magic_of_inode, node_name, read, read_string},
    refuse, socket,
};

const MAY_WRITE: u32 = 2;
const CGROUP2: u64 = 0x6367_7270;
const SOCKETS: u64 = 0x534f_434b;
/// Name of the file of an io_uring, whose worker threads may be those of a process outside.
const RING: [u8; 11] = *b"[io_uring]\0";

/// Descriptors in messages, and `pidfd_getfd`.
#[lsm(hook = "file_receive")]
fn lsm_receive(ctx: LsmContext) -> i32 {
    if !current_inside() {
        return 0;
    }
    let file: Pointer = ctx.arg(0);
    if is_socket(file) {
        return socket::judge(follow(file, fact!(offsets.file_private)), b"receive a socket from outside");
    }
    if is_ring(file) {
        return refuse(About::word(Reason::Descriptor, 0, b"receive an io_uring from outside"));
    }
    0
}

/// Writes through descriptors that were opened before, and what leads to a socket past `socket_sendmsg` (splice).
#[lsm(hook = "file_permission")]
fn lsm_file(ctx: LsmContext) -> i32 {
    let (file, mask): (Pointer, u32) = (ctx.arg(0), ctx.arg(1));
    if mask & MAY_WRITE == 0 || !current_inside() {
        return 0;
    }
    let inode: Pointer = direct(file, fact!(offsets.file_inode));
    match magic_of_inode(inode) {
        SOCKETS => {
            socket::judge(follow(file, fact!(offsets.file_private)), b"write to a socket from outside")
        }
        CGROUP2 => refuse_cgroup(inode),
        _ => 0,
    }
}

/// Opening, making and removing; also what `clone3` asks for before it starts a process in another cgroup.
#[lsm(hook = "inode_permission")]
fn lsm_inode(ctx: LsmContext) -> i32 {
    let (inode, mask): (Pointer, u32) = (ctx.arg(0), ctx.arg(1));
    if mask & MAY_WRITE == 0 || !current_inside() || magic_of_inode(inode) != CGROUP2 {
        return 0;
    }
    refuse_cgroup(inode)
}

#[lsm(hook = "sb_mount")]
fn lsm_mount(ctx: LsmContext) -> i32 {
    let kind: *const u8 = ctx.arg(2);
    if kind.is_null() || !current_inside() {
        return 0;
    }
    let mut name = [0; 108];
    read_string(kind, &mut name);
    if !leads_out(&name) {
        return 0;
    }
    refuse(About { reason: Reason::Namespace, target: 0, number: 0, text: Text::Name(&raw const name) })
}

/// Control groups, eBPF objects, and file systems that the kernel fetches over a network.
#[inline(always)]
fn leads_out(kind: &[u8; 108]) -> bool {
    let begins = |with: &[u8]| kind.iter().zip(with).all(|(one, other)| one == other);
    begins(b"cgroup")
        || begins(b"bpf\0")
        || begins(b"nfs")
        || begins(b"cifs\0")
        || begins(b"smb")
        || begins(b"ceph\0")
        || begins(b"afs\0")
        || begins(b"9p\0")
}

#[inline(always)]
fn refuse_cgroup(inode: Pointer) -> i32 {
    refuse(About { reason: Reason::Cgroup, target: 0, number: 0, text: Text::Kernel(node_name(inode)) })
}

#[inline(always)]
fn is_socket(file: Pointer) -> bool {
    magic_of_inode(direct(file, fact!(offsets.file_inode))) == SOCKETS
}

#[inline(always)]
fn is_ring(file: Pointer) -> bool {
    let entry = follow(file, fact!(offsets.file_dentry));
    let name = follow(entry, fact!(offsets.dentry_name));
    // Eight of its bytes, and the other three.
    let (head, tail) = (read::<u64>(name, 0), read::<u32>(name, 7));
    head == u64::from_ne_bytes([RING[0], RING[1], RING[2], RING[3], RING[4], RING[5], RING[6], RING[7]])
        && tail == u32::from_ne_bytes([RING[7], RING[8], RING[9], RING[10]])
}
