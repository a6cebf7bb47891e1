//! `ingress`: what comes in from outside, and `inbound:`.

use std::process::Child;

use egress::{compile::Compiled, enforce::KernelProgram};
use egress_common::{Event, Hook, PortRule, Reason, Verdict};
use egress_tests::{
    Attempt, Lab, Namespace, Outcome,
    cases::Told,
    policies,
    scope::{Scope, told},
};

const PORT: u16 = 8080;

/// Where who comes in is, and how the listener is reached from there.
const FROM: [(&str, &str, &str); 6] = [
    ("net", "inet", "192.0.2.2"),
    ("net", "inet6", "[2001:db8::2]"),
    ("agent", "inet", "127.0.0.1"),
    ("agent", "inet6", "[::1]"),
    ("agent", "inet", "192.0.2.2"),
    ("agent", "inet6", "[2001:db8::2]"),
];

/// A lab whose two sides have met: the first neighbour solicitation of the far side takes a second.
fn lab() -> Lab {
    let lab = Lab::new().expect("the lab");
    let steps = ["socket inet6 dgram", "sendto [2001:db8::1]:9 hello", "sleep 50"];
    Attempt::new(&steps).run(&lab, None).expect("the two sides meet");
    lab
}

struct Heard {
    inside: Outcome,
    outside: Outcome,
    told: Vec<Told>,
    events: Vec<Event>,
}

/// A listener inside, somebody outside who comes in.
fn come(scope: Option<&mut Scope>, lab: &Lab, inside: &[&str], from: &Namespace, outside: &[&str]) -> Heard {
    let attempt = Attempt::new(inside);
    let mut command = attempt.command(lab);
    if let Some(scope) = &scope {
        scope.place(&mut command).expect("inside");
    }
    let mut scope = scope;
    if let Some(scope) = &mut scope {
        scope.events();
    }
    let child: Child = command.spawn().expect("start");
    assert!(lab.agent.await_ports(&[PORT]), "nobody listens");
    let outside =
        Outcome::of(Attempt::new(outside).command_in(from).spawn().expect("start")).expect("outside");
    let inside = Outcome::of(child).expect("inside");
    let events = scope.map(Scope::events).unwrap_or_default();
    Heard { inside, outside, told: events.iter().map(told).collect(), events }
}

fn tcp(scope: Option<&mut Scope>, lab: &Lab, (place, family, address): (&str, &str, &str)) -> Heard {
    let socket = format!("socket {family} stream");
    let bind = format!("bind {}:{PORT}", if family == "inet" { "0.0.0.0" } else { "[::]" });
    let inside = [&socket, &bind, "listen", "patience 1500", "accept", "receive", "send answer", "sleep 100"];
    let connect = format!("connect {address}:{PORT}");
    let outside = [&socket, &connect, "send call", "receive"];
    come(scope, lab, &inside, if place == "net" { &lab.net } else { &lab.agent }, &outside)
}

fn udp(scope: Option<&mut Scope>, lab: &Lab, (place, family, address): (&str, &str, &str)) -> Heard {
    let socket = format!("socket {family} dgram");
    let bind = format!("bind {}:{PORT}", if family == "inet" { "0.0.0.0" } else { "[::]" });
    let inside = [&socket, &bind, "patience 1500", "echo"];
    let send = format!("sendto {address}:{PORT} call");
    let outside = [&socket, &send, "receive"];
    come(scope, lab, &inside, if place == "net" { &lab.net } else { &lab.agent }, &outside)
}

/// Port 8080 is open to the outside.
fn open() -> Compiled {
    let mut compiled = policies::lab_and("loopback: own\n");
    compiled.inbound = 4_000;
    for transport in [6, 17] {
        compiled.ports.insert((4_000, transport, PORT, 16), PortRule { rule: 1, allow: 1, pad: [0; 3] });
    }
    compiled
}

