//! Sockets that are alive when a policy comes into force: those of the scope that do not fit are destroyed, and those that a
//! process of the scope has from outside are silenced, since no hook would ever see them.
//!
//! Receives a policy's tables in memory; tells of each socket once, as the hooks tell of attempts. What is cut here is
//! counted in [`Destroyed`], not by the kernel, which does not see it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
};

use egress_common::{
    Address, Decision, Event, Flow, Hook, Peer, Reason, RuleId, Tag, Transport, Verdict, question::PORTS,
};
use zerocopy::IntoBytes as _;

use super::{
    addresses::own_addresses,
    cgroup::Cgroup,
    confine::tell::{escape, owner},
    held::{self, Held},
    namespace,
};
use crate::{
    compile::memory::MemoryTables,
    dns::clock::{BootClock, Clock as _},
    enforce::{
        Engine,
        sock_diag::{Listed, SockDiag},
    },
};

/// Rounds of silencing what processes hand on to each other meanwhile.
const ROUNDS: usize = 3;

/// What became of the sockets that were alive.
#[derive(Debug, Default)]
pub struct Destroyed {
    /// Flows that did not fit: the program has its error.
    pub cut: u64,
    /// Flows that fit, and go on.
    pub kept: u64,
    /// Flows that did not fit and that this kernel cannot destroy: each of their packets is refused, and the program waits
    /// until its own patience ends.
    pub not_possible: u64,
    /// Sockets from outside the scope that will never send again.
    pub silenced: u64,
    /// Sockets from outside the scope that go on sending what they like: which, and why they could not be silenced.
    pub escaping: Vec<String>,
    /// What could not be looked at: a process, a network namespace, and why.
    pub unseen: Vec<String>,
}

/// Hears the bytes of an [`Event`] or an [`egress_common::Escape`], as they come through the event ring.
pub type Tell<'a> = &'a mut dyn FnMut(&[u8]);

/// The sockets of a scope.
pub(super) struct Live<'a> {
    engine: &'a Engine,
    cgroup: &'a Cgroup,
    /// Everything at or below the scope's cgroup.
    cgroups: BTreeSet<u64>,
    audit: bool,
    views: Vec<View>,
    held: Vec<Held>,
}

/// One network namespace.
struct View {
    diag: SockDiag,
    addresses: BTreeSet<Address>,
    sockets: Vec<Listed>,
}

impl<'a> Live<'a> {
    /// Finds them: by cgroup in each network namespace that the scope's processes, or sockets of theirs, are in.
    pub(super) fn find(engine: &'a Engine, cgroup: &'a Cgroup, audit: bool, found: &mut Destroyed) -> Self {
        let mut known = BTreeSet::new();
        let mut held = Vec::new();
        let mut namespaces = BTreeMap::new();
        for process in cgroup.processes() {
            let mut note = |error: io::Error| {
                if !is_gone(&error) {
                    found.unseen.push(format!("process {process}: {error}"));
                }
            };
            let mut enter = |namespace: io::Result<File>| {
                let identity = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
                namespace.and_then(|file| Ok(namespaces.entry(identity(&file)?).or_insert(file))).map(drop)
            };
            enter(File::open(format!("/proc/{process}/ns/net"))).unwrap_or_else(&mut note);
            match held::sockets(process, &mut known) {
                Ok(sockets) => {
                    for socket in &sockets {
                        enter(socket.namespace()).unwrap_or_else(&mut note);
                    }
                    held.extend(sockets);
                }
                Err(error) => note(error),
            }
        }
        let mut views = Vec::new();
        for ((_, inode), namespace) in &namespaces {
            match View::of(namespace) {
                Ok(view) => views.push(view),
                Err(error) => found.unseen.push(format!("network namespace {inode}: {error}")),
            }
        }
        Self { engine, cgroup, cgroups: cgroup.ids(), audit, views, held }
    }

    /// Silences what comes from outside the scope, and marks what is the scope's and older than its programs. `true` if
    /// anything was silenced.
    fn settle(&self, found: &mut Destroyed, tell: Tell<'_>) -> bool {
        let mut silenced = false;
        for held in &self.held {
            let listed = self.views.iter().find_map(|view| {
                view.sockets.iter().find(|socket| socket.inode == held.inode).map(|socket| (view, socket))
            });
            match self.is_of_scope(held, listed.map(|(_, socket)| socket)) {
                Ok(true) => {}
                Ok(false) => silenced |= self.silence(held, listed, found, tell),
                Err(reason) => found.unseen.push(format!("a socket of process {}: {reason}", held.process)),
            }
        }
        silenced
    }

