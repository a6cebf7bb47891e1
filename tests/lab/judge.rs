//! Judges cases: at the far end of the wire, then by errno, time, events and counters.

use std::time::Duration;

use egress::enforce::KernelProgram;
use egress_common::Verdict;

use crate::{
    Attempt, Case, Lab, Outcome,
    cases::{Honest, Told},
    policies,
    scope::{Scope, moved, told},
};

/// No refusal takes longer, but for a TCP handshake whose packets are refused.
const AT_ONCE: Duration = Duration::from_millis(500);

/// What became of a forbidden case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// Whether it was seen on the wire.
    pub got_out: bool,
    /// What became of its steps.
    pub outcome: Outcome,
    /// Its events; repetitions left out where the kernel tries again.
    pub told: Vec<Told>,
    /// What the counters of the scope moved by.
    pub moved: Vec<(Told, u64)>,
}

/// Every case gets out without enforcement: one that cannot fail is none.
pub fn all_get_out(cases: &[Case]) {
    let lab = Lab::new().expect("the lab");
    report(cases.iter().filter_map(|case| case.control(&lab).err()));
}

/// Under the lab's policy every case is refused as it should be.
pub fn all_refused(cases: &[Case]) {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::open(&policies::lab()).expect("a scope");
    report(cases.iter().filter_map(|case| refused(case, &mut scope, &lab).err()));
}

/// Under the lab's policy honest traffic arrives.
pub fn all_pass(cases: &[Honest]) {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::open(&policies::lab()).expect("a scope");
    report(cases.iter().filter_map(|case| passes(case, &mut scope, &lab).err()));
}

/// What changes for the cases if one program is not attached: a line for each.
pub fn without(removed: KernelProgram, cases: &[Case]) -> String {
    let rest: Vec<_> = KernelProgram::ALL.into_iter().filter(|program| *program != removed).collect();
    differences(&rest, cases)
}

/// What changes for the cases if only these programs are attached: a line for each.
pub fn differences(attached: &[KernelProgram], cases: &[Case]) -> String {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::closed(attached).expect("a scope");
    scope.enforced.open(&policies::lab(), 0).expect("a policy");
    let mut text = String::new();
    for case in cases {
        let found = perform(case, &mut scope, &lab).expect("the attempt is made");
        if case.is_as_told(&found) {
            continue;
        }
        let fate = if found.got_out { "GETS OUT" } else { "contained" };
        let failure = match found.outcome.failure() {
            Some((step, errno)) => format!("{} at {step}", nix::errno::Errno::from_raw(errno)),
            None => "no error".to_owned(),
        };
        let said =
            |(verdict, hook, reason): &Told| format!("{} {} {}", verdict.name(), hook.name(), reason.name());
        let mut told: Vec<_> = found.told.iter().map(said).collect();
        // How often the kernel tries again within the time is a matter of luck, and so is whether an answer is in by then.
        told.retain(|told| !told.contains(" ingress "));
        told.dedup();
        let told = if told.is_empty() { "no event".to_owned() } else { told.join(", ") };
        text += &format!("{} | {fate} | {failure} | {told}\n", case.name);
    }
    text
}

/// Panics with one line for each complaint.
pub fn report(complaints: impl Iterator<Item = String>) {
    let complaints: Vec<_> = complaints.collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

impl Case {
    fn is_as_told(&self, found: &Found) -> bool {
        !found.got_out && found.outcome.failure() == self.refusal && found.told == self.told
    }
}

/// Makes a forbidden attempt in the scope.
pub fn perform(case: &Case, scope: &mut Scope, lab: &Lab) -> Result<Found, String> {
    lab.forget();
    let before = scope.counters();
    let (outcome, events) =
        scope.run(lab, &Attempt::new(case.steps)).map_err(|error| format!("{}: {error:#}", case.name))?;
    let moved = moved(&before, &scope.counters());
    let mut told: Vec<_> = events.iter().map(told).collect();
    if case.repeats {
        told.dedup();
    }
    Ok(Found { got_out: case.proof.in_frames(&lab.frames()), outcome, told, moved })
}

/// Runs a forbidden case in the scope; what is wrong with the outcome, if anything.
pub fn refused(case: &Case, scope: &mut Scope, lab: &Lab) -> Result<(), String> {
    let found = perform(case, scope, lab)?;
    let mut wrong = Vec::new();
    if found.got_out {
        wrong.push("it got out".to_owned());
    }
    if found.outcome.failure() != case.refusal {
        wrong.push(format!("failed with {:?} instead of {:?}", found.outcome.failure(), case.refusal));
    }
    let waits = case.refusal.is_some_and(|(_, errno)| errno == libc::EINPROGRESS);
    if !waits && found.outcome.longest() > AT_ONCE {
        wrong.push(format!("took {:?}", found.outcome.longest()));
    }
    if found.told != case.told {
        wrong.push(format!("told {:?} instead of {:?}", found.told, case.told));
    }
    if !case.repeats
        && denials(&found.moved) != case.told.iter().filter(|told| told.0 == Verdict::Deny).count()
    {
        wrong.push(format!("counted {:?}", found.moved));
    }
    verdict(case.name, &wrong, &found.outcome)
}

fn denials(moved: &[(Told, u64)]) -> usize {
    let denied = moved.iter().filter(|((verdict, ..), _)| *verdict == Verdict::Deny);
    let count: u64 = denied.map(|(_, count)| count).sum();
    usize::try_from(count).expect("a small number")
}

/// Runs an honest case in the scope; what is wrong with the outcome, if anything.
pub fn passes(case: &Honest, scope: &mut Scope, lab: &Lab) -> Result<(), String> {
    lab.forget();
    let (outcome, events) =
        scope.run(lab, &Attempt::new(case.steps)).map_err(|error| format!("{}: {error:#}", case.name))?;
    let frames = lab.frames();
    let mut wrong = Vec::new();
    if let Some(failure) = outcome.failure() {
        wrong.push(format!("failed with {failure:?}"));
    }
    if case.arrives.is_empty() {
        if frames.iter().any(|frame| !frame.is_neighbour_discovery()) {
            wrong.push(format!("packets on the wire: {frames:?}"));
        }
    } else if !frames.iter().any(|frame| frame.carries(case.arrives)) {
        wrong.push("it did not arrive".to_owned());
    }
    let said: Vec<_> = events.iter().map(told).collect();
    if said != case.told {
        wrong.push(format!("told {said:?} instead of {:?}", case.told));
    }
    verdict(case.name, &wrong, &outcome)
}

fn verdict(name: &str, wrong: &[String], outcome: &Outcome) -> Result<(), String> {
    if wrong.is_empty() { Ok(()) } else { Err(format!("{name}: {}\n    {outcome:?}", wrong.join("; "))) }
}
