//! What comes of a question: (question, policy, upstream's answer) -> (reply, event, addresses to open), row by row.

mod malformed;
mod rows;
mod wire;

use egress::{
    compile::{Compiled, HostRule, PortRange},
    dns::{
        answer::{Answer, Judged, NEGATIVE_TTL, Terms, judge},
        filter::{Filter, Local, Ruling},
        message::{self, Incoming, Question},
        reply,
        told::DnsReason,
    },
    policy::Refusal,
};
use egress_common::{RuleId, Transport};
use rows::{ROWS, Row};

/// Time to live that a client is given at most, in seconds.
const CAP: u32 = 3600;

/// Id of a client's question, and of the one that is asked upstream.
const IDS: (u16, u16) = (0x1234, 0xbeef);

/// A policy with what stands beside it.
struct Setting {
    compiled: Compiled,
    filter: Filter,
}

impl Setting {
    fn parse(text: &str) -> Self {
        let mut compiled = Compiled::default();
        let (mut search, mut next) = (Vec::new(), 1);
        for words in text.split(';').map(|part| part.split_whitespace().collect::<Vec<_>>()) {
            match words.as_slice() {
                [] => {}
                ["deny", host] => compiled.denied_hosts.push(((*host).to_owned(), rule_id(&mut next))),
                ["types", types] => {
                    compiled.dns.types = types.split(',').map(wire::type_number).collect();
                    compiled.dns.types.sort_unstable();
                }
                ["search", suffix] => search.push((*suffix).to_owned()),
                ["refused"] => compiled.dns.refusal = Refusal::Refused,
                ["ech"] => compiled.dns.keep_ech = true,
                ["audit"] => compiled.audit = true,
                ["new", count] => compiled.dns.wildcard.new_names = count.parse().unwrap(),
                [word @ ("allow" | "private"), host] => compiled.hosts.push(HostRule {
                    id: rule_id(&mut next),
                    host: (*host).to_owned(),
                    ports: vec![PortRange::one(443)],
                    transports: vec![Transport::Tcp],
                    private: *word == "private",
                    own: [].into(),
                }),
                other => panic!("policy {other:?}"),
            }
        }
        let filter = Filter::new(&compiled, search);
        Self { compiled, filter }
    }
}

fn rule_id(next: &mut RuleId) -> RuleId {
    *next += 1;
    *next - 1
}

/// A client's message: `NAME TYPE words…`.
fn question_bytes(text: &str) -> Vec<u8> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [name, kind, words @ ..] = words.as_slice() else { panic!("question {text}") };
    let mut message = wire::Message { id: IDS.0, flags: 0x100, ..Default::default() };
    let mut class = 1;
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let number = || value.parse::<u16>().unwrap();
        let opt = |size: u16, ttl: u32, data: &[u8]| wire::record(".", 41, size, ttl, data);
        match key {
            "class" => class = number(),
            "opcode" => message.flags |= number() << 11,
            "!rd" => message.flags &= !0x100,
            "cd" => message.flags |= 0x10,
            "ad" => message.flags |= 0x20,
            "response" => message.flags |= 0x8000,
            "qd" => message.counts[0] = Some(number()),
            "an" => message.sections[1].extend(wire::records("www.example 60 A 192.0.2.9")),
            "ns" => message.sections[2].extend(wire::records("www.example 60 SOA 9")),
            "edns" => message.sections[3].push(opt(number(), 0, &[])),
            "do" => message.sections[3].push(opt(1232, 0x8000, &[])),
            "version" => message.sections[3].push(opt(1232, u32::from(number()) << 16, &[])),
            // A client subnet of 203.0.113.0/24 and a cookie.
            "options" => {
                let data = [0, 8, 0, 7, 0, 1, 24, 0, 203, 0, 113, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
                message.sections[3].push(opt(1232, 0, &data));
            }
            "namedopt" => message.sections[3].push(wire::record("x", 41, 1232, 0, &[])),
            "badopt" => message.sections[3].push(opt(1232, 0, &[0, 8, 0, 7, 0])),
            "tsig" => message.sections[3].push(wire::record("key", 250, 255, 0, &[0; 20])),
            "tcp" => {}
            other => panic!("word {other}"),
        }
    }
    message.sections[0].push(wire::question(name, wire::type_number(kind), class));
    if message.counts[0] == Some(0) {
        message.sections[0].clear();
    }
    if message.counts[0] == Some(2) {
        let again = message.sections[0][0].clone();
        message.sections[0].push(again);
    }
    message.bytes()
}

