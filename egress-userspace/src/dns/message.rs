//! Client bytes to a question, and the question that goes upstream. Nothing of a client's bytes passes into the latter
//! but the name, in lower case.

use std::fmt::Write;

use domain::base::{
    Message, MessageBuilder, Name, ParsedName, Rtype,
    iana::{Class, Opcode},
    name::{Label, ToLabelIter},
    opt::{Opt, OptRecord},
};
use thiserror::Error;

use super::{reply, told::DnsReason};

/// Size of UDP message that we ask for and give at most: fits every path without fragmentation (the 2020 flag day's
/// value).
pub const EDNS_SIZE: u16 = 1232;

/// Length of a message's header (RFC 1035 §4.1.1).
pub const HEADER: usize = 12;

/// Format error (RFC 6895 §2.3).
pub const FORMERR: u16 = 1;
/// Server failure.
pub const SERVFAIL: u16 = 2;
/// No such name.
pub const NXDOMAIN: u16 = 3;
/// Not implemented.
pub const NOTIMP: u16 = 4;
/// Refused.
pub const REFUSED: u16 = 5;
/// Version of EDNS not known.
pub const BADVERS: u16 = 16;

/// A name as it was asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QName {
    name: Name<Box<[u8]>>,
    text: Box<str>,
}

impl QName {
    /// The name in lower case without the trailing dot; in labels, dots, backslashes and bytes outside printable ASCII as
    /// `\DDD` (RFC 4343 §2.1). Empty for the root.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name in wire form, uncompressed, in the client's case, with the root label.
    pub fn wire(&self) -> &[u8] {
        self.name.as_slice()
    }

    pub(super) fn name(&self) -> &Name<Box<[u8]>> {
        &self.name
    }

    fn read(name: &ParsedName<&[u8]>) -> Option<Self> {
        let mut wire = Vec::with_capacity(usize::from(name.compose_len()));
        for label in name.iter() {
            label.compose(&mut wire).ok()?;
        }
        let name = Name::from_octets(wire.into_boxed_slice()).ok()?;
        let text = text(&name).into_boxed_str();
        Some(Self { name, text })
    }
}

/// A name in the form of [`QName::text`].
pub(super) fn text(name: &impl ToLabelIter) -> String {
    let mut text = String::with_capacity(usize::from(name.compose_len()));
    for label in name.iter_labels().filter(|label| !label.is_root()) {
        if !text.is_empty() {
            text.push('.');
        }
        add_label(&mut text, label);
    }
    text
}

/// What is not plain is escaped, so that no label can pass as two and no name disturb a terminal.
fn add_label(text: &mut String, label: &Label) {
    for &byte in label.as_slice() {
        match byte.to_ascii_lowercase() {
            plain @ b'!'..=b'~' if plain != b'.' && plain != b'\\' => text.push(char::from(plain)),
            // Writing to a string cannot fail.
            other => drop(write!(text, "\\{other:03}")),
        }
    }
}

/// What a client says of its own size and wishes (RFC 6891).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Edns {
    /// Largest UDP message that it takes.
    pub udp_size: u16,
    /// Whether it wants DNSSEC records; it gets none.
    pub dnssec_ok: bool,
}

/// A plain question for one name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Question {
    /// Id of the message.
    pub id: u16,
    /// The name.
    pub name: QName,
    /// Query type as a number.
    pub query_type: u16,
    /// Query class as a number.
    pub class: u16,
    /// Recursion desired.
    pub recursion_desired: bool,
    /// Checking disabled.
    pub checking_disabled: bool,
    /// The client's EDNS, if it has any.
    pub edns: Option<Edns>,
}

/// What came from a client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Incoming {
    /// A question, to be judged.
    Question(Question),
    /// Something that is answered as it stands.
    Answer {
        /// FORMERR, NOTIMP or BADVERS.
        reply: Vec<u8>,
        /// Response code of the reply.
        rcode: u16,
        /// Why.
        reason: DnsReason,
        /// The name as [`QName::text`], empty if there is none that can be read.
        name: String,
        /// Query type, or 0.
        query_type: u16,
        /// Query class, or 0.
        class: u16,
    },
    /// Less than a header, or a response: an answer to it could start a loop.
    Silence,
}

