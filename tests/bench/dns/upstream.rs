//! The upstream: one thread that answers UDP in batches, and one for each TCP connection.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _},
    ptr, thread,
};

use anyhow::{Context as _, Result};

use crate::{
    batch::Batch,
    message::{self, ROOM},
    say,
};

/// Room for questions that wait, which the forwarders send in bursts.
const BUFFER: libc::c_int = 8 << 20;

/// Answers until its standard input ends.
pub(crate) fn serve(address: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(address).with_context(|| format!("bind {address}"))?;
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    enlarge(&socket);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || converse(stream));
        }
    });
    thread::spawn(move || datagrams(&socket));
    say("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Enlarges the buffers as far as this process may.
pub(crate) fn enlarge(socket: &UdpSocket) {
    for (forced, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        let set = |option| {
            let length = libc::socklen_t::try_from(size_of_val(&BUFFER)).unwrap_or(0);
            let value = ptr::from_ref(&BUFFER).cast();
            // SAFETY: the option is an integer, which outlives the call.
            unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, length) }
        };
        // A smaller buffer shows as lost questions.
        if set(forced) != 0 {
            set(plain);
        }
    }
}

fn datagrams(socket: &UdpSocket) {
    let mut batch = Batch::named();
    loop {
        let Ok(count) = batch.receive(socket.as_fd(), true) else { continue };
        for at in 0..count {
            let length = batch.received(at).len();
            let answer = message::answer(batch.room(at), length).unwrap_or(0);
            batch.set_length(at, answer);
        }
        batch.send(socket.as_fd(), count);
    }
}

/// Answers the questions of a connection one after the other (RFC 7766 §8).
fn converse(mut stream: TcpStream) {
    let mut room = [0; ROOM];
    loop {
        let mut length = [0; 2];
        if stream.read_exact(&mut length).is_err() {
            return;
        }
        let length = usize::from(u16::from_be_bytes(length));
        let Some(question) = room.get_mut(..length) else { return };
        if stream.read_exact(question).is_err() {
            return;
        }
        let Some(length) = message::answer(&mut room, length) else { return };
        let Ok(prefix) = u16::try_from(length) else { return };
        let reply = [&prefix.to_be_bytes()[..], &room[..length]].concat();
        if stream.write_all(&reply).is_err() {
            return;
        }
    }
}