/// An upstream's message: `words… | record | auth: record | add: record`, as an answer to what was asked.
fn upstream_bytes(text: &str, asked: &str, kind: u16) -> Vec<u8> {
    let mut message = wire::Message { id: IDS.1, flags: 0x8180, ..Default::default() };
    message.sections[0].push(wire::question(asked, kind, 1));
    let mut parts = text.split('|').map(str::trim);
    for word in parts.next().unwrap_or_default().split_whitespace() {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "tc" => message.flags |= 0x200,
            "ad" => message.flags |= 0x20,
            "aa" => message.flags |= 0x400,
            "query" => message.flags &= !0x8000,
            "opcode" => message.flags |= value.parse::<u16>().unwrap() << 11,
            "id" => message.id = message.id.wrapping_add(1),
            "q" => message.sections[0] = vec![wire::question(value, kind, 1)],
            "type" => message.sections[0] = vec![wire::question(asked, wire::type_number(value), 1)],
            "class" => message.sections[0] = vec![wire::question(asked, kind, value.parse().unwrap())],
            "noq" => message.sections[0].clear(),
            "an" => message.counts[1] = Some(value.parse().unwrap()),
            code => {
                let code = wire::code_number(code).unwrap_or_else(|| panic!("word {word}"));
                message.flags |= code & 15;
                if code > 15 {
                    let ttl = u32::from(code >> 4) << 24;
                    message.sections[3].push(wire::record(".", 41, 1232, ttl, &[]));
                }
            }
        }
    }
    for part in parts {
        let (section, record) = match part.split_once(": ") {
            Some(("auth", record)) => (2, record),
            Some(("add", record)) => (3, record),
            _ => (1, part),
        };
        message.sections[section].extend(wire::records(record));
    }
    message.bytes()
}

/// What became of a question.
struct Outcome {
    reply: String,
    event: String,
}

fn run(setting: &mut Setting, row: &Row) -> Outcome {
    let bytes = question_bytes(row.question);
    let outcome = |reply: &[u8], event: String| {
        let shown = wire::show(reply);
        assert_eq!((shown.id, shown.response), (IDS.0, true), "{}", row.question);
        let length = 12
            + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]) == 1)
                * (wire::question(row.question.split(' ').next().unwrap(), 0, 0).len());
        if shown.questions.len() == 1 {
            assert_eq!(shown.questions[0], &bytes[12..length], "the question as it came: {}", row.question);
        }
        let none = if shown.questions.is_empty() { " (no question)" } else { "" };
        Outcome { reply: shown.text + none, event }
    };
    let question = match message::read(&bytes) {
        Incoming::Silence => return Outcome { reply: "silence".into(), event: String::new() },
        Incoming::Answer { reply, reason, .. } => return outcome(&reply, reason.name().to_owned()),
        Incoming::Question(question) => question,
    };
    let limit = if row.question.contains(" tcp") { reply::TCP_LIMIT } else { reply::udp_limit(&question) };
    let refuse = |reason: DnsReason, event: String| {
        let code = reply::refusal_code(reason, setting.compiled.dns.refusal);
        outcome(&reply::refusal(&question, code, reply::extended_error(reason), limit), event)
    };
    let now = 0;
    match setting.filter.judge(&question, now) {
        Ruling::Local(local) => {
            let answer = match local {
                Local::Localhost => Answer::localhost(question.query_type),
                Local::Pointer(address) => Answer::of_names(&known(&address.to_string()), 60),
            };
            outcome(&reply::answer(&question, &answer, CAP, 0, limit), event(&answer, None, ""))
        }
        Ruling::Refuse { reason, rule } => refuse(reason, told(reason, rule)),
        Ruling::Ask { rules, rule } => {
            let (asked, bytes) = ask(&question, row.upstream);
            let terms = Terms {
                rules: &rules,
                keep_ech: setting.compiled.dns.keep_ech,
                audit: setting.compiled.audit,
            };
            let denied = |name: &str| setting.filter.denied(name);
            let kind = question.query_type;
            match judge(&bytes, IDS.1, question.name.text(), kind, &terms, denied) {
                Judged::Answer(answer) => {
                    let event = event(&answer, Some(rule), &asked);
                    if answer.reason == DnsReason::Listed || setting.compiled.audit {
                        assert!(answer.rcode == 0 || answer.addresses.is_empty());
                        return outcome(&reply::answer(&question, &answer, CAP, 0, limit), event);
                    }
                    refuse(answer.reason, event)
                }
                other => Outcome { reply: format!("{other:?}"), event: format!("asked {asked}") },
            }
        }
    }
}

