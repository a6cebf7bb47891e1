//! Exact accounting under a flood: attempts = emitted + suppressed + dropped, and another's denial is still told.

use std::process::Stdio;

use egress::enforce::{KernelProgram, Limits};
use egress_common::{Hook, Reason, Verdict};
use egress_tests::{
    Attempt, Lab, policies,
    run::Run,
    scope::{Scope, moved},
};

const FLOOD: u64 = 200_000;

/// How many processes flood at once.
const PROCESSES: u64 = 4;

/// Sends datagrams that are refused, from several processes, and checks every number.
fn flood(scope: &mut Scope, lab: &Lab, read: bool) -> [u64; 3] {
    let each = FLOOD / PROCESSES;
    let step = format!("flood 203.0.113.66:443 {each}");
    let before = scope.counters();
    let started: Vec<_> = (0..PROCESSES)
        .map(|_| {
            let mut command = Attempt::new(&["socket inet dgram", &step]).command(lab);
            scope.place(&mut command).expect("the scope is there");
            command.stdout(Stdio::piped()).spawn().expect("start the flood")
        })
        .collect();
    let mut told = 0;
    for child in started {
        let output = child.wait_with_output().expect("the flood ends");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("flood 0 "), "a datagram was not refused: {text}");
        if read {
            told += scope.events().len();
        }
    }
    told += scope.events().len();
    let after = scope.counters();
    assert_eq!(moved(&before, &after), [((Verdict::Deny, Hook::Sendmsg, Reason::NoRule), FLOOD)]);
    let fate = |counters: &egress_common::Counters| {
        let fate = counters.fate[Verdict::Deny as usize];
        [fate.emitted, fate.suppressed, fate.dropped]
    };
    let (before, after) = (fate(&before), fate(&after));
    let fates = [0, 1, 2].map(|index| after[index] - before[index]);
    assert_eq!(fates.iter().sum::<u64>(), FLOOD, "emitted, suppressed, dropped: {fates:?}");
    assert_eq!(fates[0], u64::try_from(told).expect("a number"), "what was emitted can be read");
    fates
}

#[test]
fn every_attempt_of_a_flood_is_accounted_for() {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::open(&policies::lab()).expect("a scope");
    let [emitted, suppressed, _] = flood(&mut scope, &lab, true);
    assert!(emitted > 0 && suppressed > 0, "{emitted} emitted, {suppressed} suppressed");
    assert!(lab.frames().iter().all(|frame| !frame.carries("flood")));
}

/// With a ring of one page most of what is emitted finds no place; it is counted as dropped.
#[test]
fn what_the_ring_cannot_hold_is_counted() {
    let lab = Lab::new().expect("the lab");
    let limits = Limits { ring: 4096, ..Limits::default() };
    let mut scope = Scope::with_limits(&KernelProgram::ALL, &limits).expect("a scope");
    scope.enforced.open(&policies::lab(), 0).expect("a policy");
    let [emitted, _, dropped] = flood(&mut scope, &lab, false);
    assert!(dropped > 0 && emitted > 0, "{emitted} emitted, {dropped} dropped");
}

#[test]
fn a_flood_through_the_command_adds_up() {
    let lab = Lab::new().expect("the lab");
    let step = format!("flood 203.0.113.66:443 {FLOOD}");
    let ended = Run::new(&lab).attempt(&["socket inet dgram", &step]);
    let (attempts, fates) = ended.summary("deny");
    assert_eq!(attempts, FLOOD, "{}", ended.stderr);
    assert_eq!(fates.iter().sum::<u64>(), FLOOD, "{fates:?}");
    assert_eq!(ended.denials().len(), usize::try_from(fates[0]).expect("a number"), "{}", ended.stderr);
    assert!(ended.stderr.lines().count() < 200, "the flood buries the terminal:\n{}", ended.stderr);
}

/// A scope's flood uses up only its own rate.
#[test]
fn another_scope_is_still_heard() {
    let lab = Lab::new().expect("the lab");
    let (mut loud, mut quiet) =
        (Scope::open(&policies::lab()).expect("a scope"), Scope::open(&policies::lab()).expect("a scope"));
    std::thread::scope(|threads| {
        let flooding = threads.spawn(|| flood(&mut loud, &lab, true));
        for _ in 0..20 {
            let steps = ["socket inet stream", "connect 203.0.113.66:443"];
            let (_, events) = quiet.run(&lab, &Attempt::new(&steps)).expect("the attempt is made");
            assert_eq!(events.len(), 1);
        }
        flooding.join().expect("the flood adds up");
    });
}
