//! What arrived, by attack: frames off the far end of the wire, whoever they are for, and what processes outside the scope
//! were given. This is where verdicts are made; what the attacking side says is hearsay.

use std::{
    collections::BTreeSet,
    ffi::CString,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::{
    aim::{MOST, PORTS, of_address, tokens_in},
    namespace::{FAR, Namespace},
};

/// What arrived, and of which attack.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals {
    /// A frame to or from an address, or to a port, that stands for the attack.
    pub(super) addressed: BTreeSet<usize>,
    /// A frame that carries the attack's token.
    pub(super) carried: BTreeSet<usize>,
    /// A process outside was reached.
    pub(super) local: BTreeSet<usize>,
}

/// Arrivals that several collectors write.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Arrivals>>);

impl Shared {
    /// To read or write them.
    pub(super) fn lock(&self) -> MutexGuard<'_, Arrivals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process outside was given some bytes.
    pub(super) fn given(&self, nonce: u32, bytes: &[u8]) {
        self.lock().local.extend(tokens_in(nonce, bytes));
    }
}

const ETHERNET: usize = 14;

/// What one frame says of attacks.
fn read_frame(nonce: u32, frame: &[u8], arrivals: &mut Arrivals) {
    arrivals.carried.extend(tokens_in(nonce, frame));
    let Some(ip) = frame.get(ETHERNET..) else { return };
    match u16::from_be_bytes([frame[12], frame[13]]) {
        0x0800 if ip.len() >= 20 => {
            let at = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]).into();
            read_packet((at(12), at(16)), ip[9], &ip[usize::from(ip[0] & 15) * 4..], arrivals);
        }
        0x86dd if ip.len() >= 40 => {
            let at = |at: usize| {
                let bytes: [u8; 16] = ip[at..at + 16].try_into().unwrap_or_default();
                IpAddr::from(Ipv6Addr::from(bytes))
            };
            // Multicast listener reports come behind a hop-by-hop header of eight bytes.
            let (protocol, skip) = if ip[6] == 0 && ip.len() > 48 { (ip[40], 48) } else { (ip[6], 40) };
            read_packet((at(8), at(24)), protocol, &ip[skip..], arrivals);
        }
        _ => {}
    }
}

fn read_packet(ends: (IpAddr, IpAddr), protocol: u8, payload: &[u8], arrivals: &mut Arrivals) {
    const IGMP: u8 = 2;
    const ICMP6: u8 = 58;
    const REPORTS: std::ops::RangeInclusive<u8> = 130..=143;
    let first = payload.first().copied().unwrap_or_default();
    // The kernel's own talk about neighbours names addresses that nobody sent to.
    let own = protocol == ICMP6 && REPORTS.contains(&first);
    if !own {
        arrivals.addressed.extend([ends.0, ends.1].into_iter().filter_map(of_address));
    }
    if matches!(protocol, 6 | 17 | 33 | 132 | 136) && payload.len() >= 4 {
        let port = u16::from_be_bytes([payload[2], payload[3]]);
        let index = usize::from(port.wrapping_sub(PORTS));
        arrivals.addressed.extend((index < MOST).then_some(index));
    }
    let groups = match (protocol, first) {
        (IGMP, _) => payload
            .windows(4)
            .filter_map(|bytes| of_address(<[u8; 4]>::try_from(bytes).ok()?.into()))
            .collect(),
        (ICMP6, 131 | 143) => payload
            .windows(16)
            .filter_map(|bytes| of_address(<[u8; 16]>::try_from(bytes).ok()?.into()))
            .collect(),
        _ => Vec::new(),
    };
    arrivals.addressed.extend(groups);
}

/// Reads frames until it is dropped.
#[derive(Debug)]
pub(super) struct Sniffer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sniffer {
    /// On the far end of the wire.
    pub(super) fn start(net: &Namespace, nonce: u32, arrivals: &Shared) -> io::Result<Self> {
        let socket = net.enter(|| packet_socket(&CString::new(FAR)?))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, arrivals) = (Arc::clone(&stop), arrivals.clone());
        let thread = thread::Builder::new().name("egress-sniffer".into()).spawn(move || {
            let mut buffer = vec![0; 70_000];
            while !stopped.load(Ordering::Relaxed) {
                if let Some(frame) = next(&socket, &mut buffer) {
                    read_frame(nonce, frame, &mut arrivals.lock());
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// The next frame from the attacking side; none if nothing comes for a moment.
fn next<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    // SAFETY: an all-zero address is valid, and the kernel writes at most its size.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut size = libc::socklen_t::try_from(size_of_val(&from)).ok()?;
    // SAFETY: both buffers are ours and as long as we say.
    let read = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut from).cast(),
            &raw mut size,
        )
    };
    let read = usize::try_from(read).ok()?;
    (from.sll_pkttype != libc::PACKET_OUTGOING).then_some(&buffer[..read])
}

fn packet_socket(device: &CString) -> io::Result<OwnedFd> {
    const ETH_P_ALL: u16 = 3;
    // SAFETY: plain system calls; address and options live through their calls.
    unsafe {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        let fd = libc::socket(libc::AF_PACKET, kind, i32::from(ETH_P_ALL.to_be()));
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let room: libc::c_int = 64 << 20;
        let size = libc::socklen_t::try_from(size_of_val(&room)).map_err(io::Error::other)?;
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const room).cast(), size);
        let time = libc::timeval { tv_sec: 0, tv_usec: 50_000 };
        let size = libc::socklen_t::try_from(size_of_val(&time)).map_err(io::Error::other)?;
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const time).cast(), size);
        let mut to: libc::sockaddr_ll = std::mem::zeroed();
        to.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
        to.sll_protocol = ETH_P_ALL.to_be();
        to.sll_ifindex = i32::try_from(libc::if_nametoindex(device.as_ptr())).map_err(io::Error::other)?;
        let size = libc::socklen_t::try_from(size_of_val(&to)).map_err(io::Error::other)?;
        if libc::bind(fd, (&raw const to).cast(), size) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(socket)
    }
}
