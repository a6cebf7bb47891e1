//! Starts a command inside a scope: joined, stripped of the means to leave, and only then executed.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command},
};

use caps::{CapSet, Capability, CapsHashSet};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{SigSet, SigmaskHow, sigprocmask},
        socket::{UnixAddr, getpeername},
    },
    unistd::{setgroups, setresgid, setresuid},
};

use super::{
    cgroup,
    confine::{notify::Listener, plan::Plan},
    identity::Identity,
    limits::ResourceLimits,
};

/// What a command may keep if it runs as root. Everything else, and in particular `NET_RAW`, `NET_ADMIN`, `BPF`,
/// `PERFMON`, `SYS_ADMIN`, `SYS_PTRACE`, `SYS_MODULE`, `MKNOD` and `DAC_READ_SEARCH`, would lead out of the scope.
/// With `SETUID` and `SETGID` it could become any user, whose processes outside it may then look into: `/proc/PID/root`
/// is a way to the cgroups as they are mounted outside.
const KEPT: [Capability; 8] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_IPC_LOCK,
    Capability::CAP_KILL,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SYS_CHROOT,
];

/// A command to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Program, found along `PATH`, and its arguments.
    pub command: Vec<OsString>,
    /// Who it runs as.
    pub identity: Identity,
    /// The signal mask that it gets.
    pub mask: SigSet,
    /// The limits that it gets.
    pub limits: ResourceLimits,
    /// What is taken away from it.
    pub plan: Plan,
}

/// A command that runs.
#[derive(Debug)]
pub struct Launched {
    /// It.
    pub child: Child,
    /// Where its denied system calls arrive.
    pub listener: Option<Listener>,
}

/// Why a command did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// No such program.
    #[error("{0:?}: command not found, or the interpreter that its first line names")]
    NotFound(PathBuf),
    /// It is there but cannot be executed.
    #[error("{program:?}: cannot execute: {source}")]
    NotExecutable {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// One of the steps before it failed.
    #[error("cannot {step} for the command: {source}")]
    Step {
        /// Which.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A standard descriptor is a directory.
    #[error("{0} is a directory: through it the command could reach files that are hidden from it")]
    DirectoryAsStdio(&'static str),
    /// A standard descriptor is a network socket.
    #[error(
        "{0} is a network socket: it was made outside the scope and stays outside it for ever, so the command could \
         send through it unseen; connect it through a pipe instead"
    )]
    SocketAsStdio(&'static str),
    /// A standard descriptor is a unix socket that can be led elsewhere.
    #[error(
        "{0} is a unix socket that is not one end of a stream: it was made outside the scope, so through it the command \
         could reach any other socket unseen; connect it through a pipe instead"
    )]
    UnixSocketAsStdio(&'static str),
}

/// The steps between fork and exec, in order. The child announces each, so that a failure has a name.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Step {
    Join,
    Hide,
    Capabilities,
    Groups,
    User,
    NoNewPrivileges,
    Descriptors,
    Limits,
    Signals,
    Keyring,
    Domain,
    Filter,
    Exec,
}

