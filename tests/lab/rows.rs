//! The table of cases: every way out that this version closes, by the hook whose file is named alike.
//!
//! Longer than other files because it is a table. Addresses are those of [`crate::network::address`]; allowed is port
//! 443 of 203.0.113.10 and 2001:db8:10::10, over TCP and UDP.

use std::net::{IpAddr, Ipv4Addr};

use egress_common::{Hook, Reason};

use crate::{
    cases::{Case, Honest, Proof, Told, allowed, case, denied, honest},
    network::address::{BAD_LINK, BAD4, BAD6, ELSEWHERE4, ELSEWHERE6, GATEWAY4, GOOD4},
};

const EPERM: i32 = libc::EPERM;
const TO_BAD4: Proof = Proof::To(IpAddr::V4(BAD4));
const TO_BAD6: Proof = Proof::To(IpAddr::V6(BAD6));
const TO_LINK: Proof = Proof::To(IpAddr::V6(BAD_LINK));
const CONNECT: &[Told] = &[denied(Hook::Connect, Reason::NoRule)];
const SENDMSG: &[Told] = &[denied(Hook::Sendmsg, Reason::NoRule)];
const PACKET: &[Told] = &[denied(Hook::Packet, Reason::NoRule)];
const CREATE: &[Told] = &[denied(Hook::Create, Reason::SocketType)];
const AT_CONNECT: (&str, i32) = ("connect", EPERM);
const AT_SEND: (&str, i32) = ("send", EPERM);
const AT_SENDTO: (&str, i32) = ("sendto", EPERM);
const AT_SOCKET: (&str, i32) = ("socket", libc::EPROTONOSUPPORT);

const STREAM4: &str = "socket inet stream";
const STREAM6: &str = "socket inet6 stream";
const DGRAM4: &str = "socket inet dgram";
const DGRAM6: &str = "socket inet6 dgram";

/// TCP, and the peers of datagram sockets.
pub const CONNECT_ROWS: &[Case] = &[
    case("TCP over IPv4", &[STREAM4, "connect 203.0.113.66:443"], TO_BAD4, AT_CONNECT, CONNECT),
    case("TCP over IPv6", &[STREAM6, "connect [2001:db8:66::66]:443"], TO_BAD6, AT_CONNECT, CONNECT),
    case(
        "TCP to a mapped address",
        &[STREAM6, "connect [::ffff:203.0.113.66]:443"],
        TO_BAD4,
        AT_CONNECT,
        CONNECT,
    ),
    case(
        "TCP to a link-local address",
        &[STREAM6, "connect [fe80::66%2]:443"],
        TO_LINK,
        AT_CONNECT,
        &[denied(Hook::Connect, Reason::LinkLocal)],
    ),
    case(
        "TCP to another port of an allowed address",
        &[STREAM4, "connect 203.0.113.10:444"],
        Proof::To(IpAddr::V4(GOOD4)),
        AT_CONNECT,
        CONNECT,
    ),
    case(
        "TCP to a peer after another one",
        &[STREAM4, "connect 203.0.113.10:443", "disconnect", "connect 203.0.113.66:443"],
        TO_BAD4,
        AT_CONNECT,
        &[allowed(Hook::Connect), denied(Hook::Connect, Reason::NoRule)],
    ),
    case(
        "MSG_FASTOPEN over IPv4",
        &[STREAM4, "fastopen 203.0.113.66:443 leak"],
        TO_BAD4,
        ("fastopen", EPERM),
        CONNECT,
    ),
    case(
        "MSG_FASTOPEN over IPv6",
        &[STREAM6, "fastopen [2001:db8:66::66]:443 leak"],
        TO_BAD6,
        ("fastopen", EPERM),
        CONNECT,
    ),
    case(
        "MSG_FASTOPEN to a mapped address",
        &[STREAM6, "fastopen [::ffff:203.0.113.66]:443 leak"],
        TO_BAD4,
        ("fastopen", EPERM),
        CONNECT,
    ),
    case(
        // TCP_FASTOPEN_CONNECT is 30.
        "TCP_FASTOPEN_CONNECT",
        &[STREAM4, "option 6 30 01000000", "connect 203.0.113.66:443", "send leak"],
        TO_BAD4,
        AT_CONNECT,
        CONNECT,
    ),
    case(
        "io_uring connect",
        &[STREAM4, "ring-connect 203.0.113.66:443"],
        TO_BAD4,
        ("ring-connect", EPERM),
        CONNECT,
    ),
    case(
        "io_uring connect by a kernel thread",
        &[STREAM4, "polled-connect 203.0.113.66:443"],
        TO_BAD4,
        ("polled-connect", EPERM),
        CONNECT,
    ),
    case(
        "TCP from a bound socket",
        &[STREAM4, "bind 192.0.2.2:0", "connect 203.0.113.66:443"],
        TO_BAD4,
        AT_CONNECT,
        CONNECT,
    ),
];

