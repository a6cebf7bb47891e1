//! The calls that the filter hands to the supervisor: takes them from the kernel, a few at a time, and gives the answers
//! back. The caller waits meanwhile; once nobody listens any more it gets `ENOSYS`.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};

use super::calls::NATIVE;

/// A system call of the scope that waits for its answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Notification {
    /// What the answer is for. It holds as long as [`Listener::waits`] says so; afterwards `pid` may be somebody else's.
    pub id: u64,
    /// The calling thread, in the supervisor's pid namespace; 0 if it is in none below that.
    pub pid: u32,
    /// Number of the call.
    pub nr: i32,
    /// Which architecture's numbers these are (`AUDIT_ARCH_…`).
    pub arch: u32,
    /// Its arguments, as the registers hold them: the kernel takes the lower half only of those that are an `int`. What a
    /// pointer leads to may be changed at any time, also after it was looked at.
    pub args: [u64; 6],
}

impl Notification {
    /// Whether it is the call of this number, among this architecture's own.
    pub fn is(&self, number: libc::c_long) -> bool {
        self.arch == NATIVE && libc::c_long::from(self.nr) == number
    }
}

/// What becomes of such a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// It fails with this errno (a positive number).
    Errno(i32),
    /// It succeeds with this value, without having been made.
    Value(i64),
    /// It is made as if nobody had asked. Only for calls that something else judges: the caller may have changed what its
    /// pointers lead to.
    Continue,
}

/// What there is to take from a listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Received {
    /// A call.
    Call(Notification),
    /// One whose caller was killed meanwhile.
    Gone,
    /// None for the moment.
    Nothing,
    /// None ever again: every process under the filter is gone.
    End,
}

/// The supervisor's end of the filter.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Of the descriptor that installing the filter gave.
    pub const fn new(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Sends the descriptor to the supervisor, from the child that has installed the filter.
    ///
    /// # Errors
    /// As `sendmsg(2)`.
    pub fn hand_over(descriptor: &OwnedFd, to: &UnixStream) -> io::Result<()> {
        let descriptors = [descriptor.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(&[0])], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Receives what the child has sent; `None` if it has ended without.
    ///
    /// # Errors
    /// As `recvmsg(2)`.
    pub fn take_over(from: &UnixStream) -> io::Result<Option<Self>> {
        let (mut byte, mut space) = ([0], nix::cmsg_space!(RawFd));
        let mut parts = [IoSliceMut::new(&mut byte)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = control
                && let [descriptor] = descriptors[..]
            {
                // SAFETY: the kernel has just made this descriptor for us.
                return Ok(Some(Self(unsafe { OwnedFd::from_raw_fd(descriptor) })));
            }
        }
        Ok(None)
    }

    /// Takes the next call, without waiting.
    ///
    /// # Errors
    /// As the `ioctl`.
    pub fn receive(&self) -> io::Result<Received> {
        // A caller that is killed leaves the list but not the count, so a call that poll sees can be taken without waiting, and
        // one that is gone meanwhile is ENOENT.
        let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::ZERO)?;
        let events = ready[0].revents().unwrap_or(PollFlags::empty());
        if !events.contains(PollFlags::POLLIN) {
            return Ok(if events.contains(PollFlags::POLLHUP) { Received::End } else { Received::Nothing });
        }
        self.take()
    }

    /// Takes the call that poll has seen. Without one it waits.
    ///
    /// # Errors
    /// As the `ioctl`.
    pub fn take(&self) -> io::Result<Received> {
        // SAFETY: all zero is a value of this structure of integers.
        let mut raw: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the structure is zero, as the kernel demands, and lives through the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut raw) };
        match Errno::result(result) {
            Ok(_) => Ok(Received::Call(Notification {
                id: raw.id,
                pid: raw.pid,
                nr: raw.data.nr,
                arch: raw.data.arch,
                args: raw.data.args,
            })),
            Err(Errno::ENOENT | Errno::EINTR) => Ok(Received::Gone),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks the kernel to wake us on the caller's processor, and the caller on ours: one of the two sleeps while the other
    /// works. Linux 6.6; without it answers only take longer.
    pub fn wake_in_place(&self) {
        // SAFETY: takes a number.
        unsafe { libc::ioctl(self.0.as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP) };
    }

    /// Whether the call still waits: only then what was read of its thread's memory or `/proc` was that thread's.
    pub fn waits(&self, id: u64) -> bool {
        // SAFETY: reads a number that lives through the call.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) };
        result == 0
    }

    /// Answers a call. That its caller was killed meanwhile is no error.
    ///
    /// # Errors
    /// As the `ioctl`.
    pub fn answer(&self, id: u64, answer: Answer) -> io::Result<()> {
        let (val, error, flags) = match answer {
            Answer::Errno(errno) => (0, -errno, 0),
            Answer::Value(value) => (value, 0, 0),
            Answer::Continue => (0, 0, CONTINUE),
        };
        let mut raw = libc::seccomp_notif_resp { id, val, error, flags };
        // SAFETY: the structure lives through the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut raw) };
        match Errno::result(result) {
            // ENOENT: gone, or interrupted by a signal, after which it asks anew.
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The descriptor, for `ADDFD` and the like.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`, in the width of the field.
const CONTINUE: u32 = 1;

/// `SECCOMP_IOCTL_NOTIF_SET_FLAGS` and its only flag, `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`.
const SET_FLAGS: libc::c_ulong = 0x4008_2104;
const SYNC_WAKE_UP: libc::c_ulong = 1;
