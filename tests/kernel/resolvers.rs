//! Real resolvers, through `egress run`: an allowed name works, a refused one fails at once with the client's own words,
//! and nothing of it reaches a server. The same refused name without `egress` is found.
//!
//! What they need is in `packages.txt`.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use egress_tests::{Names, dns::asked_for, programs, run::at_best};

const ZONE: &str = "
    api.listed.example     60 A    203.0.113.10
    api.listed.example     60 AAAA 2001:db8:10::10
    secret.refused.example 60 A    203.0.113.66
    secret.refused.example 60 AAAA 2001:db8:66::66
";
const POLICY: &str = "version: 1
name: resolvers
allow:
  - { host: api.listed.example, ports: [80, 443] }
";
const GOOD: &str = "api.listed.example";
const BAD: &str = "secret.refused.example";
/// No refusal takes longer than twice the same client's other runs and this; a resolver's patience is 5 s.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A client: its words, in which `NAME` is the name, what it prints when all is well, what it prints about a name that
/// does not exist, and the exit code it then has.
struct Client<'a> {
    words: &'a [&'a str],
    found: &'a str,
    refused: &'a str,
    code: i32,
}

impl Client<'_> {
    fn check(&self) {
        self.check_with("nameserver 203.0.113.53\n");
    }

    fn check_with(&self, resolver: &str) {
        assert!(on_path(self.words[0]), "{} is missing: see packages.txt", self.words[0]);
        let names = Names::new(ZONE);
        let words = |name: &str| -> Vec<String> {
            self.words.iter().map(|word| word.replace("NAME", name)).collect()
        };
        let (output, seen) = names.free(&strings(&words(BAD)));
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{:?} without egress: {output:?}", words(BAD));
        assert!(!text.contains(self.refused) || self.refused.is_empty(), "without egress: {text}");
        assert!(seen.label("secret"), "{:?}: without egress the server must hear of it", words(BAD));

        // What the client says where the name does not exist is what it must say where it is refused.
        names.dns.change(&ZONE.replace("secret", "other"));
        let start = Instant::now();
        let (output, _) = names.free(&strings(&words(BAD)));
        let free_took = start.elapsed();
        let all = [output.stdout, output.stderr].concat();
        let all = String::from_utf8_lossy(&all);
        assert_eq!(output.status.code(), Some(self.code), "no such name: {all}");
        assert!(all.contains(&self.refused.replace("NAME", BAD)), "no such name: {all}");
        names.dns.change(ZONE);

        let run = names.run(POLICY).cover("/etc/resolv.conf", resolver);
        let start = Instant::now();
        let allowed = run.run(&strings(&words(GOOD)));
        let most = 2 * free_took.max(start.elapsed()) + AT_ONCE;
        let seen = names.seen();
        assert_eq!(allowed.code(), 0, "{:?}: {}{}", words(GOOD), allowed.stdout, allowed.stderr);
        assert!(allowed.stdout.contains(self.found), "{:?}: {}", words(GOOD), allowed.stdout);
        assert!(asked_for(&seen.asked, "api"), "the answer came from elsewhere");
        assert_eq!(
            allowed.summary("deny").0,
            0,
            "{:?}: {:?} {}",
            words(GOOD),
            allowed.denials(),
            allowed.stderr
        );

        names.forget();
        let start = Instant::now();
        let refused = run.run_apart(&strings(&words(BAD)));
        let took = start.elapsed();
        let seen = names.seen();
        assert!(
            !seen.label("secret") && !seen.strangers_asked(),
            "{:?} got out: {:?}",
            words(BAD),
            seen.asked
        );
        assert_eq!(refused.code(), self.code, "{:?}: {}{}", words(BAD), refused.stdout, refused.stderr);
        let said = &refused.stdout;
        assert!(said.contains(&self.refused.replace("NAME", BAD)), "{:?}: {said}", words(BAD));
        let took = at_best(took, most, || drop(run.run_apart(&strings(&words(BAD)))));
        assert!(took < most, "{:?} took {took:?}, which is more than {most:?}", words(BAD));
        let told = refused.questions().iter().filter(|event| event["name"] == BAD).count();
        assert!(told > 0, "{:?}: no event: {}", words(BAD), refused.stderr);
    }
}

