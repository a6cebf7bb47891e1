//! What a scope makes of a policy: closed, audit, special addresses, loopback, expiry, translation, foreign programs.

use std::{net::IpAddr, process::Command};

use egress::{compile::Compiled, enforce::KernelProgram, scope::enforced::SLOT};
use egress_common::{Address, Hook, Reason, Verdict};
use egress_tests::{
    Attempt, Case, Lab, Proof, Servers,
    cases::{Honest, Told, allowed, case, denied, honest},
    foreign::Foreign,
    judge,
    network::address::{BAD4, BAD6, GOOD4, GOOD6},
    policies, rows,
    scope::{Scope, told},
};

const EPERM: i32 = libc::EPERM;

fn to(address: &str) -> Proof {
    Proof::To(address.parse().expect("an address"))
}

#[test]
fn without_a_policy_everything_is_refused() {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::closed(&KernelProgram::ALL).expect("a scope");
    let cases = [rows::CONNECT_ROWS, rows::SENDMSG_ROWS, rows::CREATE_ROWS, rows::PACKET_ROWS].concat();
    let mut wrong = Vec::new();
    for case in cases {
        let found = judge::perform(&case, &mut scope, &lab).expect("the attempt is made");
        let other = found
            .told
            .iter()
            .find(|(verdict, _, reason)| (*verdict, *reason) != (Verdict::Deny, Reason::NoPolicy));
        if found.got_out || other.is_some() || found.told.is_empty() {
            wrong.push(format!("{}: {found:?}", case.name));
        }
    }
    for case in rows::HONEST_ROWS.iter().filter(|case| !case.arrives.is_empty()) {
        lab.forget();
        let (outcome, _) = scope.run(&lab, &Attempt::new(case.steps)).expect("the attempt is made");
        if outcome.failure().is_none() || lab.frames().iter().any(|frame| frame.carries(case.arrives)) {
            wrong.push(format!("{}: {outcome:?}", case.name));
        }
    }
    judge::report(wrong.into_iter());
}

#[test]
fn audit_reports_and_lets_pass() {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::open(&policies::lab_and("mode: audit\n")).expect("a scope");
    let cases = [rows::CONNECT_ROWS, rows::SENDMSG_ROWS, rows::CREATE_ROWS, rows::PACKET_ROWS].concat();
    let mut wrong = Vec::new();
    for case in cases {
        let found = judge::perform(&case, &mut scope, &lab).expect("the attempt is made");
        let audited = found.told.iter().any(|(verdict, ..)| *verdict == Verdict::Audit);
        if !found.got_out || !audited || found.told.iter().any(|(verdict, ..)| *verdict == Verdict::Deny) {
            wrong.push(format!("{}: {found:?}", case.name));
        }
    }
    judge::report(wrong.into_iter());
}

/// A permit as a name's answer writes it, already or not yet over.
fn permit(scope: &Scope, compiled: &Compiled, address: IpAddr, expires: u64) {
    let table = scope.enforced.engine.permits().expect("the table of permits");
    for (key, permit) in compiled.hosts[0].permits(SLOT, Address::from(address), expires) {
        table.write(&key, &permit).expect("write a permit");
    }
}

#[test]
fn a_permit_ends_by_the_kernels_own_clock() {
    let lab = Lab::new().expect("the lab");
    let compiled = policies::compiled(
        "version: 1\nname: names\nallow:\n  - { host: api.example, ports: [443], protocol: any }\n",
    );
    let mut scope = Scope::open(&compiled).expect("a scope");
    let connect = ["socket inet stream", "connect 203.0.113.10:443"];
    let attempt = |scope: &mut Scope| {
        lab.forget();
        let (outcome, events) = scope.run(&lab, &Attempt::new(&connect)).expect("the attempt is made");
        let out = Proof::To(IpAddr::V4(GOOD4)).in_frames(&lab.frames());
        (outcome.failure().map(|(_, errno)| errno), events.iter().map(told).collect::<Vec<_>>(), out)
    };
    let refused = |reason| (Some(EPERM), vec![denied(Hook::Connect, reason)], false);
    assert_eq!(attempt(&mut scope), refused(Reason::NoRule));
    permit(&scope, &compiled, GOOD4.into(), u64::MAX);
    assert_eq!(attempt(&mut scope), (None, vec![(Verdict::Allow, Hook::Connect, Reason::Permit)], true));
    permit(&scope, &compiled, GOOD4.into(), 1);
    assert_eq!(attempt(&mut scope), refused(Reason::Expired));
}

