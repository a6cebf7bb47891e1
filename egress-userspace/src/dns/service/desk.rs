//! What becomes of one question: refused, answered from what is known, or asked upstream once for all who wait.
//!
//! The one order that matters is here: permits are in the table before a reply is in the outbox.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use egress_common::{Asker, Verdict};

use super::{
    Happened, Settings, Upstreams,
    waiter::{Ruled, Waiter, rcode},
    watch::Watched,
};
use crate::{
    compile::{Compiled, HostRule},
    dns::{
        answer::{self, Answer, Terms},
        cache::{Cache, Kept, Key},
        clock::{Clock, nanoseconds},
        filter::{Filter, Local, Ruling, is_wildcard},
        hosts::Hosts,
        message::{self, Incoming, Question},
        names::NameBook,
        outcome::Outcome,
        permit::{Ledger, PermitError, PermitTable},
        reply,
        sockets::{Take, Way},
        special::refusal_of_rules,
        system,
        told::{DnsReason, Dropped, Told},
        upstream::{Exchanges, Finished, Judge, UpstreamError},
    },
};

/// What the client's time is shorter by than ours.
const MARGIN: Duration = Duration::from_secs(5);

/// Longest time that a client may keep an answer, in seconds.
const LONGEST: u32 = 3_600;

/// Time to live of an address from the hosts file, which gives none, in seconds.
pub(super) const HOSTS_TTL: u32 = 60;

/// A negative answer is kept this many seconds at most.
const NEGATIVE: u32 = answer::NEGATIVE_TTL;

/// Most clients that wait for answers.
const MAX_WAITING: usize = 4_096;

/// Longest time between two looks at resolv.conf.
const SYSTEM_CHECK: Duration = Duration::from_secs(1);

/// The servers are asked in the order of the list again after this long: the first may be back.
const PREFERENCE: Duration = Duration::from_secs(30);

/// Who waits longer than an exchange may take, by this much, is told that there is no answer.
const SLACK: Duration = Duration::from_secs(1);

/// An answer is given again for at least so many seconds, whatever its time to live: a client that has known names asked
/// for again and again must not tell something by their order. The first is for names that only a wildcard allows.
const REUSE: (u32, u32) = (5, 1);

/// That there was no answer is known for this long (RFC 9520 §3.2), in seconds: a client cannot make us ask in a loop.
const FAILURE: u32 = 1;

const SECOND: u64 = 1_000_000_000;

/// A question that is asked upstream, for all who wait.
struct Flight {
    rules: Arc<[HostRule]>,
    waiters: Vec<Waiter>,
    since: u64,
    /// The name is looked after without a question.
    watched: bool,
}

/// All that answering takes, without sockets to clients.
pub(super) struct Desk<C> {
    pub(super) compiled: Arc<Compiled>,
    pub(super) filter: Filter,
    pub(super) hosts: Hosts,
    pub(super) book: NameBook,
    pub(super) exchanges: Exchanges,
    pub(super) happened: Vec<Happened>,
    pub(super) outbox: Vec<(Way, Vec<u8>)>,
    pub(super) clock: C,
    pub(super) watched: BTreeMap<Arc<str>, Watched>,
    /// When the first of them is due.
    pub(super) watch_due: u64,
    pub(super) ledger: Ledger,
    cache: Cache,
    flights: HashMap<Key, Flight>,
    waiting: usize,
    system: system::Watch,
    system_servers: bool,
    system_due: u64,
    preference_due: u64,
    longest_flight: u64,
}

