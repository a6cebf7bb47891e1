//! Upstream bytes to a judged answer: what remains is rebuilt from parsed data, and every address in it is one that the
//! name may have.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use domain::{
    base::{
        Message, Name, ParsedName, ParsedRecord, Rtype, ToName,
        iana::{Class, Opcode},
        name::FlattenInto,
        rdata::ComposeRecordData as _,
    },
    rdata::{A, Aaaa, Cname, Soa, ZoneRecordData},
};
use egress_common::RuleId;

use super::{
    message::{BADVERS, FORMERR, NOTIMP, NXDOMAIN, SERVFAIL, text, wire},
    service_binding,
    special::{refusal, refusal_of_rules},
    told::{DnsReason, Dropped},
};
use crate::compile::HostRule;

/// Most aliases followed from one name.
pub const MAX_HOPS: usize = 16;

/// Most records taken of an answer: far above what names have, far below what would fill the table of permits, or keep us
/// from everything else while thousands wait for it.
pub const MAX_RECORDS: usize = 256;

/// Seconds that a negative answer is good for at most.
pub const NEGATIVE_TTL: u32 = 30;

/// What a message is to the question that was asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Judged {
    /// No answer to this question: another id, another question, or none at all. Go on waiting.
    Foreign,
    /// Cut off: ask again over TCP.
    Truncated,
    /// The server does not understand EDNS: ask again without (a failure if that was done).
    NoEdns,
    /// The server could not or would not answer (its response code), or what it says cannot be read (2).
    Failure(u16),
    /// An answer, positive or negative.
    Answer(Answer),
}

/// Data of a record of the asked type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Data {
    /// Of an A record.
    V4(Ipv4Addr),
    /// Of an AAAA record.
    V6(Ipv6Addr),
    /// Of any other.
    Other(Box<OtherData>),
}

/// Data of a record that carries no address.
pub(super) type OtherData = ZoneRecordData<Vec<u8>, Name<Vec<u8>>>;

/// A judged answer to one question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Response code.
    pub rcode: u16,
    /// The aliases from the name on.
    pub(super) chain: Vec<Name<Vec<u8>>>,
    /// The records at the end of the chain.
    pub(super) records: Vec<Data>,
    /// The zone that says that there is no more, for a negative answer.
    pub(super) negative: Option<Name<Vec<u8>>>,
    /// The addresses in it, each with its time to live in seconds.
    pub addresses: Vec<(IpAddr, u32)>,
    /// The addresses that were taken out, or in audit mode would have been.
    pub dropped: Vec<Dropped>,
    /// The names on the way from the name to the addresses, as [`super::message::QName::text`].
    pub aliases: Vec<String>,
    /// Seconds that it is good for: the smallest of its records; of a negative answer at most [`NEGATIVE_TTL`].
    pub ttl: u32,
    /// `Listed`, `DenyRule`, `Rebinding`, `Upstream` (a loop of aliases) or `Local`.
    pub reason: DnsReason,
    /// The rule that denies it.
    pub rule: Option<RuleId>,
}

impl Answer {
    /// Addresses that we know ourselves, of which those of the asked type are given.
    pub fn of_addresses(query_type: u16, addresses: &[IpAddr], ttl: u32) -> Self {
        let asked = |address: &&IpAddr| match address {
            IpAddr::V4(_) => query_type == Rtype::A.to_int(),
            IpAddr::V6(_) => query_type == Rtype::AAAA.to_int(),
        };
        let addresses: Vec<IpAddr> = addresses.iter().filter(asked).copied().collect();
        Self {
            records: addresses.iter().copied().map(Data::from).collect(),
            addresses: addresses.into_iter().map(|address| (address, ttl)).collect(),
            ..Self::empty(0, DnsReason::Local, ttl)
        }
    }

    /// Names of an address that we know ourselves, as texts; none is NXDOMAIN.
    pub fn of_names(names: &[&str], ttl: u32) -> Self {
        let pointer = |name| Data::Other(Box::new(domain::rdata::Ptr::new(name).into()));
        let records: Vec<Data> = names.iter().filter_map(|name| wire(name)).map(pointer).collect();
        let rcode = if records.is_empty() { NXDOMAIN } else { 0 };
        Self { records, ..Self::empty(rcode, DnsReason::Local, ttl) }
    }