#[test]
fn a_live_flow_outlasts_its_permit() {
    let lab = Lab::new().expect("the lab");
    let compiled = policies::compiled(
        "version: 1\nname: names\nallow:\n  - { host: api.example, ports: [443], protocol: any }\n",
    );
    let mut scope = Scope::open(&compiled).expect("a scope");
    permit(&scope, &compiled, GOOD4.into(), u64::MAX);
    let steps =
        ["socket inet stream", "connect 203.0.113.10:443", "sleep 1500", "send late-but-approved", "receive"];
    let mut command = Attempt::new(&steps).command(&lab);
    scope.place(&mut command).expect("the scope is there");
    let child = command.spawn().expect("start the attempt");
    std::thread::sleep(std::time::Duration::from_millis(700));
    permit(&scope, &compiled, GOOD4.into(), 1);
    let output = child.wait_with_output().expect("the attempt ends");
    assert!(lab.frames().iter().any(|frame| frame.carries("late-but-approved")), "{output:?}");
    assert!(scope.events().iter().all(|event| told(event).0 == Verdict::Allow));
}

fn loopback(setting: &str) -> Compiled {
    policies::lab_and(&format!("loopback: {setting}\n"))
}

/// Talks to a listener inside the scope over the given address and port; the last step's outcome.
fn inside(compiled: &Compiled, address: &str) -> (Option<i32>, Vec<Told>) {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::open(compiled).expect("a scope");
    let family = if address.starts_with('[') { "inet6" } else { "inet" };
    let socket = format!("socket {family} stream");
    let bind = format!("bind {address}");
    let listen = [socket.as_str(), bind.as_str(), "listen", "accept", "send hello", "receive"];
    let mut listener = Attempt::new(&listen).command(&lab);
    scope.place(&mut listener).expect("the scope is there");
    let listener = listener.spawn().expect("start the listener");
    assert!(lab.agent.await_ports(&[8080]), "nobody listens");
    let connect = format!("connect {address}");
    let steps = [socket.as_str(), connect.as_str(), "receive", "send hello"];
    let (outcome, events) = scope.run(&lab, &Attempt::new(&steps)).expect("the attempt is made");
    listener.wait_with_output().expect("the listener ends");
    (outcome.failure().map(|(_, errno)| errno), events.iter().map(told).collect())
}

/// Sockets of others: see `local.rs`.
#[test]
fn loopback_is_open_within_the_scope_unless_closed() {
    let refused = (Some(EPERM), vec![denied(Hook::Connect, Reason::Loopback)]);
    let own = (None, vec![(Verdict::Allow, Hook::Connect, Reason::Own)]);
    assert_eq!(inside(&policies::lab(), "127.0.0.1:8080"), own, "not set");
    assert_eq!(inside(&loopback("own"), "[::1]:8080"), own, "own");
    assert_eq!(inside(&loopback("[8081]"), "127.0.0.1:8080"), own, "another port");
    assert_eq!(inside(&loopback("none"), "127.0.0.1:8080"), refused, "none");
    assert_eq!(inside(&loopback("none"), "[::1]:8080"), refused, "none");
}

