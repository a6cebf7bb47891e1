//! What must hold of any bytes whatever, shared by the fuzz targets and by the tests that replay their corpus. Panics if it
//! does not hold.

use std::{cell::RefCell, collections::BTreeSet, net::IpAddr, sync::LazyLock};

use domain::{
    base::{
        Message, Name, ParsedName, ParsedRecord, Rtype, ToName,
        iana::{Class, Opcode, SvcParamKey},
    },
    rdata::{A, Aaaa, Https, Soa, Svcb, svcb::UnknownSvcParam},
};
use egress_common::{Transport, names::covers};

use super::{
    answer::{Answer, Judged, MAX_HOPS, NEGATIVE_TTL, Terms, judge},
    filter::{Filter, Ruling},
    message::{self, Edns, Incoming, Question},
    reply,
    special::refusal,
    told::DnsReason,
};
use crate::compile::{Compiled, HostRule, PortRange};

/// The names of the policy that is asked.
const ALLOWED: [&str; 4] = ["www.example", "*.packages.example", "*.a.packages.example", "localhost.example"];
const DENIED: [&str; 2] = ["denied.packages.example", "*.denied.example"];

/// The name that an answer is to.
const ASKED: &str = "www.example";

/// Time to live that clients are given at most, in seconds.
const CAP: u32 = 300;

const ID: u16 = 0x1234;

static POLICY: LazyLock<Compiled> = LazyLock::new(policy);

thread_local! {
    /// The policy's filter and its time.
    static FILTER: RefCell<(Filter, u64)> = RefCell::new((Filter::new(&POLICY, vec!["corp".into()]), 0));
}

fn policy() -> Compiled {
    let mut compiled = Compiled::default();
    for (id, host) in (1..).zip(ALLOWED) {
        compiled.hosts.push(HostRule {
            id,
            host: host.to_owned(),
            ports: vec![PortRange::one(443)],
            transports: vec![Transport::Tcp],
            private: false,
            own: [].into(),
        });
    }
    compiled.denied_hosts = (10..).zip(DENIED).map(|(id, host)| (host.to_owned(), id)).collect();
    compiled
}

/// Any bytes from a client.
pub fn question(bytes: &[u8]) {
    match message::read(bytes) {
        Incoming::Silence => assert!(bytes.len() < message::HEADER || bytes[2] & 0x80 != 0),
        Incoming::Answer { reply, rcode, .. } => {
            assert!(reply.len() <= 512 && [1, 4, 16].contains(&rcode));
            let read = Message::from_slice(&reply).expect("a message");
            assert_eq!(read.header().id().to_be_bytes(), bytes[..2]);
            assert!(read.header().qr() && read.opt_rcode().to_int() == rcode);
            whole(read);
        }
        Incoming::Question(question) => {
            let limit = one_of([0, 11, 12, 40, 512, 1232, reply::TCP_LIMIT], bytes);
            for reason in [DnsReason::NotListed, DnsReason::RateBound, DnsReason::Listed] {
                let extended = reply::extended_error(reason);
                check_head(&question, &reply::refusal(&question, 3, extended, limit), limit);
            }
            check_ruling(&question);
        }
    }
}

/// The ruling is what the rules say one by one, and what is asked is the name.
fn check_ruling(question: &Question) {
    let name = question.name.text();
    let allowed: Vec<&str> = ALLOWED.into_iter().filter(|pattern| covers(pattern, name)).collect();
    let denied = DENIED.iter().any(|pattern| covers(pattern, name));
    let ruling = FILTER.with_borrow_mut(|(filter, now)| {
        // So slow that no name is one too many.
        *now += 60_000_000_000;
        filter.judge(question, *now)
    });
    match ruling {
        Ruling::Ask { rules, .. } => {
            assert!(question.class == 1 && [1, 5, 28, 64, 65].contains(&question.query_type) && !denied);
            let mut hosts: Vec<&str> = rules.iter().map(|rule| rule.host.as_str()).collect();
            hosts.sort_by_key(|host| ALLOWED.iter().position(|allowed| allowed == host));
            assert_eq!(hosts, allowed);
            let asked = message::ask(ID, name, question.query_type, true).expect("a name");
            let asked = Message::from_slice(&asked).expect("a message").sole_question().expect("a question");
            let lower = question.name.wire().to_ascii_lowercase();
            assert_eq!(asked.qname().to_vec().as_slice(), lower);
        }
        Ruling::Refuse { reason: DnsReason::NotListed | DnsReason::Search, .. } => {
            assert!(allowed.is_empty() && !denied);
        }
        Ruling::Refuse { reason: DnsReason::DenyRule, .. } => assert!(denied),
        Ruling::Refuse { .. } | Ruling::Local(_) => {}
    }
}

