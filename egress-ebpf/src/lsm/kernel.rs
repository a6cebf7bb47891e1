//! Reads the kernel's structures at the places that the loader found. A read that fails gives zero, with which no
//! cgroup is the scope's.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated};
use egress_common::Escape;

use super::fact;

pub(super) type Pointer = *const c_void;

/// Reads a field of what `base` points to.
#[inline(always)]
pub(super) fn read<T: Copy + Default>(base: Pointer, offset: u32) -> T {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(base.byte_add(offset as usize).cast::<T>()) }.unwrap_or_default()
}

/// Reads a pointer; null if it cannot.
#[inline(always)]
pub(super) fn follow(base: Pointer, offset: u32) -> Pointer {
    core::ptr::with_exposed_provenance(read::<usize>(base, offset))
}

/// Reads a field of a structure whose type the verifier knows, without a helper: what runs for every task of the system.
#[inline(always)]
pub(super) fn direct<T: Copy>(base: Pointer, offset: u32) -> T {
    // SAFETY: the verifier lets typed pointers only be read, and a fault reads as zero. Volatile, so that it stays one load.
    unsafe { core::ptr::read_volatile(base.byte_add(offset as usize).cast::<T>()) }
}

/// Reads a zero-terminated string.
#[inline(always)]
pub(super) fn read_string(string: *const u8, into: &mut [u8; 108]) {
    // SAFETY: the helper checks the address and stops at the end of the buffer.
    unsafe { generated::bpf_probe_read_kernel_str(into.as_mut_ptr().cast(), 108, string.cast()) };
}

/// Copies a text of our own, by the helper: the compiler's loop over the bytes is long for the verifier.
#[inline(always)]
pub(super) fn copy(from: *const [u8; 108], into: &mut [u8; 108]) {
    // SAFETY: both have this size.
    unsafe { generated::bpf_probe_read_kernel(into.as_mut_ptr().cast(), 108, from.cast()) };
}

/// A record, all zero. Word by word, for the same reason.
#[inline(always)]
pub(super) fn zeroed(entry: &mut MaybeUninit<Escape>) -> &mut Escape {
    let words = entry.as_mut_ptr().cast::<u64>();
    for index in 0..size_of::<Escape>() / 8 {
        // SAFETY: inside the record, which is aligned for words, and any bytes of which are a record.
        unsafe { words.add(index).write_volatile(0) };
    }
    // SAFETY: every byte was just written.
    unsafe { entry.assume_init_mut() }
}

/// Whether a `struct cgroup` is the scope's or lies below it.
#[inline(always)]
pub(super) fn cgroup_inside(cgroup: Pointer) -> bool {
    let level = fact!(level);
    if cgroup.is_null() || read::<u32>(cgroup, fact!(offsets.cgroup_level)) < level {
        return false;
    }
    let ancestor = follow(cgroup, fact!(offsets.cgroup_ancestors) + 8 * level);
    let node = follow(ancestor, fact!(offsets.cgroup_node));
    read::<u64>(node, fact!(offsets.node_id)) == fact!(scope)
}

/// Whether a `struct sock` was made in the scope.
#[inline(always)]
pub(super) fn sock_inside(sock: Pointer) -> bool {
    cgroup_inside(follow(sock, fact!(offsets.sock_cgroup)))
}

/// Whether a `struct task_struct` is in the scope.
#[inline(always)]
pub(super) fn task_inside(task: Pointer) -> bool {
    let set = follow(task, fact!(offsets.task_cgroups));
    cgroup_inside(follow(set, fact!(offsets.css_set_cgroup)))
}

/// The process of a `struct task_struct`.
#[inline(always)]
pub(super) fn tgid(task: Pointer) -> u32 {
    read::<u32>(task, fact!(offsets.task_tgid))
}

/// Magic number of the file system of a `struct inode` that the verifier knows.
#[inline(always)]
pub(super) fn magic_of_inode(inode: Pointer) -> u64 {
    let block: Pointer = direct(inode, fact!(offsets.inode_sb));
    direct(block, fact!(offsets.super_magic))
}

/// Name of the cgroup file behind an inode.
#[inline(always)]
pub(super) fn node_name(inode: Pointer) -> *const u8 {
    let node = follow(inode, fact!(offsets.inode_private));
    follow(node, fact!(offsets.node_name)).cast()
}
