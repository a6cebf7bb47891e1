//! Real clients, each with one allowed and one forbidden host, over IPv4 and IPv6, through `egress run`.
//!
//! What they need is in `packages.txt`. A forbidden host is also tried without `egress`, and must then be reached.

use std::{
    net::IpAddr,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use egress_tests::{
    Lab,
    network::{
        address::{BAD4, BAD6, GOOD4, GOOD6},
        reached,
    },
    run::{Run, at_best},
    ssh::{SSH, SshServer},
};

/// Within the patience of a client whose connect is not answered.
const AT_MOST: Duration = Duration::from_secs(6);
const POLICY: &str = "version: 1
name: clients
allow:
  - { cidr: 203.0.113.10/32, ports: [22, 80, 443], protocol: any }
  - { cidr: 2001:db8:10::10/128, ports: [22, 80, 443], protocol: any }
";

/// Runs a client against an allowed host and a forbidden one. In its words `HOST` is the address, `[HOST]` the address
/// as a URL has it, `KEYS` a directory with keys for the ssh server.
fn check(client: &[&str]) {
    check_with(&Lab::new().expect("the lab"), Path::new("/nonexistent"), client);
}

fn check_with(lab: &Lab, keys: &Path, client: &[&str]) {
    for (good, bad) in [(IpAddr::V4(GOOD4), IpAddr::V4(BAD4)), (IpAddr::V6(GOOD6), IpAddr::V6(BAD6))] {
        let words = |host: IpAddr| -> Vec<String> {
            let url = if host.is_ipv6() { format!("[{host}]") } else { host.to_string() };
            let keys = keys.display().to_string();
            let fill = |word: &&str| {
                word.replace("[HOST]", &url).replace("HOST", &host.to_string()).replace("KEYS", &keys)
            };
            client.iter().map(fill).collect()
        };
        lab.forget();
        let free = words(bad);
        let mut command = Command::new(&free[0]);
        command.args(&free[1..]).stdin(Stdio::null());
        lab.agent.place(&mut command).output().unwrap_or_else(|error| panic!("{}: {error}", free[0]));
        assert!(reached(&lab.frames(), bad), "{free:?}: without egress it must reach the host");

        let run = Run::with_policy(lab, POLICY);
        let enforced = |host| run.run(&words(host).iter().map(String::as_str).collect::<Vec<_>>());
        let allowed = enforced(good);
        assert_eq!(allowed.code(), 0, "{:?}: {}{}", words(good), allowed.stdout, allowed.stderr);
        assert!(reached(&lab.frames(), good), "{:?}: the host saw nothing", words(good));
        assert_eq!(allowed.summary("deny").0, 0, "{:?}: {}", words(good), allowed.stderr);

        let start = Instant::now();
        let refused = enforced(bad);
        let took = start.elapsed();
        assert!(!reached(&lab.frames(), bad), "{:?} got out: {}", words(bad), refused.stderr);
        assert_ne!(refused.code(), 0, "{:?}: {}", words(bad), refused.stderr);
        let took = at_best(took, AT_MOST, || drop(enforced(bad)));
        assert!(took < AT_MOST, "{:?} took {took:?}", words(bad));
        let denials = refused.denials();
        assert!(!denials.is_empty(), "{:?}: no event: {}", words(bad), refused.stderr);
        for denial in denials {
            assert_eq!(denial["address"], bad.to_string(), "{:?}: {denial}", words(bad));
        }
    }
}

#[test]
fn curl() {
    check(&["curl", "-sS", "--max-time", "5", "http://[HOST]/"]);
}

#[test]
fn python3() {
    let script = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read())";
    check(&["python3", "-c", script, "http://[HOST]/"]);
}

#[test]
fn node() {
    let script = "require('http').get(process.argv[1], r => r.resume()).on('error', () => process.exit(9))";
    check(&["node", "-e", script, "http://[HOST]/"]);
}

#[test]
fn ncat() {
    check(&["sh", "-c", "echo hello | ncat --send-only -w 3 HOST 443"]);
}

#[test]
fn git_over_http() {
    check(&["git", "ls-remote", "http://[HOST]/repository.git"]);
}

#[test]
fn ssh() {
    let lab = Lab::new().expect("the lab");
    let server = SshServer::start(&lab);
    let words: Vec<_> = SSH.split_whitespace().chain(["root@HOST", "true"]).collect();
    check_with(&lab, server.keys(), &words);
}

#[test]
fn git_over_ssh() {
    let lab = Lab::new().expect("the lab");
    let server = SshServer::start(&lab);
    let ssh = format!("GIT_SSH_COMMAND={SSH}");
    let words = ["env", &ssh, "git", "ls-remote", "ssh://root@[HOST]KEYS/repository.git"];
    check_with(&lab, server.keys(), &words);
}
