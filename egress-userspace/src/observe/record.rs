//! One attempt, enriched: receives a record of the ring buffer, gives it with wall time, names, rule, executable and
//! the line that would allow it.

use std::{collections::BTreeMap, ffi::OsStr, fs, net::IpAddr, os::unix::ffi::OsStrExt as _, sync::Arc};

use egress_common::{Address, Escape, Event, Hook, Owner, Reason, RuleId, Transport, Verdict};
use thiserror::Error;
use zerocopy::FromBytes as _;

use crate::{
    compile::Compiled,
    dns::{clock::wall_offset, names::NameBook, told::Told},
    explain::{remedy, unix_line},
};

use super::{detail::Detail, question::Question};

const SOCK_STREAM: u8 = 1;
const SOCK_DGRAM: u8 = 2;
const SOCK_RAW: u8 = 3;
const SOCK_SEQPACKET: u8 = 5;
const SOCK_DCCP: u8 = 6;
const SOCK_PACKET: u8 = 10;

/// What the kernel appends to the path of an executable that was removed.
const DELETED: &[u8] = b" (deleted)";

/// Why a record of the ring buffer is no event: the kernel side is of another version, or memory is damaged.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
pub enum DecodeError {
    /// Wrong length.
    #[error("event of {got} bytes instead of {} or {}", size_of::<Event>(), size_of::<Escape>())]
    Length {
        /// Its length.
        got: usize,
    },
    /// Unknown [`Hook`].
    #[error("event of an unknown hook {0}")]
    Hook(u8),
    /// Unknown [`Verdict`].
    #[error("event with an unknown verdict {0}")]
    Verdict(u8),
    /// Unknown [`Reason`].
    #[error("event with an unknown reason {0}")]
    Reason(u8),
}

/// What kind of traffic.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct Protocol {
    /// IP protocol number (262 is MPTCP).
    pub number: u16,
    /// `SOCK_STREAM` …; 0 if unknown.
    pub socket_type: u8,
}

/// Where to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Destination {
    /// The address.
    pub address: IpAddr,
    /// The port; `None` for protocols that have none.
    pub port: Option<u16>,
    /// The name that the address was last known under.
    pub name: Option<String>,
    /// Every permitted name that opened the address, the latest first: it serves all of them, and more that nobody asked for.
    pub names: Vec<String>,
    /// No answer gave the address to this scope: it was written down, or learnt otherwise than by DNS.
    pub literal: bool,
}

/// The rule that decided.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuleRef {
    /// Its number.
    pub id: RuleId,
    /// Where it was written; empty if the policy does not know the number.
    pub origin: String,
    /// The rule in one line; empty if the policy does not know the number.
    pub text: String,
}

/// An executable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Executable {
    /// Its path, bytes that are no UTF-8 replaced.
    pub path: String,
    /// Whether it was removed since it was started.
    pub deleted: bool,
}

/// Who.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Thread name as the process set it: any bytes.
    pub comm: Vec<u8>,
    /// Executable; `None` if the process was gone before it could be read.
    pub exe: Option<Executable>,
}

/// One attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
    /// What happened to it.
    pub verdict: Verdict,
    /// Who saw it.
    pub hook: Hook,
    /// Why.
    pub reason: Reason,
    /// What kind of traffic.
    pub protocol: Protocol,
    /// Where to, or from where for what came in; `None` for the creation of a socket, for packets that say nothing of it,
    /// and where there is none.
    pub destination: Option<Destination>,
    /// What it was about, where the destination does not say it all.
    pub detail: Option<Detail>,
    /// The rule that decided.
    pub rule: Option<RuleRef>,
    /// Who; `None` if unknown (a packet of a socket that no process was seen to use).
    pub process: Option<Process>,
    /// Cgroup id of the scope; 0 before its first policy.
    pub scope: u64,
    /// Cgroup id of the process or socket.
    pub cgroup: u64,
    /// Path of that cgroup, if known.
    pub cgroup_path: Option<String>,
    /// Socket cookie; `None` if the hook has none.
    pub cookie: Option<u64>,
    /// The line of policy that would allow it.
    pub remedy: Option<String>,
}

