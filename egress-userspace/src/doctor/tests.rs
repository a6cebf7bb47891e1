//! What is said of machines other than this one.

use std::collections::BTreeMap;

use insta::assert_snapshot;

use super::*;
use crate::{
    paths::{Lifted, Restricted},
    policy::{self, Restriction},
    scope::confine::probe::Landlock,
};

/// A machine like Linux 6.1 without BPF LSM, whose policy gives ptrace back.
fn report(require: Require, missing: &[&str]) -> Report {
    let policy = policy::from_command_line(&[]).unwrap();
    let state = |name: &str| match missing.contains(&name) {
        true => Hook::Missing("this kernel has none\x1b[2J".to_owned()),
        false => Hook::Active,
    };
    let hook = |program: KernelProgram| {
        let refused = SELF_TESTED.contains(&program.name()).then_some(true);
        HookReport::of(program, state(program.name()), refused)
    };
    let mut restrictions: BTreeMap<_, _> =
        Restriction::ALL.map(|name| (name, Restricted::On("the system call filter".to_owned()))).into();
    restrictions.insert(Restriction::Ptrace, Restricted::Lifted(Lifted::Policy));
    restrictions.insert(Restriction::Signals, Restricted::NotPossible("Linux 6.12 can".to_owned()));
    restrictions.insert(Restriction::UserNamespaces, Restricted::NotNeeded("not root".to_owned()));
    let hooks: Vec<_> = KernelProgram::ALL.map(hook).to_vec();
    let capabilities = Capabilities {
        hooks: hooks.iter().map(|hook| (hook.name.to_owned(), hook.state.clone())).collect(),
        lsm: LsmStatus::Refused("EPERM".to_owned()),
        restrictions,
        launched: true,
    };
    Report {
        kernel: "6.1.0".to_owned(),
        machine: "x86_64".to_owned(),
        user: "nobody".to_owned(),
        hooks,
        abilities: Abilities { filter: true, told: true, landlock: Landlock::Files },
        landlock_abi: 2,
        paths: PATHS.iter().map(|path| (path, path.state(&capabilities, &policy))).collect(),
        capabilities,
        policy: "p".to_owned(),
        require,
    }
}

/// The part that tells of open paths, and the last line.
fn open_part(report: &Report) -> String {
    let text = report.text(false);
    let open = text.lines().filter(|line| line.starts_with("  OPEN") || line.starts_with("       "));
    let last = text.trim_end().rsplit('\n').next().unwrap();
    open.chain([last]).collect::<Vec<_>>().join("\n")
}

#[test]
fn open_paths_come_the_worst_first_with_what_to_do() {
    let report = report(Require::Kernel, &[]);
    assert!(report.is_enough());
    assert_snapshot!(open_part(&report), @r"
      OPEN pidfd-getfd: descriptors taken from another process (pidfd_getfd, /proc/PID/fd)
           why: given back by the policy's `permit: [ptrace]` (high)
           do:  take `ptrace` out of the policy's `permit:`
      OPEN ptrace: ptrace, /proc/PID/mem and process_vm_writev of processes outside
           why: given back by the policy's `permit: [ptrace]` (high)
           do:  take `ptrace` out of the policy's `permit:`
           note: same user, and Yama's ptrace_scope 0
      OPEN signals: signals to processes outside, their limits, priorities and CPU masks
           why: Linux 6.12 can (limited)
           do:  any of these closes it (Linux 6.12 or later): launch (signals); or LSM task_kill
           note: same user; one signal carries a few bits
    everything required is there; 3 paths stay open (`require: full` would refuse to start)
    ");
}

/// Mutation seen to fail here: `full` satisfied with the required hooks alone.
#[test]
fn what_is_required_decides() {
    assert!(!report(Require::Full, &[]).is_enough());
    assert!(!report(Require::Kernel, &["setsockopt"]).is_enough());
    let last = |report: Report| open_part(&report).lines().last().unwrap().to_owned();
    assert_snapshot!(last(report(Require::Full, &[])), @"the policy requires that no path is open: it cannot start here");
    assert_snapshot!(last(report(Require::Kernel, &["setsockopt"])), @"a required hook is missing: `egress run` does not start here");
}

#[test]
fn a_missing_hook_is_told_and_cannot_steer() {
    let text = report(Require::Kernel, &["setsockopt"]).text(false);
    let line = text.lines().find(|line| line.contains("cgroup/setsockopt")).unwrap();
    assert_snapshot!(line, @r#"  NO   cgroup/setsockopt       this kernel has none\u{1b}[2J"#);
    assert!(!text.contains('\x1b'));
    assert!(report(Require::Kernel, &[]).text(true).contains("\x1b[32myes\x1b[0m"));
}

#[test]
fn as_json_it_says_the_same() {
    let report = report(Require::Full, &["setsockopt"]);
    let json = report.json();
    assert_eq!((&json["enough"], &json["require"]), (&false.into(), &"full".into()));
    assert_eq!(json["open"], report.open().count());
    let find = |list: &str, key: &str, name: &str| {
        let rows = json[list].as_array().unwrap();
        rows.iter().find(|row| row[key] == name).unwrap().clone()
    };
    assert_snapshot!(find("hooks", "name", "setsockopt"), @r#"{"active":false,"hook":"cgroup/setsockopt","name":"setsockopt","refused":null,"required":true,"why":"this kernel has none\u001b[2J"}"#);
    assert_snapshot!(find("paths", "id", "ptrace"), @r#"{"advice":"take `ptrace` out of the policy's `permit:`","class":"processes and the kernel","closed_by":[],"id":"ptrace","left":"same user, and Yama's ptrace_scope 0","severity":"high","since":"5.10","state":"open","title":"ptrace, /proc/PID/mem and process_vm_writev of processes outside","why":"given back by the policy's `permit: [ptrace]`"}"#);
    assert_snapshot!(find("paths", "id", "tcp"), @r#"{"advice":null,"class":"TCP","closed_by":["connect4","connect6","packet"],"id":"tcp","left":"","severity":"severe","since":"5.10","state":"closed","title":"connect over IPv4, IPv6, IPv4-mapped or link-local addresses","why":null}"#);
    assert_snapshot!(json["lsm"], @r#"{"hooks":[],"state":"refused","text":"BPF LSM is refused at load (EPERM)"}"#);
    let row = json["launch"]["restrictions"].as_array().unwrap();
    let ptrace = row.iter().find(|row| row["name"] == "ptrace").unwrap();
    assert_snapshot!(ptrace, @r#"{"name":"ptrace","state":"lifted","text":"given back by the policy's `permit: [ptrace]`"}"#);
}
