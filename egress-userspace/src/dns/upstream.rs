//! Exchanges with name servers: receives a question and how to judge what comes back, gives what was judged.
//!
//! Bounded in number, in time and in attempts; whatever is not the answer to the question is waited out.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest, unix::AsyncFd},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    answer::{Answer, Judged},
    cache::Key,
    message,
};

/// More than any server sends to a question that asks for at most [`message::EDNS_SIZE`] bytes.
const UDP_BUFFER: usize = 4_096;

/// Datagrams that are no answer, after which somebody is taken to be guessing and TCP is asked instead.
const MAX_FOREIGN: u32 = 16;

/// Judges a message by its bytes and the id of the question.
pub type Judge = Arc<dyn Fn(&[u8], u16) -> Judged + Send + Sync>;

/// How long and how often to try.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Silence after which the next server is asked too; the earlier ones may still answer.
    pub patience: Duration,
    /// Attempts for each server.
    pub rounds: usize,
    /// For a whole exchange: a client asks again after five seconds and must find this one over.
    pub total: Duration,
    /// Exchanges at a time; each has a socket for each attempt.
    pub at_once: usize,
    /// Exchanges that wait for their turn.
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            patience: Duration::from_millis(800),
            rounds: 2,
            total: Duration::from_secs(4),
            at_once: 192,
            waiting: 2_048,
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum UpstreamError {
    /// SERVFAIL, REFUSED …, or what cannot be read.
    #[error("server {server} answered with response code {rcode}")]
    Failure {
        /// Who.
        server: SocketAddr,
        /// Response code (RFC 6895 §2.3).
        rcode: u16,
    },
    /// No server answered in time.
    #[error("no name server answered in time")]
    TimedOut,
    /// The question could not be sent, or nobody takes it.
    #[error("cannot ask server {server}: {message}")]
    Io {
        /// Whom.
        server: SocketAddr,
        /// What the kernel said.
        message: String,
    },
    /// No name that can be asked for.
    #[error("not a name that DNS can carry")]
    BadName,
    /// There is nobody to ask.
    #[error("no name server is configured")]
    NoServer,
    /// Too many questions wait for an answer already.
    #[error("too many questions wait for name servers")]
    Busy,
}

/// What came of an exchange.
pub type Finished = (Key, Result<Answer, UpstreamError>);

/// With the server that answered.
type Answered = (Key, Result<(Answer, SocketAddr), UpstreamError>);

/// A question on its way.
struct Job {
    key: Key,
    judge: Judge,
}

/// The exchanges under way.
pub struct Exchanges {
    servers: Arc<[SocketAddr]>,
    /// Index of the server that answered last, which is asked first.
    first: usize,
    limits: Limits,
    running: JoinSet<Answered>,
    queue: VecDeque<Job>,
}

impl Exchanges {
    /// With these servers.
    pub fn new(servers: Vec<SocketAddr>, limits: Limits) -> Self {
        Self { servers: servers.into(), first: 0, limits, running: JoinSet::new(), queue: VecDeque::new() }
    }

    /// Asks other servers from now on.
    pub fn set_servers(&mut self, servers: Vec<SocketAddr>) {
        if *self.servers != *servers {
            self.servers = servers.into();
            self.first = 0;
        }
    }

    /// Asks from the first of the list on again: the one that did not answer may have come back.
    pub fn forget_preference(&mut self) {
        self.first = 0;
    }

    /// Asks, now or when others are through.
    ///
    /// # Errors
    /// [`UpstreamError::Busy`]: too many wait.
    pub fn ask(&mut self, key: Key, judge: Judge) -> Result<(), UpstreamError> {
        if self.running.len() < self.limits.at_once {
            self.start(Job { key, judge });
        } else if self.queue.len() < self.limits.waiting {
            self.queue.push_back(Job { key, judge });
        } else {
            return Err(UpstreamError::Busy);
        }
        Ok(())
    }

    /// The next that is over; with none under way never. Dropping it loses nothing.
    pub async fn next(&mut self) -> Finished {
        loop {
            match self.running.join_next().await {
                Some(Ok(done)) => return self.done(done),
                // A task that panicked has no answer; who waits for it is told when its time is over.
                Some(Err(_)) => self.start_next(),
                None => return std::future::pending().await,
            }
        }
    }

    /// One that is over already.
    pub fn try_next(&mut self) -> Option<Finished> {
        loop {
            match self.running.try_join_next()? {
                Ok(done) => return Some(self.done(done)),
                Err(_) => self.start_next(),
            }
        }
    }

