//! System calls as attacks make them: each gives what it made, or where it stopped and the errno. Never waits long.

use std::{
    ffi::CString,
    mem::{size_of, zeroed},
    net::SocketAddr,
    os::{
        fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Where an attack was stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stop {
    /// The call, in one word.
    pub at: &'static str,
    /// Its errno.
    pub errno: i32,
}

/// Success, or where it stopped.
pub(super) type Done<T = ()> = Result<T, Stop>;

/// No socket call waits longer.
const PATIENCE: Duration = Duration::from_millis(1_500);

static LONGEST: AtomicU64 = AtomicU64::new(0);

/// How long the longest call of this process took that was not meant to wait.
pub(super) fn longest() -> Duration {
    Duration::from_micros(LONGEST.load(Ordering::Relaxed))
}

/// Makes a call that answers at once, and remembers how long it took.
pub(super) fn call(at: &'static str, work: impl FnOnce() -> libc::c_long) -> Done<libc::c_long> {
    let start = Instant::now();
    let result = wait(at, work);
    let took = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    LONGEST.fetch_max(took, Ordering::Relaxed);
    result
}

/// Makes a call that waits for somebody.
pub(super) fn wait(at: &'static str, work: impl FnOnce() -> libc::c_long) -> Done<libc::c_long> {
    match work() {
        -1 => Err(Stop { at, errno: std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) }),
        result => Ok(result),
    }
}

/// Stops by an attack's own finding.
pub(super) const fn stop<T>(at: &'static str, errno: i32) -> Done<T> {
    Err(Stop { at, errno })
}

/// Of the standard library's error.
pub(super) fn of_io(at: &'static str) -> impl FnOnce(std::io::Error) -> Stop {
    move |error| Stop { at, errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

/// A descriptor from a call that made one.
pub(super) fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel just gave the descriptor to us.
    unsafe { OwnedFd::from_raw_fd(raw(fd)) }
}

/// A call's result as the number it is.
pub(super) fn raw(number: libc::c_long) -> i32 {
    i32::try_from(number).unwrap_or(-1)
}

/// A small length as the kernel takes it.
pub(super) fn length(bytes: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes).unwrap_or(libc::socklen_t::MAX)
}

/// A path as the kernel takes it.
pub(super) fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// A socket address, byte for byte.
#[derive(Clone, Debug)]
pub(super) struct Name(pub(super) Vec<u8>);

impl Name {
    /// Of an internet address.
    pub(super) fn of(address: SocketAddr) -> Self {
        let mut bytes = Vec::with_capacity(28);
        match address {
            SocketAddr::V4(v4) => {
                bytes.extend(family(libc::AF_INET));
                bytes.extend(v4.port().to_be_bytes());
                bytes.extend(v4.ip().octets());
                bytes.extend([0; 8]);
            }
            SocketAddr::V6(v6) => {
                bytes.extend(family(libc::AF_INET6));
                bytes.extend(v6.port().to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(v6.ip().octets());
                bytes.extend(v6.scope_id().to_ne_bytes());
            }
        }
        Self(bytes)
    }

    /// The same with family AF_UNSPEC.
    pub(super) fn unspecified(address: SocketAddr) -> Self {
        let mut name = Self::of(address);
        name.0[..2].copy_from_slice(&family(libc::AF_UNSPEC));
        name
    }

    /// Of a unix socket with a path.
    pub(super) fn path(path: &Path) -> Self {
        let mut bytes = family(libc::AF_UNIX).to_vec();
        bytes.extend(path.as_os_str().as_bytes());
        bytes.push(0);
        Self(bytes)
    }

    /// Of a unix socket with an abstract name.
    pub(super) fn abstracted(name: &str) -> Self {
        let mut bytes = family(libc::AF_UNIX).to_vec();
        bytes.push(0);
        bytes.extend(name.as_bytes());
        Self(bytes)
    }

    pub(super) fn as_ptr(&self) -> *const libc::sockaddr {
        self.0.as_ptr().cast()
    }

    pub(super) fn length(&self) -> libc::socklen_t {
        length(self.0.len())
    }
}

impl From<SocketAddr> for Name {
    fn from(address: SocketAddr) -> Self {
        Self::of(address)
    }
}

fn family(family: i32) -> [u8; 2] {
    u16::try_from(family).unwrap_or_default().to_ne_bytes()
}

/// A socket whose calls end soon.
#[derive(Debug)]
pub(super) struct Sock(OwnedFd);

impl AsRawFd for Sock {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl From<OwnedFd> for Sock {
    fn from(fd: OwnedFd) -> Self {
        let socket = Self(fd);
        let time = libc::timeval {
            tv_sec: PATIENCE.as_secs().cast_signed(),
            tv_usec: i64::from(PATIENCE.subsec_micros()),
        };
        // SAFETY: a plain structure of two numbers.
        let bytes =
            unsafe { std::slice::from_raw_parts((&raw const time).cast::<u8>(), size_of::<libc::timeval>()) };
        for option in [libc::SO_SNDTIMEO, libc::SO_RCVTIMEO] {
            let _not_a_socket = socket.option("patience", libc::SOL_SOCKET, option, bytes);
        }
        socket
    }
}

impl From<Sock> for OwnedFd {
    fn from(socket: Sock) -> Self {
        socket.0
    }
}

impl Sock {
    pub(super) fn open(family: i32, kind: i32, protocol: i32) -> Done<Self> {
        // SAFETY: no pointers.
        let fd =
            call("socket", || unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) }.into())?;
        Ok(owned(fd).into())
    }

    pub(super) fn tcp4() -> Done<Self> {
        Self::open(libc::AF_INET, libc::SOCK_STREAM, 0)
    }

    pub(super) fn tcp6() -> Done<Self> {
        Self::open(libc::AF_INET6, libc::SOCK_STREAM, 0)
    }

    pub(super) fn udp4() -> Done<Self> {
        Self::open(libc::AF_INET, libc::SOCK_DGRAM, 0)
    }

    pub(super) fn udp6() -> Done<Self> {
        Self::open(libc::AF_INET6, libc::SOCK_DGRAM, 0)
    }

    pub(super) fn connect(&self, to: impl Into<Name>) -> Done {
        let to = to.into();
        // SAFETY: the name lives through the call.
        call("connect", || unsafe { libc::connect(self.as_raw_fd(), to.as_ptr(), to.length()) }.into())
            .map(drop)
    }

    /// Dissolves the association.
    pub(super) fn disconnect(&self) -> Done {
        self.connect(Name::unspecified(([0, 0, 0, 0], 0).into()))
    }

    pub(super) fn bind(&self, to: impl Into<Name>) -> Done {
        let to = to.into();
        // SAFETY: the name lives through the call.
        call("bind", || unsafe { libc::bind(self.as_raw_fd(), to.as_ptr(), to.length()) }.into()).map(drop)
    }

    pub(super) fn listen(&self) -> Done {
        // SAFETY: no pointers.
        call("listen", || unsafe { libc::listen(self.as_raw_fd(), 4_096) }.into()).map(drop)
    }

    /// Waits for somebody to connect.
    pub(super) fn accept(&self) -> Done<Self> {
        // SAFETY: null asks for no address.
        let accept = || unsafe { libc::accept(self.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) };
        wait("accept", || accept().into()).map(|fd| owned(fd).into())
    }

    /// Waits for a datagram; where it came from.
    pub(super) fn receive_from(&self) -> Done<Name> {
        let mut buffer = [0_u8; 2048];
        let mut from = vec![0_u8; 128];
        let mut size = length(from.len());
        // SAFETY: both buffers are ours and as long as we say.
        wait("recvfrom", || unsafe {
            libc::recvfrom(
                self.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                from.as_mut_ptr().cast(),
                &raw mut size,
            ) as libc::c_long
        })?;
        from.truncate(size as usize);
        Ok(Name(from))
    }

    pub(super) fn send(&self, bytes: &[u8]) -> Done {
        self.send_flagged(bytes, 0)
    }

    pub(super) fn send_flagged(&self, bytes: &[u8], flags: i32) -> Done {
        let flags = flags | libc::MSG_NOSIGNAL;
        // SAFETY: the bytes live through the call.
        call("send", || unsafe {
            libc::send(self.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) as libc::c_long
        })
        .map(drop)
    }

    pub(super) fn send_to(&self, to: impl Into<Name>, bytes: &[u8]) -> Done {
        self.send_to_flagged(to, bytes, 0)
    }

    pub(super) fn send_to_flagged(&self, to: impl Into<Name>, bytes: &[u8], flags: i32) -> Done {
        let (to, flags) = (to.into(), flags | libc::MSG_NOSIGNAL);
        // SAFETY: name and bytes live through the call.
        call("sendto", || unsafe {
            libc::sendto(
                self.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                flags,
                to.as_ptr(),
                to.length(),
            ) as libc::c_long
        })
        .map(drop)
    }

    /// Sends with one control message, of (level, type, data).
    pub(super) fn send_with(&self, control: (i32, i32, &[u8]), to: Option<&Name>, bytes: &[u8]) -> Done {
        let (level, kind, data) = control;
        let mut parts = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut room = [0_u64; 64];
        let mut message = header(&mut parts, to);
        message.msg_control = room.as_mut_ptr().cast();
        // SAFETY: the buffer is aligned and the length checked; `data` fits in it.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(length(data.len())) as usize;
            if message.msg_controllen > size_of_val(&room) {
                return stop("sendmsg", libc::E2BIG);
            }
            let first = libc::CMSG_FIRSTHDR(&raw const message);
            (*first).cmsg_level = level;
            (*first).cmsg_type = kind;
            (*first).cmsg_len = libc::CMSG_LEN(length(data.len())) as usize;
            std::ptr::copy_nonoverlapping(data.as_ptr(), libc::CMSG_DATA(first), data.len());
            let send =
                || libc::sendmsg(self.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) as libc::c_long;
            call("sendmsg", send).map(drop)
        }
    }

    /// Two messages by sendmmsg, and the second one again, which the first call may have left out.
    pub(super) fn send_two(&self, first: (&Name, &[u8]), second: (&Name, &[u8])) -> Done {
        for messages in [&[first, second][..], &[second]] {
            let mut parts: Vec<libc::iovec> = messages
                .iter()
                .map(|(_, bytes)| libc::iovec {
                    iov_base: bytes.as_ptr().cast_mut().cast(),
                    iov_len: bytes.len(),
                })
                .collect();
            let named = parts.iter_mut().zip(messages);
            let mut headers: Vec<libc::mmsghdr> = named
                .map(|(part, (name, _))| libc::mmsghdr { msg_hdr: header(part, Some(name)), msg_len: 0 })
                .collect();
            // SAFETY: headers, parts, names and bytes live through the call.
            call("sendmmsg", || unsafe {
                libc::sendmmsg(self.as_raw_fd(), headers.as_mut_ptr(), length(headers.len()), 0).into()
            })?;
        }
        Ok(())
    }

    pub(super) fn option(&self, at: &'static str, level: i32, option: i32, value: &[u8]) -> Done {
        // SAFETY: the value lives through the call.
        call(at, || unsafe {
            libc::setsockopt(self.as_raw_fd(), level, option, value.as_ptr().cast(), length(value.len()))
                .into()
        })
        .map(drop)
    }

    pub(super) fn number(&self, at: &'static str, level: i32, option: i32, value: i32) -> Done {
        self.option(at, level, option, &value.to_ne_bytes())
    }

    /// Writes as to a file.
    pub(super) fn write(&self, bytes: &[u8]) -> Done {
        write("write", self.as_raw_fd(), bytes)
    }
}

/// Writes to a descriptor.
pub(super) fn write(at: &'static str, fd: RawFd, bytes: &[u8]) -> Done {
    // SAFETY: the bytes live through the call.
    call(at, || unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) as libc::c_long }).map(drop)
}

/// Writes to a file, opened anew.
pub(super) fn write_file(at: &'static str, path: &Path, text: &str) -> Done {
    let path = c_path(path);
    // SAFETY: the path lives through the call.
    let fd = call("open", || unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) }.into())?;
    write(at, owned(fd).as_raw_fd(), text.as_bytes())
}

/// A message header over one part.
pub(super) fn header(parts: &mut libc::iovec, to: Option<&Name>) -> libc::msghdr {
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

/// Waits a moment, meant to.
pub(super) fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Waits a moment for what was done to take effect.
pub(super) fn settle(milliseconds: u64) -> Done {
    pause(milliseconds);
    Ok(())
}
