//! The JSON schema against the parser: what one accepts the other accepts, but for rules whose meaning is at fault.

use std::{fs, path::Path};

use egress::policy;
use serde_json::{Map, Value};

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/schema.json");

fn schema() -> Value {
    serde_json::from_str(&fs::read_to_string(SCHEMA).unwrap()).unwrap()
}

/// Whether a value is valid. Knows the keywords that the schema uses; one that it does not know fails the test.
fn valid(root: &Value, schema: &Value, value: &Value) -> bool {
    let schema = schema.as_object().expect("a schema is an object");
    schema.iter().all(|(keyword, argument)| match keyword.as_str() {
        "$schema" | "$defs" | "title" | "description" | "default" => true,
        "$ref" => valid(root, root.pointer(&argument.as_str().unwrap()[1..]).unwrap(), value),
        "oneOf" => argument.as_array().unwrap().iter().filter(|one| valid(root, one, value)).count() == 1,
        "const" => value == argument,
        "enum" => argument.as_array().unwrap().contains(value),
        "type" => is_type(value, argument.as_str().unwrap()),
        "properties" => value.as_object().is_none_or(|fields| {
            let known = argument.as_object().unwrap();
            fields.iter().all(|(key, value)| known.get(key).is_none_or(|one| valid(root, one, value)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|fields| only_known(schema, argument, fields)),
        "required" => value.as_object().is_none_or(|fields| {
            argument.as_array().unwrap().iter().all(|key| fields.contains_key(key.as_str().unwrap()))
        }),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| valid(root, argument, item))),
        "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= argument.as_u64().unwrap()),
        "minLength" => {
            value.as_str().is_none_or(|text| text.chars().count() as u64 >= argument.as_u64().unwrap())
        }
        "maxLength" => {
            value.as_str().is_none_or(|text| text.chars().count() as u64 <= argument.as_u64().unwrap())
        }
        "pattern" => value
            .as_str()
            .is_none_or(|text| regex_lite::Regex::new(argument.as_str().unwrap()).unwrap().is_match(text)),
        "minimum" => value.as_f64().is_none_or(|number| number >= argument.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|number| number <= argument.as_f64().unwrap()),
        other => panic!("keyword {other} is not known to this test"),
    })
}

fn is_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("type {other} is not known to this test"),
    }
}

fn only_known(schema: &Map<String, Value>, argument: &Value, fields: &Map<String, Value>) -> bool {
    assert_eq!(argument, &Value::Bool(false));
    let known = schema["properties"].as_object().unwrap();
    fields.keys().all(|key| known.contains_key(key))
}

fn schema_accepts(text: &str) -> bool {
    let schema = schema();
    let value: Value = serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error} in\n{text}"));
    valid(&schema, &schema, &value)
}

fn parser_accepts(text: &str) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.yaml");
    fs::write(directory.path().join("other.yaml"), "version: 1\n").unwrap();
    fs::write(&path, text).unwrap();
    policy::load(&path, &[]).map(drop).map_err(|errors| errors.render(false))
}

/// A policy of a head and one more key.
fn policy_with(lines: &str) -> String {
    format!("version: 1\nname: p\n{lines}\n")
}

/// Written after `allow: [` and `deny: [`; what is good in either.
const RULES: [&str; 25] = [
    "{cidr: 10.0.0.0/8}",
    "{cidr: 10.0.0.0/8, ports: [1]}",
    "{cidr: 10.0.0.0/8, ports: [65535]}",
    "{cidr: 10.0.0.0/8, ports: [8000-8100]}",
    "{cidr: 10.0.0.0/8, ports: [\"1-65535\", 7]}",
    "{cidr: 10.0.0.0/8, protocol: tcp}",
    "{cidr: 10.0.0.0/8, protocol: udp, ports: [52-53]}",
    "{cidr: 10.0.0.0/8, protocol: any}",
    "{cidr: 10.0.0.0/8, protocol: icmp}",
    "{unix: /run/a.sock}",
    "{unix: /run/.s.PGSQL.5432}",
    "{unix: /run/..a/...}",
    "{unix: /run/a*}",
    "{unix: /run/*}",
    "{unix: /*}",
    "{unix: \"@a/../b\"}",
    "{unix: \"@*\"}",
    "{cidr: 0.0.0.0/0}",
    "{cidr: \"::/0\"}",
    "{cidr: \"2001:db8::/32\"}",
    "{cidr: \"2001:DB8::1/128\"}",
    "{host: a.example}",
    "{host: A.Example.}",
    "{host: \"*.a.example\"}",
    "{host: _srv.xn--bcher-kva.example}",
];

