//! Decoding and enrichment.

use std::path::PathBuf;

use proptest::prelude::*;
use zerocopy::IntoBytes as _;

use super::*;
use crate::{
    compile::{Origin, RuleInfo},
    dns::hosts::Hosts,
};

/// 2026-11-22 12:34:56.789 UTC at boot time 0.
pub(crate) const OFFSET: u64 = 1_795_350_896_789_000_000;

/// A TCP connect to 203.0.113.66:443 that no rule covers.
pub(crate) fn denied() -> Event {
    let mut comm = [0; 16];
    comm[..7].copy_from_slice(b"python3");
    Event {
        time: 0,
        scope: 4711,
        cgroup: 4711,
        cookie: 99,
        owner: Owner { tgid: 4242, pid: 4243, uid: 1000, gid: 1001, comm },
        address: Address::from_v4([203, 0, 113, 66]),
        port: 443,
        protocol: 6,
        rule: 0,
        family: 2,
        socket_type: 1,
        hook: Hook::Connect as u8,
        verdict: Verdict::Deny as u8,
        reason: Reason::NoRule as u8,
        pad: [0; 3],
    }
}

/// A raw ICMP socket.
pub(crate) fn raw_socket() -> Event {
    let mut comm = [0; 16];
    comm[..4].copy_from_slice(b"ping");
    Event {
        owner: Owner { tgid: 77, pid: 77, comm, ..denied().owner },
        address: Address::ZERO,
        port: 0,
        protocol: 1,
        socket_type: 3,
        hook: Hook::Create as u8,
        reason: Reason::SocketType as u8,
        ..denied()
    }
}

/// Something from 203.0.113.66 to port 8080 of the scope.
pub(crate) fn inbound() -> Event {
    let (hook, reason) = (Hook::Ingress as u8, Reason::Inbound as u8);
    Event { port: 8080, hook, reason, ..denied() }
}

/// A socket option.
pub(crate) fn socket_option() -> Event {
    let (hook, reason) = (Hook::Setsockopt as u8, Reason::SocketOption as u8);
    Event { address: Address::ZERO, protocol: 41, port: 57, hook, reason, ..denied() }
}

/// `/dev/net/tun`.
pub(crate) fn device() -> Event {
    let (hook, reason) = (Hook::Device as u8, Reason::Device as u8);
    Event { address: Address::ZERO, protocol: 10, port: 200, hook, reason, ..denied() }
}

/// A refusal elsewhere than at a socket hook.
pub(crate) fn escape(hook: Hook, reason: Reason, text: &str) -> Escape {
    let mut escape = Escape {
        scope: 4711,
        cgroup: 4711,
        owner: denied().owner,
        hook: hook as u8,
        verdict: Verdict::Deny as u8,
        reason: reason as u8,
        ..Escape::ZERO
    };
    escape.text[..text.len()].copy_from_slice(text.as_bytes());
    escape
}

/// As a run would have it.
pub(crate) fn of_escape(escape: &Escape) -> Record {
    escape_record(escape, &policy(), OFFSET).unwrap()
}

/// A policy of one allow and one deny rule.
pub(crate) fn policy() -> Compiled {
    let rule = |line, text: &str| RuleInfo {
        origin: Origin::File { path: Arc::new(PathBuf::from("policies/p.yaml")), line },
        text: text.to_owned(),
    };
    Compiled {
        rules: vec![rule(4, "host api.example ports 443/tcp"), rule(9, "deny cidr 203.0.113.0/24")],
        ..Compiled::default()
    }
}

/// As a run would have it.
pub(crate) fn of(event: &Event) -> Record {
    let names = NameBook::new(&Hosts::parse("203.0.113.66 collect.attacker.example\n"));
    record(event, &policy(), &names, OFFSET).unwrap()
}

