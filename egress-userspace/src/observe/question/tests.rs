//! Questions as they are told, and what would allow them.

use std::{path::PathBuf, sync::Arc};

use egress_common::{Asker, Owner};

use super::*;
use crate::{
    compile::{Origin, RuleInfo},
    observe::record::tests::{OFFSET, denied},
};

/// A refused question for the address of a name that no rule lists.
pub(crate) fn refused() -> Told {
    let asker =
        Asker { owner: denied().owner, server: Address::from_v4([192, 0, 2, 53]), cgroup: 4711, cookie: 98 };
    Told {
        time: 0,
        verdict: Verdict::Deny,
        reason: DnsReason::NotListed,
        rule: None,
        name: "collect.attacker.example".to_owned(),
        query_type: 1,
        class: 1,
        asker,
        transport: Transport::Udp,
        rcode: 3,
        addresses: Vec::new(),
        dropped: Vec::new(),
        aliases: Vec::new(),
        ttl: None,
    }
}

/// An answered question for a listed name, of which a private address was taken out.
pub(crate) fn answered() -> Told {
    Told {
        verdict: Verdict::Allow,
        reason: DnsReason::Listed,
        rule: Some(1),
        name: "db.example".to_owned(),
        rcode: 0,
        addresses: vec!["203.0.113.10".parse().unwrap()],
        dropped: vec![Dropped { address: "10.0.0.1".parse().unwrap(), why: "a private address" }],
        aliases: vec!["db.cdn.example".to_owned()],
        ttl: Some(60),
        ..refused()
    }
}

/// A policy whose first rule lists a name and whose second a wildcard.
pub(crate) fn policy() -> Compiled {
    let rule = |line, text: &str| RuleInfo {
        origin: Origin::File { path: Arc::new(PathBuf::from("policies/p.yaml")), line },
        text: text.to_owned(),
    };
    let host = |id, host: &str, port, transports: &[Transport]| HostRule {
        id,
        host: host.to_owned(),
        ports: vec![PortRange::one(port)],
        transports: transports.to_vec(),
        private: false,
        own: [].into(),
    };
    Compiled {
        rules: vec![
            rule(4, "host db.example ports 5432/any"),
            rule(5, "host *.packages.example ports 443/tcp"),
        ],
        hosts: vec![
            host(1, "db.example", 5432, &[Transport::Tcp, Transport::Udp]),
            host(2, "*.packages.example", 443, &[Transport::Tcp]),
        ],
        ..Compiled::default()
    }
}

/// As a run would have it.
pub(crate) fn of(told: &Told) -> Question {
    Question::of(told, &policy(), OFFSET)
}

#[test]
fn a_question_keeps_what_was_told() {
    let question = of(&Told { time: 7, rule: Some(2), ..refused() });
    assert_eq!((question.time, question.cgroup, question.cookie), (OFFSET + 7, 4711, Some(98)));
    assert_eq!(question.server, Some("192.0.2.53".parse().unwrap()));
    assert_eq!(question.rule.unwrap().origin, "policies/p.yaml:5");
    assert_eq!(question.process.unwrap().pid, 4242);
    let unknown = Asker { owner: Owner::default(), cookie: 0, server: Address::ZERO, ..refused().asker };
    let question = of(&Told { asker: unknown, ..refused() });
    assert_eq!((question.process, question.cookie, question.server), (None, None, None));
}

#[test]
fn what_would_allow_it_depends_on_why() {
    let line = |name: &str| Some(format!("- {{ host: {name}, ports: [443] }}"));
    let long = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.packages.example";
    for (reason, name, query_type, remedy, setting) in [
        (DnsReason::NotListed, "collect.attacker.example", 1, line("collect.attacker.example"), None),
        (DnsReason::NotListed, "a\\032b.example", 1, None, None),
        (DnsReason::NotListed, "", 1, None, None),
        (DnsReason::DenyRule, "db.example", 1, None, None),
        (DnsReason::LabelBound, long, 1, line(long), Some("dns: { wildcard: { label: 45 } }")),
        (DnsReason::NameBound, long, 1, line(long), Some("dns: { wildcard: { name: 62 } }")),
        (
            DnsReason::RateBound,
            "a.example",
            1,
            line("a.example"),
            Some("dns: { wildcard: { new-names: 60 } }"),
        ),
        (DnsReason::Type, "db.example", 16, None, Some("dns: { types: [A, CNAME, TXT, AAAA, SVCB, HTTPS] }")),
        (DnsReason::Type, "db.example", 255, None, None),
        (DnsReason::Search, "a.example", 1, None, None),
        (DnsReason::Upstream, "a.example", 1, None, None),
    ] {
        let question = of(&Told { reason, name: name.to_owned(), query_type, ..refused() });
        assert_eq!((question.remedy, question.setting.as_deref()), (remedy, setting), "{reason:?} {name}");
        // What was answered needs nothing.
        let question =
            of(&Told { verdict: Verdict::Allow, reason, name: name.to_owned(), query_type, ..refused() });
        assert_eq!((question.remedy, question.setting), (None, None), "{reason:?} {name}");
    }
}

#[test]
fn a_private_address_is_opened_by_its_rule_and_a_metadata_service_by_none() {
    // Mutation seen to fail here: the port of a question for the ports of the rule.
    let line = "- { host: db.example, ports: [5432], protocol: any, private: true }";
    assert_eq!(of(&answered()).remedy.as_deref(), Some(line));
    let metadata = Dropped { address: "169.254.169.254".parse().unwrap(), why: "a metadata service" };
    let told = Told { dropped: vec![metadata], reason: DnsReason::Rebinding, ..answered() };
    assert_eq!(of(&told).remedy, None);
}

#[test]
fn every_line_of_a_remedy_loads() {
    let load = |text: &str| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.yaml");
        std::fs::write(&path, text).unwrap();
        crate::policy::load(&path, &[]).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
    };
    for reason in [DnsReason::NotListed, DnsReason::LabelBound, DnsReason::NameBound, DnsReason::RateBound] {
        let question = of(&Told { reason, ..refused() });
        load(&format!("version: 1\nname: p\nallow:\n  {}\n", question.remedy.unwrap()));
        if let Some(setting) = question.setting {
            load(&format!("version: 1\nname: p\n{setting}\n"));
        }
    }
    for query_type in (0..=260).filter(|number| may_be_listed(*number)) {
        let question = of(&Told { reason: DnsReason::Type, query_type, ..refused() });
        let policy = load(&format!("version: 1\nname: p\n{}\n", question.setting.unwrap()));
        assert!(policy.dns.types.contains(&query_type), "{query_type}");
    }
    load(&format!("version: 1\nname: p\nallow:\n  {}\n", of(&answered()).remedy.unwrap()));
}

#[test]
fn only_what_a_person_needs_to_know_is_news() {
    let is = |told: &Told| of(told).is_news();
    assert!(is(&refused()));
    assert!(is(&answered()));
    assert!(!is(&Told { dropped: Vec::new(), ..answered() }));
    assert!(!is(&Told { reason: DnsReason::Search, ..refused() }));
    assert!(is(&Told { verdict: Verdict::Audit, ..refused() }));
    assert!(is(&Told { reason: DnsReason::Upstream, dropped: Vec::new(), ..answered() }));
}