#[test]
fn opened_loopback_works_both_ways() {
    let passed = (None, vec![allowed(Hook::Connect)]);
    for setting in ["any", "[8080]", "[9000, 8080]"] {
        for address in ["127.0.0.1:8080", "[::1]:8080", "127.9.8.7:8080"] {
            assert_eq!(inside(&loopback(setting), address), passed, "{setting} {address}");
        }
    }
}

/// `loopback` is about this host: through the wire's device a packet is on the wire, whoever it is addressed to.
/// Mutation seen to fail here: the packet hook without its look at the device.
#[test]
fn opened_loopback_is_no_way_to_the_wire() {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::open(&loopback("any")).expect("a scope");
    // IP_PKTINFO, IP_UNICAST_IF, SO_BINDTODEVICE; of the wire.
    let pktinfo = ["socket inet dgram", "cmsgto 127.0.0.1:8080 0 8 020000000000000000000000 leak"];
    let unicast = ["socket inet dgram", "option 0 50 00000002", "sendto 127.0.0.1:8080 leak"];
    let bound = ["socket inet dgram", "option 1 25 6167656e743000", "sendto 127.0.0.1:8080 leak"];
    for steps in [&pktinfo[..], &unicast, &bound] {
        let steps: Vec<_> = steps.iter().map(|step| format!("?{step}")).collect();
        let steps: Vec<_> = steps.iter().map(String::as_str).collect();
        let leaks = || lab.frames().iter().any(|frame| frame.carries("leak"));
        Attempt::new(&steps).run(&lab, None).expect("the attempt is made");
        assert!(leaks(), "{steps:?}: nothing got out even without enforcement");
        scope.run(&lab, &Attempt::new(&steps)).expect("the attempt is made");
        assert!(!leaks(), "{steps:?} got out");
    }
}

/// A listed port must not open every other port of the host to who binds it.
#[test]
fn a_listed_port_as_source_opens_nothing() {
    let lab = Lab::new().expect("the lab");
    let udp = ["127.0.0.1:54", "[::1]:54"].map(|address| address.parse().expect("an address"));
    let services = Servers::start_at(&lab.agent, &[54], &udp).expect("services of others");
    let mut scope = Scope::open(&loopback("[8080]")).expect("a scope");
    for (socket, bind, to) in [
        ("socket inet dgram", "bind 127.0.0.1:8080", "connect 127.0.0.1:54"),
        ("socket inet6 dgram", "bind [::1]:8080", "connect [::1]:54"),
    ] {
        let steps = [socket, bind, to, "send leak"];
        let (outcome, events) = scope.run(&lab, &Attempt::new(&steps)).expect("the attempt is made");
        assert_eq!(outcome.failure(), Some(("send", EPERM)), "{to}");
        let said: Vec<_> = events.iter().map(told).collect();
        assert_eq!(said, [denied(Hook::Packet, Reason::Loopback)], "{to}");
    }
    // Were the refusal of the connect undone, its first packet must still not leave: nobody answers that it is closed.
    let above = scope.cgroup().path().parent().expect("a parent").to_owned();
    Foreign::UndoConnect4.attach(&above).expect("attach a foreign program");
    let steps = ["socket inet stream", "bind 127.0.0.1:8080", "connect 127.0.0.1:54"];
    let (outcome, _) = scope.run(&lab, &Attempt::new(&steps)).expect("the attempt is made");
    assert_eq!(outcome.failure(), Some(("connect", libc::EINPROGRESS)));
    assert!(services.take().is_empty());
}