/// Makes records of events.
#[derive(Clone, Debug)]
pub struct Enricher {
    compiled: Arc<Compiled>,
    paths: BTreeMap<u64, String>,
}

impl Enricher {
    /// For events judged by this policy.
    pub fn new(compiled: Arc<Compiled>) -> Self {
        Self { compiled, paths: BTreeMap::new() }
    }

    /// Makes the path of a cgroup known, to be shown beside its id.
    pub fn name_cgroup(&mut self, id: u64, path: impl Into<String>) {
        self.paths.insert(id, path.into());
    }

    /// The record of one entry of the ring buffer.
    pub fn record(&self, bytes: &[u8], names: &NameBook) -> Result<Record, DecodeError> {
        match Escape::read_from_bytes(bytes) {
            Ok(escape) => self.escape(&escape),
            Err(_) => Ok(self.complete(record(&event(bytes)?, &self.compiled, names, wall_offset())?)),
        }
    }

    /// The record of a refusal elsewhere than at a socket hook.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn escape(&self, escape: &Escape) -> Result<Record, DecodeError> {
        Ok(self.complete(escape_record(escape, &self.compiled, wall_offset())?))
    }

    fn complete(&self, mut record: Record) -> Record {
        if let Some(process) = &mut record.process {
            process.exe = executable(process.pid);
        }
        record.cgroup_path = self.paths.get(&record.cgroup).cloned();
        record
    }

    /// The record of one question.
    pub fn question(&self, told: &Told) -> Question {
        let mut question = Question::of(told, &self.compiled, wall_offset());
        if let Some(process) = &mut question.process {
            process.exe = executable(process.pid);
        }
        question.cgroup_path = self.paths.get(&question.cgroup).cloned();
        question
    }
}

/// An entry of the ring buffer as an event.
pub fn event(bytes: &[u8]) -> Result<Event, DecodeError> {
    Event::read_from_bytes(bytes).map_err(|_| DecodeError::Length { got: bytes.len() })
}

/// What can be said of an event without asking the system; `offset` leads from `CLOCK_BOOTTIME` to wall time.
pub fn record(
    event: &Event,
    compiled: &Compiled,
    names: &NameBook,
    offset: u64,
) -> Result<Record, DecodeError> {
    let hook = Hook::from_u8(event.hook).ok_or(DecodeError::Hook(event.hook))?;
    let verdict = Verdict::from_u8(event.verdict).ok_or(DecodeError::Verdict(event.verdict))?;
    let reason = Reason::from_u8(event.reason).ok_or(DecodeError::Reason(event.reason))?;
    let detail = Detail::of_event(event, hook);
    let traffic = !detail.as_ref().is_some_and(Detail::is_no_traffic);
    let number = if traffic { event.protocol } else { 0 };
    let protocol = Protocol { number, socket_type: event.socket_type };
    let destination = if traffic { destination(event, hook, protocol, names) } else { None };
    let remedy = match (verdict, &destination, protocol.transport()) {
        (Verdict::Deny | Verdict::Audit, Some(to), Some(transport)) => {
            remedy(to.name.as_deref(), to.address, event.port, transport, reason)
        }
        _ => None,
    };
    Ok(Record {
        time: event.time.saturating_add(offset),
        verdict,
        hook,
        reason,
        protocol,
        destination,
        detail,
        rule: rule(event.rule, compiled),
        process: process(&event.owner),
        scope: event.scope,
        cgroup: event.cgroup,
        cgroup_path: None,
        cookie: (event.cookie != 0).then_some(event.cookie),
        remedy,
    })
}

