//! Which restrictions apply to a command: from what the kernel can do, what else guards the scope, who the command runs as,
//! and what was given back by name.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    calls,
    filter::Filter,
    landlock::Domain,
    probe::{Abilities, Landlock},
};
use crate::policy::{Restriction, Unix};

/// What a plan depends on.
#[derive(Clone, Debug)]
pub struct Situation {
    /// What the kernel can take away.
    pub abilities: Abilities,
    /// The command runs as root.
    pub root: bool,
    /// BPF LSM judges what the scope's processes reach of others.
    pub lsm: bool,
    /// Something tells own unix sockets from others: BPF LSM, or the cgroup's unix hooks.
    pub unix_judged: bool,
    /// A broker connects unix sockets for the scope.
    pub broker: bool,
    /// What the policy says of unix sockets.
    pub unix: Unix,
    /// Nothing is refused, only told.
    pub audit: bool,
    /// What `--permit` gives back.
    pub option: BTreeSet<Restriction>,
    /// What the policy's `permit:` gives back.
    pub policy: BTreeSet<Restriction>,
}

/// What does it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Means {
    /// The system call filter.
    Filter,
    /// The Landlock domain.
    Landlock,
    /// BPF LSM.
    Lsm,
}

/// Who gave something back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum By {
    /// `--permit`
    Option,
    /// The policy's `permit:`
    Policy,
}