/// Datagrams with an address of their own.
pub const SENDMSG_ROWS: &[Case] = &[
    case("UDP sendto over IPv4", &[DGRAM4, "sendto 203.0.113.66:443 leak"], TO_BAD4, AT_SENDTO, SENDMSG),
    case("UDP sendto over IPv6", &[DGRAM6, "sendto [2001:db8:66::66]:443 leak"], TO_BAD6, AT_SENDTO, SENDMSG),
    case(
        "UDP sendto a mapped address",
        &[DGRAM6, "sendto [::ffff:203.0.113.66]:443 leak"],
        TO_BAD4,
        AT_SENDTO,
        SENDMSG,
    ),
    case(
        "UDP sendto a link-local address",
        &[DGRAM6, "sendto [fe80::66%2]:443 leak"],
        TO_LINK,
        AT_SENDTO,
        &[denied(Hook::Sendmsg, Reason::LinkLocal)],
    ),
    case(
        "UDP sendto with family AF_UNSPEC",
        &[DGRAM4, "unspecto 203.0.113.66:443 leak"],
        TO_BAD4,
        ("unspecto", EPERM),
        SENDMSG,
    ),
    case(
        "UDP sendto an IPv4 address on an IPv6 socket",
        &[DGRAM6, "sendto 203.0.113.66:443 leak"],
        TO_BAD4,
        AT_SENDTO,
        SENDMSG,
    ),
    case(
        // IP_PKTINFO with nothing chosen.
        "UDP sendmsg with IP_PKTINFO",
        &[DGRAM4, "cmsgto 203.0.113.66:443 0 8 000000000000000000000000 leak"],
        TO_BAD4,
        ("cmsgto", EPERM),
        SENDMSG,
    ),
    case(
        "UDP sendmsg with IPV6_PKTINFO",
        &[DGRAM6, "cmsgto [2001:db8:66::66]:443 41 50 0000000000000000000000000000000000000000 leak"],
        TO_BAD6,
        ("cmsgto", EPERM),
        SENDMSG,
    ),
    case(
        "second message of sendmmsg",
        &[DGRAM4, "sendmmsg 203.0.113.10:443 203.0.113.66:443 leak"],
        TO_BAD4,
        ("sendmmsg", EPERM),
        // The first call sends one message and says so; the program asks again for the other.
        &[
            allowed(Hook::Sendmsg),
            denied(Hook::Sendmsg, Reason::NoRule),
            denied(Hook::Sendmsg, Reason::NoRule),
        ],
    ),
    case(
        "UDP sendto elsewhere than the peer, IPv4",
        &[DGRAM4, "connect 203.0.113.10:443", "sendto 203.0.113.66:443 leak"],
        TO_BAD4,
        AT_SENDTO,
        SENDMSG,
    ),
    case(
        "UDP sendto elsewhere than the peer, IPv6",
        &[DGRAM6, "connect [2001:db8:10::10]:443", "sendto [2001:db8:66::66]:443 leak"],
        TO_BAD6,
        AT_SENDTO,
        SENDMSG,
    ),
    case(
        "UDP sendto after the peer was dissolved",
        &[DGRAM4, "connect 203.0.113.10:443", "disconnect", "sendto 203.0.113.66:443 leak"],
        TO_BAD4,
        AT_SENDTO,
        SENDMSG,
    ),
    case(
        "UDP datagram larger than the link",
        &[DGRAM4, "bulkto 203.0.113.66:443 4000"],
        TO_BAD4,
        ("bulkto", EPERM),
        SENDMSG,
    ),
    case(
        "io_uring sendmsg",
        &[DGRAM4, "ring-sendmsg 203.0.113.66:443 leak"],
        TO_BAD4,
        ("ring-sendmsg", EPERM),
        SENDMSG,
    ),
    case(
        "io_uring sendmsg by a kernel thread",
        &[DGRAM4, "polled-sendmsg 203.0.113.66:443 leak"],
        TO_BAD4,
        ("polled-sendmsg", EPERM),
        SENDMSG,
    ),
    case(
        "UDP to the link's broadcast address",
        &[DGRAM4, "option 1 6 01000000", "sendto 192.0.2.255:443 leak"],
        Proof::To(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 255))),
        AT_SENDTO,
        SENDMSG,
    ),
    case(
        "UDP to all",
        &[DGRAM4, "option 1 6 01000000", "sendto 255.255.255.255:443 leak"],
        Proof::To(IpAddr::V4(Ipv4Addr::BROADCAST)),
        AT_SENDTO,
        &[denied(Hook::Sendmsg, Reason::Broadcast)],
    ),
    case(
        "UDP to a group, IPv4",
        &[DGRAM4, "sendto 239.1.2.3:443 leak"],
        Proof::Carries("leak"),
        AT_SENDTO,
        &[denied(Hook::Sendmsg, Reason::Multicast)],
    ),
    case(
        "UDP to a group, IPv6",
        &[DGRAM6, "sendto [ff02::1%2]:443 leak"],
        Proof::Carries("leak"),
        AT_SENDTO,
        &[denied(Hook::Sendmsg, Reason::Multicast)],
    ),
    case(
        "corked for an allowed address, then sent elsewhere",
        &[
            DGRAM4,
            "moreto 203.0.113.66:443 leak",
            "moreto 203.0.113.10:443 leak",
            "sendto 203.0.113.10:443 leak",
        ],
        TO_BAD4,
        ("moreto", EPERM),
        SENDMSG,
    ),
];

