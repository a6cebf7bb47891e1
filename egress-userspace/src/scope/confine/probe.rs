//! What this kernel can take away, found out by doing it in a child and looking at what became of an attempt.

use std::{io, path::Path};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl::set_no_new_privs,
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, getppid},
};

use super::{
    calls::{Call, Fate},
    filter::Filter,
    landlock::Domain,
    notify::{Answer, Listener, Received},
};

/// What the kernel can take away at launch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Abilities {
    /// System calls, by a filter.
    pub filter: bool,
    /// Telling the supervisor of those that were refused.
    pub told: bool,
    /// Landlock.
    pub landlock: Landlock,
}

/// What a Landlock domain can do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Landlock {
    /// Nothing: not there, or without effect.
    Absent,
    /// Keep ptrace within, at the cost of `mount` (Linux 5.19).
    Files,
    /// Keep ptrace, signals and abstract unix sockets within (Linux 6.12).
    Scopes,
}

/// An errno that the call of the probe never gives by itself.
const MARK: i32 = libc::EXDEV;
const WAIT: u16 = 2_000;

/// Tries everything out.
///
/// Must be called while the process has one thread.
///
/// # Errors
/// As `fork(2)`.
pub fn abilities() -> io::Result<Abilities> {
    let told = in_child(|| listener_works().unwrap_or(false))?;
    let filter = told || in_child(|| filter_works().unwrap_or(false))?;
    let landlock = if in_child(|| domain_works(Domain::Scoped { abstract_unix: true, signals: true }))? {
        Landlock::Scopes
    } else if in_child(|| domain_works(Domain::Files))? {
        Landlock::Files
    } else {
        Landlock::Absent
    };
    Ok(Abilities { filter, told, landlock })
}

/// Whether it holds in a child process.
fn in_child(holds: impl FnOnce() -> bool) -> io::Result<bool> {
    // SAFETY: this process has one thread, so the child may do whatever the parent could.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let status = i32::from(!holds());
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => Ok(succeeded(child)),
    }
}

fn succeeded(child: Pid) -> bool {
    loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            status => return matches!(status, Ok(WaitStatus::Exited(_, 0))),
        }
    }
}

fn filter_of_probe(told: bool) -> Filter {
    let row = Call::probe(libc::SYS_getpriority, Fate::Denied(MARK));
    Filter { calls: vec![row], foreign: false, told }
}

fn is_refused() -> bool {
    // SAFETY: numbers only.
    unsafe {
        libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0) == -1 && *libc::__errno_location() == MARK
    }
}

fn filter_works() -> io::Result<bool> {
    set_no_new_privs()?;
    filter_of_probe(false).install()?;
    Ok(is_refused())
}

fn listener_works() -> io::Result<bool> {
    set_no_new_privs()?;
    let Some(descriptor) = filter_of_probe(true).install()? else { return Ok(false) };
    let listener = Listener::new(descriptor);
    // SAFETY: this process has one thread, so the child may do whatever the parent could.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let status = i32::from(!is_refused());
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => {
            poll(&mut [PollFd::new(listener.descriptor(), PollFlags::POLLIN)], PollTimeout::from(WAIT))?;
            if let Received::Call(call) = listener.receive()? {
                listener.answer(call.id, Answer::Errno(MARK))?;
            } else {
                kill(child, Signal::SIGKILL)?;
            }
            Ok(succeeded(child))
        }
    }
}

/// The parent is outside of the domain.
fn domain_works(domain: Domain) -> bool {
    let parent = getppid();
    let place = format!("/proc/{parent}/cwd");
    let reaches = || Path::new(&place).read_link().is_ok();
    if !reaches() || set_no_new_privs().is_err() || domain.enter().is_err() {
        return false;
    }
    let signals = domain == Domain::Files || kill(parent, None) == Err(Errno::EPERM);
    signals && !reaches()
}
