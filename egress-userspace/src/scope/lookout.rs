//! Looks whether what holds a scope still does: a process that root outside moved to another cgroup, a program that was
//! detached, a pin that was removed. Receives nothing but what the kernel shows; changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
};

use egress_common::{Escape, Hook, Owner, Reason, Verdict};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{cgroup::Cgroup, enforced::EnforcedScope};
use crate::{
    dns::clock::{BootClock, Clock as _},
    enforce::{Attachment, KernelProgram},
};

/// Rounds of killing what a process started meanwhile.
const ROUNDS: usize = 100;

/// What no longer holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Loss {
    /// A process lives on elsewhere.
    Moved {
        /// Which.
        process: u32,
        /// Its cgroup.
        to: String,
    },
    /// A program is no longer attached.
    Detached(KernelProgram),
    /// A program is attached only as long as the supervisor lives.
    Unpinned(KernelProgram),
}

/// What is known of a scope from the last look.
#[derive(Debug, Default)]
pub struct Lookout {
    /// The scope as `/proc/PID/cgroup` names it, once a process was seen inside.
    place: Option<String>,
    /// Processes inside, and when each was started (clock ticks).
    inside: BTreeMap<u32, u64>,
    told: BTreeSet<(KernelProgram, bool)>,
}

impl Lookout {
    /// What is lost since the last look, each once.
    pub fn look(&mut self, scope: &EnforcedScope) -> Vec<Loss> {
        let mut losses = self.links(scope.attachment());
        losses.extend(self.processes(scope.cgroup()));
        losses
    }

    fn links(&mut self, attachment: &Attachment) -> Vec<Loss> {
        let detached = attachment.health().into_iter().filter(|link| !link.healthy).map(|link| link.program);
        let detached = detached.map(|program| (program, Loss::Detached(program), true));
        let unpinned = attachment.unpinned().into_iter();
        let unpinned = unpinned.map(|program| (program, Loss::Unpinned(program), false));
        let news = |(program, loss, detached)| self.told.insert((program, detached)).then_some(loss);
        detached.chain(unpinned).filter_map(news).collect()
    }

    fn processes(&mut self, cgroup: &Cgroup) -> Vec<Loss> {
        let listed: BTreeSet<u32> = cgroup.processes().into_iter().filter(|process| *process != 0).collect();
        self.place = self.place.take().or_else(|| listed.iter().find_map(|process| place(*process, cgroup)));
        let gone: Vec<(u32, u64)> = self
            .inside
            .iter()
            .filter(|(process, _)| !listed.contains(process))
            .map(|(process, started)| (*process, *started))
            .collect();
        let mut losses = Vec::new();
        for (process, started) in gone {
            self.inside.remove(&process);
            if let Some(to) = self.elsewhere(process, started) {
                losses.push(Loss::Moved { process, to });
            }
        }
        for process in listed {
            if !self.inside.contains_key(&process)
                && let Some(started) = started(process)
            {
                self.inside.insert(process, started);
            }
        }
        losses
    }

    /// Where a process that is no longer listed lives on; `None` if it has ended, or is inside after all.
    fn elsewhere(&self, process: u32, started_then: u64) -> Option<String> {
        let to = cgroup_of(process)?;
        // Read after its cgroup: the number may be another process's.
        let same = started(process)? == started_then;
        let inside = is_within(&to, self.place.as_deref()?);
        (same && !inside).then_some(to)
    }
}

impl Loss {
    /// As an event of a scope.
    pub fn as_escape(&self, scope: u64) -> Escape {
        let (reason, text) = match self {
            Self::Moved { to, .. } => (Reason::Cgroup, format!("moved to {to}")),
            Self::Detached(program) => (Reason::Bpf, format!("detached {}", program.name())),
            Self::Unpinned(program) => (Reason::Bpf, format!("removed the pin of {}", program.name())),
        };
        let mut escape = Escape {
            time: BootClock.now(),
            scope,
            cgroup: scope,
            owner: self.process().map(owner).unwrap_or_default(),
            hook: Hook::Launch as u8,
            // Nothing refused it.
            verdict: Verdict::Allow as u8,
            reason: reason as u8,
            ..Escape::ZERO
        };
        // The last byte stays zero.
        let length = text.len().min(escape.text.len() - 1);
        escape.text[..length].copy_from_slice(&text.as_bytes()[..length]);
        escape
    }

    /// The process that is lost.
    pub const fn process(&self) -> Option<u32> {
        match self {
            Self::Moved { process, .. } => Some(*process),
            Self::Detached(_) | Self::Unpinned(_) => None,
        }
    }
}

