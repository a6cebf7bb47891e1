//! Names that are looked after without a question: those of the hosts file, which clients read themselves, and with
//! `dns.eager` every exact name of the policy.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    Happened,
    desk::{Desk, HOSTS_TTL},
};
use crate::{
    compile::HostRule,
    dns::{
        answer::Answer,
        cache::Key,
        clock::{Clock, nanoseconds},
        normal,
        outcome::{Outcome, ResolveError},
        permit::{PermitTable, TTL},
        special::refusal_of_rules,
        told::Dropped,
        upstream::UpstreamError,
    },
};

/// Shortest and longest pause before a failed lookup is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// Lookups at a time, so that clients have their share.
const AT_ONCE: usize = 64;

/// Query types of addresses: A and AAAA.
const ADDRESSES: [u16; 2] = [1, 28];

/// A name that is looked after.
#[derive(Debug)]
pub(super) struct Watched {
    rules: Arc<[HostRule]>,
    from_hosts: bool,
    /// `CLOCK_BOOTTIME` ns.
    due: u64,
    /// `CLOCK_BOOTTIME` ns until which some address is open.
    pub(super) open_until: u64,
    failures: u32,
    /// A lookup has come to an end.
    tried: bool,
    /// Query types that are not answered yet.
    pending: Vec<u16>,
    found: Found,
}

/// What the questions for one name have brought so far.
#[derive(Debug, Default)]
struct Found {
    addresses: Vec<IpAddr>,
    dropped: Vec<Dropped>,
    errors: Vec<ResolveError>,
    /// Seconds.
    ttl: Option<u32>,
    /// Somebody was told already that the permits could not be written.
    unwritten: bool,
}

impl<C: Clock> Desk<C> {
    /// Takes up the names that are to be looked after, and starts.
    pub(super) fn start_watching(&mut self, table: &mut impl PermitTable) {
        let now = self.clock.now();
        let hosts = self.hosts.iter().flat_map(|(_, names)| names).map(|name| (name.clone(), true));
        let exact = self.compiled.hosts.iter().filter(|_| self.compiled.dns.eager);
        let exact = exact.map(|rule| (normal(&rule.host), false)).filter(|(name, _)| !name.contains('*'));
        let names: Vec<(String, bool)> = hosts.chain(exact).collect();
        for (name, from_hosts) in names {
            if self.filter.denied(&name).is_some() || self.watched.contains_key(name.as_str()) {
                continue;
            }
            if let Some((rules, _)) = self.filter.rules(&name) {
                let watched = Watched {
                    rules,
                    from_hosts,
                    due: now,
                    open_until: 0,
                    failures: 0,
                    tried: false,
                    pending: Vec::new(),
                    found: Found::default(),
                };
                self.watched.insert(name.into(), watched);
            }
        }
        self.watch_due = now;
        self.start_due(now, table);
    }

    /// Looks up what is due, as far as others leave room.
    pub(super) fn start_due(&mut self, now: u64, table: &mut impl PermitTable) {
        if self.watch_due > now {
            return;
        }
        let (mut names, mut next) = (Vec::new(), u64::MAX);
        for (name, watched) in self.watched.iter().filter(|(_, watched)| watched.pending.is_empty()) {
            if watched.due <= now { names.push(Arc::clone(name)) } else { next = next.min(watched.due) }
        }
        self.watch_due = next;
        for name in names {
            if self.watched.get(&name).is_some_and(|watched| watched.from_hosts) {
                self.open_from_hosts(&name, now, table);
            } else if self.exchanges.len() + ADDRESSES.len() <= AT_ONCE {
                self.look_up_both(&name, now);
            } else {
                self.watch_due = now;
                return;
            }
        }
    }

    fn look_up_both(&mut self, name: &Arc<str>, now: u64) {
        let Some(watched) = self.watched.get_mut(name) else { return };
        watched.pending = ADDRESSES.to_vec();
        watched.found = Found::default();
        let rules = Arc::clone(&watched.rules);
        for query_type in ADDRESSES {
            let key = Key { name: Arc::clone(name), query_type, opens: true };
            if !self.look_up(&key, &rules, now) {
                self.watch_finished(&key, Err(UpstreamError::Busy), now);
            }
        }
    }

    fn open_from_hosts(&mut self, name: &Arc<str>, now: u64, table: &mut impl PermitTable) {
        let Some(watched) = self.watched.get_mut(name) else { return };
        let rules = Arc::clone(&watched.rules);
        // The file is read once, so that its outcome is always the same.
        let is_first = !watched.tried;
        let (mut open, mut found) = (Vec::new(), Found { ttl: Some(HOSTS_TTL), ..Found::default() });
        for &address in self.hosts.addresses(name) {
            match refusal_of_rules(&rules, address) {
                None => open.push((address, HOSTS_TTL)),
                Some(why) => found.dropped.push(Dropped { address, why }),
            }
        }
        let mut answer = Answer::empty(0, crate::dns::told::DnsReason::Local, HOSTS_TTL);
        answer.addresses = open;
        found.addresses = answer.addresses.iter().map(|(address, _)| *address).collect();
        let key = Key { name: Arc::clone(name), query_type: ADDRESSES[0], opens: true };
        let opened = match self.open(&key, &rules, &answer, now, table) {
            Ok(until) => Some(until),
            Err(outcome) => {
                self.happened.push(Happened::Names(outcome));
                found.unwritten = true;
                None
            }
        };
        if let Some(watched) = self.watched.get_mut(name) {
            watched.extend(opened, &answer);
            watched.found = found;
        }
        self.conclude(name, now, is_first);
    }

