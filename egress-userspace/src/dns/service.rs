//! The loop that ties the parts together: clients' questions in, replies out, permits written in between.
//!
//! One thread, no locks. Whoever drives it calls [`Service::next`] again and again; each call does a bounded amount of work.

mod desk;
mod waiter;
mod watch;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use egress_common::{Arrival, question::PAYLOAD};
use tokio::time::sleep_until;

use self::desk::{Counter, Desk};
pub use super::sockets::Askers;
use super::{
    clock::Clock, hosts::Hosts, listener::Listener, names::NameBook, outcome::Outcome, permit::PermitTable,
    sockets::Sockets, told::Told, upstream,
};
use crate::compile::Compiled;

/// Timers are looked after this often while something depends on them.
const TICK: Duration = Duration::from_secs(1);

/// And this often otherwise: they stand still while the machine sleeps, permits do not.
const LONG_TICK: Duration = Duration::from_secs(15);

/// Rounds in which what clients have sent before the end is taken: more than buffers hold.
const LAST_ROUNDS: usize = 8_192;

/// Exchanges taken at a time that are over.
const FINISHED: usize = 256;

/// Whom to ask.
#[derive(Clone, Debug)]
pub enum Upstreams {
    /// The servers of resolv.conf(5), read again when it changes.
    System,
    /// These.
    List(Vec<SocketAddr>),
}

/// What a service is made from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The policy; in audit mode every name is answered.
    pub compiled: Arc<Compiled>,
    /// Its slot in the tables.
    pub slot: u32,
    /// The hosts file.
    pub hosts: Hosts,
    /// Whom to ask.
    pub upstream: Upstreams,
    /// The file of [`Upstreams::System`] and of the search suffixes.
    pub resolv_conf: PathBuf,
    /// How long and how often to ask.
    pub limits: upstream::Limits,
}

/// Something to be told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Happened {
    /// A question came to an end.
    Told(Told),
    /// A name was looked up without a question, or its permits could not be written.
    Names(Outcome),
    /// The listener of this network namespace was closed because nobody used it; its entry in the table of listeners is
    /// to be removed, so that the next question brings an [`Arrival`].
    Closed(u64),
    /// So many questions got lost, since a buffer or the table of askers was full, or they came from outside the scope:
    /// nobody answered them, and nothing of them left the host.
    Lost(u64),
}

/// Answers the questions of one scope.
pub struct Service<C> {
    sockets: Sockets,
    desk: Desk<C>,
    tick_at: Instant,
}

impl<C: Clock> Service<C> {
    /// Without a listener; inside a runtime with one thread.
    ///
    /// # Errors
    /// The kernel gives no epoll instance.
    pub fn new(settings: Settings, clock: C) -> io::Result<Self> {
        Ok(Self { sockets: Sockets::new()?, desk: Desk::new(settings, clock), tick_at: Instant::now() })
    }

    /// Serves a network namespace. Beyond a bound of namespaces, the one that asked nothing for longest is closed and
    /// given: its entry in the table of listeners is to be removed.
    ///
    /// # Errors
    /// The sockets cannot be watched.
    pub fn add(&mut self, listener: Listener) -> io::Result<Option<u64>> {
        self.sockets.add(listener)
    }

    /// Stops serving a network namespace.
    pub fn close(&mut self, netns: u64) {
        self.sockets.close(netns);
    }

    /// Whether a network namespace is served.
    pub fn has(&self, netns: u64) -> bool {
        self.sockets.has(netns)
    }

    /// Answers the question that came with a namespace's first packet, through the listener that was opened for it
    /// meanwhile. What came of it is told by [`Service::next`].
    pub fn arrival(&mut self, arrival: &Arrival, table: &mut impl PermitTable, askers: &mut impl Askers) {
        let length = usize::try_from(arrival.length).unwrap_or(usize::MAX);
        let Some(way) = self.sockets.way_of(&arrival.key) else { return };
        if length == 0 || length > PAYLOAD {
            return;
        }
        let asker = askers.take(&arrival.key).unwrap_or(arrival.asker);
        self.desk.question(&arrival.payload[..length], way, asker, table);
        self.deliver();
    }

