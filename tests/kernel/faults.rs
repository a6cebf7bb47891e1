//! Faults: each a clear message and an exit code of its own, never "enforcing" when it is not, nothing left behind.

use std::path::Path;

use egress::{
    enforce::{EnforceError, KernelProgram, Limits, TableError},
    scope::{cgroup::Places, enforced::EnforcedScope},
};
use egress_common::{Hook, Reason};
use egress_tests::{
    Attempt, Cgroup, Lab,
    cases::denied,
    policies,
    run::{Ended, Run},
    scope::{Scope, told},
};

/// The command did not run, and nothing says that anything was enforced.
fn did_not_run(ended: &Ended, code: i32, says: &str) {
    assert_eq!((ended.code(), ended.stdout.as_str()), (code, ""), "{}", ended.stderr);
    assert!(ended.stderr.contains(says), "{says:?} is missing: {}", ended.stderr);
    assert!(!ended.stderr.contains("enforcing policy"), "{}", ended.stderr);
}

const RAN: [&str; 2] = ["echo", "ran"];

#[test]
fn without_cgroup2() {
    let lab = Lab::new().expect("the lab");
    let run = Run::new(&lab);
    let script = "for place in $(awk '$3 == \"cgroup2\" { print $2 }' /proc/self/mounts); do umount -l $place; done; \
                  exec \"$0\" \"$@\"";
    let egress = run.command(&RAN);
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(egress.get_program()).args(egress.get_args());
    did_not_run(&run.end_of(&mut command).expect("egress starts"), 113, "no cgroup2 file system");
}

#[test]
fn an_unreadable_policy() {
    let lab = Lab::new().expect("the lab");
    let run = Run::new(&lab);
    std::fs::remove_file(run.directory().join("policy.yaml")).expect("remove the policy");
    did_not_run(&run.run(&RAN), 119, "policy.yaml");
}

#[test]
fn events_that_cannot_be_written() {
    let lab = Lab::new().expect("the lab");
    let run = Run::new(&lab);
    std::fs::create_dir(run.directory().join("events.json")).expect("stand in the way");
    let output = run.command(&RAN).output().expect("egress starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(output.stdout.is_empty() && text.contains("cannot write events"), "{text}");
}

/// A disk that fills up is no reason to stop; it is told once, and the command's denials are still on the screen.
#[test]
fn events_that_find_no_room() {
    let lab = Lab::new().expect("the lab");
    let run = Run::new(&lab).option(&["--events", "/dev/full"]);
    let program = run.program();
    let command = [program.as_str(), "socket inet stream", "?connect 203.0.113.66:443"];
    let output = run.command(&command).output().expect("egress starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("DENY") && text.contains("space"), "{text}");
    assert!(text.contains("lines could not be written"), "{text}");
}

/// A policy that does not fit is not half in force: the scope stays closed.
#[test]
fn a_full_table_of_networks() {
    let lab = Lab::new().expect("the lab");
    let limits = Limits { networks: 8, ..Limits::default() };
    let mut scope = Scope::with_limits(&KernelProgram::ALL, &limits).expect("a scope");
    let error = scope.enforced.open(&policies::lab(), 0).expect_err("the special networks alone are more");
    assert!(matches!(error, EnforceError::Table(TableError::Full(_))), "{error}");
    let steps = ["socket inet stream", "connect 203.0.113.10:443"];
    let (_, events) = scope.run(&lab, &Attempt::new(&steps)).expect("the attempt is made");
    assert_eq!(events.iter().map(told).collect::<Vec<_>>(), [denied(Hook::Connect, Reason::NoPolicy)]);
}

/// An attach that fails half-way takes back what was attached before.
#[test]
fn an_attach_that_fails_leaves_nothing() {
    egress_tests::require_root();
    let parent = Cgroup::new().expect("a control group");
    egress_tests::foreign::Foreign::ExclusiveSendmsg6
        .attach(parent.path())
        .expect("attach a foreign program");
    let pins = Places::find()
        .expect("the places")
        .pins
        .with_file_name(format!("egress-lab-{}-fault", std::process::id()));
    let places = Places { cgroups: parent.path().to_owned(), pins: pins.clone() };
    let result = EnforcedScope::close_with(&places, "scope", &Limits::default(), &KernelProgram::ALL);
    let error = result.err().expect("sendmsg6 comes last, and is refused");
    assert!(error.to_string().contains("a foreign eBPF program refuses ours"), "{error}");
    assert!(!parent.path().join("scope").exists(), "the control group is left");
    assert!(!pins.join("scope").exists(), "pins are left");
    let _in_use = std::fs::remove_dir(&pins);
    assert!(!Path::new(&pins).exists(), "the directory of pins is left");
}
