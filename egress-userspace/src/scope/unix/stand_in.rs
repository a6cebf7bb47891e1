//! A thread that takes a caller's place: its root, directory and rights. Receives what was opened of the caller; changes
//! nothing but the thread that it is called in, which does one call and ends.
//!
//! Real and saved user stay root's. So nobody can send the thread a signal, and it can take its own rights back in between;
//! names are resolved, files are judged and listeners are told by the effective ones.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use super::caller::{Rights, owned};

/// The calling thread in a caller's place.
#[derive(Debug)]
pub(super) struct StandIn {
    rights: Rights,
    home: File,
    own: u64,
}

const KEEP: libc::c_long = -1;

impl StandIn {
    /// Gives the thread a root and directory of its own. `home` is where it comes back to.
    pub(super) fn new(rights: Rights, home: File) -> io::Result<Self> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
        let count = rights.groups.len();
        // Raw calls, because the library's would change every thread.
        // SAFETY: reads the list of groups.
        check(unsafe { libc::syscall(libc::SYS_setgroups, count, rights.groups.as_ptr()) })?;
        // SAFETY: takes numbers.
        check(unsafe { libc::syscall(libc::SYS_setresgid, KEEP, rights.group, KEEP) })?;
        let own = capabilities()?.permitted;
        Ok(Self { rights, home, own })
    }

    /// Does something as the caller, in its root and directory.
    pub(super) fn within<T>(
        &self,
        root: &File,
        directory: &File,
        act: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        go_to(root, directory)?;
        let result = self.as_caller(act);
        go_to(&self.home, &self.home)?;
        result
    }

    /// Does something with the caller's rights, in the supervisor's root.
    pub(super) fn as_caller<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        // To another user than root: takes the effective capabilities away, and back gives those permitted.
        // SAFETY: takes numbers.
        check(unsafe { libc::syscall(libc::SYS_setresuid, KEEP, self.rights.user, KEEP) })?;
        set_effective(if self.rights.user == 0 { self.own & self.rights.capabilities } else { 0 })?;
        let result = act();
        // SAFETY: takes numbers.
        check(unsafe { libc::syscall(libc::SYS_setresuid, KEEP, 0, KEEP) })?;
        set_effective(self.own)?;
        result
    }
}

fn go_to(root: &File, directory: &File) -> io::Result<()> {
    // SAFETY: takes descriptors and a constant string.
    unsafe {
        check(libc::fchdir(root.as_raw_fd()).into())?;
        check(libc::chroot(c".".as_ptr()).into())?;
        check(libc::fchdir(directory.as_raw_fd()).into())
    }
}

/// Opens a path as the caller would, following links but not those of `/proc`, which lead by no name.
pub(super) fn open(base: Option<&File>, path: &std::ffi::CStr) -> io::Result<OwnedFd> {
    // SAFETY: plain data, zero is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((libc::O_PATH | libc::O_CLOEXEC).unsigned_abs());
    how.resolve = libc::RESOLVE_NO_MAGICLINKS;
    let base = base.map_or(libc::AT_FDCWD, |base| base.as_raw_fd());
    let size = size_of_val(&how);
    // SAFETY: reads the path and the structure, whose size it is told.
    owned(unsafe { libc::syscall(libc::SYS_openat2, base, path.as_ptr(), &raw const how, size) })
}

#[derive(Clone, Copy)]
struct Capabilities {
    permitted: u64,
    inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    thread: i32,
}

static HEADER: Header = Header { version: 0x2008_0522, thread: 0 };

fn capabilities() -> io::Result<Capabilities> {
    let mut words = [0_u32; 6];
    // SAFETY: version 3 writes six words.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const HEADER, words.as_mut_ptr()) })?;
    let word = |low: usize| u64::from(words[low]) | u64::from(words[low + 3]) << 32;
    Ok(Capabilities { permitted: word(1), inheritable: word(2) })
}

fn set_effective(effective: u64) -> io::Result<()> {
    let has = capabilities()?;
    let halves = |set: u64| [set & 0xffff_ffff, set >> 32].map(|half| u32::try_from(half).unwrap_or(0));
    let (effective, permitted, inheritable) =
        (halves(effective & has.permitted), halves(has.permitted), halves(has.inheritable));
    let words = [effective[0], permitted[0], inheritable[0], effective[1], permitted[1], inheritable[1]];
    // SAFETY: version 3 reads six words.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const HEADER, words.as_ptr()) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
