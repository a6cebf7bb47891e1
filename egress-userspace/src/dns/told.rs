//! What came of one question, for those who tell people and programs of it.

use std::net::IpAddr;

use egress_common::{Asker, RuleId, Transport, Verdict};

/// Why a question was answered as it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum DnsReason {
    /// A rule lists the name; it was asked upstream (or answered from what was asked before).
    Listed,
    /// The hosts file, `localhost`, or an address that we gave out ourselves (PTR).
    Local,
    /// No rule lists the name.
    NotListed,
    /// A rule under `deny:` covers the name, or a name that it is an alias of.
    DenyRule,
    /// The policy does not list the query type.
    Type,
    /// A class other than IN.
    Class,
    /// Not a plain question: another opcode, several questions, a transfer.
    Malformed,
    /// A name that only a wildcard allows has a label longer than `dns.wildcard.label`.
    LabelBound,
    /// … is longer than `dns.wildcard.name`.
    NameBound,
    /// … would be one more new name this minute than `dns.wildcard.new-names`, or one more exchange than goes with it.
    RateBound,
    /// A listed name with a search suffix behind it: a client's own guess, no attempt.
    Search,
    /// Every address of the answer is one that the name may not have.
    Rebinding,
    /// The table of permits is full, or could not be written.
    NoPermit,
    /// No upstream server answered in time, or only nonsense.
    Upstream,
    /// There can be no listener in the client's network namespace.
    NoListener,
}

impl DnsReason {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Listed,
        Self::Local,
        Self::NotListed,
        Self::DenyRule,
        Self::Type,
        Self::Class,
        Self::Malformed,
        Self::LabelBound,
        Self::NameBound,
        Self::RateBound,
        Self::Search,
        Self::Rebinding,
        Self::NoPermit,
        Self::Upstream,
        Self::NoListener,
    ];

    /// The word in events and on screen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Local => "local",
            Self::NotListed => "not-listed",
            Self::DenyRule => "deny-rule",
            Self::Type => "type",
            Self::Class => "class",
            Self::Malformed => "malformed",
            Self::LabelBound => "label-bound",
            Self::NameBound => "name-bound",
            Self::RateBound => "rate-bound",
            Self::Search => "search",
            Self::Rebinding => "rebinding",
            Self::NoPermit => "no-permit",
            Self::Upstream => "upstream",
            Self::NoListener => "no-listener",
        }
    }

    /// As a sentence without a full stop.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Listed => "a rule lists the name",
            Self::Local => "it is answered from what this host knows",
            Self::NotListed => "no rule lists the name",
            Self::DenyRule => "a rule under `deny:` covers the name or one that it is an alias of",
            Self::Type => "`dns: types:` does not list the query type",
            Self::Class => "it is of a class other than IN",
            Self::Malformed => "it is no plain question",
            Self::LabelBound => {
                "only a wildcard allows the name, and a label is longer than `dns: wildcard: label:`"
            }
            Self::NameBound => {
                "only a wildcard allows the name, and it is longer than `dns: wildcard: name:`"
            }
            Self::RateBound => {
                "only a wildcard allows the name, and this minute more new names or questions were asked than `dns: wildcard: new-names:` allows"
            }
            Self::Search => "it is a listed name with a search suffix behind it",
            Self::Rebinding => "every address of the answer is one that the name may not have",
            Self::NoPermit => "its addresses could not be opened",
            Self::Upstream => "no upstream server answered in time",
            Self::NoListener => "questions of its network namespace cannot be answered",
        }
    }
}

/// An address that was taken out of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dropped {
    /// The address.
    pub address: IpAddr,
    /// Why.
    pub why: &'static str,
}

/// One question and what came of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Told {
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub time: u64,
    /// Answered, refused, or (audit) answered though it would have been refused.
    pub verdict: Verdict,
    /// Why.
    pub reason: DnsReason,
    /// The rule that decided.
    pub rule: Option<RuleId>,
    /// The name in lower case without the trailing dot, bytes outside printable ASCII as `\DDD` (RFC 4343 §2.1); empty for
    /// the root or an unreadable question.
    pub name: String,
    /// Query type as a number.
    pub query_type: u16,
    /// Query class as a number.
    pub class: u16,
    /// Who asked.
    pub asker: Asker,
    /// How.
    pub transport: Transport,
    /// Response code given to the client (RFC 6895 §2.3).
    pub rcode: u16,
    /// Addresses that the answer carries; each is open.
    pub addresses: Vec<IpAddr>,
    /// Addresses that were taken out.
    pub dropped: Vec<Dropped>,
    /// Names on the way from the name to the addresses.
    pub aliases: Vec<String>,
    /// Seconds that the client may keep the answer, if it has any record.
    pub ttl: Option<u32>,
}

impl Told {
    /// Refused for a reason, and nothing more known of the question.
    pub fn refused(time: u64, reason: DnsReason, asker: Asker, transport: Transport) -> Self {
        Self {
            time,
            verdict: Verdict::Deny,
            reason,
            rule: None,
            name: String::new(),
            query_type: 0,
            class: 0,
            asker,
            transport,
            rcode: 0,
            addresses: Vec::new(),
            dropped: Vec::new(),
            aliases: Vec::new(),
            ttl: None,
        }
    }
}
