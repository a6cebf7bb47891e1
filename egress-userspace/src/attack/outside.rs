//! Everybody outside the scope that attacks try to use: servers on the same host, unix sockets, a process that hands out
//! descriptors, visitors from the net. One thread on the attacking side's network namespace serves all; what it is given
//! counts as arrived.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::{fs::PermissionsExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    aim::{AGENT4, AGENT6, DEVICE, MEET, port},
    call::{Name, Sock},
    namespace::Sides,
    table::{self, Around, Handed, path_as_long},
    wire::Shared,
};

/// Netlink address of the helper.
pub(super) const NETLINK_PORT: u32 = 4711;

/// What is done when a descriptor has something to read.
#[derive(Clone, Copy, Debug)]
enum Role {
    /// Somebody connects; the attack that is proven by that alone.
    Accept(Option<usize>),
    /// Somebody connects to ask for a descriptor.
    Counter,
    /// Somebody says for which attack.
    Ask,
    /// Bytes come in.
    Read,
    /// A datagram comes in, which proves an attack whatever it holds.
    Hear(usize),
}

/// Those outside, until it is dropped.
#[derive(Debug)]
pub(super) struct Outside {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What the helpers are to know.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Where their sockets are to be.
    pub(super) directory: PathBuf,
    /// Tells runs apart.
    pub(super) nonce: u32,
}

impl Outside {
    /// Starts all; `listen` are further descriptors whose bytes count as arrived.
    pub(super) fn start(
        sides: &Arc<Sides>,
        place: &Place,
        arrivals: &Shared,
        listen: Vec<OwnedFd>,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut outside = Self { stop: Arc::clone(&stop), threads: Vec::new() };
        let mut served: Vec<(OwnedFd, Role)> = listen.into_iter().map(|fd| (fd, Role::Read)).collect();
        served.extend(sides.agent.enter(|| servers(&place.directory))?);
        served.extend(sides.net.enter(far_servers)?);
        let (ready, started) = mpsc::channel();
        let (far, shared, around) = (Arc::clone(sides), arrivals.clone(), place.clone());
        outside.threads.push(thread::spawn(move || {
            let done = far.agent.enter(|| {
                let _nobody_waits = ready.send(());
                serve(served, &around, &shared, &stop);
                Ok(())
            });
            drop(done);
        }));
        started.recv_timeout(Duration::from_secs(5)).map_err(io::Error::other)?;
        outside.visit(sides, place, arrivals);
        Ok(outside)
    }

    fn visit(&mut self, sides: &Arc<Sides>, place: &Place, arrivals: &Shared) {
        for (index, attack) in table::all().enumerate() {
            let inherited = attack.around == Around::Inherited(Handed::Listener);
            let visitor: fn(usize, &Place, &Shared) = match attack.around {
                Around::VisitTcp => visit_tcp,
                Around::VisitUdp => visit_udp,
                Around::VisitLoopback => visit_loopback,
                Around::VisitUnix => visit_unix,
                _ if inherited => visit_tcp,
                _ => continue,
            };
            let near = matches!(attack.around, Around::VisitLoopback | Around::VisitUnix);
            let (sides, place, arrivals) = (Arc::clone(sides), place.clone(), arrivals.clone());
            let stop = Arc::clone(&self.stop);
            self.threads.push(thread::spawn(move || {
                let side = if near { &sides.agent } else { &sides.net };
                let _no_namespace = side.enter(|| {
                    while !stop.load(Ordering::Relaxed) {
                        visitor(index, &place, &arrivals);
                        thread::sleep(Duration::from_millis(100));
                    }
                    Ok(())
                });
            }));
        }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

const VISIT: Duration = Duration::from_millis(200);

fn hear_out(stream: io::Result<TcpStream>, place: &Place, arrivals: Option<&Shared>) {
    let Ok(mut stream) = stream else { return };
    let mut buffer = [0; 256];
    let read = stream.set_read_timeout(Some(VISIT)).and_then(|()| stream.read(&mut buffer));
    if let (Ok(read), Some(arrivals)) = (read, arrivals) {
        arrivals.given(place.nonce, &buffer[..read]);
    }
}

fn visit_tcp(index: usize, place: &Place, _: &Shared) {
    let unbound = SocketAddr::from((AGENT4, table::unbound_port(index)));
    for address in [(AGENT4, port(index)).into(), (AGENT6, port(index)).into(), unbound] {
        hear_out(TcpStream::connect_timeout(&address, VISIT), place, None);
    }
}

fn visit_loopback(index: usize, place: &Place, arrivals: &Shared) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port(index)));
    hear_out(TcpStream::connect_timeout(&address, VISIT), place, Some(arrivals));
}

