//! `loopback:`: on the host itself a scope reaches its own sockets, and those of others by rule only.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use egress_common::{Hook, Reason, Verdict};
use egress_tests::{
    Attempt, Lab, Servers,
    cases::Told,
    network::address::{AGENT4, AGENT6},
    policies,
    scope::{Scope, told},
};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrIn, accept, bind, listen, recv, setsockopt,
    socket, sockopt,
};

/// Where the host's own services are: none of them is of the scope.
const PORT: u16 = 8080;

/// Addresses that lead to the host itself, as a program writes them, and the socket family it takes.
const WAYS: [(&str, &str); 9] = [
    ("inet", "127.0.0.1"),
    ("inet", "127.9.8.7"),
    ("inet", "0.0.0.0"),
    ("inet", "192.0.2.2"),
    ("inet6", "[::1]"),
    ("inet6", "[::]"),
    ("inet6", "[2001:db8::2]"),
    ("inet6", "[::ffff:127.0.0.1]"),
    ("inet6", "[::ffff:192.0.2.2]"),
];

fn services(lab: &Lab) -> Servers {
    let ips: [IpAddr; 5] = [
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::new(127, 9, 8, 7).into(),
        AGENT4.into(),
        Ipv6Addr::LOCALHOST.into(),
        AGENT6.into(),
    ];
    let udp: Vec<_> = ips.iter().map(|ip| SocketAddr::new(*ip, PORT)).collect();
    Servers::start_at(&lab.agent, &[PORT], &udp).expect("the host's own services")
}

/// What reaches the services of every way by TCP and UDP, and what is told, under a policy.
fn reached(policy: &str, with: Option<&mut Scope>) -> Vec<(String, usize, Option<i32>, Vec<Told>)> {
    let lab = Lab::new().expect("the lab");
    let services = services(&lab);
    let mut own = None;
    let scope = match with {
        Some(scope) => Some(scope),
        None if policy.is_empty() => None,
        None => Some(own.insert(Scope::open(&policies::lab_and(policy)).expect("a scope"))),
    };
    let mut found = Vec::new();
    let mut scope = scope;
    for (family, address) in WAYS {
        for kind in ["stream", "dgram"] {
            let socket = format!("socket {family} {kind}");
            let act = match kind {
                "stream" => [format!("connect {address}:{PORT}"), "send told".to_owned()],
                _ => [format!("sendto {address}:{PORT} told"), "sleep 1".to_owned()],
            };
            let steps = [socket.as_str(), act[0].as_str(), act[1].as_str(), "sleep 60"];
            let attempt = Attempt::new(&steps);
            let (outcome, events) = match &mut scope {
                Some(scope) => scope.run(&lab, &attempt).expect("the attempt is made"),
                None => (attempt.run(&lab, None).expect("the attempt is made"), Vec::new()),
            };
            let received = services.take().len();
            let events = events.iter().map(told).collect();
            found.push((
                format!("{kind} to {address}"),
                received,
                outcome.failure().map(|(_, errno)| errno),
                events,
            ));
        }
    }
    found
}

#[test]
fn without_enforcement_services_of_others_are_reached() {
    for (way, received, ..) in reached("", None) {
        assert!(received > 0, "{way}");
    }
}

