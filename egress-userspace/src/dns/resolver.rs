//! A stub resolver: receives a name, gives its addresses with their time to live.
//!
//! Asks the configured servers itself, without threads: the C library's resolver gives no TTLs and would block.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{
    hosts::Hosts,
    normal,
    wire::{self, Kind, Reply},
};

/// Time to live of an address from the hosts file, which gives none.
pub const HOSTS_TTL: Duration = Duration::from_secs(60);

/// More than any server sends to a question that asks for at most [`wire::EDNS_SIZE`] bytes.
const UDP_BUFFER: usize = 4096;

/// How long to try.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// For one question to one server.
    pub attempt: Duration,
    /// How often the list of servers is gone through.
    pub rounds: u32,
    /// For a whole lookup.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { attempt: Duration::from_millis(800), rounds: 2, total: Duration::from_secs(3) }
    }
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// The hosts file.
    HostsFile,
    /// A name server.
    Server(SocketAddr),
}

/// An address and how long it may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Found {
    /// The address.
    pub address: IpAddr,
    /// Its time to live: the smallest one on the way from the name.
    pub ttl: Duration,
}

/// What a name resolves to; never empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The addresses, IPv4 first, in the order of the answer.
    pub addresses: Vec<Found>,
    /// Who said so; with two families, who answered the first of them.
    pub source: Source,
    /// Why one of the families is missing, if its question failed (that a name has no such address is no failure).
    pub missing: Option<ResolveError>,
}

/// Why a name has no addresses.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum ResolveError {
    /// NXDOMAIN.
    #[error("the name does not exist")]
    NotFound,
    /// NODATA.
    #[error("the name has no address")]
    NoAddress,
    /// SERVFAIL, REFUSED …
    #[error("server {server} answered {code}")]
    Failure {
        /// Who.
        server: SocketAddr,
        /// Name of the response code.
        code: &'static str,
    },
    /// A loop or a chain that is too long.
    #[error("server {server} answered with a loop or too long a chain of aliases")]
    BadChain {
        /// Who.
        server: SocketAddr,
    },
    /// No server answered in time.
    #[error("no name server answered in time")]
    TimedOut,
    /// The question could not be sent.
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
    /// No random number for the question's id.
    #[error("no random number from the kernel")]
    NoRandom,
    /// There is nobody to ask.
    #[error("no name server is configured")]
    NoServer,
}

/// Something that resolves names.
pub trait Lookup: Send + Sync + 'static {
    /// The addresses of a name.
    fn lookup(&self, name: &str) -> impl Future<Output = Result<Answer, ResolveError>> + Send;
}

/// Asks the hosts file, then the servers.
#[derive(Clone, Debug)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
    hosts: Hosts,
    limits: Limits,
}

/// What one family's question came to: addresses (none: the name has none of this kind) and who said so.
type FamilyAnswer = Result<(Vec<Found>, SocketAddr), ResolveError>;

impl Resolver {
    /// A resolver that asks these servers in order, after the hosts file.
    pub fn new(servers: Vec<SocketAddr>, hosts: Hosts, limits: Limits) -> Self {
        Self { servers, hosts, limits }
    }

    /// The addresses of a name, both families asked for at once. One family may fail while the other answers.
    pub async fn lookup(&self, name: &str) -> Result<Answer, ResolveError> {
        let name = normal(name);
        let listed = self.hosts.addresses(&name);
        if !listed.is_empty() {
            let addresses = listed.iter().map(|&address| Found { address, ttl: HOSTS_TTL }).collect();
            return Ok(Answer { addresses, source: Source::HostsFile, missing: None });
        }
        let (v4, v6) = self.both_families(&name).await;
        merge(v4, v6)
    }

    /// Once one family has addresses, the other gets the time of one more attempt: a server that swallows AAAA
    /// questions must not hold up the start for the whole bound.
    async fn both_families(&self, name: &str) -> (FamilyAnswer, FamilyAnswer) {
        let total = self.limits.total;
        let v4 = timeout(total, self.family(name, Kind::A));
        let v6 = timeout(total, self.family(name, Kind::Aaaa));
        tokio::pin!(v4, v6);
        let late = |_| Err(ResolveError::TimedOut);
        tokio::select! {
            first = &mut v4 => {
                let first = first.unwrap_or_else(late);
                let second = timeout(self.patience(&first), v6).await;
                (first, second.map_or_else(late, |inner| inner.unwrap_or_else(late)))
            }
            first = &mut v6 => {
                let first = first.unwrap_or_else(late);
                let second = timeout(self.patience(&first), v4).await;
                (second.map_or_else(late, |inner| inner.unwrap_or_else(late)), first)
            }
        }
    }

    fn patience(&self, first: &FamilyAnswer) -> Duration {
        match first {
            Ok((found, _)) if !found.is_empty() => self.limits.attempt,
            _ => self.limits.total,
        }
    }

