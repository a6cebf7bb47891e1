//! Sockets of one network namespace: [`PORTS`] consecutive UDP ports on both loopback addresses, TCP on the first.
//!
//! Opens them in whatever namespace it is told and comes back, or ends the process: a supervisor in the wrong namespace
//! would judge the wrong network.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    process,
};

use egress_common::question::PORTS;
use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{self, AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6},
};

/// Where free ports are looked for: outside of what clients get for their own sockets by default.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// How often.
const TRIES: u32 = 64;

/// Receive buffer of a UDP socket: some thousand questions.
const RECEIVE_BUFFER: libc::c_int = 4 << 20;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// One UDP socket.
#[derive(Debug)]
pub(super) struct Udp {
    /// The socket.
    pub(super) socket: OwnedFd,
    /// Its port.
    pub(super) port: u16,
    /// Whether it is on `::1`.
    pub(super) v6: bool,
    /// Datagrams that the kernel has dropped since it was opened, as far as [`Udp::lost`] knows.
    dropped: u32,
}

impl Udp {
    /// Datagrams that the kernel has dropped since the last call: its buffer was full.
    fn lost(&mut self) -> u64 {
        let dropped = dropped(self.socket.as_fd()).unwrap_or(self.dropped);
        let lost = dropped.wrapping_sub(std::mem::replace(&mut self.dropped, dropped));
        lost.into()
    }
}

/// The sockets of a network namespace.
#[derive(Debug)]
pub struct Listener {
    netns: u64,
    base: u16,
    loopback: bool,
    pub(super) udp: Vec<Udp>,
    pub(super) tcp: Vec<OwnedFd>,
}

impl Listener {
    /// Opens the sockets in the current network namespace: from this port on, or from a free one that is found.
    /// Without IPv6 in the kernel there are only those of IPv4.
    ///
    /// # Errors
    /// A port is taken, or the namespace has another cookie than expected.
    pub fn open(base: Option<u16>, netns_cookie: u64) -> io::Result<Self> {
        let Some(base) = base else {
            let mut last = io::Error::from(io::ErrorKind::AddrInUse);
            for _ in 0..TRIES {
                match Self::open_at(random_base()?, netns_cookie) {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                    result => return result,
                }
            }
            return Err(last);
        };
        Self::open_at(base, netns_cookie)
    }

    /// As [`Listener::open`], in another network namespace. For a process with one thread.
    ///
    /// # Errors
    /// As [`Listener::open`]; or the namespace cannot be entered.
    pub fn open_in(netns: BorrowedFd<'_>, base: Option<u16>, netns_cookie: u64) -> io::Result<Self> {
        let home = File::open("/proc/thread-self/ns/net")?;
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        let result = Self::open(base, netns_cookie);
        if setns(&home, CloneFlags::CLONE_NEWNET).is_err() {
            // Nothing after this would be where it is believed to be.
            process::abort();
        }
        result
    }

    fn open_at(base: u16, netns: u64) -> io::Result<Self> {
        let last = base.checked_add(PORTS - 1).ok_or(io::ErrorKind::InvalidInput)?;
        let mut udp = Vec::new();
        let mut tcp = Vec::new();
        for v6 in [false, true] {
            for port in base..=last {
                match bound(SockType::Datagram, port, v6) {
                    Ok(socket) => udp.push(Udp { socket, port, v6, dropped: 0 }),
                    Err(error) if v6 && no_ipv6(&error) => break,
                    Err(error) => return Err(error),
                }
            }
            if udp.last().is_some_and(|last| last.v6 == v6) {
                tcp.push(bound(SockType::Stream, base, v6)?);
            }
        }
        let other = |cookie: u64| cookie != netns;
        if udp.iter().any(|udp| netns_cookie(udp.socket.as_fd()).is_some_and(other)) {
            return Err(io::Error::other("the network namespace is not the one that was expected"));
        }
        Ok(Self { netns, base, loopback: loopback_is_up(), udp, tcp })
    }

    /// The same, with the cookie that its namespace turned out to have.
    #[must_use]
    pub fn with_netns(self, netns: u64) -> Self {
        Self { netns, ..self }
    }