    /// Number of exchanges, waiting ones included.
    pub fn len(&self) -> usize {
        self.running.len() + self.queue.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn done(&mut self, (key, result): Answered) -> Finished {
        self.start_next();
        let result = result.map(|(answer, server)| {
            self.first = self.servers.iter().position(|known| *known == server).unwrap_or(0);
            answer
        });
        (key, result)
    }

    fn start_next(&mut self) {
        if let Some(job) = self.queue.pop_front() {
            self.start(job);
        }
    }

    fn start(&mut self, job: Job) {
        let servers = Arc::clone(&self.servers);
        let (first, limits) = (self.first, self.limits);
        self.running.spawn(async move {
            let result = exchange(&servers, first, limits, &job).await;
            (job.key, result)
        });
    }
}

type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Judged, UpstreamError>> + Send + 'a>>;

/// One question to the servers, one after the other when they fail, the next one too when they are silent.
async fn exchange(
    servers: &[SocketAddr],
    first: usize,
    limits: Limits,
    job: &Job,
) -> Result<(Answer, SocketAddr), UpstreamError> {
    let mut order =
        (0..limits.rounds).flat_map(|_| servers.iter().cycle().skip(first).take(servers.len())).copied();
    let mut attempts: Vec<(SocketAddr, Attempt<'_>)> = Vec::new();
    let end = Instant::now() + limits.total;
    let mut last = UpstreamError::NoServer;
    loop {
        let mut wake = end;
        if let Some(server) = order.next() {
            attempts.push((server, Box::pin(attempt(server, job))));
            wake = end.min(Instant::now() + limits.patience);
        } else if attempts.is_empty() {
            return Err(last);
        }
        tokio::select! {
            (server, result) = first_of(&mut attempts) => match result {
                Ok(Judged::Answer(answer)) => return Ok((answer, server)),
                Ok(Judged::Failure(rcode)) => last = UpstreamError::Failure { server, rcode },
                Ok(_) => last = UpstreamError::Failure { server, rcode: FORMERR },
                Err(UpstreamError::BadName) => return Err(UpstreamError::BadName),
                Err(error) => last = error,
            },
            () = sleep_until(wake) => {
                if Instant::now() >= end {
                    return Err(UpstreamError::TimedOut);
                }
            }
        }
    }
}

/// Response code of what could not be understood.
const FORMERR: u16 = 1;

/// Waits for the first attempt that is over and takes it from the list; with none it never ends.
async fn first_of(
    attempts: &mut Vec<(SocketAddr, Attempt<'_>)>,
) -> (SocketAddr, Result<Judged, UpstreamError>) {
    std::future::poll_fn(|context| {
        for at in 0..attempts.len() {
            if let Poll::Ready(result) = attempts[at].1.as_mut().poll(context) {
                let (server, _) = attempts.swap_remove(at);
                return Poll::Ready((server, result));
            }
        }
        Poll::Pending
    })
    .await
}

/// One server's reply: over UDP, over TCP if that was cut off, without EDNS if it does not know it. Its time is bounded
/// by the exchange's.
async fn attempt(server: SocketAddr, job: &Job) -> Result<Judged, UpstreamError> {
    let reply = ask_once(server, job, true).await?;
    if reply == Judged::NoEdns { ask_once(server, job, false).await } else { Ok(reply) }
}

async fn ask_once(server: SocketAddr, job: &Job, edns: bool) -> Result<Judged, UpstreamError> {
    let io = |error: io::Error| UpstreamError::Io { server, message: error.to_string() };
    let id = random_id().map_err(io)?;
    let question =
        message::ask(id, &job.key.name, job.key.query_type, edns).map_err(|_| UpstreamError::BadName)?;
    let read = |bytes: &[u8]| (job.judge)(bytes, id);
    let reply = over_udp(server, &question, read).await.map_err(io)?;
    match reply {
        Judged::Truncated | Judged::Foreign => over_tcp(server, &question, read).await.map_err(io),
        reply => Ok(reply),
    }
}

/// A socket of its own for each question: its port, chosen by the kernel, is as hard to guess as the id, and being
/// connected it hears nobody else. (It costs 8 us more than one from a pool.) [`Judged::Foreign`] after too many guesses.
async fn over_udp(server: SocketAddr, question: &[u8], read: impl Fn(&[u8]) -> Judged) -> io::Result<Judged> {
    // Room to write is not waited for, nor looked after: a new socket has it.
    let interest = Interest::READABLE | Interest::ERROR;
    // SAFETY: a `UdpSocket` keeps its descriptor open as long as it lives, and always gives the same one.
    let socket = unsafe { AsyncFd::register_with_interest(sent(server, question)?, interest) };
    let socket = socket.map_err(io::Error::from)?;
    let mut buffer = vec![0; UDP_BUFFER];
    for _ in 0..MAX_FOREIGN {
        let length = socket.async_io(interest, |socket| socket.recv(&mut buffer)).await?;
        match read(&buffer[..length]) {
            Judged::Foreign => {}
            reply => return Ok(reply),
        }
    }
    Ok(Judged::Foreign)
}

/// A socket that has just sent a question.
fn sent(server: SocketAddr, question: &[u8]) -> io::Result<UdpSocket> {
    let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = UdpSocket::from(socket::socket(family, SockType::Datagram, flags, None)?);
    socket.connect(server)?;
    socket.send(question)?;
    Ok(socket)
}

async fn over_tcp(server: SocketAddr, question: &[u8], read: impl Fn(&[u8]) -> Judged) -> io::Result<Judged> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(question);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    Ok(read(&buffer))
}

/// From the kernel's generator.
fn random_id() -> io::Result<u16> {
    let mut bytes = [0; 2];
    // SAFETY: the buffer is ours and as long as said.
    let length = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if length == 2 { Ok(u16::from_ne_bytes(bytes)) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests;
