//! Names of a policy that are opened without a question of the command's: by `dns.eager` and by the hosts file.

use std::path::PathBuf;

use egress_tests::{
    Lab,
    network::{
        address::{BAD4, GOOD4},
        reached,
    },
    run::{Ended, Run},
};

const POLICY: &str = "version: 1
name: names
dns: { eager: true }
allow:
  - { host: good.example, ports: [443], protocol: any }
  - { host: missing.example, ports: [443] }
  - { host: '*.wild.example', ports: [443] }
";

/// A run whose resolver is the lab's, and whose hosts file says this.
fn run(run: &Run<'_>, hosts: &str, command: &[&str]) -> Ended {
    let covers: [(PathBuf, PathBuf); 2] = [
        ("/etc/resolv.conf".into(), run.file("resolv.conf", "nameserver 203.0.113.10\n")),
        ("/etc/hosts".into(), run.file("hosts", hosts)),
    ];
    run.end_of(&mut run.command_with(command, &covers)).expect("egress starts")
}

#[test]
fn a_name_opens_what_it_resolves_to() {
    let lab = Lab::new().expect("the lab");
    let egress = Run::with_policy(&lab, POLICY);
    let program = egress.program();
    let ended = run(
        &egress,
        "127.0.0.1 localhost\n",
        &[
            &program,
            "socket inet stream",
            "connect 203.0.113.10:443",
            "socket inet6 stream",
            "connect [2001:db8:10::10]:443",
            "socket inet stream",
            "?connect 203.0.113.10:444",
            "socket inet stream",
            "?connect 203.0.113.66:443",
        ],
    );
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.summary("allow").0, 2, "{} {}", ended.stdout, ended.stderr);
    assert_eq!(ended.summary("deny").0, 2, "{} {}", ended.stdout, ended.stderr);
    let reasons: Vec<_> = ended.denials().iter().map(|event| event["reason"].clone()).collect();
    assert_eq!(reasons, ["no-rule", "no-rule"]);
    let allowed = ended.events.iter().find(|event| event["verdict"] == "allow").expect("an allowed attempt");
    assert_eq!(allowed["reason"], "permit");
    assert_eq!(allowed["name"], "good.example");
    assert!(
        allowed["rule"]["origin"].as_str().is_some_and(|origin| origin.ends_with("policy.yaml:5")),
        "{allowed}"
    );
    let frames = lab.frames();
    assert!(reached(&frames, GOOD4.into()) && !reached(&frames, BAD4.into()));
}

#[test]
fn a_name_that_fails_is_reported_and_stays_closed() {
    let lab = Lab::new().expect("the lab");
    let ended = run(&Run::with_policy(&lab, POLICY), "", &["true"]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("missing.example"), "{}", ended.stderr);
    let outcomes = ended.events.iter().filter(|event| event["type"] == "names");
    let outcomes: Vec<_> =
        outcomes.flat_map(|event| event["outcomes"].as_array().cloned().unwrap_or_default()).collect();
    let of = |name: &str| {
        outcomes.iter().find(|outcome| outcome["name"] == name).map(|outcome| outcome["outcome"].clone())
    };
    assert_eq!(of("good.example"), Some("opened".into()));
    assert_eq!(of("missing.example"), Some("failed".into()));
}

/// DNS rebinding: a name that resolves to this host or a private network opens nothing unless the rule says so.
#[test]
fn an_answer_inside_is_refused() {
    let lab = Lab::new().expect("the lab");
    for (hosts, to) in [
        ("127.0.0.1 good.example\n", "127.0.0.1:443"),
        ("10.1.2.3 good.example\n", "10.1.2.3:443"),
        ("169.254.169.254 good.example\n", "169.254.169.254:443"),
    ] {
        // Where nobody listens on loopback the kernel would refuse, as good as own.
        let egress = Run::with_policy(&lab, &format!("{POLICY}loopback: none\n"));
        let connect = format!("?connect {to}");
        let program = egress.program();
        let ended = run(&egress, hosts, &[&program, "socket inet stream", &connect]);
        assert_eq!(ended.summary("deny").0, 1, "{to}: {} {}", ended.stdout, ended.stderr);
        assert_eq!(ended.summary("allow").0, 0, "{to}: {}", ended.stderr);
    }
}

#[test]
fn a_full_table_is_told_and_leaves_what_is_there() {
    let lab = Lab::new().expect("the lab");
    let policy = "version: 1\nname: names\nallow:\n  - { host: one.example, ports: [443] }\n  \
                  - { host: two.example, ports: [443] }\n";
    let egress = Run::with_policy(&lab, policy).option(&["--max-permits", "1"]);
    let program = egress.program();
    let hosts = "203.0.113.10 one.example\n203.0.113.66 two.example\n";
    let steps = [
        "socket inet stream",
        "?connect 203.0.113.10:443",
        "socket inet stream",
        "?connect 203.0.113.66:443",
    ];
    let command: Vec<&str> = std::iter::once(program.as_str()).chain(steps).collect();
    let ended = run(&egress, hosts, &command);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("full"), "{}", ended.stderr);
    assert_eq!(
        (ended.summary("allow").0, ended.summary("deny").0),
        (1, 1),
        "{} {}",
        ended.stdout,
        ended.stderr
    );
}
