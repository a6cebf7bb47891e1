//! Signals of the supervisor as a stream: those to pass on to the command, and the end of children.

use std::io;

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use tokio::io::unix::AsyncFd;

/// Signals that somebody may send to `egress` and means for the command.
const PASSED_ON: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCONT,
];

/// One signal that arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arrived {
    /// A child ended.
    Child,
    /// To be passed on to the command.
    Pass(Signal),
}

/// Signals, blocked and read from a descriptor. No handler, so nothing that the command would inherit.
pub struct Signals {
    fd: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Blocks the signals of this thread and opens the descriptor.
    ///
    /// # Errors
    /// As `sigprocmask(2)` and `signalfd(2)`.
    pub fn block() -> io::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        for signal in PASSED_ON {
            set.add(signal);
        }
        let before = set.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { fd, before })
    }

    /// The mask from before, for the command.
    pub const fn mask_before(&self) -> SigSet {
        self.before
    }

    /// A signal that asks to end and has come already, from whomever: there is no command yet to get it.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn pending(&self) -> io::Result<Option<Signal>> {
        while let Some(info) = self.fd.read_signal()? {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            if let Some(Signal::SIGHUP | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM) = signal {
                return Ok(signal);
            }
        }
        Ok(None)
    }

    /// Registers with the runtime.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn into_stream(self) -> io::Result<SignalStream> {
        // SAFETY: the descriptor is owned by the stream and stays the same one until it is dropped.
        Ok(SignalStream(unsafe { AsyncFd::register(self.fd) }.map_err(io::Error::from)?))
    }
}

/// The signals, as they come.
pub struct SignalStream(AsyncFd<SignalFd>);

impl SignalStream {
    /// Waits for the next signal. What the terminal sends goes to the command by itself and is left out.
    ///
    /// # Errors
    /// As `read(2)`.
    pub async fn next(&mut self) -> io::Result<Arrived> {
        loop {
            let mut ready = self.0.readable_mut().await?;
            while let Some(info) = ready.get_inner_mut().read_signal()? {
                let number = i32::try_from(info.ssi_signo).unwrap_or(0);
                match Signal::try_from(number) {
                    Ok(Signal::SIGCHLD) => return Ok(Arrived::Child),
                    // The kernel's own (Ctrl-C, hang-up) went to the whole foreground process group.
                    Ok(signal) if info.ssi_code != libc::SI_KERNEL => return Ok(Arrived::Pass(signal)),
                    _ => {}
                }
            }
            ready.clear_ready();
        }
    }
}