/// Seen to fail with `is_own` in peer.rs answering true for a socket without a tag.
#[test]
fn services_of_others_are_not_reached() {
    let all = "  - { cidr: 0.0.0.0/0, ports: [1-52, 54-852, 854-65535], protocol: any }
  - { cidr: \"::/0\", ports: [1-52, 54-852, 854-65535], protocol: any }
";
    for policy in ["", "loopback: own\n", all] {
        let policy = format!("{policy}# no other\n");
        for (way, received, errno, told) in reached(&policy, None) {
            assert_eq!(received, 0, "{way} under {policy}");
            // A TCP connect to an address of the host that a wide rule covers is seen by the packet hook first.
            let refused =
                [Some(libc::EPERM), Some(libc::EINPROGRESS)].contains(&errno).then_some(()).map(|()| errno);
            assert!(refused.is_some(), "{way} under {policy}: {errno:?}");
            let denied = told.iter().filter(|told| told.0 == Verdict::Deny).count();
            assert!(denied >= 1, "{way} under {policy}: {told:?}");
        }
    }
}

#[test]
fn a_rule_opens_them() {
    for (way, received, errno, told) in reached("loopback: any\n", None) {
        let host = way.contains("192.0.2.2") || way.contains("2001:db8::2");
        if host {
            // The tables of this test know no addresses of the host beside loopback.
            continue;
        }
        assert!(received > 0, "{way}: {errno:?} {told:?}");
    }
}

/// As `egress run` compiles it, with the host's own addresses: at the connect, as for 127.0.0.1.
/// Mutation seen to fail here: own addresses not given to the tables.
#[test]
fn known_addresses_of_the_host_are_the_host_itself() {
    let all = "  - { cidr: 0.0.0.0/0, ports: [1-52, 54-852, 854-65535], protocol: any }
  - { cidr: \"::/0\", ports: [1-52, 54-852, 854-65535], protocol: any }
";
    for (policy, open) in [(all, false), ("loopback: any\n", true), ("loopback: [8080]\n", true)] {
        let mut scope = Scope::open(&policies::on_agent(policy)).expect("a scope");
        for (way, received, errno, told) in reached("", Some(&mut scope)) {
            assert_eq!(received > 0, open, "{way} under {policy}: {errno:?} {told:?}");
            assert_eq!(errno, (!open).then_some(libc::EPERM), "{way} under {policy}: {told:?}");
        }
    }
}

#[test]
fn own_services_are_reached_by_known_addresses_of_the_host() {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::open(&policies::on_agent("loopback: own\n")).expect("a scope");
    for step in [
        "own-tcp 0.0.0.0 192.0.2.2",
        "own-tcp 192.0.2.2 192.0.2.2",
        "own-udp 192.0.2.2 192.0.2.2",
        "own-tcp :: 2001:db8::2",
        "own-udp 2001:db8::2 2001:db8::2",
    ] {
        let (outcome, events) = scope.run(&lab, &Attempt::new(&[step])).expect("the attempt is made");
        assert_eq!(outcome.failure(), None, "{step}: {:?}", events.iter().map(told).collect::<Vec<_>>());
        assert!(events.iter().all(|event| told(event).2 == Reason::Own), "{step}");
    }
}

/// Seen to fail with `tag.scope` left out in create.rs.
#[test]
fn own_services_are_reached() {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::open(&policies::lab_and("loopback: own\n")).expect("a scope");
    let ways = [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("127.0.0.1", "0.0.0.0"),
        ("0.0.0.0", "127.9.8.7"),
        ("0.0.0.0", "192.0.2.2"),
        ("192.0.2.2", "192.0.2.2"),
        ("::1", "::1"),
        ("::", "::1"),
        ("::", "::"),
        ("::", "127.0.0.1"),
        ("::", "2001:db8::2"),
    ];
    for (listen, to) in ways {
        for kind in ["own-tcp", "own-udp"] {
            // The client takes the family of the server, and its server answers from another address than this one.
            if kind == "own-udp" && ((listen, to) == ("::", "127.0.0.1") || to == "127.9.8.7") {
                continue;
            }
            let step = format!("{kind} {listen} {to}");
            // Addresses of the host that are not in the tables need a rule for the connect, and own sockets for the packet.
            let (outcome, events) = scope.run(&lab, &Attempt::new(&[&step])).expect("the attempt is made");
            let of_host = to == "192.0.2.2" || to == "2001:db8::2";
            if of_host && outcome.failure().is_some() {
                assert_eq!(outcome.failure().map(|(_, errno)| errno), Some(libc::EPERM), "{step}");
                continue;
            }
            assert_eq!(outcome.failure(), None, "{step}: {:?}", events.iter().map(told).collect::<Vec<_>>());
            let denied: Vec<_> = events.iter().map(told).filter(|told| told.0 == Verdict::Deny).collect();
            assert!(denied.is_empty(), "{step}: {denied:?}");
        }
    }
}

#[test]
fn own_services_are_closed_by_none() {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::open(&policies::lab_and("loopback: none\n")).expect("a scope");
    for step in ["own-tcp 127.0.0.1 127.0.0.1", "own-udp 127.0.0.1 127.0.0.1", "own-tcp ::1 ::1"] {
        let (outcome, events) = scope.run(&lab, &Attempt::new(&[step])).expect("the attempt is made");
        assert_eq!(outcome.failure().map(|(_, errno)| errno), Some(libc::EPERM), "{step}");
        let told: Vec<_> = events.iter().map(told).collect();
        assert_eq!(
            told.last().map(|told| (told.0, told.2)),
            Some((Verdict::Deny, Reason::Loopback)),
            "{step}"
        );
    }
}

/// Programs wait for a server until it is there: they know "connection refused", not "not permitted".
#[test]
fn where_nobody_listens_the_kernel_refuses() {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::open(&policies::lab_and("loopback: own\n")).expect("a scope");
    for (family, address) in [("inet", "127.0.0.1:9"), ("inet6", "[::1]:9"), ("inet", "0.0.0.0:9")] {
        let (socket, connect) = (format!("socket {family} stream"), format!("connect {address}"));
        let (outcome, events) =
            scope.run(&lab, &Attempt::new(&[&socket, &connect])).expect("the attempt is made");
        assert_eq!(outcome.failure(), Some(("connect", libc::ECONNREFUSED)), "{address}");
        let told: Vec<_> = events.iter().map(told).collect();
        assert_eq!(told, [(Verdict::Allow, Hook::Connect, Reason::Own)], "{address}");
    }
}

/// A connected socket's peer may go, and somebody else take its port: each packet is judged anew.
#[test]
fn a_port_that_changes_hands_is_judged_anew() {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::open(&policies::lab_and("loopback: own\n")).expect("a scope");
    // Nobody is there at the connect, and the service of somebody else is when the datagram is sent.
    let steps = ["socket inet dgram", "connect 127.0.0.1:8080", "sleep 1500", "send told", "sleep 60"];
    let attempt = Attempt::new(&steps);
    let mut command = attempt.command(&lab);
    scope.place(&mut command).expect("inside");
    let child = command.spawn().expect("start");
    std::thread::sleep(std::time::Duration::from_millis(700));
    let services = services(&lab);
    let outcome = egress_tests::Outcome::of(child).expect("the attempt is made");
    assert_eq!(outcome.failure(), Some(("send", libc::EPERM)));
    assert!(services.take().is_empty());
    let told: Vec<_> = scope.events().iter().map(told).collect();
    assert_eq!(told, [(Verdict::Deny, Hook::Packet, Reason::Loopback)]);
}

/// A UDP socket of somebody else in the agent's namespace, at port 8080 of every address.
fn datagrams(lab: &Lab, share: bool, device: bool) -> OwnedFd {
    lab.agent.enter(|| {
        let socket =
            socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_NONBLOCK, None).expect("a socket");
        setsockopt(&socket, sockopt::ReuseAddr, &share).expect("share the port");
        if device {
            setsockopt(&socket, sockopt::BindToDevice, &"agent0".into()).expect("bind to the device");
        }
        bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, PORT)).expect("bind");
        socket
    })
}

