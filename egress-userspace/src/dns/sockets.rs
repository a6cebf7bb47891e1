//! All sockets that clients reach: receives listeners, gives questions with who asks them, takes replies.
//!
//! One epoll instance holds them all, so that whoever waits waits for one descriptor. Never blocks, never waits for a
//! slow client, and hands nothing on that the kernel's table does not vouch for.

mod connection;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, RawFd},
    time::{Duration, Instant},
};

use egress_common::{Address, Asker, AskerKey, Transport};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::{Interest, unix::AsyncFd};

use self::connection::Connection;
use super::{
    batch::{self, Batch},
    listener::{self, Listener},
};

/// Most network namespaces with a listener.
const MAX_LISTENERS: usize = if cfg!(test) { 4 } else { 32 };

/// Most TCP connections.
const MAX_CONNECTIONS: usize = 128;

/// A connection without a question or progress is closed after this (RFC 7766 §6.2.3).
const IDLE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// A listener without a question is closed after this: it would keep its network namespace alive.
const UNUSED: Duration = Duration::from_secs(600);

/// Ready sockets taken at a time, which bounds the work of a round.
const READY: usize = 4;

/// Connections accepted at a time.
const ACCEPT: usize = 16;

/// The kernel's table of those who ask.
pub trait Askers {
    /// Takes the entry out; `None` if there is none: the packet is not from the scope.
    fn take(&mut self, key: &AskerKey) -> Option<Asker>;
}

/// Which way a question came, and its reply goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    /// Over a UDP socket of a listener.
    Udp { netns: u64, index: usize, to: SocketAddr },
    /// Over a connection.
    Tcp { connection: u64 },
}

impl Way {
    /// How.
    pub(super) fn transport(&self) -> Transport {
        match self {
            Self::Udp { .. } => Transport::Udp,
            Self::Tcp { .. } => Transport::Tcp,
        }
    }
}

/// What takes questions: bytes, way and asker; whether there will be exactly one reply.
pub(super) trait Take {
    /// Takes one.
    fn take(&mut self, bytes: &[u8], way: Way, asker: Asker) -> bool;
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Udp { netns: u64, index: usize },
    Tcp { netns: u64, index: usize },
    Connection,
}

#[derive(Debug)]
struct Opened {
    listener: Listener,
    tokens: Vec<u64>,
    used: Instant,
    outbox: Vec<Vec<(SocketAddr, Vec<u8>)>>,
}

struct Poll(Epoll);

