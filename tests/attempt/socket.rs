//! A socket as the kernel has it: calls that the standard library does not offer, errno as a number.

use std::{
    mem::{size_of, zeroed},
    net::{SocketAddr, SocketAddrV6},
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use crate::steps::Done;

/// Nothing here waits longer.
const PATIENCE_MS: i64 = 300;

/// A socket whose calls end within [`PATIENCE_MS`].
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

/// A socket address in the kernel's form.
pub(crate) struct Name {
    storage: libc::sockaddr_storage,
    length: libc::socklen_t,
}

impl Name {
    /// Of an address.
    pub(crate) fn of(address: SocketAddr) -> Self {
        // SAFETY: all zero is a valid socket address storage.
        let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
        let length = match address {
            SocketAddr::V4(v4) => {
                let name = libc::sockaddr_in {
                    sin_family: family(libc::AF_INET),
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: the storage is larger than, and aligned for, every kind of address.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(name) };
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                let name = libc::sockaddr_in6 {
                    sin6_family: family(libc::AF_INET6),
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: as above.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(name) };
                size_of::<libc::sockaddr_in6>()
            }
        };
        Self { storage, length: small(length) }
    }

    /// Of a unix socket: a path, or `@` and an abstract name.
    pub(crate) fn of_unix(text: &str) -> Option<Self> {
        let (name, end) = match text.strip_prefix('@') {
            Some(name) => ([&[0], name.as_bytes()].concat(), 0),
            None => (text.as_bytes().to_vec(), 1),
        };
        // SAFETY: all zero is a valid socket address storage.
        let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
        storage.ss_family = family(libc::AF_UNIX);
        // SAFETY: the storage is larger than, and aligned for, every kind of address.
        let place = unsafe { &mut (*(&raw mut storage).cast::<libc::sockaddr_un>()).sun_path };
        for (to, from) in place.get_mut(..name.len())?.iter_mut().zip(&name) {
            *to = std::ffi::c_char::from_ne_bytes([*from]);
        }
        let length = size_of::<libc::sa_family_t>() + (name.len() + end).min(place.len());
        Some(Self { storage, length: small(length) })
    }

    /// Of family AF_UNSPEC, otherwise like `address`.
    pub(crate) fn unspecified(address: Option<SocketAddr>) -> Self {
        let mut name = address.map_or_else(|| Self::of(([0, 0, 0, 0], 0).into()), Self::of);
        name.storage.ss_family = family(libc::AF_UNSPEC);
        name
    }

    /// Has a call write an address here.
    pub(crate) fn offer<T>(
        &mut self,
        call: impl FnOnce(*mut libc::sockaddr_storage, &mut libc::socklen_t) -> T,
    ) -> T {
        self.length = small(size_of::<libc::sockaddr_storage>());
        call(&raw mut self.storage, &mut self.length)
    }

    /// The address, if it is one of IP.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the storage is larger than every address, and the family says which one it holds.
                let name = unsafe { *(&raw const self.storage).cast::<libc::sockaddr_in>() };
                Some((name.sin_addr.s_addr.to_ne_bytes(), u16::from_be(name.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let name = unsafe { *(&raw const self.storage).cast::<libc::sockaddr_in6>() };
                let port = u16::from_be(name.sin6_port);
                Some(SocketAddrV6::new(name.sin6_addr.s6_addr.into(), port, 0, name.sin6_scope_id).into())
            }
            _ => None,
        }
    }

    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    pub(crate) const fn length(&self) -> libc::socklen_t {
        self.length
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Socket {
    /// Opens one; `None` if the words are not understood.
    pub(crate) fn open(family: &str, kind: &str, protocol: i32) -> Option<Result<Self, i32>> {
        let family = match family {
            "inet" => libc::AF_INET,
            "inet6" => libc::AF_INET6,
            "unix" => libc::AF_UNIX,
            _ => return None,
        };
        let kind = match kind {
            "stream" => libc::SOCK_STREAM,
            "dgram" => libc::SOCK_DGRAM,
            "raw" => libc::SOCK_RAW,
            "seqpacket" => libc::SOCK_SEQPACKET,
            _ => return None,
        };
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
        Some(check(fd).and_then(|()| Self::adopt(fd)))
    }

    fn adopt(fd: RawFd) -> Result<Self, i32> {
        // SAFETY: the kernel just gave the descriptor to us.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        socket.patience(PATIENCE_MS)?;
        Ok(socket)
    }

    /// Lets the socket's calls take this long.
    pub(crate) fn patience(&self, milliseconds: i64) -> Done {
        let patience = libc::timeval { tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000 };
        for option in [libc::SO_SNDTIMEO, libc::SO_RCVTIMEO] {
            // SAFETY: the option lives through the call and has the size we say.
            check(unsafe {
                libc::setsockopt(
                    self.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const patience).cast(),
                    small(size_of::<libc::timeval>()),
                )
            })?;
        }
        Ok(())
    }

    pub(crate) fn bind(&self, to: &Name) -> Done {
        // SAFETY: the name lives through the call.
        check(unsafe { libc::bind(self.as_raw_fd(), to.as_ptr(), to.length()) })
    }

    pub(crate) fn listen(&self) -> Done {
        // SAFETY: no pointers.
        check(unsafe { libc::listen(self.as_raw_fd(), 8) })
    }

    pub(crate) fn accept(&self) -> Result<Self, i32> {
        // SAFETY: null asks for no address.
        let fd = unsafe { libc::accept(self.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) };
        check(fd)?;
        Self::adopt(fd)
    }

    pub(crate) fn connect(&self, to: &Name) -> Done {
        // SAFETY: the name lives through the call.
        check(unsafe { libc::connect(self.as_raw_fd(), to.as_ptr(), to.length()) })
    }

    /// Starts to connect and goes on.
    pub(crate) fn connect_without_waiting(&self, to: &Name) -> Done {
        // SAFETY: no pointers.
        check(unsafe { libc::fcntl(self.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
        self.connect(to)
    }

    /// As glibc's getaddrinfo asks for its own source address: connect, then read the local name.
    pub(crate) fn probe(&self, to: &Name) -> Done {
        self.connect(to)?;
        let mut local = Name::unspecified(None);
        local.length = small(size_of::<libc::sockaddr_storage>());
        // SAFETY: the kernel writes at most the length it is told.
        check(unsafe {
            libc::getsockname(self.as_raw_fd(), (&raw mut local.storage).cast(), &raw mut local.length)
        })
    }

    pub(crate) fn send(&self, bytes: &[u8], flags: i32) -> Done {
        // SAFETY: the bytes live through the call.
        sent(unsafe {
            libc::send(self.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags | libc::MSG_NOSIGNAL)
        })
    }

    pub(crate) fn send_to(&self, to: &Name, bytes: &[u8], flags: i32) -> Done {
        // SAFETY: name and bytes live through the call.
        sent(unsafe {
            libc::sendto(
                self.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                flags | libc::MSG_NOSIGNAL,
                to.as_ptr(),
                to.length(),
            )
        })
    }

    /// One sendmmsg call after the other until all are sent or one is refused.
    pub(crate) fn send_many(&self, names: &[Name], bytes: &[u8]) -> Done {
        let mut parts = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut messages: Vec<libc::mmsghdr> = names
            .iter()
            .map(|name| libc::mmsghdr { msg_hdr: header(&mut parts, Some(name)), msg_len: 0 })
            .collect();
        let mut done = 0;
        while done < messages.len() {
            let rest = &mut messages[done..];
            let count = u32::try_from(rest.len()).map_err(|_| libc::E2BIG)?;
            // SAFETY: headers, names and bytes live through the call.
            let sent = unsafe { libc::sendmmsg(self.as_raw_fd(), rest.as_mut_ptr(), count, 0) };
            check(sent)?;
            done += usize::try_from(sent).map_err(|_| libc::EIO)?;
        }
        Ok(())
    }

    /// Sends with one control message.
    pub(crate) fn send_with(
        &self,
        level: i32,
        kind: i32,
        data: &[u8],
        to: Option<&Name>,
        bytes: &[u8],
    ) -> Done {
        let mut parts = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut control = [0_u64; 32];
        let mut message = header(&mut parts, to);
        let length = u32::try_from(data.len()).map_err(|_| libc::E2BIG)?;
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: the buffer is aligned and larger than any control message of the tests; `data` fits in it.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(length) as usize;
            assert!(message.msg_controllen <= size_of_val(&control), "the control message fits");
            let first = libc::CMSG_FIRSTHDR(&raw const message);
            (*first).cmsg_level = level;
            (*first).cmsg_type = kind;
            (*first).cmsg_len = libc::CMSG_LEN(length) as usize;
            std::ptr::copy_nonoverlapping(data.as_ptr(), libc::CMSG_DATA(first), data.len());
            sent(libc::sendmsg(self.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL))
        }
    }

    pub(crate) fn option(&self, level: i32, option: i32, value: &[u8]) -> Done {
        // SAFETY: the value lives through the call.
        check(unsafe {
            libc::setsockopt(self.as_raw_fd(), level, option, value.as_ptr().cast(), small(value.len()))
        })
    }

    pub(crate) fn borrow(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(crate) fn is_stream(&self) -> bool {
        nix::sys::socket::getsockopt(&self.0, nix::sys::socket::sockopt::SockType)
            == Ok(nix::sys::socket::SockType::Stream)
    }

    pub(crate) fn peer(&self) -> Result<SocketAddr, i32> {
        let mut name = Name::unspecified(None);
        let fd = self.as_raw_fd();
        // SAFETY: the kernel writes at most the length it is told.
        check(name.offer(|storage, length| unsafe { libc::getpeername(fd, storage.cast(), length) }))?;
        name.address().ok_or(libc::EAFNOSUPPORT)
    }

    /// At most so many bytes of a stream; none at its end.
    pub(crate) fn read(&self, most: usize) -> Result<Vec<u8>, i32> {
        let mut bytes = vec![0; most];
        let read = nix::unistd::read(&self.0, &mut bytes).map_err(|errno| errno as i32)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Receives a datagram and sends it back.
    pub(crate) fn echo(&self) -> Done {
        let mut from = Name::unspecified(None);
        let (fd, mut buffer) = (self.as_raw_fd(), [0_u8; 64]);
        // SAFETY: the kernel writes at most the lengths it is told.
        let received = from.offer(|storage, length| unsafe {
            libc::recvfrom(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0, storage.cast(), length)
        });
        sent(received)?;
        self.send_to(&from, &buffer[..received.unsigned_abs()], 0)
    }

    /// Takes the descriptors that are given over the socket.
    pub(crate) fn take(&self) -> Result<Vec<Self>, i32> {
        use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
        let mut bytes = [0_u8; 64];
        let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
        let mut control = nix::cmsg_space!([RawFd; 4]);
        let message = recvmsg::<()>(self.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())
            .map_err(|errno| errno as i32)?;
        let mut taken = Vec::new();
        for part in message.cmsgs().map_err(|errno| errno as i32)? {
            if let ControlMessageOwned::ScmRights(descriptors) = part {
                // SAFETY: the kernel just gave the descriptors to us.
                taken.extend(descriptors.into_iter().map(|fd| Self(unsafe { OwnedFd::from_raw_fd(fd) })));
            }
        }
        if taken.is_empty() { Err(libc::ENOMSG) } else { Ok(taken) }
    }

    pub(crate) fn receive(&self) -> Done {
        let mut buffer = [0_u8; 2048];
        // SAFETY: the kernel writes at most the buffer's length.
        sent(unsafe { libc::recv(self.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) })
    }
}

/// A message header over one part.
pub(crate) fn header(parts: &mut libc::iovec, to: Option<&Name>) -> libc::msghdr {
    // SAFETY: all zero is a valid empty header.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = parts;
    message.msg_iovlen = 1;
    if let Some(to) = to {
        message.msg_name = to.as_ptr().cast_mut().cast();
        message.msg_namelen = to.length();
    }
    message
}

fn check(result: i32) -> Done {
    sent(result as isize)
}

fn sent(result: isize) -> Done {
    if result >= 0 {
        return Ok(());
    }
    Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

fn family(number: i32) -> libc::sa_family_t {
    libc::sa_family_t::try_from(number).expect("families are small numbers")
}

fn small(size: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(size).expect("sizes of addresses and options are small")
}
