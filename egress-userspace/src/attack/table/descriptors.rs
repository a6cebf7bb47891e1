//! Sockets that were made outside the scope: whoever holds one sends through it under the rules of its maker.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::{Around, Attack, Handed, outside, token, udp::sendfile, wire};
use crate::attack::{
    aim::{Aim, MEET},
    call::{Done, Name, Sock, call, owned, settle, stop, wait},
    ring::Ring,
};

/// The number under which an attack inherits what it is to inherit.
pub(in crate::attack) fn inherited_number(index: usize) -> i32 {
    550 + i32::try_from(index).unwrap_or_default()
}

/// The descriptor that was open when this process was started.
pub(super) fn inherited(aim: &Aim<'_>) -> Done<OwnedFd> {
    let number = inherited_number(aim.index);
    // SAFETY: asks about a number; nothing is touched.
    call("inherit", || unsafe { libc::fcntl(number, libc::F_GETFD) }.into())?;
    // SAFETY: it is open, and nobody else in this process uses the number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The descriptor that a process outside hands to whoever asks by a unix socket.
pub(super) fn given(aim: &Aim<'_>) -> Done<OwnedFd> {
    let asked = Sock::open(libc::AF_UNIX, libc::SOCK_STREAM, 0)?;
    asked.connect(Name::path(&aim.path("handout")))?;
    asked.send(aim.index.to_string().as_bytes())?;
    let mut text = [0_u8; 8];
    let mut parts = libc::iovec { iov_base: text.as_mut_ptr().cast(), iov_len: text.len() };
    let mut room = [0_u64; 8];
    let mut message = crate::attack::call::header(&mut parts, None);
    message.msg_control = room.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&room);
    // SAFETY: the buffers live through the call and are as long as we say.
    wait("recvmsg", || unsafe { libc::recvmsg(asked.as_raw_fd(), &raw mut message, 0) as libc::c_long })?;
    // SAFETY: the kernel filled the header in; the first message, if there is one, holds a descriptor for us.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(&raw const message);
        if first.is_null() || (*first).cmsg_type != libc::SCM_RIGHTS {
            return stop("SCM_RIGHTS", libc::EBADF);
        }
        Ok(OwnedFd::from_raw_fd(libc::CMSG_DATA(first).cast::<i32>().read_unaligned()))
    }
}

fn given_socket(aim: &Aim<'_>) -> Done<Sock> {
    given(aim).map(Sock::from)
}

fn inherited_socket(aim: &Aim<'_>) -> Done<Sock> {
    inherited(aim).map(Sock::from)
}

/// Takes a descriptor out of a process outside.
fn taken(aim: &Aim<'_>) -> Done<Sock> {
    let Some((process, _)) = aim.holder() else { return stop("holder", libc::ESRCH) };
    // SAFETY: no pointers.
    let handle =
        call("pidfd_open", || unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) }).map(owned)?;
    // SAFETY: no pointers.
    call("pidfd_getfd", || unsafe {
        libc::syscall(libc::SYS_pidfd_getfd, handle.as_raw_fd(), crate::attack::holder::SOCKET, 0)
    })
    .map(|fd| owned(fd).into())
}

/// Through vectors, a call of its own.
fn writev(socket: &Sock, bytes: &[u8]) -> Done {
    let parts = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: one part that lives through the call.
    call("writev", || unsafe { libc::writev(socket.as_raw_fd(), &raw const parts, 1) as libc::c_long })
        .map(drop)
}

const INHERIT_TCP: Around = Around::Inherited(Handed::Tcp);
const INHERIT_CONNECTED: Around = Around::Inherited(Handed::TcpConnected);
const GIVE_CONNECTED: Around = Around::Given(Handed::TcpConnected);

