//! What holds of every DNS message, drawn from edges; the checks themselves are those of the fuzz targets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use egress::{
    compile::{Compiled, HostRule},
    dns::{
        answer::Answer,
        filter::{Filter, Ruling},
        fuzzing,
        message::{self, Incoming, Question},
        reply,
        told::DnsReason,
    },
};
use egress_common::names::covers;
use proptest::{prelude::*, sample::select};

/// Names that a chain may be made of; `www.example` is asked for, the last two are denied.
const OWNERS: [&str; 7] = [
    "www.example",
    "WWW.Example",
    "b.example",
    "c.example",
    "example",
    "denied.packages.example",
    "x.denied.example",
];

/// First and last of what no name may have, and their neighbours.
const EDGES4: [&str; 20] = [
    "0.255.255.255",
    "1.0.0.0",
    "9.255.255.255",
    "10.0.0.0",
    "10.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.64.0.0",
    "126.255.255.255",
    "127.0.0.0",
    "127.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.254.0.0",
    "169.254.255.255",
    "169.255.0.0",
    "192.0.2.1",
    "223.255.255.255",
    "224.0.0.0",
    "255.255.255.255",
];
const EDGES6: [&str; 12] = [
    "::",
    "::1",
    "::2",
    "::ffff:10.0.0.0",
    "::ffff:192.0.2.1",
    "64:ff9b::a9fe:0",
    "64:ff9b::c000:201",
    "2002:a00::1",
    "2001:0:1:2:3:4:5601:5601",
    "2001:db8::1",
    "fdff::1",
    "febf::1",
];

fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let label = |label: &str| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat();
    labels.flat_map(label).chain([0]).collect()
}

/// An owner: in full, or as a pointer to somewhere.
fn owner() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => select(OWNERS.to_vec()).prop_map(wire),
        2 => Just(vec![0xc0, 12]),
        1 => select(vec![[0xc0, 11], [0xc0, 13], [0xc0, 16], [0xc0, 29], [0xff, 0xff]]).prop_map(Vec::from),
        1 => Just(wire("")),
    ]
}

/// Type and data of a record.
fn data() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let v4 = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets().to_vec();
    let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets().to_vec();
    let params = select(vec![
        vec![],
        vec![0, 1, 0, 3, 2, b'h', b'2'],
        vec![0, 4, 0, 4, 192, 0, 2, 66],
        vec![0, 0, 0, 2, 0, 4, 0, 4, 0, 4, 192, 0, 2, 66],
        vec![0, 5, 0, 1, 7],
        vec![0, 6, 0, 2, 7, 7],
        vec![0, 9, 0, 0],
        vec![0, 9, 0, 1],
    ]);
    prop_oneof![
        select(EDGES4.to_vec()).prop_map(move |text| (1, v4(text))),
        select(EDGES6.to_vec()).prop_map(move |text| (28, v6(text))),
        owner().prop_map(|target| (5, target)),
        (select(vec![64, 65]), 0..2_u8, owner(), params).prop_map(|(kind, priority, target, params)| (
            kind,
            [vec![0, priority], target, params].concat()
        )),
        (select(vec![1, 5, 6, 15, 16, 28, 33, 41, 46, 65]), proptest::collection::vec(any::<u8>(), 0..24)),
    ]
}

fn record() -> impl Strategy<Value = Vec<u8>> {
    let ttl = select(vec![0, 1, 29, 30, 31, 300, 301, 0x7fff_ffff, 0x8000_0000, u32::MAX]);
    let class = prop_oneof![9 => Just(1_u16), 1 => select(vec![0, 3, 255])];
    (owner(), data(), class, ttl, prop_oneof![20 => Just(0), 1 => -1..=1_i32]).prop_map(
        |(owner, (kind, data), class, ttl, lie)| {
            let length = u16::try_from(i32::try_from(data.len()).unwrap() + lie).unwrap_or(0);
            [
                owner,
                kind.to_be_bytes().to_vec(),
                class.to_be_bytes().to_vec(),
                ttl.to_be_bytes().to_vec(),
                length.to_be_bytes().to_vec(),
                data,
            ]
            .concat()
        },
    )
}

/// What [`fuzzing::answer`] takes: settings, counts, flags, and records in three sections.
fn upstream() -> impl Strategy<Value = Vec<u8>> {
    let section = || proptest::collection::vec(record(), 0..6);
    let lie = prop_oneof![9 => Just(0_u8), 1 => select(vec![1, 255])];
    let flags = select(vec![[0x80, 0], [0x81, 0x80], [0x81, 0x83], [0x83, 0x80], [0x81, 0x82], [0x81, 0xff]]);
    (0..64_u8, section(), section(), section(), flags, lie).prop_map(|(settings, an, ns, ar, flags, lie)| {
        let count = |section: &Vec<Vec<u8>>| u8::try_from(section.len()).unwrap();
        let mut bytes = vec![settings, count(&an).wrapping_add(lie), count(&ns), count(&ar)];
        bytes.extend(flags);
        bytes.extend([an, ns, ar].concat().concat());
        bytes
    })
}

/// Labels that differ by little, of the lengths at which something changes.
fn label() -> impl Strategy<Value = String> {
    let lengths = select(vec![1, 39, 40, 41, 63]).prop_map(|length| "l".repeat(length));
    let words = select(vec![
        "a",
        "b",
        "packages",
        "evil-packages",
        "example",
        "www",
        "denied",
        "corp",
        "*",
        "localhost",
    ]);
    prop_oneof![9 => words.prop_map(str::to_owned), 1 => lengths]
}

fn name() -> impl Strategy<Value = String> {
    proptest::collection::vec(label(), 0..6).prop_map(|labels| labels.join("."))
}