/// Any bytes from an upstream server: one of settings, three of counts, two of flags, and what stands behind the question.
/// With the highest bit of the first, the rest is a whole message.
pub fn answer(bytes: &[u8]) {
    let Some((&settings, rest)) = bytes.split_first() else { return };
    let query_type = [1, 28, 65, 64, 5, 15, 16, 33][usize::from(settings & 7)];
    let [private, keep_ech, audit] = [8, 16, 32].map(|bit| settings & bit != 0);
    let message = if settings & 0x80 != 0 { rest.to_vec() } else { framed(rest, query_type) };
    let rules = [HostRule { private, ..POLICY.hosts[0].clone() }];
    let terms = Terms { rules: &rules, keep_ech, audit };
    let judged = judge(&message, ID, ASKED, query_type, &terms, |name| POLICY.denied_name(name));
    match judged {
        Judged::Answer(answer) => check_answer(&answer, query_type, &terms, &message),
        Judged::Foreign => {}
        _ => assert_eq!(message[..2], ID.to_be_bytes()),
    }
}

/// Header and question in front of the rest, so that a fuzzer need not find them.
fn framed(rest: &[u8], query_type: u16) -> Vec<u8> {
    let (counts, rest) = rest.split_at(rest.len().min(3));
    let (flags, rest) = rest.split_at(rest.len().min(2));
    let at = |list: &[u8], index: usize| list.get(index).copied().unwrap_or(0);
    let mut message = message::ask(ID, ASKED, query_type, false).expect("a name");
    message[2] = at(flags, 0) | 0x80;
    message[3] = at(flags, 1);
    for (index, to) in [7, 9, 11].into_iter().enumerate() {
        message[to] = at(counts, index);
    }
    message.extend(rest);
    message
}

fn check_answer(answer: &Answer, query_type: u16, terms: &Terms<'_>, fuzzed: &[u8]) {
    let private = terms.rules[0].private;
    if !terms.audit {
        assert!(answer.addresses.iter().all(|(address, _)| refusal(*address, private).is_none()));
        let denied = |name: &String| DENIED.iter().any(|pattern| covers(pattern, name));
        assert!(answer.reason == DnsReason::DenyRule || !answer.aliases.iter().any(denied));
        assert!(answer.reason == DnsReason::Listed || answer.addresses.is_empty());
    }
    assert!(answer.dropped.iter().all(|dropped| refusal(dropped.address, private).is_some()));
    assert!(answer.aliases.len() <= MAX_HOPS || query_type == Rtype::CNAME.to_int());
    assert!(!answer.records.is_empty() || answer.ttl <= NEGATIVE_TTL);
    let plain = message::ask(7, "wWw.ExAmPlE", query_type, true).expect("a name");
    let Incoming::Question(mut question) = message::read(&plain) else { panic!("no question") };
    // The text of a name is in lower case; a client's need not be.
    assert_eq!(question.name.text(), ASKED);
    let ages = [0, answer.ttl.saturating_sub(1), answer.ttl, u32::MAX];
    let age = ages[one_of([0, 1, 2, 3], fuzzed)];
    for edns in [None, Some(Edns { udp_size: 600, dnssec_ok: true })] {
        question.edns = edns;
        let small = one_of([0, 12, 29, 40, reply::udp_limit(&question)], fuzzed);
        for limit in [small, reply::TCP_LIMIT] {
            let bytes = reply::answer(&question, answer, CAP, age, limit);
            check_head(&question, &bytes, limit);
            check_reply(answer, &bytes, age, terms.keep_ech);
        }
    }
}

