//! A DNS server under every address of the far side, UDP and TCP, that keeps every question it sees.

use std::{
    io::{ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt, sockopt,
    },
};

use crate::{
    Namespace,
    message::{self, Question},
    zone::Zone,
};

/// The resolver of the lab: what `resolv.conf` names.
pub const SERVER4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);
/// The resolver of the lab.
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x53, 0, 0, 0, 0, 0x53);
/// Another one, which nobody is told of: only a question that got out by itself comes here.
pub const STRANGER4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 153);
/// Another one, which nobody is told of.
pub const STRANGER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x153, 0, 0, 0, 0, 0x53);

const PORT: u16 = 53;

/// A question that came to the server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Asked {
    /// The address it was sent to.
    pub at: IpAddr,
    /// Whether over TCP.
    pub tcp: bool,
    /// The question; `None` for bytes that are none.
    pub question: Option<Question>,
}

/// The running server; it ends with this value.
#[derive(Debug)]
pub struct Dns {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    zone: Zone,
    asked: Vec<Asked>,
}

/// Where a reply goes.
enum Client {
    Udp { to: SockaddrIn6, from: libc::in6_pktinfo },
    Tcp { connection: usize },
}

struct Server {
    udp: UdpSocket,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    waiting: Vec<(Instant, Client, Vec<u8>)>,
}

struct Connection {
    stream: TcpStream,
    at: IpAddr,
    bytes: Vec<u8>,
}

impl Dns {
    /// Starts the server with this zone (see [`crate::zone`]).
    pub fn start(net: &Namespace, zone: &str) -> Result<Self> {
        // The far side answers for addresses that no device of it has.
        net.sysctl("net.ipv6.ip_nonlocal_bind = 1")?;
        let (udp, listener) = net.enter(open).context("open the lab's DNS server")?;
        let mut server = Server { udp, listener, connections: Vec::new(), waiting: Vec::new() };
        let state = Arc::new(Mutex::new(State { zone: Zone::read(zone), asked: Vec::new() }));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    server.round(&state);
                }
            }
        });
        Ok(Self { state, stop, thread: Some(thread) })
    }

    /// What was asked since the last call.
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut lock(&self.state).asked)
    }

    /// Goes on with another zone.
    pub fn change(&self, zone: &str) {
        lock(&self.state).zone = Zone::read(zone);
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open() -> Result<(UdpSocket, TcpListener)> {
    let udp = UdpSocket::bind(("::", PORT))?;
    udp.set_nonblocking(true)?;
    // The reply must come from the address that was asked.
    setsockopt(&udp, sockopt::Ipv6RecvPacketInfo, &true)?;
    let listener = TcpListener::bind(("::", PORT))?;
    listener.set_nonblocking(true)?;
    Ok((udp, listener))
}

impl Server {
    fn round(&mut self, state: &Mutex<State>) {
        self.wait();
        while let Some((client, at, bytes)) = self.receive() {
            self.take(state, client, at, &bytes);
        }
        while let Ok((stream, _)) = self.listener.accept() {
            let Ok(at) = stream.local_addr() else { continue };
            let _ = stream.set_nonblocking(true);
            let connection = Connection { stream, at: at.ip().to_canonical(), bytes: Vec::new() };
            self.connections.push(Some(connection));
        }
        for index in 0..self.connections.len() {
            while let Some((at, bytes)) = self.read(index) {
                self.take(state, Client::Tcp { connection: index }, at, &bytes);
            }
        }
        self.send_due();
    }

    fn wait(&self) {
        let streams = self.connections.iter().flatten().map(|connection| connection.stream.as_fd());
        let all = [self.udp.as_fd(), self.listener.as_fd()].into_iter().chain(streams);
        let mut fds: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let patience = if self.waiting.is_empty() { 20_u8 } else { 2 };
        let _ = poll(&mut fds, PollTimeout::from(patience));
    }

    fn receive(&self) -> Option<(Client, IpAddr, Vec<u8>)> {
        let mut buffer = [0; 65_536];
        let mut control = nix::cmsg_space!(libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let got = recvmsg::<SockaddrIn6>(self.udp.as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
        let (to, length) = (got.address?, got.bytes);
        let from = got.cmsgs().ok()?.find_map(|message| match message {
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(info),
            _ => None,
        })?;
        let at = Ipv6Addr::from(from.ipi6_addr.s6_addr).to_canonical();
        Some((Client::Udp { to, from }, at, buffer[..length].to_vec()))
    }

    /// The next whole message of a connection.
    fn read(&mut self, index: usize) -> Option<(IpAddr, Vec<u8>)> {
        let connection = self.connections[index].as_mut()?;
        let mut buffer = [0; 4096];
        loop {
            let length = connection.bytes.get(..2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            if let Some(end) = length.map(|length| 2 + usize::from(length))
                && connection.bytes.len() >= end
            {
                let message = connection.bytes.drain(..end).skip(2).collect();
                return Some((connection.at, message));
            }
            match connection.stream.read(&mut buffer) {
                Ok(read) if read > 0 => connection.bytes.extend(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                _ => {
                    self.connections[index] = None;
                    return None;
                }
            }
        }
    }

    fn take(&mut self, state: &Mutex<State>, client: Client, at: IpAddr, bytes: &[u8]) {
        let mut state = lock(state);
        let tcp = matches!(client, Client::Tcp { .. });
        let question = message::read_question(bytes);
        state.asked.push(Asked { at, tcp, question: question.clone() });
        let Some(question) = question else { return };
        let way = state.zone.way(&question.name);
        if !way.silent {
            let reply = state.zone.answer(bytes, &question, tcp);
            self.waiting.push((Instant::now() + way.delay, client, reply));
        }
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        let (due, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|(at, ..)| *at <= now);
        self.waiting = waiting;
        for (_, client, bytes) in due as Vec<(Instant, Client, Vec<u8>)> {
            match client {
                Client::Udp { to, from } => {
                    let control = [ControlMessage::Ipv6PacketInfo(&from)];
                    let parts = [IoSlice::new(&bytes)];
                    let _ = sendmsg(self.udp.as_raw_fd(), &parts, &control, MsgFlags::empty(), Some(&to));
                }
                Client::Tcp { connection } => {
                    if let Some(Some(connection)) = self.connections.get_mut(connection) {
                        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes();
                        let _ = connection.stream.write_all(&[&length[..], &bytes].concat());
                    }
                }
            }
        }
    }
}

/// Whether any question that came has this label, in whatever case.
pub fn asked_for(asked: &[Asked], label: &str) -> bool {
    let names = asked.iter().filter_map(|asked| asked.question.as_ref());
    names.flat_map(|question| question.name.split('.')).any(|found| found.eq_ignore_ascii_case(label))
}

/// Waits a moment for questions that are still on the way.
pub fn settle() {
    std::thread::sleep(Duration::from_millis(30));
}

/// The address as the text of a socket address at the port of DNS.
pub fn at(address: impl Into<IpAddr>) -> String {
    SocketAddr::new(address.into(), PORT).to_string()
}
