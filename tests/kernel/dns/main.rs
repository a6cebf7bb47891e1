//! DNS of a scope, end to end: what clients hear, what the kernel opens, and that nothing else reaches a server.
//!
//! Judged at the lab's DNS server and on the wire. Every refusal has a control: the same without `egress` gets out.

mod filter;
mod leak;
mod namespace;
mod permit;
mod redirect;
mod rude;
mod supervisor;

use egress_tests::{
    Names,
    names::Seen,
    run::{Ended, Run},
};
use serde_json::Value;

/// What the lab's server knows. Labels of what must never leave begin with `secret`.
const ZONE: &str = "
    api.listed.example        60 A     203.0.113.10
    api.listed.example        60 AAAA  2001:db8:10::10
    api.listed.example        60 TXT   some words
    api.listed.example        60 MX    10 mail.listed.example
    api.listed.example        60 HTTPS 1 . alpn=h2 ipv4hint=203.0.113.66 ech=keys ipv6hint=2001:db8:66::66
    secret.refused.example    60 A     203.0.113.66
    secret.refused.example    60 AAAA  2001:db8:66::66
    alias.listed.example      60 CNAME middle.cdn.example
    middle.cdn.example        60 CNAME edge.cdn.example
    edge.cdn.example          60 A     203.0.113.10
    forbidden-alias.listed.example 60 CNAME secret.denied.example
    secret.denied.example     60 A     203.0.113.66
    one.wild.example          60 A     203.0.113.10
    deep.er.wild.example      60 A     203.0.113.10
    wild.example              60 A     203.0.113.66
    secretwild.example        60 A     203.0.113.66
    secret.evilwild.example   60 A     203.0.113.66
    wild.example.secret.test  60 A     203.0.113.66
    cut.listed.example        60 A     203.0.113.10
    cut.listed.example        ! truncate
    zero.listed.example       0  A     203.0.113.11
    second.listed.example     1  A     203.0.113.12
    five.listed.example       5  A     203.0.113.13
    rotating.listed.example   0  POOL  2001:db8:500:: 500 15
    slow.listed.example       60 A     203.0.113.14
    slow.listed.example       ! delay 400
    broken.listed.example     ! fail 2
    host.listed.example       60 A     127.0.0.1
    private.listed.example    60 A     10.1.2.3
    metadata.listed.example   60 A     169.254.169.254
    mapped.listed.example     60 AAAA  ::ffff:10.1.2.3
    wrapped.listed.example    60 AAAA  64:ff9b::a9fe:a9fe
    multicast.listed.example  60 A     224.0.0.251
    mixed.listed.example      60 A     10.1.2.3
    mixed.listed.example      60 A     203.0.113.10
";

/// Allows the names below `listed.example` that the zone has, one by one, and all below `wild.example`.
const POLICY: &str = "version: 1
name: dns
allow:
  - { host: api.listed.example, ports: [443] }
  - { host: alias.listed.example, ports: [443] }
  - { host: forbidden-alias.listed.example, ports: [443] }
  - { host: cut.listed.example, ports: [443] }
  - { host: zero.listed.example, ports: [443] }
  - { host: second.listed.example, ports: [443] }
  - { host: five.listed.example, ports: [443] }
  - { host: rotating.listed.example, ports: [443] }
  - { host: slow.listed.example, ports: [443] }
  - { host: broken.listed.example, ports: [443] }
  - { host: host.listed.example, ports: [443] }
  - { host: private.listed.example, ports: [443] }
  - { host: metadata.listed.example, ports: [443] }
  - { host: mapped.listed.example, ports: [443] }
  - { host: wrapped.listed.example, ports: [443] }
  - { host: multicast.listed.example, ports: [443] }
  - { host: mixed.listed.example, ports: [443] }
  - { host: '*.wild.example', ports: [443] }
deny:
  - { host: secret.denied.example }
dns:
  upstream: [203.0.113.53]
";

const SERVER: &str = "203.0.113.53:53";

fn names() -> Names {
    Names::new(ZONE)
}

/// Runs steps of the contained program under a policy; what became of it, and what reached the far side.
fn enforced(names: &Names, run: &Run<'_>, steps: &[&str]) -> (Ended, Seen) {
    names.forget();
    let ended = run.attempt(steps);
    assert_eq!(ended.code(), 0, "{steps:?}: {}", ended.stderr);
    (ended, names.seen())
}

/// Runs the same steps without `egress`; what the program printed, and what reached the far side.
fn free(names: &Names, run: &Run<'_>, steps: &[&str]) -> (String, Seen) {
    names.forget();
    let program = run.program();
    let command: Vec<&str> = std::iter::once(program.as_str()).chain(steps.iter().copied()).collect();
    let output = run.free(&command);
    assert!(output.status.success(), "{steps:?}: {}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8_lossy(&output.stdout).into_owned(), names.seen())
}

/// The one question of this name that was told.
fn told<'a>(ended: &'a Ended, name: &str) -> &'a Value {
    let found: Vec<_> = ended.questions().into_iter().filter(|event| event["name"] == name).collect();
    assert!(!found.is_empty(), "{name}: no event: {:?} {}", ended.events, ended.stderr);
    found[0]
}

fn words(steps: &[String]) -> Vec<&str> {
    steps.iter().map(String::as_str).collect()
}

/// Fails with all faults at once.
fn report(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
