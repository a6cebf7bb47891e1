//! Sockets that processes have open: receives a process, gives a descriptor of our own for each of its internet sockets, and
//! silences those that no hook would ever see. Judges nothing.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

/// `SIOCGSKNS`: the network namespace of a socket.
const NAMESPACE_OF_SOCKET: libc::Ioctl = 0x894c;

/// An internet socket that a process has open.
#[derive(Debug)]
pub(super) struct Held {
    /// Whose.
    pub(super) process: u32,
    /// Its inode, as the kernel's list of sockets has it.
    pub(super) inode: u32,
    /// `SOCK_STREAM` …
    pub(super) kind: i32,
    /// `IPPROTO_TCP` …
    pub(super) protocol: i32,
    socket: OwnedFd,
}

/// The internet sockets of a process, each once, apart from those in `known`, which grows by what is found. Those that
/// the process opens meanwhile may be missing.
///
/// # Errors
/// The process is gone, or a descriptor cannot be taken from it (Linux 5.6).
pub(super) fn sockets(process: u32, known: &mut std::collections::BTreeSet<u32>) -> io::Result<Vec<Held>> {
    let mut found = Vec::new();
    let mut handle: Option<OwnedFd> = None;
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Some(inode) = fs::read_link(entry.path()).ok().and_then(|link| socket_inode(link.to_str()?))
        else {
            continue;
        };
        if !known.insert(inode) {
            continue;
        }
        let handle = match &handle {
            Some(handle) => handle,
            None => handle.insert(open_process(process)?),
        };
        match take(handle.as_fd(), number) {
            Ok(socket) => found.extend(Held::new(process, inode, socket)),
            // Closed meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// `socket:[4711]`
fn socket_inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn open_process(process: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; makes a descriptor.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) })
}

fn take(process: BorrowedFd<'_>, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; makes a descriptor.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: the kernel just gave this descriptor to us alone.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Held {
    /// `None` if it is of another family.
    fn new(process: u32, inode: u32, socket: OwnedFd) -> Option<Self> {
        let option = |name| get(socket.as_fd(), libc::SOL_SOCKET, name).ok();
        let internet = matches!(option(libc::SO_DOMAIN)?, libc::AF_INET | libc::AF_INET6);
        let (kind, protocol) = (option(libc::SO_TYPE)?, option(libc::SO_PROTOCOL)?);
        internet.then_some(Self { process, inode, kind, protocol, socket })
    }

    /// Its network namespace.
    pub(super) fn namespace(&self) -> io::Result<File> {
        // SAFETY: an open socket; makes a descriptor.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), NAMESPACE_OF_SOCKET) };
        owned(result.into()).map(File::from)
    }

    /// Whether the hooks of the scope see what is done with it: they refuse to set a mark, which changes nothing here, since
    /// it is the one that the socket has.
    pub(super) fn is_seen_by_hooks(&self) -> io::Result<bool> {
        let mark = get(self.socket.as_fd(), libc::SOL_SOCKET, libc::SO_MARK)?;
        match set(self.socket.as_fd(), libc::SOL_SOCKET, libc::SO_MARK, mark) {
            Ok(()) => Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Sees to it that nothing is ever sent by it again, whatever an ordinary process does with it. A TCP socket is put into
    /// repair, in which the kernel sends nothing, and which it takes CAP_NET_ADMIN to leave: a shutdown would be undone by
    /// a connect to nowhere. What knows no repair is shut down for good.
    pub(super) fn silence(&self) -> io::Result<()> {
        if self.protocol == libc::IPPROTO_TCP {
            return set(self.socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_REPAIR, 1);
        }
        // SAFETY: an open socket.
        let result = unsafe { libc::shutdown(self.socket.as_raw_fd(), libc::SHUT_RDWR) };
        let error = io::Error::last_os_error();
        // Without a peer the kernel says so, and shuts down all the same.
        if result == 0 || error.raw_os_error() == Some(libc::ENOTCONN) { Ok(()) } else { Err(error) }
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn get(socket: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0_i32;
    let mut size = libc::socklen_t::try_from(size_of::<i32>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the value is as long as its length says.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut size) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

fn set(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<i32>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the value is as long as its length says.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        net::{TcpListener, TcpStream, UdpSocket},
        os::unix::net::UnixStream,
    };

    use super::*;

    #[test]
    fn internet_sockets_of_a_process_are_found_once() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let copy = listener.try_clone().expect("duplicate");
        let (_unix, _other) = UnixStream::pair().expect("a pair");
        let mut known = BTreeSet::new();
        let found = sockets(std::process::id(), &mut known).expect("own sockets");
        let link = fs::read_link(format!("/proc/self/fd/{}", copy.as_raw_fd())).expect("a link");
        let inode = socket_inode(link.to_str().expect("text")).expect("a socket");
        let mine: Vec<_> = found.iter().filter(|held| held.inode == inode).collect();
        assert_eq!(mine.len(), 1);
        assert_eq!((mine[0].kind, mine[0].protocol), (libc::SOCK_STREAM, libc::IPPROTO_TCP));
        mine[0].namespace().expect("its namespace");
        let again = sockets(std::process::id(), &mut known).expect("own sockets");
        assert!(again.iter().all(|held| held.inode != inode), "those that are known are left out");
    }

    #[test]
    fn a_silenced_socket_sends_nothing_any_more() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        listener.set_nonblocking(true).expect("an option");
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).expect("connect");
        listener.accept().expect("accept");
        let held = Held::new(1, 1, client.into()).expect("an internet socket");
        held.silence().expect("silence (needs root)");
        let none = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };
        let again = nix::sys::socket::SockaddrIn::from(match address {
            std::net::SocketAddr::V4(address) => address,
            std::net::SocketAddr::V6(_) => unreachable!("bound to an IPv4 address"),
        });
        // SAFETY: a whole address.
        unsafe { libc::connect(held.socket.as_raw_fd(), &raw const none, 16) };
        let _may_succeed = nix::sys::socket::connect(held.socket.as_raw_fd(), &again);
        std::thread::sleep(std::time::Duration::from_millis(50));
        let nobody = listener.accept().map(drop).map_err(|error| error.kind());
        assert_eq!(nobody, Err(io::ErrorKind::WouldBlock));

        let receiver = UdpSocket::bind("127.0.0.1:0").expect("bind");
        receiver.set_nonblocking(true).expect("an option");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let held =
            Held::new(1, 1, sender.try_clone().expect("duplicate").into()).expect("an internet socket");
        held.silence().expect("silence");
        let to = receiver.local_addr().expect("an address");
        let refused = sender.send_to(b"x", to).map_err(|error| error.raw_os_error());
        assert_eq!(refused, Err(Some(libc::EPIPE)));
        let nothing = receiver.recv(&mut [0]).map_err(|error| error.kind());
        assert_eq!(nothing, Err(io::ErrorKind::WouldBlock));
    }
}