#[test]
fn an_event_becomes_a_record() {
    let record = of(&Event { time: 11, rule: 2, reason: Reason::DenyRule as u8, ..denied() });
    assert_eq!(record.time, OFFSET + 11);
    assert_eq!(
        (record.verdict, record.hook, record.reason),
        (Verdict::Deny, Hook::Connect, Reason::DenyRule)
    );
    let to = record.destination.unwrap();
    assert_eq!((to.address.to_string().as_str(), to.port), ("203.0.113.66", Some(443)));
    assert_eq!(to.name.as_deref(), Some("collect.attacker.example"));
    let rule = record.rule.unwrap();
    assert_eq!((rule.id, rule.origin.as_str()), (2, "policies/p.yaml:9"));
    assert_eq!(rule.text, "deny cidr 203.0.113.0/24");
    let process = record.process.unwrap();
    assert_eq!((process.pid, process.tid, process.uid, process.gid), (4242, 4243, 1000, 1001));
    assert_eq!(process.comm, b"python3");
    assert_eq!((record.scope, record.cgroup, record.cookie), (4711, 4711, Some(99)));
    assert_eq!(record.remedy, None);
}

#[test]
fn what_the_hook_did_not_see_is_not_made_up() {
    assert_eq!(of(&raw_socket()).destination, None);
    assert_eq!(of(&Event { owner: Owner::default(), ..denied() }).process, None);
    assert_eq!(of(&Event { cookie: 0, ..denied() }).cookie, None);
    assert_eq!(of(&Event { rule: 0, ..denied() }).rule, None);
    // An unknown rule keeps its number.
    assert_eq!(of(&Event { rule: 3, ..denied() }).rule.unwrap().id, 3);
    let ping = Event { protocol: 58, port: 0, hook: Hook::Packet as u8, ..denied() };
    assert_eq!(of(&ping).destination.unwrap().port, None);
    assert_eq!(of(&Event { port: 0, ..denied() }).destination.unwrap().port, Some(0));
    let unreadable = Event { address: Address::ZERO, protocol: 0, hook: Hook::Packet as u8, ..denied() };
    assert_eq!(of(&unreadable).destination, None);
}

#[test]
fn only_what_was_refused_has_a_remedy() {
    let line = "- { host: collect.attacker.example, ports: [443] }";
    assert_eq!(of(&denied()).remedy.as_deref(), Some(line));
    let audit = Event { verdict: Verdict::Audit as u8, ..denied() };
    assert_eq!(of(&audit).remedy.as_deref(), Some(line));
    let allowed = Event { verdict: Verdict::Allow as u8, ..denied() };
    assert_eq!(of(&allowed).remedy, None);
    assert_eq!(of(&raw_socket()).remedy, None);
}

#[test]
fn what_is_no_traffic_has_neither_protocol_nor_destination() {
    for event in [socket_option(), device()] {
        let record = of(&event);
        assert_eq!((record.protocol.number, record.destination, record.remedy), (0, None, None));
    }
    assert_eq!(of(&socket_option()).detail.unwrap().subject().as_deref(), Some("IPV6_RTHDR"));
    assert_eq!(of(&device()).detail.unwrap().subject().as_deref(), Some("/dev/net/tun"));
    assert!(of(&device()).is_escape() && !of(&socket_option()).is_escape());
}

#[test]
fn what_comes_in_has_its_own_port_in_the_line_that_allows_it() {
    let record = of(&inbound());
    assert_eq!(record.destination.unwrap().port, None);
    assert_eq!(record.detail, Some(Detail::Inbound { port: Some(8080) }));
    assert_eq!(record.remedy.as_deref(), Some("inbound: [8080]"));
}

#[test]
fn the_size_tells_an_escape_from_an_event() {
    // Mutation seen to fail here: both sizes read as an event.
    let enricher = Enricher::new(Arc::new(policy()));
    let escape = escape(Hook::Lsm, Reason::Process, "ptrace");
    let record = enricher.record(escape.as_bytes(), &NameBook::default()).unwrap();
    assert!(record.is_escape() && !record.is_escaped());
    let process = record.process.unwrap();
    assert_eq!((record.hook, process.pid, record.scope), (Hook::Lsm, 4242, 4711));
    let longer = [escape.as_bytes(), &[0]].concat();
    assert_eq!(
        enricher.record(&longer, &NameBook::default()),
        Err(DecodeError::Length { got: longer.len() })
    );
}