impl AsRawFd for Poll {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

/// The sockets.
pub(super) struct Sockets {
    poll: AsyncFd<Poll>,
    sources: HashMap<u64, Source>,
    listeners: BTreeMap<u64, Opened>,
    /// The listener that stays open whatever happens.
    first: Option<u64>,
    connections: BTreeMap<u64, Connection>,
    /// Connections that may have a whole question in their buffer.
    resumable: Vec<u64>,
    /// Namespaces with something in their outbox.
    unsent: Vec<u64>,
    next_token: u64,
    /// Questions that nobody vouched for, or that got lost at listeners that are closed.
    lost: u64,
    /// The last round may have left something.
    more: bool,
    ready: Vec<(u64, EpollFlags)>,
    batch: Batch,
}

impl Sockets {
    /// Without any; inside a runtime.
    pub(super) fn new() -> io::Result<Self> {
        let poll = Poll(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        // SAFETY: the instance owns its descriptor and lives as long as the registration.
        let poll = unsafe { AsyncFd::register_with_interest(poll, Interest::READABLE) };
        Ok(Self {
            poll: poll.map_err(io::Error::from)?,
            sources: HashMap::new(),
            listeners: BTreeMap::new(),
            first: None,
            connections: BTreeMap::new(),
            resumable: Vec::new(),
            unsent: Vec::new(),
            next_token: 0,
            lost: 0,
            more: false,
            ready: Vec::with_capacity(READY),
            batch: Batch::new(),
        })
    }

    /// Adds a listener; of too many, the one that was not used for longest is closed, and its namespace given.
    pub(super) fn add(&mut self, listener: Listener) -> io::Result<Option<u64>> {
        let netns = listener.netns();
        self.close(netns);
        let oldest = || {
            let others = self.listeners.iter().filter(|(netns, _)| Some(**netns) != self.first);
            others.min_by_key(|(_, opened)| opened.used).map(|(netns, _)| *netns)
        };
        let closed = if self.listeners.len() >= MAX_LISTENERS { oldest() } else { None };
        if let Some(netns) = closed {
            self.close(netns);
        }
        let outbox = vec![Vec::new(); listener.udp.len()];
        let opened = Opened { listener, tokens: Vec::new(), used: Instant::now(), outbox };
        self.listeners.insert(netns, opened);
        if let Err(error) = self.register_all(netns) {
            self.close(netns);
            return Err(error);
        }
        self.first.get_or_insert(netns);
        Ok(closed)
    }

    fn register_all(&mut self, netns: u64) -> io::Result<()> {
        let Some(mut opened) = self.listeners.remove(&netns) else { return Ok(()) };
        let listener = &opened.listener;
        let udp = listener.udp.iter().enumerate();
        let udp = udp.map(|(index, udp)| (udp.socket.as_fd(), Source::Udp { netns, index }));
        let tcp = listener.tcp.iter().enumerate();
        let tcp = tcp.map(|(index, tcp)| (tcp.as_fd(), Source::Tcp { netns, index }));
        let result = udp.chain(tcp).try_for_each(|(socket, source)| {
            opened.tokens.push(self.register(socket, source)?);
            Ok(())
        });
        self.listeners.insert(netns, opened);
        result
    }

    fn register(&mut self, socket: BorrowedFd<'_>, source: Source) -> io::Result<u64> {
        let token = self.next_token;
        self.next_token += 1;
        self.poll.get_ref().0.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        self.sources.insert(token, source);
        Ok(token)
    }

    /// Closes a listener and its connections; closing a socket takes it out of the epoll instance.
    pub(super) fn close(&mut self, netns: u64) {
        if let Some(mut opened) = self.listeners.remove(&netns) {
            self.lost += opened.listener.lost();
            for token in opened.tokens {
                self.sources.remove(&token);
            }
        }
        let of_it = self.connections.iter().filter(|(_, connection)| connection.netns == netns);
        let tokens: Vec<u64> = of_it.map(|(token, _)| *token).collect();
        tokens.into_iter().for_each(|token| self.hang_up(token));
    }

    /// Whether a network namespace has a listener.
    pub(super) fn has(&self, netns: u64) -> bool {
        self.listeners.contains_key(&netns)
    }

    /// The way of a reply to a packet that reached no listener.
    pub(super) fn way_of(&self, key: &AskerKey) -> Option<Way> {
        let opened = self.listeners.get(&key.netns)?;
        let v6 = !key.address.is_v4();
        let index = opened.listener.udp.iter().position(|udp| udp.port == key.listener && udp.v6 == v6)?;
        let to = SocketAddr::new(key.address.to_ip(), key.port);
        (key.transport == Transport::Udp as u8).then_some(Way::Udp { netns: key.netns, index, to })
    }

    /// Waits until there is something to read or write. Dropping it loses nothing.
    pub(super) async fn ready(&mut self) {
        if self.more {
            // The runtime looks at its other events only when somebody waits.
            tokio::task::yield_now().await;
        }
        loop {
            if !self.resumable.is_empty() {
                return;
            }
            let Ok(mut guard) = self.poll.readable().await else {
                return std::future::pending().await;
            };
            if look(guard.get_inner(), &mut self.ready) {
                return;
            }
            self.more = false;
            guard.clear_ready();
        }
    }

    /// As [`Sockets::ready`], without waiting; whether there is anything.
    pub(super) fn is_ready(&mut self) -> bool {
        look(self.poll.get_ref(), &mut self.ready) || !self.resumable.is_empty()
    }

    /// Reads and writes what [`Sockets::ready`] found: at most a batch for each socket.
    pub(super) fn serve(&mut self, askers: &mut impl Askers, take: &mut impl Take) {
        self.more = true;
        for token in std::mem::take(&mut self.resumable) {
            self.converse(token, take, false);
        }
        for (token, events) in std::mem::take(&mut self.ready) {
            match self.sources.get(&token).copied() {
                Some(Source::Udp { netns, index }) => self.datagrams(netns, index, askers, take),
                Some(Source::Tcp { netns, index }) => self.accept(netns, index, askers),
                Some(Source::Connection) => self.attend(token, events, take),
                None => {}
            }
        }
    }

    fn datagrams(&mut self, netns: u64, index: usize, askers: &mut impl Askers, take: &mut impl Take) {
        let Some(opened) = self.listeners.get_mut(&netns) else { return };
        let udp = &opened.listener.udp[index];
        let Ok(count) = self.batch.receive(udp.socket.as_fd()) else { return };
        for at in 0..count {
            let (bytes, from) = self.batch.get(at);
            let id = bytes.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
            let key = AskerKey {
                address: Address::from(from.ip()),
                port: from.port(),
                listener: udp.port,
                id,
                transport: Transport::Udp as u8,
                pad: 0,
                netns,
            };
            if let Some(asker) = askers.take(&key) {
                opened.used = Instant::now();
                take.take(bytes, Way::Udp { netns, index, to: from }, asker);
            } else {
                // In a flood the kernel's table forgets who asks before we look.
                self.lost += 1;
            }
        }
    }

    fn accept(&mut self, netns: u64, index: usize, askers: &mut impl Askers) {
        for _ in 0..ACCEPT {
            let Some(opened) = self.listeners.get_mut(&netns) else { return };
            let (socket, from) = match listener::accept(opened.listener.tcp[index].as_fd()) {
                Ok(accepted) => accepted,
                Err(error) => return self.on_accept_error(&error),
            };
            let key = AskerKey {
                address: Address::from(from.ip()),
                port: from.port(),
                listener: opened.listener.base(),
                id: 0,
                transport: Transport::Tcp as u8,
                pad: 0,
                netns,
            };
            // Who is not vouched for is hung up on by dropping the socket.
            let Some(asker) = askers.take(&key) else { continue };
            opened.used = Instant::now();
            while self.connections.len() >= MAX_CONNECTIONS {
                self.hang_up_on_the_idlest();
            }
            if let Ok(token) = self.register(socket.as_fd(), Source::Connection) {
                self.connections.insert(token, Connection::new(socket, netns, asker));
            }
        }
    }

    /// Without a free descriptor the connection stays in the queue, and we would come back at once for ever.
    fn on_accept_error(&mut self, error: &io::Error) {
        if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
            self.hang_up_on_the_idlest();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn hang_up_on_the_idlest(&mut self) {
        let idlest = self.connections.iter().min_by_key(|(_, connection)| connection.active);
        if let Some(token) = idlest.map(|(token, _)| *token) {
            self.hang_up(token);
        }
    }

    fn hang_up(&mut self, token: u64) {
        self.connections.remove(&token);
        self.sources.remove(&token);
    }

    fn attend(&mut self, token: u64, events: EpollFlags, take: &mut impl Take) {
        if events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            return self.hang_up(token);
        }
        if events.contains(EpollFlags::EPOLLOUT) {
            self.write(token);
        }
        if events.contains(EpollFlags::EPOLLIN) {
            self.converse(token, take, true);
        }
    }

    /// Takes the questions of a connection, after reading once if there is something to read.
    fn converse(&mut self, token: u64, take: &mut impl Take, read: bool) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let mut goes_on = !read || connection.read();
        while goes_on && let Some(question) = connection.next_question() {
            let asker = connection.asker;
            goes_on = take.take(&question, Way::Tcp { connection: token }, asker);
        }
        if goes_on { self.update(token) } else { self.hang_up(token) }
    }

