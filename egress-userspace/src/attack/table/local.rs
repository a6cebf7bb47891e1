//! Somebody connects in and takes the data along, or a server on the same host passes it on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::{Around, Attack, outside, tcp::tell, token};
use crate::attack::{
    aim::{AGENT4, AGENT6, Aim, DEVICE, WIRE},
    call::{Done, Name, Sock, pause, stop},
};

const ANY4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ANY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

fn serve(socket: &Sock, address: impl Into<IpAddr>, aim: &Aim<'_>) -> Done {
    socket.number("SO_REUSEADDR", libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    socket.bind(SocketAddr::from((address.into(), aim.port())))?;
    socket.listen()?;
    socket.accept()?.send(&aim.token())
}

fn answer(socket: &Sock, address: impl Into<IpAddr>, aim: &Aim<'_>) -> Done {
    socket.bind(SocketAddr::from((address.into(), aim.port())))?;
    let from = socket.receive_from()?;
    socket.send_to(from, &aim.token())
}

/// The port that a listener of an attack may be given by the kernel.
pub(in crate::attack) fn unbound_port(index: usize) -> u16 {
    crate::attack::aim::port(index) + 20_000
}

/// A listener that never bound gets a port of the kernel's choice; whoever outside tries enough ports finds it.
fn unbound(aim: &Aim<'_>) -> Done {
    let socket = Sock::tcp4()?;
    // One port to choose from.
    const IP_LOCAL_PORT_RANGE: i32 = 51;
    let one = u32::from(unbound_port(aim.index));
    let range = (one << 16 | one).to_ne_bytes();
    socket.option("IP_LOCAL_PORT_RANGE", libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range)?;
    socket.listen()?;
    socket.accept()?.send(&aim.token())
}

fn tcp(family: i32, address: impl Into<IpAddr>, aim: &Aim<'_>) -> Done {
    tell(&Sock::open(family, libc::SOCK_STREAM, 0)?, (address.into(), aim.port()).into(), aim)
}

fn udp(family: i32, address: impl Into<IpAddr>, aim: &Aim<'_>) -> Done {
    let to = SocketAddr::from((address.into(), aim.port()));
    Sock::open(family, libc::SOCK_DGRAM, 0)?.send_to(to, &aim.token())
}

fn peer(address: Ipv4Addr, aim: &Aim<'_>) -> Done {
    let socket = Sock::udp4()?;
    socket.connect(SocketAddr::from((address, aim.port())))?;
    socket.send(&aim.token())
}

/// To a peer that is many.
fn many(address: Ipv4Addr, aim: &Aim<'_>) -> Done {
    let socket = Sock::udp4()?;
    socket.number("SO_BROADCAST", libc::SOL_SOCKET, libc::SO_BROADCAST, 1)?;
    socket.connect(SocketAddr::from((address, aim.port())))?;
    socket.send(&aim.token())
}

/// A socket of one's own at a port of somebody else's.
fn decoy(address: Ipv4Addr, aim: &Aim<'_>) -> Done<Sock> {
    let socket = Sock::udp4()?;
    socket.number("SO_REUSEADDR", libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    // Where it is refused the port is not to be had: the attack goes on without.
    let _refused = socket.bind(SocketAddr::from((address, aim.port())));
    Ok(socket)
}

/// The address of the wire's near end that the kernel gave it.
fn own_link(aim: &Aim<'_>) -> Done<Name> {
    for _ in 0..50 {
        let text = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("fe80") && line.ends_with(DEVICE));
        if let Some(number) = line.and_then(|line| u128::from_str_radix(line.get(..32)?, 16).ok()) {
            return Ok(Name::of(SocketAddrV6::new(number.into(), aim.port(), 0, WIRE).into()));
        }
        // The kernel gives it a moment after the wire is there.
        pause(20);
    }
    stop("link-local", libc::EADDRNOTAVAIL)
}

/// Takes part in a port of a process outside: what it is sent, we are sent too.
fn share_port(aim: &Aim<'_>) -> Done {
    let socket = Sock::udp4()?;
    socket.number("SO_REUSEPORT", libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    socket.bind(SocketAddr::from((ANY4, aim.port())))?;
    let from = socket.receive_from()?;
    socket.send_to(from, &aim.token())
}

const INET: i32 = libc::AF_INET;
const INET6: i32 = libc::AF_INET6;
const SERVER: Around = Around::Server;

pub(super) const ATTACKS: &[Attack] = &[
    token("k-accept4", "somebody connects in and is answered, IPv4", |aim| serve(&Sock::tcp4()?, ANY4, aim))
        .around(Around::VisitTcp),
    token("k-accept6", "somebody connects in and is answered, IPv6", |aim| serve(&Sock::tcp6()?, ANY6, aim))
        .around(Around::VisitTcp),
    token("k-accept-own", "the same, bound to the host's address", |aim| serve(&Sock::tcp4()?, AGENT4, aim))
        .around(Around::VisitTcp),
    token("k-accept-unbound", "the same, without bind", unbound).around(Around::VisitTcp),
    token("k-accept-urgent", "somebody connects in and is reset with data in flight", |aim| {
        let socket = Sock::tcp4()?;
        socket.number("SO_REUSEADDR", libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        socket.bind(SocketAddr::from((ANY4, aim.port())))?;
        socket.listen()?;
        socket.accept()?.send_flagged(&aim.token(), libc::MSG_OOB)
    })
    .around(Around::VisitTcp),
    token("k-answer4", "somebody sends in and is answered, IPv4", |aim| answer(&Sock::udp4()?, ANY4, aim))
        .around(Around::VisitUdp),
    token("k-answer6", "somebody sends in and is answered, IPv6", |aim| answer(&Sock::udp6()?, ANY6, aim))
        .around(Around::VisitUdp),
    token("k-answer-peer", "somebody sends in and becomes the peer", |aim| {
        let socket = Sock::udp4()?;
        socket.bind(SocketAddr::from((ANY4, aim.port())))?;
        let from = socket.receive_from()?;
        socket.connect(from)?;
        socket.send(&aim.token())
    })
    .around(Around::VisitUdp),
    token("k-share-port", "a port shared with others (SO_REUSEPORT)", share_port).around(Around::VisitUdp),
    outside("k-accept-loopback", "a process on the host connects in", |aim| {
        serve(&Sock::tcp4()?, Ipv4Addr::LOCALHOST, aim)
    })
    .around(Around::VisitLoopback),
    outside("k-relay-127", "server on 127.0.0.1, TCP", |aim| tcp(INET, Ipv4Addr::LOCALHOST, aim))
        .around(SERVER),
    outside("k-relay-any", "server on this host by 0.0.0.0, TCP", |aim| tcp(INET, ANY4, aim)).around(SERVER),
    outside("k-relay-127-9", "server on 127.9.8.7, TCP", |aim| tcp(INET, Ipv4Addr::new(127, 9, 8, 7), aim))
        .around(SERVER),
    outside("k-relay-own", "server on the host's own address, TCP", |aim| tcp(INET, AGENT4, aim))
        .around(SERVER),
    outside("k-relay6", "server on ::1, TCP", |aim| tcp(INET6, Ipv6Addr::LOCALHOST, aim)).around(SERVER),
    outside("k-relay6-any", "server on this host by ::, TCP", |aim| tcp(INET6, ANY6, aim)).around(SERVER),
    outside("k-relay6-own", "server on the host's own IPv6 address, TCP", |aim| tcp(INET6, AGENT6, aim))
        .around(SERVER),
    outside("k-relay-mapped", "server on ::ffff:127.0.0.1, TCP", |aim| {
        tcp(INET6, Ipv4Addr::LOCALHOST.to_ipv6_mapped(), aim)
    })
    .around(SERVER),
    outside("k-relay-mapped-own", "server on the host's own address in mapped form, TCP", |aim| {
        tcp(INET6, AGENT4.to_ipv6_mapped(), aim)
    })
    .around(SERVER),
    outside("k-relay-link", "server on the host's link-local address, TCP", |aim| {
        let socket = Sock::tcp6()?;
        socket.connect(own_link(aim)?)?;
        socket.send(&aim.token())
    })
    .around(SERVER),
    outside("k-relay-fastopen", "server on 127.0.0.1, MSG_FASTOPEN", |aim| {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, aim.port()));
        Sock::tcp4()?.send_to_flagged(to, &aim.token(), libc::MSG_FASTOPEN)
    })
    .around(SERVER),
    outside("k-relay-udp", "server on 127.0.0.1, UDP", |aim| udp(INET, Ipv4Addr::LOCALHOST, aim))
        .around(SERVER),
    outside("k-relay-udp-any", "server on this host by 0.0.0.0, UDP", |aim| udp(INET, ANY4, aim))
        .around(SERVER),
    outside("k-relay-udp-own", "server on the host's own address, UDP", |aim| udp(INET, AGENT4, aim))
        .around(SERVER),
    outside("k-relay-udp6", "server on ::1, UDP", |aim| udp(INET6, Ipv6Addr::LOCALHOST, aim)).around(SERVER),
    outside("k-relay-udp6-own", "server on the host's own IPv6 address, UDP", |aim| udp(INET6, AGENT6, aim))
        .around(SERVER),
    outside("k-relay-udp-mapped", "server on ::ffff:127.0.0.1, UDP", |aim| {
        udp(INET6, Ipv4Addr::LOCALHOST.to_ipv6_mapped(), aim)
    })
    .around(SERVER),
    outside("k-device", "server bound to a device, at the host's own address, TCP", |aim| {
        tcp(INET, AGENT4, aim)
    })
    .around(Around::ServerOfDevice),
    outside("k-device-udp", "server bound to a device, at the host's own address, UDP", |aim| {
        udp(INET, AGENT4, aim)
    })
    .around(Around::ServerOfDevice),
    outside("k-device-udp-peer", "the same, UDP with a peer", |aim| peer(AGENT4, aim))
        .around(Around::ServerOfDevice),
    outside("k-device-decoy", "the same, with a socket of one's own in front of it", |aim| {
        let _decoy = decoy(ANY4, aim)?;
        peer(AGENT4, aim)
    })
    .around(Around::ServerOfDevice),
    outside("k-many", "UDP with all as its peer, heard on this host", |aim| many(Ipv4Addr::BROADCAST, aim))
        .around(SERVER),
    outside("k-many-link", "UDP with all of the link as its peer, heard on this host", |aim| {
        many(Ipv4Addr::new(192, 0, 2, 255), aim)
    })
    .around(SERVER),
    outside(
        "k-many-loopback",
        "UDP to all of 127.0.0.0/8, with a socket of one's own in front of it",
        |aim| {
            let all = Ipv4Addr::new(127, 255, 255, 255);
            let _decoy = decoy(all, aim)?;
            many(all, aim)
        },
    )
    .around(Around::ServerThatShares),
    outside("k-relay-udp-peer", "server on 127.0.0.1, UDP with a peer", |aim| {
        let socket = Sock::udp4()?;
        socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, aim.port())))?;
        socket.send(&aim.token())
    })
    .around(SERVER),
];
