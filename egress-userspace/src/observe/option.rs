//! Names of socket options that are refused. Receives level and number, gives the name of the C headers.

const SOL_SOCKET: u16 = 1;
const IP: u16 = 0;
const TCP: u16 = 6;
const UDP: u16 = 17;
const IPV6: u16 = 41;

/// Options that send data of their own, lead packets elsewhere, or make a socket another one; the numbers are those of
/// x86-64, aarch64 and all but three old architectures.
const OPTIONS: [(u16, u16, &str); 62] = [
    (SOL_SOCKET, 12, "SO_PRIORITY"),
    (SOL_SOCKET, 25, "SO_BINDTODEVICE"),
    (SOL_SOCKET, 36, "SO_MARK"),
    (SOL_SOCKET, 62, "SO_BINDTOIFINDEX"),
    (SOL_SOCKET, 26, "SO_ATTACH_FILTER"),
    (SOL_SOCKET, 50, "SO_ATTACH_BPF"),
    (SOL_SOCKET, 61, "SO_TXTIME"),
    (SOL_SOCKET, 75, "SO_RCVMARK"),
    (IP, 3, "IP_HDRINCL"),
    (IP, 4, "IP_OPTIONS"),
    (IP, 5, "IP_ROUTER_ALERT"),
    (IP, 8, "IP_PKTINFO"),
    (IP, 15, "IP_FREEBIND"),
    (IP, 16, "IP_IPSEC_POLICY"),
    (IP, 17, "IP_XFRM_POLICY"),
    (IP, 19, "IP_TRANSPARENT"),
    (IP, 22, "IP_NODEFRAG"),
    (IP, 32, "IP_MULTICAST_IF"),
    (IP, 35, "IP_ADD_MEMBERSHIP"),
    (IP, 36, "IP_DROP_MEMBERSHIP"),
    (IP, 37, "IP_UNBLOCK_SOURCE"),
    (IP, 38, "IP_BLOCK_SOURCE"),
    (IP, 39, "IP_ADD_SOURCE_MEMBERSHIP"),
    (IP, 40, "IP_DROP_SOURCE_MEMBERSHIP"),
    (IP, 41, "IP_MSFILTER"),
    (IP, 42, "MCAST_JOIN_GROUP"),
    (IP, 43, "MCAST_BLOCK_SOURCE"),
    (IP, 44, "MCAST_UNBLOCK_SOURCE"),
    (IP, 46, "MCAST_JOIN_SOURCE_GROUP"),
    (IP, 48, "MCAST_MSFILTER"),
    (IP, 64, "IPT_SO_SET_REPLACE"),
    (TCP, 14, "TCP_MD5SIG"),
    (TCP, 19, "TCP_REPAIR"),
    (TCP, 30, "TCP_FASTOPEN_CONNECT"),
    (TCP, 31, "TCP_ULP"),
    (TCP, 38, "TCP_AO_ADD_KEY"),
    (UDP, 100, "UDP_ENCAP"),
    (IPV6, 2, "IPV6_2292PKTINFO"),
    (IPV6, 3, "IPV6_2292HOPOPTS"),
    (IPV6, 4, "IPV6_2292DSTOPTS"),
    (IPV6, 5, "IPV6_2292RTHDR"),
    (IPV6, 6, "IPV6_2292PKTOPTIONS"),
    (IPV6, 9, "IPV6_FLOWINFO"),
    (IPV6, 17, "IPV6_MULTICAST_IF"),
    (IPV6, 20, "IPV6_JOIN_GROUP"),
    (IPV6, 21, "IPV6_LEAVE_GROUP"),
    (IPV6, 22, "IPV6_ROUTER_ALERT"),
    (IPV6, 27, "IPV6_JOIN_ANYCAST"),
    (IPV6, 32, "IPV6_FLOWLABEL_MGR"),
    (IPV6, 34, "IPV6_IPSEC_POLICY"),
    (IPV6, 35, "IPV6_XFRM_POLICY"),
    (IPV6, 36, "IPV6_HDRINCL"),
    (IPV6, 42, "MCAST_JOIN_GROUP"),
    (IPV6, 46, "MCAST_JOIN_SOURCE_GROUP"),
    (IPV6, 48, "MCAST_MSFILTER"),
    (IPV6, 50, "IPV6_PKTINFO"),
    (IPV6, 54, "IPV6_HOPOPTS"),
    (IPV6, 55, "IPV6_RTHDRDSTOPTS"),
    (IPV6, 57, "IPV6_RTHDR"),
    (IPV6, 59, "IPV6_DSTOPTS"),
    (IPV6, 75, "IPV6_TRANSPARENT"),
    (IPV6, 78, "IPV6_FREEBIND"),
];

/// The name, or `LEVEL:NUMBER`.
pub fn name(level: u16, number: u16) -> String {
    let known = OPTIONS.iter().find(|(a, b, _)| (*a, *b) == (level, number));
    known.map_or_else(|| format!("{level}:{number}"), |(_, _, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_headers() {
        for (level, number, expected) in [
            (libc::SOL_SOCKET, libc::SO_MARK, "SO_MARK"),
            (libc::SOL_SOCKET, libc::SO_BINDTODEVICE, "SO_BINDTODEVICE"),
            (libc::IPPROTO_IP, libc::IP_OPTIONS, "IP_OPTIONS"),
            (libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, "IP_ADD_MEMBERSHIP"),
            (libc::IPPROTO_IP, libc::IP_ADD_SOURCE_MEMBERSHIP, "IP_ADD_SOURCE_MEMBERSHIP"),
            (libc::IPPROTO_IP, libc::IP_TRANSPARENT, "IP_TRANSPARENT"),
            (libc::IPPROTO_IP, libc::IP_FREEBIND, "IP_FREEBIND"),
            (libc::IPPROTO_IPV6, libc::IPV6_RTHDR, "IPV6_RTHDR"),
            (libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, "IPV6_DSTOPTS"),
            (libc::IPPROTO_IPV6, libc::IPV6_HOPOPTS, "IPV6_HOPOPTS"),
            (libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, "IPV6_JOIN_GROUP"),
            (libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, "IPV6_FREEBIND"),
            (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, "IPV6_TRANSPARENT"),
            (libc::IPPROTO_TCP, libc::TCP_REPAIR, "TCP_REPAIR"),
            (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, "TCP_FASTOPEN_CONNECT"),
            (250, 9, "250:9"),
        ] {
            let (level, number) = (u16::try_from(level).unwrap(), u16::try_from(number).unwrap());
            assert_eq!(name(level, number), expected);
        }
    }

    #[test]
    fn no_option_is_named_twice() {
        for (at, (level, number, name)) in OPTIONS.iter().enumerate() {
            let again = OPTIONS[at + 1..].iter().find(|(a, b, _)| (a, b) == (level, number));
            assert_eq!(again, None, "{name}");
        }
    }
}
