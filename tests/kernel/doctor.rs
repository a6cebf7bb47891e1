//! `egress doctor`: what it finds, that it can find something missing, that a run says the same, and what it leaves behind.

use std::{
    fs,
    process::{Command, Output},
};

use egress::{
    doctor::effects::{self, Effect},
    enforce::{KernelProgram, Limits},
    paths::PATHS,
    scope::{cgroup::Places, enforced::EnforcedScope},
};
use egress_tests::{
    Lab, cgroup,
    run::{Run, binary},
};
use serde_json::Value;

fn doctor(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.arg("doctor").args(arguments);
    for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER"] {
        command.env_remove(name);
    }
    command.output().expect("egress starts")
}

fn report(arguments: &[&str]) -> (i32, Value) {
    let output = doctor(&[&["--output", "json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().expect("an exit code"), value)
}

fn names(report: &Value, list: &str, key: &str, is: impl Fn(&Value) -> bool) -> Vec<String> {
    let rows = report[list].as_array().expect("a list").iter();
    rows.filter(|row| is(row)).map(|row| row[key].as_str().expect("a name").to_owned()).collect()
}

fn policy(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file");
    fs::write(file.path(), format!("version: 1\nname: p\nallow: []\n{text}")).expect("write it");
    file
}

/// On every kernel that this project supports the required hooks are there.
#[test]
fn it_finds_every_required_hook_and_judges_every_path() {
    let (code, report) = report(&[]);
    assert_eq!((code, &report["enough"]), (0, &Value::Bool(true)), "{report}");
    let hooks = names(&report, "hooks", "name", |_| true);
    assert_eq!(hooks, KernelProgram::ALL.map(|program| program.name().to_owned()));
    let missing = names(&report, "hooks", "name", |hook| hook["required"] == true && hook["active"] == false);
    assert_eq!(missing, [""; 0]);
    for hook in ["packet", "create", "connect4", "sendmsg6", "ingress", "setsockopt"] {
        let refused = names(&report, "hooks", "name", |row| row["name"] == hook && row["refused"] == true);
        assert_eq!(refused, [hook], "{report}");
    }
    let paths = names(&report, "paths", "id", |_| true);
    assert_eq!(paths, PATHS.iter().map(|path| path.id.to_owned()).collect::<Vec<_>>());
    let open = names(&report, "paths", "id", |path| path["state"] == "open");
    assert_eq!(report["open"], open.len());
}

#[test]
fn it_leaves_nothing_behind() {
    let mut command = Command::new(binary());
    let child = command.arg("doctor").stdout(std::process::Stdio::null()).spawn().expect("egress starts");
    let name = format!("doctor-{}-", child.id());
    assert!({ child }.wait().expect("it ends").success());
    for place in [cgroup::mount().expect("a mount").join("egress"), "/sys/fs/bpf/egress".into()] {
        let entries = fs::read_dir(place).into_iter().flatten().filter_map(Result::ok);
        let left: Vec<_> = entries.map(|entry| entry.path()).collect();
        assert!(left.iter().all(|path| !path.display().to_string().contains(&name)), "{left:?}");
    }
}

/// A hook that is not attached is seen to have no effect. Mutation seen to fail here: what was let through taken for
/// refused.
#[test]
fn an_attempt_that_no_hook_refuses_is_let_through() {
    let places = Places::find().expect("places");
    let limits = Limits { permits: 64, networks: 64, ports: 64, ring: 1 << 16 };
    for (number, without) in
        [KernelProgram::Ingress, KernelProgram::Setsockopt, KernelProgram::Device, KernelProgram::Sysctl]
            .into_iter()
            .enumerate()
    {
        let programs: Vec<_> = KernelProgram::ALL.into_iter().filter(|program| *program != without).collect();
        let name = format!("doctor-test-{}-{number}", std::process::id());
        let scope = EnforcedScope::close_with(&places, &name, &limits, &programs).expect("a scope");
        let found = effects::probe(&scope.cgroup().procs().expect("procs")).expect("attempts");
        for (name, effect) in found {
            // Not every machine has the device, or lets the setting be written.
            let expected = if name == without.name() { Effect::LetThrough } else { Effect::Refused };
            assert!(
                effect == expected || effect == Effect::Unknown,
                "without {without:?}: {name} {effect:?}"
            );
            let always = name == "ingress" || name == "setsockopt";
            assert!(!always || effect != Effect::Unknown, "{name}");
        }
    }
}

#[test]
fn what_the_policy_opens_is_named_and_no_open_path() {
    let open = policy("loopback: any\nunix: any\ninbound: allow\n");
    let (code, report) = report(&["--policy", open.path().to_str().expect("a path")]);
    assert_eq!(code, 0);
    let by_policy = names(&report, "paths", "id", |path| path["state"] == "by-policy");
    for id in ["loopback", "own-address", "inbound", "unix-path", "unix-abstract"] {
        assert!(by_policy.contains(&id.to_owned()), "{id}: {by_policy:?}");
    }
}

/// `require: full` has doctor fail and the run refuse, for the same reason and before the command starts.
#[test]
fn a_policy_that_requires_everything_does_not_start_with_a_path_open() {
    let text = "require: full\npermit: [ptrace]\n";
    let full = policy(text);
    let (code, report) = report(&["--policy", full.path().to_str().expect("a path")]);
    assert_eq!((code, &report["enough"]), (1, &Value::Bool(false)), "{report}");
    let why = names(&report, "paths", "why", |path| path["id"] == "ptrace");
    assert_eq!(why, ["given back by the policy's `permit: [ptrace]`"]);
    let lab = Lab::new().expect("the lab");
    let run = Run::with_policy(&lab, &format!("version: 1\nname: p\nallow: []\n{text}"));
    let ended = run.run(&["sh", "-c", "echo started"]);
    assert_eq!((ended.code(), ended.stdout.as_str()), (122, ""), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("ptrace (given back by the policy's `permit: [ptrace]`)"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.events, Vec::<Value>::new());
}

/// What a run says at its start is what doctor finds.
#[test]
fn a_run_says_what_doctor_says() {
    let lab = Lab::new().expect("the lab");
    let text = "permit: [ptrace, io_uring]\nunix: any\n";
    let ended = Run::with_policy(&lab, &format!("version: 1\nname: p\nallow: []\n{text}")).run(&["true"]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let start = &ended.events[0];
    let file = policy(text);
    let (_, report) = report(&["--policy", file.path().to_str().expect("a path")]);
    let mut found = names(&report, "paths", "id", |path| path["state"] == "open");
    let mut said: Vec<String> = serde_json::from_value(start["open"].clone()).expect("a list");
    found.sort();
    said.sort();
    assert_eq!(said, found);
    assert!(said.contains(&"ptrace".to_owned()), "{said:?}");
    assert_eq!(start["lifted"], serde_json::json!(["io_uring", "ptrace"]));
    assert!(ended.stderr.contains("open on this kernel: "), "{}", ended.stderr);
}

#[test]
fn for_people_it_is_short_and_without_colours() {
    let output = doctor(&[]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.starts_with("egress doctor: Linux ") && text.contains("\npaths out of a scope: "), "{text}");
    assert!(!text.contains('\x1b') && text.lines().count() < 100, "{text}");
}

#[test]
fn what_keeps_it_from_looking_has_a_code_of_its_own() {
    let bad = policy("colour: red\n");
    assert_eq!(doctor(&["--policy", bad.path().to_str().expect("a path")]).status.code(), Some(119));
    assert_eq!(doctor(&["--output", "junit"]).status.code(), Some(2));
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--clear-groups"]).arg(binary()).arg("doctor");
    let output = command.output().expect("setpriv starts");
    assert_eq!(output.status.code(), Some(112), "{}", String::from_utf8_lossy(&output.stderr));
}
