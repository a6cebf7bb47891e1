//! The loads, made by a child inside the cgroup and the arena.

use std::{
    fs::File,
    io::Write as _,
    net::{Ipv6Addr, SocketAddrV6, UdpSocket},
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use egress::enforce::KernelProgram;
use egress_tests::Namespace;

use crate::tables::PORT;

/// What is done, again and again.
#[derive(Clone, Copy)]
pub(crate) enum Load {
    /// A datagram to an address of its own each time.
    Sendto,
    /// Datagrams of one connected socket: an established flow.
    Established,
    /// A datagram socket connected to another address each time.
    Connect,
    /// A TCP socket made and its first packet sent.
    Tcp,
}

impl Load {
    pub(crate) const ALL: [Self; 4] = [Self::Sendto, Self::Established, Self::Connect, Self::Tcp];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sendto => "sendto",
            Self::Established => "established",
            Self::Connect => "connect udp",
            Self::Tcp => "connect tcp",
        }
    }

    /// The hooks that it is meant to run.
    pub(crate) const fn hooks(self) -> &'static [KernelProgram] {
        match self {
            Self::Sendto => &[KernelProgram::Sendmsg6, KernelProgram::Packet],
            Self::Established => &[KernelProgram::Packet],
            Self::Connect => &[KernelProgram::Connect6],
            Self::Tcp => &[KernelProgram::Create, KernelProgram::Connect6, KernelProgram::Packet],
        }
    }

    fn make(self, targets: &[Ipv6Addr]) -> std::io::Result<()> {
        let peer = |address: &Ipv6Addr| SocketAddrV6::new(*address, PORT, 0, 0);
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        match self {
            Self::Sendto => {
                for target in targets.iter().cycle().take(60_000) {
                    socket.send_to(b"x", peer(target))?;
                }
            }
            Self::Established => {
                socket.connect(peer(&targets[0]))?;
                for _ in 0..200_000 {
                    socket.send(b"x")?;
                }
            }
            Self::Connect => {
                for target in targets.iter().cycle().take(60_000) {
                    socket.connect(peer(target))?;
                }
            }
            Self::Tcp => {
                for target in targets.iter().cycle().take(10_000) {
                    start_tcp(peer(target))?;
                }
            }
        }
        Ok(())
    }
}

fn start_tcp(peer: SocketAddrV6) -> std::io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn6, connect, socket};
    use std::os::fd::AsRawFd as _;
    let socket = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_NONBLOCK, None)?;
    match connect(socket.as_raw_fd(), &SockaddrIn6::from(peer)) {
        Err(nix::Error::EINPROGRESS) => Ok(()),
        result => Ok(result?),
    }
}

/// A network namespace with one device that leads nowhere.
pub(crate) struct Arena(Namespace);

impl Arena {
    pub(crate) fn new() -> Result<Self> {
        let namespace = Namespace::new()?;
        namespace.ip("link set lo up\nlink add hole type veth peer name drain\n\
             link set hole arp off\nlink set hole up\nlink set drain up\n\
             addr add 2001:db8:ffff::1/64 dev hole nodad\nroute add 2001:db8::/32 dev hole\n")?;
        Ok(Self(namespace))
    }

    /// Makes a load from inside a cgroup.
    pub(crate) fn run(&self, load: Load, targets: &[Ipv6Addr], cgroup: &Path) -> Result<()> {
        let procs = File::options().write(true).open(cgroup.join("cgroup.procs"))?;
        let targets = targets.to_vec();
        let mut command = Command::new("/bin/true");
        let work = move || {
            (&procs).write_all(b"0")?;
            load.make(&targets)
        };
        // SAFETY: this program has one thread whenever it forks.
        unsafe { self.0.place(&mut command).pre_exec(work) };
        let status = command.status().with_context(|| format!("make the load {}", load.name()))?;
        ensure!(status.success(), "the load {} ended with {status}", load.name());
        Ok(())
    }
}