impl Step {
    const ALL: [(Self, &'static str); 13] = [
        (Self::Join, "join the scope's cgroup"),
        (Self::Hide, "hide cgroups and pins"),
        (Self::Capabilities, "drop capabilities"),
        (Self::Groups, "set the groups"),
        (Self::User, "set the user"),
        (Self::NoNewPrivileges, "set no_new_privs"),
        (Self::Descriptors, "close inherited descriptors"),
        (Self::Limits, "restore the resource limits"),
        (Self::Signals, "restore the signal mask"),
        (Self::Keyring, "join a session keyring of its own"),
        (Self::Domain, "enter the Landlock domain"),
        (Self::Filter, "install the system call filter"),
        (Self::Exec, "start the program"),
    ];
}

impl Launch {
    /// Starts the command in the cgroup behind `procs` (an open `cgroup.procs`). Its first instruction runs inside.
    ///
    /// Must be called while the process has one thread.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing runs then.
    pub fn start(&self, procs: &File) -> Result<Launched, LaunchError> {
        refuse_ways_out_as_stdio()?;
        let program = PathBuf::from(&self.command[0]);
        let pipe = |source| LaunchError::Step { step: "make a pipe", source };
        let (mut steps, announce) = io::pipe().map_err(pipe)?;
        let procs = procs.try_clone().map_err(pipe)?;
        let (listening, handing) = UnixStream::pair().map_err(pipe)?;
        let mut command = Command::new(&program);
        command.args(&self.command[1..]);
        self.set_environment(&mut command);
        let launch = self.clone();
        // SAFETY: this process has one thread, so between fork and exec the child may allocate and lock.
        unsafe { command.pre_exec(move || prepare(&launch, &procs, &handing, &announce)) };
        let result = command.spawn();
        drop(command);
        let child = result.map_err(|source| match last_step(&mut steps) {
            // The library looks the program up before it forks or right at exec.
            None | Some(Step::Exec) if source.kind() == io::ErrorKind::NotFound => {
                LaunchError::NotFound(program)
            }
            None | Some(Step::Exec) => LaunchError::NotExecutable { program, source },
            Some(step) => LaunchError::Step { step: Step::ALL[step as usize].1, source },
        })?;
        let take = |source| LaunchError::Step { step: "take over the system call filter", source };
        let listener =
            if self.plan.is_told() { Listener::take_over(&listening).map_err(take)? } else { None };
        Ok(Launched { child, listener })
    }

    fn set_environment(&self, command: &mut Command) {
        if self.identity.uid == nix::unistd::geteuid() {
            return;
        }
        for variable in ["SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND", "SUDO_HOME"] {
            command.env_remove(variable);
        }
        if let Some(account) = &self.identity.account {
            command.env("HOME", &account.home).env("SHELL", &account.shell);
            command.env("USER", &account.name).env("LOGNAME", &account.name);
        }
    }
}

fn last_step(steps: &mut PipeReader) -> Option<Step> {
    let mut announced = Vec::new();
    // The writing ends are closed: by `drop` here, by exit in the child.
    steps.read_to_end(&mut announced).ok()?;
    let last = usize::from(*announced.last()?);
    Step::ALL.get(last).map(|(step, _)| *step)
}

/// Runs in the child. The order matters: joining needs root, and no step after it can be refused by the scope.
fn prepare(
    launch: &Launch,
    procs: &File,
    supervisor: &UnixStream,
    mut announce: &PipeWriter,
) -> io::Result<()> {
    let (identity, plan) = (&launch.identity, &launch.plan);
    for (step, _) in Step::ALL {
        announce.write_all(&[step as u8])?;
        match step {
            Step::Join => {
                let mut procs = procs;
                procs.write_all(b"0")?;
            }
            // An ordinary user can write none of what is hidden; hiding it costs a mount namespace.
            Step::Hide if identity.uid.is_root() => hide_enforcement()?,
            Step::Hide => {}
            Step::Capabilities => drop_capabilities().map_err(io::Error::other)?,
            Step::Groups => {
                setgroups(&identity.groups)?;
                setresgid(identity.gid, identity.gid, identity.gid)?;
            }
            Step::User => {
                setresuid(identity.uid, identity.uid, identity.uid)?;
                if identity.uid.is_root() {
                    keep_only(&kept()).map_err(io::Error::other)?;
                }
            }
            Step::NoNewPrivileges => nix::sys::prctl::set_no_new_privs()?,
            Step::Descriptors => close_on_exec_from(3)?,
            Step::Limits => launch.limits.restore()?,
            Step::Signals => sigprocmask(SigmaskHow::SIG_SETMASK, Some(&launch.mask), None)?,
            Step::Keyring => plan.leave_keyring()?,
            Step::Domain => plan.enter_domain()?,
            Step::Filter => plan.install_filter(supervisor)?,
            Step::Exec => {}
        }
    }
    Ok(())
}

/// For a command that runs as root, which owns `cgroup.procs`, the pins, and kernel settings that name programs to be run
/// outside (`core_pattern`): makes `/sys`, cgroups and `/proc/sys` read-only and covers the BPF file systems, in a mount
/// namespace that only a capability it does not have could change. A fresh `/proc` or `/sys`, mounted in a user namespace,
/// cannot show more than these do: the kernel refuses it (`mount_too_revealing`).
fn hide_enforcement() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    // Private: what is mounted outside later, a cgroup2 for a container say, must not appear in here, writable.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let settings = ["sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi"];
    for proc in cgroup::mounted(&mounts, "proc") {
        for place in settings.iter().map(|name| proc.join(name)).filter(|place| place.exists()) {
            mount(Some(&place), &place, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
            read_only(&place)?;
        }
    }
    let kernel =
        ["sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "configfs", "pstore", "efivarfs"];
    for place in kernel.into_iter().flat_map(|kind| cgroup::mounted(&mounts, kind)) {
        read_only(&place)?;
    }
    for place in cgroup::mounted(&mounts, "bpf") {
        mount(Some("none"), &place, Some("tmpfs"), MsFlags::MS_RDONLY, Some("size=4k,mode=000"))?;
    }
    Ok(())
}

fn read_only(place: &Path) -> io::Result<()> {
    let bind = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    let flags = bind | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(None::<&str>, place, None::<&str>, flags, None::<&str>)?)
}

fn kept() -> CapsHashSet {
    KEPT.into_iter().collect()
}

fn drop_capabilities() -> Result<(), caps::errors::CapsError> {
    let kept = kept();
    caps::clear(None, CapSet::Ambient)?;
    for capability in caps::read(None, CapSet::Bounding)?.difference(&kept) {
        caps::drop(None, CapSet::Bounding, *capability)?;
    }
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())
}

