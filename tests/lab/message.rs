//! DNS messages as the lab reads and writes them, bytes in and bytes out (RFC 1035 §4).
//!
//! Written without the library that `egress` uses: a fault of that library shows here.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
};

/// Longest message over UDP without EDNS.
pub const SMALL: usize = 512;

const HEADER: usize = 12;
const OPT: u16 = 41;
const EXTENDED_ERROR: u16 = 15;
const TYPES: [(&str, u16); 15] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("NULL", 10),
    ("PTR", 12),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("SVCB", 64),
    ("HTTPS", 65),
    ("AXFR", 252),
    ("ANY", 255),
    ("URI", 256),
];

/// A question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Question {
    /// Id of the message.
    pub id: u16,
    /// The name as it came, labels joined by dots.
    pub name: String,
    /// Query type.
    pub query_type: u16,
    /// Most bytes that the asker takes over UDP, if it said so.
    pub size: Option<u16>,
    /// Codes of the EDNS options it came with.
    pub options: Vec<u16>,
}

/// A record of a reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Its owner, as it came.
    pub name: String,
    /// Its type.
    pub record_type: u16,
    /// Seconds it may be kept.
    pub ttl: u32,
    /// Its data: an address, a name, or hexadecimal.
    pub data: String,
}

/// A reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    /// The question it repeats.
    pub question: Question,
    /// Response code.
    pub rcode: u8,
    /// Whether it is cut off.
    pub truncated: bool,
    /// Its answers.
    pub answers: Vec<Record>,
    /// Extended DNS error (RFC 8914): code and text.
    pub extended: Option<(u16, String)>,
}

/// Number of a type; `TYPE123` for those without a word here.
pub fn type_number(word: &str) -> Option<u16> {
    let known = TYPES.iter().find(|(known, _)| *known == word).map(|(_, number)| *number);
    known.or_else(|| word.strip_prefix("TYPE")?.parse().ok())
}

/// Word of a type.
pub fn type_word(number: u16) -> String {
    let known = TYPES.iter().find(|(_, known)| *known == number);
    known.map_or_else(|| format!("TYPE{number}"), |(word, _)| (*word).to_owned())
}

/// Word of a response code.
pub const fn rcode_word(rcode: u8) -> &'static str {
    match rcode {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        _ => "OTHER",
    }
}

