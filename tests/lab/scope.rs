//! An enforced scope of a test's own, its events and its counters.

use std::{
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use egress::{
    compile::Compiled,
    enforce::{KernelProgram, Limits},
    scope::{
        cgroup::{Cgroup, Places},
        enforced::EnforcedScope,
    },
};
use egress_common::{Counters, Event, Hook, Reason, Verdict};
use zerocopy::FromBytes as _;

use crate::{Attempt, Lab, Outcome, cases::Told, cgroup};

/// A scope with some or all of the programs attached.
pub struct Scope {
    /// The scope itself.
    pub enforced: EnforcedScope,
    events: RingBuf<MapData>,
    places: Places,
}

static MADE: AtomicU32 = AtomicU32::new(0);
/// The self-test forks, and a fork copies the descriptors of all tests that are in the middle of something.
static FORKING: Mutex<()> = Mutex::new(());

/// Held while a scope is attached to a control group of the test's own: the self-test forks.
pub fn alone() -> std::sync::MutexGuard<'static, ()> {
    FORKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Scope {
    /// Attaches `programs`; the scope refuses everything until [`Scope::open`].
    pub fn closed(programs: &[KernelProgram]) -> Result<Self> {
        Self::with_limits(programs, &Limits { ring: 1 << 20, ..Limits::default() })
    }

    /// With tables of other sizes.
    pub fn with_limits(programs: &[KernelProgram], limits: &Limits) -> Result<Self> {
        crate::require_root();
        cgroup::STALE.call_once(|| cgroup::remove_stale().expect("remove what killed tests have left"));
        let run = format!("egress-lab-{}-s{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let found = Places::find()?;
        let beside = |path: &PathBuf| path.with_file_name(&run);
        let places = Places { cgroups: beside(&found.cgroups), pins: beside(&found.pins) };
        let _alone = alone();
        let mut enforced = EnforcedScope::close_with(&places, "scope", limits, programs)?;
        let events = enforced.engine.take_events()?;
        let mut scope = Self { enforced, events, places };
        scope.events();
        Ok(scope)
    }

    /// All programs, and this policy.
    pub fn open(compiled: &Compiled) -> Result<Self> {
        let mut scope = Self::closed(&KernelProgram::ALL)?;
        scope.enforced.open(compiled, 0)?;
        Ok(scope)
    }

    /// Its control group.
    pub fn cgroup(&self) -> &Cgroup {
        self.enforced.cgroup()
    }

    /// Has `command` start inside.
    pub fn place(&self, command: &mut Command) -> Result<()> {
        let procs = self.cgroup().procs()?;
        // SAFETY: after the fork only one system call is made, and nothing is allocated.
        unsafe { command.pre_exec(move || Ok(nix::unistd::write(&procs, b"0").map(drop)?)) };
        Ok(())
    }

    /// Performs an attempt inside; what became of it and its events. Events of packets that the kernel sends by itself
    /// after the program's end are left out.
    pub fn run(&mut self, lab: &Lab, attempt: &Attempt<'_>) -> Result<(Outcome, Vec<Event>)> {
        self.events();
        let mut command = attempt.command(lab);
        self.place(&mut command)?;
        let outcome = Outcome::of(command.spawn().context("start the contained program")?)?;
        let pid = outcome.pid;
        let mut events = self.events();
        events.retain(|event| event.owner.tgid == pid || event.owner.tgid == 0);
        Ok((outcome, events))
    }

    /// The events since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        let mut found = Vec::new();
        while let Some(bytes) = self.events.next() {
            found.push(Event::read_from_bytes(&bytes).expect("an event has the size of the contract"));
        }
        found
    }

    /// The counters.
    pub fn counters(&self) -> Counters {
        self.enforced.counters().expect("the counters of a living scope")
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let _ = std::fs::write(self.cgroup().path().join("cgroup.kill"), "1");
        for _ in 0..400 {
            // Sockets of what was refused may live on for minutes; here they have nowhere to go.
            if self.cgroup().remove_if_empty() || !self.cgroup().path().exists() {
                let _ = std::fs::remove_dir(&self.places.cgroups);
                let _ = std::fs::remove_dir_all(&self.places.pins);
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        eprintln!("lab: the scope {} could not be removed", cgroup::mount().unwrap_or_default().display());
    }
}

/// What an event says of verdict, hook and reason.
pub fn told(event: &Event) -> Told {
    (
        Verdict::from_u8(event.verdict).expect("a verdict of the contract"),
        Hook::from_u8(event.hook).expect("a hook of the contract"),
        Reason::from_u8(event.reason).expect("a reason of the contract"),
    )
}

/// How many attempts of each kind were counted between two readings, those that did not move left out.
pub fn moved(before: &Counters, after: &Counters) -> Vec<(Told, u64)> {
    let mut found = Vec::new();
    for verdict in Verdict::ALL {
        for hook in Hook::ALL {
            for reason in Reason::ALL {
                let count = |counters: &Counters| counters.count(verdict, hook, reason);
                let difference = count(after) - count(before);
                if difference > 0 {
                    found.push(((verdict, hook, reason), difference));
                }
            }
        }
    }
    found
}