pub(super) const ATTACKS: &[Attack] = &[
    token("h-inherited-connected", "inherited TCP connection", |aim| {
        inherited_socket(aim)?.send(&aim.token())
    })
    .around(INHERIT_CONNECTED),
    wire("h-inherited-tcp", "inherited TCP socket, connected inside", |aim| {
        let socket = inherited_socket(aim)?;
        socket.connect(aim.to4())?;
        socket.send(&aim.token())
    })
    .around(INHERIT_TCP),
    wire("h-inherited-udp", "inherited UDP socket", |aim| {
        inherited_socket(aim)?.send_to(aim.to4(), &aim.token())
    })
    .around(Around::Inherited(Handed::Udp)),
    token("h-inherited-peer", "inherited UDP socket with a peer", |aim| {
        inherited_socket(aim)?.send(&aim.token())
    })
    .around(Around::Inherited(Handed::UdpConnected)),
    token("h-inherited-listener", "inherited listener", |aim| {
        let socket = inherited_socket(aim)?.accept()?;
        socket.send(&aim.token())
    })
    .around(Around::Inherited(Handed::Listener)),
    wire("h-inherited-raw", "inherited raw socket", |aim| {
        let echo = crate::attack::packet::echo(8, &aim.token());
        inherited_socket(aim)?.send_to(crate::attack::packet::portless(aim.to4()), &echo)
    })
    .around(Around::Inherited(Handed::Raw)),
    token("h-inherited-packet", "inherited packet socket", |aim| {
        inherited_socket(aim)?.write(&crate::attack::packet::ethernet(0x88b5, &aim.token()))
    })
    .around(Around::Inherited(Handed::Packet)),
    outside("h-inherited-pair", "inherited unix socket with a peer outside", |aim| {
        inherited_socket(aim)?.send(&aim.token())
    })
    .around(Around::Inherited(Handed::Pair))
    .unix(),
    outside("h-inherited-pipe", "inherited pipe", |aim| {
        crate::attack::call::write("write", inherited(aim)?.as_raw_fd(), &aim.token())
    })
    .around(Around::Inherited(Handed::Pipe)),
    token("h-given-send", "TCP connection handed in by SCM_RIGHTS: send", |aim| {
        given_socket(aim)?.send(&aim.token())
    })
    .around(GIVE_CONNECTED),
    token("h-given-write", "TCP connection handed in: write", |aim| given_socket(aim)?.write(&aim.token()))
        .around(GIVE_CONNECTED),
    token("h-given-writev", "TCP connection handed in: writev", |aim| {
        writev(&given_socket(aim)?, &aim.token())
    })
    .around(GIVE_CONNECTED),
    token("h-given-sendfile", "TCP connection handed in: sendfile", |aim| {
        sendfile(&given_socket(aim)?, &aim.token())
    })
    .around(GIVE_CONNECTED),
    token("h-given-ring", "TCP connection handed in: write of a ring", |aim| {
        let socket = given_socket(aim)?;
        Ring::new(false)?.write(socket.as_raw_fd(), &aim.token())
    })
    .around(GIVE_CONNECTED),
    wire("h-given-tcp", "TCP socket handed in, connected inside", |aim| {
        let socket = given_socket(aim)?;
        socket.connect(aim.to4())?;
        socket.send(&aim.token())
    })
    .around(Around::Given(Handed::Tcp)),
    wire("h-given-udp", "UDP socket handed in", |aim| given_socket(aim)?.send_to(aim.to4(), &aim.token()))
        .around(Around::Given(Handed::Udp)),
    wire("h-given-raw", "raw socket handed in", |aim| {
        let echo = crate::attack::packet::echo(8, &aim.token());
        given_socket(aim)?.send_to(crate::attack::packet::portless(aim.to4()), &echo)
    })
    .around(Around::Given(Handed::Raw)),
    token("h-given-packet", "packet socket handed in", |aim| {
        given_socket(aim)?.write(&crate::attack::packet::ethernet(0x88b5, &aim.token()))
    })
    .around(Around::Given(Handed::Packet)),
    token("h-taken", "socket taken out of a process outside (pidfd_getfd)", |aim| {
        taken(aim)?.send(&aim.token())
    })
    .around(Around::Holder),
    token("h-taken-elsewhere", "the same, sent to another address", |aim| {
        let socket = taken(aim)?;
        socket.send_to(std::net::SocketAddr::from((MEET, 10)), &aim.token())?;
        settle(10)
    })
    .around(Around::Holder),
];
