//! UDP: datagrams to a peer, to an address, and what waits in a socket while its peer changes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd as _,
};

use super::{Attack, token, wire};
use crate::attack::{
    aim::{Aim, GOOD4},
    call::{Done, Name, Sock, call, raw},
};

const MORE: i32 = libc::MSG_MORE;
const PKTINFO: (i32, i32, &[u8]) = (libc::IPPROTO_IP, libc::IP_PKTINFO, &[0; 12]);
const PKTINFO6: (i32, i32, &[u8]) = (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &[0; 20]);

fn peer(socket: &Sock, to: SocketAddr, aim: &Aim<'_>) -> Done {
    socket.connect(to)?;
    socket.send(&aim.token())
}

fn to(socket: &Sock, to: SocketAddr, aim: &Aim<'_>) -> Done {
    socket.send_to(to, &aim.token())
}

fn cork(socket: &Sock, on: i32) -> Done {
    socket.number("UDP_CORK", libc::IPPROTO_UDP, libc::UDP_CORK, on)
}

/// Moves bytes from a pipe into a socket, which never pass through this process again.
fn splice(socket: &Sock, bytes: &[u8]) -> Done {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors.
    call("pipe", || unsafe { libc::pipe(ends.as_mut_ptr()) }.into())?;
    crate::attack::call::write("write", ends[1], bytes)?;
    // SAFETY: null offsets: both sides are streams.
    call("splice", || unsafe {
        let none = std::ptr::null_mut();
        libc::splice(ends[0], none, socket.as_raw_fd(), none, bytes.len(), 0) as libc::c_long
    })
    .map(drop)
}

/// Sends a file of memory.
pub(super) fn sendfile(socket: &Sock, bytes: &[u8]) -> Done {
    // SAFETY: the name ends with a zero.
    let file = call("memfd", || unsafe { libc::memfd_create(c"egress".as_ptr(), 0) }.into())?;
    crate::attack::call::write("write", raw(file), bytes)?;
    let mut offset = 0;
    // SAFETY: the offset lives through the call.
    call("sendfile", || unsafe {
        libc::sendfile(socket.as_raw_fd(), raw(file), &raw mut offset, bytes.len()) as libc::c_long
    })
    .map(drop)
}