/// Reads what a client sent.
pub fn read(bytes: &[u8]) -> Incoming {
    let Ok(message) = Message::from_slice(bytes) else { return Incoming::Silence };
    let header = message.header();
    if header.qr() {
        return Incoming::Silence;
    }
    let question = sole_question(message);
    if header.opcode() != Opcode::QUERY {
        return error(message, question, NOTIMP, false);
    }
    let counts = message.header_counts();
    if question.is_none() || counts.ancount() > 0 || counts.nscount() > 0 {
        return error(message, question, FORMERR, false);
    }
    match (question, edns(message)) {
        (Some(mut question), Ok(edns)) => {
            if edns.is_some_and(|(_, version)| version != 0) {
                return error(message, Some(question), BADVERS, true);
            }
            question.edns = edns.map(|(edns, _)| edns);
            Incoming::Question(question)
        }
        (question, _) => error(message, question, FORMERR, false),
    }
}

/// The question of a message that has exactly one, as if it came without EDNS.
fn sole_question(message: &Message<[u8]>) -> Option<Question> {
    let header = message.header();
    let question = message.sole_question().ok()?;
    Some(Question {
        id: header.id(),
        name: QName::read(question.qname())?,
        query_type: question.qtype().to_int(),
        class: question.qclass().to_int(),
        recursion_desired: header.rd(),
        checking_disabled: header.cd(),
        edns: None,
    })
}

/// The EDNS of a question and its version; an error if the additional section cannot be read or has it twice, or under
/// a name (RFC 6891 §6.1.1).
fn edns(message: &Message<[u8]>) -> Result<Option<(Edns, u8)>, ()> {
    let mut found = None;
    for record in message.additional().map_err(drop)? {
        let record = record.map_err(drop)?;
        if record.rtype() != Rtype::OPT {
            continue;
        }
        let record = record.into_record::<Opt<_>>().map_err(drop)?.ok_or(())?;
        if found.is_some() || !record.owner().is_root() {
            return Err(());
        }
        let opt = OptRecord::from(record);
        let edns = Edns { udp_size: opt.udp_payload_size(), dnssec_ok: opt.dnssec_ok() };
        found = Some((edns, opt.version()));
    }
    Ok(found)
}

fn error(message: &Message<[u8]>, question: Option<Question>, rcode: u16, edns: bool) -> Incoming {
    let reply = reply::error(message.header(), question.as_ref(), rcode, edns);
    let (name, query_type, class) = question.map_or_else(Default::default, |question| {
        (question.name.text.into_string(), question.query_type, question.class)
    });
    Incoming::Answer { reply, rcode, reason: DnsReason::Malformed, name, query_type, class }
}

/// A text that is no name in the form of [`QName::text`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{0}` is not a name that DNS can carry")]
pub struct NotAName(pub String);

/// A question to an upstream server, for a name in the form of [`QName::text`].
pub fn ask(id: u16, name: &str, query_type: u16, edns: bool) -> Result<Vec<u8>, NotAName> {
    let wrong = || NotAName(name.to_owned());
    let wire = wire(name).ok_or_else(wrong)?;
    let build = || -> Option<Vec<u8>> {
        let mut builder = MessageBuilder::from_target(Vec::with_capacity(wire.len() + 32)).ok()?;
        builder.header_mut().set_id(id);
        builder.header_mut().set_rd(true);
        let mut builder = builder.question();
        builder.push((&wire, Rtype::from_int(query_type), Class::IN)).ok()?;
        let mut builder = builder.additional();
        if edns {
            builder
                .opt(|opt| {
                    opt.set_udp_payload_size(EDNS_SIZE);
                    Ok(())
                })
                .ok()?;
        }
        Some(builder.finish())
    };
    build().ok_or_else(wrong)
}

/// A text in the form of [`QName::text`] as a name.
pub(super) fn wire(text: &str) -> Option<Name<Vec<u8>>> {
    if text.is_empty() { Some(Name::root_vec()) } else { Name::vec_from_str(text).ok() }
}