/// Sockets that are not made at all.
pub const CREATE_ROWS: &[Case] = &[
    case(
        "UDP-Lite",
        &["socket inet dgram 136", "connect 203.0.113.66:443", "send leak"],
        TO_BAD4,
        AT_SOCKET,
        CREATE,
    ),
    case(
        "UDP-Lite over IPv6",
        &["socket inet6 dgram 136", "connect [2001:db8:66::66]:443", "send leak"],
        TO_BAD6,
        AT_SOCKET,
        CREATE,
    ),
    case(
        "UDP-Lite to a mapped address",
        &["socket inet6 dgram 136", "connect [::ffff:203.0.113.66]:443", "send leak"],
        TO_BAD4,
        AT_SOCKET,
        CREATE,
    ),
    case(
        "ping socket",
        &["socket inet dgram 1", "hexto 203.0.113.66:0 080000000000000061616161"],
        TO_BAD4,
        AT_SOCKET,
        CREATE,
    ),
    case(
        "ping socket over IPv6",
        &["socket inet6 dgram 58", "hexto [2001:db8:66::66]:0 800000000000000061616161"],
        Proof::Protocol(58, IpAddr::V6(BAD6)),
        AT_SOCKET,
        CREATE,
    ),
    case(
        "raw ICMP",
        &["socket inet raw 1", "hexto 203.0.113.66:0 080000000000000061616161"],
        TO_BAD4,
        AT_SOCKET,
        CREATE,
    ),
    case(
        "raw ICMPv6",
        &["socket inet6 raw 58", "hexto [2001:db8:66::66]:0 800000000000000061616161"],
        Proof::Protocol(58, IpAddr::V6(BAD6)),
        AT_SOCKET,
        CREATE,
    ),
    case(
        "raw UDP",
        &["socket inet raw 17", "hexto 203.0.113.66:0 01bb01bb000c000061616161"],
        TO_BAD4,
        AT_SOCKET,
        CREATE,
    ),
    case(
        "raw packet with a header of its own",
        &[
            "socket inet raw 255",
            "hexto 203.0.113.10:0 4500001c0000000040110000c0000202cb00714201bb01bb00080000",
        ],
        TO_BAD4,
        AT_SOCKET,
        CREATE,
    ),
    case(
        "raw fragment without ports",
        &[
            "socket inet raw 255",
            "hexto 203.0.113.10:0 4500001c0001000140110000c0000202cb00714261616161616161",
        ],
        TO_BAD4,
        AT_SOCKET,
        CREATE,
    ),
    case("MPTCP", &["socket inet stream 262", "connect 203.0.113.66:443"], TO_BAD4, AT_SOCKET, CREATE),
    case(
        "MPTCP over IPv6",
        &["socket inet6 stream 262", "connect [2001:db8:66::66]:443"],
        TO_BAD6,
        AT_SOCKET,
        CREATE,
    ),
    case(
        "MPTCP to a mapped address",
        &["socket inet6 stream 262", "connect [::ffff:203.0.113.66]:443"],
        TO_BAD4,
        AT_SOCKET,
        CREATE,
    ),
    case(
        "MPTCP with MSG_FASTOPEN",
        &["socket inet stream 262", "fastopen 203.0.113.66:443 leak"],
        TO_BAD4,
        AT_SOCKET,
        CREATE,
    ),
];