impl<C: Clock> Desk<C> {
    /// Knows nothing yet.
    pub(super) fn new(settings: Settings, clock: C) -> Self {
        let (servers, system_servers) = match settings.upstream {
            Upstreams::System => (Vec::new(), true),
            Upstreams::List(servers) => (servers, false),
        };
        let mut desk = Self {
            filter: Filter::new(&settings.compiled, Vec::new()),
            book: NameBook::new(&settings.hosts),
            exchanges: Exchanges::new(servers, settings.limits),
            happened: Vec::new(),
            outbox: Vec::new(),
            watched: BTreeMap::new(),
            watch_due: u64::MAX,
            ledger: Ledger::new(settings.slot),
            cache: Cache::default(),
            flights: HashMap::new(),
            waiting: 0,
            system: system::Watch::new(settings.resolv_conf),
            system_servers,
            system_due: 0,
            preference_due: 0,
            longest_flight: nanoseconds(settings.limits.total + SLACK),
            hosts: settings.hosts,
            compiled: settings.compiled,
            clock,
        };
        desk.look_at_system(desk.clock.now());
        desk
    }

    /// Takes a client's message; whether there is or will be a reply.
    pub(super) fn question(
        &mut self,
        bytes: &[u8],
        way: Way,
        asker: Asker,
        table: &mut impl PermitTable,
    ) -> bool {
        let now = self.clock.now();
        self.look_at_system(now);
        match message::read(bytes) {
            Incoming::Silence => false,
            Incoming::Answer { reply, rcode, reason, name, query_type, class } => {
                self.outbox.push((way, reply));
                let told = Told::refused(now, reason, asker, way.transport());
                self.happened.push(Happened::Told(Told { name, query_type, class, rcode, ..told }));
                true
            }
            Incoming::Question(question) => {
                self.rule(question, way, asker, now, table);
                true
            }
        }
    }

    fn rule(&mut self, question: Question, way: Way, asker: Asker, now: u64, table: &mut impl PermitTable) {
        match self.filter.judge(&question, now) {
            Ruling::Ask { rules, rule } => {
                let ruled = Ruled { verdict: Verdict::Allow, reason: DnsReason::Listed, rule: Some(rule) };
                let waiter = Waiter { question, way, asker, ruled };
                self.answer_or_ask(waiter, rules, now, table);
            }
            Ruling::Refuse { reason, rule } if self.compiled.audit && can_be_asked(&question) => {
                let ruled = Ruled { verdict: Verdict::Audit, reason, rule };
                let waiter = Waiter { question, way, asker, ruled };
                self.answer_or_ask(waiter, Arc::new([]), now, table);
            }
            Ruling::Refuse { reason, rule } => {
                let ruled = Ruled { verdict: Verdict::Deny, reason, rule };
                let rcode = reply::refusal_code(reason, self.compiled.dns.refusal);
                self.refuse(&Waiter { question, way, asker, ruled }, rcode, now);
            }
            Ruling::Local(local) => {
                let answer = self.local(local, question.query_type);
                let ruled = Ruled { verdict: Verdict::Allow, reason: DnsReason::Local, rule: None };
                self.reply(&Waiter { question, way, asker, ruled }, &answer, LONGEST, 0, now);
            }
        }
    }

    fn local(&self, local: Local, query_type: u16) -> Answer {
        match local {
            Local::Localhost => Answer::localhost(query_type),
            Local::Pointer(address) => {
                let mut names = self.book.names(address.into());
                if names.is_empty() {
                    names = self.hosts.names(address).iter().map(String::as_str).collect();
                }
                Answer::of_names(&names, HOSTS_TTL)
            }
        }
    }

    fn answer_or_ask(
        &mut self,
        waiter: Waiter,
        rules: Arc<[HostRule]>,
        now: u64,
        table: &mut impl PermitTable,
    ) {
        let name = waiter.question.name.text();
        let opens = waiter.ruled.verdict == Verdict::Allow;
        if !self.hosts.addresses_of_normal(name).is_empty() {
            let answer = self.hosts_answer(name, waiter.question.query_type, &rules, opens);
            let key = key_of(&waiter, opens);
            self.settle(&key, &rules, &Rc::new(answer), &[waiter], now, table);
            return;
        }
        if let Some(kept) = self.cache.get(name, waiter.question.query_type, opens, now) {
            let kept = kept.clone();
            if matches!(kept.answer.reason, DnsReason::Upstream | DnsReason::NoPermit) {
                return self.fail(&waiter, kept.answer.reason, now);
            }
            let age = u32::try_from((now - kept.since) / SECOND).unwrap_or(u32::MAX);
            return self.reply(&waiter, &kept.answer, longest(kept.open_until, now), age, now);
        }
        let key = key_of(&waiter, opens);
        if opens
            && !self.flights.contains_key(&key)
            && let Err(reason) = self.filter.admit_exchange(&rules, now)
        {
            return self.over_bound(waiter, reason, now, table);
        }
        self.wait(waiter, key, rules, now);
    }