    /// The host itself (RFC 6761 §6.3).
    pub fn localhost(query_type: u16) -> Self {
        let host = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        Self::of_addresses(query_type, &host, LOCALHOST_TTL)
    }

    /// Memory that it takes, roughly and in bytes.
    pub(super) fn size(&self) -> usize {
        let data = |data: &Data| match data {
            Data::V4(_) | Data::V6(_) => 64,
            Data::Other(other) => 256 + other.rdlen(false).map_or(MAX_RDATA, usize::from),
        };
        let names = 2 * self.chain.len() + self.aliases.len() + 1;
        256 + self.records.iter().map(data).sum::<usize>() + 64 * self.dropped.len() + 256 * names
    }

    /// Without any record.
    pub fn empty(rcode: u16, reason: DnsReason, ttl: u32) -> Self {
        Self {
            rcode,
            chain: Vec::new(),
            records: Vec::new(),
            negative: None,
            addresses: Vec::new(),
            dropped: Vec::new(),
            aliases: Vec::new(),
            ttl,
            reason,
            rule: None,
        }
    }
}

impl From<IpAddr> for Data {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => Self::V6(v6),
        }
    }
}

impl Data {
    fn address(&self) -> Option<IpAddr> {
        match self {
            Self::V4(v4) => Some((*v4).into()),
            Self::V6(v6) => Some((*v6).into()),
            Self::Other(_) => None,
        }
    }
}

/// Longest data of a record (RFC 1035 §3.2.1).
const MAX_RDATA: usize = 65_535;

/// Time to live of the host's own addresses, in seconds.
const LOCALHOST_TTL: u32 = 60;

/// Seconds that a negative answer without a SOA record is good for.
const BARE_NEGATIVE_TTL: u32 = 5;

/// What an answer is held against.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The rules that allow the name.
    pub rules: &'a [HostRule],
    /// Keep the keys of encrypted client hello.
    pub keep_ech: bool,
    /// Take nothing out and refuse nothing, but tell what would be.
    pub audit: bool,
}

/// Judges a message as the answer to a question for a name in the form of [`super::message::QName::text`].
/// `denied` tells which rule denies an alias.
pub fn judge(
    bytes: &[u8],
    id: u16,
    name: &str,
    query_type: u16,
    terms: &Terms<'_>,
    denied: impl Fn(&str) -> Option<RuleId>,
) -> Judged {
    let Ok(message) = Message::from_slice(bytes) else { return Judged::Foreign };
    let header = message.header();
    if header.id() != id || !header.qr() || header.opcode() != Opcode::QUERY {
        return Judged::Foreign;
    }
    let rtype = Rtype::from_int(query_type);
    match echoes(message, name, rtype) {
        Some(true) => {}
        // Some servers leave the question out of an error; without one only an error is believed.
        None if header.rcode().to_int() != 0 && header.rcode().to_int() != 3 => {}
        _ => return Judged::Foreign,
    }
    if header.tc() {
        return Judged::Truncated;
    }
    match message.opt_rcode().to_int() {
        0 => {}
        NXDOMAIN => {}
        FORMERR | BADVERS => return Judged::NoEdns,
        NOTIMP if message.opt().is_none() => return Judged::NoEdns,
        rcode => return Judged::Failure(rcode),
    }
    match Reading::of(message, name, rtype, terms, &denied) {
        Ok(reading) => Judged::Answer(reading.judged(message, terms)),
        Err(Unreadable) => Judged::Failure(SERVFAIL),
    }
}

/// Whether a message is about this question; `None` if it has no question at all.
fn echoes(message: &Message<[u8]>, name: &str, rtype: Rtype) -> Option<bool> {
    if message.header_counts().qdcount() == 0 {
        return None;
    }
    Some(message.sole_question().is_ok_and(|question| {
        question.qtype() == rtype && question.qclass() == Class::IN && text(question.qname()) == name
    }))
}

/// What an answer section says that cannot be read.
pub(super) struct Unreadable;

