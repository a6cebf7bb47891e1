//! Messages as text and back. Written by hand, and not with the library under test, so that a fault of the library shows.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
};

const TYPES: [(&str, u16); 24] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("NULL", 10),
    ("PTR", 12),
    ("HINFO", 13),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("NAPTR", 35),
    ("DNAME", 39),
    ("OPT", 41),
    ("DS", 43),
    ("RRSIG", 46),
    ("TLSA", 52),
    ("SVCB", 64),
    ("HTTPS", 65),
    ("TSIG", 250),
    ("IXFR", 251),
    ("AXFR", 252),
    ("ANY", 255),
    ("CAA", 257),
];

const CODES: [(&str, u16); 8] = [
    ("NOERROR", 0),
    ("FORMERR", 1),
    ("SERVFAIL", 2),
    ("NXDOMAIN", 3),
    ("NOTIMP", 4),
    ("REFUSED", 5),
    ("YXDOMAIN", 6),
    ("BADVERS", 16),
];

/// Number of a type, by name or as `TYPE65280`.
pub(crate) fn type_number(name: &str) -> u16 {
    let known = TYPES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    known.or_else(|| name.strip_prefix("TYPE")?.parse().ok()).unwrap_or_else(|| panic!("type {name}"))
}

pub(crate) fn type_name(number: u16) -> String {
    let known = TYPES.iter().find(|(_, known)| *known == number);
    known.map_or_else(|| format!("TYPE{number}"), |(name, _)| (*name).to_owned())
}

pub(crate) fn code_number(name: &str) -> Option<u16> {
    CODES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

pub(crate) fn code_name(number: u16) -> String {
    let known = CODES.iter().find(|(_, known)| *known == number);
    known.map_or_else(|| format!("CODE{number}"), |(name, _)| (*name).to_owned())
}

/// A name in wire form; `\DDD` is a byte, a single dot the root.
pub(crate) fn name(text: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in text.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        let mut bytes = Vec::new();
        let mut rest = label;
        while let Some(first) = rest.chars().next() {
            if let Some(escape) = rest.strip_prefix('\\') {
                bytes.push(escape[..3].parse().unwrap());
                rest = &escape[3..];
            } else {
                bytes.push(u8::try_from(first).unwrap());
                rest = &rest[1..];
            }
        }
        wire.push(u8::try_from(bytes.len()).unwrap());
        wire.extend(bytes);
    }
    wire.push(0);
    wire
}

/// A message under construction.
#[derive(Default)]
pub(crate) struct Message {
    pub(crate) id: u16,
    /// The second word of the header.
    pub(crate) flags: u16,
    /// Questions, answers, authority, additional; each record in wire form.
    pub(crate) sections: [Vec<Vec<u8>>; 4],
    /// Overrides of the counts.
    pub(crate) counts: [Option<u16>; 4],
}

impl Message {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.id.to_be_bytes(), self.flags.to_be_bytes()].concat();
        for (section, count) in self.sections.iter().zip(self.counts) {
            let count = count.unwrap_or_else(|| u16::try_from(section.len()).unwrap());
            bytes.extend(count.to_be_bytes());
        }
        bytes.extend(self.sections.iter().flatten().flatten());
        bytes
    }
}

/// A question in wire form.
pub(crate) fn question(owner: &str, kind: u16, class: u16) -> Vec<u8> {
    [name(owner), kind.to_be_bytes().to_vec(), class.to_be_bytes().to_vec()].concat()
}

/// A record in wire form.
pub(crate) fn record(owner: &str, kind: u16, class: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    [&question(owner, kind, class)[..], &ttl.to_be_bytes(), &length, data].concat()
}

