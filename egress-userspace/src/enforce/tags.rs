//! What the hooks keep on a socket: receives a descriptor of one, says whether a program of the scope has seen it, and marks
//! those that are of the scope and older than its programs.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use egress_common::Tag;

use super::{EnforceError, Engine, sys};

impl Engine {
    /// The socket's tag; `None` if no program of the scope has seen it.
    ///
    /// # Errors
    /// `bpf(2)`; EINVAL if it is no socket.
    pub fn tag(&self, socket: BorrowedFd<'_>) -> Result<Option<Tag>, EnforceError> {
        match sys::map_lookup(self.map("TAGS")?, &socket.as_raw_fd()) {
            Ok(tag) => Ok(Some(tag)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(EnforceError::other("read a socket's tag", error)),
        }
    }

    /// Tags a socket as one of the scope, unless a program of the scope has done so meanwhile. Approves nothing.
    ///
    /// # Errors
    /// `bpf(2)`; ENOMEM if the socket's option memory is used up.
    pub fn adopt(&self, socket: BorrowedFd<'_>, scope: u64) -> Result<(), EnforceError> {
        let tag = Tag { scope, ..Tag::default() };
        let exists = |error: &io::Error| error.raw_os_error() == Some(libc::EEXIST);
        match sys::map_update(self.map("TAGS")?, &socket.as_raw_fd(), &tag, sys::NEW) {
            Err(error) if !exists(&error) => Err(EnforceError::other("tag a socket", error)),
            _ => Ok(()),
        }
    }

    /// Writes a TCP socket's tag anew, so that what it approves is approved in another epoch. Whatever the program does
    /// meanwhile, that peer and no other is approved. Not for datagram sockets: a mark that they moved would get lost.
    ///
    /// # Errors
    /// `bpf(2)`.
    pub fn approve(&self, socket: BorrowedFd<'_>, tag: &Tag) -> Result<(), EnforceError> {
        sys::map_update(self.map("TAGS")?, &socket.as_raw_fd(), tag, sys::ANY)
            .map_err(|error| EnforceError::other("approve a socket anew", error))
    }
}
