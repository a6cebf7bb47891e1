//! What `egress run` takes away from a command before it starts: system calls by a filter, reach by a Landlock domain.
//! Only ever narrows; what holds for the scope's packets and sockets is the cgroup's business.

mod calls;
mod filter;
mod landlock;
pub mod notify;
pub mod plan;
pub mod probe;
mod program;
pub mod tell;
pub mod watch;

use std::{io, os::unix::net::UnixStream};

use notify::Listener;
use plan::Plan;

impl Plan {
    /// Gives this process a session keyring of its own, so that what the caller's holds stays outside.
    ///
    /// # Errors
    /// As `keyctl(2)`.
    pub fn leave_keyring(&self) -> io::Result<()> {
        if !self.keyring {
            return Ok(());
        }
        // SAFETY: numbers, and no name.
        let result = unsafe {
            libc::syscall(
                libc::SYS_keyctl,
                libc::KEYCTL_JOIN_SESSION_KEYRING,
                std::ptr::null::<libc::c_char>(),
            )
        };
        if result >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // No keyrings at all: not in this kernel, or not in this container.
            Some(libc::ENOSYS | libc::EPERM) => Ok(()),
            _ => Err(error),
        }
    }

    /// Enters the Landlock domain, for good.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn enter_domain(&self) -> io::Result<()> {
        self.domain.map_or(Ok(()), landlock::Domain::enter)
    }

    /// Whether there will be a listener.
    pub fn is_told(&self) -> bool {
        self.filter.told && !self.filter.is_empty()
    }

    /// Installs the filter, for good, and hands the supervisor its end. The calls that follow until the command runs must be
    /// among those that the filter lets pass: the supervisor answers nothing yet.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn install_filter(&self, supervisor: &UnixStream) -> io::Result<()> {
        match self.filter.install()? {
            Some(descriptor) => Listener::hand_over(&descriptor, supervisor),
            None => Ok(()),
        }
    }
}
