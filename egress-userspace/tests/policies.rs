//! The shipped policies: each loads, does what it says, and comes out of printing as it went in. Every line of a
//! remedy opens what it was given for.

mod support;

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use egress::{
    compile::{compile, compile_on, memory::MemoryTables},
    explain::{self, Destination},
    policy::{self, Action, Fault, Loopback, Origin, Policy, Rule, Target, Upstream},
};
use egress_common::{Flow, Peer, Verdict};
use proptest::prelude::*;
use support::{destinations, file};

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

fn shipped() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for directory in [policies(), policies().join("presets")] {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn verdict(policy: &Policy, destination: &str) -> (Verdict, &'static str) {
    let destination: Destination = destination.parse().unwrap();
    let explanation = explain::explain(policy, &compile(policy), &destination);
    (explanation.verdict, explanation.reason.name())
}

const ALLOW: Verdict = Verdict::Allow;
const DENY: Verdict = Verdict::Deny;

#[test]
fn shipped_policies_do_what_they_say() {
    let internal = "internal-services.yaml";
    for (file, destination, expected) in [
        ("deny-all.yaml", "api.model.example:443", (DENY, "not-listed")),
        ("deny-all.yaml", "192.0.2.1:443", (DENY, "no-rule")),
        ("deny-all.yaml", "192.0.2.53:53/udp", (DENY, "dns")),
        ("deny-all.yaml", "127.0.0.1:80", (DENY, "loopback")),
        ("doc-summarizer.yaml", "api.model.example:443", (ALLOW, "permit")),
        ("doc-summarizer.yaml", "API.Model.Example.:443", (ALLOW, "permit")),
        ("doc-summarizer.yaml", "api.model.example:80", (DENY, "no-rule")),
        ("doc-summarizer.yaml", "api.model.example:443/udp", (DENY, "no-rule")),
        ("doc-summarizer.yaml", "collect.attacker.example:443", (DENY, "not-listed")),
        ("doc-summarizer.yaml", "model.example:443", (DENY, "not-listed")),
        ("doc-summarizer.yaml", "169.254.169.254:80", (DENY, "metadata")),
        (internal, "db.internal.example:5432", (ALLOW, "permit")),
        (internal, "db.internal.example:443", (DENY, "no-rule")),
        (internal, "admin.packages.example:443", (DENY, "deny-rule")),
        (internal, "10.20.0.0:22", (ALLOW, "rule")),
        (internal, "10.20.8.255:8100", (ALLOW, "rule")),
        (internal, "10.20.9.0:22", (DENY, "deny-rule")),
        (internal, "10.20.9.255:8000", (DENY, "deny-rule")),
        (internal, "10.20.10.0:8000", (ALLOW, "rule")),
        (internal, "10.21.0.0:22", (DENY, "no-rule")),
        (internal, "10.20.0.0:8101", (DENY, "no-rule")),
        (internal, "[2001:db8:7::1]:123/udp", (ALLOW, "rule")),
        (internal, "[2001:db8:7::1]:123", (DENY, "no-rule")),
        (internal, "127.0.0.1:5432", (ALLOW, "rule")),
        (internal, "[::1]:5433", (DENY, "loopback")),
        (internal, "192.0.2.53:53/udp", (DENY, "dns")),
        (internal, "db.internal.example:853", (DENY, "dns")),
        (internal, "a.packages.example:443", (ALLOW, "permit")),
        (internal, "a.b.packages.example:8443", (ALLOW, "permit")),
        (internal, "a.packages.example:80", (DENY, "no-rule")),
        (internal, "packages.example:443", (DENY, "not-listed")),
        (internal, "evil-packages.example:443", (DENY, "not-listed")),
        (internal, "packages.example.evil.test:443", (DENY, "not-listed")),
        (internal, "localhost:5432", (ALLOW, "rule")),
        (internal, "localhost:80", (DENY, "loopback")),
        (internal, "10.20.1.1/icmp", (ALLOW, "rule")),
        (internal, "10.20.9.1/icmp", (DENY, "deny-rule")),
        (internal, "10.21.0.0/icmp", (DENY, "no-rule")),
        (internal, "db.internal.example/icmp", (DENY, "no-rule")),
        (internal, "unix:/run/postgresql/.s.PGSQL.5432", (ALLOW, "rule")),
        (internal, "unix:/var/run/postgresql/.s.PGSQL.5432", (ALLOW, "rule")),
        (internal, "unix:/run/postgresql/.s.PGSQL.5433", (DENY, "unix")),
        (internal, "unix:/run/metrics/a/b", (ALLOW, "rule")),
        (internal, "unix:/run/metrics/admin.sock", (DENY, "deny-rule")),
        (internal, "unix:@/run/metrics/a", (DENY, "unix")),
        (internal, "inbound:8080", (ALLOW, "inbound")),
        (internal, "inbound:8080/udp", (ALLOW, "inbound")),
        (internal, "inbound:8081", (DENY, "inbound")),
        ("deny-all.yaml", "unix:/run/docker.sock", (DENY, "unix")),
        ("deny-all.yaml", "inbound:22", (DENY, "inbound")),
        ("deny-all.yaml", "[::1]/icmp", (DENY, "loopback")),
    ] {
        let policy = policy::load(&policies().join(file), &[]).unwrap();
        assert_eq!(verdict(&policy, destination), expected, "{file}: {destination}");
    }
}

#[test]
fn presets_name_hosts_or_sockets_and_comment_each() {
    for path in shipped().iter().filter(|path| path.parent().unwrap().ends_with("presets")) {
        let policy = policy::load(path, &[]).unwrap();
        let text = fs::read_to_string(path).unwrap();
        assert!(!policy.rules.is_empty(), "{}", path.display());
        let kind = policy.rules[0].to_string().split(' ').next().unwrap().to_owned();
        assert!(["host", "unix"].contains(&kind.as_str()), "{}: {kind}", path.display());
        for rule in &policy.rules {
            assert!(rule.to_string().starts_with(&format!("{kind} ")), "{}: {rule}", path.display());
            // OpenSSH's agent has a directory with a random name.
            let free = rule.to_string() == "unix /tmp/ssh-*";
            assert!(!rule.to_string().contains('*') || free, "{}: {rule}", path.display());
        }
        // Each entry, or the run of entries that it belongs to, stands below a comment.
        let mut commented = false;
        for line in text.lines().skip_while(|line| !line.starts_with("allow:")).skip(1) {
            commented |= line.trim_start().starts_with('#');
            assert!(commented, "{}: no comment above `{line}`", path.display());
        }
        assert!(text.contains("Relay: "), "{}: what can be relayed is not said", path.display());
    }
}

#[test]
fn a_preset_opens_its_service_and_no_other() {
    let presets = [
        ("docker", "/run/docker.sock"),
        ("containerd", "/run/containerd/containerd.sock"),
        ("podman", "/run/podman/podman.sock"),
        ("ssh-agent", "/tmp/ssh-XXXXabcdefgh/agent.1234"),
        ("gpg-agent", "/run/user/1000/gnupg/S.gpg-agent"),
        ("x11", "@/tmp/.X11-unix/X0"),
        ("wayland", "/run/user/1000/wayland-0"),
        ("dbus-session", "/run/user/1000/bus"),
        ("dbus-system", "/run/dbus/system_bus_socket"),
        ("postgresql", "/var/run/postgresql/.s.PGSQL.5432"),
        ("mysql", "/run/mysqld/mysqld.sock"),
        ("syslog", "/dev/log"),
        ("nscd", "/var/run/nscd/socket"),
        ("systemd-resolved", "/run/systemd/resolve/io.systemd.Resolve"),
    ];
    for (preset, _) in presets {
        let policy = policy::load(&policies().join(format!("presets/{preset}.yaml")), &[]).unwrap();
        for (other, socket) in presets {
            let expected = if other == preset { (ALLOW, "rule") } else { (DENY, "unix") };
            assert_eq!(verdict(&policy, &format!("unix:{socket}")), expected, "{preset}: {socket}");
        }
    }
}

/// Mutation seen to fail here: a socket of the list written in another way than in its preset.
#[test]
fn presets_that_are_ways_out_say_so_at_the_start() {
    for path in shipped() {
        let policy = policy::load(&path, &[]).unwrap();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let ways_out = ["docker", "containerd", "podman", "dbus-session", "dbus-system", "x11"];
        let expected = if ways_out.contains(&stem) { policy.rules.len() } else { 0 };
        assert_eq!(policy.notices.len(), expected, "{}: {:?}", path.display(), policy.notices);
    }
}

#[test]
fn command_line_rules_add_to_a_policy() {
    let allow = ["collect.example:443".to_owned(), "192.0.2.7:123/udp".to_owned()];
    let policy = policy::load(&policies().join("doc-summarizer.yaml"), &allow).unwrap();
    assert_eq!(verdict(&policy, "collect.example:443"), (ALLOW, "permit"));
    assert_eq!(verdict(&policy, "192.0.2.7:123/udp"), (ALLOW, "rule"));
    assert_eq!(policy.rules[1].origin.to_string(), "--allow collect.example:443");
}

/// Mutations seen to fail here: `loopback:` that speaks of loopback networks only, or of a metadata service on this host.
#[test]
fn own_addresses_are_the_host_itself() {
    let own: Vec<IpAddr> = ["203.0.113.7", "2001:db8::7", "127.0.0.1", "169.254.169.254"]
        .map(|address| address.parse().unwrap())
        .to_vec();
    let told = |lines: &str, destination: &str| {
        let policy = loaded(&format!("version: 1\nname: p\n{lines}\n")).unwrap();
        let explanation =
            explain::explain(&policy, &compile_on(&policy, &own), &destination.parse().unwrap());
        (explanation.verdict, explanation.reason.name())
    };
    let wide = "allow: [{cidr: 0.0.0.0/0}, {cidr: \"::/0\"}]";
    assert_eq!(told(wide, "203.0.113.6:443"), (ALLOW, "rule"));
    assert_eq!(told(wide, "203.0.113.7:443"), (DENY, "loopback"));
    assert_eq!(told(wide, "203.0.113.8:443"), (ALLOW, "rule"));
    assert_eq!(told(wide, "[2001:db8::7]:443"), (DENY, "loopback"));
    assert_eq!(told(wide, "[::ffff:203.0.113.7]:443"), (DENY, "loopback"));
    assert_eq!(told("allow: [{cidr: 203.0.113.7/32}]", "203.0.113.7:443"), (ALLOW, "rule"));
    for (setting, verdict) in
        [("any", (ALLOW, "rule")), ("[443]", (ALLOW, "rule")), ("[444]", (DENY, "loopback"))]
    {
        for address in ["203.0.113.7:443", "[2001:db8::7]:443", "127.0.0.1:443"] {
            assert_eq!(told(&format!("loopback: {setting}"), address), verdict, "{setting} {address}");
        }
    }
    let noted = |rule: &str| {
        let policy = loaded(&format!("version: 1\nname: p\nallow: [{rule}]\n")).unwrap();
        let destination = "203.0.113.7:443".parse().unwrap();
        let notes = explain::explain(&policy, &compile_on(&policy, &own), &destination).notes;
        notes.iter().any(|note| note.contains("a.example"))
    };
    assert_eq!((noted("{host: a.example}"), noted("{host: a.example, private: true}")), (false, true));
    assert_eq!(told("loopback: any", "169.254.169.254:80"), (DENY, "loopback"));
    assert_eq!(
        told("allow: [{cidr: 169.254.169.254/32, ports: [80]}]", "169.254.169.254:80"),
        (ALLOW, "rule")
    );
}

/// Without what depends on the text: lines, notices, files.
fn meaning(policy: &Policy) -> Policy {
    let nowhere = || Origin::Builtin(String::new());
    let mut policy = policy.clone();
    policy.rules.iter_mut().for_each(|rule| rule.origin = nowhere());
    // Both lists keep their order, but one may be written before the other.
    policy.rules.sort_by_key(|rule| rule.action);
    policy.loopback_origin = None;
    policy.unix_origin = None;
    policy.inbound_origin = None;
    if let Upstream::List(_, origin) = &mut policy.dns_upstream {
        *origin = nowhere();
    }
    policy.notices.clear();
    policy.files.clear();
    policy
}

fn loaded(text: &str) -> Result<Policy, policy::Errors> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.yaml");
    fs::write(&path, text).unwrap();
    policy::load(&path, &[])
}

