//! Runs as their events have them, and what is told of them.

use std::time::Duration;

use egress_common::{Address, Hook, Reason, Verdict};
use insta::assert_snapshot;

use super::*;
use crate::{
    dns::{
        names::NameBook,
        outcome::Outcome,
        told::{DnsReason, Told},
    },
    observe::{
        json::{attempt_line, names_line, question_line, summary_line},
        question::tests::{answered, of as asked, refused},
        record::{
            record,
            tests::{OFFSET, denied, escape, inbound, of_escape, policy, raw_socket},
        },
        summary::Tally,
    },
};

const SECOND: u64 = 1_000_000_000;

/// Lines of a run, as they are written.
#[derive(Default)]
struct Run {
    lines: Vec<u8>,
    book: NameBook,
}

impl Run {
    fn line(mut self, line: &[u8]) -> Self {
        self.lines.extend_from_slice(line);
        self.lines.push(b'\n');
        self
    }

    fn question(mut self, told: &Told) -> Self {
        if told.verdict == Verdict::Allow {
            let name = told.name.as_str().into();
            told.addresses.iter().for_each(|&address| self.book.opened(&name, address));
        }
        self.line(&question_line(&asked(told)))
    }

    fn attempt(self, event: &egress_common::Event) -> Self {
        let line = attempt_line(&record(event, &policy(), &self.book, OFFSET).unwrap());
        self.line(&line)
    }

    fn find(&self, subject: &str) -> Findings {
        let subject: Option<Subject> = (!subject.is_empty()).then(|| subject.parse().unwrap());
        search(subject.as_ref(), || Ok(self.lines.as_slice())).unwrap()
    }

    fn why(&self, subject: &str) -> String {
        let findings = self.find(subject);
        findings.sentences().into_iter().chain(findings.remarks()).collect::<Vec<_>>().join("\n")
    }
}