/// Good under `allow:` and bad under `deny:`.
const ALLOW_RULES: [&str; 8] = [
    "{host: a.example, ports: [443]}",
    "{host: a.example, protocol: udp}",
    "{host: a.example, private: true}",
    "{host: a.example, private: false}",
    "{host: \"*.a.example\", broad: true}",
    "{host: \"*.a.example\", broad: false, private: true, ports: [1-2], protocol: any}",
    "{host: a.example, protocol: icmp, private: true}",
    "{host: \"*.a.example\", protocol: icmp, broad: true}",
];

/// Bad in either.
const BAD_RULES: [&str; 64] = [
    "{}",
    "null",
    "a.example",
    "[a.example]",
    "{host: a.example, cidr: 10.0.0.0/8}",
    "{host: a.example, unix: /a}",
    "{hosts: a.example}",
    "{ports: [443]}",
    "{host: 192.0.2.1}",
    "{host: 1.5}",
    "{host: 15}",
    "{host: true}",
    "{host: null}",
    "{host: [a.example]}",
    "{host: \"\"}",
    "{host: .}",
    "{host: a..example}",
    "{host: -a.example}",
    "{host: a-.example}",
    "{host: bücher.example}",
    "{host: \"*\"}",
    "{host: \"a.*.example\"}",
    "{host: \"*a.example\"}",
    "{host: \"*.*.example\"}",
    "{host: \"a.example:443\"}",
    "{host: \"https://a.example\"}",
    "{host: \"a b.example\"}",
    "{host: a.example, broad: true}",
    "{cidr: 10.0.0.0}",
    "{cidr: 10.0.0.0/33}",
    "{cidr: \"2001:db8::/129\"}",
    "{cidr: a.example}",
    "{cidr: 10.0.0.0/8, ports: []}",
    "{cidr: 10.0.0.0/8, ports: 443}",
    "{cidr: 10.0.0.0/8, ports: [0]}",
    "{cidr: 10.0.0.0/8, ports: [65536]}",
    "{cidr: 10.0.0.0/8, ports: [-1]}",
    "{cidr: 10.0.0.0/8, ports: [\"443\"]}",
    "{cidr: 10.0.0.0/8, ports: [1.5]}",
    "{cidr: 10.0.0.0/8, protocol: icmp, ports: [80]}",
    "{host: a.example, protocol: icmp, ports: [80]}",
    "{cidr: 10.0.0.0/8, protocol: sctp}",
    "{cidr: 10.0.0.0/8, protocol: mptcp}",
    "{cidr: 10.0.0.0/8, protocol: ICMP}",
    "{unix: /a, ports: [80]}",
    "{unix: /a, protocol: tcp}",
    "{unix: [/a]}",
    "{unix: a}",
    "{unix: \"\"}",
    "{unix: /}",
    "{unix: /run/}",
    "{unix: \"@\"}",
    "{unix: \"*\"}",
    "{unix: /run/*/a}",
    "{unix: /run/**}",
    "{unix: \"@*a\"}",
    "{unix: //a}",
    "{unix: /run/./a}",
    "{unix: /run/..}",
    "{unix: /../*}",
    "{unix: \"/a\\0\"}",
    "{unix: \"@a\\0b\"}",
    "{cidr: 10.0.0.0/8, private: true}",
    "{unix: run/a.sock}",
];

