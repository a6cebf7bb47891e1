//! `egress doctor --attack`: what it proves, that it can fail, what it prints, and that it leaves nothing behind.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use egress_tests::{
    cgroup,
    run::{binary, eventually},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::NamedTempFile;

static RUNS: AtomicU32 = AtomicU32::new(0);

/// `egress doctor --attack`, with a mark that everything it starts inherits.
struct Attack {
    command: Command,
    mark: String,
}

impl Attack {
    fn new(words: &[&str]) -> Self {
        egress_tests::require_root();
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let mark = format!("EGRESS_ATTACK_TEST={}-{number}", std::process::id());
        let (name, value) = mark.split_once('=').expect("a name and a value");
        let mut command = Command::new(binary());
        command.args(["doctor", "--attack"]).args(words).env(name, value);
        for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command, mark }
    }

    fn output(mut self) -> Output {
        self.command.output().expect("egress runs")
    }

    fn start(&mut self) -> Child {
        self.command.spawn().expect("egress runs")
    }
}

fn report(words: &[&str]) -> (Output, Value) {
    let output = Attack::new(&[words, &["--output", "json"]].concat()).output();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{errors}"));
    (output, report)
}

fn policy(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("write the policy");
    file
}

/// Ids, and users, of the attacks with a verdict.
fn with<'a>(report: &'a Value, verdict: &str) -> BTreeSet<(&'a str, &'a str)> {
    let attacks = report["attacks"].as_array().expect("a list of attacks");
    let text = |attack: &'a Value, key| attack[key].as_str().expect("a text");
    attacks
        .iter()
        .filter(|attack| attack["verdict"] == verdict)
        .map(|attack| (text(attack, "id"), text(attack, "user")))
        .collect()
}

fn path(file: &NamedTempFile) -> &str {
    file.path().to_str().expect("a path in UTF-8")
}

#[test]
fn nothing_gets_out_that_gets_out_without_enforcement() {
    let start = Instant::now();
    let (output, report) = report(&["--user", "root"]);
    let took = start.elapsed();
    let attacks = report["attacks"].as_array().expect("a list of attacks");
    let ids: BTreeSet<_> = attacks.iter().map(|attack| attack["id"].as_str()).collect();
    assert!(ids.len() >= 120, "only {} attacks", ids.len());
    assert_eq!(report["users"].as_array().expect("a list of users").len(), 2);
    assert_eq!(with(&report, "unknown"), BTreeSet::new());
    let proven: BTreeSet<_> = with(&report, "contained").into_iter().chain(with(&report, "leaked")).collect();
    let proven: BTreeSet<_> = proven.into_iter().map(|(id, _)| id).collect();
    assert!(proven.len() >= 120, "only {} attacks get through without enforcement here", proven.len());
    assert!(took < Duration::from_secs(60), "it took {took:?}");
    assert_eq!(with(&report, "leaked"), BTreeSet::new());
    assert_eq!(output.status.code(), Some(0));
}

