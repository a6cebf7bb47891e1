//! Unix sockets where the kernel cannot judge them by itself: the hooks refuse every connect of the scope but the broker's,
//! and the broker, a process of root outside the scope, makes the calls that may be made in their callers' place.
//!
//! A process of its own, because a call may have to wait, and because the kernel tells listeners the rights of the thread
//! that connects: each call has a thread that takes its caller's. What listeners see as process id is the broker's.

mod address;
mod call;
mod caller;
mod diag;
mod glance;
mod judge;
mod own;
mod place;
mod process;
mod stand_in;
mod wire;

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd},
    path::PathBuf,
};

use nix::{
    sys::{
        signal::Signal,
        socket::{AddressFamily, SockFlag, SockType, socketpair},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork, setsid},
};
use tokio::io::{Interest, unix::AsyncFd};

pub use judge::UnixPolicy;
pub use wire::Message;

use super::{cgroup::Cgroup, confine::notify::Listener};
use call::Scene;
use own::Own;

/// What the broker knows from the start.
struct Setting {
    cgroup: PathBuf,
    scope: u64,
    policy: UnixPolicy,
    audit: bool,
}

/// The supervisor's hold on the broker.
#[derive(Debug)]
pub struct Broker {
    process: Pid,
    channel: OwnedFd,
    watched: Option<AsyncFd<OwnedFd>>,
    dead: bool,
}

impl Broker {
    /// Starts the broker of a scope, whose sockets' tags the map behind `tags` holds.
    ///
    /// Must be called while the process has one thread.
    ///
    /// # Errors
    /// Where the kernel does not list unix sockets, and as `socketpair(2)` and `fork(2)`.
    pub fn start(cgroup: &Cgroup, tags: OwnedFd, policy: UnixPolicy, audit: bool) -> io::Result<Self> {
        diag::list()?;
        let (channel, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: this process has one thread, so the child may do whatever the parent could.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Self { process: child, channel, watched: None, dead: false }),
            ForkResult::Child => {
                drop(channel);
                let setting = Setting { cgroup: cgroup.path().to_owned(), scope: cgroup.id(), policy, audit };
                let status = i32::from(live(theirs, tags, setting).is_err());
                // SAFETY: ends the child without running the parent's destructors.
                unsafe { libc::_exit(status) }
            }
        }
    }

    /// The process that the scope's hooks let connect.
    pub fn process(&self) -> u32 {
        self.process.as_raw().unsigned_abs()
    }

    /// Gives it the listener, whose calls it takes from then on. Once.
    ///
    /// # Errors
    /// If the broker is gone.
    pub fn begin(&self, listener: &Listener) -> io::Result<()> {
        wire::send_descriptor(self.channel.as_fd(), listener.descriptor())
    }

    /// Waits for its next message. `None`, once, at its death: then nobody takes calls any more.
    ///
    /// # Errors
    /// Watching the channel.
    pub async fn told(&mut self) -> io::Result<Option<Message>> {
        if self.dead {
            return std::future::pending().await;
        }
        if self.watched.is_none() {
            let channel = self.channel.try_clone()?;
            // SAFETY: the descriptor is owned by what is registered, so it stays open and the same for as long.
            self.watched = Some(unsafe { AsyncFd::register_with_interest(channel, Interest::READABLE) }?);
        }
        let Some(watched) = &self.watched else { return std::future::pending().await };
        let take = |channel: &OwnedFd| wire::receive(channel.as_fd());
        if let Ok(Some(told)) = watched.async_io(Interest::READABLE, take).await {
            return Ok(Some(told));
        }
        self.dead = true;
        Ok(None)
    }

    /// What it told last; without waiting.
    pub fn rest(&self) -> Vec<Message> {
        std::iter::from_fn(|| wire::receive(self.channel.as_fd()).ok().flatten()).collect()
    }

    /// Leaves the broker to what goes on in the scope, with which it ends, or ends it now.
    pub fn part(self, empty: bool) {
        let Self { process, channel, watched, .. } = self;
        drop((channel, watched));
        if !empty {
            return;
        }
        let _gone = nix::sys::signal::kill(process, Signal::SIGKILL);
        let _gone = waitpid(process, None);
    }
}

/// The broker's life. It may outlive the supervisor, since TCP waits for its answers, but not the scope.
fn live(channel: OwnedFd, tags: OwnedFd, setting: Setting) -> io::Result<()> {
    setsid()?;
    nix::sys::prctl::set_dumpable(false)?;
    let _unnamed = nix::sys::prctl::set_name(c"egress-broker");
    std::env::set_current_dir("/")?;
    let (channel, tags) = keep_only(channel, tags)?;
    let Some(listener) = wire::receive_descriptor(channel.as_fd())? else { return Ok(()) };
    let Setting { cgroup, scope, policy, audit } = setting;
    let own = Own::new(cgroup, scope, tags);
    process::serve(channel, Scene { scope, audit, policy, own, listener: Listener::new(listener) })
}

/// Closes everything else: an inherited pipe or link would look open to whoever waits for its end.
fn keep_only(first: OwnedFd, second: OwnedFd) -> io::Result<(OwnedFd, OwnedFd)> {
    const ABOVE: libc::c_int = 16;
    let null = File::options().read(true).write(true).open("/dev/null")?.into_raw_fd();
    let (first, second) = (first.into_raw_fd(), second.into_raw_fd());
    // SAFETY: the descriptors of the process are rearranged while nothing else runs in it; the two end up as 3 and 4.
    unsafe {
        let first = libc::fcntl(first, libc::F_DUPFD, ABOVE);
        let second = libc::fcntl(second, libc::F_DUPFD, ABOVE);
        for (from, to) in [(null, 0), (null, 1), (null, 2), (first, 3), (second, 4)] {
            if libc::dup2(from, to) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        libc::syscall(libc::SYS_close_range, 5_u32, u32::MAX, 0_u32);
        Ok((OwnedFd::from_raw_fd(3), OwnedFd::from_raw_fd(4)))
    }
}