fn strings(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn on_path(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    Path::new(program).exists() || found.is_ok_and(|found| found.status.success())
}

fn check(words: &[&str], found: &str, refused: &str, code: i32) {
    Client { words, found, refused, code }.check();
}

#[test]
fn glibc() {
    check(&["getent", "ahosts", "NAME"], "203.0.113.10", "", 2);
}

/// Several servers, one of which nobody has, options and a search list: as on a real machine.
#[test]
fn glibc_with_several_servers() {
    let resolver = "search corp.test other.test\nnameserver 203.0.113.53\nnameserver 203.0.113.53\n\
                    nameserver 2001:db8:53::53\noptions edns0 trust-ad use-vc\n";
    Client { words: &["getent", "ahosts", "NAME"], found: "203.0.113.10", refused: "", code: 2 }
        .check_with(resolver);
}

#[test]
fn curl() {
    check(&["curl", "-sS", "--max-time", "8", "http://NAME/"], "the page", "Could not resolve host: NAME", 6);
}

#[test]
fn wget() {
    check(
        &["wget", "-O-", "--tries=1", "--timeout=8", "http://NAME/"],
        "the page",
        "unable to resolve host address",
        4,
    );
}

#[test]
fn python3() {
    let script = "import socket, sys; print(socket.create_connection((sys.argv[1], 443), 8).getpeername())";
    check(&["python3", "-c", script, "NAME"], "2001:db8:10::10", "Name or service not known", 1);
}

#[test]
fn musl_static() {
    let program = programs::musl().display().to_string();
    check(&[&program, "NAME"], "connected", "Name does not resolve", 1);
}

#[test]
fn go_static() {
    let program = programs::go().display().to_string();
    check(&["env", "GODEBUG=netdns=go", &program, "NAME"], "connected to", "no such host", 1);
}

#[test]
fn node_by_the_c_library() {
    let script = programs::node().display().to_string();
    check(&["node", &script, "NAME", "lookup"], "connected to", "getaddrinfo ENOTFOUND NAME", 1);
}

#[test]
fn node_by_its_own_resolver() {
    let script = programs::node().display().to_string();
    check(&["node", &script, "NAME", "resolve4"], "connected to 203", "queryA ENOTFOUND NAME", 1);
    check(&["node", &script, "NAME", "resolve6"], "connected to 2001", "queryAaaa ENOTFOUND NAME", 1);
}

#[test]
fn java_by_the_c_library() {
    let classes = programs::java().display().to_string();
    check(&["java", "-cp", &classes, "Lookup", "NAME", "system"], "connected to", "UnknownHostException", 1);
}

#[test]
fn java_by_its_own_resolver() {
    let classes = programs::java().display().to_string();
    check(&["java", "-cp", &classes, "Lookup", "NAME", "own"], "203.0.113.10", "DNS name not found", 1);
}

#[test]
fn dig() {
    const DIG: [&str; 3] = ["dig", "+tries=1", "+time=4"];
    let nothing: &[&str] = &[];
    for options in [
        nothing,
        &["+tcp"],
        &["+edns=0", "+bufsize=4096"],
        &["+noedns"],
        &["+cookie"],
        &["+ignore"],
        &["@2001:db8:53::53"],
        &["@2001:db8:53::53", "+tcp"],
    ] {
        let words = [&DIG[..], options, &["NAME", "A"]].concat();
        check(&words, "203.0.113.10", "status: NXDOMAIN", 0);
    }
    check(&[&DIG[..], &["+short", "@2001:db8:53::53", "NAME", "AAAA"]].concat(), "2001:db8:10::10", "", 0);
}

#[test]
fn nslookup() {
    check(&["nslookup", "NAME"], "203.0.113.10", "server can't find NAME: NXDOMAIN", 1);
}
