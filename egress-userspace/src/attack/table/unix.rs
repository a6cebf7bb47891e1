//! Unix sockets of processes outside, and families of sockets that no policy speaks of.

use std::{
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{Around, Attack, outside, success};
use crate::attack::{
    aim::Aim,
    call::{Done, Name, Sock, c_path, call, header, of_io, owned, write},
    process::{child, fork, in_child},
    ring::Ring,
};

const STREAM: i32 = libc::SOCK_STREAM;
const DGRAM: i32 = libc::SOCK_DGRAM;
const SEQPACKET: i32 = libc::SOCK_SEQPACKET;

fn open(kind: i32) -> Done<Sock> {
    Sock::open(libc::AF_UNIX, kind, 0)
}

fn peer(kind: i32, name: Name, aim: &Aim<'_>) -> Done {
    let socket = open(kind)?;
    socket.connect(name)?;
    socket.send(&aim.token())
}

fn to(kind: i32, name: Name, aim: &Aim<'_>) -> Done {
    open(kind)?.send_to(name, &aim.token())
}

fn at(name: &str, aim: &Aim<'_>) -> Name {
    Name::path(&aim.path(name))
}

/// A path whose socket address is as long as one of the internet families.
pub(in crate::attack) fn path_as_long(directory: &std::path::Path, address: usize, kind: char) -> PathBuf {
    let have = directory.as_os_str().len() + 1;
    // Family, path and a zero.
    let name: String = std::iter::repeat_n(kind, address.saturating_sub(3 + have)).collect();
    directory.join(name)
}

fn as_long(address: usize, kind: char, aim: &Aim<'_>) -> Name {
    Name::path(&path_as_long(&aim.brief.directory, address, kind))
}

/// Longer than anybody tries.
const TURNING: Duration = Duration::from_secs(3);

/// Changes the link that it connects through while the call is made.
fn exchanged(aim: &Aim<'_>) -> Done {
    let (own, link) = (aim.path(&format!("own-{}", aim.index)), aim.path(&format!("link-{}", aim.index)));
    let listener = open(STREAM)?;
    listener.bind(Name::path(&own))?;
    listener.listen()?;
    let other = aim.path("stream");
    let turning = fork()?;
    let start = Instant::now();
    if turning == 0 {
        child(|| {
            // Not for ever, should the other be killed.
            for turn in (0..).take_while(|_| start.elapsed() < TURNING) {
                let spare = link.with_extension("new");
                let _there = std::fs::remove_file(&spare);
                std::os::unix::fs::symlink(if turn % 2 == 0 { &own } else { &other }, &spare)
                    .map_err(of_io("symlink"))?;
                std::fs::rename(&spare, &link).map_err(of_io("rename"))?;
            }
            Ok(())
        });
    }
    let mut last = Ok(());
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(800) {
        let Ok(socket) = Sock::open(libc::AF_UNIX, STREAM | libc::SOCK_NONBLOCK, 0) else { break };
        last = socket.connect(Name::path(&link)).and_then(|()| socket.send(&aim.token()));
    }
    // SAFETY: our own child, not yet waited for.
    unsafe { libc::kill(turning, libc::SIGKILL) };
    let _killed = in_child(turning);
    last
}

/// Listens, and tells whoever connects.
fn listen(name: &Name, aim: &Aim<'_>) -> Done {
    let listener = open(STREAM)?;
    listener.bind(name.clone())?;
    if name.0.get(2) != Some(&0) {
        let path = c_path(&aim.path(&format!("visit-{}", aim.index)));
        // SAFETY: the path lives through the call.
        call("chmod", || unsafe { libc::chmod(path.as_ptr(), 0o777) }.into())?;
    }
    listener.listen()?;
    listener.accept()?.send(&aim.token())
}

fn message(name: &Name, aim: &Aim<'_>) -> Done {
    let (socket, bytes) = (open(DGRAM)?, aim.token());
    let mut parts = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let message = header(&mut parts, Some(name));
    // SAFETY: header, name and bytes live through the call.
    call("sendmsg", || unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) as libc::c_long })
        .map(drop)
}

/// That such a socket can be had at all: what it reaches is beyond any policy here.
fn family(family: i32, kind: i32, protocol: i32) -> Done {
    Sock::open(family, kind, protocol).map(drop)
}

