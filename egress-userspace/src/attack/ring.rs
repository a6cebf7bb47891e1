//! The same calls through io_uring: the kernel makes them, inline or on a thread of its own.

use std::os::fd::{AsRawFd as _, RawFd};

use io_uring::{
    IoUring, cqueue, opcode, squeue,
    types::{Fd, SubmitArgs, Timespec},
};

use super::call::{Done, Name, Sock, Stop, c_path, header, of_io, owned, pause, raw, stop};

/// A ring; `polled`: a kernel thread takes up what is asked.
pub(super) struct Ring(IoUring);

impl Ring {
    /// Makes one.
    pub(super) fn new(polled: bool) -> Done<Self> {
        let mut builder = IoUring::<squeue::Entry, cqueue::Entry>::builder();
        if polled {
            builder.setup_sqpoll(50);
        }
        builder.build(4).map(Self).map_err(of_io("io_uring_setup"))
    }

    /// Has the kernel make one call; its result.
    pub(super) fn perform(&mut self, at: &'static str, entry: &squeue::Entry) -> Done<i32> {
        // SAFETY: what the entry points to outlives the wait below, or the process ends.
        unsafe { self.0.submission().push(entry) }.map_err(|_| Stop { at, errno: libc::EBUSY })?;
        let patience = Timespec::new().sec(1);
        let wait = SubmitArgs::new().timespec(&patience);
        self.0.submitter().submit_with_args(1, &wait).map_err(of_io("io_uring_enter"))?;
        match self.0.completion().next().map(|done: cqueue::Entry| done.result()) {
            Some(result) if result < 0 => stop(at, -result),
            Some(result) => Ok(result),
            None => stop(at, libc::ETIME),
        }
    }

    pub(super) fn socket(&mut self, family: i32, kind: i32) -> Done<Sock> {
        let entry = opcode::Socket::new(family, kind, 0).build();
        self.perform("uring_socket", &entry).map(|fd| owned(fd.into()).into())
    }

    pub(super) fn connect(&mut self, socket: &Sock, to: &Name) -> Done {
        let entry = opcode::Connect::new(Fd(socket.as_raw_fd()), to.as_ptr(), to.length()).build();
        self.perform("uring_connect", &entry).map(drop)
    }

    pub(super) fn send(&mut self, fd: RawFd, bytes: &[u8]) -> Done {
        let entry = opcode::Send::new(Fd(fd), bytes.as_ptr(), size(bytes)).build();
        self.perform("uring_send", &entry).map(drop)
    }

    pub(super) fn send_to(&mut self, socket: &Sock, to: &Name, bytes: &[u8]) -> Done {
        let entry = opcode::Send::new(Fd(socket.as_raw_fd()), bytes.as_ptr(), size(bytes))
            .dest_addr(to.as_ptr())
            .dest_addr_len(to.length())
            .build();
        self.perform("uring_sendto", &entry).map(drop)
    }

    pub(super) fn send_zero_copy(&mut self, socket: &Sock, to: &Name, bytes: &[u8]) -> Done {
        let entry = opcode::SendZc::new(Fd(socket.as_raw_fd()), bytes.as_ptr(), size(bytes))
            .dest_addr(to.as_ptr())
            .dest_addr_len(to.length())
            .build();
        self.perform("uring_send_zc", &entry).map(drop)
    }

    pub(super) fn send_message(&mut self, socket: &Sock, to: &Name, bytes: &[u8], flags: i32) -> Done {
        let mut parts = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let message = header(&mut parts, Some(to));
        let entry = opcode::SendMsg::new(Fd(socket.as_raw_fd()), &raw const message)
            .flags(flags.cast_unsigned())
            .build();
        self.perform("uring_sendmsg", &entry).map(drop)
    }

    pub(super) fn write(&mut self, fd: RawFd, bytes: &[u8]) -> Done {
        let entry = opcode::Write::new(Fd(fd), bytes.as_ptr(), size(bytes)).build();
        self.perform("uring_write", &entry).map(drop)
    }

    pub(super) fn open(&mut self, path: &std::path::Path) -> Done<std::os::fd::OwnedFd> {
        let path = c_path(path);
        let entry = opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).flags(libc::O_WRONLY).build();
        self.perform("uring_open", &entry).map(|fd| owned(fd.into()))
    }

    pub(super) fn option(&mut self, socket: &Sock, level: i32, option: i32, value: &[u8]) -> Done {
        let (level, option) = (level.cast_unsigned(), option.cast_unsigned());
        let entry = opcode::SetSockOpt::new(
            Fd(socket.as_raw_fd()),
            level,
            option,
            value.as_ptr().cast(),
            size(value),
        )
        .build();
        self.perform("uring_setsockopt", &entry).map(drop)
    }

    /// Connects, then sends, in one chain that the kernel goes through by itself.
    pub(super) fn chain(&mut self, socket: &Sock, to: &Name, bytes: &[u8]) -> Done {
        let fd = Fd(socket.as_raw_fd());
        let connect = opcode::Connect::new(fd, to.as_ptr(), to.length()).build();
        let send = opcode::Send::new(fd, bytes.as_ptr(), size(bytes)).build();
        let connect = connect.flags(squeue::Flags::IO_LINK);
        // SAFETY: what the entry points to outlives the calls below, or the process ends.
        unsafe { self.0.submission().push(&connect) }
            .map_err(|_| Stop { at: "uring_chain", errno: libc::EBUSY })?;
        let first = self.perform("uring_connect", &send).map(drop);
        pause(50);
        first
    }
}

fn size(bytes: &[u8]) -> u32 {
    raw(i64::try_from(bytes.len()).unwrap_or_default()).cast_unsigned()
}
