//! Question and answer to client bytes: built anew, within the client's limit, with the client's spelling of the name.

use domain::{
    base::{
        Header, MessageBuilder, Name, Rtype, Serial, StaticCompressor, Ttl,
        header::HeaderSection,
        iana::{Class, OptRcode, OptionCode},
        message_builder::{AdditionalBuilder, AnswerBuilder, PushError},
    },
    dep::octseq::OctetsBuilder,
    rdata::{A, Aaaa, Cname, Soa},
};

use super::{
    answer::{Answer, Data},
    message::{EDNS_SIZE, NXDOMAIN, Question, REFUSED, SERVFAIL},
    told::DnsReason,
};
use crate::policy::Refusal;

/// Longest message over TCP (RFC 1035 §4.2.2).
pub const TCP_LIMIT: usize = 65_535;

/// Longest message over UDP to a client without EDNS (RFC 1035 §4.2.1).
const PLAIN_LIMIT: u16 = 512;

/// The highest response code that the header alone can carry.
const HEADER_CODES: u16 = 15;

type Target = StaticCompressor<Vec<u8>>;

/// Longest message that the client takes over UDP: 512 without EDNS, else what it says, but at most 1,232.
pub fn udp_limit(question: &Question) -> usize {
    let limit = question.edns.map_or(PLAIN_LIMIT, |edns| edns.udp_size.clamp(PLAIN_LIMIT, EDNS_SIZE));
    usize::from(limit)
}

/// The reply with an answer. Times to live are what is left after `age` seconds, at most `ttl_cap`; what is longer than
/// `limit` is cut to nothing with the flag TC.
pub fn answer(question: &Question, answer: &Answer, ttl_cap: u32, age: u32, limit: usize) -> Vec<u8> {
    let ttl = Ttl::from_secs(answer.ttl.saturating_sub(age).min(ttl_cap));
    let build = |extended| -> Result<Vec<u8>, PushError> {
        let mut builder = Reply::of(question, answer.rcode, limit).start(Some(question))?;
        records(&mut builder, question, answer, ttl)?;
        let mut builder = builder.authority();
        if let Some(owner) = &answer.negative {
            // Only a help to caches: without room it is left out.
            let _ = builder.push((owner, Class::IN, ttl, soa(owner, ttl)));
        }
        finish(builder.additional(), question, extended)
    };
    let extended = extended_error(answer.reason);
    build(extended).or_else(|_| build(None)).unwrap_or_else(|_| cut(question, answer.rcode, limit))
}

/// The reply without an answer, with an extended error (RFC 8914) if the client has EDNS.
pub fn refusal(question: &Question, rcode: u16, extended: Option<(u16, &str)>, limit: usize) -> Vec<u8> {
    let build = |extended| -> Result<Vec<u8>, PushError> {
        let builder = Reply::of(question, rcode, limit).start(Some(question))?;
        finish(builder.additional(), question, extended)
    };
    build(extended).or_else(|_| build(None)).unwrap_or_else(|_| bare(&Reply::of(question, rcode, limit)))
}

/// Response code for a refusal.
pub fn refusal_code(reason: DnsReason, setting: Refusal) -> u16 {
    match reason {
        DnsReason::Type | DnsReason::Class | DnsReason::NoListener => REFUSED,
        DnsReason::NoPermit | DnsReason::Upstream => SERVFAIL,
        DnsReason::Search => NXDOMAIN,
        _ => match setting {
            Refusal::NxDomain => NXDOMAIN,
            Refusal::Refused => REFUSED,
        },
    }
}

/// Extended error (RFC 8914 §4) for a reason; `None` for what is answered.
pub fn extended_error(reason: DnsReason) -> Option<(u16, &'static str)> {
    const OTHER: u16 = 0;
    const BLOCKED: u16 = 15;
    const PROHIBITED: u16 = 18;
    const NO_REACHABLE_AUTHORITY: u16 = 22;
    Some(match reason {
        DnsReason::NotListed | DnsReason::Search => (BLOCKED, "blocked by egress policy: name not listed"),
        DnsReason::DenyRule => (BLOCKED, "blocked by egress policy: deny rule"),
        DnsReason::Type => (BLOCKED, "blocked by egress policy: query type not listed"),
        DnsReason::Class => (BLOCKED, "blocked by egress policy: class other than IN"),
        DnsReason::LabelBound => (BLOCKED, "blocked by egress policy: label longer than dns.wildcard.label"),
        DnsReason::NameBound => (BLOCKED, "blocked by egress policy: name longer than dns.wildcard.name"),
        DnsReason::RateBound => (
            BLOCKED,
            "blocked by egress policy: more new names or questions than dns.wildcard.new-names allows",
        ),
        DnsReason::Rebinding => (BLOCKED, "blocked by egress policy: private or special address"),
        DnsReason::NoListener => {
            (PROHIBITED, "blocked by egress policy: no listener in this network namespace")
        }
        DnsReason::NoPermit => (OTHER, "egress: the address could not be opened"),
        DnsReason::Upstream => (NO_REACHABLE_AUTHORITY, "egress: no name server answered"),
        DnsReason::Listed | DnsReason::Local | DnsReason::Malformed => return None,
    })
}