/// A message to another process by way of the kernel.
fn user_netlink(aim: &Aim<'_>) -> Done {
    let socket = Sock::open(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_USERSOCK)?;
    let mut name = u16::try_from(libc::AF_NETLINK).unwrap_or_default().to_ne_bytes().to_vec();
    name.extend([0; 2]);
    name.extend(crate::attack::outside::NETLINK_PORT.to_ne_bytes());
    name.extend([0; 4]);
    let token = aim.token();
    let size = u32::try_from(token.len() + 16).unwrap_or_default();
    let mut message = size.to_ne_bytes().to_vec();
    message.extend([16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(token);
    socket.send_to(Name(name), &message)
}

const RAW: i32 = libc::SOCK_RAW;

pub(super) const ATTACKS: &[Attack] = &[
    outside("m-stream", "stream socket with a path", |aim| peer(STREAM, at("stream", aim), aim)).unix(),
    outside("m-seqpacket", "packet socket with a path", |aim| peer(SEQPACKET, at("seqpacket", aim), aim))
        .unix(),
    outside("m-dgram-peer", "datagram socket with a path, as a peer", |aim| {
        peer(DGRAM, at("dgram", aim), aim)
    })
    .unix(),
    outside("m-dgram-to", "datagram to a path", |aim| to(DGRAM, at("dgram", aim), aim)).unix(),
    outside("m-dgram-message", "datagram to a path by sendmsg", |aim| message(&at("dgram", aim), aim)).unix(),
    outside("m-dgram-many", "datagrams to a path by sendmmsg", |aim| {
        let (name, token) = (at("dgram", aim), aim.token());
        open(DGRAM)?.send_two((&name, &token), (&name, &token))
    })
    .unix(),
    outside("m-dgram-again", "datagram to a path on a socket with another peer", |aim| {
        let own = at(&format!("own-{}", aim.index), aim);
        let (here, there) = (open(DGRAM)?, open(DGRAM)?);
        there.bind(own.clone())?;
        here.connect(own)?;
        here.send_to(at("dgram", aim), &aim.token())
    })
    .unix(),
    outside("m-dgram-pair", "datagram to a path by one of a pair", |aim| {
        let mut ends = [0; 2];
        let room = ends.as_mut_ptr();
        // SAFETY: the kernel writes two descriptors.
        call("socketpair", || unsafe { libc::socketpair(libc::AF_UNIX, DGRAM, 0, room) }.into())?;
        Sock::from(owned(ends[0].into())).send_to(at("dgram", aim), &aim.token())
    })
    .unix(),
    outside("m-abstract", "stream socket with an abstract name", |aim| {
        peer(STREAM, Name::abstracted("egress-stream"), aim)
    })
    .unix(),
    outside("m-abstract-seqpacket", "packet socket with an abstract name", |aim| {
        peer(SEQPACKET, Name::abstracted("egress-seqpacket"), aim)
    })
    .unix(),
    outside("m-abstract-peer", "datagram socket with an abstract name, as a peer", |aim| {
        peer(DGRAM, Name::abstracted("egress-dgram"), aim)
    })
    .unix(),
    outside("m-abstract-to", "datagram to an abstract name", |aim| {
        to(DGRAM, Name::abstracted("egress-dgram"), aim)
    })
    .unix(),
    outside("m-link", "stream socket through a symbolic link", |aim| {
        let link = aim.path(&format!("link-{}", aim.index));
        std::os::unix::fs::symlink(aim.path("stream"), &link).map_err(of_io("symlink"))?;
        peer(STREAM, Name::path(&link), aim)
    })
    .unix(),
    outside("m-hard-link", "stream socket by another name of its inode", |aim| {
        let link = aim.path(&format!("hard-{}", aim.index));
        std::fs::hard_link(aim.path("stream"), &link).map_err(of_io("link"))?;
        peer(STREAM, Name::path(&link), aim)
    })
    .unix(),
    outside("m-exchanged", "stream socket through a link that is exchanged meanwhile", exchanged).unix(),
    outside("m-relative", "stream socket by a relative path", |aim| {
        std::env::set_current_dir(&aim.brief.directory).map_err(of_io("chdir"))?;
        peer(STREAM, Name::path("stream".as_ref()), aim)
    })
    .unix(),
    outside("m-descriptor", "stream socket through a descriptor of its directory", |aim| {
        let directory = std::fs::File::open(&aim.brief.directory).map_err(of_io("open"))?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/stream", directory.as_raw_fd()));
        peer(STREAM, Name::path(&path), aim)
    })
    .unix(),
    outside("m-as-long-as-inet", "stream socket, address as long as one of IPv4", |aim| {
        peer(STREAM, as_long(16, 's', aim), aim)
    })
    .unix(),
    outside("m-as-long-as-inet6", "stream socket, address as long as one of IPv6", |aim| {
        peer(STREAM, as_long(28, 's', aim), aim)
    })
    .unix(),
    outside("m-dgram-as-long-as-inet", "datagram, address as long as one of IPv4", |aim| {
        to(DGRAM, as_long(16, 'd', aim), aim)
    })
    .unix(),
    outside("m-dgram-as-long-as-inet6", "datagram, address as long as one of IPv6", |aim| {
        to(DGRAM, as_long(28, 'd', aim), aim)
    })
    .unix(),
    outside("m-ring", "stream socket with a path, connected by a ring", |aim| {
        let (mut ring, socket) = (Ring::new(false)?, open(STREAM)?);
        ring.connect(&socket, &at("stream", aim))?;
        ring.send(socket.as_raw_fd(), &aim.token())
    })
    .unix(),
    outside("m-ring-dgram", "datagram to a path by a ring", |aim| {
        Ring::new(false)?.send_message(&open(DGRAM)?, &at("dgram", aim), &aim.token(), 0)
    })
    .unix(),
    outside("m-ring-abstract", "stream socket with an abstract name, connected by a ring", |aim| {
        let (mut ring, socket) = (Ring::new(false)?, open(STREAM)?);
        ring.connect(&socket, &Name::abstracted("egress-stream"))?;
        ring.send(socket.as_raw_fd(), &aim.token())
    })
    .unix(),
    outside("m-visited", "a process outside connects to a path of ours", |aim| {
        listen(&at(&format!("visit-{}", aim.index), aim), aim)
    })
    .around(Around::VisitUnix)
    .conspires(),
    outside("m-visited-abstract", "a process outside connects to an abstract name of ours", |aim| {
        listen(&Name::abstracted(&format!("visit-{}", aim.index)), aim)
    })
    .around(Around::VisitUnix)
    .conspires(),
    outside("m-fifo", "a named pipe that a process outside reads", |aim| {
        let mut options = std::fs::OpenOptions::new();
        let file = options
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(aim.path("fifo"))
            .map_err(of_io("open"))?;
        write("write", file.as_raw_fd(), &aim.token())
    })
    .conspires(),
    outside("m-file", "a file that a process outside reads", |aim| {
        std::fs::write(aim.path("file"), aim.token()).map_err(of_io("open"))
    })
    .conspires(),
    outside("m-netlink-user", "a netlink message to a process outside", user_netlink),
    success("m-vsock", "socket of the family vsock", |_| family(libc::AF_VSOCK, STREAM, 0)),
    success("m-vsock-dgram", "datagram socket of the family vsock", |_| family(libc::AF_VSOCK, DGRAM, 0)),
    success("m-alg", "socket of the family alg", |_| family(libc::AF_ALG, SEQPACKET, 0)),
    success("m-bluetooth", "socket of the family bluetooth", |_| family(libc::AF_BLUETOOTH, RAW, 1)),
    success("m-pppox", "PPPoE socket", |_| family(libc::AF_PPPOX, STREAM, 0)),
    success("m-tipc", "socket of the family tipc", |_| family(libc::AF_TIPC, SEQPACKET, 0)),
    success("m-can", "socket of the family can", |_| family(libc::AF_CAN, RAW, 1)),
    success("m-rxrpc", "socket of the family rxrpc", |_| family(libc::AF_RXRPC, DGRAM, 2)),
    success("m-rds", "socket of the family rds", |_| family(libc::AF_RDS, SEQPACKET, 0)),
    success("m-kcm", "socket of the family kcm", |_| family(41, DGRAM, 0)),
    success("m-qipcrtr", "socket of the family qipcrtr", |_| family(42, DGRAM, 0)),
    success("m-phonet", "socket of the family phonet", |_| family(libc::AF_PHONET, DGRAM, 0)),
    success("m-llc", "socket of the family llc", |_| family(libc::AF_LLC, DGRAM, 0)),
    success("m-nfc", "socket of the family nfc", |_| family(libc::AF_NFC, SEQPACKET, 1)),
    success("m-mctp", "socket of the family mctp", |_| family(45, DGRAM, 0)),
    success("m-ieee802154", "socket of the family ieee802154", |_| family(libc::AF_IEEE802154, DGRAM, 0)),
    success("m-caif", "socket of the family caif", |_| family(libc::AF_CAIF, SEQPACKET, 0)),
    success("m-ax25", "socket of the family ax25", |_| family(libc::AF_AX25, SEQPACKET, 0)),
    success("m-x25", "socket of the family x25", |_| family(libc::AF_X25, SEQPACKET, 0)),
    success("m-atm", "socket of the family atmpvc", |_| family(libc::AF_ATMPVC, DGRAM, 0)),
    success("m-appletalk", "socket of the family appletalk", |_| family(libc::AF_APPLETALK, DGRAM, 0)),
];