fn keep_only(kept: &CapsHashSet) -> Result<(), caps::errors::CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?.intersection(kept).copied().collect();
    caps::set(None, CapSet::Effective, &permitted)?;
    caps::set(None, CapSet::Permitted, &permitted)
}

/// Marked rather than closed, because the pipe on which a failed exec is told is among them.
fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: marks descriptors, closes none.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return Ok(());
    }
    // Before 5.11 close_range has no such flag.
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if number.unsigned_abs() >= first {
            // SAFETY: marks a descriptor; one that is gone meanwhile is an error that changes nothing.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// What a standard descriptor leads to was chosen by whoever started the run, be it a file, a pipe, a terminal or the other
/// end of a connected unix stream (the journal's, another program's); but it must not lead anywhere else.
fn refuse_ways_out_as_stdio() -> Result<(), LaunchError> {
    for (number, name) in [(0, "standard input"), (1, "standard output"), (2, "standard error")] {
        match socket_option(number, libc::SO_DOMAIN) {
            Some(libc::AF_UNIX) if is_one_end(number) => {}
            Some(libc::AF_UNIX) => return Err(LaunchError::UnixSocketAsStdio(name)),
            Some(_) => return Err(LaunchError::SocketAsStdio(name)),
            None => {}
        }
        if std::fs::metadata(format!("/proc/self/fd/{number}")).is_ok_and(|stdio| stdio.is_dir()) {
            return Err(LaunchError::DirectoryAsStdio(name));
        }
    }
    Ok(())
}

/// A connected stream cannot be connected anew; a datagram socket can send to any name, also as one of a pair.
fn is_one_end(unix: libc::c_int) -> bool {
    matches!(socket_option(unix, libc::SO_TYPE), Some(libc::SOCK_STREAM | libc::SOCK_SEQPACKET))
        && getpeername::<UnixAddr>(unix).is_ok()
}

/// `None` for what is no socket.
fn socket_option(descriptor: libc::c_int, option: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(4);
    // SAFETY: an integer and its size; what is no socket is an error.
    let result = unsafe {
        libc::getsockopt(descriptor, libc::SOL_SOCKET, option, (&raw mut value).cast(), &raw mut length)
    };
    (result == 0).then_some(value)
}