/// Flows to addresses that translation leads to backends which the policy does not list.
const TRANSLATED: [Honest; 5] = [
    honest(
        "TCP",
        &["socket inet stream", "connect 203.0.113.10:443", "send translated-tcp", "receive"],
        "translated-tcp",
        &[allowed(Hook::Connect)],
    ),
    honest(
        "connected UDP",
        &["socket inet dgram", "connect 203.0.113.10:443", "send translated-udp", "receive"],
        "translated-udp",
        &[allowed(Hook::Packet)],
    ),
    honest(
        "connected UDP to a mapped address",
        &["socket inet6 dgram", "connect [::ffff:203.0.113.10]:443", "send translated-mapped", "receive"],
        "translated-mapped",
        &[allowed(Hook::Sendmsg)],
    ),
    honest(
        "TCP over IPv6",
        &["socket inet6 stream", "connect [2001:db8:10::10]:443", "send translated-tcp6", "receive"],
        "translated-tcp6",
        &[allowed(Hook::Connect)],
    ),
    honest(
        "connected UDP over IPv6",
        &[
            "socket inet6 dgram",
            "connect [2001:db8:10::10]:443",
            "cmsg 41 67 02000000 translated-udp6",
            "receive",
        ],
        "translated-udp6",
        &[allowed(Hook::Packet)],
    ),
];

/// The backends themselves, and other ways to them.
const NOT_TRANSLATED: [Case; 4] = [
    // The tag approves the peer, but the first hop is another: what translation may do, a source route may not.
    case(
        "a source route by way of the backend",
        &["socket inet dgram", "connect 203.0.113.10:443", "option 0 4 01830704cb007142", "send leak"],
        Proof::Carries("leak"),
        ("send", EPERM),
        &[denied(Hook::Packet, Reason::NotPlain)],
    ),
    case(
        "a routing header by way of the backend",
        &[
            "socket inet6 dgram",
            "connect [2001:db8:10::10]:443",
            "option 41 57 00040401010000000000000000000000000000000000000020010db8006600000000000000000066",
            "send leak",
        ],
        Proof::Carries("leak"),
        ("send", EPERM),
        &[denied(Hook::Packet, Reason::NotPlain)],
    ),
    case(
        "the backend itself",
        &["socket inet stream", "connect 203.0.113.66:443"],
        Proof::To(IpAddr::V4(BAD4)),
        ("connect", EPERM),
        &[denied(Hook::Connect, Reason::NoRule)],
    ),
    case(
        "the backend by datagrams",
        &["socket inet dgram", "connect 203.0.113.66:443", "send leak"],
        Proof::To(IpAddr::V4(BAD4)),
        ("send", EPERM),
        &[denied(Hook::Packet, Reason::NoRule)],
    ),
];

/// The backend that a virtual address stands for is not in the policy; the flow was approved under the address that
/// the program used.
#[test]
fn a_permitted_address_may_be_translated() {
    let lab = Lab::new().expect("the lab");
    let rules = format!(
        "table ip6 nat {{ chain output {{ type nat hook output priority -100; \
         ip6 daddr {GOOD6} dnat to {BAD6}; }}; }}\ntable ip nat {{ chain output {{ type nat hook output priority -100; \
         ip daddr {GOOD4} dnat to {BAD4}; }}; }}\n"
    );
    let mut nft = Command::new("nft");
    nft.arg(&rules);
    let output = lab.agent.place(&mut nft).output().expect("run nft (package nftables)");
    assert!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
    let mut scope = Scope::open(&policies::lab()).expect("a scope");
    judge::report(TRANSLATED.iter().filter_map(|case| judge::passes(case, &mut scope, &lab).err()));
    // Without the hook of the options, which would refuse first.
    let rest: Vec<_> =
        KernelProgram::ALL.into_iter().filter(|program| *program != KernelProgram::Setsockopt).collect();
    let mut scope = Scope::closed(&rest).expect("a scope");
    scope.enforced.open(&policies::lab(), 0).expect("a policy");
    judge::report(NOT_TRANSLATED.iter().filter_map(|case| judge::refused(case, &mut scope, &lab).err()));
}