fn hears(socket: &OwnedFd) -> bool {
    recv(socket.as_raw_fd(), &mut [0; 16], MsgFlags::empty()).is_ok()
}

/// The kernel gives what is sent to a broadcast address to every socket of the port, and a look-up finds one of them: the
/// scope's own, bound to that very address; and of two at the same port it may prefer the one that is bound to a device. So UDP
/// ports are not shared. Seen to fail without `keep_port` in setsockopt.rs.
#[test]
fn a_port_shared_with_others_is_not_own() {
    for (own, to) in [("127.255.255.255:8080", "127.255.255.255:8080"), ("0.0.0.0:8080", "192.0.2.2:8080")] {
        let lab = Lab::new().expect("the lab");
        let foreign = datagrams(&lab, true, to.starts_with("192"));
        let (bind, send) = (format!("bind {own}"), format!("sendto {to} told"));
        let steps = ["socket inet dgram", "option 1 2 01000000", "option 1 6 01000000", &bind, &send];
        Attempt::new(&steps).run(&lab, None).expect("the attempt is made");
        assert!(hears(&foreign), "control {own}");
        let mut scope = Scope::open(&policies::lab_and("loopback: own\n")).expect("a scope");
        let (outcome, _) = scope.run(&lab, &Attempt::new(&steps)).expect("the attempt is made");
        assert!(!hears(&foreign), "{own}: {outcome:?}");
        assert_eq!(outcome.failure(), Some(("bind", libc::EADDRINUSE)), "{own}");
    }
}