/// A listed name that is answered with these addresses.
fn listed(name: &str, addresses: &[&str]) -> Told {
    Told {
        name: name.to_owned(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        dropped: Vec::new(),
        aliases: Vec::new(),
        ..answered()
    }
}

fn to(address: [u8; 4], port: u16) -> egress_common::Event {
    egress_common::Event { address: Address::from_v4(address), port, ..denied() }
}

#[test]
fn a_refused_name_is_told_with_what_would_allow_it() {
    let run = Run::default().question(&refused()).question(&Told { query_type: 28, ..refused() });
    assert_snapshot!(run.why("collect.attacker.example"), @"
    python3[4242] asked for collect.attacker.example (AAAA) at 2026-11-22T12:34:56.789000000Z, and it was refused (NXDOMAIN).
    Reason: not-listed: no rule lists the name.
    This closes the name, not the machine behind it: if collect.attacker.example shares an address with a permitted name, that address is open under the permitted one. A permitted address serves every name behind it, whoever asks: egress sees addresses and ports, not the name inside TLS.
    To allow it: - { host: collect.attacker.example, ports: [443] }
    The file has 2 events that match (attempts: 0, questions: 2); this is the last refusal.
    ");
    assert_eq!(run.why("Collect.Attacker.Example.:443/tcp"), run.why(""));
    assert_eq!(run.why("collect.attacker.example"), run.why(""));
}

#[test]
fn a_literal_address_is_told_as_one() {
    let run = Run::default().attempt(&to([203, 0, 113, 66], 443));
    assert_snapshot!(run.why("203.0.113.66"), @"
    python3[4242] tried to reach tcp 203.0.113.66:443 at 2026-11-22T12:34:56.789000000Z, and it was refused.
    Reason: no-rule: no rule covers it.
    It is a literal address: no answer gave it to this scope, so the program had it from elsewhere.
    To allow it: - { cidr: 203.0.113.66/32, ports: [443] }
    ");
    assert_eq!(run.why("[::ffff:203.0.113.66]:443"), run.why("203.0.113.66"));
}

#[test]
fn a_shared_address_is_told_with_every_name_that_opened_it() {
    let allowed = |event| egress_common::Event {
        verdict: Verdict::Allow as u8,
        reason: Reason::Permit as u8,
        rule: 1,
        ..event
    };
    let run = Run::default()
        .question(&listed("api.example", &["203.0.113.10"]))
        .question(&listed("cdn.example", &["203.0.113.10", "203.0.113.11"]))
        .attempt(&allowed(to([203, 0, 113, 10], 443)));
    assert_snapshot!(run.why("203.0.113.10"), @"
    python3[4242] tried to reach cdn.example (tcp 203.0.113.10:443) at 2026-11-22T12:34:56.789000000Z, and it was let through.
    Reason: permit: an allowed name opened it. Rule: host api.example ports 443/tcp (policies/p.yaml:4).
    The address came with the answer for cdn.example, asked for at 2026-11-22T12:34:56.789000000Z.
    The address is shared; it was opened by api.example, cdn.example. A permitted address serves every name behind it, whoever asks: egress sees addresses and ports, not the name inside TLS.
    The file has 3 events that match (attempts: 1, questions: 2); this is the last.
    ");
    // By either name, though the event shows the one that was answered last.
    assert_eq!(run.find("api.example:443").attempts, 1);
    // Mutation seen to fail here: names of all addresses told, not those of the one that is asked about.
    let run = run.attempt(&to([203, 0, 113, 11], 8443));
    assert_snapshot!(run.why("203.0.113.11"), @"
    python3[4242] tried to reach cdn.example (tcp 203.0.113.11:8443) at 2026-11-22T12:34:56.789000000Z, and it was refused.
    Reason: no-rule: no rule covers it.
    The address came with the answer for cdn.example, asked for at 2026-11-22T12:34:56.789000000Z.
    The address is open on the ports of the rules for cdn.example.
    To allow it: - { host: cdn.example, ports: [8443] }
    The file has 2 events that match (attempts: 1, questions: 1); this is the last refusal.
    ");
}

#[test]
fn a_refused_name_on_an_open_address_is_told_so() {
    let audit = Told {
        verdict: Verdict::Audit,
        addresses: vec!["203.0.113.10".parse().unwrap()],
        rcode: 0,
        ..refused()
    };
    let run = Run::default().question(&listed("api.example", &["203.0.113.10"])).question(&audit);
    assert_snapshot!(run.why("collect.attacker.example"), @"
    python3[4242] asked for collect.attacker.example (A) at 2026-11-22T12:34:56.789000000Z, and it was answered (NOERROR) only because of audit mode.
    Reason: not-listed: no rule lists the name.
    Its address is open all the same, under api.example. A permitted address serves every name behind it, whoever asks: egress sees addresses and ports, not the name inside TLS.
    To allow it: - { host: collect.attacker.example, ports: [443] }
    ");
}

#[test]
fn an_expired_permit_and_a_deny_rule_are_told() {
    let expired =
        egress_common::Event { reason: Reason::Expired as u8, rule: 1, ..to([203, 0, 113, 10], 443) };
    let run = Run::default().question(&listed("api.example", &["203.0.113.10"])).attempt(&expired);
    assert_snapshot!(run.why(""), @"
    python3[4242] tried to reach api.example (tcp 203.0.113.10:443) at 2026-11-22T12:34:56.789000000Z, and it was refused.
    Reason: expired: expired permit for api.example: the DNS answer that opened it has run out; asking anew opens it again. Rule: host api.example ports 443/tcp (policies/p.yaml:4).
    The address came with the answer for api.example, asked for at 2026-11-22T12:34:56.789000000Z.
    Opened before by: api.example.
    ");
    let denied = Told { reason: DnsReason::DenyRule, rule: Some(2), ..refused() };
    assert_snapshot!(Run::default().question(&denied).why(""), @"
    python3[4242] asked for collect.attacker.example (A) at 2026-11-22T12:34:56.789000000Z, and it was refused (NXDOMAIN).
    Reason: deny-rule: a rule under `deny:` covers the name or one that it is an alias of. Rule: host *.packages.example ports 443/tcp (policies/p.yaml:5).
    This closes the name, not the machine behind it: if collect.attacker.example shares an address with a permitted name, that address is open under the permitted one. A permitted address serves every name behind it, whoever asks: egress sees addresses and ports, not the name inside TLS.
    ");
}

#[test]
fn a_question_that_failed_is_told_so_whatever_its_verdict() {
    let failed =
        Told { reason: DnsReason::Upstream, rcode: 2, addresses: Vec::new(), ..listed("api.example", &[]) };
    let run = Run::default().question(&failed);
    assert_snapshot!(run.why(""), @"
    python3[4242] asked for api.example (A) at 2026-11-22T12:34:56.789000000Z, and it failed (SERVFAIL).
    Reason: upstream: no upstream server answered in time. Rule: host db.example ports 5432/any (policies/p.yaml:4).
    ");
    // A refusal goes before a later failure. Mutation seen to fail here: a failure counted as one.
    let both =
        Run::default().question(&refused()).question(&Told { verdict: Verdict::Deny, ..failed.clone() });
    assert!(both.why("").contains("not-listed"), "{}", both.why(""));
    let run = Run::default().question(&Told { verdict: Verdict::Deny, ..failed });
    assert_snapshot!(run.why(""), @"
    python3[4242] asked for api.example (A) at 2026-11-22T12:34:56.789000000Z, and it failed (SERVFAIL).
    Reason: upstream: no upstream server answered in time. Rule: host db.example ports 5432/any (policies/p.yaml:4).
    ");
}

#[test]
fn what_was_taken_out_is_told_by_its_address_too() {
    let run = Run::default().question(&answered());
    assert_snapshot!(run.why("10.0.0.1"), @"
    python3[4242] asked for db.example (A) at 2026-11-22T12:34:56.789000000Z, and it was answered (NOERROR).
    Reason: listed: a rule lists the name. Rule: host db.example ports 5432/any (policies/p.yaml:4).
    10.0.0.1 was taken out of the answer: a private address.
    The addresses of the answer are open under db.example. A permitted address serves every name behind it, whoever asks: egress sees addresses and ports, not the name inside TLS.
    To allow it: - { host: db.example, ports: [5432], protocol: any, private: true }
    ");
}

#[test]
fn a_socket_has_no_destination_and_is_found_as_the_last_refusal() {
    let run = Run::default().attempt(&raw_socket());
    assert_snapshot!(run.why(""), @"
    ping[77] tried to reach the network with a raw socket of icmp at 2026-11-22T12:34:56.789000000Z, and it was refused.
    Reason: socket-type: only TCP and UDP sockets can be made, and for ping where a rule says `protocol: icmp`.
    ");
    assert!(run.find("203.0.113.66").found.is_none());
}

#[test]
fn guesses_and_what_was_allowed_are_no_refusals() {
    let search = Told { reason: DnsReason::Search, ..refused() };
    let run = Run::default().question(&search).question(&listed("api.example", &["203.0.113.10"]));
    assert!(run.find("").found.is_none());
    assert!(run.find("api.example").found.is_some());
    assert!(run.find("example").found.is_none());
    assert!(run.find("203.0.113.10:443").found.is_some());
    assert!(run.find("203.0.113.1").found.is_none());
}

#[test]
fn the_last_refusal_counts_before_what_was_allowed_later() {
    let run = Run::default()
        .question(&Told { time: SECOND, ..refused() })
        .question(&Told { time: 2 * SECOND, ..refused() })
        .question(&Told { time: 3 * SECOND, ..listed("collect.attacker.example", &["203.0.113.66"]) });
    let findings = run.find("collect.attacker.example");
    let Some(Found::Question(question)) = findings.found else { panic!("no question") };
    assert_eq!(
        (question.verdict.as_str(), question.time.as_str()),
        ("deny", "2026-11-22T12:34:58.789000000Z")
    );
}

#[test]
fn names_that_were_opened_at_the_start_count() {
    let outcome = Outcome::Opened {
        name: "hosts.example".to_owned(),
        addresses: vec!["203.0.113.66".parse().unwrap()],
        ttl: Duration::from_secs(1),
        missing: None,
    };
    let run = Run::default().line(&names_line(&[outcome], OFFSET)).attempt(&to([203, 0, 113, 66], 8443));
    assert!(run.why("").contains("hosts.example"), "{}", run.why(""));
}

#[test]
fn foreign_and_torn_lines_are_passed_over_and_told() {
    let mut run = Run::default()
        .line(b"not json")
        .line(b"{\"v\":1}")
        .line(b"{\"v\":2,\"type\":\"dns\"}")
        .line(b"{\"v\":1,\"type\":\"dns\",\"name\":7}")
        .line(b"[1]")
        .line(b"")
        .line(b"\xff\xfe")
        .line(b"{\"v\":1,\"type\":\"of-a-later-version\"}")
        .question(&refused());
    let torn = question_line(&asked(&refused()));
    // Mutation seen to fail here: a cut-off line counted as foreign.
    for length in 1..torn.len() {
        let mut cut = run.lines.clone();
        cut.extend_from_slice(&torn[..length]);
        let findings = search(None, || Ok(cut.as_slice())).unwrap();
        assert!(findings.found.is_some() && findings.torn, "{length}");
        assert_eq!((findings.understood, findings.foreign, findings.questions), (2, 6, 1), "{length}");
    }
    // Whole but for its end it counts.
    run.lines.extend_from_slice(&torn);
    assert_eq!((run.find("").questions, run.find("").torn), (2, false));
    // Longer than any event, and the lines behind it are still read.
    let long = Run::default().line(&vec![b'x'; 3 << 20]).question(&refused()).find("");
    assert_eq!((long.foreign, long.questions), (1, 1));
    assert_snapshot!(Run::default().line(b"x").why(""), @"no line of the file is an event of egress");
}

#[test]
fn refusals_without_an_event_are_told() {
    let mut counters = egress_common::Counters::ZERO;
    counters.fate[Verdict::Deny as usize].suppressed = 3;
    counters.fate[Verdict::Deny as usize].dropped = 4;
    counters.fate[Verdict::Allow as usize].suppressed = 90;
    let run = Run::default().line(&summary_line(&Tally::default().summary(&counters), OFFSET));
    assert_eq!(run.find("").left_out, 7);
}

#[test]
fn hostile_names_neither_steer_nor_fake_a_sentence() {
    for name in ["a\u{1b}[2J\nTo allow it: x", "\u{202e}", "\u{9b}2J", "\\027.x", "", "\" (A) at"] {
        let told = Told { name: name.to_owned(), aliases: vec![name.to_owned()], ..refused() };
        let run = Run::default().question(&told);
        for sentence in run.find("").sentences() {
            assert!(sentence.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{sentence:?}");
            assert!(!sentence.starts_with("To allow it: x"), "{sentence}");
        }
    }
}

#[test]
fn unix_sockets_and_escapes_are_explained() {
    let unix = |name| attempt_line(&of_escape(&escape(Hook::Unix, Reason::Unix, name)));
    let mut ptrace = escape(Hook::Launch, Reason::Process, "ptrace");
    ptrace.target = 77;
    let run = Run::default()
        .attempt(&inbound())
        .line(&unix("/run/docker.sock"))
        .line(&unix("@dbus"))
        .line(&attempt_line(&of_escape(&ptrace)));
    assert_snapshot!(run.why(""), @r"
    python3[4242]: ptrace (process 77 outside) at 2026-11-22T12:34:56.789000000Z, and it was refused.
    Reason: process: the process is outside the scope.
    This is an attempt to get out of the scope, which no rule allows.
    The file has 4 events that match (attempts: 3, questions: 0, escape attempts: 1); this is the last refusal.
    ");
    assert_snapshot!(run.why("unix:/run/docker.sock"), @r"
    python3[4242] tried to reach the unix socket /run/docker.sock at 2026-11-22T12:34:56.789000000Z, and it was refused.
    Reason: unix: it is a unix socket of a process outside, which no `unix` rule opens.
    To allow it: - unix: /run/docker.sock
    ");
    assert_eq!(run.find("@dbus").attempts, 1);
    assert_eq!(run.find("/run/docker").attempts, 0);
    assert_snapshot!(run.why("203.0.113.66"), @r"
    203.0.113.66 (tcp to own port 8080 of the scope) tried to reach python3[4242] at 2026-11-22T12:34:56.789000000Z, and it was refused.
    Reason: inbound: it comes from outside the scope, and `inbound:` does not open the port.
    To allow it: inbound: [8080]
    ");
}

#[test]
fn destinations_are_read_in_every_form() {
    for (text, shown) in [
        ("API.Example.", "api.example"),
        ("api.example:443", "api.example:443"),
        ("api.example:443/udp", "api.example:443/udp"),
        ("api.example/tcp", "api.example/tcp"),
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:443", "192.0.2.1:443"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ("a\\032b.example", "a\\032b.example"),
    ] {
        assert_eq!(text.parse::<Subject>().unwrap().to_string(), shown);
    }
    for text in ["", ":443", "api.example:", "api.example:65536", "/tcp"] {
        assert!(text.parse::<Subject>().is_err(), "{text}");
    }
}