/// A record from text: `owner ttl TYPE data…`. `{1..30}` in it stands for so many records.
pub(crate) fn records(text: &str) -> Vec<Vec<u8>> {
    if let Some((front, rest)) = text.split_once('{') {
        let (range, back) = rest.split_once('}').unwrap();
        let (first, last) = range.split_once("..").unwrap();
        let range = first.parse::<u32>().unwrap()..=last.parse().unwrap();
        return range.flat_map(|n| records(&format!("{front}{n}{back}"))).collect();
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let [owner, ttl, kind, data @ ..] = words.as_slice() else { panic!("record {text}") };
    let (kind, class) = match kind.split_once('/') {
        Some((kind, class)) => (kind, class.parse().unwrap()),
        None => (*kind, 1),
    };
    vec![record(owner, type_number(kind), class, ttl.parse().unwrap(), &data_of(kind, data))]
}

fn data_of(kind: &str, words: &[&str]) -> Vec<u8> {
    let number = |word: &str| word.parse::<u16>().unwrap().to_be_bytes().to_vec();
    if let [hex] = words
        && let Some(hex) = hex.strip_prefix("\\#")
    {
        return (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
    }
    match (kind, words) {
        ("A", [address]) => address.parse::<Ipv4Addr>().unwrap().octets().to_vec(),
        ("AAAA", [address]) => address.parse::<Ipv6Addr>().unwrap().octets().to_vec(),
        ("CNAME" | "NS" | "PTR" | "DNAME", [target]) => name(target),
        ("MX", [preference, target]) => [number(preference), name(target)].concat(),
        ("SRV", [priority, weight, port, target]) => {
            [number(priority), number(weight), number(port), name(target)].concat()
        }
        ("TXT", texts) => {
            let text = |text: &&str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
            texts.iter().flat_map(text).collect()
        }
        ("SOA", [minimum]) => {
            let numbers = [1, 2, 3, 4, minimum.parse::<u32>().unwrap()];
            let numbers = numbers.into_iter().flat_map(u32::to_be_bytes).collect();
            [name("ns.secret.example"), name("root.secret.example"), numbers].concat()
        }
        ("HTTPS" | "SVCB", [priority, target, params @ ..]) => {
            let param = |param: &&str| {
                let (key, hex) = param.split_once('=').unwrap();
                let value = data_of("", &[&format!("\\#{hex}")]);
                [number(key), number(&value.len().to_string()), value].concat()
            };
            [number(priority), name(target), params.iter().flat_map(param).collect()].concat()
        }
        _ => panic!("data {kind} {words:?}"),
    }
}

/// A message read back.
pub(crate) struct Shown {
    pub(crate) id: u16,
    pub(crate) response: bool,
    /// The questions in wire form.
    pub(crate) questions: Vec<Vec<u8>>,
    /// Everything else.
    pub(crate) text: String,
}

/// Reads a message; panics if it is not exactly one.
pub(crate) fn show(bytes: &[u8]) -> Shown {
    let mut reader = Reader { bytes, at: 12 };
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let flags = word(2);
    let mut questions = Vec::new();
    for _ in 0..word(4) {
        let owner = reader.name();
        questions.push(question(&owner, reader.word(), reader.word()));
    }
    let mut code = flags & 15;
    let mut texts = Vec::new();
    for (section, mark) in [(6, ""), (8, "auth: "), (10, "add: ")] {
        for _ in 0..word(section) {
            let (text, high) = reader.record();
            code |= high << 4;
            let mark = if text.starts_with("edns") { "" } else { mark };
            texts.push(format!("{mark}{text}"));
        }
    }
    assert_eq!(reader.at, bytes.len(), "bytes behind the message");
    let mut text = code_name(code);
    for (bit, shown) in [(0x400, " aa"), (0x200, " tc"), (0x20, " ad"), (0x10, " cd"), (0x40, " z")] {
        text += if flags & bit != 0 { shown } else { "" };
    }
    text += if flags & 0x100 == 0 { " !rd" } else { "" };
    text += if flags & 0x80 == 0 { " !ra" } else { "" };
    text += &match flags >> 11 & 15 {
        0 => String::new(),
        opcode => format!(" opcode={opcode}"),
    };
    for record in texts {
        write!(text, " | {record}").unwrap();
    }
    Shown { id: word(0), response: flags & 0x8000 != 0, questions, text }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, length: usize) -> &[u8] {
        self.at += length;
        &self.bytes[self.at - length..self.at]
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn name(&mut self) -> String {
        let (text, end) = self.name_at(self.at, 0);
        self.at = end;
        if text.is_empty() { ".".to_owned() } else { text }
    }

    /// A name and the offset behind it.
    fn name_at(&self, mut at: usize, depth: u32) -> (String, usize) {
        assert!(depth < 20, "pointers");
        let mut labels = Vec::new();
        loop {
            let length = usize::from(self.bytes[at]);
            if length >= 0xc0 {
                let to = (length & 0x3f) << 8 | usize::from(self.bytes[at + 1]);
                assert!(to < at, "a pointer forward");
                labels.push(self.name_at(to, depth + 1).0);
                return (labels.join("."), at + 2);
            }
            at += length + 1;
            if length == 0 {
                return (labels.join("."), at);
            }
            let plain = |byte: &u8| match *byte {
                byte @ b'!'..=b'~' if byte != b'.' && byte != b'\\' => char::from(byte).to_string(),
                byte => format!("\\{byte:03}"),
            };
            labels.push(self.bytes[at - length..at].iter().map(plain).collect());
        }
    }

    /// A record as text, and the high bits of the response code.
    fn record(&mut self) -> (String, u16) {
        let owner = self.name();
        let (kind, class) = (self.word(), self.word());
        let ttl = u32::from_be_bytes(self.take(4).try_into().unwrap());
        let end = usize::from(self.word()) + self.at;
        if kind == 41 {
            return (self.edns(class, ttl, end), u16::try_from(ttl >> 24).unwrap());
        }
        assert_eq!(class, 1);
        let data = self.data(kind, end);
        assert_eq!(self.at, end, "data of {owner} {kind}");
        (format!("{owner} {ttl} {} {data}", type_name(kind)), 0)
    }

    fn edns(&mut self, size: u16, ttl: u32, end: usize) -> String {
        let mut text = format!("edns={size}");
        text += if ttl & 0x8000 != 0 { " do" } else { "" };
        assert_eq!(ttl & 0x00ff_7fff, 0, "version and flags");
        while self.at < end {
            let (code, length) = (self.word(), usize::from(self.word()));
            let data = self.take(length).to_vec();
            match code {
                15 => {
                    let code = u16::from_be_bytes([data[0], data[1]]);
                    write!(text, " ede={code}:{}", String::from_utf8(data[2..].to_vec()).unwrap()).unwrap();
                }
                code => write!(text, " option={code}").unwrap(),
            }
        }
        text
    }

    fn data(&mut self, kind: u16, end: usize) -> String {
        match kind {
            1 => Ipv4Addr::from(<[u8; 4]>::try_from(self.take(4)).unwrap()).to_string(),
            28 => Ipv6Addr::from(<[u8; 16]>::try_from(self.take(16)).unwrap()).to_string(),
            2 | 5 | 12 => self.name(),
            6 => {
                let names = format!("{} {}", self.name(), self.name());
                let numbers = self.take(20);
                format!("{names} {}", u32::from_be_bytes(numbers[16..].try_into().unwrap()))
            }
            15 => format!("{} {}", self.word(), self.name()),
            33 => format!("{} {} {} {}", self.word(), self.word(), self.word(), self.name()),
            64 | 65 => {
                let mut text = format!("{} {}", self.word(), self.name());
                while self.at < end {
                    let (key, length) = (self.word(), usize::from(self.word()));
                    write!(text, " {key}={}", hex(self.take(length))).unwrap();
                }
                text
            }
            _ => format!("\\#{}", hex(self.take(end - self.at))),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
