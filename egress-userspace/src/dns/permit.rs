//! Names to permits: resolves the names that a policy allows and writes what may be reached under them, with an
//! expiry that the kernel judges.
//!
//! Never shortens a permit and never takes one back inside its time; a full table fails the new entry alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use egress_common::{Address, Permit, PermitKey, names::covers};
use thiserror::Error;
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

pub use super::outcome::Outcome;
use super::{
    clock::{BootClock, Clock},
    normal,
    resolver::{Answer, Lookup, ResolveError, Resolver},
    special::refusal,
};
use crate::compile::{Compiled, HostRule};

/// Shortest and longest time that an answer is taken to be good for.
const TTL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));

/// What clients get on top: they looked the name up later than we did.
const GRACE: Duration = Duration::from_secs(30);

/// Shortest and longest pause before a failed lookup is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// Expired permits stay this long, so that a denial can name the rule whose time was over.
const KEEP: Duration = Duration::from_secs(3600);

/// Longest sleep of [`Permits::refresh`]: timers stand still while the machine sleeps, permits do not.
const LONGEST_SLEEP: Duration = Duration::from_secs(15);

/// Lookups at a time: each has two sockets, of which a process may have 1,024, and a burst would overrun the server.
const AT_ONCE: usize = 128;

/// The table of permits, in the kernel or in memory.
pub trait PermitTable {
    /// Adds or replaces an entry.
    fn write(&mut self, key: &PermitKey, permit: &Permit) -> Result<(), PermitError>;

    /// Removes an entry; that there is none is no error.
    fn remove(&mut self, key: &PermitKey) -> Result<(), PermitError>;
}

/// Why a permit could not be written or removed.
#[derive(Debug, Error)]
pub enum PermitError {
    /// No room for a new entry.
    #[error("the table of permits is full")]
    Full,
    /// The table cannot be written at all.
    #[error("cannot write the table of permits: {0}")]
    Io(#[from] std::io::Error),
}

/// A name, the rules that allow it, and when it is to be looked up.
#[derive(Debug)]
struct Watched {
    rules: Vec<HostRule>,
    /// `CLOCK_BOOTTIME` ns.
    due: u64,
    /// `CLOCK_BOOTTIME` ns until which some address of an answer is open.
    open_until: u64,
    failures: u32,
    asked: bool,
}

/// The names of a policy and the permits they have.
#[derive(Debug)]
pub struct Permits<L = Resolver, C = BootClock> {
    slot: u32,
    lookup: Arc<L>,
    gate: Arc<Semaphore>,
    clock: C,
    names: BTreeMap<String, Watched>,
    written: BTreeMap<PermitKey, Permit>,
    running: JoinSet<(String, Result<Answer, ResolveError>)>,
}

impl<L: Lookup> Permits<L> {
    /// For the exact names of a policy, apart from those that it denies, in a slot of the tables.
    pub fn new(compiled: &Compiled, slot: u32, lookup: Arc<L>) -> Self {
        Self::with_clock(compiled, slot, lookup, BootClock)
    }
}

impl<L: Lookup, C: Clock> Permits<L, C> {
    /// As [`Permits::new`], with a clock of the caller's.
    pub fn with_clock(compiled: &Compiled, slot: u32, lookup: Arc<L>, clock: C) -> Self {
        let denied = |name: &str| compiled.denied_hosts.iter().any(|(pattern, _)| covers(pattern, name));
        let mut names: BTreeMap<String, Watched> = BTreeMap::new();
        for rule in &compiled.hosts {
            let name = normal(&rule.host);
            if name.contains('*') || denied(&name) {
                continue;
            }
            let fresh = || Watched { rules: Vec::new(), due: 0, open_until: 0, failures: 0, asked: false };
            names.entry(name).or_insert_with(fresh).rules.push(rule.clone());
        }
        let gate = Arc::new(Semaphore::new(AT_ONCE));
        Self { slot, lookup, gate, clock, names, written: BTreeMap::new(), running: JoinSet::new() }
    }

    /// Looks every name up at once and writes the permits; a name that is not resolved within the bound has failed
    /// and is tried again later. For the time before the command starts. Outcomes are sorted by name.
    pub async fn resolve_all<T: PermitTable>(&mut self, table: &mut T, bound: Duration) -> Vec<Outcome> {
        let names: Vec<String> = self.names.keys().cloned().collect();
        names.into_iter().for_each(|name| self.ask(name));
        let mut outcomes = Vec::new();
        let finished = async {
            while let Some(done) = self.next_finished().await {
                outcomes.extend(self.take(table, done));
            }
        };
        if timeout(bound, finished).await.is_err() {
            self.running.abort_all();
        }
        let unanswered: Vec<String> =
            self.names.iter().filter(|(_, watched)| watched.asked).map(|(name, _)| name.clone()).collect();
        for name in unanswered {
            outcomes.extend(self.take(table, (name, Err(ResolveError::TimedOut))));
        }
        outcomes.sort_by(|a, b| a.name().cmp(b.name()));
        outcomes
    }