#[test]
fn shipped_policies_survive_printing() {
    for path in shipped() {
        let policy = policy::load(&path, &[]).unwrap();
        let printed = loaded(&policy.to_yaml().unwrap()).unwrap();
        assert_eq!(meaning(&printed), meaning(&policy), "{}", path.display());
    }
}

/// Why rules cannot be loaded, if that is for their meaning alone.
fn only_impossible(errors: &policy::Errors) -> bool {
    errors.0.iter().all(|problem| matches!(problem.fault, Fault::Impossible(_) | Fault::DnsPorts(_)))
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() }
}

fn remedied(policy: &Policy, line: &str) -> Policy {
    let mut policy = policy.clone();
    match line.strip_prefix("loopback: [").and_then(|rest| rest.strip_suffix(']')) {
        Some(port) => policy.loopback = Loopback::Ports(vec![policy::PortRange::one(port.parse().unwrap())]),
        None => {
            let text = format!("version: 1\nname: p\nallow:\n  {line}\n");
            policy.rules.extend(loaded(&text).unwrap_or_else(|errors| panic!("{line}\n{errors}")).rules);
        }
    }
    policy
}

proptest! {
    #![proptest_config(config())]

    /// Mutations seen to fail here: UDP left out when printing; a deny rule for all ports printed as `[0-65535]`.
    #[test]
    fn printing_and_loading_is_the_identity(policy in support::policy()) {
        match loaded(&policy.to_yaml().unwrap()) {
            Ok(printed) => prop_assert_eq!(meaning(&printed), meaning(&policy)),
            Err(errors) => prop_assert!(only_impossible(&errors), "{}", errors),
        }
    }

    /// Mutations seen to fail here: the outer address of a NAT64 destination in the line; UDP left out of it.
    #[test]
    fn a_remedy_opens_what_it_is_given_for(policy in support::policy(), at in 0..destinations().len()) {
        let flow = Flow { local_port: 0, peer: Peer::Remote, ..destinations()[at] };
        let decision = MemoryTables::new(&compile(&policy)).decide(&flow);
        let line = explain::remedy(None, flow.address.to_ip(), flow.port, flow.transport, decision.reason);
        match line {
            Some(line) => {
                prop_assert!(!decision.passes());
                let tables = MemoryTables::new(&compile(&remedied(&policy, &line)));
                prop_assert!(tables.decide(&flow).passes(), "{} for {:?}", line, flow);
            }
            None => prop_assert!(decision.passes() || flow.port == 0 || matches!(decision.reason.name(), "deny-rule" | "dns")),
        }
    }

    /// A mutation seen to fail here: only one half of a network looked at.
    #[test]
    fn a_rule_called_impossible_never_decides(policy in support::policy()) {
        let Err(errors) = loaded(&policy.to_yaml().unwrap()) else { return Ok(()) };
        let compiled = compile(&policy);
        let tables = MemoryTables::new(&compiled);
        for problem in &errors.0 {
            let Fault::Impossible(text) = &problem.fault else { continue };
            let rule = text.trim_start_matches('`').split('`').next().unwrap();
            for flow in destinations() {
                let decision = tables.decide(&Flow { local_port: 0, ..*flow });
                let named = compiled.rule(decision.rule).is_some_and(|named| named.text == rule);
                prop_assert!(!named, "`{}` decides about {:?}", rule, flow);
            }
        }
    }
}