/// What becomes of one restriction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// It applies.
    On(Means),
    /// It was given back.
    Lifted(By),
    /// Nothing is lost without it, because.
    NotNeeded(&'static str),
    /// It stays open, because.
    NotPossible(&'static str),
}

/// What is taken away from one command.
#[derive(Clone, Debug)]
pub struct Plan {
    states: BTreeMap<Restriction, State>,
    pub(super) filter: Filter,
    pub(super) domain: Option<Domain>,
    /// The command gets a session keyring of its own.
    pub(super) keyring: bool,
    pub(super) audit: bool,
}

const NO_FILTER: &str = "this kernel has no system call filter";
const NO_SCOPES: &str = "this kernel's Landlock cannot keep signals within (Linux 6.12 can)";
const WITH_PTRACE: &str = "given back together with `ptrace`: a Landlock domain keeps both within";
const WITH_CLONE3: &str = "`clone3` was given back, whose flags no filter sees";
const OF_USERS: &str = "the command does not run as root";
const UNIX_ANY: &str = "the policy opens all unix sockets";
const UNIX_JUDGED: &str = "the kernel tells own unix sockets from others";

impl Plan {
    /// Makes the plan.
    pub fn new(situation: &Situation) -> Self {
        let domain = domain(situation);
        let states: BTreeMap<_, _> = Restriction::ALL
            .into_iter()
            .map(|restriction| (restriction, state(situation, domain, restriction)))
            .collect();
        let keyring = !situation.audit && situation.lifted(Restriction::Keys).is_none();
        let filter = filter(situation, &states);
        Self { states, filter, domain: domain.filter(|_| !situation.audit), keyring, audit: situation.audit }
    }

    /// Takes nothing away.
    #[cfg(test)]
    pub(super) fn nothing() -> Self {
        Self {
            states: BTreeMap::new(),
            filter: Filter::default(),
            domain: None,
            keyring: false,
            audit: false,
        }
    }

    /// What becomes of each restriction.
    pub fn states(&self) -> impl Iterator<Item = (Restriction, State)> {
        self.states.iter().map(|(restriction, state)| (*restriction, *state))
    }

    /// Whether `mount` fails for the command, whoever it is, because only a domain about files keeps ptrace within.
    pub fn refuses_mounts(&self) -> bool {
        self.domain == Some(Domain::Files)
    }
}

impl Situation {
    fn lifted(&self, restriction: Restriction) -> Option<By> {
        if self.option.contains(&restriction) {
            Some(By::Option)
        } else {
            self.policy.contains(&restriction).then_some(By::Policy)
        }
    }
}

/// Any domain keeps ptrace within, so there is none once that was given back.
fn domain(situation: &Situation) -> Option<Domain> {
    if situation.lifted(Restriction::Ptrace).is_some() {
        return None;
    }
    let signals = situation.lifted(Restriction::Signals).is_none();
    // BPF LSM judges by rules; the domain would refuse what they open.
    let abstract_unix = situation.unix != Unix::Any && !situation.lsm;
    match situation.abilities.landlock {
        Landlock::Scopes if signals || abstract_unix => Some(Domain::Scoped { abstract_unix, signals }),
        Landlock::Files if !situation.lsm => Some(Domain::Files),
        _ => None,
    }
}

fn state(situation: &Situation, domain: Option<Domain>, restriction: Restriction) -> State {
    if let Some(by) = situation.lifted(restriction) {
        return State::Lifted(by);
    }
    let by_filter =
        if situation.abilities.filter { State::On(Means::Filter) } else { State::NotPossible(NO_FILTER) };
    match restriction {
        Restriction::UserNamespaces if !situation.root => State::NotNeeded(OF_USERS),
        Restriction::UserNamespaces if situation.lifted(Restriction::Clone3).is_some() => {
            State::NotPossible(WITH_CLONE3)
        }
        Restriction::Ptrace if situation.lsm => State::On(Means::Lsm),
        Restriction::Ptrace if domain.is_some() => State::On(Means::Landlock),
        Restriction::Signals => match domain {
            Some(Domain::Scoped { .. }) => State::On(Means::Landlock),
            _ if situation.lifted(Restriction::Ptrace).is_some() => State::NotPossible(WITH_PTRACE),
            _ => State::NotPossible(NO_SCOPES),
        },
        Restriction::UnixSockets if situation.unix == Unix::Any => State::NotNeeded(UNIX_ANY),
        Restriction::UnixSockets if situation.unix_judged => State::NotNeeded(UNIX_JUDGED),
        _ => by_filter,
    }
}

fn filter(situation: &Situation, states: &BTreeMap<Restriction, State>) -> Filter {
    let (told, audit) = (situation.abilities.told, situation.audit);
    if !situation.abilities.filter || audit && !told {
        return Filter::default();
    }
    let on = |restriction: &Restriction| states[restriction] == State::On(Means::Filter);
    let mut calls: Vec<_> = Restriction::ALL.into_iter().filter(on).flat_map(calls::rows).collect();
    if let State::On(Means::Landlock | Means::Lsm) = states[&Restriction::Ptrace] {
        calls.extend(calls::reaching());
    }
    if let State::On(Means::Landlock | Means::Lsm) = states[&Restriction::Signals] {
        calls.extend(calls::rows(Restriction::Signals));
    }
    if situation.broker {
        calls.extend(calls::brokered());
    }
    if audit {
        calls.retain(|call| !matches!(call.fate, calls::Fate::Quiet(_)));
    }
    Filter { calls, foreign: on(&Restriction::ForeignAbi), told }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Abilities = Abilities { filter: true, told: true, landlock: Landlock::Scopes };

    fn situation() -> Situation {
        Situation {
            abilities: ALL,
            root: true,
            lsm: false,
            unix_judged: true,
            broker: false,
            unix: Unix::Own,
            audit: false,
            option: BTreeSet::new(),
            policy: BTreeSet::new(),
        }
    }

    fn state(situation: &Situation, restriction: Restriction) -> State {
        Plan::new(situation).states[&restriction]
    }

    /// Mutation seen to fail here: the policy's permits ignored.
    #[test]
    fn every_restriction_is_on_and_can_be_lifted_by_either() {
        for restriction in Restriction::ALL {
            let only = BTreeSet::from([restriction]);
            let mut plain = Situation { unix_judged: false, ..situation() };
            assert!(matches!(state(&plain, restriction), State::On(_)), "{restriction:?}");
            plain.policy = only.clone();
            assert_eq!(state(&plain, restriction), State::Lifted(By::Policy));
            plain.option = only;
            assert_eq!(state(&plain, restriction), State::Lifted(By::Option));
            let rows = calls::rows(restriction);
            let plan = Plan::new(&plain);
            let left = plan.filter.calls.iter().filter(|call| call.restriction == Some(restriction));
            assert_eq!(left.count(), 0, "{restriction:?} of {} rows", rows.len());
        }
    }

    #[test]
    fn ptrace_is_kept_within_by_the_best_there_is() {
        let with = |landlock, lsm| Situation {
            abilities: Abilities { landlock, ..ALL },
            lsm,
            unix: Unix::Any,
            ..situation()
        };
        for (landlock, lsm, means, domain) in [
            (Landlock::Absent, false, Means::Filter, None),
            (Landlock::Absent, true, Means::Lsm, None),
            (Landlock::Files, false, Means::Landlock, Some(Domain::Files)),
            (Landlock::Files, true, Means::Lsm, None),
            (
                Landlock::Scopes,
                false,
                Means::Landlock,
                Some(Domain::Scoped { abstract_unix: false, signals: true }),
            ),
        ] {
            let plan = Plan::new(&with(landlock, lsm));
            assert_eq!(plan.states[&Restriction::Ptrace], State::On(means), "{landlock:?} {lsm}");
            assert_eq!(plan.domain, domain, "{landlock:?} {lsm}");
            assert_eq!(plan.refuses_mounts(), domain == Some(Domain::Files));
        }
        // Nothing is left for a domain to be about, so the filter takes its place.
        let mut nothing = with(Landlock::Scopes, false);
        nothing.option.insert(Restriction::Signals);
        assert_eq!(state(&nothing, Restriction::Ptrace), State::On(Means::Filter));
    }

    #[test]
    fn what_cannot_be_had_is_said() {
        let mut poor = situation();
        poor.abilities = Abilities { filter: false, told: false, landlock: Landlock::Absent };
        for restriction in Restriction::ALL {
            let open = matches!(state(&poor, restriction), State::NotPossible(_) | State::NotNeeded(_));
            assert!(open, "{restriction:?}");
        }
        assert!(Plan::new(&poor).filter.is_empty());
        let mut permitted = situation();
        permitted.option.insert(Restriction::Clone3);
        assert_eq!(state(&permitted, Restriction::UserNamespaces), State::NotPossible(WITH_CLONE3));
        permitted.option.insert(Restriction::Ptrace);
        assert_eq!(state(&permitted, Restriction::Signals), State::NotPossible(WITH_PTRACE));
        permitted.root = false;
        assert_eq!(state(&permitted, Restriction::UserNamespaces), State::NotNeeded(OF_USERS));
    }

    #[test]
    fn unix_sockets_are_taken_away_only_where_nothing_judges_them() {
        for (unix_judged, unix, on) in
            [(false, Unix::Own, true), (false, Unix::Any, false), (true, Unix::Own, false)]
        {
            let situation = Situation { unix_judged, unix, ..situation() };
            let state = state(&situation, Restriction::UnixSockets);
            assert_eq!(state == State::On(Means::Filter), on, "{unix_judged} {unix:?}");
        }
    }

    #[test]
    fn audit_refuses_nothing() {
        let plan = Plan::new(&Situation { audit: true, ..situation() });
        assert_eq!((plan.domain, plan.keyring), (None, false));
        assert!(plan.filter.told && !plan.filter.calls.iter().any(|call| call.name == "clone3"));
        let mut untold = Situation { audit: true, ..situation() };
        untold.abilities.told = false;
        assert!(Plan::new(&untold).filter.is_empty());
    }
}