const NOT_PLAIN_SENT: &[Told] = &[allowed(Hook::Sendmsg), denied(Hook::Packet, Reason::NotPlain)];

/// What only the packet shows.
pub const PACKET_ROWS: &[Case] = &[
    case(
        "UDP connect and send, IPv4",
        &[DGRAM4, "connect 203.0.113.66:443", "send leak"],
        TO_BAD4,
        AT_SEND,
        PACKET,
    ),
    case(
        "UDP connect and send, IPv6",
        &[DGRAM6, "connect [2001:db8:66::66]:443", "send leak"],
        TO_BAD6,
        AT_SEND,
        PACKET,
    ),
    case(
        "UDP connect and send, mapped",
        &[DGRAM6, "connect [::ffff:203.0.113.66]:443", "send leak"],
        TO_BAD4,
        AT_SEND,
        // The kernel gives such a send the address of the peer.
        SENDMSG,
    ),
    case(
        "UDP connect and send, IPv4 address on an IPv6 socket",
        &[DGRAM6, "connect 203.0.113.66:443", "send leak"],
        TO_BAD4,
        AT_SEND,
        // The kernel gives such a send the address of the peer.
        SENDMSG,
    ),
    case(
        "UDP connect and send, link-local",
        &[DGRAM6, "connect [fe80::66%2]:443", "send leak"],
        TO_LINK,
        AT_SEND,
        &[denied(Hook::Packet, Reason::LinkLocal)],
    ),
    case(
        "UDP connect to an allowed peer, then another",
        &[DGRAM4, "connect 203.0.113.10:443", "connect 203.0.113.66:443", "send leak"],
        TO_BAD4,
        AT_SEND,
        PACKET,
    ),
    case(
        // IP_TOS
        "connected UDP with a control message",
        &[DGRAM4, "connect 203.0.113.66:443", "cmsg 0 1 04000000 leak"],
        TO_BAD4,
        ("cmsg", EPERM),
        PACKET,
    ),
    Case {
        // The option is set whatever becomes of the datagram.
        refusal: None,
        ..case(
            // UDP_CORK is 1. Over IPv6 what is corked for one peer goes to it even after a connect to another.
            "corked for a forbidden peer, sent after a connect to an allowed one, IPv6",
            &[
                DGRAM6,
                "connect [2001:db8:66::66]:443",
                "option 17 1 01000000",
                "send leak",
                "connect [2001:db8:10::10]:443",
                "option 17 1 00000000",
            ],
            TO_BAD6,
            ("option", EPERM),
            PACKET,
        )
    },
    case(
        "MSG_MORE for a forbidden peer, sent after a connect to an allowed one, IPv6",
        &[DGRAM6, "connect [2001:db8:66::66]:443", "more leak", "connect [2001:db8:10::10]:443", "send leak"],
        TO_BAD6,
        AT_SEND,
        PACKET,
    ),
    case(
        "the same after the allowed peer was approved before, IPv6",
        &[
            DGRAM6,
            "connect [2001:db8:10::10]:443",
            "connect [2001:db8:66::66]:443",
            "more leak",
            "connect [2001:db8:10::10]:443",
            "send leak",
        ],
        TO_BAD6,
        AT_SEND,
        PACKET,
    ),
    case(
        "the same after the allowed peer was sent to, IPv6",
        &[
            DGRAM6,
            "connect [2001:db8:10::10]:443",
            "send fine",
            "disconnect",
            "connect [2001:db8:66::66]:443",
            "more leak",
            "connect [2001:db8:10::10]:443",
            "send leak",
        ],
        TO_BAD6,
        AT_SEND,
        // The first datagram to the allowed peer is told as an allowed attempt of the flow.
        &[allowed(Hook::Packet), denied(Hook::Packet, Reason::NoRule)],
    ),
    case(
        // Over IPv4 it goes to the newest peer.
        "corked for an allowed peer, sent after a connect to a forbidden one, IPv4",
        &[DGRAM4, "connect 203.0.113.10:443", "more leak", "connect 203.0.113.66:443", "send leak"],
        TO_BAD4,
        AT_SEND,
        PACKET,
    ),
    case(
        "corked by sendto an allowed address, sent after a connect to a forbidden one, IPv4",
        &[DGRAM4, "moreto 203.0.113.10:443 leak", "connect 203.0.113.66:443", "send leak"],
        TO_BAD4,
        AT_SEND,
        &[allowed(Hook::Sendmsg), denied(Hook::Packet, Reason::NoRule)],
    ),
    case(
        // IP_RETOPTS is 7.
        "UDP with a source route in a control message",
        &[DGRAM4, "cmsgto 203.0.113.10:443 0 7 01830704cb007142 leak"],
        TO_BAD4,
        ("cmsgto", EPERM),
        NOT_PLAIN_SENT,
    ),
];

