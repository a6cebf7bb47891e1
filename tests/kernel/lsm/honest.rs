//! Honest work inside a scope with all hooks: everything succeeds and nothing is told.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsRawFd as _,
        unix::net::{UnixDatagram, UnixStream},
    },
};

use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{Backlog, SockType, accept, bind, connect, listen},
        wait::waitpid,
    },
    unistd::Pid,
};

use crate::{call, outside};

/// What is done, and how; 0 if it went well.
type Work = (&'static str, fn() -> i32);

/// All of it.
pub(crate) const WORK: [Work; 9] = [
    ("unix listeners of every kind", unix_listeners),
    ("unix datagrams", unix_datagrams),
    ("unix pairs and descriptors of one's own", descriptors),
    ("network sockets of one's own", network),
    ("netlink", || call::make_socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)),
    ("tracing one's own child", tracing),
    ("killing one's own child", || own_child(|child| call::errno_of(kill(child, Signal::SIGCONT)))),
    ("memory of one's own", || {
        let own = fs::OpenOptions::new().read(true).write(true).open("/proc/self/mem");
        own.err().map_or(0, |error| error.raw_os_error().unwrap_or(-1))
    }),
    ("files", files),
];

fn unix_listeners() -> i32 {
    let path = format!("/tmp/honest-{}", std::process::id());
    for (kind, name) in [
        (SockType::Stream, path.clone()),
        (SockType::SeqPacket, format!("{path}-packets")),
        (SockType::Stream, format!("@{path}")),
        (SockType::SeqPacket, format!("@{path}-packets")),
    ] {
        let (listener, client) = (call::unix_socket(kind), call::unix_socket(kind));
        let address = call::unix_address(&name);
        let done = bind(listener.as_raw_fd(), &address)
            .and_then(|()| listen(&listener, Backlog::MAXCONN))
            .and_then(|()| connect(client.as_raw_fd(), &address))
            .and_then(|()| accept(listener.as_raw_fd()));
        let _ = fs::remove_file(&name);
        if done.is_err() {
            return call::errno_of(done);
        }
    }
    0
}

fn unix_datagrams() -> i32 {
    let path = format!("/tmp/honest-{}", std::process::id());
    let work = || -> std::io::Result<()> {
        let receiver = UnixDatagram::bind(&path)?;
        let sender = UnixDatagram::unbound()?;
        sender.send_to(b"x", &path)?;
        sender.connect(&path)?;
        sender.send(b"y")?;
        receiver.recv(&mut [0])?;
        let (one, other) = UnixDatagram::pair()?;
        one.send(b"z")?;
        other.recv(&mut [0]).map(drop)
    };
    let done = work();
    let _ = fs::remove_file(&path);
    of(done)
}

fn descriptors() -> i32 {
    let Ok((giver, taker)) = UnixStream::pair() else { return -1 };
    let Ok(socket) = UdpSocket::bind("127.0.0.1:0") else { return -1 };
    call::pass(&giver, socket.as_raw_fd());
    match call::take(&taker) {
        Some(taken) => of(UdpSocket::from(taken).send_to(b"x", "127.0.0.1:9").map(drop)),
        None => -1,
    }
}

fn network() -> i32 {
    of((|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        let (mut server, _) = listener.accept()?;
        client.write_all(b"x")?;
        server.read_exact(&mut [0])?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect("127.0.0.1:9")?;
        socket.send(b"x").map(drop)
    })())
}

fn tracing() -> i32 {
    own_child(|child| {
        let traced = call::trace(child.as_raw());
        if traced != 0 { traced } else { call::take_from_process(child.as_raw(), 1) }
    })
}

fn own_child(work: impl FnOnce(Pid) -> i32) -> i32 {
    let Ok(child) = outside::sleeper() else { return -1 };
    let done = work(child);
    let _ = kill(child, Signal::SIGKILL);
    let _ = waitpid(child, None);
    done
}

fn files() -> i32 {
    let path = format!("/tmp/honest-{}", std::process::id());
    let done = fs::create_dir(&path).and_then(|()| {
        fs::write(format!("{path}/file"), "text")?;
        fs::read_to_string("/proc/self/cgroup")?;
        fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")?;
        fs::remove_dir_all(&path)
    });
    of(done)
}

fn of(result: std::io::Result<()>) -> i32 {
    result.err().map_or(0, |error| error.raw_os_error().unwrap_or(-1))
}