/// Kills what lives in the scope, and the processes that were moved out of it with all that they started.
pub fn end(cgroup: &Cgroup, losses: &[Loss]) {
    for process in losses.iter().filter_map(Loss::process) {
        family(process).into_iter().for_each(kill_one);
    }
    let at_once = fs::File::options().write(true).open(cgroup.path().join("cgroup.kill"));
    if at_once.and_then(|mut file| file.write_all(b"1")).is_ok() {
        return;
    }
    // Before Linux 5.14.
    for _ in 0..ROUNDS {
        let processes = cgroup.processes();
        if processes.is_empty() {
            return;
        }
        processes.into_iter().for_each(kill_one);
    }
}

fn kill_one(process: u32) {
    if let Some(process) = i32::try_from(process).ok().filter(|process| *process > 1) {
        let _gone = kill(Pid::from_raw(process), Signal::SIGKILL);
    }
}

/// A process and what it has started, as far as it is still its child.
fn family(process: u32) -> Vec<u32> {
    let mut family = vec![process];
    let mut next = 0;
    while let Some(parent) = family.get(next) {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let children = children.unwrap_or_default();
        family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        next += 1;
    }
    family
}

/// The scope as `/proc/PID/cgroup` names it: what a process inside shows, up to the scope's own directories.
fn place(process: u32, cgroup: &Cgroup) -> Option<String> {
    let shown = cgroup_of(process)?;
    let run = cgroup.path().file_name()?.to_str()?;
    let parent = cgroup.path().parent()?.file_name()?.to_str()?;
    let own = format!("/{parent}/{run}");
    let end = shown.find(&own)? + own.len();
    shown[end..].chars().next().is_none_or(|next| next == '/').then(|| shown[..end].to_owned())
}

/// Moved between the scope's own cgroups while they were listed, it is inside all the same.
fn is_within(cgroup: &str, place: &str) -> bool {
    cgroup.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The cgroup2 line of `/proc/PID/cgroup`.
fn cgroup_of(process: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// When a living process was started; `None` if it has ended.
fn started(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in brackets may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    // The 22nd field; the third is the state.
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

fn owner(process: u32) -> Owner {
    let mut owner = Owner { tgid: process, pid: process, ..Owner::default() };
    if let Ok(metadata) = fs::metadata(format!("/proc/{process}")) {
        (owner.uid, owner.gid) = (metadata.uid(), metadata.gid());
    }
    let name = fs::read(format!("/proc/{process}/comm")).unwrap_or_default();
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    let length = name.len().min(owner.comm.len() - 1);
    owner.comm[..length].copy_from_slice(&name[..length]);
    owner
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_has_a_start_and_an_ended_one_has_none() {
        let own = std::process::id();
        assert_eq!(started(own), started(own));
        assert!(started(own).unwrap() > 0);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        // A zombie until it is waited for.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while started(child.id()).is_some() {
            assert!(std::time::Instant::now() < deadline, "it does not end");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.wait().unwrap();
    }

    /// Mutation seen to fail here: any longer name taken for one inside.
    #[test]
    fn only_the_scope_and_what_is_below_it_is_inside() {
        for (cgroup, expected) in [
            ("/egress/run-1", true),
            ("/egress/run-1/below", true),
            ("/egress/run-12", false),
            ("/egress", false),
            ("/", false),
            ("/other/egress/run-1", false),
        ] {
            assert_eq!(is_within(cgroup, "/egress/run-1"), expected, "{cgroup}");
        }
    }

    #[test]
    fn a_loss_is_told_as_what_did_happen() {
        let long = Loss::Moved { process: std::process::id(), to: "/x".repeat(80) };
        let escape = long.as_escape(7);
        assert_eq!((escape.scope, escape.verdict, escape.text[107]), (7, Verdict::Allow as u8, 0));
        assert_eq!(escape.owner.tgid, std::process::id());
        let detached = Loss::Detached(KernelProgram::Packet).as_escape(7);
        assert!(detached.text.starts_with(b"detached packet\0"));
        assert_eq!(detached.owner, Owner::default());
    }

    #[test]
    fn a_family_is_all_that_is_still_a_child() {
        let mut child = std::process::Command::new("sh").args(["-c", "sleep 20 & wait"]).spawn().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while family(child.id()).len() < 2 {
            assert!(std::time::Instant::now() < deadline, "no child is seen");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        family(child.id()).into_iter().for_each(kill_one);
        child.wait().unwrap();
    }
}
