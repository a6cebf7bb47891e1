//! From what arrived in both runs to one finding for each attack.

use std::{collections::BTreeMap, time::Duration};

use nix::errno::Errno;

use super::{
    agent,
    phase::Outcome,
    table::{self, Attack, Proof},
    wire::Arrivals,
};

/// What became of an attack.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum Verdict {
    /// Nothing arrived, and without enforcement something did.
    Contained,
    /// It arrived.
    Leaked,
    /// It arrived, by the help of somebody outside whom no policy binds.
    Known,
    /// Even without enforcement nothing arrives here.
    NotPossible,
    /// The policy allows what it does.
    Allowed,
    /// It was not made; nothing is known.
    Unknown,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Contained, Self::Leaked, Self::Known, Self::NotPossible, Self::Allowed, Self::Unknown];

    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Contained => "contained",
            Self::Leaked => "leaked",
            Self::Known => "known",
            Self::NotPossible => "not possible",
            Self::Allowed => "allowed",
            Self::Unknown => "unknown",
        }
    }
}

/// What the attacking program noticed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Told {
    /// The call that failed; empty if none did.
    pub at: String,
    /// Its errno; 0 if none.
    pub errno: i32,
    /// The longest call.
    pub longest: Duration,
}

impl Told {
    /// As in `EPERM at connect`.
    pub fn text(&self) -> String {
        match (self.at.as_str(), self.errno) {
            ("", _) => "every call succeeded".to_owned(),
            ("killed", 0) => "killed".to_owned(),
            ("killed", signal) => format!("killed by signal {signal}"),
            (at, errno) => format!("{:?} at {at}", Errno::from_raw(errno)),
        }
    }

    fn of(told: &agent::Told) -> Self {
        let longest = Duration::from_micros(told.micros);
        Self { at: told.at.clone(), errno: told.errno, longest }
    }
}

/// What was found out about one attack by one user.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Its place in the table.
    pub index: usize,
    /// The attack.
    pub attack: &'static Attack,
    /// As whom.
    pub user: String,
    /// What became of it.
    pub verdict: Verdict,
    /// What the program noticed without enforcement.
    pub control: Told,
    /// What the program noticed with enforcement.
    pub enforced: Told,
    /// Why it is allowed, if it is.
    pub note: Option<String>,
}

/// A refusal that takes longer keeps programs waiting.
const SLOW: Duration = Duration::from_secs(1);

impl Finding {
    /// Contained, but the program had to wait for it.
    pub fn slow(&self) -> bool {
        self.verdict == Verdict::Contained && self.enforced.longest > SLOW
    }
}

fn arrived(attack: &Attack, index: usize, arrivals: &Arrivals, told: Option<&agent::Told>) -> bool {
    match attack.proof {
        Proof::Wire => arrivals.addressed.contains(&index) || arrivals.carried.contains(&index),
        Proof::Token => arrivals.carried.contains(&index),
        Proof::Outside => arrivals.local.contains(&index),
        Proof::Success => told.is_some_and(|told| told.at.is_empty()),
    }
}

/// Judges what a user attacked.
pub(super) fn judge(
    user: &str,
    made: &[usize],
    allowed: &BTreeMap<usize, String>,
    control: &Outcome,
    enforced: &Outcome,
) -> Vec<Finding> {
    let finding = |index: usize, attack: &'static Attack| {
        let (before, after) = (control.told.get(&index), enforced.told.get(&index));
        let note = allowed.get(&index).cloned();
        let verdict = if note.is_some() {
            Verdict::Allowed
        } else if arrived(attack, index, &enforced.arrivals, after) {
            if attack.conspires { Verdict::Known } else { Verdict::Leaked }
        } else if before.is_none() || after.is_none() {
            Verdict::Unknown
        } else if arrived(attack, index, &control.arrivals, before) {
            Verdict::Contained
        } else {
            Verdict::NotPossible
        };
        let told = |told: Option<&agent::Told>| told.map(Told::of).unwrap_or_default();
        let user = user.to_owned();
        Finding { index, attack, user, verdict, control: told(before), enforced: told(after), note }
    };
    table::all()
        .enumerate()
        .filter(|(index, _)| made.contains(index) || allowed.contains_key(index))
        .map(|(index, attack)| finding(index, attack))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(index: usize, at: &str, arrived: bool) -> Outcome {
        let mut outcome = Outcome::default();
        let told = agent::Told { index, at: at.into(), errno: i32::from(!at.is_empty()), micros: 5 };
        outcome.told.insert(index, told);
        if arrived {
            outcome.arrivals.addressed.insert(index);
        }
        outcome
    }

    // Caught: `control` and `enforced` exchanged; a leak counted as such only if the control run arrived too.
    #[test]
    fn silence_proves_something_only_if_the_control_run_was_heard() {
        let none = BTreeMap::new();
        let judged = |control: &Outcome, enforced: &Outcome| {
            judge("ann", &[0], &none, control, enforced).first().map(|finding| finding.verdict)
        };
        let (loud, silent) = (outcome(0, "", true), outcome(0, "connect", false));
        assert_eq!(judged(&loud, &silent), Some(Verdict::Contained));
        assert_eq!(judged(&loud, &loud), Some(Verdict::Leaked));
        assert_eq!(judged(&silent, &loud), Some(Verdict::Leaked));
        assert_eq!(judged(&silent, &silent), Some(Verdict::NotPossible));
        assert_eq!(judged(&loud, &Outcome::default()), Some(Verdict::Unknown));
        assert_eq!(judged(&Outcome::default(), &silent), Some(Verdict::Unknown));
    }

    #[test]
    fn only_an_attack_that_has_help_outside_is_known() {
        let (index, attack) =
            table::all().enumerate().find(|(_, attack)| attack.id == "m-fifo").expect("in the table");
        assert!(attack.conspires);
        let mut outcome = outcome(index, "", false);
        outcome.arrivals.local.insert(index);
        let findings = judge("ann", &[index], &BTreeMap::new(), &outcome, &outcome);
        assert_eq!(findings[0].verdict, Verdict::Known);
    }
}