/// What is bound to a device is found by no look-up at the host's own addresses: nobody there is not taken for nobody.
/// Seen to fail with `Peer::Nobody` allowed at every address in decide.rs.
#[test]
fn services_bound_to_a_device_are_not_reached() {
    let all = "  - { cidr: 0.0.0.0/0, ports: [1-52, 54-852, 854-65535], protocol: any }\n";
    for policy in ["loopback: own\n", all] {
        let lab = Lab::new().expect("the lab");
        let foreign = datagrams(&lab, false, true);
        let listener = lab.agent.enter(|| {
            let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, None)
                .expect("a socket");
            setsockopt(&socket, sockopt::BindToDevice, &"agent0".into()).expect("bind to the device");
            bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, PORT)).expect("bind");
            listen(&socket, Backlog::new(4).expect("a number")).expect("listen");
            socket
        });
        let accepts = || accept(listener.as_raw_fd()).is_ok();
        let mut scope = Scope::open(&policies::lab_and(policy)).expect("a scope");
        for steps in [
            ["socket inet dgram", "connect 192.0.2.2:8080", "send told"],
            ["socket inet dgram", "sendto 192.0.2.2:8080 told", "sleep 1"],
            ["socket inet stream", "connect 192.0.2.2:8080", "send told"],
        ] {
            Attempt::new(&steps).run(&lab, None).expect("the attempt is made");
            assert!(hears(&foreign) || accepts(), "control {steps:?}");
            let (outcome, _) = scope.run(&lab, &Attempt::new(&steps)).expect("the attempt is made");
            assert!(!hears(&foreign) && !accepts(), "{steps:?}: {outcome:?}");
            let errno = outcome.failure().map(|(_, errno)| errno);
            assert!([Some(libc::EPERM), Some(libc::EINPROGRESS)].contains(&errno), "{steps:?}: {outcome:?}");
        }
    }
}

/// Of a datagram to many the kernel gives sockets of this host a copy, before the packet hook sees the one that leaves: so the
/// connect is refused. Seen to fail without `is_heard_here` in connect.rs.
#[test]
fn what_many_hear_is_not_heard_on_this_host() {
    for to in ["255.255.255.255:8080", "192.0.2.255:8080", "224.0.0.251:8080", "239.1.2.3:8080"] {
        let lab = Lab::new().expect("the lab");
        let foreign = datagrams(&lab, false, false);
        let group = to.starts_with("224").then(|| Ipv4Addr::new(224, 0, 0, 251));
        let group = group.or(to.starts_with("239").then(|| Ipv4Addr::new(239, 1, 2, 3)));
        if let Some(group) = group {
            let member = nix::sys::socket::IpMembershipRequest::new(group, Some(AGENT4));
            lab.agent.enter(|| setsockopt(&foreign, sockopt::IpAddMembership, &member).expect("join"));
        }
        let connect = format!("connect {to}");
        let steps = ["socket inet dgram", "option 1 6 01000000", &connect, "send told"];
        Attempt::new(&steps).run(&lab, None).expect("the attempt is made");
        assert!(hears(&foreign), "control {to}");
        let mut scope = Scope::open(&policies::lab_and("loopback: own\n")).expect("a scope");
        let (outcome, events) = scope.run(&lab, &Attempt::new(&steps)).expect("the attempt is made");
        assert!(!hears(&foreign), "{to}: {outcome:?}");
        // A link's broadcast address is for the kernel to know, which wants SO_BROADCAST: without effect here.
        let (errno, count) = if to.starts_with("192") { (libc::EACCES, 0) } else { (libc::EPERM, 1) };
        assert_eq!((outcome.failure(), events.len()), (Some(("connect", errno)), count), "{to}");
    }
}

/// Where a rule may open a broadcast address SO_BROADCAST takes effect; what it does not open is refused at the connect.
#[test]
fn a_rule_opens_a_broadcast_address() {
    let lab = Lab::new().expect("the lab");
    let mut scope =
        Scope::open(&policies::lab_and("  - { cidr: 255.255.255.255/32, ports: [443], protocol: udp }\n"))
            .expect("a scope");
    for (connect, refused) in
        [("connect 255.255.255.255:443", None), ("connect 192.0.2.255:443", Some(("connect", libc::EPERM)))]
    {
        let steps = ["socket inet dgram", "option 1 6 01000000", connect, "send told"];
        let (outcome, _) = scope.run(&lab, &Attempt::new(&steps)).expect("the attempt is made");
        assert_eq!(outcome.failure(), refused, "{connect}");
    }
}