fn visit_udp(index: usize, _: &Place, _: &Shared) {
    for to in [SocketAddr::from((AGENT4, port(index))), SocketAddr::from((AGENT6, port(index)))] {
        let own = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let _later = UdpSocket::bind(own).and_then(|socket| {
            socket.send_to(b"anything for me?", to)?;
            socket.set_read_timeout(Some(VISIT))?;
            socket.recv(&mut [0; 64])
        });
    }
}

fn visit_unix(index: usize, place: &Place, arrivals: &Shared) {
    let path = place.directory.join(format!("visit-{index}"));
    let name = format!("visit-{index}");
    for name in [Name::path(&path), Name::abstracted(&name)] {
        let Ok(socket) = Sock::open(libc::AF_UNIX, libc::SOCK_STREAM, 0) else { return };
        if socket.connect(name).is_ok() {
            // SAFETY: duplicates a descriptor that is open.
            let mut stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(libc::dup(socket.as_raw_fd())) });
            let mut buffer = [0; 64];
            if let Ok(read) = stream.read(&mut buffer) {
                arrivals.given(place.nonce, &buffer[..read]);
            }
        }
    }
}

fn bound(kind: i32, name: Name) -> io::Result<OwnedFd> {
    let socket = Sock::open(libc::AF_UNIX, kind | libc::SOCK_NONBLOCK, 0)?;
    socket.bind(name)?;
    if kind != libc::SOCK_DGRAM {
        socket.listen()?;
    }
    Ok(socket.into())
}

/// Every server of the host.
fn servers(directory: &Path) -> io::Result<Vec<(OwnedFd, Role)>> {
    let mut served = Vec::new();
    let kinds =
        [(libc::SOCK_STREAM, "stream"), (libc::SOCK_SEQPACKET, "seqpacket"), (libc::SOCK_DGRAM, "dgram")];
    for (kind, name) in kinds {
        let role = if kind == libc::SOCK_DGRAM { Role::Read } else { Role::Accept(None) };
        let mut paths = vec![directory.join(name)];
        if let Some(letter) = name.chars().next().filter(|_| kind != libc::SOCK_SEQPACKET) {
            paths.extend([16, 28].map(|address| path_as_long(directory, address, letter)));
        }
        for path in paths {
            served.push((bound(kind, Name::path(&path))?, role));
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
        }
        served.push((bound(kind, Name::abstracted(&format!("egress-{name}")))?, role));
    }
    let counter = directory.join("handout");
    served.push((bound(libc::SOCK_STREAM, Name::path(&counter))?, Role::Counter));
    std::fs::set_permissions(&counter, std::fs::Permissions::from_mode(0o777))?;
    served.extend(netlink_user().map(|fd| (fd, Role::Read)));
    served.push((fifo(&directory.join("fifo"))?, Role::Read));
    for (index, attack) in table::all().enumerate() {
        if attack.around == Around::Server {
            let any = any(port(index));
            served.push((TcpListener::bind(&any[..])?.into(), Role::Accept(Some(index))));
            served.push((UdpSocket::bind(&any[..])?.into(), Role::Hear(index)));
        }
        served.extend(special_servers(index, attack.around)?);
    }
    Ok(served)
}