    /// Refuses an exchange too many; in audit mode it takes place, as for a name that is refused.
    fn over_bound(&mut self, mut waiter: Waiter, reason: DnsReason, now: u64, table: &mut impl PermitTable) {
        let verdict = if self.compiled.audit { Verdict::Audit } else { Verdict::Deny };
        waiter.ruled = Ruled { verdict, reason, ..waiter.ruled };
        if self.compiled.audit {
            return self.answer_or_ask(waiter, Arc::new([]), now, table);
        }
        let rcode = reply::refusal_code(reason, self.compiled.dns.refusal);
        self.refuse(&waiter, rcode, now);
    }

    /// What the hosts file says of a name, without the addresses that no rule may have.
    fn hosts_answer(&self, name: &str, query_type: u16, rules: &[HostRule], opens: bool) -> Answer {
        let mut dropped = Vec::new();
        let mut kept: Vec<IpAddr> = Vec::new();
        for &address in self.hosts.addresses_of_normal(name) {
            match refusal_of_rules(rules, address) {
                Some(why) if opens => dropped.push(Dropped { address, why }),
                _ => kept.push(address),
            }
        }
        let mut answer = if kept.is_empty() {
            Answer::empty(rcode::NX_DOMAIN, DnsReason::Rebinding, 0)
        } else {
            Answer::of_addresses(query_type, &kept, HOSTS_TTL)
        };
        answer.dropped = dropped;
        answer
    }

    /// Lets a client wait for an exchange, which is started if there is none.
    fn wait(&mut self, waiter: Waiter, key: Key, rules: Arc<[HostRule]>, now: u64) {
        let started =
            self.waiting < MAX_WAITING && (self.flights.contains_key(&key) || self.start(&key, rules, now));
        match self.flights.get_mut(&key) {
            Some(flight) if started => {
                flight.waiters.push(waiter);
                self.waiting += 1;
            }
            _ => self.fail(&waiter, DnsReason::Upstream, now),
        }
    }

    /// Starts an exchange; whether there is room for it.
    fn start(&mut self, key: &Key, rules: Arc<[HostRule]>, now: u64) -> bool {
        let judge = judge(key.clone(), Arc::clone(&rules), Arc::clone(&self.compiled));
        let started = self.exchanges.ask(key.clone(), judge).is_ok();
        if started {
            let flight = Flight { rules, waiters: Vec::new(), since: now, watched: false };
            self.flights.insert(key.clone(), flight);
        }
        started
    }

    /// Looks a name up without a question; whether there is room for it.
    pub(super) fn look_up(&mut self, key: &Key, rules: &Arc<[HostRule]>, now: u64) -> bool {
        let started = self.flights.contains_key(key) || self.start(key, Arc::clone(rules), now);
        if let Some(flight) = self.flights.get_mut(key).filter(|_| started) {
            flight.watched = true;
        }
        started
    }

    /// Takes what came of an exchange.
    pub(super) fn finished(&mut self, (key, result): Finished, table: &mut impl PermitTable) {
        let Some(flight) = self.flights.remove(&key) else { return };
        self.waiting -= flight.waiters.len();
        let now = self.clock.now();
        match result {
            Ok(answer) => {
                let answer = Rc::new(answer);
                let opened = self.settle(&key, &flight.rules, &answer, &flight.waiters, now, table);
                if flight.watched {
                    self.watch_finished(&key, Ok((&answer, opened)), now);
                }
            }
            Err(error) => {
                flight.waiters.iter().for_each(|waiter| self.fail(waiter, DnsReason::Upstream, now));
                self.keep_failure(&key, DnsReason::Upstream, now);
                if flight.watched {
                    self.watch_finished(&key, Err(error), now);
                }
            }
        }
        self.start_due(now, table);
    }

