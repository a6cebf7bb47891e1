//! The keeper: a small process that outlives its supervisor and tidies up when the last process of the scope is gone.
//!
//! Enforcement does not depend on it: the links are pinned. If it is killed too, the next `egress` tidies up.

use std::{
    fs::File,
    io::{self, PipeWriter, Read as _},
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    time::Duration,
};

use nix::{
    fcntl::{Flock, FlockArg},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::wait::waitpid,
    unistd::{ForkResult, Pid, fork, setsid},
};

use super::cgroup::{self, Cgroup};

/// Seconds that sockets of a scope may outlive it before they are left to the next `egress`: the kernel gives up an
/// orphaned connection after some minutes.
const LINGERING: u32 = 1_200;

/// The supervisor's hold on its keeper.
#[derive(Debug)]
pub struct Keeper {
    process: Pid,
    supervisor_lives: PipeWriter,
}

impl Keeper {
    /// Starts the keeper of a cgroup.
    ///
    /// Must be called while the process has one thread.
    ///
    /// # Errors
    /// As `pipe(2)` and `fork(2)`.
    pub fn start(cgroup: &Cgroup) -> io::Result<Self> {
        let (supervisor_ends, supervisor_lives) = io::pipe()?;
        // SAFETY: this process has one thread, so the child may do whatever the parent could.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Self { process: child, supervisor_lives }),
            ForkResult::Child => {
                drop(supervisor_lives);
                let status = i32::from(keep(supervisor_ends, cgroup).is_err());
                // SAFETY: ends the child without running the parent's destructors.
                unsafe { libc::_exit(status) }
            }
        }
    }

    /// Lets it go and, if the scope is removed already, waits until it is gone.
    pub fn release(self, scope_is_removed: bool) {
        drop(self.supervisor_lives);
        if scope_is_removed {
            let _gone = waitpid(self.process, None);
        }
    }
}

fn keep(supervisor_ends: io::PipeReader, cgroup: &Cgroup) -> io::Result<()> {
    setsid()?;
    let _unnamed = nix::sys::prctl::set_name(c"egress-keeper");
    let mut supervisor_ends = leave_everything(supervisor_ends)?;
    let (path, pins) = (cgroup.path().to_owned(), cgroup.pins().to_owned());
    // A lock of its own: the supervisor's ends with the supervisor.
    let directory = File::open(&path)?;
    let _lock = Flock::lock(directory, FlockArg::LockSharedNonblock).map_err(|(_, error)| error)?;
    supervisor_ends.read_to_end(&mut Vec::new())?;
    wait_until_empty(&path)?;
    cgroup::remove_scope(&path, &pins);
    for _ in 0..LINGERING {
        if cgroup::unpin_once_dead(&pins) {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    cgroup::remove_parents(&path, &pins);
    Ok(())
}

fn wait_until_empty(path: &Path) -> io::Result<()> {
    let Ok(mut events) = File::open(path.join("cgroup.events")) else {
        // The supervisor removed the scope.
        return Ok(());
    };
    while cgroup::is_populated(&mut events).unwrap_or(false) {
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        poll(&mut fds, PollTimeout::from(60_000_u16))?;
    }
    Ok(())
}

/// Closes everything but the pipe: an inherited pipe or terminal would look open to whoever waits for its end.
fn leave_everything(pipe: io::PipeReader) -> io::Result<io::PipeReader> {
    use std::os::fd::{FromRawFd as _, IntoRawFd as _};
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: the descriptors of the process are rearranged while nothing else runs in it; the pipe ends up as 3.
    unsafe {
        for standard in 0..3 {
            libc::dup2(null.as_raw_fd(), standard);
        }
        let pipe = pipe.into_raw_fd();
        if pipe != 3 && libc::dup2(pipe, 3) < 0 {
            return Err(io::Error::last_os_error());
        }
        std::mem::forget(null);
        libc::syscall(libc::SYS_close_range, 4_u32, u32::MAX, 0_u32);
        Ok(io::PipeReader::from(std::os::fd::OwnedFd::from_raw_fd(3)))
    }
}