    fn is_of_scope(&self, held: &Held, listed: Option<&Listed>) -> Result<bool, String> {
        if self.engine.tag(held.as_fd()).map_err(|error| error.to_string())?.is_some() {
            return Ok(true);
        }
        let own = match listed.and_then(|socket| socket.cgroup) {
            Some(cgroup) => self.cgroups.contains(&cgroup),
            // Nothing is refused in audit mode, so nothing could be learnt.
            None if self.audit => true,
            None => held.is_seen_by_hooks().map_err(|error| error.to_string())?,
        };
        if own {
            self.engine.adopt(held.as_fd(), self.cgroup.id()).map_err(|error| error.to_string())?;
        }
        Ok(own)
    }

    fn silence(
        &self,
        held: &Held,
        listed: Option<(&View, &Listed)>,
        found: &mut Destroyed,
        tell: Tell<'_>,
    ) -> bool {
        let text = match listed {
            Some((_, socket)) if socket.is_connected() => {
                format!("{} socket connected to {} port {}", name(socket), socket.remote.0, socket.remote.1)
            }
            Some((_, socket)) => format!("{} socket bound to port {}", name(socket), socket.local.1),
            None => format!("socket of type {} and protocol {}", held.kind, held.protocol),
        };
        let owner = owner(held.process).unwrap_or_default();
        let scope = self.cgroup.id();
        tell(escape(Hook::Connect, Reason::Descriptor, &text, scope, owner, self.audit).as_bytes());
        if self.audit {
            return false;
        }
        if let Some((view, socket)) = listed {
            // Whether it can be or not, silencing decides.
            let _may_fail = view.diag.destroy(socket);
        }
        match held.silence() {
            Ok(()) => {
                found.silenced += 1;
                // Known from now on, as nobody's: told once. If it cannot be noted, it is told again.
                let _told_again = self.engine.adopt(held.as_fd(), 0);
            }
            Err(error) => found.escaping.push(format!("process {}: {text}: {error}", held.process)),
        }
        true
    }

    /// Destroys the scope's flows that do not fit.
    fn cut(&self, standard: &Standard<'_>, found: &mut Destroyed, tell: Tell<'_>) {
        let held: BTreeMap<u32, &Held> = self.held.iter().map(|held| (held.inode, held)).collect();
        for view in &self.views {
            for socket in view.sockets.iter().filter(|socket| socket.is_connected() && self.is_own(socket)) {
                let held = held.get(&socket.inode).copied();
                let peer = self.peer(view, socket);
                let decision = standard.judge(socket, peer);
                let decision = self.outlast(standard, socket, held, decision);
                let decision = decision.in_mode(&standard.tables.scope());
                if standard.before && decision.passes() {
                    continue;
                }
                if decision.passes() {
                    found.kept += 1;
                } else if let Err(error) = view.diag.destroy(socket) {
                    // It ended by itself, or is looked at again.
                    if error.raw_os_error() == Some(libc::ENOENT) || standard.before {
                        continue;
                    }
                    found.not_possible += 1;
                } else {
                    found.cut += 1;
                }
                if decision.verdict != Verdict::Allow {
                    tell(self.event(socket, decision, held).as_bytes());
                }
            }
        }
    }

    /// A connection that was approved goes on though address translation, or the end of an answer's time, hides why, as long
    /// as its rule stands: it is approved anew.
    fn outlast(
        &self,
        standard: &Standard<'_>,
        socket: &Listed,
        held: Option<&Held>,
        decision: Decision,
    ) -> Decision {
        let (Some(held), Some(before), Transport::Tcp) = (held, &standard.replaced, socket.transport) else {
            return decision;
        };
        let Ok(Some(tag)) = self.engine.tag(held.as_fd()) else { return decision };
        if tag.epoch != before.epoch || (tag.address, tag.port) != socket.remote {
            return decision;
        }
        let decision = match (decision.reason, before.rules.get(&tag.rule)) {
            (Reason::Rule | Reason::Permit, _) if decision.verdict == Verdict::Allow => decision,
            (Reason::Expired | Reason::NoRule, Some(rule)) if tag.reason == Reason::Permit as u8 => {
                Decision::allow(Reason::Permit, *rule)
            }
            _ => return decision,
        };
        if !standard.before {
            let tag =
                Tag { epoch: standard.epoch, rule: decision.rule, reason: decision.reason as u8, ..tag };
            // Without, each packet is judged by its own destination.
            let _judged = self.engine.approve(held.as_fd(), &tag);
        }
        decision
    }

    fn is_own(&self, socket: &Listed) -> bool {
        socket.cgroup.is_some_and(|cgroup| self.cgroups.contains(&cgroup))
    }