impl<E: std::error::Error> From<E> for Unreadable {
    fn from(_: E) -> Self {
        Self
    }
}

type Parsed<'a> = ParsedRecord<'a, [u8]>;

/// What an answer section says of a name: the way from it, and what lies at the end.
struct Reading {
    chain: Vec<Name<Vec<u8>>>,
    aliases: Vec<String>,
    records: Vec<Data>,
    /// The last name of the way.
    end: Name<Vec<u8>>,
    /// The smallest time to live of what was taken, in seconds.
    ttl: u32,
    /// The rule that denies a name on the way.
    rule: Option<RuleId>,
}

impl Reading {
    fn of(
        message: &Message<[u8]>,
        name: &str,
        rtype: Rtype,
        terms: &Terms<'_>,
        denied: &impl Fn(&str) -> Option<RuleId>,
    ) -> Result<Self, Unreadable> {
        let section: Vec<Parsed<'_>> = message.answer()?.collect::<Result<_, _>>()?;
        let section: Vec<Parsed<'_>> =
            section.into_iter().filter(|record| record.class() == Class::IN).collect();
        let end = wire(name).ok_or(Unreadable)?;
        let (chain, aliases, records) = (Vec::new(), Vec::new(), Vec::new());
        let mut reading = Self { chain, aliases, records, end, ttl: u32::MAX, rule: None };
        if rtype != Rtype::CNAME {
            reading.follow(&section, name)?;
        }
        reading.gather(&section, rtype, terms.keep_ech, denied)?;
        reading.rule = reading.aliases.iter().find_map(|alias| denied(alias));
        Ok(reading)
    }