    /// Takes the answer to one of a name's two questions: with when its addresses close, unless they could not be opened.
    pub(super) fn watch_finished(
        &mut self,
        key: &Key,
        result: Result<(&Answer, Option<u64>), UpstreamError>,
        now: u64,
    ) {
        let Some(watched) = self.watched.get_mut(&key.name) else { return };
        watched.pending.retain(|kind| *kind != key.query_type);
        let found = &mut watched.found;
        match result {
            Ok((answer, None)) => {
                found.unwritten = true;
                found.dropped.extend(answer.dropped.iter().cloned());
            }
            Ok((answer, opened)) => {
                found.dropped.extend(answer.dropped.iter().cloned());
                if answer.addresses.is_empty() {
                    found.errors.extend(of_empty(answer));
                } else {
                    found.addresses.extend(answer.addresses.iter().map(|(address, _)| *address));
                    found.ttl = Some(found.ttl.map_or(answer.ttl, |ttl| ttl.min(answer.ttl)));
                }
                watched.extend(opened, answer);
            }
            Err(error) => found.errors.push(of_error(error)),
        }
        if watched.pending.is_empty() {
            self.conclude(&key.name, now, true);
        }
    }

    /// Tells what a lookup came to, and sets when the next is due.
    fn conclude(&mut self, name: &Arc<str>, now: u64, tell: bool) {
        let Some(watched) = self.watched.get_mut(name) else { return };
        let mut found = std::mem::take(&mut watched.found);
        watched.tried = true;
        found.addresses.sort_by_key(IpAddr::is_ipv6);
        let is_failure = found.unwritten || (found.addresses.is_empty() && found.dropped.is_empty());
        watched.failures = if is_failure { watched.failures.saturating_add(1) } else { 0 };
        let ttl = Duration::from_secs(u64::from(found.ttl.unwrap_or(0))).clamp(TTL.0, TTL.1);
        let wait = if is_failure { backoff(watched.failures) } else { (ttl * 3 / 4).max(RETRY.0) };
        watched.due = now.saturating_add(nanoseconds(wait));
        self.watch_due = self.watch_due.min(watched.due);
        let open_for = Duration::from_nanos(watched.open_until.saturating_sub(now));
        if tell {
            self.happened.extend(found.outcomes(name, ttl, open_for).into_iter().map(Happened::Names));
        }
    }

    /// Whether some name has not been answered for yet.
    pub(super) fn is_waiting_for_names(&self) -> bool {
        self.watched.values().any(|watched| !watched.tried)
    }

    /// Tells of those names as failed; their questions go on.
    pub(super) fn give_up_waiting(&mut self) {
        let unanswered = self.watched.iter().filter(|(_, watched)| !watched.tried);
        let outcomes: Vec<Outcome> = unanswered
            .map(|(name, _)| Outcome::Failed {
                name: name.to_string(),
                error: ResolveError::TimedOut,
                open_for: Duration::ZERO,
            })
            .collect();
        self.happened.extend(outcomes.into_iter().map(Happened::Names));
    }
}

impl Watched {
    fn extend(&mut self, opened: Option<u64>, answer: &Answer) {
        if let Some(until) = opened.filter(|_| !answer.addresses.is_empty()) {
            self.open_until = self.open_until.max(until);
        }
    }
}

impl Found {
    fn outcomes(self, name: &Arc<str>, ttl: Duration, open_for: Duration) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        if !self.addresses.is_empty() {
            outcomes.push(Outcome::Opened {
                name: name.to_string(),
                addresses: self.addresses,
                ttl,
                missing: self.errors.into_iter().find(is_grave),
            });
        } else if self.dropped.is_empty() && !self.unwritten {
            let error = gravest(self.errors);
            outcomes.push(Outcome::Failed { name: name.to_string(), error, open_for });
        }
        outcomes.extend(self.dropped.into_iter().map(|dropped| Outcome::Refused {
            name: name.to_string(),
            address: dropped.address,
            why: dropped.why,
        }));
        outcomes
    }
}

/// That a name has no such address is no failure of the question.
fn is_grave(error: &ResolveError) -> bool {
    !matches!(error, ResolveError::NoAddress | ResolveError::NotFound)
}

/// Of several reasons, the one that leaves most open whether the name has addresses.
fn gravest(errors: Vec<ResolveError>) -> ResolveError {
    let weight = |error: &ResolveError| match error {
        ResolveError::NoAddress => 0,
        ResolveError::NotFound => 1,
        ResolveError::TimedOut => 2,
        _ => 3,
    };
    errors.into_iter().max_by_key(weight).unwrap_or(ResolveError::NoAddress)
}

fn of_empty(answer: &Answer) -> Option<ResolveError> {
    match (answer.rcode, answer.dropped.is_empty()) {
        (_, false) => None,
        (3, _) => Some(ResolveError::NotFound),
        _ => Some(ResolveError::NoAddress),
    }
}

fn of_error(error: UpstreamError) -> ResolveError {
    match error {
        UpstreamError::Failure { server, rcode } => ResolveError::Failure { server, code: rcode_name(rcode) },
        UpstreamError::TimedOut | UpstreamError::Busy => ResolveError::TimedOut,
        UpstreamError::Io { server, message } => ResolveError::Io { server, message },
        UpstreamError::BadName => ResolveError::BadName,
        UpstreamError::NoServer => ResolveError::NoServer,
    }
}

fn rcode_name(rcode: u16) -> &'static str {
    match rcode {
        1 => "FORMERR",
        2 => "SERVFAIL",
        4 => "NOTIMP",
        5 => "REFUSED",
        9 => "NOTAUTH",
        _ => "a failure",
    }
}

fn backoff(failures: u32) -> Duration {
    let doubled = RETRY.0.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(RETRY.1)
}
