//! Transports beside TCP and UDP.

use std::net::SocketAddr;

use super::{Attack, wire};
use crate::attack::{
    aim::Aim,
    call::{Done, Name, Sock, settle},
};

const INET: i32 = libc::AF_INET;
const INET6: i32 = libc::AF_INET6;
const STREAM: i32 = libc::SOCK_STREAM;
const DGRAM: i32 = libc::SOCK_DGRAM;
const AF_SMC: i32 = 43;

fn peer(kind: (i32, i32, i32), to: SocketAddr, aim: &Aim<'_>) -> Done {
    let socket = Sock::open(kind.0, kind.1, kind.2)?;
    socket.connect(to)?;
    socket.send(&aim.token())
}

fn to(kind: (i32, i32, i32), to: SocketAddr, aim: &Aim<'_>) -> Done {
    Sock::open(kind.0, kind.1, kind.2)?.send_to(to, &aim.token())
}

/// The kernel sends a first packet whether or not somebody answers it.
fn first_packet(kind: (i32, i32, i32), name: Name) -> Done {
    let socket = Sock::open(kind.0, kind.1 | libc::SOCK_NONBLOCK, kind.2)?;
    match socket.connect(name) {
        Err(refused) if refused.errno != libc::EINPROGRESS => Err(refused),
        _ => settle(50),
    }
}

/// DCCP demands a service code before anything else.
fn dccp(family: i32, to: SocketAddr) -> Done {
    const SOCK_DCCP: i32 = 6;
    const SOL_DCCP: i32 = 269;
    const DCCP_SOCKOPT_SERVICE: i32 = 2;
    let socket = Sock::open(family, SOCK_DCCP | libc::SOCK_NONBLOCK, libc::IPPROTO_DCCP)?;
    socket.number("DCCP_SOCKOPT_SERVICE", SOL_DCCP, DCCP_SOCKOPT_SERVICE, 1)?;
    match socket.connect(to) {
        Err(refused) if refused.errno != libc::EINPROGRESS => Err(refused),
        _ => settle(50),
    }
}

pub(super) const ATTACKS: &[Attack] = &[
    wire("d-mptcp4", "MPTCP over IPv4", |aim| peer((INET, STREAM, libc::IPPROTO_MPTCP), aim.to4(), aim)),
    wire("d-mptcp6", "MPTCP over IPv6", |aim| peer((INET6, STREAM, libc::IPPROTO_MPTCP), aim.to6(), aim)),
    wire("d-mptcp-mapped", "MPTCP to a mapped address", |aim| {
        peer((INET6, STREAM, libc::IPPROTO_MPTCP), aim.mapped(), aim)
    }),
    wire("d-mptcp-fastopen", "MPTCP with MSG_FASTOPEN", |aim| {
        let socket = Sock::open(INET, STREAM, libc::IPPROTO_MPTCP)?;
        socket.send_to_flagged(aim.to4(), &aim.token(), libc::MSG_FASTOPEN)
    }),
    wire("d-udplite-peer4", "UDP-Lite to a peer, IPv4", |aim| {
        peer((INET, DGRAM, libc::IPPROTO_UDPLITE), aim.to4(), aim)
    }),
    wire("d-udplite-peer6", "UDP-Lite to a peer, IPv6", |aim| {
        peer((INET6, DGRAM, libc::IPPROTO_UDPLITE), aim.to6(), aim)
    }),
    wire("d-udplite-mapped", "UDP-Lite to a mapped address", |aim| {
        peer((INET6, DGRAM, libc::IPPROTO_UDPLITE), aim.mapped(), aim)
    }),
    wire("d-udplite-to", "UDP-Lite to an address", |aim| {
        to((INET, DGRAM, libc::IPPROTO_UDPLITE), aim.to4(), aim)
    }),
    wire("d-sctp4", "SCTP over IPv4", |aim| {
        first_packet((INET, STREAM, libc::IPPROTO_SCTP), aim.to4().into())
    })
    .needs("SCTP"),
    wire("d-sctp6", "SCTP over IPv6", |aim| {
        first_packet((INET6, STREAM, libc::IPPROTO_SCTP), aim.to6().into())
    })
    .needs("SCTP"),
    wire("d-sctp-implicit", "SCTP association made by sending", |aim| {
        to((INET, libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP), aim.to4(), aim)
    })
    .needs("SCTP"),
    wire("d-sctp-connectx", "SCTP_SOCKOPT_CONNECTX", |aim| {
        const SCTP_SOCKOPT_CONNECTX: i32 = 110;
        let socket = Sock::open(INET, libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP)?;
        socket.option("CONNECTX", libc::IPPROTO_SCTP, SCTP_SOCKOPT_CONNECTX, &Name::of(aim.to4()).0)
    })
    .needs("SCTP"),
    wire("d-dccp4", "DCCP over IPv4", |aim| dccp(INET, aim.to4())).needs("DCCP"),
    wire("d-dccp6", "DCCP over IPv6", |aim| dccp(INET6, aim.to6())).needs("DCCP"),
    wire("d-smc", "SMC, which falls back to TCP", |aim| {
        let socket = Sock::open(AF_SMC, STREAM, 0)?;
        socket.connect(aim.to4())?;
        socket.send(&aim.token())
    })
    .needs("SMC"),
    wire("d-smc-inet", "SMC as a protocol of the internet family", |aim| {
        const IPPROTO_SMC: i32 = 256;
        peer((INET, STREAM, IPPROTO_SMC), aim.to4(), aim)
    })
    .needs("SMC"),
    wire("d-l2tp4", "L2TP over IP", |aim| {
        const IPPROTO_L2TP: i32 = 115;
        let mut name = Name::of(aim.to4());
        name.0[2..4].fill(0);
        name.0[8..12].copy_from_slice(&1_u32.to_ne_bytes());
        Sock::open(INET, DGRAM, IPPROTO_L2TP)?.send_to(name, &aim.token())
    })
    .needs("L2TP"),
];