const GOOD_SETTINGS: [&str; 36] = [
    "",
    "description: a text",
    "mode: enforce",
    "mode: audit",
    "include: []",
    "include: [other.yaml]",
    "allow: []",
    "deny: []",
    "loopback: own",
    "loopback: any",
    "loopback: none",
    "loopback: [1, 8000-8100]",
    "unix: own",
    "unix: any",
    "unix: none",
    "inbound: deny",
    "inbound: allow",
    "inbound: [8080]",
    "require: kernel",
    "require: full",
    "escape: report",
    "escape: kill",
    "permit: []",
    "permit: [io_uring, userns, foreign-abi, unix-sockets]",
    "dns: {}",
    "dns: {upstream: system, types: [A, AAAA]}",
    "dns: {upstream: [192.0.2.53, \"192.0.2.53:5353\"]}",
    "dns: {upstream: [\"2001:db8::53\", \"[2001:db8::53]:53\"]}",
    "dns: {types: [CAA, HINFO]}",
    "dns: {refusal: nxdomain, ech: strip, eager: false}",
    "dns: {refusal: refused, ech: keep, eager: true}",
    "dns: {wildcard: {}}",
    "dns: {wildcard: {label: 1, name: 1, new-names: 0}}",
    "dns: {wildcard: {label: 63, name: 253, new-names: 1000000}}",
    "dns: {wildcard: {new-names: 1}}",
    "loopback: [53-54]",
];

const BAD_SETTINGS: [&str; 49] = [
    "colour: red",
    "description: 7",
    "description: null",
    "mode: off",
    "mode: [audit]",
    "include: other.yaml",
    "include: [\"\"]",
    "include: [7]",
    "allow: null",
    "allow: {}",
    "allow: all",
    "deny: null",
    "loopback: all",
    "loopback: []",
    "loopback: 8080",
    "loopback: [0]",
    "unix: [a]",
    "unix: deny",
    "inbound: none",
    "inbound: []",
    "require: all",
    "require: [full]",
    "escape: true",
    "escape: stop",
    "permit: io_uring",
    "permit: [uring]",
    "permit: [7]",
    "dns: system",
    "dns: {upstream: []}",
    "dns: {upstream: dns.example}",
    "dns: {upstream: [dns.example]}",
    "dns: {types: []}",
    "dns: {types: [a]}",
    "dns: {types: [ANY]}",
    "dns: {types: [A, PTR]}",
    "dns: {types: [\"TYPE1\"]}",
    "dns: {refusal: NXDOMAIN}",
    "dns: {refusal: null}",
    "dns: {ech: true}",
    "dns: {eager: \"yes\"}",
    "dns: {wildcard: 40}",
    "dns: {wildcard: {labels: 40}}",
    "dns: {wildcard: {label: 0}}",
    "dns: {wildcard: {label: 64}}",
    "dns: {wildcard: {name: 0}}",
    "dns: {wildcard: {name: 254}}",
    "dns: {wildcard: {new-names: -1}}",
    "dns: {wildcard: {new-names: 1000001}}",
    "dns: {wildcard: {new-names: 1.5}}",
];

const BAD_HEADS: [&str; 12] = [
    "name: p",
    "version: 1",
    "version: 2\nname: p",
    "version: 0\nname: p",
    "version: \"1\"\nname: p",
    "version: 1\nname: \"\"",
    "version: 1\nname: 7",
    "version: 1\nname: a b",
    "version: 1\nname: -a",
    "version: 1\nname: null",
    "[]",
    "text",
];