    /// When [`Permits::refresh`] has something to do, `None` if there is no name to look after.
    pub fn next_due(&self) -> Option<Instant> {
        if !self.running.is_empty() {
            return Some(Instant::now());
        }
        let due = self.names.values().map(|watched| watched.due).min()?;
        let wait = Duration::from_nanos(due.saturating_sub(self.clock.now()));
        Some(Instant::now() + wait.min(LONGEST_SLEEP))
    }

    /// Sleeps until a name is due or a lookup is over, starts and collects lookups, and gives what came of them (often
    /// nothing). Call it again and again, as a branch of a `select!`: dropping it half way loses nothing, since the
    /// lookups go on by themselves. With no name to look after it never ends.
    pub async fn refresh<T: PermitTable>(&mut self, table: &mut T) -> Vec<Outcome> {
        if self.running.is_empty() {
            // A lookup that panicked left its name marked.
            self.names.values_mut().for_each(|watched| watched.asked = false);
        }
        self.start_due();
        let wake = self.names.values().filter(|watched| !watched.asked).map(|watched| watched.due).min();
        let wait = wake.map_or(LONGEST_SLEEP, |due| {
            Duration::from_nanos(due.saturating_sub(self.clock.now())).min(LONGEST_SLEEP)
        });
        if self.names.is_empty() {
            return std::future::pending().await;
        }
        if self.running.is_empty() {
            tokio::time::sleep(wait).await;
            self.start_due();
            return Vec::new();
        }
        let Ok(Some(done)) = timeout(wait, self.next_finished()).await else {
            return Vec::new();
        };
        self.sweep(table, KEEP);
        self.take(table, done)
    }

    fn start_due(&mut self) {
        let now = self.clock.now();
        let due = |watched: &Watched| !watched.asked && watched.due <= now;
        let names: Vec<String> =
            self.names.iter().filter(|(_, watched)| due(watched)).map(|(name, _)| name.clone()).collect();
        names.into_iter().for_each(|name| self.ask(name));
    }

    fn ask(&mut self, name: String) {
        if let Some(watched) = self.names.get_mut(&name) {
            watched.asked = true;
        }
        let (lookup, gate) = (Arc::clone(&self.lookup), Arc::clone(&self.gate));
        self.running.spawn(async move {
            // Never closed, so always passed in the end.
            let _passed = gate.acquire().await;
            let answer = lookup.lookup(&name).await;
            (name, answer)
        });
    }

    async fn next_finished(&mut self) -> Option<(String, Result<Answer, ResolveError>)> {
        loop {
            // A lookup that was aborted has no answer; its name stays marked and is found by the caller.
            if let Ok(done) = self.running.join_next().await? {
                return Some(done);
            }
        }
    }

    /// Writes what a lookup found and sets when the name is next due.
    fn take<T: PermitTable>(
        &mut self,
        table: &mut T,
        (name, result): (String, Result<Answer, ResolveError>),
    ) -> Vec<Outcome> {
        let now = self.clock.now();
        let Some(watched) = self.names.get_mut(&name) else { return Vec::new() };
        watched.asked = false;
        let rules = watched.rules.clone();
        let (outcomes, next) = match result {
            Err(error) => {
                let open_for = self.open_for(&name, now);
                (vec![Outcome::Failed { name: name.clone(), error, open_for }], None)
            }
            Ok(answer) => self.open(table, &name, &rules, &answer, now),
        };
        if let Some(watched) = self.names.get_mut(&name) {
            watched.failures = if next.is_some() { 0 } else { watched.failures.saturating_add(1) };
            let wait = next.unwrap_or_else(|| backoff(watched.failures));
            watched.due = now.saturating_add(nanoseconds(wait));
        }
        outcomes
    }