const AT_OPTION: (&str, i32) = ("option", EPERM);
const OPTION: &[Told] = &[denied(Hook::Setsockopt, Reason::SocketOption)];
/// A TCP socket whose connect was allowed before.
const CONNECTED_OPTION: &[Told] = &[allowed(Hook::Connect), denied(Hook::Setsockopt, Reason::SocketOption)];

/// Options that lead packets elsewhere, or send data of their own.
pub const SETSOCKOPT_ROWS: &[Case] = &[
    case(
        // Loose source route by way of 203.0.113.66.
        "UDP with a loose source route",
        &[DGRAM4, "option 0 4 01830704cb007142", "sendto 203.0.113.10:443 leak"],
        TO_BAD4,
        AT_OPTION,
        OPTION,
    ),
    case(
        "connected UDP with a loose source route",
        &[DGRAM4, "connect 203.0.113.10:443", "option 0 4 01830704cb007142", "send leak"],
        TO_BAD4,
        AT_OPTION,
        OPTION,
    ),
    case(
        // Strict source route by way of the gateway, which is on the link.
        "UDP with a strict source route",
        &[DGRAM4, "option 0 4 01890704c0000201", "sendto 203.0.113.10:443 leak"],
        Proof::To(IpAddr::V4(GATEWAY4)),
        AT_OPTION,
        OPTION,
    ),
    case(
        "TCP with a loose source route",
        &[STREAM4, "option 0 4 01830704cb007142", "connect 203.0.113.10:443"],
        TO_BAD4,
        AT_OPTION,
        OPTION,
    ),
    case(
        "TCP with a source route set after the connect",
        &[STREAM4, "connect 203.0.113.10:443", "option 0 4 01830704cb007142", "send leak", "sleep 20"],
        Proof::Options(IpAddr::V4(GOOD4)),
        AT_OPTION,
        CONNECTED_OPTION,
    ),
    case(
        // IPV6_RTHDR is 57; a segment routing header whose first segment is 2001:db8:66::66.
        "UDP with a routing header",
        &[
            DGRAM6,
            "option 41 57 000404010100000000000000000000000000000000000000\
             20010db8006600000000000000000066",
            "sendto [2001:db8:10::10]:443 leak",
        ],
        TO_BAD6,
        AT_OPTION,
        OPTION,
    ),
    case(
        "connected UDP with a routing header",
        &[
            DGRAM6,
            "connect [2001:db8:10::10]:443",
            "option 41 57 000404010100000000000000000000000000000000000000\
             20010db8006600000000000000000066",
            "send leak",
        ],
        TO_BAD6,
        AT_OPTION,
        OPTION,
    ),
    case(
        "TCP with a routing header",
        &[
            STREAM6,
            "option 41 57 000404010100000000000000000000000000000000000000\
             20010db8006600000000000000000066",
            "connect [2001:db8:10::10]:443",
        ],
        TO_BAD6,
        AT_OPTION,
        OPTION,
    ),
    case(
        "TCP with a routing header set after the connect",
        &[
            STREAM6,
            "connect [2001:db8:10::10]:443",
            "option 41 57 000404010100000000000000000000000000000000000000\
             20010db8006600000000000000000066",
            "send leak",
            "sleep 20",
        ],
        TO_BAD6,
        AT_OPTION,
        CONNECTED_OPTION,
    ),
    case(
        // IPV6_DSTOPTS is 59; a padding option that holds text.
        "text in destination options to an allowed host",
        &[DGRAM6, "option 41 59 00001e046c65616b", "sendto [2001:db8:10::10]:443 fine"],
        Proof::Carries("leak"),
        AT_OPTION,
        OPTION,
    ),
    case(
        // IPV6_HOPOPTS is 54.
        "text in hop-by-hop options to an allowed host",
        &[DGRAM6, "option 41 54 00001e046c65616b", "sendto [2001:db8:10::10]:443 fine"],
        Proof::Carries("leak"),
        AT_OPTION,
        OPTION,
    ),
    case(
        // IP_ADD_MEMBERSHIP is 35: the report names the group, and with it three bytes of the program's choice.
        "IGMP join",
        &[DGRAM4, "option 0 35 efabcdef00000000", "sleep 60"],
        Proof::Protocol(2, IpAddr::V4(Ipv4Addr::new(224, 0, 0, 22))),
        AT_OPTION,
        OPTION,
    ),
    case(
        // IP_ADD_SOURCE_MEMBERSHIP is 39.
        "IGMP join of one source",
        &[DGRAM4, "option 0 39 efabcdef00000000cb007142", "sleep 60"],
        Proof::Protocol(2, IpAddr::V4(Ipv4Addr::new(224, 0, 0, 22))),
        AT_OPTION,
        OPTION,
    ),
    case(
        // MCAST_JOIN_GROUP is 42; a sockaddr_in after the interface.
        "IGMP join by the protocol-independent option",
        &[
            DGRAM4,
            "option 0 42 020000000000000002000000efabcdef00000000000000000000000000000000000000000000000000000000\
             000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
             000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
            "sleep 60",
        ],
        Proof::Protocol(2, IpAddr::V4(Ipv4Addr::new(224, 0, 0, 22))),
        AT_OPTION,
        OPTION,
    ),
    case(
        // IPV6_ADD_MEMBERSHIP is 20: the report has eight bytes and more of the program's choice.
        "MLD join",
        &[DGRAM6, "option 41 20 ff05000000000000006c65616b6c656102000000", "sleep 60"],
        // The end of the group's address: the kernel reports groups of its own, too.
        Proof::Carries("leaklea"),
        AT_OPTION,
        OPTION,
    ),
    case(
        // SO_BINDTODEVICE is 25: agent0.
        "SO_BINDTODEVICE",
        &[DGRAM4, "option 1 25 6167656e743000", "sendto 203.0.113.66:443 leak"],
        TO_BAD4,
        AT_OPTION,
        OPTION,
    ),
    case(
        // SO_BINDTOIFINDEX is 62.
        "SO_BINDTOIFINDEX",
        &[DGRAM4, "option 1 62 02000000", "sendto 203.0.113.66:443 leak"],
        TO_BAD4,
        AT_OPTION,
        OPTION,
    ),
    case(
        // SO_MARK is 36: routing rules of the host may go by it.
        "SO_MARK",
        &[DGRAM4, "option 1 36 01000000", "sendto 203.0.113.66:443 leak"],
        TO_BAD4,
        AT_OPTION,
        OPTION,
    ),
    case(
        // IP_TRANSPARENT is 19: from an address of somebody else, so that the answer goes there.
        "IP_TRANSPARENT",
        &[DGRAM4, "option 0 19 01000000", "bind 198.51.100.9:7", "sendto 203.0.113.10:443 leak"],
        Proof::From(IpAddr::V4(ELSEWHERE4)),
        AT_OPTION,
        OPTION,
    ),
    case(
        // IPV6_FREEBIND is 78, and needs no privilege to send as somebody else.
        "IPV6_FREEBIND",
        &[DGRAM6, "option 41 78 01000000", "bind [2001:db8:99::9]:7", "sendto [2001:db8:10::10]:443 leak"],
        Proof::From(IpAddr::V6(ELSEWHERE6)),
        AT_OPTION,
        OPTION,
    ),
    case(
        // TCP_REPAIR is 19: a connection without a handshake.
        "TCP_REPAIR",
        &[
            STREAM4,
            "option 6 19 01000000",
            "bind 192.0.2.2:7",
            "connect 203.0.113.66:443",
            "option 6 19 00000000",
            "send leak",
        ],
        TO_BAD4,
        AT_OPTION,
        OPTION,
    ),
];