#[test]
fn without_enforcement_everybody_comes_in() {
    let lab = lab();
    for from in FROM {
        for heard in [tcp(None, &lab, from), udp(None, &lab, from)] {
            assert_eq!((heard.inside.failure(), heard.outside.failure()), (None, None), "{from:?}");
        }
    }
}

/// Seen to fail with `inbound` in ingress.rs passing everything.
#[test]
fn nobody_comes_in() {
    let lab = lab();
    let mut scope = Scope::open(&policies::lab_and("loopback: own\n")).expect("a scope");
    let denied = (Verdict::Deny, Hook::Ingress, Reason::Inbound);
    for from in FROM {
        let heard = tcp(Some(&mut scope), &lab, from);
        assert_eq!(heard.inside.failure(), Some(("accept", libc::EAGAIN)), "TCP {from:?}");
        assert_eq!(heard.outside.failure(), Some(("connect", libc::EINPROGRESS)), "TCP {from:?}");
        assert!(heard.told.iter().all(|told| *told == denied) && !heard.told.is_empty(), "{:?}", heard.told);
        let heard = udp(Some(&mut scope), &lab, from);
        assert_eq!(heard.inside.failure(), Some(("echo", libc::EAGAIN)), "UDP {from:?}");
        assert_eq!(heard.told, [denied], "UDP {from:?}");
        let event = heard.events[0];
        assert_eq!(event.port, PORT, "the own port");
        assert_ne!(event.address.to_ip().to_string(), "::", "the sender");
    }
}

#[test]
fn inbound_opens_a_port_for_both_ways() {
    let lab = lab();
    let mut scope = Scope::open(&open()).expect("a scope");
    for from in FROM {
        for (kind, heard) in
            [("tcp", tcp(Some(&mut scope), &lab, from)), ("udp", udp(Some(&mut scope), &lab, from))]
        {
            let failures = (heard.inside.failure(), heard.outside.failure());
            assert_eq!(failures, (None, None), "{kind} {from:?}: {:?}", heard.told);
            assert!(
                heard.told.iter().all(|told| told.0 == Verdict::Allow),
                "{kind} {from:?}: {:?}",
                heard.told
            );
        }
    }
}

/// A port that is open to the outside opens no way out: neither a connection begun from it nor a datagram to somebody
/// who did not call.
#[test]
fn an_open_port_is_no_way_out() {
    let lab = lab();
    let mut scope = Scope::open(&open()).expect("a scope");
    lab.forget();
    let bad = egress_tests::network::address::BAD4.into();
    for steps in [
        ["socket inet stream", "bind 192.0.2.2:8080", "connect 203.0.113.66:443"],
        ["socket inet dgram", "bind 192.0.2.2:8080", "sendto 203.0.113.66:443 leak"],
    ] {
        let (outcome, _) = scope.run(&lab, &Attempt::new(&steps)).expect("the attempt is made");
        assert_eq!(outcome.failure().map(|(_, errno)| errno), Some(libc::EPERM));
    }
    let steps = ["socket inet dgram", "bind 192.0.2.2:8080", "connect 203.0.113.66:443", "send leak"];
    let (outcome, _) = scope.run(&lab, &Attempt::new(&steps)).expect("the attempt is made");
    assert_eq!(outcome.failure(), Some(("send", libc::EPERM)));
    assert!(!egress_tests::network::reached(&lab.frames(), bad));
}

/// What the hook is for: without it a datagram is heard, though the answer is refused.
#[test]
fn without_the_hook_datagrams_come_in() {
    let lab = lab();
    let rest: Vec<_> =
        KernelProgram::ALL.into_iter().filter(|program| *program != KernelProgram::Ingress).collect();
    let mut scope = Scope::closed(&rest).expect("a scope");
    scope.enforced.open(&policies::lab(), 0).expect("a policy");
    let heard = udp(Some(&mut scope), &lab, FROM[0]);
    assert_eq!(heard.inside.failure(), Some(("echo", libc::EPERM)), "heard, and not answered");
}
