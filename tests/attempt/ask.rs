//! DNS questions, byte for byte as a resolver of its own would send them.

use std::{
    mem::zeroed,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use egress_tests::message::{self, Reply, rcode_word, read_reply, type_number, type_word};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
};

use crate::{
    socket::{Name, Socket, header},
    steps::Done,
};

/// Longer than any answer takes, shorter than a resolver's patience.
const PATIENCE: Duration = Duration::from_secs(4);

/// The bytes of a question; its id tells questions of one program apart.
pub(crate) fn question(id: u16, name: &str, kind: &str) -> Option<Vec<u8>> {
    Some(message::question(id, name, type_number(kind)?))
}

/// Sends on a connected socket, with the length before it if it is a stream.
pub(crate) fn ask(socket: &Socket, bytes: &[u8]) -> Done {
    if !socket.is_stream() {
        return socket.send(bytes, 0);
    }
    let length = u16::try_from(bytes.len()).map_err(|_| libc::EMSGSIZE)?;
    socket.send(&[&length.to_be_bytes(), bytes].concat(), 0)
}

/// Sends by sendmsg.
pub(crate) fn ask_by_message(socket: &Socket, to: &Name, bytes: &[u8]) -> Done {
    let mut parts = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let message = header(&mut parts, Some(to));
    // SAFETY: header, name and bytes live through the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(last_error()) } else { Ok(()) }
}

/// Waits for one reply and prints who it is from and what it says.
pub(crate) fn hear(socket: &Socket, by_message: bool) -> Done {
    let (from, bytes) = if socket.is_stream() {
        (socket.peer()?, read_framed(socket)?)
    } else {
        readable(socket, PATIENCE)?;
        receive(socket, by_message)?
    };
    let reply = read_reply(&bytes).ok_or(libc::EBADMSG)?;
    println!("> {from} {}", describe(&reply));
    Ok(())
}

/// Succeeds if nothing arrives.
pub(crate) fn silence(socket: &Socket, time: Duration) -> Done {
    match readable(socket, time) {
        Err(libc::ETIMEDOUT) => Ok(()),
        Ok(()) => Err(libc::EEXIST),
        Err(other) => Err(other),
    }
}

/// Prints the peer's address.
pub(crate) fn peer(socket: &Socket) -> Done {
    println!("> peer {}", socket.peer()?);
    Ok(())
}

/// Enters a network namespace of its own, which an ordinary user may as the root of a user namespace.
pub(crate) fn namespace() -> Done {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).map_err(|errno| errno as i32)
}

