//! What is there outside the scope: sockets, a process, descriptors and control groups that an attack could use.

use std::{
    fs::{self, File},
    net::UdpSocket,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};
use egress_tests::Cgroup;
use io_uring::IoUring;
use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{Backlog, SockType, bind, listen},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork},
};

use crate::call::{unix_address, unix_socket};

static MADE: AtomicU32 = AtomicU32::new(0);

/// Everything that is there outside.
pub(crate) struct Outside {
    /// A directory for sockets.
    pub(crate) directory: PathBuf,
    /// A process that sleeps.
    pub(crate) victim: Pid,
    /// Another control group.
    pub(crate) elsewhere: Cgroup,
    /// Its directory.
    pub(crate) elsewhere_directory: File,
    /// A file of its, open for writing.
    pub(crate) limit: File,
    /// Its list of processes, open for writing.
    pub(crate) procs: File,
    /// A datagram socket without a peer.
    pub(crate) unconnected: UdpSocket,
    /// One that has a peer.
    pub(crate) connected: UdpSocket,
    /// A pair that both sides have.
    pub(crate) pair: (UnixDatagram, UnixDatagram),
    /// The far end of what descriptors are passed over.
    pub(crate) giver: UnixStream,
    /// The near end.
    pub(crate) taker: UnixStream,
    /// A ring.
    pub(crate) ring: IoUring,
    _listeners: Vec<OwnedFd>,
}

impl Outside {
    pub(crate) fn new() -> Result<Self> {
        let directory = PathBuf::from(format!("/tmp/lsm-{}", MADE.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(directory.join("mount"))?;
        let mut listeners: Vec<OwnedFd> = vec![
            UnixListener::bind(directory.join("stream"))?.into(),
            UnixListener::bind(directory.join("stream-two"))?.into(),
            UnixDatagram::bind(directory.join("datagram"))?.into(),
        ];
        for (kind, name) in [
            (SockType::SeqPacket, format!("{}/seqpacket", directory.display())),
            (SockType::Stream, abstracted(&directory)),
        ] {
            let listener = unix_socket(kind);
            bind(listener.as_raw_fd(), &unix_address(&name))?;
            listen(&listener, Backlog::new(8)?)?;
            listeners.push(listener);
        }
        let elsewhere = Cgroup::new()?;
        let open = |name: &str| File::options().write(true).open(elsewhere.path().join(name));
        let (limit, procs) = (open("cgroup.max.descendants")?, open("cgroup.procs")?);
        let elsewhere_directory = File::open(elsewhere.path())?;
        let connected = UdpSocket::bind("127.0.0.1:0")?;
        // Its own address: what is sent is never lost on the way.
        connected.connect(connected.local_addr()?)?;
        let (giver, taker) = UnixStream::pair()?;
        Ok(Self {
            victim: sleeper()?,
            elsewhere,
            elsewhere_directory,
            limit,
            procs,
            unconnected: UdpSocket::bind("127.0.0.1:0")?,
            connected,
            pair: UnixDatagram::pair()?,
            giver,
            taker,
            ring: IoUring::new(2).context("make a ring")?,
            directory,
            _listeners: listeners,
        })
    }

    /// The path of a socket in the directory.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.directory.display())
    }

    /// The abstract name that a listener has.
    pub(crate) fn abstracted(&self) -> String {
        abstracted(&self.directory)
    }
}

fn abstracted(directory: &Path) -> String {
    format!("@{}", directory.display())
}

/// A child that waits to be killed.
pub(crate) fn sleeper() -> Result<Pid> {
    // SAFETY: this process has one thread, and the child only waits.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => loop {
            nix::unistd::pause();
        },
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = kill(self.victim, Signal::SIGKILL);
        let _ = waitpid(self.victim, None);
        let _ = fs::remove_dir_all(&self.directory);
    }
}
