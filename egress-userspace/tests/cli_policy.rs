//! `egress policy` as people and programs meet it: what is printed where, and the exit code.

use std::{path::Path, process::Command};

/// Runs the binary in the repository's root. Gives exit code, output and errors.
fn egress(arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_egress")).args(arguments).current_dir(root).output().unwrap();
    let mut text = format!("exit code {}\n", output.status.code().unwrap());
    for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !bytes.is_empty() {
            text.push_str(&format!("--- {name}\n{}", String::from_utf8_lossy(bytes)));
        }
    }
    text
}

#[test]
fn check_says_what_holds_and_what_opens_more_than_it_seems_to() {
    let text =
        egress(&["policy", "check", "policies/internal-services.yaml", "policies/presets/docker.yaml"]);
    insta::assert_snapshot!(text, @"
    exit code 0
    --- stdout
    policies/internal-services.yaml: ok: internal-services, 10 rules
      loopback 5432, unix own, inbound 8080, require kernel, escape report
    policies/presets/docker.yaml: ok: docker, 2 rules
      loopback own, unix own, inbound deny, require kernel, escape report
      note: policies/presets/docker.yaml:10: `unix /run/docker.sock` is a way out of the scope: Docker starts containers outside for whoever asks
      note: policies/presets/docker.yaml:12: `unix /run/user/1000/docker.sock` is a way out of the scope: Docker starts containers outside for whoever asks
    ");
}

#[test]
fn check_of_several_files_fails_if_one_does() {
    let directory = tempfile::tempdir().unwrap();
    let bad = directory.path().join("bad.yaml");
    std::fs::write(&bad, "version: 1\nname: p\nallow:\n  - host: a.example\n    ports: [0]\n").unwrap();
    let bad = bad.to_str().unwrap();
    let text = egress(&["policy", "check", "policies/deny-all.yaml", bad]).replace(bad, "bad.yaml");
    insta::assert_snapshot!(text, @"
    exit code 1
    --- stdout
    policies/deny-all.yaml: ok: deny-all, 0 rules
      loopback own, unix own, inbound deny, require kernel, escape report
    --- stderr
    error: `0` is no port: port 0 is never sent to
     --> bad.yaml:5:13
      |
    5 |     ports: [0]
      |             ^ expected a port from 1 to 65535 or a range such as 8000-8100

    1 error
    ");
    let json = egress(&["policy", "check", "--output", "json", bad]).replace(bad, "bad.yaml");
    insta::assert_snapshot!(json, @r#"
    exit code 1
    --- stdout
    {
      "files": [
        {
          "errors": [
            {
              "column": 13,
              "expected": "expected a port from 1 to 65535 or a range such as 8000-8100",
              "file": "bad.yaml",
              "line": 5,
              "message": "`0` is no port: port 0 is never sent to",
              "site": "bad.yaml:5:13"
            }
          ],
          "file": "bad.yaml",
          "valid": false
        }
      ],
      "version": 1
    }
    "#);
}

#[test]
fn explain_names_rule_line_and_remedy() {
    let arguments = [
        "policy",
        "explain",
        "policies/doc-summarizer.yaml",
        "api.model.example:443",
        "collect.attacker.example:443",
        "api.model.example:8443",
        "203.0.113.66:443",
        "[64:ff9b::a9fe:a9fe]:80",
        "127.0.0.1:8080",
        "192.0.2.53:53/udp",
        "192.0.2.53:853",
        "localhost:8080",
        "203.0.113.66/icmp",
        "collect.attacker.example/icmp",
        "unix:/run/docker.sock",
        "unix:@/tmp/.X11-unix/X0",
        "inbound:8080",
    ];
    insta::assert_snapshot!(egress(&arguments), @r#"
    exit code 1
    --- stdout
    allow api.model.example:443/tcp: its name is allowed
      rule: host api.model.example ports 443/tcp (policies/doc-summarizer.yaml:9)
      question: asked upstream, for A, CNAME, AAAA, SVCB, HTTPS
      note: holds for the addresses that the name resolves to, except private, loopback, metadata, link-local and denied ones
    deny collect.attacker.example:443/tcp: no rule lists the name
      question: answered with NXDOMAIN (not-listed)
      to allow it: - { host: collect.attacker.example, ports: [443] }
    deny api.model.example:8443/tcp: no rule covers it
      question: asked upstream, for A, CNAME, AAAA, SVCB, HTTPS
      nearest: host api.model.example ports 443/tcp (policies/doc-summarizer.yaml:9): same host, but only on 443/tcp
      to allow it: - { host: api.model.example, ports: [8443] }
    deny 203.0.113.66:443/tcp: no rule covers it
      note: the address is open on this port while a listed name resolves to it: api.model.example
      to allow it: - { cidr: 203.0.113.66/32, ports: [443] }
    deny [64:ff9b::a9fe:a9fe]:80/tcp: it is a metadata service, which only a `cidr` rule for it opens
      note: judged by the IPv4 address inside it, 169.254.169.254
      to allow it: - { cidr: 169.254.169.254/32, ports: [80] }
    deny 127.0.0.1:8080/tcp: it is this host itself, and `loopback` does not open it
      note: a socket of the same scope is reached there, anybody else's is not
      to allow it: loopback: [8080]
    deny 192.0.2.53:53/udp: ports 53 and 853 are closed: names are asked through egress's own resolver
      note: a question to port 53 of any server reaches egress instead, which answers it for the names that the policy lists
    deny 192.0.2.53:853/tcp: ports 53 and 853 are closed: names are asked through egress's own resolver
      note: clients that prefer DNS over TLS or QUIC fall back to port 53, where egress answers
    deny localhost:8080/tcp: it is this host itself, and `loopback` does not open it
      question: answered with the loopback addresses
      note: a socket of the same scope is reached there, anybody else's is not
      to allow it: loopback: [8080]
    deny 203.0.113.66/icmp: no rule covers it
      to allow it: - { cidr: 203.0.113.66/32, protocol: icmp }
    deny collect.attacker.example/icmp: no rule lists the name
      question: answered with NXDOMAIN (not-listed)
      to allow it: - { host: collect.attacker.example, protocol: icmp }
    deny unix:/run/docker.sock: it is a unix socket of a process outside the scope, and no `unix` rule opens it
      note: a socket of the same scope is reached by this name
      to allow it: - unix: /run/docker.sock
    deny unix:@/tmp/.X11-unix/X0: it is a unix socket of a process outside the scope, and no `unix` rule opens it
      note: a socket of the same scope is reached by this name
      to allow it: - unix: "@/tmp/.X11-unix/X0"
    deny inbound:8080/tcp: it comes from outside the scope
      note: answers to what the scope began come in whatever the port
      to allow it: inbound: [8080]
    "#);
}

#[test]
fn explain_says_what_came_nearest() {
    let arguments = [
        "policy",
        "explain",
        "policies/internal-services.yaml",
        "10.20.9.1:22",
        "10.20.1.1:23",
        "10.21.1.1:22",
        "a.packages.example:443",
        "a.packages.example:80",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.packages.example:443",
        "aa.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.packages.example:443",
        "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.packages.example:443",
        "admin.packages.example:443",
        "packages.example:443",
        "db2.internal.example:5432",
        "[2001:db8:8::1]:123/udp",
        "127.0.0.1:8080",
        "10.20.9.1/icmp",
        "10.20.1.1/icmp",
        "10.21.1.1/icmp",
        "unix:/run/metrics/admin.sock",
        "unix:/var/run/postgresql/.s.PGSQL.5432",
        "inbound:8080/udp",
        "inbound:8081",
    ];
    insta::assert_snapshot!(egress(&arguments), @"
    exit code 1
    --- stdout
    deny 10.20.9.1:22/tcp: a deny rule covers it
      rule: deny cidr 10.20.9.0/24 all ports/any (policies/internal-services.yaml:24)
      nearest: cidr 10.20.0.0/16 ports 22,8000-8100/tcp (policies/internal-services.yaml:13): covers it, but deny goes before allow
      nearest: cidr 10.20.0.0/16 icmp (policies/internal-services.yaml:18): same network, but only for ping
    deny 10.20.1.1:23/tcp: no rule covers it
      nearest: cidr 10.20.0.0/16 ports 22,8000-8100/tcp (policies/internal-services.yaml:13): same network, but only on 22,8000-8100/tcp
      nearest: cidr 10.20.0.0/16 icmp (policies/internal-services.yaml:18): same network, but only for ping
      to allow it: - { cidr: 10.20.1.1/32, ports: [23] }
    deny 10.21.1.1:22/tcp: no rule covers it
      nearest: cidr 10.20.0.0/16 ports 22,8000-8100/tcp (policies/internal-services.yaml:13): the nearest network
      to allow it: - { cidr: 10.21.1.1/32, ports: [22] }
    allow a.packages.example:443/tcp: its name is allowed
      rule: host *.packages.example ports 443,8443/tcp (policies/internal-services.yaml:11)
      question: asked upstream, for A, CNAME, AAAA, SVCB, HTTPS
      note: holds for the addresses that the name resolves to, except private, loopback, metadata, link-local and denied ones
      note: a wildcard allows it: within dns.wildcard labels may have 40 bytes, names 100, and 30 new names are asked a minute, with 360 questions to name servers for all names
    deny a.packages.example:80/tcp: no rule covers it
      question: asked upstream, for A, CNAME, AAAA, SVCB, HTTPS
      nearest: host *.packages.example ports 443,8443/tcp (policies/internal-services.yaml:11): covers the name, but only on 443,8443/tcp
      to allow it: - { host: a.packages.example, ports: [80] }
    deny xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.packages.example:443/tcp: only a wildcard allows the name, and a label is longer than `dns: wildcard: label:`
      rule: host *.packages.example ports 443,8443/tcp (policies/internal-services.yaml:11)
      question: answered with NXDOMAIN (label-bound)
      nearest: host *.packages.example ports 443,8443/tcp (policies/internal-services.yaml:11): covers the name, but not beyond the bounds of dns.wildcard
      note: the bound is widened by dns: { wildcard: { label: 63 } }
      to allow it: - { host: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.packages.example, ports: [443] }
    deny aa.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.packages.example:443/tcp: only a wildcard allows the name, and it is longer than `dns: wildcard: name:`
      rule: host *.packages.example ports 443,8443/tcp (policies/internal-services.yaml:11)
      question: answered with NXDOMAIN (name-bound)
      nearest: host *.packages.example ports 443,8443/tcp (policies/internal-services.yaml:11): covers the name, but not beyond the bounds of dns.wildcard
      note: the bound is widened by dns: { wildcard: { name: 101 } }
      to allow it: - { host: aa.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.packages.example, ports: [443] }
    allow a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.packages.example:443/tcp: its name is allowed
      rule: host *.packages.example ports 443,8443/tcp (policies/internal-services.yaml:11)
      question: asked upstream, for A, CNAME, AAAA, SVCB, HTTPS
      note: holds for the addresses that the name resolves to, except private, loopback, metadata, link-local and denied ones
      note: a wildcard allows it: within dns.wildcard labels may have 40 bytes, names 100, and 30 new names are asked a minute, with 360 questions to name servers for all names
    deny admin.packages.example:443/tcp: a rule under `deny:` covers the name or one that it is an alias of
      rule: deny host admin.packages.example (policies/internal-services.yaml:25)
      question: answered with NXDOMAIN (deny-rule)
      nearest: host *.packages.example ports 443,8443/tcp (policies/internal-services.yaml:11): allows the name, but deny goes before allow
      note: the name is denied; an address that it shares with an allowed name is not
    deny packages.example:443/tcp: no rule lists the name
      question: answered with NXDOMAIN (not-listed)
      nearest: host *.packages.example ports 443,8443/tcp (policies/internal-services.yaml:11): the wildcard covers names below, not the name itself
      to allow it: - { host: packages.example, ports: [443] }
    deny db2.internal.example:5432/tcp: no rule lists the name
      question: answered with NXDOMAIN (not-listed)
      nearest: host db.internal.example ports 5432/tcp private (policies/internal-services.yaml:8): shares the parent domain
      to allow it: - { host: db2.internal.example, ports: [5432] }
    deny [2001:db8:8::1]:123/udp: no rule covers it
      nearest: cidr 2001:db8:7::/48 ports 123/udp (policies/internal-services.yaml:15): the nearest network
      to allow it: - { cidr: 2001:db8:8::1/128, ports: [123], protocol: udp }
    deny 127.0.0.1:8080/tcp: it is this host itself, and `loopback` does not open it
      note: a socket of the same scope is reached there, anybody else's is not
      to allow it: loopback: [5432, 8080]
    deny 10.20.9.1/icmp: a deny rule covers it
      rule: deny cidr 10.20.9.0/24 all ports/any (policies/internal-services.yaml:24)
      nearest: cidr 10.20.0.0/16 icmp (policies/internal-services.yaml:18): covers it, but deny goes before allow
      nearest: cidr 10.20.0.0/16 ports 22,8000-8100/tcp (policies/internal-services.yaml:13): same network, but only on 22,8000-8100/tcp
    allow 10.20.1.1/icmp: a rule covers it
      rule: cidr 10.20.0.0/16 icmp (policies/internal-services.yaml:18)
    deny 10.21.1.1/icmp: no rule covers it
      nearest: cidr 10.20.0.0/16 ports 22,8000-8100/tcp (policies/internal-services.yaml:13): the nearest network
      to allow it: - { cidr: 10.21.1.1/32, protocol: icmp }
    deny unix:/run/metrics/admin.sock: a deny rule covers it
      rule: deny unix /run/metrics/admin.sock (policies/internal-services.yaml:26)
      nearest: unix /run/metrics/* (policies/internal-services.yaml:21): covers it, but deny goes before allow
    allow unix:/var/run/postgresql/.s.PGSQL.5432: a rule covers it
      rule: unix /run/postgresql/.s.PGSQL.5432 (policies/internal-services.yaml:20)
      note: holds for the socket that is bound to this name, whatever links lead there
    allow inbound:8080/udp: it comes from outside the scope
      rule: inbound 8080 (policies/internal-services.yaml:31)
    deny inbound:8081/tcp: it comes from outside the scope
      note: answers to what the scope began come in whatever the port
      to allow it: inbound: [8080, 8081]
    ");
}

#[test]
fn explain_as_json() {
    let arguments = [
        "policy",
        "explain",
        "policies/internal-services.yaml",
        "10.20.9.1:22",
        "b.packages.example:443",
        "--output",
        "json",
    ];
    insta::assert_snapshot!(egress(&arguments), @r#"
    exit code 1
    --- stdout
    {
      "file": "policies/internal-services.yaml",
      "policy": "internal-services",
      "results": [
        {
          "destination": "10.20.9.1:22/tcp",
          "nearest": [
            {
              "rule": {
                "file": "policies/internal-services.yaml",
                "line": 13,
                "text": "cidr 10.20.0.0/16 ports 22,8000-8100/tcp"
              },
              "why": "covers it, but deny goes before allow"
            },
            {
              "rule": {
                "file": "policies/internal-services.yaml",
                "line": 18,
                "text": "cidr 10.20.0.0/16 icmp"
              },
              "why": "same network, but only for ping"
            }
          ],
          "notes": [],
          "question": null,
          "reason": "deny-rule",
          "remedy": null,
          "rule": {
            "file": "policies/internal-services.yaml",
            "line": 24,
            "text": "deny cidr 10.20.9.0/24 all ports/any"
          },
          "verdict": "deny"
        },
        {
          "destination": "b.packages.example:443/tcp",
          "nearest": [],
          "notes": [
            "holds for the addresses that the name resolves to, except private, loopback, metadata, link-local and denied ones",
            "a wildcard allows it: within dns.wildcard labels may have 40 bytes, names 100, and 30 new names are asked a minute, with 360 questions to name servers for all names"
          ],
          "question": {
            "answer": "asked upstream, for A, CNAME, AAAA, SVCB, HTTPS",
            "reason": "listed",
            "verdict": "allow"
          },
          "reason": "permit",
          "remedy": null,
          "rule": {
            "file": "policies/internal-services.yaml",
            "line": 11,
            "text": "host *.packages.example ports 443,8443/tcp"
          },
          "verdict": "allow"
        }
      ],
      "version": 1
    }
    "#);
}

#[test]
fn exit_codes_tell_allowed_denied_and_wrong_apart() {
    let summarizer = "policies/doc-summarizer.yaml";
    for (arguments, expected) in [
        (&["policy", "explain", summarizer, "api.model.example:443"][..], 0),
        (&["policy", "explain", summarizer, "api.model.example:443", "a.example:443"], 1),
        (&["policy", "explain", summarizer, "a.example:443", "--allow", "a.example:443"], 0),
        (&["policy", "explain", summarizer, "a.example"], 2),
        (&["policy", "explain", summarizer, "a.example:0"], 2),
        (&["policy", "explain", summarizer, "a.example:443/sctp"], 2),
        (&["policy", "explain", summarizer, "*.example:443"], 2),
        (&["policy", "explain", summarizer, "a.example:443/icmp"], 2),
        (&["policy", "explain", summarizer, "unix:run/a.sock"], 2),
        (&["policy", "explain", summarizer, "inbound:0"], 2),
        (&["policy", "explain", summarizer, "ping.example/icmp"], 1),
        (
            &[
                "policy",
                "explain",
                summarizer,
                "ping.example/icmp",
                "unix:/run/a",
                "--allow",
                "ping.example/icmp",
                "--allow",
                "unix:/run/a",
            ],
            0,
        ),
        (&["policy", "explain", summarizer, "2001:db8::1:443"], 2),
        (&["policy", "explain", summarizer], 2),
        (&["policy", "explain", "policies/none.yaml", "a.example:443"], 2),
        (&["policy", "check", summarizer], 0),
        (&["policy", "check", "policies/none.yaml"], 1),
        (&["policy", "check"], 2),
    ] {
        let text = egress(arguments);
        assert!(text.starts_with(&format!("exit code {expected}\n")), "{arguments:?}\n{text}");
    }
}

#[test]
fn detect_prints_rules_that_load() {
    let text = egress(&["policy", "detect", "git", "cargo"]);
    let (code, rules) = text.split_once("--- stdout\n").unwrap();
    assert_eq!(code, "exit code 0\n");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("detected.yaml");
    std::fs::write(&path, format!("version: 1\nname: detected\n{rules}")).unwrap();
    egress::policy::load(&path, &[]).unwrap();
}