#[test]
fn only_the_name_of_a_refused_unix_socket_makes_a_line() {
    let unix = escape(Hook::Unix, Reason::Unix, "/run/docker.sock");
    assert_eq!(of_escape(&unix).remedy.as_deref(), Some("- unix: /run/docker.sock"));
    assert_eq!(of_escape(&Escape { verdict: Verdict::Allow as u8, ..unix }).remedy, None);
    assert_eq!(of_escape(&escape(Hook::Unix, Reason::Unix, "")).remedy, None);
    assert_eq!(of_escape(&escape(Hook::Launch, Reason::Process, "/run/docker.sock")).remedy, None);
}

#[test]
fn records_of_another_length_are_errors() {
    let bytes = denied();
    let bytes = bytes.as_bytes();
    assert_eq!(event(bytes), Ok(denied()));
    for length in 0..bytes.len() {
        assert_eq!(event(&bytes[..length]), Err(DecodeError::Length { got: length }));
    }
    let longer = [bytes, &[0]].concat();
    assert_eq!(event(&longer), Err(DecodeError::Length { got: longer.len() }));
}

#[test]
fn the_executable_is_read_and_its_removal_noticed() {
    let own = executable(std::process::id()).unwrap();
    assert_eq!((PathBuf::from(own.path), own.deleted), (std::env::current_exe().unwrap(), false));
    assert_eq!(executable(0), None);
    let gone = executable_of(OsStr::new("/tmp/x (deleted) (deleted)"));
    assert_eq!(gone, Executable { path: "/tmp/x (deleted)".to_owned(), deleted: true });
    let odd = executable_of(OsStr::from_bytes(b"/tmp/\xff"));
    assert_eq!(odd, Executable { path: "/tmp/\u{fffd}".to_owned(), deleted: false });
}

#[test]
fn the_enricher_adds_what_the_system_knows() {
    let mut enricher = Enricher::new(Arc::new(policy()));
    enricher.name_cgroup(4711, "/egress/run-1");
    let own = Owner { tgid: std::process::id(), ..denied().owner };
    let event =
        Event { time: crate::dns::clock::Clock::now(&crate::dns::clock::BootClock), owner: own, ..denied() };
    let record = enricher.record(event.as_bytes(), &NameBook::default()).unwrap();
    assert_eq!(record.cgroup_path.as_deref(), Some("/egress/run-1"));
    assert!(record.process.unwrap().exe.is_some());
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    assert!(wall.abs_diff(u128::from(record.time)) < 5_000_000_000);
}

proptest! {
    /// No bytes panic; an unknown hook, verdict or reason is named as such. Mutation seen to fail here: an unknown hook
    /// taken as the first.
    #[test]
    fn any_bytes_are_a_record_or_an_error(
        mut bytes in prop::collection::vec(any::<u8>(), size_of::<Event>()),
        hook in prop::sample::select(vec![0_u8, 10, 11, 255]),
        verdict in prop::sample::select(vec![0_u8, 2, 3, 255]),
        reason in prop::sample::select(vec![0_u8, 27, 28, 255]),
    ) {
        let at = size_of::<Event>() - 6;
        bytes[at..at + 3].copy_from_slice(&[hook, verdict, reason]);
        let result = record(&event(&bytes).unwrap(), &policy(), &NameBook::default(), OFFSET);
        let expected = if hook > 10 {
            Some(DecodeError::Hook(hook))
        } else if verdict > 2 {
            Some(DecodeError::Verdict(verdict))
        } else if reason > 27 {
            Some(DecodeError::Reason(reason))
        } else {
            None
        };
        prop_assert_eq!(result.err(), expected);
    }
}
