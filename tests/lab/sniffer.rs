//! Records every IP packet that comes out of the far end of the wire, whoever it is for.

use std::{
    ffi::CString,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{Namespace, network::address};

const ETH_P_ALL: u16 = 3;
const ETHERNET: usize = 14;

/// An IP packet as it was on the wire.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// Source address.
    pub from: IpAddr,
    /// Destination address in the IP header.
    pub to: IpAddr,
    /// Protocol or next header.
    pub protocol: u8,
    /// Source and destination port, if TCP, UDP or UDP-Lite directly follow the IP header.
    pub ports: Option<(u16, u16)>,
    /// The packet from its IP header on.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// Parses an Ethernet frame; `None` if it carries no IP.
    fn parse(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(ETHERNET..)?;
        let (from, to, protocol, payload) = match u16::from_be_bytes([frame[12], frame[13]]) {
            0x0800 => {
                let quad = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
                (quad(12)?.into(), quad(16)?.into(), *ip.get(9)?, usize::from(ip[0] & 15) * 4)
            }
            0x86dd => {
                let long = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?));
                (long(8)?.into(), long(24)?.into(), *ip.get(6)?, 40)
            }
            _ => return None,
        };
        let port = |at: usize| Some(u16::from_be_bytes([*ip.get(at)?, *ip.get(at + 1)?]));
        let ports =
            if matches!(protocol, 6 | 17 | 136) { port(payload).zip(port(payload + 2)) } else { None };
        Some(Self { from, to, protocol, ports, bytes: ip.to_vec() })
    }

    /// Neighbour discovery and multicast listener reports: the kernel's own talk, whatever programs do.
    pub fn is_neighbour_discovery(&self) -> bool {
        let report = self.protocol == 0 && self.to.is_multicast() && self.bytes.get(48) == Some(&143);
        report || (self.protocol == 58 && self.bytes.get(40).is_some_and(|kind| (130..=143).contains(kind)))
    }

    /// Whether the packet carries `text` anywhere.
    pub fn carries(&self, text: &str) -> bool {
        self.bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// Whether the packet carries `text` anywhere, in upper or lower case or a mixture.
    pub fn carries_in_any_case(&self, text: &str) -> bool {
        self.bytes.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text.as_bytes()))
    }
}

/// The sniffer's socket; the kernel keeps what arrives until it is asked for.
#[derive(Debug)]
pub(crate) struct Sniffer {
    socket: OwnedFd,
}

static MARKS: AtomicU64 = AtomicU64::new(0);

impl Sniffer {
    pub(crate) fn start(net: &Namespace, device: &str) -> Result<Self> {
        let name = CString::new(device)?;
        let socket = net.enter(|| packet_socket(&name)).context("open the sniffer")?;
        Ok(Self { socket })
    }

    /// Sends a mark down the wire and returns what arrived until it did.
    pub(crate) fn frames_until_mark(&self, agent: &Namespace) -> Vec<Frame> {
        let mark = format!("lab mark {}", MARKS.fetch_add(1, Ordering::Relaxed));
        // Each CPU has a queue of its own: what a program sent just before may come a moment after the mark.
        std::thread::sleep(Duration::from_millis(3));
        agent
            .enter(|| UdpSocket::bind("0.0.0.0:0")?.send_to(mark.as_bytes(), (address::MARK, 9)))
            .expect("send the lab's mark");
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut frames = Vec::new();
        loop {
            match self.read() {
                Some(frame) if frame.carries(&mark) => return frames,
                Some(frame) => frames.push(frame),
                None => std::thread::sleep(Duration::from_micros(200)),
            }
            assert!(Instant::now() < deadline, "the lab's mark was lost: the sniffer is blind");
        }
    }

    /// The next packet, from the agent's side; `None` if there is none now.
    fn read(&self) -> Option<Frame> {
        loop {
            let mut buffer = [0_u8; 70_000];
            // SAFETY: an all-zero address is valid, and the kernel writes at most its size.
            let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut size = libc::socklen_t::try_from(size_of_val(&from)).ok()?;
            // SAFETY: both buffers are ours and as long as we say.
            let read = unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_DONTWAIT,
                    (&raw mut from).cast(),
                    &raw mut size,
                )
            };
            let read = usize::try_from(read).ok()?;
            if from.sll_pkttype == libc::PACKET_OUTGOING {
                continue;
            }
            if let Some(frame) = Frame::parse(&buffer[..read]) {
                return Some(frame);
            }
        }
    }
}

fn packet_socket(device: &CString) -> io::Result<OwnedFd> {
    // SAFETY: plain system calls; the address and the option live through their calls.
    unsafe {
        let fd =
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(ETH_P_ALL.to_be()));
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let room: libc::c_int = 64 << 20;
        let size = libc::socklen_t::try_from(size_of_val(&room)).expect("a small size");
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const room).cast(), size);
        let mut to: libc::sockaddr_ll = std::mem::zeroed();
        to.sll_family = u16::try_from(libc::AF_PACKET).expect("a small number");
        to.sll_protocol = ETH_P_ALL.to_be();
        to.sll_ifindex = i32::try_from(libc::if_nametoindex(device.as_ptr())).expect("a small number");
        let size = libc::socklen_t::try_from(size_of_val(&to)).expect("a small size");
        if libc::bind(fd, (&raw const to).cast(), size) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(socket)
    }
}
