//! The Landlock domain: names no file and no port; only keeps what the command reaches of other processes within the scope.
//! Any domain keeps ptrace and what needs the same rights within.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
};

/// `LANDLOCK_ACCESS_FS_REFER`: moving and linking between directories.
const REFER: u64 = 1 << 13;
/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET`
const ABSTRACT: u64 = 1;
/// `LANDLOCK_SCOPE_SIGNAL`
const SIGNAL: u64 = 1 << 1;
/// `LANDLOCK_RULE_PATH_BENEATH`
const PATH_BENEATH: libc::c_int = 1;

/// What a domain keeps within the scope, beside ptrace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Domain {
    /// What it says. One at least must be.
    Scoped {
        /// Connections to abstract unix sockets.
        abstract_unix: bool,
        /// Signals.
        signals: bool,
    },
    /// Nothing else: for kernels whose domains have to be about files. It allows all that it is about, moving files between
    /// directories; but within any domain about files the kernel refuses `mount`.
    Files,
}

/// `struct landlock_ruleset_attr`. Older kernels know the beginning only and take the rest if it is zero.
#[repr(C)]
struct Ruleset {
    files: u64,
    ports: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: i32,
}

impl Domain {
    /// Puts this thread and what it will start into the domain, for good. Needs `no_new_privs`.
    ///
    /// # Errors
    /// As the kernel says; `EOPNOTSUPP` or `ENOSYS` if there is no Landlock.
    pub(super) fn enter(self) -> io::Result<()> {
        let ruleset = self.ruleset()?;
        // SAFETY: two numbers.
        done(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) })?;
        Ok(())
    }

    fn ruleset(self) -> io::Result<OwnedFd> {
        let mut about = Ruleset { files: 0, ports: 0, scoped: 0 };
        match self {
            Self::Scoped { abstract_unix, signals } => {
                about.scoped = if abstract_unix { ABSTRACT } else { 0 } | if signals { SIGNAL } else { 0 };
            }
            Self::Files => about.files = REFER,
        }
        let size = size_of::<Ruleset>();
        // SAFETY: the structure lives through the call.
        let made = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const about, size, 0_u32) };
        // SAFETY: the kernel has just made this descriptor for us.
        let ruleset = unsafe { OwnedFd::from_raw_fd(done(made)?) };
        if self == Self::Files {
            allow_everywhere(&ruleset)?;
        }
        Ok(ruleset)
    }
}

/// Gives back below the root what the domain is about.
fn allow_everywhere(ruleset: &OwnedFd) -> io::Result<()> {
    let root = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open("/")?;
    let rule = Beneath { allowed: REFER, parent: root.as_raw_fd() };
    let descriptor = ruleset.as_raw_fd();
    // SAFETY: the structure lives through the call.
    done(unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, descriptor, PATH_BENEATH, &raw const rule, 0_u32)
    })?;
    Ok(())
}

fn done(result: libc::c_long) -> io::Result<i32> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