    /// Cookie of its network namespace.
    pub fn netns(&self) -> u64 {
        self.netns
    }

    /// Its first port.
    pub fn base(&self) -> u16 {
        self.base
    }

    /// Questions that have got lost in full buffers since the last call.
    pub(super) fn lost(&mut self) -> u64 {
        self.udp.iter_mut().map(Udp::lost).sum()
    }

    /// Whether the loopback interface was up when it was opened; if not, no question reaches it.
    pub fn loopback_was_up(&self) -> bool {
        self.loopback
    }
}

/// Whether the loopback interface of the current network namespace is up.
pub fn loopback_is_up() -> bool {
    let Ok(socket) = socket::socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
    else {
        return false;
    };
    // SAFETY: plain data, zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed() as libc::c_char;
    }
    // SAFETY: the request is a whole `ifreq` with a name that ends in zero.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) };
    // SAFETY: the kernel filled the flags when the call succeeded.
    result == 0 && i32::from(unsafe { request.ifr_ifru.ifru_flags }) & libc::IFF_UP != 0
}

/// Cookie of the network namespace of a socket, as eBPF programs see it; `None` before Linux 5.14.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> Option<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).ok()?;
    // SAFETY: the value is ours and as long as said.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(cookie)
}

/// Datagrams that the kernel has dropped at a socket, modulo 2^32; `None` before Linux 4.12.
fn dropped(socket: BorrowedFd<'_>) -> Option<u32> {
    let mut values = [0_u32; SK_MEMINFO_DROPS + 1];
    let mut length = libc::socklen_t::try_from(size_of_val(&values)).ok()?;
    // SAFETY: the values are ours and as long as said.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (result == 0 && length as usize == size_of_val(&values)).then(|| values[SK_MEMINFO_DROPS])
}

/// Index into what `SO_MEMINFO` gives (`linux/sock_diag.h`).
const SK_MEMINFO_DROPS: usize = 8;

/// Cookie of the current network namespace; `None` before Linux 5.14.
pub fn own_netns_cookie() -> Option<u64> {
    let socket =
        socket::socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    netns_cookie(socket.as_fd())
}

/// `SO_NETNS_COOKIE` of Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// A bound socket, a listening one if it is of TCP.
fn bound(kind: SockType, port: u16, v6: bool) -> io::Result<OwnedFd> {
    let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(family, kind, flags, None::<SockProtocol>)?;
    if v6 {
        option(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        option(&socket, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, 1)?;
    } else {
        option(&socket, libc::IPPROTO_IP, libc::IP_FREEBIND, 1)?;
    }
    // Nothing that it sends may leave the host, wherever a client says that it is.
    socket::setsockopt(&socket, socket::sockopt::BindToDevice, &"lo".into())?;
    if kind == SockType::Stream {
        option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    } else if option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER).is_err() {
        option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER)?;
    }
    if v6 {
        let address = SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0);
        socket::bind(socket.as_raw_fd(), &SockaddrIn6::from(address))?;
    } else {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        socket::bind(socket.as_raw_fd(), &SockaddrIn::from(address))?;
    }
    if kind == SockType::Stream {
        socket::listen(&socket, Backlog::new(BACKLOG)?)?;
    }
    Ok(socket)
}

fn option(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    // SAFETY: the value is ours and as long as said.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The kernel has no IPv6, or it is switched off in this namespace.
fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn random_base() -> io::Result<u16> {
    let mut bytes = [0; 2];
    // SAFETY: the buffer is ours and as long as said.
    let length = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if length != 2 {
        return Err(io::Error::last_os_error());
    }
    Ok(RANGE.start + u16::from_ne_bytes(bytes) % (RANGE.end - RANGE.start))
}

/// Takes a connection that waits, without waiting for one.
pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, std::net::SocketAddr)> {
    // SAFETY: plain data, zero is valid.
    let mut name: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length =
        libc::socklen_t::try_from(size_of::<libc::sockaddr_storage>()).map_err(io::Error::other)?;
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the name is ours and as long as said.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), (&raw mut name).cast(), &raw mut length, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let from = super::batch::address(&name).ok_or(io::ErrorKind::InvalidData)?;
    Ok((socket, from))
}

#[cfg(test)]
mod tests;