    /// Tells all who wait that there is no answer.
    pub(super) fn give_up(&mut self) {
        let now = self.clock.now();
        for (_, flight) in std::mem::take(&mut self.flights) {
            flight.waiters.iter().for_each(|waiter| self.fail(waiter, DnsReason::Upstream, now));
        }
        self.waiting = 0;
    }

    /// Takes exchanges that are over already, up to a bound.
    pub(super) fn collect(&mut self, most: usize, table: &mut impl PermitTable) {
        for _ in 0..most {
            match self.exchanges.try_next() {
                Some(finished) => self.finished(finished, table),
                None => return,
            }
        }
    }

    /// Opens the addresses of an answer and only then gives it to those who wait; when the first of them closes, `None`
    /// if they could not be opened.
    fn settle(
        &mut self,
        key: &Key,
        rules: &[HostRule],
        answer: &Rc<Answer>,
        waiters: &[Waiter],
        now: u64,
        table: &mut impl PermitTable,
    ) -> Option<u64> {
        let open_until = match self.open(key, rules, answer, now, table) {
            Ok(until) => until,
            Err(outcome) => {
                self.happened.push(Happened::Names(outcome));
                waiters.iter().for_each(|waiter| self.fail(waiter, DnsReason::NoPermit, now));
                if answer.reason != DnsReason::Local {
                    self.keep_failure(key, DnsReason::NoPermit, now);
                }
                return None;
            }
        };
        let cap = longest(open_until, now);
        waiters.iter().for_each(|waiter| self.reply(waiter, answer, cap, 0, now));
        if answer.reason != DnsReason::Local {
            let seconds = answer.ttl.min(if answer.records.is_empty() { NEGATIVE } else { cap });
            let least = if is_wildcard(rules) { REUSE.0 } else { REUSE.1 };
            self.keep(key, answer, seconds.max(least), open_until, now);
        }
        Some(open_until)
    }

    fn keep_failure(&mut self, key: &Key, reason: DnsReason, now: u64) {
        let failed = Rc::new(Answer::empty(rcode::SERVFAIL, reason, FAILURE));
        self.keep(key, &failed, FAILURE, u64::MAX, now);
    }

    fn keep(&mut self, key: &Key, answer: &Rc<Answer>, seconds: u32, open_until: u64, now: u64) {
        let until = now.saturating_add(u64::from(seconds) * SECOND);
        self.cache.put(key.clone(), Kept { answer: Rc::clone(answer), since: now, until, open_until });
    }

    /// Opens the addresses of an answer; when the first of them closes. Where nothing is refused, those that no rule may
    /// have stay closed, so that their use is reported.
    pub(super) fn open(
        &mut self,
        key: &Key,
        rules: &[HostRule],
        answer: &Answer,
        now: u64,
        table: &mut impl PermitTable,
    ) -> Result<u64, Outcome> {
        let (open, closed): (Vec<_>, Vec<_>) = answer.addresses.iter().partition(|(address, _)| {
            key.opens && (!self.compiled.audit || refusal_of_rules(rules, *address).is_none())
        });
        let opened = self.ledger.open(table, rules, &open, now);
        self.ledger.take_closed().into_iter().for_each(|address| self.book.closed(address));
        let until = opened.map_err(|error| self.not_opened(&key.name, &error, now))?;
        open.iter().for_each(|(address, _)| self.book.opened(&key.name, *address));
        closed.iter().for_each(|(address, _)| self.book.note(&key.name, *address));
        answer.dropped.iter().for_each(|dropped| self.book.note(&key.name, dropped.address));
        Ok(until)
    }

