//! Sockets of a process outside any scope, on the agent's side: unix sockets by path and by abstract name, loopback
//! ports. What a contained program gets through to them is kept.

use std::{
    fs,
    io::Read as _,
    net::{TcpListener, UdpSocket},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::PermissionsExt as _,
            net::{SocketAddr, UnixDatagram, UnixListener},
        },
    },
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use tempfile::TempDir;

use crate::Lab;

/// Stream sockets by path.
const STREAMS: [&str; 4] = ["stream", "stream-two", "stream-three", "stream-four"];
/// Stream sockets by abstract name.
const ABSTRACT: [&str; 2] = ["stream", "stream-two"];
/// TCP ports under every address of the agent's side.
const TCP: [u16; 6] = [7001, 7002, 7003, 7004, 7005, 7007];
/// A UDP port under every address of the agent's side.
const UDP: u16 = 7006;

/// The listening sockets; they end with this value.
#[derive(Debug)]
pub struct Ears {
    directory: TempDir,
    name: String,
    heard: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Sockets {
    unix: Vec<UnixListener>,
    datagrams: Vec<UnixDatagram>,
    tcp: Vec<TcpListener>,
    udp: UdpSocket,
}

impl Ears {
    /// Starts to listen on the lab's agent side.
    pub fn start(lab: &Lab) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("open the directory");
        let name = format!("egress-lab-{}", directory.path().display());
        let sockets = lab.agent.enter(|| Sockets::open(directory.path(), &name)).expect("open the ears");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (heard, stop) = (Arc::clone(&heard), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut new = sockets.listen();
                    heard.lock().unwrap_or_else(PoisonError::into_inner).append(&mut new);
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        Self { directory, name, heard, stop, thread: Some(thread) }
    }

    /// Where the path sockets are: `stream`, `stream-two`, … and `datagram`.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What the abstract names begin with; `-stream`, `-stream-two` and `-datagram` follow.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was heard since the last call: for each connection its socket and what it said, for each datagram what it is.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Sockets {
    fn open(directory: &Path, name: &str) -> Result<Self> {
        let abstract_name = |last: &str| SocketAddr::from_abstract_name(format!("{name}-{last}"));
        let mut unix = Vec::new();
        for stream in STREAMS {
            unix.push(UnixListener::bind(directory.join(stream))?);
        }
        for stream in ABSTRACT {
            unix.push(UnixListener::bind_addr(&abstract_name(stream)?)?);
        }
        let datagrams = vec![
            UnixDatagram::bind(directory.join("datagram"))?,
            UnixDatagram::bind_addr(&abstract_name("datagram")?)?,
        ];
        for entry in fs::read_dir(directory)? {
            fs::set_permissions(entry?.path(), fs::Permissions::from_mode(0o777))?;
        }
        let tcp = TCP.iter().map(|port| TcpListener::bind(("::", *port))).collect::<Result<Vec<_>, _>>()?;
        let udp = UdpSocket::bind(("::", UDP))?;
        unix.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
        datagrams.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
        tcp.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
        udp.set_nonblocking(true)?;
        Ok(Self { unix, datagrams, tcp, udp })
    }

    fn listen(&self) -> Vec<String> {
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for listener in &self.unix {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
                let length = stream.read(&mut buffer).unwrap_or(0);
                heard.push(format!("unix: {}", text(&buffer[..length])));
            }
        }
        for listener in &self.tcp {
            while let Ok((mut stream, from)) = listener.accept() {
                let port = stream.local_addr().map_or(0, |address| address.port());
                let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
                let length = stream.read(&mut buffer).unwrap_or(0);
                heard.push(format!("tcp {port} from {from}: {}", text(&buffer[..length])));
            }
        }
        for socket in &self.datagrams {
            while let Ok(length) = socket.recv(&mut buffer) {
                heard.push(format!("unix datagram: {}", text(&buffer[..length])));
            }
        }
        while let Ok(length) = self.udp.recv(&mut buffer) {
            heard.push(format!("udp: {}", text(&buffer[..length])));
        }
        heard
    }
}
