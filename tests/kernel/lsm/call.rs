//! System calls as attacks make them: each gives the errno, or 0.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect,
    recvmsg, sendmsg, sendto, socket,
};

/// The errno of a result, or 0.
pub(crate) fn errno_of<T>(result: nix::Result<T>) -> i32 {
    result.err().map_or(0, |errno| errno as i32)
}

/// The errno that the last failed call left.
pub(crate) fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The errno of a plain call's result, or 0.
pub(crate) fn of_call(result: impl Into<i64>) -> i32 {
    if result.into() < 0 { errno() } else { 0 }
}

/// Address of a unix socket: a path, or `@` and an abstract name.
pub(crate) fn unix_address(name: &str) -> UnixAddr {
    let address = match name.strip_prefix('@') {
        Some(name) => UnixAddr::new_abstract(name.as_bytes()),
        None => UnixAddr::new(Path::new(name)),
    };
    address.expect("a name of a fitting length")
}

/// A unix socket without a name.
pub(crate) fn unix_socket(kind: SockType) -> OwnedFd {
    socket(AddressFamily::Unix, kind, SockFlag::empty(), None).expect("make a unix socket")
}

/// Connects a new unix socket.
pub(crate) fn unix_connect(kind: SockType, name: &str) -> i32 {
    let from = unix_socket(kind);
    errno_of(connect(from.as_raw_fd(), &unix_address(name)))
}

/// Sends a datagram from a new unix socket.
pub(crate) fn unix_send(name: &str) -> i32 {
    let from = unix_socket(SockType::Datagram);
    errno_of(sendto(from.as_raw_fd(), b"secret", &unix_address(name), MsgFlags::empty()))
}

/// Makes a socket.
pub(crate) fn make_socket(family: i32, kind: i32, protocol: i32) -> i32 {
    // SAFETY: plain numbers; what is made ends with the process.
    of_call(unsafe { libc::socket(family, kind, protocol) })
}

/// Passes a descriptor on; the errno if the kernel does not pass such ones.
pub(crate) fn pass(over: &UnixStream, descriptor: RawFd) -> i32 {
    let message = [ControlMessage::ScmRights(&[descriptor])];
    errno_of(sendmsg::<()>(over.as_raw_fd(), &[IoSlice::new(b"x")], &message, MsgFlags::empty(), None))
}

/// Takes a descriptor that was passed; none if the kernel withheld it.
pub(crate) fn take(from: &UnixStream) -> Option<OwnedFd> {
    let mut byte = [0];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let got = recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())
        .expect("receive a message");
    got.cmsgs().ok()?.find_map(|message| match message {
        // SAFETY: the kernel just made this descriptor for us.
        ControlMessageOwned::ScmRights(fds) => Some(unsafe { OwnedFd::from_raw_fd(*fds.first()?) }),
        _ => None,
    })
}

/// What was passed, as an errno.
pub(crate) fn take_errno(from: &UnixStream) -> i32 {
    if take(from).is_some() { 0 } else { libc::EPERM }
}

/// Writes to another process's memory.
pub(crate) fn write_memory(process: i32, at: *const u8) -> i32 {
    let mut byte = 7_u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: at.cast_mut().cast(), iov_len: 1 };
    // SAFETY: one byte from here to an address that the other process, a copy of this one, has too.
    of_call(unsafe { libc::process_vm_writev(process, &raw const local, 1, &raw const remote, 1, 0) as i64 })
}

/// Attaches to a process and lets go again.
pub(crate) fn trace(process: i32) -> i32 {
    use nix::{sys::ptrace, sys::wait::waitpid, unistd::Pid};
    let process = Pid::from_raw(process);
    let attached = ptrace::attach(process);
    if attached.is_ok() {
        waitpid(process, Some(nix::sys::wait::WaitPidFlag::__WALL)).expect("wait for the traced process");
        ptrace::detach(process, None).expect("let go of the traced process");
    }
    errno_of(attached)
}

/// Takes a descriptor of another process.
pub(crate) fn take_from_process(process: i32, descriptor: RawFd) -> i32 {
    // SAFETY: plain numbers; what is made ends with the process.
    unsafe {
        let pidfd = libc::syscall(libc::SYS_pidfd_open, process, 0);
        if pidfd < 0 {
            return errno();
        }
        of_call(libc::syscall(libc::SYS_pidfd_getfd, pidfd, descriptor, 0))
    }
}

/// Starts a process in another control group.
pub(crate) fn clone_into(cgroup: RawFd) -> i32 {
    // SAFETY: plain data, zero is valid; the child ends at once and touches nothing.
    unsafe {
        let mut args: libc::clone_args = std::mem::zeroed();
        args.flags = 0x2_0000_0000;
        args.exit_signal = u64::try_from(libc::SIGCHLD).unwrap_or(0);
        args.cgroup = u64::try_from(cgroup).unwrap_or(0);
        let child = libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>());
        if child == 0 {
            libc::_exit(0);
        }
        if child > 0 {
            libc::waitpid(i32::try_from(child).unwrap_or(-1), std::ptr::null_mut(), 0);
        }
        of_call(child)
    }
}

/// Makes an eBPF map.
pub(crate) fn make_map() -> i32 {
    // An array of one word.
    let mut attributes = [2_u32, 4, 4, 1, 0, 0];
    // SAFETY: the first attributes of the command; the rest counts as zero.
    of_call(unsafe { libc::syscall(libc::SYS_bpf, 0, attributes.as_mut_ptr(), size_of_val(&attributes)) })
}

/// Opens a file for writing.
pub(crate) fn open_write(path: &Path) -> i32 {
    let opened = std::fs::OpenOptions::new().write(true).open(path);
    opened.err().map_or(0, |error| error.raw_os_error().unwrap_or(-1))
}

/// Writes to an open file.
pub(crate) fn write(descriptor: RawFd, text: &[u8]) -> i32 {
    // SAFETY: an open descriptor and a whole buffer.
    of_call(unsafe { libc::write(descriptor, text.as_ptr().cast(), text.len()) as i64 })
}

/// Mounts a file system.
pub(crate) fn mount(kind: &str, on: &Path) -> i32 {
    let flags = nix::mount::MsFlags::empty();
    let mounted = nix::mount::mount(Some("none"), on, Some(kind), flags, None::<&str>);
    if mounted.is_ok() {
        nix::mount::umount(on).expect("unmount what was mounted");
    }
    errno_of(mounted)
}