/// Brings the loopback device up.
pub(crate) fn loopback_up() -> Done {
    let socket = Socket::open("inet", "dgram", 0).ok_or(libc::EINVAL)??;
    // SAFETY: all zero is a valid request.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).map_err(|_| libc::EINVAL)?;
    // SAFETY: the request lives through the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}

/// Asks for one name `count` times at once, and connects to what each answer says as soon as it is there.
pub(crate) fn storm(server: SocketAddr, name: &str, kind: &str, count: u16, port: u16) -> Done {
    let to = Name::of(server);
    let mut sockets = Vec::new();
    for id in 1..=count {
        if id % 2 == 1 {
            sockets.push(datagram(server)?);
        }
        let socket = sockets.last().ok_or(libc::EINVAL)?;
        socket.send_to(&to, &question(id, name, kind).ok_or(libc::EINVAL)?, 0)?;
    }
    let (start, mut left) = (Instant::now(), usize::from(count));
    while left > 0 {
        let mut fds: Vec<_> =
            sockets.iter().map(|socket| PollFd::new(socket.borrow(), PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::from(100_u8)).map_err(|errno| errno as i32)?;
        let ready: Vec<_> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        for (socket, _) in sockets.iter().zip(ready).filter(|(_, ready)| *ready) {
            let reply = read_reply(&receive(socket, false)?.1).ok_or(libc::EBADMSG)?;
            connect_to_all(&reply, port)?;
            left -= 1;
        }
        if start.elapsed() > PATIENCE * 4 {
            println!("> {left} of {count} were not answered");
            return Err(libc::ETIMEDOUT);
        }
    }
    Ok(())
}

/// Asks for one name `count` times, a little over a second after the other, and connects to all that each answer says.
pub(crate) fn follow(server: SocketAddr, name: &str, kind: &str, count: u16, port: u16) -> Done {
    let socket = datagram(server)?;
    let mut met = std::collections::BTreeSet::new();
    for id in 1..=count {
        socket.send_to(&Name::of(server), &question(id, name, kind).ok_or(libc::EINVAL)?, 0)?;
        readable(&socket, PATIENCE)?;
        let reply = read_reply(&receive(&socket, false)?.1).ok_or(libc::EBADMSG)?;
        if reply.rcode != 0 || reply.answers.is_empty() {
            println!("> {}", describe(&reply));
            return Err(libc::ENODATA);
        }
        met.extend(connect_to_all(&reply, port)?);
        std::thread::sleep(Duration::from_millis(1_020));
    }
    println!("> met {}", met.len());
    Ok(())
}

fn datagram(server: SocketAddr) -> Result<Socket, i32> {
    Socket::open(if server.is_ipv4() { "inet" } else { "inet6" }, "dgram", 0).ok_or(libc::EINVAL)?
}

/// A refusal is an error; that the handshake takes its time is none.
fn connect_to_all(reply: &Reply, port: u16) -> Result<Vec<IpAddr>, i32> {
    let addresses = reply.answers.iter().filter_map(|answer| answer.data.parse::<IpAddr>().ok());
    let addresses: Vec<_> = addresses.collect();
    for address in &addresses {
        let family = if address.is_ipv4() { "inet" } else { "inet6" };
        let socket = Socket::open(family, "stream", 0).ok_or(libc::EINVAL)??;
        match socket.connect_without_waiting(&Name::of(SocketAddr::new(*address, port))) {
            Ok(()) | Err(libc::EINPROGRESS) => {}
            Err(errno) => {
                println!("> refused {address}");
                return Err(errno);
            }
        }
    }
    Ok(addresses)
}

fn describe(reply: &Reply) -> String {
    let mut words = vec![rcode_word(reply.rcode).to_owned(), reply.question.name.clone()];
    words.push(type_word(reply.question.query_type));
    words.extend(reply.truncated.then(|| "truncated".to_owned()));
    for answer in &reply.answers {
        words.push(format!("{}={}", type_word(answer.record_type), answer.data));
        words.push(format!("ttl={}", answer.ttl));
    }
    if let Some((code, text)) = &reply.extended {
        words.push(format!("extended={code}:{text}"));
    }
    words.join(" ")
}

fn readable(socket: &Socket, time: Duration) -> Done {
    let mut fds = [PollFd::new(socket.borrow(), PollFlags::POLLIN)];
    let time = PollTimeout::try_from(time).map_err(|_| libc::EINVAL)?;
    match poll(&mut fds, time) {
        Ok(0) => Err(libc::ETIMEDOUT),
        Ok(_) => Ok(()),
        Err(errno) => Err(errno as i32),
    }
}

fn receive(socket: &Socket, by_message: bool) -> Result<(SocketAddr, Vec<u8>), i32> {
    let mut buffer = [0_u8; 65_536];
    let mut name = Name::unspecified(None);
    let read = if by_message {
        let mut parts = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut message = header(&mut parts, None);
        name.offer(|storage, length| {
            message.msg_name = storage.cast();
            message.msg_namelen = *length;
            // SAFETY: header, name and buffer live through the call and are as long as it says.
            let read = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
            *length = message.msg_namelen;
            read
        })
    } else {
        name.offer(|storage, length| {
            let (data, size) = (buffer.as_mut_ptr().cast(), buffer.len());
            // SAFETY: name and buffer live through the call and are as long as it says.
            unsafe { libc::recvfrom(socket.as_raw_fd(), data, size, 0, storage.cast(), length) }
        })
    };
    let read = usize::try_from(read).map_err(|_| last_error())?;
    Ok((name.address().ok_or(libc::EAFNOSUPPORT)?, buffer[..read].to_vec()))
}

fn read_framed(socket: &Socket) -> Result<Vec<u8>, i32> {
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        let length = bytes.get(..2).map(|pair| usize::from(u16::from_be_bytes([pair[0], pair[1]])));
        if let Some(length) = length
            && bytes.len() >= length + 2
        {
            return Ok(bytes.split_off(2));
        }
        readable(socket, PATIENCE)?;
        // No more than this message: the next one is for the next step.
        let wanted = length.map_or(2 - bytes.len(), |length| length + 2 - bytes.len());
        let part = socket.read(wanted)?;
        if part.is_empty() {
            return Err(libc::ECONNRESET);
        }
        bytes.extend(part);
    }
}

fn last_error() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
