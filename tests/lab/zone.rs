//! What the lab's DNS server knows, read from lines of text.
//!
//! `NAME TTL TYPE DATA` is a record; `NAME TTL POOL FIRST COUNT EACH` gives the next EACH of COUNT addresses with every
//! answer; `NAME ! WORD …` is a way to behave: `delay MS`, `truncate` (over UDP), `fail RCODE`, `silent`.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use crate::message::{self, name_bytes, type_number};

const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// Names, their records and their ways.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    names: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    records: Vec<(u16, u32, Vec<u8>)>,
    pool: Option<Pool>,
    way: Way,
}

#[derive(Clone, Debug)]
struct Pool {
    ttl: u32,
    first: u128,
    count: u128,
    each: u128,
    next: u128,
}

/// How a name behaves.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Way {
    /// How long an answer takes.
    pub delay: Duration,
    /// Answered over TCP only.
    pub truncate: bool,
    /// A response code without records.
    pub fail: u8,
    /// Never answered.
    pub silent: bool,
}

impl Zone {
    /// Reads a zone.
    ///
    /// # Panics
    /// At a line that is not understood.
    pub fn read(text: &str) -> Self {
        let mut zone = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            zone.line(line).unwrap_or_else(|| panic!("a line of the lab's zone is not understood: {line}"));
        }
        zone
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, rest) = words.split_first()?;
        let entry = self.names.entry(name.to_ascii_lowercase()).or_default();
        match rest {
            ["!", "delay", time] => entry.way.delay = Duration::from_millis(time.parse().ok()?),
            ["!", "truncate"] => entry.way.truncate = true,
            ["!", "fail", rcode] => entry.way.fail = rcode.parse().ok()?,
            ["!", "silent"] => entry.way.silent = true,
            [ttl, "POOL", first, count, each] => {
                let first: Ipv6Addr = first.parse().ok()?;
                let (ttl, count, each) = (ttl.parse().ok()?, count.parse().ok()?, each.parse().ok()?);
                entry.pool = Some(Pool { ttl, first: first.into(), count, each, next: 0 });
            }
            [ttl, kind, data @ ..] => {
                entry.records.push((type_number(kind)?, ttl.parse().ok()?, data_bytes(kind, data)?));
            }
            _ => return None,
        }
        Some(())
    }

    /// How the name behaves.
    pub fn way(&self, name: &str) -> Way {
        self.names.get(&name.to_ascii_lowercase()).map(|entry| entry.way).unwrap_or_default()
    }

    /// The reply to a question, aliases followed.
    pub fn answer(&mut self, bytes: &[u8], question: &message::Question, tcp: bool) -> Vec<u8> {
        let limit =
            if tcp { usize::from(u16::MAX) } else { question.size.map_or(message::SMALL, usize::from) };
        let way = self.way(&question.name);
        if way.fail != 0 || (way.truncate && !tcp) {
            return message::reply(bytes, way.fail, way.fail == 0, &[]);
        }
        let mut owner = question.name.to_ascii_lowercase();
        let (mut answers, mut found) = (Vec::new(), false);
        while let Some(entry) = self.names.get_mut(&owner).filter(|_| answers.len() < 100) {
            found = true;
            let mut records =
                entry.pool.as_mut().map(|pool| pool.draw(question.query_type)).unwrap_or_default();
            let asked =
                |record: &&(u16, u32, Vec<u8>)| record.0 == question.query_type || question.query_type == 255;
            records.extend(entry.records.iter().filter(asked).cloned());
            let alias = entry.records.iter().find(|record| record.0 == CNAME).cloned();
            let alias = alias.filter(|_| records.is_empty());
            answers.extend(records.into_iter().chain(alias.clone()).map(|record| (owner.clone(), record)));
            let Some((_, _, target)) = alias else { break };
            owner = labels(&target);
        }
        let of_question = question.name.to_ascii_lowercase();
        let answers: Vec<_> = answers
            .iter()
            .map(|(owner, (kind, ttl, data))| {
                ((*owner != of_question).then_some(owner.as_str()), *kind, *ttl, data.clone())
            })
            .collect();
        let whole = message::reply(bytes, if found { 0 } else { 3 }, false, &answers);
        if whole.len() > limit { message::reply(bytes, 0, true, &[]) } else { whole }
    }
}

impl Pool {
    fn draw(&mut self, query_type: u16) -> Vec<(u16, u32, Vec<u8>)> {
        if query_type != AAAA {
            return Vec::new();
        }
        let numbers = self.next..self.next + self.each;
        self.next = (self.next + self.each) % self.count;
        let address = |number: u128| (self.first + number % self.count).to_be_bytes().to_vec();
        numbers.map(|number| (AAAA, self.ttl, address(number))).collect()
    }
}

fn labels(name: &[u8]) -> String {
    let (mut text, mut at) = (Vec::new(), 0);
    while let Some(length) = name.get(at).copied().map(usize::from).filter(|length| *length > 0) {
        text.push(String::from_utf8_lossy(&name[at + 1..at + 1 + length]).to_ascii_lowercase());
        at += 1 + length;
    }
    text.join(".")
}

fn data_bytes(kind: &str, words: &[&str]) -> Option<Vec<u8>> {
    Some(match (kind, words) {
        ("A", [address]) => address.parse::<Ipv4Addr>().ok()?.octets().to_vec(),
        ("AAAA", [address]) => address.parse::<Ipv6Addr>().ok()?.octets().to_vec(),
        ("CNAME" | "PTR" | "NS", [name]) => name_bytes(name),
        ("MX", [preference, name]) => {
            [preference.parse::<u16>().ok()?.to_be_bytes().to_vec(), name_bytes(name)].concat()
        }
        ("TXT", words) => {
            let text = words.join(" ");
            [vec![u8::try_from(text.len()).ok()?], text.into_bytes()].concat()
        }
        ("HTTPS" | "SVCB", [priority, target, parameters @ ..]) => {
            let mut bytes = priority.parse::<u16>().ok()?.to_be_bytes().to_vec();
            bytes.extend(name_bytes(target));
            for parameter in parameters {
                let (key, value) = parameter.split_once('=')?;
                let (key, value) = service_parameter(key, value)?;
                bytes.extend(key.to_be_bytes());
                bytes.extend(u16::try_from(value.len()).ok()?.to_be_bytes());
                bytes.extend(value);
            }
            bytes
        }
        _ => return None,
    })
}

/// Key and bytes of a parameter of a service record (RFC 9460 §14.3.2); they must be written in the order of the keys.
fn service_parameter(key: &str, value: &str) -> Option<(u16, Vec<u8>)> {
    Some(match key {
        "alpn" => (1, [vec![u8::try_from(value.len()).ok()?], value.as_bytes().to_vec()].concat()),
        "port" => (3, value.parse::<u16>().ok()?.to_be_bytes().to_vec()),
        "ipv4hint" => (4, value.parse::<Ipv4Addr>().ok()?.octets().to_vec()),
        "ech" => (5, value.as_bytes().to_vec()),
        "ipv6hint" => (6, value.parse::<Ipv6Addr>().ok()?.octets().to_vec()),
        _ => return None,
    })
}