const TELL_CONNECT: &[Told] = &[allowed(Hook::Connect)];
const TELL_SENDMSG: &[Told] = &[allowed(Hook::Sendmsg)];
/// The first packet of an approved datagram peer is the attempt that is told.
const TELL_PACKET: &[Told] = &[allowed(Hook::Packet)];

/// Honest traffic: every step succeeds, and the text arrives where there is one.
pub const HONEST_ROWS: &[Honest] = &[
    honest(
        "TCP over IPv4",
        &[STREAM4, "connect 203.0.113.10:443", "send fine", "receive"],
        "fine",
        TELL_CONNECT,
    ),
    honest(
        "TCP over IPv6",
        &[STREAM6, "connect [2001:db8:10::10]:443", "send fine", "receive"],
        "fine",
        TELL_CONNECT,
    ),
    honest(
        "TCP to a mapped address",
        &[STREAM6, "connect [::ffff:203.0.113.10]:443", "send fine", "receive"],
        "fine",
        TELL_CONNECT,
    ),
    honest("MSG_FASTOPEN", &[STREAM4, "fastopen 203.0.113.10:443 fine", "receive"], "fine", TELL_CONNECT),
    honest(
        "TCP_FASTOPEN_CONNECT",
        &[STREAM4, "option 6 30 01000000", "connect 203.0.113.10:443", "send fine", "receive"],
        "fine",
        TELL_CONNECT,
    ),
    honest(
        "io_uring connect",
        &[STREAM4, "ring-connect 203.0.113.10:443", "send fine", "receive"],
        "fine",
        TELL_CONNECT,
    ),
    honest(
        "UDP connect and send, IPv4",
        &[DGRAM4, "connect 203.0.113.10:443", "send fine", "receive"],
        "fine",
        TELL_PACKET,
    ),
    honest(
        "UDP connect and send, IPv6",
        &[DGRAM6, "connect [2001:db8:10::10]:443", "send fine", "receive"],
        "fine",
        TELL_PACKET,
    ),
    honest(
        "UDP connect and send, mapped",
        &[DGRAM6, "connect [::ffff:203.0.113.10]:443", "send fine", "send fine", "receive"],
        "fine",
        TELL_SENDMSG,
    ),
    honest("UDP sendto, IPv4", &[DGRAM4, "sendto 203.0.113.10:443 fine", "receive"], "fine", TELL_SENDMSG),
    honest(
        "UDP sendto, IPv6",
        &[DGRAM6, "sendto [2001:db8:10::10]:443 fine", "receive"],
        "fine",
        TELL_SENDMSG,
    ),
    honest(
        "UDP sendto, mapped",
        &[DGRAM6, "sendto [::ffff:203.0.113.10]:443 fine", "receive"],
        "fine",
        TELL_SENDMSG,
    ),
    honest(
        "io_uring sendmsg",
        &[DGRAM4, "ring-sendmsg 203.0.113.10:443 fine", "receive"],
        "fine",
        TELL_SENDMSG,
    ),
    honest(
        // IP_TOS: what QUIC stacks do with every datagram.
        "connected UDP with IP_TOS",
        &[DGRAM4, "connect 203.0.113.10:443", "cmsg 0 1 02000000 fine", "receive"],
        "fine",
        TELL_PACKET,
    ),
    honest(
        // IPV6_TCLASS
        "connected UDP with IPV6_TCLASS",
        &[DGRAM6, "connect [2001:db8:10::10]:443", "cmsg 41 67 02000000 fine", "receive"],
        "fine",
        TELL_PACKET,
    ),
    honest(
        // UDP_SEGMENT of four bytes.
        "connected UDP with UDP_SEGMENT",
        &[DGRAM4, "connect 203.0.113.10:443", "cmsg 17 103 0400 finefinefine", "receive"],
        "fine",
        TELL_PACKET,
    ),
    honest(
        "datagram larger than the link",
        &[DGRAM4, "bulkto 203.0.113.10:443 4000", "receive"],
        "bbbb",
        TELL_SENDMSG,
    ),
    honest(
        "corked and sent whole",
        &[DGRAM4, "connect 203.0.113.10:443", "more fi", "send ne", "receive"],
        "fine",
        TELL_PACKET,
    ),
    honest(
        "one peer after another",
        &[DGRAM6, "connect [2001:db8:66::66]:443", "connect [2001:db8:10::10]:443", "send fine", "receive"],
        "fine",
        // Approved by its own destination: such a socket's tag approves nothing.
        &[],
    ),
    honest(
        "getaddrinfo's probes",
        &[DGRAM4, "probe 203.0.113.10:443", "disconnect", "probe 203.0.113.66:443"],
        "",
        &[],
    ),
    honest(
        "getaddrinfo's probes over IPv6",
        &[DGRAM6, "probe [2001:db8:10::10]:443", "disconnect", "probe [2001:db8:66::66]:443"],
        "",
        &[],
    ),
];