    fn not_opened(&self, name: &Arc<str>, error: &PermitError, now: u64) -> Outcome {
        let until = self.watched.get(name).map_or(0, |watched| watched.open_until);
        let open_for = Duration::from_nanos(until.saturating_sub(now));
        let name = name.to_string();
        match error {
            PermitError::Full => Outcome::Full { name, open_for },
            error => Outcome::Unwritable { name, error: error.to_string(), open_for },
        }
    }

    /// Looks after what only time changes.
    pub(super) fn tick(&mut self, table: &mut impl PermitTable) {
        let now = self.clock.now();
        self.cache.drop_until(now);
        self.ledger.sweep(table, now);
        self.ledger.take_closed().into_iter().for_each(|address| self.book.closed(address));
        if now >= self.preference_due {
            self.preference_due = now.saturating_add(nanoseconds(PREFERENCE));
            self.exchanges.forget_preference();
        }
        let over = |flight: &Flight| now.saturating_sub(flight.since) > self.longest_flight;
        let lost: Vec<Key> =
            self.flights.iter().filter(|(_, flight)| over(flight)).map(|(key, _)| key.clone()).collect();
        for key in lost {
            self.finished((key, Err(UpstreamError::TimedOut)), table);
        }
        self.start_due(now, table);
    }

    /// Whether [`Desk::tick`] has something to look after soon.
    pub(super) fn is_busy(&self) -> bool {
        !self.flights.is_empty() || !self.watched.is_empty()
    }

    /// Numbers of answers, permits, known addresses, flights and clients that wait.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 5] {
        [self.cache.len(), self.ledger.len(), self.book.len(), self.flights.len(), self.waiting]
    }

    /// Looks at resolv.conf no more.
    pub(super) fn keep_servers(&mut self) {
        self.system_due = u64::MAX;
    }

    fn look_at_system(&mut self, now: u64) {
        if now < self.system_due {
            return;
        }
        self.system_due = now.saturating_add(nanoseconds(SYSTEM_CHECK));
        if let Some((servers, search)) = self.system.changed() {
            self.filter.set_search(search);
            if self.system_servers {
                self.exchanges.set_servers(servers);
            }
        }
    }
}

/// The desk with the table of permits beside it, where questions are taken.
pub(super) struct Counter<'a, C, T> {
    /// The desk.
    pub(super) desk: &'a mut Desk<C>,
    /// The table.
    pub(super) table: &'a mut T,
}

impl<C: Clock, T: PermitTable> Take for Counter<'_, C, T> {
    fn take(&mut self, bytes: &[u8], way: Way, asker: Asker) -> bool {
        self.desk.question(bytes, way, asker, self.table)
    }
}

/// How to judge what comes back for a name. In audit mode nothing is taken out, but it is told what would be.
fn judge(key: Key, rules: Arc<[HostRule]>, compiled: Arc<Compiled>) -> Judge {
    Arc::new(move |bytes, id| {
        let terms = Terms { rules: &rules, keep_ech: compiled.dns.keep_ech, audit: compiled.audit };
        // What is refused as a whole needs no further reason.
        let denied = |name: &str| compiled.denied_name(name).filter(|_| key.opens);
        answer::judge(bytes, id, &key.name, key.query_type, &terms, denied)
    })
}

/// Whether a question that is refused could be asked upstream at all: in class IN, of a type that is no transfer and no
/// "any" (RFC 6895 §3.1: meta types begin at 128).
fn can_be_asked(question: &Question) -> bool {
    question.class == 1 && !(128..=255).contains(&question.query_type) && question.query_type != 0
}

fn key_of(waiter: &Waiter, opens: bool) -> Key {
    let question = &waiter.question;
    Key { name: question.name.text().into(), query_type: question.query_type, opens }
}

/// Seconds that a client may keep an address that closes then.
fn longest(open_until: u64, now: u64) -> u32 {
    let left = open_until.saturating_sub(now).saturating_sub(nanoseconds(MARGIN)) / SECOND;
    u32::try_from(left).unwrap_or(u32::MAX).min(LONGEST)
}
