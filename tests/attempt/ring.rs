//! The same through io_uring: the kernel does the work, inline or on a thread of its own.

use std::os::fd::AsRawFd as _;

use io_uring::{
    IoUring, cqueue, opcode, squeue,
    types::{Fd, SubmitArgs, Timespec},
};

use crate::{
    socket::{Name, Socket, header},
    steps::Done,
};

/// Connects; with `polled` a kernel thread takes the request up.
pub(crate) fn connect(socket: &Socket, to: &Name, polled: bool) -> Done {
    let entry = opcode::Connect::new(Fd(socket.as_raw_fd()), to.as_ptr(), to.length()).build();
    perform(&entry, polled)
}

/// Sends a datagram with an address.
pub(crate) fn sendmsg(socket: &Socket, to: &Name, bytes: &[u8], polled: bool) -> Done {
    let mut parts = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let message = header(&mut parts, Some(to));
    let entry = opcode::SendMsg::new(Fd(socket.as_raw_fd()), &raw const message).build();
    perform(&entry, polled)
}

fn perform(entry: &squeue::Entry, polled: bool) -> Done {
    let mut builder = IoUring::<squeue::Entry, cqueue::Entry>::builder();
    if polled {
        builder.setup_sqpoll(50);
    }
    let mut ring = builder.build(4).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
    // SAFETY: what the entry points to outlives the wait below.
    unsafe { ring.submission().push(entry) }.map_err(|_| libc::EBUSY)?;
    let patience = Timespec::new().nsec(300_000_000);
    let wait = SubmitArgs::new().timespec(&patience);
    ring.submitter().submit_with_args(1, &wait).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
    match ring.completion().next().map(|done: cqueue::Entry| done.result()) {
        Some(result) if result < 0 => Err(-result),
        Some(_) => Ok(()),
        None => Err(libc::ETIME),
    }
}