    fn write(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if connection.flush() { self.update(token) } else { self.hang_up(token) }
    }

    /// Hangs up on a connection that is through, else waits for what it is to do next.
    fn update(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if connection.is_over() {
            return self.hang_up(token);
        }
        if connection.has_question() && !self.resumable.contains(&token) {
            self.resumable.push(token);
        }
        if let Some(wanted) = connection.change_of_interest() {
            let mut event = EpollEvent::new(wanted, token);
            if self.poll.get_ref().0.modify(connection.socket(), &mut event).is_err() {
                self.hang_up(token);
            }
        }
    }

    /// Takes a reply; it leaves with [`Sockets::flush`] or, over TCP, as the client takes it. One whose client has gone
    /// is dropped.
    pub(super) fn send(&mut self, way: Way, bytes: Vec<u8>) {
        match way {
            Way::Udp { netns, index, to } => {
                if let Some(opened) = self.listeners.get_mut(&netns)
                    && let Some(outbox) = opened.outbox.get_mut(index)
                {
                    outbox.push((to, bytes));
                    if self.unsent.last() != Some(&netns) {
                        self.unsent.push(netns);
                    }
                }
            }
            Way::Tcp { connection: token } => {
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.push(&bytes);
                    self.write(token);
                }
            }
        }
    }

    /// Sends the datagrams.
    pub(super) fn flush(&mut self) {
        for netns in std::mem::take(&mut self.unsent) {
            let Some(opened) = self.listeners.get_mut(&netns) else { continue };
            for (udp, outbox) in opened.listener.udp.iter().zip(&mut opened.outbox) {
                if !outbox.is_empty() {
                    batch::send(udp.socket.as_fd(), outbox);
                    outbox.clear();
                }
            }
        }
    }

    /// Hangs up on idle connections and closes listeners that nobody uses; gives the namespaces of the latter.
    pub(super) fn tick(&mut self) -> Vec<u64> {
        let now = Instant::now();
        let idle = |connection: &Connection| now.duration_since(connection.active) >= IDLE;
        let idle: Vec<u64> =
            self.connections.iter().filter(|(_, it)| idle(it)).map(|(token, _)| *token).collect();
        idle.into_iter().for_each(|token| self.hang_up(token));
        let unused = |netns: u64, opened: &Opened| {
            Some(netns) != self.first && now.duration_since(opened.used) >= UNUSED
        };
        let unused: Vec<u64> = self
            .listeners
            .iter()
            .filter(|(netns, it)| unused(**netns, it))
            .map(|(netns, _)| *netns)
            .collect();
        unused.iter().for_each(|netns| self.close(*netns));
        unused
    }

    /// Questions that have got lost since the last call: in full buffers, or since nobody vouched for them.
    pub(super) fn take_lost(&mut self) -> u64 {
        let open: u64 = self.listeners.values_mut().map(|opened| opened.listener.lost()).sum();
        open + std::mem::take(&mut self.lost)
    }

    /// Whether [`Sockets::tick`] has something to look after soon.
    pub(super) fn has_connections(&self) -> bool {
        !self.connections.is_empty()
    }
}

/// Notes the sockets that have something to read or write; whether there is any.
fn look(poll: &Poll, ready: &mut Vec<(u64, EpollFlags)>) -> bool {
    let mut events = [EpollEvent::empty(); READY];
    let count = poll.0.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
    ready.clear();
    ready.extend(events[..count].iter().map(|event| (event.data(), event.events())));
    count > 0
}