    /// Waits for something to do and does some of it; what is to be told (often nothing). Call it again and again, as a
    /// branch of a `select!`: dropping it half way loses nothing.
    pub async fn next(&mut self, table: &mut impl PermitTable, askers: &mut impl Askers) -> Vec<Happened> {
        if self.desk.happened.is_empty() {
            let tick_at = self.tick_at.into();
            tokio::select! {
                () = self.sockets.ready() => {
                    self.sockets.serve(askers, &mut Counter { desk: &mut self.desk, table });
                }
                finished = self.desk.exchanges.next() => {
                    self.desk.finished(finished, table);
                    self.desk.collect(FINISHED, table);
                }
                () = sleep_until(tick_at) => self.tick(table),
            }
            self.deliver();
            self.schedule();
        }
        std::mem::take(&mut self.desk.happened)
    }

    /// Ends the service: what was sent to it is still refused or answered, as far as nobody has to be asked, and who waits is
    /// told that there is no answer. What is left to be told.
    pub fn leave(&mut self, table: &mut impl PermitTable, askers: &mut impl Askers) -> Vec<Happened> {
        for _ in 0..LAST_ROUNDS {
            if !self.sockets.is_ready() {
                break;
            }
            self.sockets.serve(askers, &mut Counter { desk: &mut self.desk, table });
            self.deliver();
        }
        self.desk.give_up();
        self.deliver();
        self.count_lost();
        std::mem::take(&mut self.desk.happened)
    }

    /// Opens what clients reach without asking: names of the hosts file, and with `dns.eager` every exact name. For the
    /// time before the command starts; what is not resolved within the bound goes on. Outcomes are sorted by name.
    pub async fn prepare(&mut self, table: &mut impl PermitTable, bound: Duration) -> Vec<Outcome> {
        self.desk.start_watching(table);
        let end = tokio::time::Instant::now() + bound;
        while self.desk.is_waiting_for_names() {
            tokio::select! {
                finished = self.desk.exchanges.next() => self.desk.finished(finished, table),
                () = sleep_until(end) => break,
            }
        }
        self.desk.give_up_waiting();
        let mut outcomes = Vec::new();
        self.desk.happened.retain(|happened| match happened {
            Happened::Names(outcome) => {
                outcomes.push(outcome.clone());
                false
            }
            _ => true,
        });
        outcomes.sort_by(|a, b| a.name().cmp(b.name()));
        outcomes
    }

    /// Which names opened which addresses.
    pub fn names(&self) -> &NameBook {
        &self.desk.book
    }

    /// Keeps to the name servers and search suffixes of now, for a command that could write resolv.conf: whoever names the
    /// server says which addresses are opened.
    pub fn keep_servers(&mut self) {
        self.desk.keep_servers();
    }

    fn tick(&mut self, table: &mut impl PermitTable) {
        self.desk.tick(table);
        self.desk.happened.extend(self.sockets.tick().into_iter().map(Happened::Closed));
        self.count_lost();
        self.tick_at = Instant::now() + LONG_TICK;
    }

    fn count_lost(&mut self) {
        let lost = self.sockets.take_lost();
        if lost > 0 {
            self.desk.happened.push(Happened::Lost(lost));
        }
    }

    /// A timer that has come to matter meanwhile is not waited for too long.
    fn schedule(&mut self) {
        if self.sockets.has_connections() || self.desk.is_busy() {
            self.tick_at = self.tick_at.min(Instant::now() + TICK);
        }
    }

    fn deliver(&mut self) {
        for (way, bytes) in self.desk.outbox.drain(..) {
            self.sockets.send(way, bytes);
        }
        self.sockets.flush();
    }
}

#[cfg(test)]
mod tests;
