//! Datagrams in batches: `recvmmsg(2)` and `sendmmsg(2)`, which save most of the cost of a system call a question.

use std::{
    io, mem,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr,
};

/// Datagrams taken at a time.
pub(super) const BATCH: usize = 64;

/// Room for one: no question is longer, and what is cut off does not parse.
const ROOM: usize = 2_048;

/// Room for a batch.
pub(super) struct Batch {
    bytes: Vec<u8>,
    received: Vec<(usize, SocketAddr)>,
}

impl Batch {
    /// Empty.
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; BATCH * ROOM], received: Vec::with_capacity(BATCH) }
    }

    /// Takes what a socket has, without waiting; how many.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.received.clear();
        // SAFETY: plain data, zero is valid.
        let mut names: [libc::sockaddr_storage; BATCH] = unsafe { mem::zeroed() };
        let mut vectors: Vec<libc::iovec> = self
            .bytes
            .chunks_exact_mut(ROOM)
            .map(|room| libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: ROOM })
            .collect();
        let mut headers: Vec<libc::mmsghdr> =
            names.iter_mut().zip(&mut vectors).map(|(name, vector)| header(name, vector)).collect();
        let count = u32::try_from(headers.len()).unwrap_or(0);
        // SAFETY: every header leads to a name and a vector, and that to a part of the buffer, all of which outlive the call.
        let got = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        for (header, name) in headers.iter().zip(&names).take(got) {
            let length = usize::try_from(header.msg_len).unwrap_or(0).min(ROOM);
            // What has no source that we know is nobody's question.
            let from = address(name).unwrap_or(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)));
            self.received.push((length, from));
        }
        Ok(got)
    }

    /// One of those taken last.
    pub(super) fn get(&self, at: usize) -> (&[u8], SocketAddr) {
        let (length, from) = self.received[at];
        (&self.bytes[at * ROOM..at * ROOM + length], from)
    }
}

fn header(name: &mut libc::sockaddr_storage, vector: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: plain data, zero is valid.
    let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
    header.msg_hdr.msg_name = ptr::from_mut(name).cast();
    header.msg_hdr.msg_namelen = length_of::<libc::sockaddr_storage>();
    header.msg_hdr.msg_iov = vector;
    header.msg_hdr.msg_iovlen = 1;
    header
}

/// Sends datagrams without waiting. One that cannot be sent is left out: clients ask again.
pub(super) fn send(socket: BorrowedFd<'_>, datagrams: &mut [(SocketAddr, Vec<u8>)]) {
    for chunk in datagrams.chunks_mut(BATCH) {
        send_chunk(socket, chunk);
    }
}

fn send_chunk(socket: BorrowedFd<'_>, chunk: &mut [(SocketAddr, Vec<u8>)]) {
    let mut names: Vec<(libc::sockaddr_storage, libc::socklen_t)> =
        chunk.iter().map(|(to, _)| storage(*to)).collect();
    let mut vectors: Vec<libc::iovec> = chunk
        .iter_mut()
        .map(|(_, bytes)| libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() })
        .collect();
    let mut headers: Vec<libc::mmsghdr> = names
        .iter_mut()
        .zip(&mut vectors)
        .map(|((name, length), vector)| {
            let mut header = header(name, vector);
            header.msg_hdr.msg_namelen = *length;
            header
        })
        .collect();
    let mut next = 0;
    while next < headers.len() {
        let rest = &mut headers[next..];
        let count = u32::try_from(rest.len()).unwrap_or(0);
        // SAFETY: every header leads to a name, a vector and bytes, all of which outlive the call.
        let sent =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
        // An error is about the first of the rest.
        next += usize::try_from(sent).unwrap_or(0).max(1);
    }
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

pub(super) fn address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which type it is, and the storage is aligned for all.
            let v4 = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn storage(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: plain data, zero is valid.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    match address {
        SocketAddr::V4(v4) => {
            // SAFETY: the storage is as large and as aligned as every address type.
            let name = unsafe { &mut *ptr::from_mut(&mut storage).cast::<libc::sockaddr_in>() };
            name.sin_family = family(libc::AF_INET);
            name.sin_port = v4.port().to_be();
            name.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            (storage, length_of::<libc::sockaddr_in>())
        }
        SocketAddr::V6(v6) => {
            // SAFETY: as above.
            let name = unsafe { &mut *ptr::from_mut(&mut storage).cast::<libc::sockaddr_in6>() };
            name.sin6_family = family(libc::AF_INET6);
            name.sin6_port = v6.port().to_be();
            name.sin6_addr.s6_addr = v6.ip().octets();
            name.sin6_scope_id = v6.scope_id();
            (storage, length_of::<libc::sockaddr_in6>())
        }
    }
}

fn family(family: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd as _};

    use super::*;

    #[test]
    fn batches_go_round_over_both_families() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let server = UdpSocket::bind(local).unwrap();
            let client = UdpSocket::bind(local).unwrap();
            for n in 0..100_u8 {
                client.send_to(&vec![n; usize::from(n)], server.local_addr().unwrap()).unwrap();
            }
            let mut batch = Batch::new();
            let mut seen = 0;
            while let Ok(count) = batch.receive(server.as_fd()) {
                let mut echo: Vec<(SocketAddr, Vec<u8>)> = (0..count)
                    .map(|at| {
                        let (bytes, from) = batch.get(at);
                        assert_eq!((from, bytes.len()), (client.local_addr().unwrap(), seen + at));
                        (from, bytes.to_vec())
                    })
                    .collect();
                seen += count;
                // One that cannot be sent does not hold up the others.
                echo.insert(0, ("127.0.0.1:0".parse().unwrap(), vec![1]));
                send(server.as_fd(), &mut echo);
            }
            assert_eq!(seen, 100);
            let mut buffer = [0; 200];
            client.set_nonblocking(true).unwrap();
            for n in 0..100 {
                assert_eq!(client.recv(&mut buffer).unwrap(), n);
            }
        }
    }
}
