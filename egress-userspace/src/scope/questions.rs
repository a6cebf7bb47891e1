//! The scope's questions in the kernel and in userspace: opens a listener in each network namespace that its processes ask
//! from, keeps the kernel's table of listeners true, and has the service answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    time::{Duration, Instant},
};

use egress_common::{Arrival, Asker, AskerKey, ListenerKey, Transport};
use tokio::time::{Interval, MissedTickBehavior};
use zerocopy::FromBytes as _;

use super::{enforced::EnforcedScope, ring::Ring};
use crate::{
    dns::{
        clock::{BootClock, Clock as _, nanoseconds},
        listener::{self, Listener},
        permit::PermitTable,
        service::{Askers, Happened, Service},
        told::{DnsReason, Told},
    },
    enforce::{self, EnforceError, Engine},
};

/// How long a listener counts as alive after a sign of life, and how often it gives one. Not shorter, or a busy machine
/// would close DNS; not longer, since a dead one's port may be somebody else's.
const LIFE: Duration = Duration::from_secs(5);
const BEAT: Duration = Duration::from_secs(1);

/// Arrivals taken at a time.
const AT_ONCE: usize = 64;

/// Most processes looked at for one that is in a network namespace.
const SEARCHED: usize = 256;

/// Most network namespaces remembered as having no listener: fewer than the kernel's table has room for.
const REMEMBERED: usize = 512;

/// How long one stays closed: what was in the way may be gone.
const CLOSED: Duration = Duration::from_secs(10);

/// How often a namespace is looked at of which only sockets are known, no packet.
const AGAIN: Duration = Duration::from_millis(100);

/// The listeners of one scope.
pub(super) struct Questions {
    scope: u64,
    base: u16,
    /// Of the supervisor's own network namespace, until its cookie is known (before Linux 5.14 by the first question only).
    own: Option<Listener>,
    own_namespace: (u64, u64),
    serving: BTreeSet<u64>,
    /// Where there can be no listener, since when.
    closed: BTreeMap<u64, Instant>,
    /// Where none was possible yet, when that was seen, and whether for somebody who asked.
    waiting: BTreeMap<u64, (Instant, bool)>,
    arrivals: Ring,
    beat: Interval,
}