/// Servers that a look-up does not find, or finds with others.
fn special_servers(index: usize, around: Around) -> io::Result<Vec<(OwnedFd, Role)>> {
    let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port(index)));
    let (device, share) = match around {
        Around::ServerOfDevice => (true, false),
        Around::ServerThatShares => (false, true),
        _ => return Ok(Vec::new()),
    };
    let open = |kind: i32| -> io::Result<Sock> {
        let socket = Sock::open(libc::AF_INET, kind | libc::SOCK_NONBLOCK, 0)?;
        if device {
            socket.option("SO_BINDTODEVICE", libc::SOL_SOCKET, libc::SO_BINDTODEVICE, DEVICE.as_bytes())?;
        }
        if share {
            socket.number("SO_REUSEADDR", libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        }
        socket.bind(at)?;
        Ok(socket)
    };
    let (tcp, udp) = (open(libc::SOCK_STREAM)?, open(libc::SOCK_DGRAM)?);
    tcp.listen()?;
    Ok(vec![(tcp.into(), Role::Accept(Some(index))), (udp.into(), Role::Hear(index))])
}

/// Every address of both families, or of IPv4 where there is no other.
fn any(port: u16) -> [SocketAddr; 2] {
    [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
}

/// Take what comes over the wire, so that connections come about.
fn far_servers() -> io::Result<Vec<(OwnedFd, Role)>> {
    let mut served = Vec::new();
    for port in [443, 53, 853, 9, 10] {
        let any = any(port);
        served.push((TcpListener::bind(&any[..])?.into(), Role::Accept(None)));
        served.push((UdpSocket::bind(&any[..])?.into(), Role::Read));
    }
    Ok(served)
}

fn netlink_user() -> Option<OwnedFd> {
    let socket = Sock::open(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_USERSOCK).ok()?;
    let mut name = u16::try_from(libc::AF_NETLINK).ok()?.to_ne_bytes().to_vec();
    name.extend([0; 2]);
    name.extend(NETLINK_PORT.to_ne_bytes());
    name.extend([0; 4]);
    socket.bind(Name(name)).ok()?;
    Some(socket.into())
}

fn fifo(path: &Path) -> io::Result<OwnedFd> {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o666))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    let mut options = std::fs::OpenOptions::new();
    // Also for writing, or it would end with its first writer.
    Ok(options.read(true).write(true).open(path)?.into())
}

fn serve(mut served: Vec<(OwnedFd, Role)>, place: &Place, arrivals: &Shared, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // SAFETY: the descriptors live through the call.
        let borrow = |fd: &OwnedFd| unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
        let mut ends: Vec<_> =
            served.iter().map(|(fd, _)| PollFd::new(borrow(fd), PollFlags::POLLIN)).collect();
        let _interrupted = poll(&mut ends, PollTimeout::from(30_u16));
        let ready: Vec<bool> = ends.iter().map(|end| end.any().unwrap_or(false)).collect();
        let mut fresh = Vec::new();
        let mut ready = ready.into_iter();
        served.retain(|(fd, role)| {
            !ready.next().unwrap_or(false) || act(fd, *role, place, arrivals, &mut fresh)
        });
        served.extend(fresh);
    }
}