/// The question as it goes upstream, shown, and what the server says to it.
fn ask(question: &Question, upstream: &str) -> (String, Vec<u8>) {
    let name = question.name.text();
    let asked = message::ask(IDS.1, name, question.query_type, true).unwrap();
    let shown = wire::show(&asked);
    assert_eq!((shown.id, shown.response, shown.questions.len()), (IDS.1, false, 1));
    assert_eq!(shown.text, "NOERROR !ra | edns=1232", "nothing of the client's own");
    assert_eq!(shown.questions[0], wire::question(name, question.query_type, 1));
    (
        format!("{name} {}", wire::type_name(question.query_type)),
        upstream_bytes(upstream, name, question.query_type),
    )
}

/// Names that were given out before.
fn known(address: &str) -> Vec<&'static str> {
    match address {
        "192.0.2.1" => vec!["www.example"],
        "2001:db8::1" => vec!["www.example", "alias.example"],
        _ => Vec::new(),
    }
}

fn told(reason: DnsReason, rule: Option<RuleId>) -> String {
    rule.map_or_else(|| reason.name().to_owned(), |rule| format!("{} by {rule}", reason.name()))
}

fn event(answer: &Answer, rule: Option<RuleId>, asked: &str) -> String {
    let mut parts = vec![told(answer.reason, answer.rule.or(rule))];
    let mut part = |word: &str, list: Vec<String>| {
        if !list.is_empty() {
            parts.push(format!("{word} {}", list.join(" ")));
        }
    };
    part("asked", if asked.is_empty() { Vec::new() } else { vec![asked.to_owned()] });
    part("opens", answer.addresses.iter().map(|(address, ttl)| format!("{address}/{ttl}")).collect());
    part("dropped", answer.dropped.iter().map(|dropped| dropped.address.to_string()).collect());
    part("via", answer.aliases.clone());
    parts.join(", ")
}

#[test]
fn every_row_comes_out_as_written() {
    assert!(ROWS.len() >= 60, "{}", ROWS.len());
    let mut wrong = Vec::new();
    for row in ROWS {
        let mut setting = Setting::parse(row.policy);
        let got = run(&mut setting, row);
        let (reply, opened) = (expand(row.reply, " | "), expand(row.event, " "));
        if got.reply != reply || got.event != opened {
            wrong.push(format!(
                "{}\n  question {}\n  upstream {}\n  reply {:?}\n   want {:?}\n  event {:?}\n   want {:?}",
                row.clause, row.question, row.upstream, got.reply, reply, got.event, opened
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows\n{}", wrong.len(), ROWS.len(), wrong.join("\n"));
}

/// Writes `{1..30}` out: so many times the words around it, up to the separators.
fn expand(text: &str, separator: &str) -> String {
    let parts = text.split(separator).flat_map(|part| {
        let Some((front, rest)) = part.split_once('{') else { return vec![part.to_owned()] };
        let (range, back) = rest.split_once('}').unwrap();
        let (first, last) = range.split_once("..").unwrap();
        let range = first.parse::<u32>().unwrap()..=last.parse().unwrap();
        range.map(|n| format!("{front}{n}{back}")).collect()
    });
    parts.collect::<Vec<_>>().join(separator)
}

#[test]
fn negative_answers_are_short() {
    // The rows say 30.
    assert_eq!(NEGATIVE_TTL, 30);
}
