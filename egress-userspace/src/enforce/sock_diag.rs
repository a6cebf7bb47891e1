//! The kernel's list of TCP and UDP sockets (`sock_diag(7)`): receives a network namespace, gives its sockets with the cgroup
//! that each was made in, and destroys those it is told to. Judges nothing.

use std::io;

use egress_common::{Address, Transport};

use super::netlink::{ACKNOWLEDGED, ALL, Netlink, attributes, number, short};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const CGROUP_ID: u16 = 21;
/// Length of `struct inet_diag_sockid`.
const ID: usize = 48;
/// Length of `struct inet_diag_msg`.
const MESSAGE: usize = 72;
/// All states but TIME_WAIT and half-open requests, which have no socket of their own.
const STATES: u32 = !(1 << 6 | 1 << 3 | 1 << 12);
const LISTEN: u8 = 10;

/// One socket of the list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listed {
    /// TCP or UDP.
    pub transport: Transport,
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
    /// Its own address and port.
    pub local: (Address, u16),
    /// Its peer; all zero without one.
    pub remote: (Address, u16),
    /// Inode in the kernel's own file system of sockets, as `/proc/PID/fd` shows it; 0 once no process has it.
    pub inode: u32,
    /// Unique for as long as the machine runs.
    pub cookie: u64,
    /// Who made it.
    pub uid: u32,
    /// Id of the cgroup that it was made in; `None` before Linux 5.9.
    pub cgroup: Option<u64>,
    state: u8,
    /// As the kernel names it.
    id: [u8; ID],
}

impl Listed {
    /// Whether data can go somewhere: it has a peer.
    pub fn is_connected(&self) -> bool {
        self.state != LISTEN && self.remote.1 != 0
    }
}

/// A view of one network namespace's sockets.
#[derive(Debug)]
pub struct SockDiag(Netlink);

impl SockDiag {
    /// Of the calling thread's network namespace, and that for good.
    ///
    /// # Errors
    /// As `socket(2)`; EPROTONOSUPPORT where the kernel has no such list.
    pub fn open() -> io::Result<Self> {
        Netlink::open(libc::NETLINK_SOCK_DIAG).map(Self)
    }

    /// All TCP and UDP sockets that have a port, but for what is left of closed connections.
    ///
    /// # Errors
    /// As `send(2)` and `recv(2)`; ENOENT where the kernel has no such list.
    pub fn list(&self) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let family = u8::try_from(family).map_err(|_| io::ErrorKind::InvalidInput)?;
            for transport in [Transport::Tcp, Transport::Udp] {
                let request = request(family, transport, &[0; ID]);
                self.0.exchange(SOCK_DIAG_BY_FAMILY, ALL, &request, &mut |message| {
                    listed.extend(parse(transport, message));
                })?;
            }
        }
        Ok(listed)
    }

    /// Destroys a socket: whoever waits on it, or uses it next, gets ECONNABORTED.
    ///
    /// # Errors
    /// ENOENT if it is gone, EOPNOTSUPP where the kernel cannot (`CONFIG_INET_DIAG_DESTROY`).
    pub fn destroy(&self, socket: &Listed) -> io::Result<()> {
        let request = request(socket.family, socket.transport, &socket.id);
        self.0.exchange(SOCK_DESTROY, ACKNOWLEDGED, &request, &mut |_| {})
    }
}

/// A `struct inet_diag_req_v2`.
fn request(family: u8, transport: Transport, id: &[u8; ID]) -> Vec<u8> {
    let mut request = vec![family, transport as u8, 0, 0];
    request.extend(STATES.to_ne_bytes());
    request.extend(id);
    request
}

/// Reads a `struct inet_diag_msg` and its attributes; `None` if it is cut.
fn parse(transport: Transport, message: &[u8]) -> Option<Listed> {
    let (head, rest) = message.split_at_checked(MESSAGE)?;
    let id: [u8; ID] = head.get(4..4 + ID)?.try_into().ok()?;
    let end = |port: usize, address: usize| {
        let words = [0, 4, 8, 12].map(|word| number(&id, address + word));
        let v6 = i32::from(head[0]) == libc::AF_INET6;
        let address = if v6 { Address::from_words(words) } else { Address::from_v4_word(words[0]) };
        (address, u16::from_be(short(&id, port)))
    };
    let number_of = |value: &[u8]| Some(u64::from_ne_bytes(value.try_into().ok()?));
    let cgroup = attributes(rest).find(|(kind, _)| *kind == CGROUP_ID);
    Some(Listed {
        transport,
        family: head[0],
        local: end(0, 4),
        remote: end(2, 20),
        inode: number(head, 68),
        cookie: u64::from(number(&id, 40)) | u64::from(number(&id, 44)) << 32,
        uid: number(head, 64),
        cgroup: cgroup.and_then(|(_, value)| number_of(value)),
        state: head[1],
        id,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        net::{TcpListener, TcpStream, UdpSocket},
        os::linux::fs::MetadataExt as _,
    };

    use super::*;

    fn inode(socket: &impl std::os::fd::AsRawFd) -> u64 {
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        std::fs::metadata(path).expect("an open socket").st_ino()
    }

    fn of(listed: &[Listed], socket: &impl std::os::fd::AsRawFd) -> Listed {
        let wanted = inode(socket);
        let found = listed.iter().find(|listed| u64::from(listed.inode) == wanted);
        found.unwrap_or_else(|| panic!("socket {} is not listed", socket.as_raw_fd())).clone()
    }

    #[test]
    fn sockets_are_listed_with_both_ends_and_a_cgroup() {
        for place in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(place).expect("listen");
            let address = listener.local_addr().expect("an address");
            let client = TcpStream::connect(address).expect("connect");
            let datagram = UdpSocket::bind(place).expect("bind");
            datagram.connect(address).expect("connect");
            let listed = SockDiag::open().and_then(|diag| diag.list()).expect("the list");
            let expected = (Address::from(address.ip()), address.port());
            let (client, datagram) = (of(&listed, &client), of(&listed, &datagram));
            assert_eq!((client.transport, client.remote), (Transport::Tcp, expected));
            assert_eq!((datagram.transport, datagram.remote), (Transport::Udp, expected));
            assert!(client.is_connected() && datagram.is_connected() && client.cgroup.is_some());
            assert!(client.cookie != 0 && client.cookie != datagram.cookie);
            let listener = of(&listed, &listener);
            assert_eq!((listener.local, listener.is_connected()), (expected, false));
        }
    }

    #[test]
    fn a_destroyed_socket_is_an_error_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let mut client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
        let other = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
        let diag = SockDiag::open().expect("the list");
        let wanted = of(&diag.list().expect("the list"), &client);
        diag.destroy(&wanted).expect("destroy (needs root and CONFIG_INET_DIAG_DESTROY)");
        let error = client.read(&mut [0]).expect_err("it is gone");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNABORTED));
        assert!(other.take_error().expect("an option").is_none());
        assert_eq!(diag.destroy(&wanted).map_err(|error| error.raw_os_error()), Err(Some(libc::ENOENT)));
    }
}