    /// Opens the addresses of an answer; also gives the time until the next lookup, `None` for "as after a failure".
    fn open<T: PermitTable>(
        &mut self,
        table: &mut T,
        name: &str,
        rules: &[HostRule],
        answer: &Answer,
        now: u64,
    ) -> (Vec<Outcome>, Option<Duration>) {
        let mut outcomes = Vec::new();
        let mut opened = Vec::new();
        let mut added = BTreeSet::new();
        let (mut shortest, mut longest) = (TTL.1, 0);
        for found in &answer.addresses {
            let ttl = found.ttl.clamp(TTL.0, TTL.1);
            let expires = now.saturating_add(nanoseconds(ttl + GRACE));
            shortest = shortest.min(ttl);
            // The kernel looks an address up by what it embeds.
            let address = Address::from(found.address).judged();
            let (open, refused) = sort_rules(rules, found.address);
            if open.is_empty() {
                let why = refused.unwrap_or("no rule opens it");
                outcomes.push(Outcome::Refused { name: name.to_owned(), address: found.address, why });
                continue;
            }
            let permits = open.iter().flat_map(|rule| rule.permits(self.slot, address, expires));
            if let Err(error) = self.write_all(table, permits.collect(), now, &mut added) {
                self.take_back(table, &added);
                let (name, open_for) = (name.to_owned(), self.open_for(name, now));
                outcomes.push(match error {
                    PermitError::Full => Outcome::Full { name, open_for },
                    PermitError::Io(error) => {
                        Outcome::Unwritable { name, error: error.to_string(), open_for }
                    }
                });
                return (outcomes, None);
            }
            opened.push(found.address);
            longest = longest.max(expires);
        }
        if let Some(watched) = self.names.get_mut(name) {
            watched.open_until = watched.open_until.max(longest);
        }
        if !opened.is_empty() {
            let missing = answer.missing.clone();
            outcomes.insert(
                0,
                Outcome::Opened { name: name.to_owned(), addresses: opened, ttl: shortest, missing },
            );
        }
        (outcomes, Some((shortest * 3 / 4).max(RETRY.0)))
    }

    fn open_for(&self, name: &str, now: u64) -> Duration {
        let until = self.names.get(name).map_or(0, |watched| watched.open_until);
        Duration::from_nanos(until.saturating_sub(now))
    }

    /// Writes permits, keeping of two for one key the one that lasts longer; notes the keys that are new.
    fn write_all<T: PermitTable>(
        &mut self,
        table: &mut T,
        permits: Vec<(PermitKey, Permit)>,
        now: u64,
        added: &mut BTreeSet<PermitKey>,
    ) -> Result<(), PermitError> {
        for (key, permit) in permits {
            let known = self.written.get(&key);
            if known.is_some_and(|known| known.expires >= permit.expires) {
                continue;
            }
            let new = known.is_none();
            let mut result = table.write(&key, &permit);
            if matches!(result, Err(PermitError::Full)) && self.sweep_expired(table, now) {
                result = table.write(&key, &permit);
            }
            result?;
            self.written.insert(key, permit);
            if new {
                added.insert(key);
            }
        }
        Ok(())
    }

    /// Removes what one name's lookup added before the table was full.
    fn take_back<T: PermitTable>(&mut self, table: &mut T, added: &BTreeSet<PermitKey>) {
        for key in added {
            self.forget(table, key);
        }
    }

    fn sweep<T: PermitTable>(&mut self, table: &mut T, age: Duration) -> bool {
        let before = self.clock.now().saturating_sub(nanoseconds(age));
        self.sweep_expired(table, before)
    }

    /// Removes permits that expired by `until`; whether there were any.
    fn sweep_expired<T: PermitTable>(&mut self, table: &mut T, until: u64) -> bool {
        let old: Vec<PermitKey> =
            self.written.iter().filter(|(_, permit)| permit.expires <= until).map(|(key, _)| *key).collect();
        old.iter().for_each(|key| self.forget(table, key));
        !old.is_empty()
    }

    /// An entry that cannot be removed stays known, so that it is tried again and expires by itself meanwhile.
    fn forget<T: PermitTable>(&mut self, table: &mut T, key: &PermitKey) {
        if table.remove(key).is_ok() {
            self.written.remove(key);
        }
    }
}

/// The rules under which a name opens an address, and why the others do not.
fn sort_rules(rules: &[HostRule], address: IpAddr) -> (Vec<&HostRule>, Option<&'static str>) {
    let mut refused = None;
    let open = rules
        .iter()
        .filter(|rule| match refusal(address, rule.private) {
            None => true,
            Some(why) => {
                refused = Some(why);
                false
            }
        })
        .collect();
    (open, refused)
}

fn backoff(failures: u32) -> Duration {
    let doubled = RETRY.0.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(RETRY.1)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