    /// Follows the aliases from a name, in whatever order they come; a loop or too long a way is an error.
    fn follow(&mut self, section: &[Parsed<'_>], name: &str) -> Result<(), Unreadable> {
        let mut next: HashMap<String, (ParsedName<&[u8]>, u32)> = HashMap::new();
        for record in section.iter().filter(|record| record.rtype() == Rtype::CNAME) {
            let ttl = seconds(record);
            let target = record.to_record::<Cname<_>>()?.ok_or(Unreadable)?.into_data().into_cname();
            next.entry(text(&record.owner())).or_insert((target, ttl));
        }
        let mut owner = name.to_owned();
        while let Some((target, ttl)) = next.get(&owner) {
            if self.chain.len() == MAX_HOPS {
                return Err(Unreadable);
            }
            owner = text(target);
            self.end = target.to_vec();
            self.ttl = self.ttl.min(*ttl);
            self.chain.push(self.end.clone());
            self.aliases.push(owner.clone());
        }
        Ok(())
    }

    /// Takes the records of the asked type that the last name of the way has, each address once.
    fn gather(
        &mut self,
        section: &[Parsed<'_>],
        rtype: Rtype,
        keep_ech: bool,
        denied: &impl Fn(&str) -> Option<RuleId>,
    ) -> Result<(), Unreadable> {
        let mut known = HashSet::new();
        for record in section.iter().filter(|record| record.rtype() == rtype) {
            if self.records.len() == MAX_RECORDS {
                break;
            }
            if !record.owner().name_eq(&self.end) {
                continue;
            }
            let Some(data) = data(record, keep_ech)? else { continue };
            if let Data::Other(other) = &data {
                match other.as_ref() {
                    ZoneRecordData::Cname(cname) => self.aliases.push(text(cname.cname())),
                    ZoneRecordData::Svcb(binding) if denied(&text(binding.target())).is_some() => continue,
                    ZoneRecordData::Https(binding) if denied(&text(binding.target())).is_some() => continue,
                    _ => {}
                }
            }
            self.ttl = self.ttl.min(seconds(record));
            if data.address().is_none_or(|address| known.insert(address)) {
                self.records.push(data);
            }
        }
        Ok(())
    }

    fn judged(mut self, message: &Message<[u8]>, terms: &Terms<'_>) -> Answer {
        let rcode = u16::from(message.header().rcode().to_int());
        let mut reason = DnsReason::Listed;
        let dropped = self.drop_addresses(rcode, terms);
        if !dropped.is_empty() && self.records.iter().all(|data| refused(data, terms).is_some()) {
            reason = DnsReason::Rebinding;
        }
        if self.rule.is_some() {
            reason = DnsReason::DenyRule;
        }
        if reason != DnsReason::Listed && !terms.audit {
            let answer = Answer::empty(NXDOMAIN, reason, self.ttl.min(NEGATIVE_TTL));
            return Answer { dropped, aliases: self.aliases, rule: self.rule, ..answer };
        }
        let negative = if self.records.is_empty() { self.negative(message) } else { None };
        if self.records.is_empty() {
            let ttl = negative.as_ref().map_or(BARE_NEGATIVE_TTL, |(_, ttl)| *ttl);
            self.ttl = self.ttl.min(ttl).min(NEGATIVE_TTL);
        }
        Answer {
            rcode,
            addresses: self.records.iter().filter_map(|data| Some((data.address()?, self.ttl))).collect(),
            chain: self.chain,
            records: self.records,
            negative: negative.map(|(owner, _)| owner),
            dropped,
            aliases: self.aliases,
            ttl: self.ttl,
            reason,
            rule: self.rule,
        }
    }

    /// Takes out the addresses that the name may not have (in audit mode only tells them), and everything if there is no
    /// such name.
    fn drop_addresses(&mut self, rcode: u16, terms: &Terms<'_>) -> Vec<Dropped> {
        if rcode == NXDOMAIN {
            self.records.clear();
        }
        let mut dropped = Vec::new();
        self.records.retain(|data| {
            let Some((address, why)) = refused(data, terms) else { return true };
            dropped.push(Dropped { address, why });
            terms.audit
        });
        dropped
    }

    /// The zone that says that the last name has nothing, and for how many seconds.
    fn negative(&self, message: &Message<[u8]>) -> Option<(Name<Vec<u8>>, u32)> {
        let records = message.authority().ok()?.limit_to_in::<Soa<_>>();
        let record = records.filter_map(Result::ok).find(|record| self.end.ends_with(record.owner()))?;
        let ttl = valid(record.ttl().as_secs()).min(valid(record.data().minimum().as_secs()));
        Some((record.owner().to_vec(), ttl))
    }
}

/// The address of a record that the name may not have, and why: no rule that covers the name opens it.
fn refused(data: &Data, terms: &Terms<'_>) -> Option<(IpAddr, &'static str)> {
    let address = data.address()?;
    let refusal = match terms.rules {
        // In audit mode a name that no rule lists is answered too.
        [] => refusal(address, false),
        rules => refusal_of_rules(rules, address),
    };
    refusal.map(|why| (address, why))
}

/// The data of a record, `None` if it is of a type that the library does not know or of no use to a client.
fn data(record: &Parsed<'_>, keep_ech: bool) -> Result<Option<Data>, Unreadable> {
    Ok(match record.rtype() {
        Rtype::A => record.to_record::<A>()?.map(|record| Data::V4(record.data().addr())),
        Rtype::AAAA => record.to_record::<Aaaa>()?.map(|record| Data::V6(record.data().addr())),
        _ => {
            let Some(record) = record.to_record::<ZoneRecordData<_, _>>()? else { return Ok(None) };
            let data: OtherData = match record.into_data() {
                ZoneRecordData::Unknown(_) => return Ok(None),
                ZoneRecordData::Svcb(binding) => match service_binding::strip(&binding, keep_ech)? {
                    Some(binding) => binding.into(),
                    None => return Ok(None),
                },
                ZoneRecordData::Https(binding) => match service_binding::strip(&binding, keep_ech)? {
                    Some(binding) => binding.into(),
                    None => return Ok(None),
                },
                other => other.try_flatten_into()?,
            };
            Some(Data::Other(Box::new(data)))
        }
    })
}

fn seconds(record: &Parsed<'_>) -> u32 {
    valid(record.ttl().as_secs())
}

/// A time to live with the highest bit set is zero (RFC 2181 §8).
fn valid(ttl: u32) -> u32 {
    if ttl > u32::MAX >> 1 { 0 } else { ttl }
}
