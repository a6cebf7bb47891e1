//! The enforcer's last step before a scope counts as enforced: attempts inside the still closed scope, each of which
//! must be refused. Everything goes to this machine's own loopback, so that even a hole leaks nothing.

use std::{fs::File, io, os::fd::AsRawFd as _};

use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, fork},
};

use super::EnforceError;

/// Makes an attempt; the errno, or 0 if it went through.
type Attempt = fn() -> i32;

/// What is tried. The child's exit status is one more than the index of the first that was not refused.
const ATTEMPTS: [(&str, Attempt); 6] = [
    ("a TCP connect over IPv4", || connect(libc::AF_INET)),
    ("a TCP connect over IPv6", || connect(libc::AF_INET6)),
    ("a datagram over IPv4", || send(libc::AF_INET)),
    ("a datagram over IPv6", || send(libc::AF_INET6)),
    (PACKET, packet),
    ("a raw socket", raw),
];

/// Runs the self-test in a child that joins the cgroup by writing to `procs` (an open `cgroup.procs`).
///
/// Must be called while the process has one thread and the scope's state is still all zero.
///
/// # Errors
/// [`EnforceError::SelfTest`] for the first attempt that was not refused, [`EnforceError::Other`] if the test could
/// not be made.
pub fn self_test(procs: &File) -> Result<(), EnforceError> {
    // SAFETY: this process has one thread, so the child may do whatever the parent could.
    let child =
        match unsafe { fork() }.map_err(|error| EnforceError::other("fork for the self-test", error))? {
            ForkResult::Child => {
                let status = i32::from(attempt_all(procs));
                // SAFETY: ends the child without running the parent's destructors.
                unsafe { libc::_exit(status) }
            }
            ForkResult::Parent { child } => child,
        };
    let status =
        waitpid(child, None).map_err(|error| EnforceError::other("wait for the self-test", error))?;
    match status {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, JOIN_FAILED) => Err(EnforceError::other(
            "join the scope's cgroup for the self-test",
            "write to cgroup.procs failed",
        )),
        WaitStatus::Exited(_, index) => {
            let attempt = usize::try_from(index - 1).ok().and_then(|index| ATTEMPTS.get(index));
            let attempt = attempt.map_or("an attempt", |(name, _)| *name);
            Err(EnforceError::SelfTest {
                attempt,
                outcome: "it was let through, or failed otherwise".to_owned(),
            })
        }
        status => Err(EnforceError::other("run the self-test", format!("{status:?}"))),
    }
}

const PACKET: &str = "a packet of a connected socket";

const JOIN_FAILED: i32 = 100;

fn attempt_all(procs: &File) -> u8 {
    // SAFETY: an open descriptor and one byte.
    if unsafe { libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) } != 1 {
        return 100;
    }
    for (index, (name, attempt)) in (1..).zip(ATTEMPTS) {
        let errno = attempt();
        // Without an address on loopback the connected socket has no packet to send.
        if !(refused(errno) || name == PACKET && errno == libc::ENETUNREACH) {
            return index;
        }
    }
    0
}

/// Refused by us, or not possible on this machine (no IPv6), which leaves nothing to refuse.
fn refused(errno: i32) -> bool {
    matches!(errno, libc::EPERM | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
}

fn connect(family: i32) -> i32 {
    with_socket(family, libc::SOCK_STREAM, 0, |socket| {
        with_loopback(family, |address, length| {
            // SAFETY: an open socket and a whole address.
            unsafe { libc::connect(socket, address, length) as isize }
        })
    })
}

fn send(family: i32) -> i32 {
    with_socket(family, libc::SOCK_DGRAM, 0, |socket| {
        with_loopback(family, |address, length| {
            // SAFETY: an open socket, one byte and a whole address.
            unsafe { libc::sendto(socket, c"x".as_ptr().cast(), 1, 0, address, length) }
        })
    })
}

/// A datagram connect is no attempt; what is then sent has only the packet hook before it.
fn packet() -> i32 {
    with_socket(libc::AF_INET, libc::SOCK_DGRAM, 0, |socket| {
        with_loopback(libc::AF_INET, |address, length| {
            // SAFETY: an open socket, one byte and a whole address.
            unsafe {
                libc::connect(socket, address, length);
                libc::send(socket, c"x".as_ptr().cast(), 1, 0)
            }
        })
    })
}

fn raw() -> i32 {
    with_socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP, |_| 0)
}

/// Runs `attempt` on a new socket; the errno of whichever failed, or 0.
fn with_socket(family: i32, kind: i32, protocol: i32, attempt: impl FnOnce(i32) -> isize) -> i32 {
    // SAFETY: plain numbers; the result is checked.
    let socket = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if socket < 0 {
        return errno();
    }
    let result = if attempt(socket) < 0 { errno() } else { 0 };
    // SAFETY: opened above.
    unsafe { libc::close(socket) };
    result
}

/// Loopback, port 9 (discard).
fn with_loopback<T>(family: i32, call: impl FnOnce(*const libc::sockaddr, libc::socklen_t) -> T) -> T {
    // SAFETY: plain data, zero is valid; each address is passed with its own size.
    unsafe {
        if family == libc::AF_INET {
            let mut address: libc::sockaddr_in = std::mem::zeroed();
            address.sin_family = 2;
            address.sin_port = 9_u16.to_be();
            address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
            call((&raw const address).cast(), 16)
        } else {
            let mut address: libc::sockaddr_in6 = std::mem::zeroed();
            address.sin6_family = 10;
            address.sin6_port = 9_u16.to_be();
            address.sin6_addr.s6_addr[15] = 1;
            call((&raw const address).cast(), 28)
        }
    }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