/// Whether the descriptor goes on.
fn act(fd: &OwnedFd, role: Role, place: &Place, arrivals: &Shared, fresh: &mut Vec<(OwnedFd, Role)>) -> bool {
    let number = fd.as_raw_fd();
    match role {
        Role::Accept(_) | Role::Counter => {
            // SAFETY: null asks for no address.
            let peer = unsafe {
                libc::accept4(number, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC)
            };
            if peer >= 0 {
                // SAFETY: the kernel just gave the descriptor to us.
                let peer = unsafe { OwnedFd::from_raw_fd(peer) };
                fresh.push((peer, if matches!(role, Role::Counter) { Role::Ask } else { Role::Read }));
            }
            if let Role::Accept(Some(index)) = role {
                arrivals.lock().local.insert(index);
            }
            true
        }
        Role::Read | Role::Hear(_) | Role::Ask => {
            let mut buffer = [0_u8; 2048];
            // SAFETY: the kernel writes at most the buffer's length.
            let read = unsafe { libc::read(number, buffer.as_mut_ptr().cast(), buffer.len()) };
            let Ok(read) = usize::try_from(read) else { return false };
            match role {
                Role::Hear(index) => {
                    arrivals.lock().local.insert(index);
                    true
                }
                Role::Ask => {
                    let index = std::str::from_utf8(&buffer[..read]).ok().and_then(|text| text.parse().ok());
                    let _nothing_to_give = index.map(|index| hand_out(number, index));
                    read > 0
                }
                _ => {
                    arrivals.given(place.nonce, &buffer[..read]);
                    // An empty datagram is no end; a stream that has ended is.
                    read > 0
                }
            }
        }
    }
}

fn hand_out(to: RawFd, index: usize) -> io::Result<()> {
    let Some(Around::Given(handed)) = table::all().nth(index).map(|attack| attack.around) else {
        return Ok(());
    };
    let fd = make(handed, index)?;
    let parts = [io::IoSlice::new(b"here")];
    let rights = [fd.as_raw_fd()];
    let control = [nix::sys::socket::ControlMessage::ScmRights(&rights)];
    nix::sys::socket::sendmsg::<()>(to, &parts, &control, nix::sys::socket::MsgFlags::empty(), None)?;
    Ok(())
}

/// A descriptor as a process outside makes it, on a thread of the attacking side's network namespace.
pub(super) fn make(handed: Handed, index: usize) -> io::Result<OwnedFd> {
    let meet = SocketAddr::from((MEET, 443));
    Ok(match handed {
        Handed::TcpConnected => TcpStream::connect_timeout(&meet, Duration::from_secs(2))?.into(),
        Handed::Tcp => Sock::tcp4()?.into(),
        Handed::Udp => UdpSocket::bind("0.0.0.0:0")?.into(),
        Handed::UdpConnected => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(meet)?;
            socket.into()
        }
        Handed::Listener => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port(index)))?.into(),
        Handed::Raw => Sock::open(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)?.into(),
        Handed::Packet => {
            let socket = Sock::open(libc::AF_PACKET, libc::SOCK_RAW, i32::from(3_u16.to_be()))?;
            let mut name = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?.to_ne_bytes().to_vec();
            name.extend(3_u16.to_be_bytes());
            name.extend(super::netlink::index_of(DEVICE)?.to_ne_bytes());
            name.extend([0; 12]);
            socket.bind(Name(name))?;
            socket.into()
        }
        Handed::Pair | Handed::Pipe | Handed::Procs | Handed::CgroupDirectory | Handed::Namespace => {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
    })
}

/// A pair or a pipe: the end to hand in, and the end to listen at.
pub(super) fn connected(handed: Handed) -> io::Result<(OwnedFd, OwnedFd)> {
    if handed == Handed::Pair {
        let (give, keep) = UnixStream::pair()?;
        return Ok((give.into(), keep.into()));
    }
    let (keep, give) = io::pipe()?;
    Ok((give.into(), keep.into()))
}

/// Has a process end by ending its standard input.
#[derive(Debug)]
pub(super) struct Holder {
    child: std::process::Child,
}

impl Holder {
    /// Of a process that was started with piped standard input and output; gives its buffer's address and its output.
    pub(super) fn of(mut child: std::process::Child) -> io::Result<(Self, u64, OwnedFd)> {
        let mut output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut text = Vec::new();
        let mut byte = [0];
        while output.read(&mut byte)? == 1 && byte[0] != b'\n' {
            text.push(byte[0]);
        }
        let place = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
        let holder = Self { child };
        Ok((holder, place.ok_or(io::ErrorKind::InvalidData)?, output.into()))
    }

    /// Its process id.
    pub(super) fn process(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(-1)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(mut input) = self.child.stdin.take() {
            let _gone = input.flush();
        }
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
