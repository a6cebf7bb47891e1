//! `egress why` as people and programs meet it: what is printed where, and the exit code.

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;

/// A run with one answered and one refused question, and one attempt past the names.
const EVENTS: &str = r#"{"v":1,"type":"start","time":"2026-11-22T12:00:00.000000000Z","egress":"0.1.0","policy":"p","files":["p.yaml"],"digest":null,"mode":"enforce","scope":1,"cgroup_path":"/sys/fs/cgroup/egress/run-1","command":["agent"]}
{"v":1,"type":"dns","time":"2026-11-22T12:00:01.000000000Z","verdict":"allow","reason":"listed","name":"api.example","query_type":"A","query_type_number":1,"class":1,"protocol":"udp","server":"192.0.2.53","rcode":"NOERROR","rcode_number":0,"addresses":["203.0.113.10"],"dropped":[],"aliases":[],"ttl":60,"rule":{"id":1,"origin":"p.yaml:4","text":"host api.example ports 443/tcp"},"process":{"pid":42,"tid":42,"uid":0,"gid":0,"comm":"agent","exe":"/usr/bin/agent","exe_deleted":false},"cgroup":1,"cgroup_path":null,"cookie":7,"remedy":null,"setting":null}
{"v":1,"type":"dns","time":"2026-11-22T12:00:02.000000000Z","verdict":"deny","reason":"not-listed","name":"collect.attacker.example","query_type":"A","query_type_number":1,"class":1,"protocol":"udp","server":"192.0.2.53","rcode":"NXDOMAIN","rcode_number":3,"addresses":[],"dropped":[],"aliases":[],"ttl":null,"rule":null,"process":{"pid":42,"tid":42,"uid":0,"gid":0,"comm":"agent","exe":"/usr/bin/agent\u009b2J","exe_deleted":false},"cgroup":1,"cgroup_path":null,"cookie":7,"remedy":"- { host: collect.attacker.example, ports: [443] }","setting":null}
{"v":1,"type":"attempt","time":"2026-11-22T12:00:03.000000000Z","verdict":"deny","hook":"connect","reason":"no-rule","direction":"out","protocol":"tcp","protocol_number":6,"socket_type":"stream","address":"203.0.113.10","port":8443,"name":"api.example","names":["api.example"],"literal":false,"subject":null,"rule":null,"process":{"pid":42,"tid":42,"uid":0,"gid":0,"comm":"agent","exe":"/usr/bin/agent","exe_deleted":false},"scope":1,"cgroup":1,"cgroup_path":null,"cookie":8,"remedy":"- { host: api.example, ports: [8443] }"}
"#;

fn file(text: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("events.jsonl"), text).unwrap();
    directory
}

/// Exit code, output and errors.
fn why(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_egress"))
        .arg("why")
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    let mut text = format!("exit code {}\n", output.status.code().unwrap());
    for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !bytes.is_empty() {
            text.push_str(&format!("--- {name}\n{}", String::from_utf8_lossy(bytes)));
        }
    }
    text
}