/// An error for a message that is no plain question.
pub(super) fn error(asked: Header, question: Option<&Question>, rcode: u16, edns: bool) -> Vec<u8> {
    let reply = Reply { asked, rcode, limit: usize::from(PLAIN_LIMIT) };
    let build = || -> Result<Vec<u8>, PushError> {
        let mut builder = reply.start(question)?.additional();
        if edns {
            opt(&mut builder, rcode, false, None)?;
        }
        Ok(builder.finish().into_target())
    };
    build().unwrap_or_else(|_| bare(&reply))
}

/// What the head of a reply is made from.
struct Reply {
    asked: Header,
    rcode: u16,
    limit: usize,
}

impl Reply {
    fn of(question: &Question, rcode: u16, limit: usize) -> Self {
        let mut asked = Header::new();
        asked.set_id(question.id);
        asked.set_rd(question.recursion_desired);
        asked.set_cd(question.checking_disabled);
        Self { asked, rcode, limit }
    }

    fn header(&self) -> Header {
        let mut header = Header::new();
        header.set_id(self.asked.id());
        header.set_opcode(self.asked.opcode());
        header.set_rd(self.asked.rd());
        header.set_cd(self.asked.cd());
        header.set_qr(true);
        header.set_ra(true);
        header.set_rcode(OptRcode::masked_from_int(self.rcode).rcode());
        header
    }

    /// Header and question, within the limit from here on.
    fn start(&self, question: Option<&Question>) -> Result<AnswerBuilder<Target>, PushError> {
        let target = StaticCompressor::new(Vec::with_capacity(usize::from(PLAIN_LIMIT)));
        let mut builder = MessageBuilder::from_target(target).map_err(|_| PushError::ShortBuf)?;
        *builder.header_mut() = self.header();
        // The library's limit is the first length that is too long.
        builder.set_push_limit(self.limit.saturating_add(1));
        let mut builder = builder.question();
        if let Some(Question { name, query_type, class, .. }) = question {
            builder.push((name.name(), Rtype::from_int(*query_type), Class::from_int(*class)))?;
        }
        Ok(builder.answer())
    }
}

fn records(
    builder: &mut AnswerBuilder<Target>,
    question: &Question,
    answer: &Answer,
    ttl: Ttl,
) -> Result<(), PushError> {
    let mut owner: &Name<[u8]> = question.name.name().for_slice();
    for target in &answer.chain {
        builder.push((owner, Class::IN, ttl, Cname::new(target)))?;
        owner = target.for_slice();
    }
    for data in &answer.records {
        match data {
            Data::V4(address) => builder.push((owner, Class::IN, ttl, A::new(*address)))?,
            Data::V6(address) => builder.push((owner, Class::IN, ttl, Aaaa::new(*address)))?,
            Data::Other(data) => builder.push((owner, Class::IN, ttl, data.as_ref()))?,
        }
    }
    Ok(())
}

/// Says how long a negative answer may be kept, and nothing of what the server's own record says.
fn soa<N: Clone>(owner: N, ttl: Ttl) -> Soa<N> {
    Soa::new(owner.clone(), owner, Serial::from(1), ttl, ttl, ttl, ttl)
}

/// Adds EDNS if the client has it.
fn finish(
    mut builder: AdditionalBuilder<Target>,
    question: &Question,
    extended: Option<(u16, &str)>,
) -> Result<Vec<u8>, PushError> {
    if let Some(edns) = question.edns {
        opt(&mut builder, 0, edns.dnssec_ok, extended)?;
    }
    Ok(builder.finish().into_target())
}

fn opt(
    builder: &mut AdditionalBuilder<Target>,
    rcode: u16,
    dnssec_ok: bool,
    extended: Option<(u16, &str)>,
) -> Result<(), PushError> {
    builder.opt(|opt| {
        opt.set_udp_payload_size(EDNS_SIZE);
        opt.set_dnssec_ok(dnssec_ok);
        if rcode > HEADER_CODES {
            opt.set_rcode(OptRcode::masked_from_int(rcode));
        }
        let Some((code, text)) = extended else { return Ok(()) };
        let length = u16::try_from(text.len() + 2).unwrap_or(u16::MAX);
        opt.push_raw_option(OptionCode::EXTENDED_ERROR, length, |target| {
            target.append_slice(&code.to_be_bytes())?;
            target.append_slice(text.as_bytes())
        })
    })
}

/// The reply that tells the client to ask again over TCP.
fn cut(question: &Question, rcode: u16, limit: usize) -> Vec<u8> {
    let reply = Reply::of(question, rcode, limit);
    let build = || -> Result<Vec<u8>, PushError> {
        let mut builder = reply.start(Some(question))?;
        builder.header_mut().set_tc(true);
        finish(builder.additional(), question, None)
    };
    build().unwrap_or_else(|_| bare(&reply))
}

/// A header alone, cut: for a limit that not even the question fits in.
fn bare(reply: &Reply) -> Vec<u8> {
    let mut section = HeaderSection::default();
    *section.header_mut() = reply.header();
    section.header_mut().set_tc(true);
    section.as_slice().to_vec()
}
