//! Golden lines, each checked against the schema.

use std::time::Duration;

use egress_common::{Counters, Event, Hook, Owner, Reason, Verdict};
use insta::assert_snapshot;
use serde_json::Value;

use super::*;
use crate::{
    dns::{
        outcome::ResolveError,
        told::{DnsReason, Told},
    },
    observe::{
        question::tests::{answered, of as question, refused},
        record::{
            Executable,
            tests::{OFFSET, denied, device, escape, inbound, of, of_escape, raw_socket, socket_option},
        },
        summary::Tally,
    },
};

/// Checks a value against a schema, strictly: an unknown field of a value or an unknown word of the schema is a
/// fault too, so that neither can go unchecked.
fn faults(value: &Value, schema: &Value, root: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (word, rule) in schema.as_object().into_iter().flatten() {
        match word.as_str() {
            "description" | "title" | "$schema" | "$defs" => {}
            "$ref" => {
                let target = root.pointer(rule.as_str().unwrap().strip_prefix('#').unwrap()).unwrap();
                found.extend(faults(value, target, root, path));
            }
            "oneOf" => {
                let each: Vec<_> =
                    rule.as_array().unwrap().iter().map(|one| faults(value, one, root, path)).collect();
                if each.iter().filter(|faults| faults.is_empty()).count() != 1 {
                    found.push(format!("{path}: not exactly one of {each:?}"));
                }
            }
            "const" if value == rule => {}
            "enum" if rule.as_array().unwrap().contains(value) => {}
            "const" | "enum" => found.push(format!("{path}: {value} is not {rule}")),
            "type" if has_type(value, rule) => {}
            "type" => found.push(format!("{path}: {value} is no {rule}")),
            "minimum" if value.as_u64().is_none_or(|number| number >= rule.as_u64().unwrap()) => {}
            "maximum" if value.as_u64().is_none_or(|number| number <= rule.as_u64().unwrap()) => {}
            "minimum" | "maximum" => found.push(format!("{path}: {value} is beyond {rule}")),
            "required" => {
                for field in rule.as_array().unwrap() {
                    if value.is_object() && value.get(field.as_str().unwrap()).is_none() {
                        found.push(format!("{path}: {field} is missing"));
                    }
                }
            }
            "properties" => {
                for (field, inner) in value.as_object().into_iter().flatten() {
                    match rule.get(field) {
                        Some(rule) => found.extend(faults(inner, rule, root, &format!("{path}/{field}"))),
                        None => found.push(format!("{path}: {field} is unknown")),
                    }
                }
            }
            "items" => {
                for inner in value.as_array().into_iter().flatten() {
                    found.extend(faults(inner, rule, root, &format!("{path}[]")));
                }
            }
            unknown => found.push(format!("schema: {unknown}")),
        }
    }
    found
}

fn has_type(value: &Value, names: &Value) -> bool {
    let is = |name: &Value| match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => false,
    };
    names.as_array().map_or_else(|| is(names), |names| names.iter().any(is))
}

fn schema_faults(value: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let kind = value["type"].as_str().unwrap_or_default();
    // By the type alone the faults are told apart better than by `oneOf`, which is checked besides.
    let mut found = faults(value, &schema["$defs"][kind], &schema, "");
    if found.is_empty() {
        found = faults(value, &schema, &schema, "");
    }
    found
}

/// The line as text, after it was checked to be one valid line of printable ASCII.
fn valid(line: Vec<u8>) -> String {
    let text = String::from_utf8(line).unwrap();
    assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(schema_faults(&value), [""; 0], "{text}");
    text
}

