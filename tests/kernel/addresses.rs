//! Which addresses a policy opens, judged on the wire: deny rules, embedded IPv4, and those that are special.

use egress::compile::Compiled;
use egress_common::{Reason, Verdict};
use egress_tests::{
    Attempt, Lab, policies,
    scope::{Scope, told},
};

/// Which attempts a policy lets out, judged on the wire, with the reason told for each that it does not.
fn outcomes(compiled: &Compiled, attempts: &[&str]) -> Vec<(String, Option<Reason>)> {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::open(compiled).expect("a scope");
    let outcome = |to: &&str| {
        let kind = if to.starts_with('[') { "socket inet6 dgram" } else { "socket inet dgram" };
        let send = format!("sendto {to} mark-of-{to}");
        lab.forget();
        let steps = [kind, "option 1 6 01000000", &send];
        let (outcome, events) = scope.run(&lab, &Attempt::new(&steps)).expect("the attempt is made");
        let out = lab.frames().iter().any(|frame| frame.carries(&format!("mark-of-{to}")));
        let [event] = events.as_slice() else { panic!("{to}: {} events, {outcome:?}", events.len()) };
        let (verdict, _, reason) = told(event);
        assert_eq!(
            out,
            verdict == Verdict::Allow,
            "{to}: told {verdict:?}, but on the wire: {out}; {outcome:?}"
        );
        assert_eq!(outcome.failure().is_none(), out, "{to}: {outcome:?}");
        ((*to).to_owned(), (!out).then_some(reason))
    };
    attempts.iter().map(outcome).collect()
}

fn expect(compiled: &Compiled, expected: &[(&str, Option<Reason>)]) {
    let attempts: Vec<&str> = expected.iter().map(|(to, _)| *to).collect();
    let expected: Vec<_> = expected.iter().map(|(to, reason)| ((*to).to_owned(), *reason)).collect();
    assert_eq!(outcomes(compiled, &attempts), expected);
}

#[test]
fn an_empty_list_allows_nothing() {
    let empty = policies::compiled("version: 1\nname: none\nallow: []\nloopback: none\n");
    expect(
        &empty,
        &[
            ("203.0.113.10:443", Some(Reason::NoRule)),
            ("[2001:db8:10::10]:443", Some(Reason::NoRule)),
            ("[::ffff:203.0.113.10]:443", Some(Reason::NoRule)),
            ("127.0.0.1:443", Some(Reason::Loopback)),
        ],
    );
}

#[test]
fn a_deny_rule_beats_every_allow_rule() {
    let policy = policies::compiled(
        "version: 1\nname: p\nallow:\n  - { cidr: 203.0.113.0/24, ports: [443], protocol: udp }\n  \
         - { cidr: 203.0.112.0/23, ports: [443], protocol: udp }\ndeny:\n  - { cidr: 203.0.113.64/26 }\n",
    );
    expect(
        &policy,
        &[
            ("203.0.113.63:443", None),
            ("203.0.113.64:443", Some(Reason::DenyRule)),
            ("203.0.113.66:443", Some(Reason::DenyRule)),
            ("203.0.113.127:443", Some(Reason::DenyRule)),
            ("203.0.113.128:443", None),
            ("[::ffff:203.0.113.66]:443", Some(Reason::DenyRule)),
            ("[64:ff9b::203.0.113.66]:443", Some(Reason::DenyRule)),
            ("[64:ff9b::203.0.113.63]:443", None),
        ],
    );
}

const SPECIAL: [(&str, Reason); 14] = [
    ("169.254.169.254:80", Reason::Metadata),
    ("[::ffff:169.254.169.254]:80", Reason::Metadata),
    ("[64:ff9b::169.254.169.254]:80", Reason::Metadata),
    ("[2002:a9fe:a9fe::1]:80", Reason::Metadata),
    // The client's address in a Teredo address has every bit inverted.
    ("[2001:0:4136:e378:8000:63bf:5601:5601]:80", Reason::Metadata),
    ("[fd00:ec2::254]:80", Reason::Metadata),
    ("169.254.7.7:80", Reason::LinkLocal),
    ("[fe80::66%2]:80", Reason::LinkLocal),
    ("224.0.0.251:80", Reason::Multicast),
    ("239.255.255.250:80", Reason::Multicast),
    ("[ff02::fb%2]:80", Reason::Multicast),
    ("255.255.255.255:80", Reason::Broadcast),
    ("127.0.0.1:80", Reason::Loopback),
    ("[::1]:80", Reason::Loopback),
];

#[test]
fn special_addresses_stay_closed_though_everything_is_allowed() {
    let all = policies::compiled(
        "version: 1\nname: all\nallow:\n  - { cidr: 0.0.0.0/0, ports: [80], protocol: udp }\n  \
         - { cidr: '::/0', ports: [80], protocol: udp }\nloopback: none\n",
    );
    let mut expected: Vec<_> = SPECIAL.iter().map(|(to, reason)| (*to, Some(*reason))).collect();
    expected.extend([("203.0.113.66:80", None), ("[2001:db8:66::66]:80", None), ("198.51.100.1:80", None)]);
    expect(&all, &expected);
}

#[test]
fn a_rule_of_their_own_opens_special_addresses() {
    let opened = policies::compiled(
        "version: 1\nname: special\nallow:\n  - { cidr: 169.254.169.254/32, ports: [80], protocol: udp }\n  \
         - { cidr: 169.254.7.0/24, ports: [80], protocol: udp }\n  \
         - { cidr: 'fe80::/64', ports: [80], protocol: udp }\n  \
         - { cidr: 239.255.255.250/32, ports: [80], protocol: udp }\n  \
         - { cidr: 255.255.255.255/32, ports: [80], protocol: udp }\n",
    );
    expect(
        &opened,
        &[
            ("169.254.169.254:80", None),
            ("169.254.169.253:80", Some(Reason::LinkLocal)),
            ("169.254.7.7:80", None),
            ("169.254.8.7:80", Some(Reason::LinkLocal)),
            ("[fe80::66%2]:80", None),
            ("239.255.255.250:80", None),
            ("239.255.255.251:80", Some(Reason::Multicast)),
            ("255.255.255.255:80", None),
        ],
    );
}