#[test]
fn the_last_refusal_is_told_without_a_destination() {
    let directory = file(EVENTS);
    insta::assert_snapshot!(why(directory.path(), &["events.jsonl"]), @"
    exit code 0
    --- stdout
    agent[42] (/usr/bin/agent) tried to reach api.example (tcp 203.0.113.10:8443) at 2026-11-22T12:00:03.000000000Z, and it was refused.
    Reason: no-rule: no rule covers it.
    The address came with the answer for api.example, asked for at 2026-11-22T12:00:01.000000000Z.
    The address is open on the ports of the rules for api.example.
    To allow it: - { host: api.example, ports: [8443] }
    The file has 2 events that match (attempts: 1, questions: 1); this is the last refusal.
    ");
}

#[test]
fn a_name_is_told_with_its_question() {
    let directory = file(EVENTS);
    insta::assert_snapshot!(why(directory.path(), &["events.jsonl", "collect.attacker.example"]), @r"
    exit code 0
    --- stdout
    agent[42] (/usr/bin/agent\u{9b}2J) asked for collect.attacker.example (A) at 2026-11-22T12:00:02.000000000Z, and it was refused (NXDOMAIN).
    Reason: not-listed: no rule lists the name.
    This closes the name, not the machine behind it: if collect.attacker.example shares an address with a permitted name, that address is open under the permitted one. A permitted address serves every name behind it, whoever asks: egress sees addresses and ports, not the name inside TLS.
    To allow it: - { host: collect.attacker.example, ports: [443] }
    ");
}

#[test]
fn as_json_it_is_ascii_and_whole() {
    let directory = file(EVENTS);
    let text = why(directory.path(), &["events.jsonl", "collect.attacker.example", "--output", "json"]);
    insta::assert_snapshot!(text, @r#"
    exit code 0
    --- stdout
    {
      "attempts": 0,
      "destination": "collect.attacker.example",
      "escapes": 0,
      "event": {
        "addresses": [],
        "aliases": [],
        "cgroup": 1,
        "cgroup_path": null,
        "class": 1,
        "cookie": 7,
        "dropped": [],
        "name": "collect.attacker.example",
        "process": {
          "comm": "agent",
          "exe": "/usr/bin/agent\u009b2J",
          "exe_deleted": false,
          "gid": 0,
          "pid": 42,
          "tid": 42,
          "uid": 0
        },
        "protocol": "udp",
        "query_type": "A",
        "query_type_number": 1,
        "rcode": "NXDOMAIN",
        "rcode_number": 3,
        "reason": "not-listed",
        "remedy": "- { host: collect.attacker.example, ports: [443] }",
        "rule": null,
        "server": "192.0.2.53",
        "setting": null,
        "time": "2026-11-22T12:00:02.000000000Z",
        "ttl": null,
        "type": "dns",
        "v": 1,
        "verdict": "deny"
      },
      "explanation": [
        "agent[42] (/usr/bin/agent\\u{9b}2J) asked for collect.attacker.example (A) at 2026-11-22T12:00:02.000000000Z, and it was refused (NXDOMAIN).",
        "Reason: not-listed: no rule lists the name.",
        "This closes the name, not the machine behind it: if collect.attacker.example shares an address with a permitted name, that address is open under the permitted one. A permitted address serves every name behind it, whoever asks: egress sees addresses and ports, not the name inside TLS.",
        "To allow it: - { host: collect.attacker.example, ports: [443] }"
      ],
      "file": "events.jsonl",
      "found": true,
      "names": [],
      "notes": [],
      "question": null,
      "questions": 1,
      "remedy": "- { host: collect.attacker.example, ports: [443] }",
      "setting": null,
      "shared": false,
      "version": 1
    }
    "#);
}

#[test]
fn a_cut_off_file_is_still_read() {
    let directory = file(&EVENTS[..EVENTS.len() - 40]);
    insta::assert_snapshot!(why(directory.path(), &["events.jsonl"]), @r"
    exit code 0
    --- stdout
    agent[42] (/usr/bin/agent\u{9b}2J) asked for collect.attacker.example (A) at 2026-11-22T12:00:02.000000000Z, and it was refused (NXDOMAIN).
    Reason: not-listed: no rule lists the name.
    This closes the name, not the machine behind it: if collect.attacker.example shares an address with a permitted name, that address is open under the permitted one. A permitted address serves every name behind it, whoever asks: egress sees addresses and ports, not the name inside TLS.
    To allow it: - { host: collect.attacker.example, ports: [443] }
    --- stderr
    egress: note: the last line is cut off and was passed over
    ");
}

#[test]
fn exit_codes_tell_found_from_nothing_and_wrong_use() {
    let directory = file(EVENTS);
    for (arguments, expected) in [
        (&["events.jsonl"][..], 0),
        (&["events.jsonl", "api.example:8443"], 0),
        (&["events.jsonl", "api.example:443"], 0),
        (&["events.jsonl", "203.0.113.10:8443/tcp"], 0),
        (&["events.jsonl", "203.0.113.10:8444"], 0),
        (&["events.jsonl", "203.0.113.11"], 1),
        (&["events.jsonl", "other.example"], 1),
        (&["events.jsonl", "other.example", "--output", "json"], 1),
        (&["events.jsonl", "api.example:x:"], 2),
        (&["events.jsonl", ""], 2),
        (&["missing.jsonl"], 2),
        (&["."], 2),
        (&[], 2),
    ] {
        let text = why(directory.path(), arguments);
        assert!(text.starts_with(&format!("exit code {expected}\n")), "{arguments:?}\n{text}");
    }
    fs::write(directory.path().join("empty.jsonl"), "").unwrap();
    insta::assert_snapshot!(why(directory.path(), &["empty.jsonl"]), @"
    exit code 1
    --- stderr
    egress: there is no refusal in empty.jsonl
    egress: note: no line of the file is an event of egress
    ");
}