#[test]
fn an_allow_cut_up_by_denies_is_impossible_only_if_nothing_is_left() {
    let rule = |action, network: &str, line| Rule {
        action,
        target: Target::Network(network.parse().unwrap()),
        ports: vec![policy::PortRange::ALL],
        transports: vec![egress_common::Transport::Tcp, egress_common::Transport::Udp],
        origin: file(line),
    };
    let allowed =
        "version: 1\nname: p\nallow: [{cidr: 10.0.0.0/24, ports: [1-65535], protocol: any}]\ndeny:\n";
    for (denies, impossible) in [
        (&["10.0.0.0/25", "10.0.0.128/25"][..], true),
        (&["10.0.0.0/25", "10.0.0.128/26", "10.0.0.192/26"], true),
        (&["10.0.0.0/25", "10.0.0.128/26", "10.0.0.192/27"], false),
        (&["10.0.0.0/25"], false),
        (&["10.0.0.0/23"], true),
    ] {
        let denies: Vec<Rule> = denies.iter().map(|network| rule(Action::Deny, network, 1)).collect();
        let lines: String = denies
            .iter()
            .map(|rule| match rule.target {
                Target::Network(network) => format!("  - cidr: {network}\n"),
                _ => String::new(),
            })
            .collect();
        assert_eq!(loaded(&format!("{allowed}{lines}")).is_err(), impossible, "{lines}");
    }
}
