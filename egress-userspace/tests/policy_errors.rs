//! Errors in policy files as people see them: every one of a file in one go, with line, column and caret.

use std::{fs, path::Path};

use egress::policy;
use tempfile::TempDir;

/// A directory with these files; the first one is the policy.
fn files(files: &[(&str, &[u8])]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    directory
}

/// What loading `p.yaml` prints, with the directory's name left out.
fn errors_of(directory: &TempDir) -> String {
    let path = directory.path().join("p.yaml");
    let errors = policy::load(&path, &[]).expect_err("the policy loads");
    errors.render(false).replace(&format!("{}/", directory.path().display()), "")
}

fn errors(text: &str) -> String {
    errors_of(&files(&[("p.yaml", text.as_bytes())]))
}

/// First lines only: what is wrong and where.
fn short(text: &[u8]) -> String {
    let rendered = errors_of(&files(&[("p.yaml", text)]));
    let lines: Vec<&str> = rendered
        .lines()
        .filter(|line| line.starts_with("error") || line.trim_start().starts_with("-->"))
        .map(|line| line.trim_start().trim_start_matches("--> "))
        .collect();
    lines.join("\n")
}

#[test]
#[expect(clippy::too_many_lines, reason = "the output of one file in one piece")]
fn all_errors_of_a_file_come_at_once() {
    let text = "\
version: 2
name: doc summarizer
colour: red
mode: enforc
allow:
  - host: api.example
    ports: [0, 65536, 443-80, \"x\", 1e3]
    port: 3
  - host: 192.0.2.1
  - host: bücher.example
  - cidr: 10.20.9.1/24
  - {}
  - host: a.example
    cidr: 10.0.0.0/8
  - cidr: 64:ff9b::c000:200/120
  - cidr: 10.1.0.0/16
    private: true
deny:
  - host: ok.example
    ports: [3]
loopback: [0]
dns: { upstream: [1.2.3], types: [a] }
";
    insta::assert_snapshot!(errors(text), @r#"
    error: policy version 2 is not known to this program
     --> p.yaml:1:10
      |
    1 | version: 2
      |          ^ expected 1

    error: `doc summarizer` is no name for a policy
     --> p.yaml:2:7
      |
    2 | name: doc summarizer
      |       ^^^^^^^^^^^^^^ expected letters, digits, `-`, `_` and `.`, at most 63, a letter or digit first

    error: unknown key `colour` in the policy
     --> p.yaml:3:1
      |
    3 | colour: red
      | ^^^^^^ expected one of: version, name, description, mode, include, allow, deny, loopback, unix, inbound, require, escape, permit, dns

    error: mode `enforc` is not known
     --> p.yaml:4:7
      |
    4 | mode: enforc
      |       ^^^^^^ expected `enforce` or `audit`

    error: `0` is no port: port 0 is never sent to
     --> p.yaml:7:13
      |
    7 |     ports: [0, 65536, 443-80, "x", 1e3]
      |             ^ expected a port from 1 to 65535 or a range such as 8000-8100

    error: `65536` is no port: it is out of range
     --> p.yaml:7:16
      |
    7 |     ports: [0, 65536, 443-80, "x", 1e3]
      |                ^^^^^ expected a port from 1 to 65535 or a range such as 8000-8100

    error: port range 443-80 is reversed
     --> p.yaml:7:23
      |
    7 |     ports: [0, 65536, 443-80, "x", 1e3]
      |                       ^^^^^^ write the smaller port first

    error: `x` is no port: it is not a number
     --> p.yaml:7:31
      |
    7 |     ports: [0, 65536, 443-80, "x", 1e3]
      |                               ^^^ expected a port from 1 to 65535 or a range such as 8000-8100

    error: `1e3` is no port: it is not a plain decimal number
     --> p.yaml:7:36
      |
    7 |     ports: [0, 65536, 443-80, "x", 1e3]
      |                                    ^^^ expected a port from 1 to 65535 or a range such as 8000-8100

    error: unknown key `port` in an allow rule
     --> p.yaml:8:5
      |
    8 |     port: 3
      |     ^^^^ did you mean `ports`?

    error: `192.0.2.1` is no host name: it is an address
     --> p.yaml:9:11
      |
    9 |   - host: 192.0.2.1
      |           ^^^^^^^^^ use `cidr: 192.0.2.1/32`

    error: `bücher.example` is no host name: it is not in ASCII
      --> p.yaml:10:11
       |
    10 |   - host: bücher.example
       |           ^^^^^^^^^^^^^^ write the A-label form (xn--…) of each label

    error: `10.20.9.1/24` is no network: it has host bits set
      --> p.yaml:11:11
       |
    11 |   - cidr: 10.20.9.1/24
       |           ^^^^^^^^^^^^ did you mean 10.20.9.0/24?

    error: empty rule
      --> p.yaml:12:5
       |
    12 |   - {}
       |     ^^ expected `host:`, `cidr:` or `unix:`

    error: a rule speaks of one thing: write one rule for each of `host`, `cidr` and `unix`
      --> p.yaml:14:5
       |
    14 |     cidr: 10.0.0.0/8
       |     ^^^^

    error: rule can never match: NAT64 addresses are judged by the IPv4 address inside them; write 192.0.2.0/24
      --> p.yaml:15:11
       |
    15 |   - cidr: 64:ff9b::c000:200/120
       |           ^^^^^^^^^^^^^^^^^^^^^

    error: `private` does not go with `cidr`: it is for names
      --> p.yaml:17:5
       |
    17 |     private: true
       |     ^^^^^^^

    error: `ports` does not go with a denied `host`: the name is denied whatever the port
      --> p.yaml:20:5
       |
    20 |     ports: [3]
       |     ^^^^^

    error: `0` is no port: port 0 is never sent to
      --> p.yaml:21:12
       |
    21 | loopback: [0]
       |            ^ expected a port from 1 to 65535 or a range such as 8000-8100

    error: `1.2.3` is no resolver address
      --> p.yaml:22:19
       |
    22 | dns: { upstream: [1.2.3], types: [a] }
       |                   ^^^^^ expected an address, with a port if it is not 53: 192.0.2.53, 192.0.2.53:5353, [2001:db8::53]:53

    error: query type `a` is not known
      --> p.yaml:22:35
       |
    22 | dns: { upstream: [1.2.3], types: [a] }
       |                                   ^ expected a record type in upper case such as A, AAAA, CNAME, HTTPS, SVCB

    21 errors
    "#);
}

#[test]
fn a_duplicate_key_shows_both_places() {
    insta::assert_snapshot!(errors("version: 1\nname: p\nallow: []\nname: q\n"), @r#"
    error: duplicate key `name`
     --> p.yaml:4:1
      |
    2 | name: p
      | ---- first written here
    3 | allow: []
    4 | name: q
      | ^^^^

    1 error
    "#);
}

#[test]
fn a_rule_that_can_never_match_shows_what_denies_it() {
    let text = "\
version: 1
name: p
allow:
  - cidr: 10.20.9.0/24
    ports: [22]
  - host: a.packages.example
deny:
  - cidr: 10.20.0.0/16
  - host: \"*.packages.example\"
";
    insta::assert_snapshot!(errors(text), @r#"
    error: rule can never match: `cidr 10.20.9.0/24 ports 22/tcp` is denied by `deny cidr 10.20.0.0/16 all ports/any` at p.yaml:8
     --> p.yaml:4:11
      |
    4 |   - cidr: 10.20.9.0/24
      |           ^^^^^^^^^^^^
    ...
    8 |   - cidr: 10.20.0.0/16
      |           ------------ denied here

    error: rule can never match: `host a.packages.example ports 443/tcp` is denied by `deny host *.packages.example` at p.yaml:9
     --> p.yaml:6:11
      |
    6 |   - host: a.packages.example
      |           ^^^^^^^^^^^^^^^^^^
    ...
    9 |   - host: "*.packages.example"
      |           -------------------- denied here

    2 errors
    "#);
}

#[test]
fn what_is_missing_is_named() {
    insta::assert_snapshot!(errors("allow: []\n"), @r#"
    error: key `version` is missing in the policy
     --> p.yaml:1:1
      |
    1 | allow: []
      | ^ add `version: 1`

    error: key `name` is missing in the policy
     --> p.yaml:1:1
      |
    1 | allow: []
      | ^ add `name:`

    2 errors
    "#);
}

#[test]
fn command_line_errors_come_with_those_of_the_file() {
    let directory = files(&[("p.yaml", b"version: 1\n")]);
    let allow = ["a.example".to_owned(), "10.0.0.1/8:22".to_owned()];
    let errors = policy::load(&directory.path().join("p.yaml"), &allow).unwrap_err();
    let text = errors.render(false).replace(&format!("{}/", directory.path().display()), "");
    insta::assert_snapshot!(text, @"
    error: key `name` is missing in the policy
     --> p.yaml:1:1
      |
    1 | version: 1
      | ^ add `name:`

    error: cannot read `--allow` rule: a.example
    --> --allow a.example
     = help: expected HOST:PORT, ADDRESS:PORT, [ADDRESS]:PORT or NETWORK/BITS:PORT, and /udp for UDP; or HOST/icmp, or unix:PATH

    error: `10.0.0.1/8` is no network: it has host bits set
    --> --allow 10.0.0.1/8:22
     = help: did you mean 10.0.0.0/8?

    3 errors
    ");
}

#[test]
fn an_error_in_an_included_file_is_shown_there() {
    let directory = files(&[
        ("p.yaml", b"version: 1\nname: p\ninclude: [sub/a.yaml, sub/missing.yaml, sub]\n"),
        ("sub/a.yaml", b"version: 1\nmode: audit\ninclude: [b.yaml]\n"),
        ("sub/b.yaml", b"version: 1\nallow:\n  - host: \"*\"\n"),
    ]);
    insta::assert_snapshot!(errors_of(&directory), @r#"
    error: cannot read policy file sub/missing.yaml: no such file
     --> p.yaml:3:23
      |
    3 | include: [sub/a.yaml, sub/missing.yaml, sub]
      |                       ^^^^^^^^^^^^^^^^

    error: cannot read policy file sub: it is no regular file
     --> p.yaml:3:41
      |
    3 | include: [sub/a.yaml, sub/missing.yaml, sub]
      |                                         ^^^

    error: included file sets `mode`: it may contribute allow and deny lists only
     --> sub/a.yaml:2:1
      |
    2 | mode: audit
      | ^^^^

    error: `*` is no host name: a bare wildcard is every name
     --> sub/b.yaml:3:11
      |
    3 |   - host: "*"
      |           ^^^ name the domain: "*.packages.example"

    4 errors
    "#);
}

#[test]
fn an_include_loop_shows_its_way() {
    let directory = files(&[
        ("p.yaml", b"version: 1\nname: p\ninclude: [a.yaml]\n"),
        ("a.yaml", b"version: 1\ninclude: [b.yaml]\n"),
        ("b.yaml", b"version: 1\ninclude: [a.yaml]\n"),
    ]);
    insta::assert_snapshot!(errors_of(&directory), @r#"
    error: include loop: a.yaml -> b.yaml -> a.yaml
     --> b.yaml:2:11
      |
    2 | include: [a.yaml]
      |           ^^^^^^

    1 error
    "#);
    let alone = files(&[("p.yaml", b"version: 1\nname: p\ninclude: [p.yaml]\n")]);
    assert!(errors_of(&alone).contains("include loop: p.yaml -> p.yaml"));
}

#[test]
fn a_file_included_twice_is_read_once() {
    let directory = files(&[
        ("p.yaml", b"version: 1\nname: p\ninclude: [a.yaml, b.yaml]\n"),
        ("a.yaml", b"version: 1\ninclude: [c.yaml]\n"),
        ("b.yaml", b"version: 1\ninclude: [./c.yaml]\n"),
        ("c.yaml", b"version: 1\nallow:\n  - host: c.example\ndeny:\n  - cidr: 192.0.2.0/24\n"),
    ]);
    let policy = policy::load(&directory.path().join("p.yaml"), &[]).unwrap();
    let rules: Vec<String> = policy.rules.iter().map(ToString::to_string).collect();
    assert_eq!(rules, ["host c.example ports 443/tcp", "deny cidr 192.0.2.0/24 all ports/any"]);
    assert_eq!(policy.files.len(), 4);
}

#[test]
fn a_deny_may_overrule_what_another_file_allows() {
    let directory = files(&[
        (
            "p.yaml",
            b"version: 1\nname: p\ninclude: [a.yaml]\ndeny: [{host: a.example}, {cidr: 10.0.0.0/8}]\n",
        ),
        ("a.yaml", b"version: 1\nallow: [{host: a.example}, {cidr: 10.1.0.0/16}]\n"),
    ]);
    policy::load(&directory.path().join("p.yaml"), &[]).unwrap();
    // The command line cannot mean to be overruled.
    let errors = policy::load(&directory.path().join("p.yaml"), &["a.example:443".into()]).unwrap_err();
    assert!(errors.to_string().contains("rule can never match"), "{errors}");
}

#[test]
fn what_is_no_policy_text_is_refused_with_its_place() {
    let deep = format!("version: 1\nname: p\nallow: {}\n", "[".repeat(40));
    let long = [b"# ".to_vec(), vec![b'x'; 4 << 20]].concat();
    for (text, expected) in [
        (&b""[..], "error: policy file is empty\np.yaml:1:1"),
        (b"# nothing\n", "error: policy file is empty\np.yaml:1:1"),
        (b"--- \n", "error: policy file is empty\np.yaml:1:1"),
        (b"version: 1\nname: \xff\n", "error: policy file is not UTF-8\np.yaml:2:7"),
        (b"\xff\xfev\0e\0", "error: policy file is not UTF-8\np.yaml:1:1"),
        (b"version: 1\nname: p\0\n", "error: invalid YAML: control character U+0000\np.yaml:2:8"),
        (b"version: 1\nname: \x1b[31mp\n", "error: invalid YAML: control character U+001B\np.yaml:2:7"),
        (
            b"version: 1\nname: p\nallow:\n\t- host: a.example\n",
            "error: invalid YAML: a tab cannot indent; use spaces\np.yaml:4:1",
        ),
        (
            b"version: 1\nname: p\n---\nversion: 1\n",
            "error: more than one document in a policy file\np.yaml:3:1",
        ),
        (
            b"version: 1\nname: &n p\ndescription: *n\n",
            "error: anchors and aliases are not part of the policy format\np.yaml:2:7\nerror: anchors and aliases are not part of the policy format\np.yaml:3:14\nerror: wrong type: expected a text, found nothing\np.yaml:3:14",
        ),
        (b"version: 1\nname: !!str p\n", "error: tags are not part of the policy format\np.yaml:2:7"),
        (deep.as_bytes(), "error: nested deeper than any policy is\np.yaml:3:23"),
        (&long, "error: policy file is larger than 4 MiB\np.yaml"),
    ] {
        assert_eq!(short(text), expected, "{:?}", String::from_utf8_lossy(&text[..text.len().min(60)]));
    }
}

#[test]
fn syntax_errors_have_a_place() {
    for text in [
        "version: 1\nname: p\nallow: [\n",
        "version: 1\nname: p\nallow: {{\n",
        "version: 1\n name: p\n",
        "version: 1\nname: \"p\n",
        "version: 1\nname: p: q\n",
        "version: 1\nname: p\nallow:\n  - host: a\n - host: b\n",
        "version: 1\nname: @p\n",
        "%YAML 9\n",
    ] {
        let shown = short(text.as_bytes());
        assert!(shown.starts_with("error: invalid YAML: ") && shown.contains("\np.yaml:"), "{text}\n{shown}");
    }
}

#[test]
fn marks_line_ends_and_other_scripts_do_not_shift_places() {
    let text = "\u{feff}version: 1\r\nname: p\r\ndescription: größer → 東京\r\nallow:\r\n  - host: ä # ö\r\n    port: 1\r\n";
    assert_eq!(
        short(text.as_bytes()),
        "error: `ä` is no host name: it is not in ASCII\np.yaml:5:11\nerror: unknown key `port` in an allow rule\np.yaml:6:5"
    );
}

#[test]
fn files_that_cannot_be_read_say_why() {
    for (path, expected) in [("/nonexistent/p.yaml", "no such file"), ("/", "it is a directory")] {
        let errors = policy::load(Path::new(path), &[]).unwrap_err();
        assert!(errors.to_string().contains(expected), "{errors}");
    }
    let endless = policy::load(Path::new("/dev/zero"), &[]).unwrap_err();
    assert!(endless.to_string().contains("larger than 4 MiB"), "{endless}");
    let directory = files(&[("p.yaml", b"version: 1\nname: p\ninclude: [/dev/zero]\n")]);
    assert!(errors_of(&directory).contains("it is no regular file"));
}

/// Every kind of rule and setting, to be damaged.
const WHOLE: &str = "\
version: 1
name: p
description: |
  größer
include: []
mode: enforce
allow:
  - host: \"*.a.example\"
    ports: [1, 8000-8100]
    private: true
  - { cidr: 2001:db8::/32, protocol: udp }
  - unix: /run/a.sock
  - unix: \"@a b*\"
  - { host: a.example, protocol: icmp }
deny:
  - cidr: 10.20.9.0/24
  - unix: /run/b/*
loopback: [5432]
unix: own
inbound: [8080]
require: full
escape: kill
permit: [io_uring]
dns: { upstream: ['192.0.2.53'], types: [A] }
";

/// What YAML, hosts and networks are made of.
const SCRAPS: [&str; 42] = [
    "", " ", "\n", "\n  ", "\t", "\r", ":", ": ", "- ", "-", "[", "]", "{", "}", ",", "#", "\"", "'", "|",
    ">", "&a", "*a", "!", "%", "@", "`", "---", "...", "?", "~", "null", "0", "65536", "/", ".", "::", "é",
    "\u{2028}", "\u{85}", "東", "\"\\0\"", "/..",
];

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 512, failure_persistence: None, ..Default::default() })]

    /// A mutation seen to fail here: a caret that may stand within a character.
    #[test]
    fn no_damage_makes_reading_or_drawing_panic(
        damages in proptest::collection::vec((0.0..1.0f64, 0..12usize, proptest::sample::select(&SCRAPS[..])), 1..6)
    ) {
        let mut text: Vec<char> = WHOLE.chars().collect();
        for (at, length, scrap) in damages {
            let start = (0..=text.len()).find(|index| *index as f64 >= at * text.len() as f64).unwrap();
            let end = (start + length).min(text.len());
            text.splice(start..end, scrap.chars());
        }
        let text: String = text.into_iter().collect();
        let directory = files(&[("p.yaml", text.as_bytes())]);
        if let Err(errors) = policy::load(&directory.path().join("p.yaml"), &[]) {
            proptest::prop_assert!(!errors.0.is_empty());
            for problem in &errors.0 {
                let (_, line, column) = problem.location().unwrap();
                let lines = text.trim_start_matches('\u{feff}').split('\n').count();
                proptest::prop_assert!((1..=lines).contains(&line) && column >= 1, "{line}:{column}");
                let (shown, site) = (problem.render(false), format!("p.yaml:{line}:{column}"));
                proptest::prop_assert!(shown.contains(&site), "{} not in\n{}", site, shown);
            }
        }
    }
}

#[test]
fn settings_of_dns_say_what_they_may_be() {
    let text = "\
version: 1
name: p
dns:
  types: [A, ANY]
  refusal: drop
  ech: true
  wildcard: { label: 64, name: 0, new-names: -1, rate: 3 }
  eager: 1
  resolver: 192.0.2.53
";
    insta::assert_snapshot!(errors(text), @"
    error: query type `ANY` is not known
     --> p.yaml:4:14
      |
    4 |   types: [A, ANY]
      |              ^^^ expected a record type in upper case such as A, AAAA, CNAME, HTTPS, SVCB

    error: answer for names that are not listed `drop` is not known
     --> p.yaml:5:12
      |
    5 |   refusal: drop
      |            ^^^^ expected `nxdomain` or `refused`

    error: wrong type: expected `strip` or `keep`, found the truth value `true`
     --> p.yaml:6:8
      |
    6 |   ech: true
      |        ^^^^

    error: number 64 is out of range
     --> p.yaml:7:22
      |
    7 |   wildcard: { label: 64, name: 0, new-names: -1, rate: 3 }
      |                      ^^ expected a whole number from 1 to 63

    error: number 0 is out of range
     --> p.yaml:7:32
      |
    7 |   wildcard: { label: 64, name: 0, new-names: -1, rate: 3 }
      |                                ^ expected a whole number from 1 to 253

    error: number -1 is out of range
     --> p.yaml:7:46
      |
    7 |   wildcard: { label: 64, name: 0, new-names: -1, rate: 3 }
      |                                              ^^ expected a whole number from 0 to 1000000

    error: unknown key `rate` in `dns.wildcard`
     --> p.yaml:7:50
      |
    7 |   wildcard: { label: 64, name: 0, new-names: -1, rate: 3 }
      |                                                  ^^^^ did you mean `name`?

    error: wrong type: expected `true` or `false`, found the number `1`
     --> p.yaml:8:10
      |
    8 |   eager: 1
      |          ^

    error: unknown key `resolver` in `dns`
     --> p.yaml:9:3
      |
    9 |   resolver: 192.0.2.53
      |   ^^^^^^^^ expected one of: upstream, types, refusal, ech, wildcard, eager

    9 errors
    ");
}

#[test]
fn unix_sockets_and_protocols_say_what_they_may_be() {
    let long = "a".repeat(108);
    let text = format!(
        "\
version: 1
name: p
unix: all
inbound: [0]
require: everything
escape: shoot
permit: [io_uring, uring]
allow:
  - unix: run/docker.sock
  - unix: /run/*/a.sock
  - unix: /run/../a.sock
  - unix: /run/a/
  - unix: \"@\"
  - unix: \"/run/a\\0b\"
  - unix: /{long}
  - {{ unix: /run/a.sock, ports: [80] }}
  - {{ cidr: 10.0.0.0/8, protocol: icmp, ports: [80] }}
  - {{ cidr: 10.0.0.0/8, protocol: icmpv6 }}
  - {{ host: a.example, protocol: mptcp }}
  - {{ host: a.example, protocol: sctp }}
  - {{ host: a.example, protocol: raw }}
  - {{ host: a.example, protocol: quic }}
  - unix: /run/shut/a.sock
  - {{ cidr: 10.0.0.0/8, protocol: icmp }}
deny:
  - unix: /run/shut/*
  - cidr: 0.0.0.0/0
"
    );
    insta::assert_snapshot!(errors(&text).replace(&long, "LONG"), @r#"
    error: unix setting `all` is not known
     --> p.yaml:3:7
      |
    3 | unix: all
      |       ^^^ expected `own`, `any` or `none`

    error: `0` is no port: port 0 is never sent to
     --> p.yaml:4:11
      |
    4 | inbound: [0]
      |           ^ expected a port from 1 to 65535 or a range such as 8000-8100

    error: require setting `everything` is not known
     --> p.yaml:5:10
      |
    5 | require: everything
      |          ^^^^^^^^^^ expected `kernel` or `full`

    error: escape setting `shoot` is not known
     --> p.yaml:6:9
      |
    6 | escape: shoot
      |         ^^^^^ expected `report` or `kill`

    error: `uring` is not among what `egress run` takes away
     --> p.yaml:7:20
      |
    7 | permit: [io_uring, uring]
      |                    ^^^^^ expected one of: io_uring, userns, clone3, ptrace, keys, families, netlink, terminal, foreign-abi, bpf, signals, unix-sockets

    error: `run/docker.sock` is no name of a unix socket: it is no absolute path
     --> p.yaml:9:11
      |
    9 |   - unix: run/docker.sock
      |           ^^^^^^^^^^^^^^^ expected an absolute path, as in /run/postgresql/.s.PGSQL.5432, or @ and an abstract name

    error: `/run/*/a.sock` is no name of a unix socket: a `*` stands only as the last character
      --> p.yaml:10:11
       |
    10 |   - unix: /run/*/a.sock
       |           ^^^^^^^^^^^^^ as in /run/service/*: any rest, `/` included

    error: `/run/../a.sock` is no name of a unix socket: it has a part that leads nowhere else
      --> p.yaml:11:11
       |
    11 |   - unix: /run/../a.sock
       |           ^^^^^^^^^^^^^^ leave out empty parts, `.` and `..`

    error: `/run/a/` is no name of a unix socket: it is a directory
      --> p.yaml:12:11
       |
    12 |   - unix: /run/a/
       |           ^^^^^^^ leave the last `/` out

    error: `@` is no name of a unix socket: the abstract name behind `@` is empty
      --> p.yaml:13:11
       |
    13 |   - unix: "@"
       |           ^^^ expected an absolute path, as in /run/postgresql/.s.PGSQL.5432, or @ and an abstract name

    error: `/run/a␀b` is no name of a unix socket: it holds a zero byte
      --> p.yaml:14:11
       |
    14 |   - unix: "/run/a\0b"
       |           ^^^^^^^^^^^ write an abstract name with `@` in place of the leading zero

    error: `/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…` is no name of a unix socket: it is longer than 107 bytes, and no socket can be bound to it
      --> p.yaml:15:11
       |
    15 |   - unix: /LONG
       |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    error: `ports` does not go with `unix`
      --> p.yaml:16:26
       |
    16 |   - { unix: /run/a.sock, ports: [80] }
       |                          ^^^^^

    error: `ports` does not go with `protocol: icmp`: ping has no ports
      --> p.yaml:17:41
       |
    17 |   - { cidr: 10.0.0.0/8, protocol: icmp, ports: [80] }
       |                                         ^^^^^

    error: protocol `icmpv6` cannot be opened
      --> p.yaml:18:35
       |
    18 |   - { cidr: 10.0.0.0/8, protocol: icmpv6 }
       |                                   ^^^^^^ write `protocol: icmp`, which is ping over IPv4 and IPv6

    error: protocol `mptcp` cannot be opened
      --> p.yaml:19:34
       |
    19 |   - { host: a.example, protocol: mptcp }
       |                                  ^^^^^ clients of MPTCP fall back to TCP, which `protocol: tcp` opens

    error: protocol `sctp` cannot be opened
      --> p.yaml:20:34
       |
    20 |   - { host: a.example, protocol: sctp }
       |                                  ^^^^ its further addresses and streams would not be judged; use TCP

    error: protocol `raw` cannot be opened
      --> p.yaml:21:34
       |
    21 |   - { host: a.example, protocol: raw }
       |                                  ^^^ whoever writes a packet's headers writes its destination; for ping use `protocol: icmp`

    error: protocol `quic` is not known
      --> p.yaml:22:34
       |
    22 |   - { host: a.example, protocol: quic }
       |                                  ^^^^ expected `tcp`, `udp`, `icmp` or `any` (TCP and UDP)

    error: rule can never match: `unix /run/shut/a.sock` is denied by `deny unix /run/shut/*` at p.yaml:26
      --> p.yaml:23:11
       |
    23 |   - unix: /run/shut/a.sock
       |           ^^^^^^^^^^^^^^^^
    ...
    26 |   - unix: /run/shut/*
       |           ----------- denied here

    error: rule can never match: `cidr 10.0.0.0/8 icmp` is denied by `deny cidr 0.0.0.0/0 all ports/any` at p.yaml:27
      --> p.yaml:24:13
       |
    24 |   - { cidr: 10.0.0.0/8, protocol: icmp }
       |             ^^^^^^^^^^
    ...
    27 |   - cidr: 0.0.0.0/0
       |           --------- denied here

    21 errors
    "#);
}

#[test]
fn rules_for_ports_of_dns_say_what_to_do_instead() {
    let text = "\
version: 1
name: p
allow:
  - { cidr: 192.0.2.53/32, ports: [53], protocol: any }
  - { host: dns.example, ports: [53, 853] }
  - { cidr: 192.0.2.0/24, ports: [50-60] }
deny:
  - { cidr: 10.0.0.0/8, ports: [853] }
loopback: [53]
";
    insta::assert_snapshot!(errors(text), @"
    error: allow rule can never match: ports 53 and 853 are closed whatever a policy says
     --> p.yaml:4:13
      |
    4 |   - { cidr: 192.0.2.53/32, ports: [53], protocol: any }
      |             ^^^^^^^^^^^^^ names are asked through egress itself: list the names with `host:`; `dns: upstream:` says who is asked

    error: allow rule can never match: ports 53 and 853 are closed whatever a policy says
     --> p.yaml:5:13
      |
    5 |   - { host: dns.example, ports: [53, 853] }
      |             ^^^^^^^^^^^ names are asked through egress itself: list the names with `host:`; `dns: upstream:` says who is asked

    error: deny rule can never match: ports 53 and 853 are closed whatever a policy says
     --> p.yaml:8:13
      |
    8 |   - { cidr: 10.0.0.0/8, ports: [853] }
      |             ^^^^^^^^^^ remove it: it is closed already

    error: loopback setting can never match: ports 53 and 853 are closed whatever a policy says
     --> p.yaml:9:11
      |
    9 | loopback: [53]
      |           ^^^^ leave 53 and 853 out; a local resolver is asked through egress: see `dns: upstream:`

    4 errors
    ");
}

#[test]
fn a_command_line_rule_for_dns_is_an_error_too() {
    let directory = files(&[("p.yaml", b"version: 1\nname: p\n")]);
    let errors = policy::load(&directory.path().join("p.yaml"), &["192.0.2.53:53/udp".to_owned()]);
    insta::assert_snapshot!(errors.unwrap_err().render(false), @"
    error: allow rule can never match: ports 53 and 853 are closed whatever a policy says
    --> --allow 192.0.2.53:53/udp
     = help: names are asked through egress itself: list the names with `host:`; `dns: upstream:` says who is asked

    1 error
    ");
}