    async fn family(&self, name: &str, kind: Kind) -> FamilyAnswer {
        let mut last = ResolveError::NoServer;
        for _ in 0..self.limits.rounds {
            for &server in &self.servers {
                match self.ask(server, name, kind).await {
                    Ok(Reply::Addresses(list)) => {
                        let found =
                            |(address, ttl)| Found { address, ttl: Duration::from_secs(u64::from(ttl)) };
                        return Ok((list.into_iter().map(found).collect(), server));
                    }
                    Ok(Reply::NoData) => return Ok((Vec::new(), server)),
                    Ok(Reply::NxDomain) => return Err(ResolveError::NotFound),
                    Ok(Reply::BadChain) => last = ResolveError::BadChain { server },
                    Ok(Reply::Failure(code)) => last = ResolveError::Failure { server, code },
                    Ok(Reply::FormatError) => last = ResolveError::Failure { server, code: "FORMERR" },
                    Ok(Reply::Foreign | Reply::Truncated) => {
                        last = ResolveError::Failure { server, code: "an unreadable reply" };
                    }
                    Err(error @ (ResolveError::BadName | ResolveError::NoRandom)) => return Err(error),
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }

    /// One server's reply: over UDP, over TCP if that was cut off, without EDNS if it does not know it.
    async fn ask(&self, server: SocketAddr, name: &str, kind: Kind) -> Result<Reply, ResolveError> {
        let mut reply = self.ask_once(server, name, kind, true).await?;
        if reply == Reply::FormatError {
            reply = self.ask_once(server, name, kind, false).await?;
        }
        Ok(reply)
    }

    async fn ask_once(
        &self,
        server: SocketAddr,
        name: &str,
        kind: Kind,
        edns: bool,
    ) -> Result<Reply, ResolveError> {
        let id = random_id()?;
        let question = wire::question(id, name, kind, edns).map_err(|_| ResolveError::BadName)?;
        let read = |bytes: &[u8]| wire::reply(bytes, id, name, kind);
        let attempt = self.limits.attempt;
        let udp = timeout(attempt, over_udp(server, &question, read)).await;
        let mut reply = finished(server, udp)?;
        if reply == Reply::Truncated {
            reply = finished(server, timeout(attempt, over_tcp(server, &question, read)).await)?;
        }
        Ok(reply)
    }
}

impl Lookup for Resolver {
    async fn lookup(&self, name: &str) -> Result<Answer, ResolveError> {
        Self::lookup(self, name).await
    }
}

fn finished(
    server: SocketAddr,
    result: Result<io::Result<Reply>, tokio::time::error::Elapsed>,
) -> Result<Reply, ResolveError> {
    match result {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(ResolveError::Io { server, message: error.to_string() }),
        Err(_) => Err(ResolveError::TimedOut),
    }
}

/// A socket of its own for each question: its port, chosen by the kernel, is as hard to guess as the id.
async fn over_udp(server: SocketAddr, question: &[u8], read: impl Fn(&[u8]) -> Reply) -> io::Result<Reply> {
    let any: IpAddr = if server.is_ipv4() { [0_u8; 4].into() } else { [0_u8; 16].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = [0; UDP_BUFFER];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match read(&buffer[..length]) {
            Reply::Foreign => {}
            reply => return Ok(reply),
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8], read: impl Fn(&[u8]) -> Reply) -> io::Result<Reply> {
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

fn merge(v4: FamilyAnswer, v6: FamilyAnswer) -> Result<Answer, ResolveError> {
    let (mut addresses, mut source, mut errors) = (Vec::new(), None, Vec::new());
    for family in [v4, v6] {
        match family {
            Ok((found, server)) => {
                if !found.is_empty() {
                    source = source.or(Some(Source::Server(server)));
                }
                addresses.extend(found);
            }
            Err(error) => errors.push(error),
        }
    }
    match source {
        Some(source) => Ok(Answer { addresses, source, missing: errors.into_iter().next() }),
        None => Err(gravest(errors)),
    }
}

/// Of several reasons, the one that leaves most open whether the name has addresses: what may pass goes before what
/// is known.
fn gravest(errors: Vec<ResolveError>) -> ResolveError {
    errors
        .into_iter()
        .max_by_key(|error| match error {
            ResolveError::NoAddress => 0,
            ResolveError::NotFound => 1,
            ResolveError::TimedOut => 2,
            _ => 3,
        })
        .unwrap_or(ResolveError::NoAddress)
}

fn random_id() -> Result<u16, ResolveError> {
    let mut bytes = [0; 2];
    // SAFETY: the buffer is ours and as long as said.
    let length = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if length == 2 { Ok(u16::from_ne_bytes(bytes)) } else { Err(ResolveError::NoRandom) }
}

#[cfg(test)]
mod tests;