    /// Who is at the other end, as far as that is on this host. Nobody counts as the scope's own, as at a connect.
    fn peer(&self, view: &View, socket: &Listed) -> Peer {
        let (address, port) = socket.remote;
        let hears = |other: &&Listed| match socket.transport {
            Transport::Tcp => other.local == socket.remote && other.remote == socket.local,
            _ => {
                let (at, of) = other.local;
                of == port
                    && (at == address || is_any(at))
                    && (other.remote.1 == 0 || other.remote == socket.local)
            }
        };
        let same = view.sockets.iter().filter(|other| other.transport == socket.transport);
        let local = is_loopback(address) || view.addresses.contains(&address);
        match same.filter(|other| other.cookie != socket.cookie).find(hears) {
            _ if !local => Peer::Remote,
            Some(other) if !self.is_own(other) => Peer::Foreign,
            _ => Peer::Own,
        }
    }

    fn event(&self, socket: &Listed, decision: Decision, held: Option<&Held>) -> Event {
        let kind = if socket.transport == Transport::Tcp { libc::SOCK_STREAM } else { libc::SOCK_DGRAM };
        Event {
            time: BootClock.now(),
            scope: self.cgroup.id(),
            cgroup: socket.cgroup.unwrap_or_default(),
            cookie: socket.cookie,
            owner: held.and_then(|held| owner(held.process)).unwrap_or_default(),
            address: socket.remote.0,
            port: socket.remote.1,
            protocol: u16::from(socket.transport as u8),
            rule: decision.rule,
            family: socket.family,
            socket_type: u8::try_from(kind).unwrap_or_default(),
            hook: Hook::Connect as u8,
            verdict: decision.verdict as u8,
            reason: decision.reason as u8,
            pad: [0; 3],
        }
    }
}

/// Silences what comes from outside, until nothing new is found, and marks what is the scope's own.
pub(super) fn settle(engine: &Engine, cgroup: &Cgroup, audit: bool, found: &mut Destroyed, tell: Tell<'_>) {
    for _ in 0..ROUNDS {
        found.unseen.clear();
        if !Live::find(engine, cgroup, audit, found).settle(found, tell) {
            break;
        }
    }
}

/// What flows are judged by.
pub(super) struct Standard<'a> {
    /// The policy.
    pub(super) tables: &'a MemoryTables,
    /// First port of the scope's DNS listeners; 0: there are none.
    pub(super) dns_port: u16,
    /// Its epoch.
    pub(super) epoch: u32,
    /// The policy before.
    pub(super) replaced: Option<Replaced>,
    /// It is not in force yet: whatever cannot be destroyed is looked at again.
    pub(super) before: bool,
}

/// The policy that was in force before.
pub(super) struct Replaced {
    /// Its epoch.
    pub(super) epoch: u32,
    /// Its host rules that go on, with their new numbers.
    pub(super) rules: BTreeMap<RuleId, RuleId>,
}

/// Destroys the scope's flows that do not fit.
pub(super) fn cut(
    engine: &Engine,
    cgroup: &Cgroup,
    standard: &Standard<'_>,
    found: &mut Destroyed,
    tell: Tell<'_>,
) {
    found.kept = 0;
    found.unseen.clear();
    standard.tables.set_now(BootClock.now());
    let live = Live::find(engine, cgroup, standard.tables.scope().audit == 1, found);
    live.cut(standard, found, tell);
}

impl Standard<'_> {
    /// As the packet hook judges: what answers from a port that `inbound:` opens goes on, and so do questions to the scope's
    /// own listener.
    fn judge(&self, socket: &Listed, peer: Peer) -> Decision {
        let (address, port) = socket.remote;
        if self.dns_port != 0 && is_loopback(address) && port.wrapping_sub(self.dns_port) < PORTS {
            return Decision::allow(Reason::Dns, 0);
        }
        let local_port = if socket.transport == Transport::Tcp { socket.local.1 } else { 0 };
        self.tables.decide(&Flow { transport: socket.transport, address, port, local_port, peer })
    }
}

impl View {
    fn of(file: &File) -> io::Result<Self> {
        let (diag, addresses) = namespace::within(file, || (SockDiag::open(), own_addresses()))?;
        let diag = diag?;
        let addresses = addresses?.into_iter().map(Address::from).collect();
        let sockets = diag.list()?;
        Ok(Self { diag, addresses, sockets })
    }
}

fn name(socket: &Listed) -> &'static str {
    if socket.transport == Transport::Tcp { "tcp" } else { "udp" }
}

fn is_loopback(address: Address) -> bool {
    address.to_ip().is_loopback()
}

fn is_any(address: Address) -> bool {
    address.to_ip().is_unspecified()
}

/// The process has ended.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}
