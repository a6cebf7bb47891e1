//! What a kernel and a launch can do, as far as paths depend on it.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;

use super::Guard;
use crate::{
    enforce::{self, LinkHealth, Lsm},
    policy::Restriction,
    scope::confine::plan::{By, Means, Plan, State},
};

/// What there is to close paths with.
#[derive(Clone, Debug, Default)]
pub struct Capabilities {
    /// Programs of the kernel side, by name.
    pub hooks: BTreeMap<String, Hook>,
    /// BPF LSM.
    pub lsm: LsmStatus,
    /// What is taken away at launch; empty for a scope that is attached live.
    pub restrictions: BTreeMap<Restriction, Restricted>,
    /// `egress run` launches the command.
    pub launched: bool,
}

/// What became of one program of the kernel side.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Hook {
    /// Attached, verified, and it refused an attempt, where one can be made for it alone.
    Active,
    /// This kernel does not have it, or it has no effect, because.
    Missing(String),
}

/// What became of BPF LSM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LsmStatus {
    /// These hooks load, attach, and were seen to act.
    Active(BTreeSet<String>),
    /// Loading is refused, with this errno in words.
    Refused(String),
    /// Loading and attaching succeed, and nothing is judged.
    NoEffect,
    /// The kernel has none, because.
    Absent(String),
}

impl Default for LsmStatus {
    fn default() -> Self {
        Self::Absent("the kernel has no BPF LSM".to_owned())
    }
}

/// What became of one thing that is taken away at launch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Restricted {
    /// It is taken away, by this.
    On(String),
    /// It was given back.
    Lifted(Lifted),
    /// Nothing is lost without it, because.
    NotNeeded(String),
    /// It cannot be taken away, because.
    NotPossible(String),
}

/// Who gave something back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lifted {
    /// `--permit`
    Option,
    /// The policy's `permit:`
    Policy,
}

impl Capabilities {
    /// With the programs that are attached.
    #[must_use]
    pub fn with_links(mut self, health: &[LinkHealth]) -> Self {
        for link in health.iter().filter(|link| link.healthy) {
            self.hooks.insert(link.program.name().to_owned(), Hook::Active);
        }
        self
    }

    /// With the LSM layer of a scope, or why it has none.
    #[must_use]
    pub fn with_lsm(mut self, lsm: Result<&Lsm, &enforce::LsmStatus>) -> Self {
        self.lsm = LsmStatus::of(lsm);
        self
    }

    /// With what is taken away at launch.
    #[must_use]
    pub fn with_plan(mut self, plan: &Plan) -> Self {
        self.launched = true;
        for (restriction, state) in plan.states() {
            self.restrictions.insert(restriction, Restricted::of(state));
        }
        self
    }

    /// Why a guard is not there; `None` if it is.
    pub(super) fn missing(&self, guard: Guard) -> Option<String> {
        match guard {
            Guard::Hook(name) => match self.hooks.get(name) {
                Some(Hook::Active) => None,
                Some(Hook::Missing(why)) => Some(format!("no {name} hook: {why}")),
                None => Some(format!("no {name} hook")),
            },
            Guard::Lsm(name) => self.lsm.missing(name),
            Guard::Launch(restriction) => match self.restrictions.get(&restriction) {
                Some(Restricted::On(_)) => None,
                // Nothing else closes what this one is for.
                Some(Restricted::NotNeeded(why)) if restriction == Restriction::UnixSockets => {
                    Some(why.clone())
                }
                Some(Restricted::NotNeeded(_)) => None,
                Some(Restricted::Lifted(by)) => Some(by.of(restriction)),
                Some(Restricted::NotPossible(why)) => Some(why.clone()),
                None => Some("the scope was not launched by `egress run`".to_owned()),
            },
            Guard::Hygiene if self.launched => None,
            Guard::Hygiene => Some("the scope was not launched by `egress run`".to_owned()),
        }
    }

    /// Who gave back what would close it.
    pub(super) fn given_back(&self, guard: Guard) -> Option<(Lifted, Restriction)> {
        let Guard::Launch(restriction) = guard else { return None };
        match self.restrictions.get(&restriction) {
            Some(Restricted::Lifted(by)) => Some((*by, restriction)),
            _ => None,
        }
    }
}

impl Restricted {
    fn of(state: State) -> Self {
        match state {
            State::On(Means::Filter) => Self::On("the system call filter".to_owned()),
            State::On(Means::Landlock) => Self::On("Landlock".to_owned()),
            State::On(Means::Lsm) => Self::On("BPF LSM".to_owned()),
            State::Lifted(By::Option) => Self::Lifted(Lifted::Option),
            State::Lifted(By::Policy) => Self::Lifted(Lifted::Policy),
            State::NotNeeded(why) => Self::NotNeeded(why.to_owned()),
            State::NotPossible(why) => Self::NotPossible(why.to_owned()),
        }
    }
}

impl LsmStatus {
    /// Of a scope.
    pub fn of(lsm: Result<&Lsm, &enforce::LsmStatus>) -> Self {
        match lsm.map_or_else(Clone::clone, Lsm::status) {
            enforce::LsmStatus::Active(hooks) => {
                Self::Active(hooks.into_iter().map(|hook| hook.name().to_owned()).collect())
            }
            enforce::LsmStatus::Refused(errno) => Self::Refused(Errno::from_raw(errno).to_string()),
            enforce::LsmStatus::NoEffect => Self::NoEffect,
            enforce::LsmStatus::Absent(why) => Self::Absent(why),
        }
    }

    fn missing(&self, name: &str) -> Option<String> {
        match self {
            Self::Active(hooks) if hooks.contains(name) => None,
            Self::Active(_) => Some(format!("BPF LSM has no {name} hook here")),
            Self::Refused(_) | Self::NoEffect | Self::Absent(_) => Some(self.text()),
        }
    }

    /// In words.
    pub fn text(&self) -> String {
        match self {
            Self::Active(hooks) => format!("active, {} hooks", hooks.len()),
            Self::Refused(errno) => format!("BPF LSM is refused at load ({errno})"),
            Self::NoEffect => "BPF LSM loads and has no effect (`bpf` is not in the list `lsm=`)".to_owned(),
            Self::Absent(why) => why.clone(),
        }
    }
}

impl Lifted {
    /// What would take it away again.
    pub fn undone(self, restriction: Restriction) -> String {
        let name = restriction.name();
        match self {
            Self::Option => format!("run without `--permit {name}`"),
            Self::Policy => format!("take `{name}` out of the policy's `permit:`"),
        }
    }

    /// In words.
    pub fn of(self, restriction: Restriction) -> String {
        let name = restriction.name();
        match self {
            Self::Option => format!("given back by `--permit {name}`"),
            Self::Policy => format!("given back by the policy's `permit: [{name}]`"),
        }
    }
}