/// What can be said of a refusal elsewhere than at a socket hook, without asking the system.
pub fn escape_record(escape: &Escape, compiled: &Compiled, offset: u64) -> Result<Record, DecodeError> {
    let hook = Hook::from_u8(escape.hook).ok_or(DecodeError::Hook(escape.hook))?;
    let verdict = Verdict::from_u8(escape.verdict).ok_or(DecodeError::Verdict(escape.verdict))?;
    let reason = Reason::from_u8(escape.reason).ok_or(DecodeError::Reason(escape.reason))?;
    let detail = Detail::of_escape(escape, reason);
    let remedy = match (&detail, verdict) {
        (_, Verdict::Allow) => None,
        (Detail::Unix { name: Some(name) }, _) => std::str::from_utf8(name).ok().and_then(unix_line),
        _ => None,
    };
    Ok(Record {
        time: escape.time.saturating_add(offset),
        verdict,
        hook,
        reason,
        protocol: Protocol { number: 0, socket_type: 0 },
        destination: None,
        detail: Some(detail),
        rule: rule(0, compiled),
        process: process(&escape.owner),
        scope: escape.scope,
        cgroup: escape.cgroup,
        cgroup_path: None,
        cookie: None,
        remedy,
    })
}

fn destination(event: &Event, hook: Hook, protocol: Protocol, names: &NameBook) -> Option<Destination> {
    let unreadable = event.address == Address::ZERO && protocol.number == 0;
    if hook == Hook::Create || unreadable {
        return None;
    }
    // The port of what came in is the scope's own.
    let has_port = hook != Hook::Ingress
        && (event.port != 0 || matches!(protocol.transport(), Some(Transport::Tcp | Transport::Udp)));
    Some(Destination {
        address: event.address.to_ip(),
        port: has_port.then_some(event.port),
        name: names.name(event.address).map(str::to_owned),
        names: names.names(event.address).into_iter().map(str::to_owned).collect(),
        literal: !names.answered(event.address),
    })
}

pub(super) fn rule(id: RuleId, compiled: &Compiled) -> Option<RuleRef> {
    if id == 0 {
        return None;
    }
    let (origin, text) =
        compiled.rule(id).map(|rule| (rule.origin.to_string(), rule.text.clone())).unwrap_or_default();
    Some(RuleRef { id, origin, text })
}

pub(super) fn process(owner: &Owner) -> Option<Process> {
    if owner.tgid == 0 {
        return None;
    }
    let comm = owner.comm.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    Some(Process { pid: owner.tgid, tid: owner.pid, uid: owner.uid, gid: owner.gid, comm, exe: None })
}

fn executable(pid: u32) -> Option<Executable> {
    let target = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(executable_of(target.as_os_str()))
}

fn executable_of(target: &OsStr) -> Executable {
    let bytes = target.as_bytes();
    let (path, deleted) = match bytes.strip_suffix(DELETED) {
        Some(path) => (path, true),
        None => (bytes, false),
    };
    Executable { path: String::from_utf8_lossy(path).into_owned(), deleted }
}

impl Record {
    /// Whether it is an attempt to get out of the scope, rather than to reach a destination: events of a class of their own.
    pub const fn is_escape(&self) -> bool {
        self.reason.is_escape()
    }

    /// Whether a process did get out, or what holds it was taken away.
    pub fn is_escaped(&self) -> bool {
        self.is_escape() && self.verdict == Verdict::Allow
    }
}

impl Protocol {
    /// TCP or UDP, if it is one of them.
    pub fn transport(self) -> Option<Transport> {
        Transport::from_protocol(u8::try_from(self.number).ok()?)
    }

    /// The word for it.
    pub fn name(self) -> String {
        match self.number {
            0 => "ip".to_owned(),
            1 => "icmp".to_owned(),
            2 => "igmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            33 => "dccp".to_owned(),
            41 => "ipv6".to_owned(),
            47 => "gre".to_owned(),
            50 => "esp".to_owned(),
            51 => "ah".to_owned(),
            58 => "icmpv6".to_owned(),
            115 => "l2tp".to_owned(),
            132 => "sctp".to_owned(),
            136 => "udplite".to_owned(),
            255 => "raw".to_owned(),
            262 => "mptcp".to_owned(),
            other => format!("ip-{other}"),
        }
    }

    /// The word for the kind of socket, if known.
    pub fn socket_type(self) -> Option<&'static str> {
        match self.socket_type {
            SOCK_STREAM => Some("stream"),
            SOCK_DGRAM => Some("dgram"),
            SOCK_RAW => Some("raw"),
            SOCK_SEQPACKET => Some("seqpacket"),
            SOCK_DCCP => Some("dccp"),
            SOCK_PACKET => Some("packet"),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