/// Replies are packets like any other: who connects in from outside gets none.
#[test]
fn nothing_goes_out_to_who_connects_in() {
    for enforced in [false, true] {
        let lab = Lab::new().expect("the lab");
        let scope = Scope::open(&policies::lab()).expect("a scope");
        let steps = ["socket inet stream", "bind 192.0.2.2:7777", "listen", "?accept", "?send leak-inbound"];
        let mut listener = Attempt::new(&steps).command(&lab);
        if enforced {
            scope.place(&mut listener).expect("the scope is there");
        }
        let listener = listener.spawn().expect("start the listener");
        assert!(lab.agent.await_ports(&[7777]), "nobody listens");
        let connected = lab.net.enter(|| {
            std::net::TcpStream::connect_timeout(
                &"192.0.2.2:7777".parse().expect("an address"),
                std::time::Duration::from_millis(500),
            )
            .is_ok()
        });
        listener.wait_with_output().expect("the listener ends");
        let out = lab.frames().iter().any(|frame| frame.ports.is_some_and(|(from, _)| from == 7777));
        assert_eq!((connected, out), (!enforced, !enforced), "enforced: {enforced}");
    }
}

/// What processes make below the scope's control group is the scope.
#[test]
fn a_control_group_below_is_covered() {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::open(&policies::lab()).expect("a scope");
    let below = scope.cgroup().path().join("below");
    std::fs::create_dir(&below).expect("make a control group");
    let join = format!("join {}", below.display());
    let steps = [join.as_str(), "socket inet stream", "connect 203.0.113.66:443"];
    let (outcome, events) = scope.run(&lab, &Attempt::new(&steps)).expect("the attempt is made");
    assert_eq!(outcome.failure(), Some(("connect", EPERM)));
    assert_eq!(events.iter().map(told).collect::<Vec<_>>(), [denied(Hook::Connect, Reason::NoRule)]);
    assert_ne!(events[0].cgroup, events[0].scope, "the event names the control group below");
    assert!(!to("203.0.113.66").in_frames(&lab.frames()));
}

/// A limit of the kernel, documented: a socket belongs for ever to the control group that it was made in.
#[test]
fn a_socket_from_before_escapes() {
    let lab = Lab::new().expect("the lab");
    let scope = Scope::open(&policies::lab()).expect("a scope");
    let join = format!("join {}", scope.cgroup().path().display());
    let steps = ["socket inet stream", join.as_str(), "connect 203.0.113.66:443"];
    let outcome = Attempt::new(&steps).run(&lab, None).expect("the attempt is made");
    assert_eq!(outcome.failure(), None);
    assert!(to("203.0.113.66").in_frames(&lab.frames()));
    // Made inside, it does not matter where its owner goes.
    let leave = format!("join {}", scope.cgroup().path().parent().expect("a parent").display());
    let steps = ["socket inet stream", leave.as_str(), "connect 203.0.113.66:443"];
    let mut command = Attempt::new(&steps).command(&lab);
    scope.place(&mut command).expect("the scope is there");
    lab.forget();
    let output = command.output().expect("the attempt is made");
    assert!(String::from_utf8_lossy(&output.stdout).contains("connect 1 "), "{output:?}");
    assert!(!to("203.0.113.66").in_frames(&lab.frames()));
}

/// A program above ours, or later than ours, can turn a refusal of the address hooks into a success, but never that of
/// the packet hook.
#[test]
fn an_undone_refusal_gets_nothing_out() {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::open(&policies::lab()).expect("a scope");
    let above = scope.cgroup().path().parent().expect("a parent").to_owned();
    Foreign::UndoConnect4.attach(&above).expect("attach a foreign program");
    Foreign::UndoSendmsg4.attach(&above).expect("attach a foreign program");
    let cases = rows::CONNECT_ROWS.iter().chain(rows::SENDMSG_ROWS);
    let mut undone = 0;
    for case in cases {
        let found = judge::perform(case, &mut scope, &lab).expect("the attempt is made");
        assert!(!found.got_out, "{}: {found:?}", case.name);
        undone += usize::from(found.told.iter().any(|(_, hook, _)| *hook == Hook::Packet));
    }
    assert!(undone > 10, "the foreign programs had no effect: {undone}");
}
