//! A scope with hooks of the LSM layer and none that would stop an attack before them.

use std::{
    io::{Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::maps::{MapData, RingBuf};
use egress::{
    compile::Compiled,
    enforce::{KernelProgram, Limits, LsmHook},
    policy::Restriction,
    scope::{cgroup::Places, enforced::EnforcedScope},
};
use egress_common::{Escape, Verdict, lsm::LsmCounters};
use egress_tests::Cgroup;
use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Pid, fork},
};
use zerocopy::FromBytes as _;

static MADE: AtomicU32 = AtomicU32::new(0);

/// The scope, its records and its counters.
pub(crate) struct Scope {
    pub(crate) enforced: EnforcedScope,
    records: RingBuf<MapData>,
}

impl Scope {
    /// With these hooks, and open as far as the policy says.
    pub(crate) fn new(hooks: &[LsmHook], compiled: &Compiled, permitted: &[Restriction]) -> Result<Self> {
        let run = format!("egress-lab-{}-lsm{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let found = Places::find()?;
        let beside = |path: &PathBuf| path.with_file_name(&run);
        let places = Places { cgroups: beside(&found.cgroups), pins: beside(&found.pins) };
        // A program that decides nothing, since there is no scope without any.
        let programs = [KernelProgram::Getpeername4];
        let mut enforced =
            EnforcedScope::close_parts(&places, "scope", &Limits::default(), &programs, hooks)?;
        if !hooks.is_empty() {
            let layer = enforced.lsm().map_err(|why| anyhow!("no LSM layer: {why:?}"))?;
            ensure!(hooks.iter().all(|hook| layer.has(*hook)), "a hook is missing: {:?}", layer.status());
            ensure!(layer.is_healthy(), "the kernel does not show the links");
        }
        let records = enforced.engine.take_events()?;
        enforced.open_permitting(compiled, 0, permitted)?;
        Ok(Self { enforced, records })
    }

    /// All hooks, and no rule at all.
    pub(crate) fn strict() -> Result<Self> {
        Self::new(&LsmHook::ALL, &Compiled::default(), &[])
    }

    /// The records since the last call.
    pub(crate) fn records(&mut self) -> Vec<Escape> {
        let mut found = Vec::new();
        while let Some(bytes) = self.records.next() {
            found.push(Escape::read_from_bytes(&bytes).expect("a record has the size of the contract"));
        }
        found
    }

    /// Runs a call in a process inside; its result and the process.
    pub(crate) fn run(&self, call: impl FnOnce() -> i32) -> Result<(i32, u32)> {
        let procs = self.enforced.cgroup().procs()?;
        in_child(Some(procs.as_raw_fd()), call)
    }

    pub(crate) fn counters(&self) -> LsmCounters {
        self.enforced.lsm_counters().expect("the counters of a living scope")
    }
}

/// Checks the law of the counters.
pub(crate) fn check_law(counters: &LsmCounters) -> Result<()> {
    for verdict in Verdict::ALL {
        let attempts: u64 = counters.attempts[verdict as usize].iter().sum();
        let fate = counters.fate[verdict as usize];
        let told = fate.emitted + fate.suppressed + fate.dropped;
        ensure!(attempts == told, "{verdict:?}: {attempts} attempts, {told} accounted for: {fate:?}");
    }
    Ok(())
}

/// Runs a call in a process of a plain control group.
pub(crate) fn unconfined(call: impl FnOnce() -> i32) -> Result<(i32, u32)> {
    let cgroup = Cgroup::new()?;
    let procs = std::fs::OpenOptions::new().write(true).open(cgroup.path().join("cgroup.procs"))?;
    in_child(Some(procs.as_raw_fd()), call)
}

/// Runs a call in a child, which first joins a control group.
pub(crate) fn in_child(procs: Option<i32>, call: impl FnOnce() -> i32) -> Result<(i32, u32)> {
    let (mut ours, theirs) = UnixStream::pair()?;
    // SAFETY: this process has one thread, so the child may do whatever the parent could.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(ours);
            finish(procs, theirs, call)
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            let mut said = Vec::new();
            ours.read_to_end(&mut said)?;
            let status = waitpid(child, None)?;
            let Ok(bytes) = <[u8; 4]>::try_from(said.as_slice()) else {
                bail!("the child said nothing: {status:?}")
            };
            Ok((i32::from_ne_bytes(bytes), child.as_raw().unsigned_abs()))
        }
    }
}

fn finish(procs: Option<i32>, mut answer: UnixStream, call: impl FnOnce() -> i32) -> ! {
    // SAFETY: an open descriptor and one byte.
    let joined = procs.is_none_or(|procs| unsafe { libc::write(procs, c"0".as_ptr().cast(), 1) } == 1);
    if joined {
        let errno = call();
        let _ = answer.write_all(&errno.to_ne_bytes());
    }
    // SAFETY: ends the child without running the parent's destructors.
    unsafe { libc::_exit(0) }
}

/// A process inside that stays until it is dropped.
pub(crate) struct Inmate {
    child: Pid,
    _leave: OwnedFd,
}

impl Inmate {
    /// Runs `begin` inside, and goes on when it is done.
    pub(crate) fn start<T>(scope: &Scope, begin: impl FnOnce() -> T) -> Result<Self> {
        let procs = scope.enforced.cgroup().procs()?;
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors, which are then ours alone.
        let (leave, wait) = unsafe {
            ensure!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) == 0, "no pipe");
            (OwnedFd::from_raw_fd(ends[1]), OwnedFd::from_raw_fd(ends[0]))
        };
        let (mut ready, tell) = UnixStream::pair()?;
        // SAFETY: this process has one thread, so the child may do whatever the parent could.
        match unsafe { fork() }? {
            ForkResult::Child => {
                drop((leave, ready));
                finish(Some(procs.as_raw_fd()), tell.try_clone()?, || {
                    let _kept = begin();
                    let _ = (&tell).write_all(b"y");
                    // SAFETY: an open descriptor and one byte; returns at the other end's end.
                    unsafe { libc::read(wait.as_raw_fd(), [0_u8].as_mut_ptr().cast(), 1) };
                    0
                })
            }
            ForkResult::Parent { child } => {
                drop(tell);
                let mut byte = [0];
                ready.read_exact(&mut byte).context("the process inside did not begin")?;
                Ok(Self { child, _leave: leave })
            }
        }
    }
}

impl Drop for Inmate {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.child, nix::sys::signal::Signal::SIGKILL);
        let status = waitpid(self.child, None);
        debug_assert!(matches!(status, Ok(WaitStatus::Signaled(..) | WaitStatus::Exited(..))));
    }
}
