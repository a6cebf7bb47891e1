//! Socket options that choose another way, mark packets, or lend another host's address.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Attack, wire};
use crate::attack::{
    aim::{Aim, DEVICE, WIRE},
    call::{Done, Sock},
};

const IP: i32 = libc::IPPROTO_IP;
const IP6: i32 = libc::IPPROTO_IPV6;

/// To an allowed host in the name of an address that stands for the attack: the answer goes there.
fn lent4(at: &'static str, option: i32, aim: &Aim<'_>) -> Done {
    let socket = Sock::udp4()?;
    socket.number(at, IP, option, 1)?;
    socket.bind(SocketAddr::from((aim.bad4(), 0)))?;
    socket.send_to(aim.good4(), b"fine")
}

fn lent6(at: &'static str, option: i32, aim: &Aim<'_>) -> Done {
    let socket = Sock::udp6()?;
    socket.number(at, IP6, option, 1)?;
    socket.bind(SocketAddr::from((aim.bad6(), 0)))?;
    socket.send_to(aim.good6(), b"fine")
}

/// The same, with the address in a control message.
fn lent_in_control(option: i32, at: &'static str, aim: &Aim<'_>) -> Done {
    let socket = Sock::udp6()?;
    socket.number(at, IP6, option, 1)?;
    let mut info = aim.bad6().octets().to_vec();
    info.extend([0; 4]);
    socket.send_with((IP6, libc::IPV6_PKTINFO, &info), Some(&aim.good6().into()), b"fine")
}

const IPV6_FREEBIND: i32 = 78;
const IPV6_TRANSPARENT: i32 = 75;

pub(super) const ATTACKS: &[Attack] = &[
    wire("q-device", "SO_BINDTODEVICE", |aim| {
        let socket = Sock::udp4()?;
        socket.option("SO_BINDTODEVICE", libc::SOL_SOCKET, libc::SO_BINDTODEVICE, DEVICE.as_bytes())?;
        socket.send_to(aim.to4(), &aim.token())
    }),
    wire("q-device-loopback", "SO_BINDTODEVICE, and a loopback address on the wire", |aim| {
        let socket = Sock::udp4()?;
        socket.option("SO_BINDTODEVICE", libc::SOL_SOCKET, libc::SO_BINDTODEVICE, DEVICE.as_bytes())?;
        socket.send_to(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), aim.port())), &aim.token())
    }),
    wire("q-index", "SO_BINDTOIFINDEX", |aim| {
        const SO_BINDTOIFINDEX: i32 = 62;
        let socket = Sock::udp4()?;
        socket.number("SO_BINDTOIFINDEX", libc::SOL_SOCKET, SO_BINDTOIFINDEX, WIRE.cast_signed())?;
        socket.send_to(aim.to4(), &aim.token())
    }),
    wire("q-unicast-if", "IP_UNICAST_IF", |aim| {
        let socket = Sock::udp4()?;
        socket.number("IP_UNICAST_IF", IP, libc::IP_UNICAST_IF, WIRE.to_be().cast_signed())?;
        socket.send_to(aim.to4(), &aim.token())
    }),
    wire("q-unicast-loopback", "IP_UNICAST_IF, and a loopback address on the wire", |aim| {
        let socket = Sock::udp4()?;
        socket.number("IP_UNICAST_IF", IP, libc::IP_UNICAST_IF, WIRE.to_be().cast_signed())?;
        socket.send_to(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), aim.port())), &aim.token())
    }),
    wire("q-mark", "SO_MARK", |aim| {
        let socket = Sock::udp4()?;
        socket.number("SO_MARK", libc::SOL_SOCKET, libc::SO_MARK, 66)?;
        socket.send_to(aim.to4(), &aim.token())
    })
    .root(),
    wire("q-transparent", "IP_TRANSPARENT: another host's address", |aim| {
        lent4("IP_TRANSPARENT", libc::IP_TRANSPARENT, aim)
    })
    .root(),
    wire("q-transparent6", "IPV6_TRANSPARENT: another host's address", |aim| {
        lent6("IPV6_TRANSPARENT", IPV6_TRANSPARENT, aim)
    })
    .root(),
    wire("q-freebind", "IP_FREEBIND: another host's address", |aim| {
        lent4("IP_FREEBIND", libc::IP_FREEBIND, aim)
    }),
    wire("q-freebind6", "IPV6_FREEBIND: another host's address", |aim| {
        lent6("IPV6_FREEBIND", IPV6_FREEBIND, aim)
    }),
    wire("q-freebind6-as4", "IP_FREEBIND on an IPv6 socket: another host's address", |aim| {
        let socket = Sock::udp6()?;
        socket.number("IP_FREEBIND", IP, libc::IP_FREEBIND, 1)?;
        socket.bind(SocketAddr::from((aim.bad6(), 0)))?;
        socket.send_to(aim.good6(), b"fine")
    }),
    wire("q-freebind6-control", "IPV6_FREEBIND, the address in a control message", |aim| {
        lent_in_control(IPV6_FREEBIND, "IPV6_FREEBIND", aim)
    }),
    wire("q-freebind6-tcp", "IPV6_FREEBIND, TCP", |aim| {
        let socket = Sock::tcp6()?;
        socket.number("IPV6_FREEBIND", IP6, IPV6_FREEBIND, 1)?;
        socket.bind(SocketAddr::from((aim.bad6(), 0)))?;
        socket.connect(aim.good6())
    }),
    wire("q-pktinfo-source", "another host's address in IP_PKTINFO", |aim| {
        let mut info = vec![0; 4];
        info.extend(aim.bad4().octets());
        info.extend([0; 4]);
        Sock::udp4()?.send_with((IP, libc::IP_PKTINFO, &info), Some(&aim.good4().into()), b"fine")
    }),
    wire("q-multicast-if", "a multicast device of one's choice", |aim| {
        let socket = Sock::udp4()?;
        let mut request = vec![0; 8];
        request.extend(WIRE.to_ne_bytes());
        socket.option("IP_MULTICAST_IF", IP, libc::IP_MULTICAST_IF, &request)?;
        socket.send_to(SocketAddr::from((aim.group4(), 443)), &aim.token())
    }),
    wire("q-priority", "SO_PRIORITY and SO_TXTIME beside the address", |aim| {
        let socket = Sock::udp4()?;
        socket.number("SO_PRIORITY", libc::SOL_SOCKET, libc::SO_PRIORITY, 6)?;
        socket.send_to(aim.to4(), &aim.token())
    }),
];
