//! Datagrams in batches: `recvmmsg(2)` and `sendmmsg(2)`, so that what measures costs less than what is measured.

use std::{
    io, mem,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr,
};

use crate::message::ROOM;

/// Datagrams in a batch.
pub(crate) const BATCH: usize = 64;

/// Room for a batch, whose headers lead to its own heap.
pub(crate) struct Batch {
    messages: Box<[[u8; ROOM]]>,
    names: Box<[libc::sockaddr_storage]>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

impl Batch {
    /// Without names: for connected sockets.
    pub(crate) fn connected() -> Self {
        Self::new(false)
    }

    /// With the sender's name beside each datagram, to which it is sent back.
    pub(crate) fn named() -> Self {
        Self::new(true)
    }

    fn new(named: bool) -> Self {
        let mut messages = vec![[0; ROOM]; BATCH].into_boxed_slice();
        // SAFETY: plain data, zero is valid.
        let zero: (libc::sockaddr_storage, libc::mmsghdr) = unsafe { mem::zeroed() };
        let mut names = vec![zero.0; BATCH].into_boxed_slice();
        let mut vectors: Box<[libc::iovec]> = messages
            .iter_mut()
            .map(|room| libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: ROOM })
            .collect();
        let mut headers = vec![zero.1; BATCH].into_boxed_slice();
        for ((header, name), vector) in headers.iter_mut().zip(&mut names).zip(&mut vectors) {
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            if named {
                header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            }
        }
        Self { messages, names, vectors, headers }
    }

    /// The room of one.
    pub(crate) fn room(&mut self, at: usize) -> &mut [u8; ROOM] {
        &mut self.messages[at]
    }

    /// One of those received last.
    pub(crate) fn received(&self, at: usize) -> &[u8] {
        let length = usize::try_from(self.headers[at].msg_len).unwrap_or(0);
        &self.messages[at][..length.min(ROOM)]
    }

    /// How much of one is sent; nothing of it if 0.
    pub(crate) fn set_length(&mut self, at: usize, length: usize) {
        self.vectors[at].iov_len = length.min(ROOM);
    }

    /// Receives; waits for the first only if told to. How many.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, wait: bool) -> io::Result<usize> {
        let name_length = libc::socklen_t::try_from(size_of_val(&self.names[0])).unwrap_or(0);
        for (header, vector) in self.headers.iter_mut().zip(&mut self.vectors) {
            vector.iov_len = ROOM;
            header.msg_hdr.msg_namelen = if header.msg_hdr.msg_name.is_null() { 0 } else { name_length };
        }
        let flags = if wait { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        let count = u32::try_from(BATCH).unwrap_or(0);
        let socket = socket.as_raw_fd();
        // SAFETY: every header leads to a name or none and to a vector, and that to a message, all owned by this value.
        let got = unsafe { libc::recvmmsg(socket, self.headers.as_mut_ptr(), count, flags, ptr::null_mut()) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    /// Sends the first `count`; how many of them left. One that fails is left out.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>, count: usize) -> usize {
        let (mut next, mut left) = (0, 0);
        while next < count {
            let rest = &mut self.headers[next..count];
            let number = u32::try_from(rest.len()).unwrap_or(0);
            // SAFETY: as above.
            let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), number, 0) };
            let sent = usize::try_from(sent).unwrap_or(0);
            left += sent;
            // An error is about the first of the rest.
            next += sent.max(1);
        }
        left
    }
}