/// A reply is a whole message, answers this question and keeps within the limit.
fn check_head(question: &Question, bytes: &[u8], limit: usize) {
    assert!(bytes.len() <= limit.max(message::HEADER), "{} of {limit}", bytes.len());
    let read = Message::from_slice(bytes).expect("a message");
    let header = read.header();
    assert!(header.qr() && header.ra() && !header.aa() && !header.ad() && !header.z());
    assert_eq!((header.id(), header.opcode()), (question.id, Opcode::QUERY));
    assert_eq!(header.rd(), question.recursion_desired);
    match read.sole_question() {
        Ok(echo) => {
            assert_eq!(echo.qname().to_vec().as_slice(), question.name.wire());
            assert_eq!(
                (echo.qtype().to_int(), echo.qclass().to_int()),
                (question.query_type, question.class)
            );
            assert!(question.edns.is_none() || limit < 512 || read.opt().is_some());
        }
        Err(_) => assert!(header.tc() && limit < message::HEADER + question.name.wire().len() + 4 + 11),
    }
    assert!(question.edns.is_some() || read.opt().is_none());
    whole(read);
}

/// Every record can be read.
fn whole(message: &Message<[u8]>) {
    assert!(message.question().all(|question| question.is_ok()));
    assert!(message.iter().all(|record| record.is_ok()));
}

/// One of a list, by what was fuzzed: to try each every time would be slow.
fn one_of<const N: usize>(list: [usize; N], bytes: &[u8]) -> usize {
    list[bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % N]
}

fn check_reply(answer: &Answer, bytes: &[u8], age: u32, keep_ech: bool) {
    let message = Message::from_slice(bytes).expect("a message");
    let known: BTreeSet<IpAddr> = answer.addresses.iter().map(|(address, _)| *address).collect();
    let mut given = BTreeSet::new();
    for record in message.answer().expect("a section") {
        let record = record.expect("a record");
        assert!(record.class() == Class::IN && record.ttl().as_secs() <= CAP);
        assert!(record.ttl().as_secs() <= answer.ttl.saturating_sub(age));
        given.extend(address(&record));
        assert_ne!(record.rtype(), Rtype::OPT);
        check_binding(&record, keep_ech);
    }
    assert!(given.is_subset(&known), "{given:?} beyond {known:?}");
    assert!(given == known || message.header().tc(), "{given:?} short of {known:?}");
    for record in message.authority().expect("a section") {
        let record = record.expect("a record").into_record::<Soa<ParsedName<&[u8]>>>();
        let record = record.expect("readable").expect("a SOA record");
        assert!(known.is_empty() && record.data().minimum().as_secs() <= NEGATIVE_TTL);
        let asked: Name<Vec<u8>> =
            message::wire(answer.aliases.last().map_or(ASKED, String::as_str)).expect("a name");
        assert!(asked.ends_with(record.owner()));
    }
    let additional = message.additional().expect("a section");
    assert!(additional.into_iter().all(|record| record.expect("a record").rtype() == Rtype::OPT));
}

fn address(record: &ParsedRecord<'_, [u8]>) -> Option<IpAddr> {
    match record.rtype() {
        Rtype::A => Some(record.to_record::<A>().expect("readable")?.data().addr().into()),
        Rtype::AAAA => Some(record.to_record::<Aaaa>().expect("readable")?.data().addr().into()),
        _ => None,
    }
}

fn check_binding(record: &ParsedRecord<'_, [u8]>, keep_ech: bool) {
    let check = |key: SvcParamKey| {
        assert!(![SvcParamKey::IPV4HINT, SvcParamKey::IPV6HINT].contains(&key));
        assert!(keep_ech || key != SvcParamKey::ECH);
    };
    let keys: Vec<SvcParamKey> = match record.rtype() {
        Rtype::HTTPS => {
            let record =
                record.to_record::<Https<&[u8], ParsedName<&[u8]>>>().expect("readable").expect("HTTPS");
            record
                .data()
                .params()
                .iter::<UnknownSvcParam<_>>()
                .map(|param| param.expect("one").key())
                .collect()
        }
        Rtype::SVCB => {
            let record =
                record.to_record::<Svcb<&[u8], ParsedName<&[u8]>>>().expect("readable").expect("SVCB");
            record
                .data()
                .params()
                .iter::<UnknownSvcParam<_>>()
                .map(|param| param.expect("one").key())
                .collect()
        }
        _ => Vec::new(),
    };
    keys.into_iter().for_each(check);
}