pub(super) const ATTACKS: &[Attack] = &[
    wire("b-peer4", "UDP to a peer, IPv4", |aim| peer(&Sock::udp4()?, aim.to4(), aim)),
    wire("b-peer6", "UDP to a peer, IPv6", |aim| peer(&Sock::udp6()?, aim.to6(), aim)),
    wire("b-peer-mapped", "UDP to a peer in mapped form", |aim| peer(&Sock::udp6()?, aim.mapped(), aim)),
    wire("b-peer-mixed", "UDP to an IPv4 peer of an IPv6 socket", |aim| peer(&Sock::udp6()?, aim.to4(), aim)),
    wire("b-peer-link", "UDP to a peer on the link", |aim| peer(&Sock::udp6()?, aim.link(), aim)),
    wire("b-to4", "UDP to an address, IPv4", |aim| to(&Sock::udp4()?, aim.to4(), aim)),
    wire("b-to6", "UDP to an address, IPv6", |aim| to(&Sock::udp6()?, aim.to6(), aim)),
    wire("b-to-mapped", "UDP to an address in mapped form", |aim| to(&Sock::udp6()?, aim.mapped(), aim)),
    wire("b-to-mixed", "UDP to an IPv4 address on an IPv6 socket", |aim| to(&Sock::udp6()?, aim.to4(), aim)),
    wire("b-to-link", "UDP to an address on the link", |aim| to(&Sock::udp6()?, aim.link(), aim)),
    wire("b-to-unspecified", "UDP to an address of family AF_UNSPEC", |aim| {
        Sock::udp4()?.send_to(Name::unspecified(aim.to4()), &aim.token())
    }),
    wire("b-nat64", "UDP through an address of NAT64", |aim| {
        let address = (0x0064_ff9b_u128 << 96) | u128::from(aim.bad4().to_bits());
        to(&Sock::udp6()?, (std::net::Ipv6Addr::from(address), 443).into(), aim)
    }),
    wire("b-metadata", "UDP to a cloud's metadata address", |aim| {
        to(&Sock::udp4()?, (Ipv4Addr::new(169, 254, 169, 254), aim.port()).into(), aim)
    }),
    wire("b-port", "UDP to another port of an allowed address", |aim| {
        to(&Sock::udp4()?, (GOOD4, aim.port()).into(), aim)
    }),
    wire("b-pktinfo4", "UDP with IP_PKTINFO", |aim| {
        Sock::udp4()?.send_with(PKTINFO, Some(&aim.to4().into()), &aim.token())
    }),
    wire("b-pktinfo6", "UDP with IPV6_PKTINFO", |aim| {
        Sock::udp6()?.send_with(PKTINFO6, Some(&aim.to6().into()), &aim.token())
    }),
    wire("b-tos", "UDP to a peer, with a control message", |aim| {
        let socket = Sock::udp4()?;
        socket.connect(aim.to4())?;
        socket.send_with((libc::IPPROTO_IP, libc::IP_TOS, &4_i32.to_ne_bytes()), None, &aim.token())
    }),
    wire("b-second", "second message of sendmmsg", |aim| {
        let (good, bad) = (aim.good4().into(), aim.to4().into());
        Sock::udp4()?.send_two((&good, b"fine"), (&bad, &aim.token()))
    }),
    wire("b-elsewhere4", "UDP elsewhere than to the peer, IPv4", |aim| {
        let socket = Sock::udp4()?;
        socket.connect(aim.good4())?;
        to(&socket, aim.to4(), aim)
    }),
    wire("b-elsewhere6", "UDP elsewhere than to the peer, IPv6", |aim| {
        let socket = Sock::udp6()?;
        socket.connect(aim.good6())?;
        to(&socket, aim.to6(), aim)
    }),
    wire("b-another-peer", "UDP to another peer after an allowed one", |aim| {
        let socket = Sock::udp4()?;
        socket.connect(aim.good4())?;
        socket.send(b"fine")?;
        peer(&socket, aim.to4(), aim)
    }),
    wire("b-dissolved", "UDP after the peer was dissolved", |aim| {
        let socket = Sock::udp4()?;
        socket.connect(aim.good4())?;
        socket.disconnect()?;
        to(&socket, aim.to4(), aim)
    }),
    wire("b-large", "UDP datagram larger than the link", |aim| {
        let bytes = aim.token().repeat(300);
        Sock::udp4()?.send_to(aim.to4(), &bytes)
    }),
    wire("b-segments", "UDP datagrams cut by the kernel (UDP_SEGMENT)", |aim| {
        let bytes = aim.token().repeat(4);
        let size = u16::try_from(aim.token().len()).unwrap_or(16);
        let control = (libc::IPPROTO_UDP, 103, &size.to_ne_bytes()[..]);
        Sock::udp4()?.send_with(control, Some(&aim.to4().into()), &bytes)
    }),
    wire("b-zero-copy", "UDP without a copy (MSG_ZEROCOPY)", |aim| {
        let socket = Sock::udp4()?;
        socket.number("SO_ZEROCOPY", libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1)?;
        let bytes = aim.token();
        socket.send_to_flagged(aim.to4(), &bytes, libc::MSG_ZEROCOPY)
    }),
    wire("b-write", "UDP by write", |aim| {
        let socket = Sock::udp4()?;
        socket.connect(aim.to4())?;
        socket.write(&aim.token())
    }),
    wire("b-splice", "UDP by splice", |aim| {
        let socket = Sock::udp4()?;
        socket.connect(aim.to4())?;
        splice(&socket, &aim.token())
    }),
    wire("b-sendfile", "UDP by sendfile", |aim| {
        let socket = Sock::udp4()?;
        socket.connect(aim.to4())?;
        sendfile(&socket, &aim.token())
    }),
    wire("b-corked6", "corked for a forbidden peer, let go after a connect to an allowed one", |aim| {
        let socket = Sock::udp6()?;
        socket.connect(aim.to6())?;
        cork(&socket, 1)?;
        socket.send(&aim.token())?;
        socket.connect(aim.good6())?;
        cork(&socket, 0)
    }),
    wire("b-more6", "MSG_MORE for a forbidden peer, sent after a connect to an allowed one", |aim| {
        let socket = Sock::udp6()?;
        socket.connect(aim.to6())?;
        socket.send_flagged(&aim.token(), MORE)?;
        socket.connect(aim.good6())?;
        socket.send(b"fine")
    }),
    wire("b-more-approved", "the same after the allowed peer was approved", |aim| {
        let socket = Sock::udp6()?;
        socket.connect(aim.good6())?;
        socket.send(b"fine")?;
        socket.disconnect()?;
        socket.connect(aim.to6())?;
        socket.send_flagged(&aim.token(), MORE)?;
        socket.connect(aim.good6())?;
        socket.send(b"fine")
    }),
    wire("b-more4", "MSG_MORE for an allowed peer, sent after a connect to a forbidden one", |aim| {
        let socket = Sock::udp4()?;
        socket.connect(aim.good4())?;
        socket.send_flagged(&aim.token(), MORE)?;
        socket.connect(aim.to4())?;
        socket.send(&aim.token())
    }),
    wire("b-more-to", "MSG_MORE to an allowed address, sent after a connect to a forbidden peer", |aim| {
        let socket = Sock::udp4()?;
        socket.send_to_flagged(aim.good4(), &aim.token(), MORE)?;
        socket.connect(aim.to4())?;
        socket.send(&aim.token())
    }),
    wire("b-more-first", "MSG_MORE to a forbidden address, then to an allowed one", |aim| {
        let socket = Sock::udp4()?;
        socket.send_to_flagged(aim.to4(), &aim.token(), MORE)?;
        socket.send_to(aim.good4(), b"fine")
    }),
    token("b-dontroute", "UDP to a peer with MSG_CONFIRM and MSG_DONTROUTE", |aim| {
        let flags = libc::MSG_CONFIRM | libc::MSG_DONTROUTE;
        Sock::udp4()?.send_to_flagged(SocketAddr::from(([192, 0, 2, 1], aim.port())), &aim.token(), flags)
    }),
];