/// What only the parser can see: the meaning is at fault.
const BAD_MEANING: [&str; 17] = [
    "allow: [{cidr: 10.0.0.1/8}]",
    "allow: [{cidr: \"2001:db8::1/32\"}]",
    "allow: [{cidr: \"::ffff:10.0.0.0/104\"}]",
    "allow: [{cidr: \"64:ff9b::/96\"}]",
    "allow: [{cidr: 10.0.0.0/8, ports: [90-80]}]",
    "allow: [{cidr: 10.0.0.0/8, ports: [1-65536]}]",
    "allow: [{host: a.0x7f}]",
    "allow: [{cidr: 10.0.0.0/8}]\ndeny: [{cidr: 10.0.0.0/8}]",
    "allow: [{host: a.example}]\ndeny: [{host: a.example}]",
    "allow: [{cidr: 10.0.0.0/8, ports: [53, 853]}]",
    "deny: [{cidr: 10.0.0.0/8, ports: [53]}]",
    "allow: [{unix: /run/a}]\ndeny: [{unix: /run/*}]",
    "allow: [{cidr: 10.0.0.0/8, protocol: icmp}]\ndeny: [{cidr: 0.0.0.0/0}]",
    "loopback: [53]",
    "include: [missing.yaml]",
    "include: [policy.yaml]",
    "dns: {upstream: [\"1.2.3\"]}",
];

fn both_accept(text: &str) {
    parser_accepts(text).unwrap_or_else(|errors| panic!("the parser refuses\n{text}\n{errors}"));
    assert!(schema_accepts(text), "the schema refuses\n{text}");
}

fn both_refuse(text: &str) {
    assert!(parser_accepts(text).is_err(), "the parser accepts\n{text}");
    assert!(!schema_accepts(text), "the schema accepts\n{text}");
}

#[test]
fn both_accept_what_is_good() {
    for setting in GOOD_SETTINGS {
        both_accept(&policy_with(setting));
    }
    for rule in RULES {
        both_accept(&policy_with(&format!("allow: [{rule}]")));
        both_accept(&policy_with(&format!("deny: [{rule}]")));
    }
    for rule in ALLOW_RULES {
        both_accept(&policy_with(&format!("allow: [{rule}]")));
    }
}

#[test]
fn both_refuse_what_is_bad() {
    for head in BAD_HEADS {
        both_refuse(&format!("{head}\n"));
    }
    for setting in BAD_SETTINGS {
        both_refuse(&policy_with(setting));
    }
    for rule in BAD_RULES {
        both_refuse(&policy_with(&format!("allow: [{rule}]")));
        both_refuse(&policy_with(&format!("deny: [{rule}]")));
    }
    for rule in ALLOW_RULES {
        both_refuse(&policy_with(&format!("deny: [{rule}]")));
    }
}

#[test]
fn names_of_unix_sockets_end_where_they_end() {
    // Mutation seen to fail here: 108 for 107 in the parser. The schema counts what stands before and behind them too.
    let longest = "a".repeat(107);
    for (name, good) in [
        (format!("/{}", &longest[1..]), true),
        (format!("/{}*", &longest[1..]), true),
        (format!("/{longest}"), false),
        (format!("@{longest}*"), true),
        (format!("@{longest}a"), false),
    ] {
        let text = policy_with(&format!("allow: [{{unix: \"{name}\"}}]"));
        assert_eq!(parser_accepts(&text).is_ok(), good, "{text}");
    }
    both_refuse(&policy_with(&format!("allow: [{{unix: \"@{longest}a*\"}}]")));
}

#[test]
fn restrictions_are_those_of_the_program() {
    let schema = schema();
    let listed: Vec<&str> = schema["properties"]["permit"]["items"]["enum"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    assert_eq!(listed, policy::Restriction::ALL.map(policy::Restriction::name));
}

#[test]
fn the_parser_alone_sees_meaning() {
    for lines in BAD_MEANING {
        let text = policy_with(lines);
        assert!(parser_accepts(&text).is_err(), "the parser accepts\n{text}");
        assert!(schema_accepts(&text), "the schema sees it: move it up\n{text}");
    }
}

#[test]
fn shipped_policies_are_valid_under_the_schema() {
    let policies = Path::new(SCHEMA).parent().unwrap();
    let mut seen = 0;
    for directory in [policies.to_path_buf(), policies.join("presets")] {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                assert!(schema_accepts(&fs::read_to_string(&path).unwrap()), "{}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 6, "only {seen} policies are shipped");
}