/// A name on the wire.
///
/// # Panics
/// If a label is longer than 63 bytes.
pub fn name_bytes(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        assert!(label.len() < 64, "the label {label} is too long for a name");
        bytes.push(u8::try_from(label.len()).expect("a short label"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// A question, recursion desired, with EDNS.
pub fn question(id: u16, name: &str, query_type: u16) -> Vec<u8> {
    let mut bytes = [id.to_be_bytes(), [1, 0], [0, 1], [0, 0], [0, 0], [0, 1]].concat();
    bytes.extend(name_bytes(name));
    bytes.extend([query_type.to_be_bytes(), [0, 1]].concat());
    // The root's OPT record: 1232 bytes, no options.
    bytes.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    bytes
}

/// The reply to `question` with this response code and these answers, each type, TTL, data and, unless it is the
/// question's, owner.
pub fn reply(
    question: &[u8],
    rcode: u8,
    truncated: bool,
    answers: &[(Option<&str>, u16, u32, Vec<u8>)],
) -> Vec<u8> {
    let end = Reader { bytes: question, at: HEADER }.after_question().unwrap_or(HEADER);
    let mut bytes = question[..end].to_vec();
    bytes[2] = 0x81 | u8::from(truncated) << 1;
    bytes[3] = 0x80 | rcode;
    let count = u16::try_from(answers.len()).unwrap_or(u16::MAX);
    bytes[4..HEADER]
        .copy_from_slice(&[[0, u8::from(end > HEADER)], count.to_be_bytes(), [0; 2], [0; 2]].concat());
    for (owner, record_type, ttl, data) in answers {
        match owner {
            Some(owner) => bytes.extend(name_bytes(owner)),
            None => bytes.extend([0xc0, 12]),
        }
        bytes.extend([record_type.to_be_bytes(), [0, 1]].concat());
        bytes.extend(ttl.to_be_bytes());
        bytes.extend(u16::try_from(data.len()).expect("short data").to_be_bytes());
        bytes.extend(data);
    }
    bytes
}

/// Reads a question; `None` if it is none.
pub fn read_question(bytes: &[u8]) -> Option<Question> {
    let (question, ..) = read(bytes)?;
    (bytes[2] & 0x80 == 0).then_some(question)
}

/// Reads a reply; `None` if it is none.
pub fn read_reply(bytes: &[u8]) -> Option<Reply> {
    let (question, answers, extended) = read(bytes)?;
    let (rcode, truncated) = (bytes[3] & 15, bytes[2] & 2 != 0);
    (bytes[2] & 0x80 != 0).then_some(Reply { question, rcode, truncated, answers, extended })
}

type Parts = (Question, Vec<Record>, Option<(u16, String)>);

fn read(bytes: &[u8]) -> Option<Parts> {
    let mut reader = Reader { bytes, at: 0 };
    let id = reader.number()?;
    reader.number()?;
    let questions = reader.number()?;
    let counts = [reader.number()?, reader.number()?, reader.number()?];
    let (name, query_type) =
        if questions == 0 { (String::new(), 0) } else { (reader.name()?, reader.number()?) };
    if questions > 0 {
        reader.number()?;
    }
    let mut question = Question { id, name, query_type, size: None, options: Vec::new() };
    let (mut answers, mut extended) = (Vec::new(), None);
    for (section, count) in counts.into_iter().enumerate() {
        for _ in 0..count {
            let (name, record_type, class) = (reader.name()?, reader.number()?, reader.number()?);
            let ttl = u32::from(reader.number()?) << 16 | u32::from(reader.number()?);
            let length = usize::from(reader.number()?);
            let start = reader.at;
            let data = bytes.get(start..start + length)?;
            if record_type == OPT {
                question.size = Some(class);
                extended = read_options(data, &mut question.options);
            } else if section == 0 {
                let data = reader.data(record_type, data)?;
                answers.push(Record { name, record_type, ttl, data });
            }
            reader.at = start + length;
        }
    }
    Some((question, answers, extended))
}

fn read_options(mut data: &[u8], codes: &mut Vec<u16>) -> Option<(u16, String)> {
    let mut extended = None;
    while let Some((head, rest)) = data.split_at_checked(4) {
        let code = u16::from_be_bytes([head[0], head[1]]);
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([head[2], head[3]])))?;
        codes.push(code);
        if code == EXTENDED_ERROR && value.len() >= 2 {
            let text = String::from_utf8_lossy(&value[2..]).into_owned();
            extended = Some((u16::from_be_bytes([value[0], value[1]]), text));
        }
        data = rest;
    }
    extended
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn number(&mut self) -> Option<u16> {
        let pair = self.bytes.get(self.at..self.at + 2)?;
        self.at += 2;
        Some(u16::from_be_bytes([pair[0], pair[1]]))
    }

    /// A name, its pointers followed at most this often.
    fn name(&mut self) -> Option<String> {
        let (mut labels, mut at, mut after) = (Vec::new(), self.at, None);
        for _ in 0..200 {
            let length = *self.bytes.get(at)?;
            if length >= 0xc0 {
                after.get_or_insert(at + 2);
                at = usize::from(length & 0x3f) << 8 | usize::from(*self.bytes.get(at + 1)?);
            } else if length == 0 {
                self.at = after.unwrap_or(at + 1);
                return Some(labels.join("."));
            } else {
                let end = at + 1 + usize::from(length);
                labels.push(String::from_utf8_lossy(self.bytes.get(at + 1..end)?).into_owned());
                at = end;
            }
        }
        None
    }

    fn after_question(mut self) -> Option<usize> {
        self.name()?;
        (self.at + 4 <= self.bytes.len()).then_some(self.at + 4)
    }

    fn data(&mut self, record_type: u16, data: &[u8]) -> Option<String> {
        Some(match (type_word(record_type).as_str(), data.len()) {
            ("A", 4) => Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).to_string(),
            ("AAAA", 16) => Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).to_string(),
            ("CNAME" | "PTR" | "NS", _) => self.name()?,
            ("TXT", 1..) => String::from_utf8_lossy(&data[1..]).into_owned(),
            _ => data.iter().fold(String::new(), |mut text, byte| {
                let _infallible = write!(text, "{byte:02x}");
                text
            }),
        })
    }
}