fn pattern() -> impl Strategy<Value = String> {
    (any::<bool>(), proptest::collection::vec(label(), 1..4)).prop_map(|(wildcard, labels)| {
        let name = labels.join(".");
        let front = if wildcard { "*." } else { "" };
        format!("{front}{}", name.trim_start_matches("*."))
    })
}

fn question(name: &str, query_type: u16, edns: bool) -> Question {
    match message::read(&message::ask(7, name, query_type, edns).unwrap()) {
        Incoming::Question(question) => question,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_a_question_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        fuzzing::question(&bytes);
        let mut plain = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        plain.extend(&bytes);
        fuzzing::question(&plain);
    }

    #[test]
    fn any_bytes_are_an_answer_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzzing::answer(&bytes);
    }

    /// Mutations seen to fail here: special addresses kept; hints or keys kept; the owner of an address not compared; an
    /// alias's TTL left out; a denied alias followed; an address beside NXDOMAIN kept.
    #[test]
    fn answers_of_likely_records(bytes in upstream()) {
        fuzzing::answer(&bytes);
    }

    /// Mutations seen to fail here: the case of a name kept for upstream; an escape of a byte without its zeroes.
    #[test]
    fn questions_for_likely_names(
        name in name(),
        query_type in select(vec![0_u16, 1, 5, 10, 12, 16, 28, 41, 64, 65, 251, 252, 255, 256, 65535]),
        edns: bool,
    ) {
        if let Ok(bytes) = message::ask(7, &name, query_type, edns) {
            fuzzing::question(&bytes);
            fuzzing::question(&bytes.to_ascii_uppercase());
        }
    }

    /// Mutations seen to fail here: wildcards looked up by the name itself; the closest wildcard alone taken; a deny
    /// wildcard that covers its apex.
    #[test]
    fn the_index_says_what_the_rules_say_one_by_one(
        name in name(),
        allow in proptest::collection::vec(pattern(), 0..6),
        deny in proptest::collection::vec(pattern(), 0..3),
    ) {
        let mut compiled = Compiled::default();
        for (id, host) in (1..).zip(&allow) {
            let (ports, transports) = (Vec::new(), Vec::new());
            compiled.hosts.push(HostRule { id, host: host.clone(), ports, transports, private: false, own: [].into() });
        }
        compiled.denied_hosts = (100..).zip(&deny).map(|(id, host)| (host.clone(), id)).collect();
        compiled.dns.wildcard.label = u8::MAX;
        compiled.dns.wildcard.name = u8::MAX;
        let mut filter = Filter::new(&compiled, Vec::new());
        let Ok(bytes) = message::ask(7, &name, 1, false) else { return Ok(()) };
        let Incoming::Question(question) = message::read(&bytes) else { panic!("no question") };
        let listed: Vec<u32> =
            (1..).zip(&allow).filter(|(_, host)| covers(host, &name)).map(|(id, _)| id).collect();
        let denied = deny.iter().any(|host| covers(host, &name));
        let local = name == "localhost" || name.ends_with(".localhost");
        match filter.judge(&question, 0) {
            Ruling::Ask { rules, rule } => {
                let mut ids: Vec<u32> = rules.iter().map(|rule| rule.id).collect();
                prop_assert!(ids.contains(&rule));
                ids.sort_unstable();
                prop_assert_eq!(ids, listed);
                prop_assert!(!denied && !local);
            }
            Ruling::Refuse { reason, .. } => {
                prop_assert_eq!(reason == DnsReason::DenyRule, denied);
                prop_assert!(denied || listed.is_empty());
            }
            Ruling::Local(_) => prop_assert!(local && !denied),
        }
    }

    /// Mutation seen to fail here: the library's limit, the first length that is too long, taken for the longest.
    #[test]
    fn a_reply_is_whole_or_cut(
        count in select(vec![0_usize, 1, 28, 29, 30, 31, 73, 74, 75, 76, 100, 4000]),
        edns: bool,
        limit in select(vec![29, 44, 45, 46, 56, 511, 512, 513, 1231, 1232, 65_535]),
    ) {
        let addresses: Vec<IpAddr> =
            (0..count).map(|n| Ipv4Addr::from(0xc000_0200 + u32::try_from(n).unwrap()).into()).collect();
        let question = question("www.example", 1, edns);
        let bytes = reply::answer(&question, &Answer::of_addresses(1, &addresses, 60), 300, 0, limit);
        let needed = 29 + 16 * count + if edns { 11 } else { 0 };
        let counted = usize::from(u16::from_be_bytes([bytes[6], bytes[7]]));
        prop_assert!(bytes.len() <= limit);
        prop_assert_eq!(bytes[2] & 2 != 0, needed > limit);
        prop_assert_eq!(counted, if needed > limit { 0 } else { count });
        prop_assert!(needed > limit || bytes.len() == needed);
    }
}

#[test]
fn a_reason_without_room_cuts_no_answer() {
    // Mutation seen to fail here: no second try without the reason.
    let question = question("www.example", 1, true);
    for (count, reason, cut) in [(1, true, false), (29, false, false), (30, false, true)] {
        let addresses: Vec<IpAddr> = (0..count).map(|n| Ipv4Addr::new(192, 0, 2, n).into()).collect();
        let mut answer = Answer::of_addresses(1, &addresses, 60);
        answer.reason = DnsReason::Rebinding;
        let bytes = reply::answer(&question, &answer, 300, 0, 512);
        let told = bytes.windows(7).any(|window| window == b"private");
        assert_eq!((told, bytes[2] & 2 != 0), (reason, cut), "{count}");
    }
}
