//! Sockets that ask one server, and what each has asked and not been answered.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    ptr, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    Plan,
    message::{self, ROOM, Template},
    upstream,
};

/// Questions of one socket that are remembered.
const SLOTS: usize = 1 << 12;

/// How long an answer is waited for before the question is asked again.
const PATIENCE: Duration = Duration::from_secs(1);

/// A socket and its unanswered questions.
pub(crate) struct Asker {
    socket: UdpSocket,
    /// By id: when it was due; `None` once answered.
    slots: Vec<Option<(u16, u64)>>,
    next: u16,
    /// How many are unanswered.
    pub(crate) waiting: usize,
}

impl Asker {
    /// Several, connected to one server.
    pub(crate) fn several(server: SocketAddr, count: usize) -> Result<Vec<Self>> {
        (0..count).map(|_| Self::new(server)).collect()
    }

    /// Connected to a server.
    pub(crate) fn new(server: SocketAddr) -> Result<Self> {
        let any = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).context("bind a socket")?;
        socket.connect(server).with_context(|| format!("connect to {server}"))?;
        upstream::enlarge(&socket);
        Ok(Self { socket, slots: vec![None; SLOTS], next: 1, waiting: 0 })
    }

    /// Remembers a question; its id. An unanswered one of long ago is forgotten for it.
    pub(crate) fn put(&mut self, due: u64) -> u16 {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        if self.slots[usize::from(id) % SLOTS].replace((id, due)).is_none() {
            self.waiting += 1;
        }
        id
    }

    /// When the answered question was due.
    pub(crate) fn take(&mut self, id: u16) -> Option<u64> {
        let slot = &mut self.slots[usize::from(id) % SLOTS];
        let (_, due) = slot.take_if(|(asked, _)| *asked == id)?;
        self.waiting -= 1;
        Some(due)
    }

    /// Gives up what was due before; how many.
    pub(crate) fn give_up(&mut self, before: u64) -> u64 {
        let mut lost = 0;
        for slot in &mut self.slots {
            lost += u64::from(slot.take_if(|(_, due)| *due < before).is_some());
        }
        self.waiting -= usize::try_from(lost).unwrap_or(0);
        lost
    }

    /// Sends a question.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.send(bytes)
    }

    /// Asks one question and waits for its answer, again if it must: the server may just have been started.
    pub(crate) fn ask(&mut self, template: &Template, name: u64, room: &mut [u8; ROOM]) -> Result<usize> {
        self.socket.set_read_timeout(Some(PATIENCE))?;
        let end = Instant::now() + 5 * PATIENCE;
        while Instant::now() < end {
            let id = self.put(0);
            let length = template.write(id, name, room);
            // A refusal that waited on the socket is like no answer.
            let mut answered = self.socket.send(&room[..length]).and_then(|_| self.socket.recv(room));
            while let Ok(length) = answered {
                if let Some((found, good)) = message::outcome(&room[..length])
                    && self.take(found).is_some()
                    && found == id
                {
                    ensure!(good, "the question is answered with a failure: {:?}", &room[..length]);
                    return Ok(length);
                }
                answered = self.socket.recv(room);
            }
            if answered.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
                thread::sleep(PATIENCE / 50);
            }
        }
        bail!("no answer within {:?}", 5 * PATIENCE)
    }
}

impl AsFd for Asker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks every name that will be asked again, or a few of the others; the number of the first question after these.
pub(crate) fn warm_up(plan: &Plan, template: &Template) -> Result<u64> {
    let mut asker = Asker::new(plan.server)?;
    let count = plan.names.max(20);
    let mut room = [0; ROOM];
    for number in 0..count {
        let name = plan.question(number).name;
        asker.ask(template, name, &mut room).with_context(|| format!("ask {} at first", plan.server))?;
    }
    Ok(count)
}

/// A clock and the sockets that are waited for.
pub(crate) struct Watch {
    started: Instant,
    polled: Vec<libc::pollfd>,
}

impl Watch {
    /// Starts now.
    pub(crate) fn new(askers: &[Asker]) -> Self {
        // SAFETY: the option takes an integer. Without it a timeout would be late by up to 50 microseconds.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
        let polled = askers.iter().map(|asker| libc::pollfd {
            fd: asker.socket.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        });
        Self { started: Instant::now(), polled: polled.collect() }
    }

    /// Nanoseconds since the start, at least 1.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// Waits for an answer until a moment; the sockets with one.
    pub(crate) fn wait(&mut self, until: u64) -> impl Iterator<Item = usize> {
        let left = Duration::from_nanos(until.saturating_sub(self.now()));
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(0),
            tv_nsec: libc::c_long::from(left.subsec_nanos()),
        };
        let count = libc::nfds_t::try_from(self.polled.len()).unwrap_or(0);
        // SAFETY: the array and the timeout outlive the call.
        let found = unsafe { libc::ppoll(self.polled.as_mut_ptr(), count, &raw const timeout, ptr::null()) };
        let some = found > 0;
        self.polled
            .iter()
            .enumerate()
            .filter(move |(_, polled)| some && polled.revents != 0)
            .map(|(index, _)| index)
    }
}
