//! Listeners in the network namespace of the tests.

use std::net::UdpSocket;

use super::*;

fn cookie() -> u64 {
    own_netns_cookie().unwrap_or(0)
}

#[test]
fn eight_udp_ports_and_one_of_tcp_are_open_on_both_addresses() {
    let listener = Listener::open(None, cookie()).unwrap();
    let base = listener.base();
    let ports: Vec<(u16, bool)> = listener.udp.iter().map(|udp| (udp.port, udp.v6)).collect();
    let expected: Vec<(u16, bool)> =
        [false, true].into_iter().flat_map(|v6| (base..base + PORTS).map(move |port| (port, v6))).collect();
    assert_eq!((ports, listener.tcp.len()), (expected, 2));
    assert!(listener.loopback_was_up());
    for address in ["127.0.0.1", "[::1]"] {
        let connected = std::net::TcpStream::connect(format!("{address}:{base}")).unwrap();
        let listening = &listener.tcp[usize::from(address == "[::1]")];
        let (_, from) = accept(listening.as_fd()).unwrap();
        assert_eq!(from, connected.local_addr().unwrap());
        assert_eq!(accept(listening.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
    // The same ports on the other loopback addresses are not ours.
    assert!(UdpSocket::bind(("127.0.0.2", base)).is_ok());
}

#[test]
fn ports_that_are_taken_are_an_error_when_asked_for_and_passed_over_when_not() {
    let first = Listener::open(None, cookie()).unwrap();
    for taken in [first.base(), first.base() + PORTS - 1, first.base() - PORTS + 1] {
        // Mutation seen to fail here: SO_REUSEADDR set for UDP too.
        let error = Listener::open(Some(taken), cookie()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
    assert_ne!(Listener::open(None, cookie()).unwrap().base(), first.base());
    let base = first.base();
    drop(first);
    assert_eq!(Listener::open(Some(base), cookie()).unwrap().base(), base);
    assert!(Listener::open(Some(u16::MAX), cookie()).is_err());
}

#[test]
fn another_namespace_than_expected_is_refused() {
    let Some(cookie) = own_netns_cookie() else {
        panic!("this kernel does not tell cookies of network namespaces (before 5.14)");
    };
    // Mutation seen to fail here: the cookies not compared.
    assert!(Listener::open(None, cookie + 1).is_err());
    assert!(cookie != 0 && Listener::open(None, cookie).is_ok());
}
