//! Servers on the far side: TCP under every address, UDP echo under the lab's main ones. All that they get is kept.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{Namespace, message::read_question, network::address, zone::Zone};

/// Where names are asked.
const DNS: u16 = 53;

/// What a server got.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Received {
    /// The address it was sent to.
    pub at: SocketAddr,
    /// Whether over TCP; otherwise UDP.
    pub tcp: bool,
    /// All bytes so far; empty for a connection that has sent nothing.
    pub bytes: Vec<u8>,
}

/// Running servers; they end with this value.
#[derive(Debug)]
pub struct Servers {
    received: Arc<Mutex<Vec<Received>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Sockets {
    listeners: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    connections: Vec<TcpStream>,
}

impl Servers {
    /// On these TCP ports, under every address, and these UDP ports, under the lab's main ones.
    pub(crate) fn start(net: &Namespace, tcp: &[u16], udp: &[u16]) -> Result<Self> {
        let ips: [IpAddr; 4] =
            [address::GOOD4.into(), address::GOOD6.into(), address::BAD4.into(), address::BAD6.into()];
        let udp: Vec<_> =
            ips.iter().flat_map(|ip| udp.iter().map(|port| SocketAddr::new(*ip, *port))).collect();
        Self::start_at(net, tcp, &udp)
    }

    /// On these TCP ports, under every address, and on these UDP addresses.
    pub fn start_at(namespace: &Namespace, tcp: &[u16], udp: &[SocketAddr]) -> Result<Self> {
        let sockets = namespace.enter(|| Sockets::open(tcp, udp))?;
        let received = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (received, stop) = (Arc::clone(&received), Arc::clone(&stop));
            move || sockets.serve(&received, &stop)
        });
        Ok(Self { received, stop, thread: Some(thread) })
    }

    /// What was received since the last call.
    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut *self.received.lock().expect("servers do not panic"))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Sockets {
    fn open(tcp_ports: &[u16], udp_addresses: &[SocketAddr]) -> Result<Self> {
        let mut listeners = Vec::new();
        for port in tcp_ports {
            let listener = TcpListener::bind(("::", *port)).with_context(|| format!("listen on {port}"))?;
            listener.set_nonblocking(true)?;
            listeners.push(listener);
        }
        let mut udp = Vec::new();
        for address in udp_addresses {
            let socket = UdpSocket::bind(address).with_context(|| format!("bind {address}"))?;
            socket.set_nonblocking(true)?;
            udp.push(socket);
        }
        Ok(Self { listeners, udp, connections: Vec::new() })
    }

    fn serve(mut self, received: &Mutex<Vec<Received>>, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.wait();
            let mut received = received.lock().expect("nobody panics with the lock");
            self.accept(&mut received);
            self.echo(&mut received);
            self.connections.retain_mut(|stream| answer(stream, &mut received));
        }
    }

    fn wait(&self) {
        let listeners = self.listeners.iter().map(|socket| socket.as_fd());
        let udp = self.udp.iter().map(|socket| socket.as_fd());
        let streams = self.connections.iter().map(|stream| stream.as_fd());
        let mut fds: Vec<_> =
            listeners.chain(udp).chain(streams).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let _ = poll(&mut fds, PollTimeout::from(20_u8));
    }

    fn accept(&mut self, received: &mut Vec<Received>) {
        for listener in &self.listeners {
            while let Ok((stream, _)) = listener.accept() {
                let Ok(at) = stream.local_addr() else { continue };
                let _ = stream.set_nonblocking(true);
                received.push(Received { at: canonical(at), tcp: true, bytes: Vec::new() });
                self.connections.push(stream);
            }
        }
    }

    fn echo(&self, received: &mut Vec<Received>) {
        let mut buffer = [0; 65_536];
        for socket in &self.udp {
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let Ok(at) = socket.local_addr() else { continue };
                received.push(Received { at, tcp: false, bytes: buffer[..length].to_vec() });
                let reply = if at.port() == DNS { answer_question(&buffer[..length]) } else { None };
                let _ = socket.send_to(reply.as_deref().unwrap_or(&buffer[..length]), from);
            }
        }
    }
}

/// Reads what there is and answers; false when the connection is over.
fn answer(stream: &mut TcpStream, received: &mut Vec<Received>) -> bool {
    let mut buffer = [0; 65_536];
    match stream.read(&mut buffer) {
        Ok(0) => false,
        Ok(length) => {
            if let Ok(at) = stream.local_addr() {
                received.push(Received { at: canonical(at), tcp: true, bytes: buffer[..length].to_vec() });
            }
            let (reply, more) = reply(&buffer[..length]);
            stream.write_all(&reply).is_ok() && more
        }
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// Answers a DNS question: `good.example` and `bad.example` have an address of each family, other names none.
fn answer_question(bytes: &[u8]) -> Option<Vec<u8>> {
    let (good4, good6) = (address::GOOD4, address::GOOD6);
    let (bad4, bad6) = (address::BAD4, address::BAD6);
    let zone = format!(
        "good.example 60 A {good4}\ngood.example 60 AAAA {good6}\nbad.example 60 A {bad4}\nbad.example 60 AAAA {bad6}\n"
    );
    Some(Zone::read(&zone).answer(bytes, &read_question(bytes)?, false))
}

/// What is answered to the first bytes of a request, and whether the connection goes on: a web page or a bare git
/// repository's list of references for HTTP, a word for anything else.
fn reply(request: &[u8]) -> (Vec<u8>, bool) {
    let Some(path) = request.strip_prefix(b"GET ") else { return (b"ok\n".to_vec(), true) };
    let path = String::from_utf8_lossy(path);
    let path = path.split([' ', '?']).next().unwrap_or_default();
    let body = if path.ends_with("/info/refs") {
        format!("{:040x}\trefs/heads/main\n", 1)
    } else if path.ends_with("/HEAD") {
        "ref: refs/heads/main\n".to_owned()
    } else {
        "the page\n".to_owned()
    };
    let header = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length:";
    (format!("{header} {}\r\n\r\n{body}", body.len()).into_bytes(), false)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