impl Questions {
    /// Opens the listener of this process's own network namespace.
    pub(super) fn open(scope: &mut EnforcedScope) -> io::Result<Self> {
        let cookie = listener::own_netns_cookie();
        let own = Listener::open(None, cookie.unwrap_or(0))?;
        let arrivals = Ring::watch(scope.engine.take_arrivals().map_err(io::Error::other)?)?;
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            scope: scope.cgroup().id(),
            base: own.base(),
            own: Some(own),
            own_namespace: identity(&File::open("/proc/thread-self/ns/net")?)?,
            serving: BTreeSet::new(),
            closed: BTreeMap::new(),
            waiting: BTreeMap::new(),
            arrivals,
            beat,
        })
    }

    /// First port of the listeners.
    pub(super) fn port(&self) -> u16 {
        self.base
    }

    /// Makes the listener of this process's own network namespace known, if its cookie is.
    pub(super) fn begin(
        &mut self,
        engine: &Engine,
        service: &mut Service<BootClock>,
    ) -> Result<(), EnforceError> {
        if listener::own_netns_cookie().is_some()
            && let Some(own) = self.own.take()
        {
            self.serve(engine, service, own)?;
        }
        Ok(())
    }

    /// Waits until something has happened; what.
    ///
    /// # Errors
    /// Reading the ring; everything else is told.
    pub(super) async fn next(
        &mut self,
        scope: &EnforcedScope,
        service: &mut Service<BootClock>,
        table: &mut impl PermitTable,
        askers: &mut impl Askers,
    ) -> io::Result<Vec<Happened>> {
        tokio::select! {
            happened = service.next(table, askers) => {
                self.forget_closed(&scope.engine, &happened);
                Ok(happened)
            }
            ready = self.arrivals.ready() => {
                ready?;
                Ok(self.take_arrivals(scope, service, table, askers))
            }
            _ = self.beat.tick() => {
                self.renew(&scope.engine);
                self.reopen(&scope.engine);
                Ok(Vec::new())
            }
        }
    }

    fn take_arrivals(
        &mut self,
        scope: &EnforcedScope,
        service: &mut Service<BootClock>,
        table: &mut impl PermitTable,
        askers: &mut impl Askers,
    ) -> Vec<Happened> {
        let mut happened = Vec::new();
        for _ in 0..AT_ONCE {
            let Some(bytes) = self.arrivals.next() else { break };
            let Ok(arrival) = Arrival::read_from_bytes(&bytes) else { continue };
            drop(bytes);
            if let Some(told) = self.arrive(scope, service, &arrival) {
                happened.push(Happened::Told(told));
            }
            if arrival.length > 0 && self.serving.contains(&arrival.key.netns) {
                service.arrival(&arrival, table, askers);
            }
        }
        happened
    }

    /// Sees that the network namespace of an arrival has a listener, or tells why it has none.
    fn arrive(
        &mut self,
        scope: &EnforcedScope,
        service: &mut Service<BootClock>,
        arrival: &Arrival,
    ) -> Option<Told> {
        let netns = arrival.key.netns;
        if self.serving.contains(&netns) || self.closed.contains_key(&netns) {
            return None;
        }
        let asks = arrival.asker.server != egress_common::Address::ZERO;
        let sent = arrival.key.port != 0;
        let lately = |(since, asked): &(Instant, bool)| since.elapsed() < AGAIN && (*asked || !asks);
        if !sent && self.waiting.get(&netns).is_some_and(lately) {
            return asks.then(|| no_listener(&arrival.key, arrival.asker));
        }
        let why = match self.open_for(scope, &arrival.asker, netns) {
            Ok(found) if found.loopback_was_up() => match self.serve(&scope.engine, service, found) {
                Ok(()) => {
                    self.waiting.remove(&netns);
                    return None;
                }
                Err(error) => error.to_string(),
            },
            // It may come up yet, so the next question tries again.
            Ok(_) => return self.wait(arrival, asks),
            // Who only made a socket may be gone already.
            Err(_) if !sent => return self.wait(arrival, asks),
            Err(error) => error.to_string(),
        };
        tracing::warn!(netns, why, "no DNS listener in a network namespace");
        self.close(&scope.engine, netns);
        Some(no_listener(&arrival.key, arrival.asker))
    }

    /// Leaves a network namespace alone for a moment, and tells of it if somebody is about to ask.
    fn wait(&mut self, arrival: &Arrival, asks: bool) -> Option<Told> {
        if self.waiting.len() >= REMEMBERED {
            self.waiting.clear();
        }
        self.waiting.insert(arrival.key.netns, (Instant::now(), asks));
        asks.then(|| no_listener(&arrival.key, arrival.asker))
    }

    /// A listener in the network namespace with this cookie: the asking process is in it, or another one of the scope.
    fn open_for(&mut self, scope: &EnforcedScope, asker: &Asker, netns: u64) -> io::Result<Listener> {
        let mut tried = BTreeSet::new();
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        // A thread can be in a namespace of its own.
        let thread = format!("{}/task/{}", asker.owner.tgid, asker.owner.pid);
        let others = scope.cgroup().processes().into_iter().map(|process| process.to_string());
        for process in std::iter::once(thread).chain(others).take(SEARCHED) {
            let Ok(namespace) = File::open(format!("/proc/{process}/ns/net")) else { continue };
            let identity = identity(&namespace)?;
            if !tried.insert(identity) {
                continue;
            }
            if identity == self.own_namespace {
                match self.own.take() {
                    Some(own) => return Ok(own.with_netns(netns)),
                    None => continue,
                }
            }
            match Listener::open_in(namespace.as_fd(), Some(self.base), netns) {
                Ok(found) => return Ok(found),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn serve(
        &mut self,
        engine: &Engine,
        service: &mut Service<BootClock>,
        found: Listener,
    ) -> Result<(), EnforceError> {
        let netns = found.netns();
        let evicted = service.add(found).map_err(|error| EnforceError::other("serve questions", error))?;
        if let Some(evicted) = evicted {
            self.serving.remove(&evicted);
            engine.remove_listener(&self.key(evicted))?;
        }
        engine.set_listener(&self.key(netns), expiry())?;
        self.serving.insert(netns);
        Ok(())
    }

    /// Has the kernel refuse questions from a network namespace.
    fn close(&mut self, engine: &Engine, netns: u64) {
        if self.closed.len() >= REMEMBERED
            && let Some((first, _)) = self.closed.pop_first()
        {
            let _stays_closed = engine.remove_listener(&self.key(first));
        }
        if engine.set_listener(&self.key(netns), 0).is_ok() {
            self.closed.insert(netns, Instant::now());
        }
    }

    /// The next question from where it was closed long ago is as the first.
    fn reopen(&mut self, engine: &Engine) {
        let over = self.closed.extract_if(.., |_, since| since.elapsed() >= CLOSED);
        for netns in over.map(|(netns, _)| netns).collect::<Vec<_>>() {
            let _stays_closed = engine.remove_listener(&self.key(netns));
        }
    }

    /// The next question from where a listener was closed is as the first.
    fn forget_closed(&mut self, engine: &Engine, happened: &[Happened]) {
        for happened in happened {
            if let Happened::Closed(netns) = happened {
                self.serving.remove(netns);
                let _renewed_no_more = engine.remove_listener(&self.key(*netns));
            }
        }
    }

    /// Has the kernel refuse all questions: the ports are about to be anybody's, and processes may go on in the scope.
    pub(super) fn end(&self, engine: &Engine) {
        self.set_all(engine, 0);
    }

    fn renew(&self, engine: &Engine) {
        self.set_all(engine, expiry());
    }

    fn set_all(&self, engine: &Engine, expires: u64) {
        for &netns in &self.serving {
            if let Err(error) = engine.set_listener(&self.key(netns), expires) {
                tracing::warn!(netns, expires, %error, "a DNS listener could not be renewed or closed");
            }
        }
    }

    fn key(&self, netns: u64) -> ListenerKey {
        ListenerKey { scope: self.scope, netns }
    }
}

fn expiry() -> u64 {
    BootClock.now().saturating_add(nanoseconds(LIFE))
}

/// What tells two namespaces apart as long as both live.
fn identity(namespace: &File) -> io::Result<(u64, u64)> {
    let metadata = namespace.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

fn no_listener(key: &AskerKey, asker: Asker) -> Told {
    let transport = Transport::from_protocol(key.transport).unwrap_or(Transport::Udp);
    Told::refused(BootClock.now(), DnsReason::NoListener, asker, transport)
}

/// The kernel's table of askers, as the service knows it.
pub(super) struct KernelAskers<'a>(pub(super) enforce::Askers<'a>);

impl Askers for KernelAskers<'_> {
    fn take(&mut self, key: &AskerKey) -> Option<Asker> {
        self.0.take(key).unwrap_or_else(|error| {
            tracing::warn!(%error, "a question's client could not be read");
            None
        })
    }
}