// What the hooks of the packet's way close, whatever the others do. Fails if any of them is not attached.
#[test]
fn no_packet_gets_out() {
    let classes = ["a", "b", "c", "d", "e", "f", "g", "o"].map(|class| ["--only", class]).concat();
    let (output, report) = report(&[&["--user", "root"], &classes[..]].concat());
    assert_eq!(with(&report, "leaked"), BTreeSet::new());
    assert_eq!(with(&report, "unknown"), BTreeSet::new());
    assert!(with(&report, "contained").len() >= 150, "{:?}", report["totals"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_scope_that_refuses_nothing_is_found_out() {
    let audit = policy("version: 1\nname: audited\nmode: audit\nallow: []\n");
    let (output, found) = report(&["--policy", path(&audit), "--only", "a", "--only", "b", "--only", "c"]);
    assert_eq!(output.status.code(), Some(1));
    let leaked = with(&found, "leaked");
    assert!(leaked.len() >= 40, "{:?}", found["totals"]);
    for id in ["a-tcp4", "a-tcp6", "b-to4", "b-peer6", "c-fastopen4"] {
        assert!(leaked.contains(&(id, "nobody")), "{id} was not found: {leaked:?}");
    }
    let first =
        found["attacks"].as_array().expect("a list").iter().find(|attack| attack["verdict"] == "leaked");
    assert!(first.expect("a leak")["advice"].is_string());
}

// Each restriction is what closes its path: given back, the path is open and named.
#[test]
fn what_the_policy_lifts_is_found_out() {
    let lifted = policy(
        "version: 1\nname: lifted\nallow: []\npermit: [clone3, ptrace, families, netlink, signals, keys, bpf]\n",
    );
    let expected = [
        ("i-clone", "root"),
        ("p-ptrace", "nobody"),
        ("p-memory", "nobody"),
        ("h-taken", "nobody"),
        ("m-vsock", "nobody"),
        ("m-netlink-user", "nobody"),
        ("p-signal", "nobody"),
    ];
    let mut words = vec!["--policy", path(&lifted), "--user", "root", "--only", "a-tcp4"];
    words.extend(expected.iter().flat_map(|(id, _)| ["--only", id]));
    let (output, found) = report(&words);
    let leaked = with(&found, "leaked");
    for leak in expected {
        assert!(leaked.contains(&leak), "{leak:?} was not found: {leaked:?}");
    }
    assert!(!leaked.contains(&("a-tcp4", "nobody")), "{leaked:?}");
    assert_eq!(output.status.code(), Some(1));
}

// A ring makes calls that no filter sees: the hooks must refuse them by themselves.
#[test]
fn the_hooks_refuse_what_rings_do() {
    let rings = policy("version: 1\nname: rings\nallow: []\npermit: [io_uring]\n");
    let words =
        ["--policy", path(&rings), "--user", "root", "--only", "g-", "--only", "i-ring", "--only", "m-ring"];
    let (output, found) = report(&words);
    assert_eq!(with(&found, "leaked"), BTreeSet::new());
    assert!(with(&found, "contained").len() >= 25, "{:?}", found["totals"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn what_the_policy_allows_is_no_attack() {
    let open = policy(
        "version: 1\nname: open\nallow:\n  - { cidr: 198.51.100.0/24, protocol: any }\nloopback: any\n",
    );
    let (output, found) =
        report(&["--policy", path(&open), "--only", "a-tcp", "--only", "b-to4", "--only", "k-relay"]);
    let allowed = with(&found, "allowed");
    for id in ["a-tcp4", "b-to4"] {
        assert!(allowed.contains(&(id, "nobody")), "{id}: {found}");
    }
    let relay =
        found["attacks"].as_array().expect("a list").iter().find(|attack| attack["id"] == "k-relay-127");
    assert_eq!(relay.expect("in the table")["note"], "the policy's `loopback:` allows it");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn each_form_says_the_same() {
    let words = ["--only", "a-tcp4", "--only", "m-alg"];
    let text = Attack::new(&words).output();
    let shown = String::from_utf8_lossy(&text.stdout);
    assert!(shown.contains("nothing leaked: 1 attack"), "{shown}");
    assert!(!shown.contains('\x1b'), "colours without a terminal: {shown}");
    let junit = Attack::new(&[&words[..], &["--output", "junit"]].concat()).output();
    let xml = String::from_utf8_lossy(&junit.stdout);
    assert!(xml.starts_with("<?xml") && xml.trim_end().ends_with("</testsuites>"), "{xml}");
    assert!(xml.contains("tests=\"2\" failures=\"0\""), "{xml}");
    assert!(xml.contains("a-tcp4 as nobody"), "{xml}");
    assert_eq!((text.status.code(), junit.status.code()), (Some(0), Some(0)));
}

#[test]
fn what_cannot_be_found_out_has_a_code() {
    let broken = policy("version: 1\nallow: [\n");
    for (words, code) in [
        (&["--policy", path(&broken)][..], 119),
        (&["--user", "no-such-user-here"], 121),
        (&["--output", "xml"], 2),
    ] {
        let output = Attack::new(words).output();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Processes whose environment has the mark.
fn marked(mark: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("read /proc").filter_map(Result::ok);
    let has = |path: &Path| {
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes())
    };
    entries
        .map(|entry| entry.path())
        .filter(|path| has(path))
        .map(|path| format!("{path:?} {:?}", fs::read_to_string(path.join("cmdline"))))
        .collect()
}

/// Directories of scopes whose supervisor is gone.
fn left() -> Vec<String> {
    let mount = cgroup::mount().expect("a mount");
    let mut found = Vec::new();
    for place in [mount.join("egress"), "/sys/fs/bpf/egress".into()] {
        for entry in fs::read_dir(place).into_iter().flatten().filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let process =
                name.strip_prefix("run-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}

fn entries(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn nothing_is_left_however_it_ends() {
    // Named network namespaces are other people's: the attack makes none.
    let mounts = || {
        let text = fs::read_to_string("/proc/self/mounts").expect("read the mounts");
        text.lines().filter(|line| !line.contains(" /run/netns")).count()
    };
    let before = (entries("/mnt"), entries("/srv"), mounts());
    // At the end; and at moments of the run without enforcement, between both, and with enforcement.
    let ends = [
        (None, 0),
        (Some(Signal::SIGINT), 400),
        (Some(Signal::SIGINT), 5_000),
        (Some(Signal::SIGTERM), 6_200),
        (Some(Signal::SIGKILL), 1_500),
        (Some(Signal::SIGKILL), 7_000),
    ];
    for (signal, after) in ends {
        let mut attack = Attack::new(&[]);
        let mut child = attack.start();
        if let Some(signal) = signal {
            std::thread::sleep(Duration::from_millis(after));
            assert_eq!(child.try_wait().expect("ask"), None, "it ended before {signal}");
            let process = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
            kill(process, signal).expect("signal it");
        }
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code().is_none(), signal.is_some(), "{output:?}");
        let gone = eventually(Duration::from_secs(20), || marked(&attack.mark).is_empty());
        assert!(gone, "after {signal:?}: {:?}", marked(&attack.mark));
        // Programs stay until the kernel has let go of the last socket, here and in runs of other tests.
        assert!(eventually(Duration::from_secs(120), || left().is_empty()), "after {signal:?}: {:?}", left());
        assert_eq!((entries("/mnt"), entries("/srv"), mounts()), before, "after {signal:?}");
    }
}