#[test]
fn an_attempt_is_one_line() {
    let mut record = of(&Event { rule: 2, reason: Reason::DenyRule as u8, ..denied() });
    let exe = Executable { path: "/usr/bin/python3".to_owned(), deleted: false };
    record.process.as_mut().unwrap().exe = Some(exe);
    record.cgroup_path = Some("/egress/run-1".to_owned());
    assert_snapshot!(valid(attempt_line(&record)), @r#"{"v":1,"type":"attempt","time":"2026-11-22T12:34:56.789000000Z","verdict":"deny","hook":"connect","reason":"deny-rule","direction":"out","protocol":"tcp","protocol_number":6,"socket_type":"stream","address":"203.0.113.66","port":443,"name":"collect.attacker.example","names":[],"literal":true,"subject":null,"rule":{"id":2,"origin":"policies/p.yaml:9","text":"deny cidr 203.0.113.0/24"},"process":{"pid":4242,"tid":4243,"uid":1000,"gid":1001,"comm":"python3","exe":"/usr/bin/python3","exe_deleted":false},"scope":4711,"cgroup":4711,"cgroup_path":"/egress/run-1","cookie":99,"remedy":null}"#);
    assert_snapshot!(valid(attempt_line(&of(&denied()))), @r#"{"v":1,"type":"attempt","time":"2026-11-22T12:34:56.789000000Z","verdict":"deny","hook":"connect","reason":"no-rule","direction":"out","protocol":"tcp","protocol_number":6,"socket_type":"stream","address":"203.0.113.66","port":443,"name":"collect.attacker.example","names":[],"literal":true,"subject":null,"rule":null,"process":{"pid":4242,"tid":4243,"uid":1000,"gid":1001,"comm":"python3","exe":null,"exe_deleted":false},"scope":4711,"cgroup":4711,"cgroup_path":null,"cookie":99,"remedy":"- { host: collect.attacker.example, ports: [443] }"}"#);
}

#[test]
fn what_is_unknown_is_null() {
    let nobody = Event { owner: Owner::default(), cookie: 0, ..raw_socket() };
    assert_snapshot!(valid(attempt_line(&of(&nobody))), @r#"{"v":1,"type":"attempt","time":"2026-11-22T12:34:56.789000000Z","verdict":"deny","hook":"create","reason":"socket-type","direction":"out","protocol":"icmp","protocol_number":1,"socket_type":"raw","address":null,"port":null,"name":null,"names":[],"literal":null,"subject":null,"rule":null,"process":null,"scope":4711,"cgroup":4711,"cgroup_path":null,"cookie":null,"remedy":null}"#);
}

#[test]
fn every_verdict_hook_and_reason_is_in_the_schema() {
    for verdict in Verdict::ALL {
        for hook in Hook::ALL {
            for reason in Reason::ALL {
                let event =
                    Event { verdict: verdict as u8, hook: hook as u8, reason: reason as u8, ..denied() };
                valid(attempt_line(&of(&event)));
            }
        }
    }
    for socket_type in 0..=11 {
        for protocol in (0..=256).chain([262, u16::MAX]) {
            valid(attempt_line(&of(&Event { socket_type, protocol, ..denied() })));
        }
    }
}

#[test]
fn what_is_no_destination_is_one_line() {
    assert_snapshot!(valid(attempt_line(&of(&inbound()))), @r#"{"v":1,"type":"attempt","time":"2026-11-22T12:34:56.789000000Z","verdict":"deny","hook":"ingress","reason":"inbound","direction":"in","protocol":"tcp","protocol_number":6,"socket_type":"stream","address":"203.0.113.66","port":8080,"name":"collect.attacker.example","names":[],"literal":true,"subject":null,"rule":null,"process":{"pid":4242,"tid":4243,"uid":1000,"gid":1001,"comm":"python3","exe":null,"exe_deleted":false},"scope":4711,"cgroup":4711,"cgroup_path":null,"cookie":99,"remedy":"inbound: [8080]"}"#);
    assert_snapshot!(valid(attempt_line(&of(&socket_option()))), @r#"{"v":1,"type":"attempt","time":"2026-11-22T12:34:56.789000000Z","verdict":"deny","hook":"setsockopt","reason":"socket-option","direction":"out","protocol":null,"protocol_number":null,"socket_type":"stream","address":null,"port":null,"name":null,"names":[],"literal":null,"subject":"IPV6_RTHDR","rule":null,"process":{"pid":4242,"tid":4243,"uid":1000,"gid":1001,"comm":"python3","exe":null,"exe_deleted":false},"scope":4711,"cgroup":4711,"cgroup_path":null,"cookie":99,"remedy":null}"#);
    let unix = escape(Hook::Unix, Reason::Unix, "@dbus");
    assert_snapshot!(valid(attempt_line(&of_escape(&unix))), @r#"{"v":1,"type":"attempt","time":"2026-11-22T12:34:56.789000000Z","verdict":"deny","hook":"unix","reason":"unix","direction":"out","protocol":null,"protocol_number":null,"socket_type":null,"address":null,"port":null,"name":null,"names":[],"literal":null,"subject":"@dbus","rule":null,"process":{"pid":4242,"tid":4243,"uid":1000,"gid":1001,"comm":"python3","exe":null,"exe_deleted":false},"scope":4711,"cgroup":4711,"cgroup_path":null,"cookie":null,"remedy":"- unix: \"@dbus\""}"#);
}

#[test]
fn an_escape_is_one_line() {
    let ptrace =
        egress_common::Escape { target: 77, number: 101, ..escape(Hook::Lsm, Reason::Process, "ptrace") };
    assert_snapshot!(valid(attempt_line(&of_escape(&ptrace))), @r#"{"v":1,"type":"escape","time":"2026-11-22T12:34:56.789000000Z","verdict":"deny","hook":"lsm","reason":"process","what":"ptrace (process 77 outside)","subject":"ptrace","number":101,"target":77,"process":{"pid":4242,"tid":4243,"uid":1000,"gid":1001,"comm":"python3","exe":null,"exe_deleted":false},"scope":4711,"cgroup":4711,"cgroup_path":null}"#);
    assert_snapshot!(valid(attempt_line(&of(&device()))), @r#"{"v":1,"type":"escape","time":"2026-11-22T12:34:56.789000000Z","verdict":"deny","hook":"device","reason":"device","what":"device /dev/net/tun","subject":"/dev/net/tun","number":null,"target":null,"process":{"pid":4242,"tid":4243,"uid":1000,"gid":1001,"comm":"python3","exe":null,"exe_deleted":false},"scope":4711,"cgroup":4711,"cgroup_path":null}"#);
    for hook in Hook::ALL {
        for reason in Reason::ALL {
            for verdict in Verdict::ALL {
                let escape =
                    egress_common::Escape { verdict: verdict as u8, ..escape(hook, reason, "\u{1b}[2J") };
                let line = valid(attempt_line(&of_escape(&escape)));
                assert_eq!(line.contains(r#""type":"escape""#), reason.is_escape());
            }
        }
    }
}

#[test]
fn a_question_is_one_line() {
    assert_snapshot!(valid(question_line(&question(&refused()))), @r#"{"v":1,"type":"dns","time":"2026-11-22T12:34:56.789000000Z","verdict":"deny","reason":"not-listed","name":"collect.attacker.example","query_type":"A","query_type_number":1,"class":1,"protocol":"udp","server":"192.0.2.53","rcode":"NXDOMAIN","rcode_number":3,"addresses":[],"dropped":[],"aliases":[],"ttl":null,"rule":null,"process":{"pid":4242,"tid":4243,"uid":1000,"gid":1001,"comm":"python3","exe":null,"exe_deleted":false},"cgroup":4711,"cgroup_path":null,"cookie":98,"remedy":"- { host: collect.attacker.example, ports: [443] }","setting":null}"#);
    let mut whole = question(&Told { transport: egress_common::Transport::Tcp, ..answered() });
    whole.cgroup_path = Some("/egress/run-1".to_owned());
    assert_snapshot!(valid(question_line(&whole)), @r#"{"v":1,"type":"dns","time":"2026-11-22T12:34:56.789000000Z","verdict":"allow","reason":"listed","name":"db.example","query_type":"A","query_type_number":1,"class":1,"protocol":"tcp","server":"192.0.2.53","rcode":"NOERROR","rcode_number":0,"addresses":["203.0.113.10"],"dropped":[{"address":"10.0.0.1","why":"a private address"}],"aliases":["db.cdn.example"],"ttl":60,"rule":{"id":1,"origin":"policies/p.yaml:4","text":"host db.example ports 5432/any"},"process":{"pid":4242,"tid":4243,"uid":1000,"gid":1001,"comm":"python3","exe":null,"exe_deleted":false},"cgroup":4711,"cgroup_path":"/egress/run-1","cookie":98,"remedy":"- { host: db.example, ports: [5432], protocol: any, private: true }","setting":null}"#);
}

#[test]
fn every_question_is_in_the_schema() {
    for verdict in Verdict::ALL {
        for reason in DnsReason::ALL {
            for rcode in (0..=17).chain([u16::MAX]) {
                valid(question_line(&question(&Told { verdict, reason, rcode, ..answered() })));
            }
        }
    }
    let mut tally = Tally::default();
    for reason in DnsReason::ALL {
        tally.question(&Told { reason, ..refused() });
    }
    valid(summary_line(&tally.summary(&Counters::ZERO), OFFSET));
    let asker = egress_common::Asker::default();
    for name in ["", "\\000\\255.x", "\u{1b}[2J\n\"}{", "\u{202e}"] {
        let line = valid(question_line(&question(&Told { name: name.to_owned(), asker, ..refused() })));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["name"], name);
    }
}

#[test]
fn the_start_is_one_line() {
    let start = Start {
        egress: "0.1.0",
        policy: Some("doc-summarizer"),
        files: &["policies/p.yaml".to_owned()],
        digest: None,
        audit: false,
        scope: 4711,
        cgroup_path: "/egress/run-1",
        command: &["sh".to_owned(), "-c".to_owned(), "echo \u{202e}\u{1f980}\u{9b}\u{7f}\x1b\"\n".to_owned()],
        lifted: &["userns"],
        open: &["unix-path"],
    };
    assert_snapshot!(valid(start_line(&start, OFFSET)), @r#"{"v":1,"type":"start","time":"2026-11-22T12:34:56.789000000Z","egress":"0.1.0","policy":"doc-summarizer","files":["policies/p.yaml"],"digest":null,"mode":"enforce","scope":4711,"cgroup_path":"/egress/run-1","command":["sh","-c","echo \u202e\ud83e\udd80\u009b\u007f\u001b\"\n"],"lifted":["userns"],"open":["unix-path"]}"#);
    let text = valid(start_line(&Start { audit: true, policy: None, digest: Some("x"), ..start }, OFFSET));
    assert!(text.contains(r#""mode":"audit""#));
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["command"][2], start.command[2].as_str());
}

#[test]
fn names_are_one_line() {
    let name = || "api.example".to_owned();
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let outcomes = [
        Outcome::Opened {
            name: name(),
            addresses: vec![address],
            ttl: Duration::from_secs(60),
            missing: Some(ResolveError::TimedOut),
        },
        Outcome::Failed { name: name(), error: ResolveError::NotFound, open_for: Duration::ZERO },
        Outcome::Refused { name: name(), address, why: "why" },
        Outcome::Full { name: name(), open_for: Duration::from_secs(75) },
        Outcome::Unwritable { name: name(), error: "no".to_owned(), open_for: Duration::ZERO },
    ];
    assert_snapshot!(valid(names_line(&outcomes, OFFSET)), @r#"{"v":1,"type":"names","time":"2026-11-22T12:34:56.789000000Z","outcomes":[{"name":"api.example","outcome":"opened","addresses":["192.0.2.1"],"ttl":60,"open_for":60,"error":"no name server answered in time"},{"name":"api.example","outcome":"failed","addresses":[],"ttl":null,"open_for":0,"error":"the name does not exist"},{"name":"api.example","outcome":"refused","addresses":["192.0.2.1"],"ttl":null,"open_for":0,"error":"why"},{"name":"api.example","outcome":"full","addresses":[],"ttl":null,"open_for":75,"error":"the table of permits is full"},{"name":"api.example","outcome":"unwritable","addresses":[],"ttl":null,"open_for":0,"error":"no"}]}"#);
}

#[test]
fn the_summary_is_one_line() {
    let mut tally = Tally::default();
    tally.add(&of(&denied()));
    tally.question(&refused());
    tally.question(&answered());
    tally.lost(6);
    let mut counters = Counters::ZERO;
    counters.attempts[0][1][1] = 5;
    counters.attempts[1][3][12] = 7;
    counters.fate[0].emitted = 1;
    counters.fate[0].suppressed = 3;
    counters.fate[0].dropped = 1;
    counters.fate[1].suppressed = 7;
    assert_snapshot!(valid(summary_line(&tally.summary(&counters), OFFSET)), @r#"{"v":1,"type":"summary","time":"2026-11-22T12:34:56.789000000Z","verdicts":[{"verdict":"deny","attempts":5,"emitted":1,"suppressed":3,"dropped":1},{"verdict":"allow","attempts":7,"emitted":0,"suppressed":7,"dropped":0},{"verdict":"audit","attempts":0,"emitted":0,"suppressed":0,"dropped":0}],"attempts":[{"verdict":"deny","hook":"connect","reason":"no-rule","count":5},{"verdict":"allow","hook":"packet","reason":"rule","count":7}],"denied":[{"destination":"tcp collect.attacker.example (203.0.113.66:443)","count":1}],"denied_others":0,"undecodable":0,"supervised":[],"escapes":[],"escapes_others":0,"questions":[{"verdict":"deny","reason":"not-listed","count":1},{"verdict":"allow","reason":"listed","count":1}],"refused_names":[{"name":"collect.attacker.example","count":1}],"refused_names_others":0,"questions_lost":6}"#);
}

#[test]
fn the_check_of_the_schema_can_fail() {
    let good: Value = serde_json::from_slice(&attempt_line(&of(&denied()))).unwrap();
    let asked: Value = serde_json::from_slice(&question_line(&question(&refused()))).unwrap();
    for field in asked.as_object().unwrap().keys() {
        let mut bad = asked.clone();
        bad.as_object_mut().unwrap().remove(field);
        assert!(!schema_faults(&bad).is_empty(), "without {field}");
    }
    for (field, value) in [
        ("v", Value::from(2)),
        ("type", Value::from("event")),
        ("verdict", Value::from("denied")),
        ("port", Value::from(65536)),
        ("port", Value::from("443")),
        ("process", Value::from(1)),
        ("time", Value::Null),
        ("unknown", Value::Null),
    ] {
        let mut bad = good.clone();
        bad[field] = value.clone();
        assert!(!schema_faults(&bad).is_empty(), "{field} = {value}");
    }
    for field in good.as_object().unwrap().keys() {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(field);
        assert!(!schema_faults(&bad).is_empty(), "without {field}");
    }
}

#[test]
fn nothing_to_say_is_no_line() {
    let mut sink = JsonSink::new(Vec::new());
    sink.names(&[], OFFSET);
    assert!(sink.get_ref().is_empty());
    sink.attempt(&of(&denied()));
    sink.attempt(&of(&raw_socket()));
    assert_eq!(sink.get_ref().iter().filter(|byte| **byte == b'\n').count(), 2);
}
