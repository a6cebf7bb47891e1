//! Which questions are asked upstream, and what of an answer comes through.

use egress_tests::{Names, dns::asked_for};

use super::{POLICY, enforced, free, names, report, told};

/// A question, and what is heard: the response code and the data of the answers, and the reason that is told.
struct Row(&'static str, &'static str, &'static str, &'static [&'static str], &'static str);

const ROWS: &[Row] = &[
    Row("api.listed.example", "A", "NOERROR", &["A=203.0.113.10"], "listed"),
    Row("api.listed.example", "AAAA", "NOERROR", &["AAAA=2001:db8:10::10"], "listed"),
    Row("API.Listed.eXample", "A", "NOERROR", &["A=203.0.113.10"], "listed"),
    Row("secret.refused.example", "A", "NXDOMAIN", &[], "not-listed"),
    Row("secret.refused.example", "AAAA", "NXDOMAIN", &[], "not-listed"),
    Row("SECRET.Refused.example", "A", "NXDOMAIN", &[], "not-listed"),
    Row("secret.api.listed.example", "A", "NXDOMAIN", &[], "not-listed"),
    Row("secret.denied.example", "A", "NXDOMAIN", &[], "deny-rule"),
    // Types that the policy does not list.
    Row("api.listed.example", "TXT", "REFUSED", &[], "type"),
    Row("api.listed.example", "MX", "REFUSED", &[], "type"),
    Row("api.listed.example", "ANY", "REFUSED", &[], "type"),
    Row("api.listed.example", "AXFR", "REFUSED", &[], "type"),
    Row("api.listed.example", "NULL", "REFUSED", &[], "type"),
    Row("api.listed.example", "SRV", "REFUSED", &[], "type"),
    Row("api.listed.example", "TYPE65400", "REFUSED", &[], "type"),
    // Wildcards: whole labels, any depth, not the apex, not the suffix of a string.
    Row("one.wild.example", "A", "NOERROR", &["A=203.0.113.10"], "listed"),
    Row("deep.er.wild.example", "A", "NOERROR", &["A=203.0.113.10"], "listed"),
    Row("wild.example", "A", "NXDOMAIN", &[], "not-listed"),
    Row("secretwild.example", "A", "NXDOMAIN", &[], "not-listed"),
    Row("secret.evilwild.example", "A", "NXDOMAIN", &[], "not-listed"),
    Row("wild.example.secret.test", "A", "NXDOMAIN", &[], "not-listed"),
    Row("secret0123456789012345678901234567890123456789.wild.example", "A", "NXDOMAIN", &[], "label-bound"),
    Row(
        "secret.0123456789.0123456789.0123456789.0123456789.0123456789.0123456789.0123456789.0123456789.wild.example",
        "A",
        "NXDOMAIN",
        &[],
        "name-bound",
    ),
    // Aliases: followed, permitted under the name that was asked, judged by deny rules.
    Row(
        "alias.listed.example",
        "A",
        "NOERROR",
        &["CNAME=middle.cdn.example", "CNAME=edge.cdn.example", "A=203.0.113.10"],
        "listed",
    ),
    Row("edge.cdn.example", "A", "NXDOMAIN", &[], "not-listed"),
    Row("forbidden-alias.listed.example", "A", "NXDOMAIN", &[], "deny-rule"),
    // Addresses that a name may not have.
    Row("host.listed.example", "A", "NXDOMAIN", &[], "rebinding"),
    Row("private.listed.example", "A", "NXDOMAIN", &[], "rebinding"),
    Row("metadata.listed.example", "A", "NXDOMAIN", &[], "rebinding"),
    Row("multicast.listed.example", "A", "NXDOMAIN", &[], "rebinding"),
    Row("mapped.listed.example", "AAAA", "NXDOMAIN", &[], "rebinding"),
    Row("wrapped.listed.example", "AAAA", "NXDOMAIN", &[], "rebinding"),
    Row("mixed.listed.example", "A", "NOERROR", &["A=203.0.113.10"], "listed"),
    // What the server says otherwise.
    Row("cut.listed.example", "A", "NOERROR", &["A=203.0.113.10"], "listed"),
    Row(
        "alias.listed.example",
        "AAAA",
        "NOERROR",
        &["CNAME=middle.cdn.example", "CNAME=edge.cdn.example"],
        "listed",
    ),
    Row("broken.listed.example", "A", "SERVFAIL", &[], "upstream"),
    Row("localhost", "A", "NOERROR", &["A=127.0.0.1"], "local"),
];

/// All rows in one run, each asked over UDP; a line is heard for each.
#[test]
fn every_question_is_answered_as_the_policy_says() {
    let names = names();
    let run = names.run(POLICY);
    let asks: Vec<_> = ROWS.iter().map(|row| format!("askto 203.0.113.53:53 {} {}", row.0, row.1)).collect();
    let mut steps = vec!["socket inet dgram"];
    steps.extend(asks.iter().flat_map(|ask| [ask.as_str(), "?hear"]));
    let (ended, seen) = enforced(&names, &run, &steps);
    let mut heard = ended.heard().into_iter();
    let mut questions = ended.questions().into_iter();
    let mut faults = Vec::new();
    for (row, errno) in ROWS.iter().zip(ended.errnos("hear")) {
        let Row(name, kind, rcode, data, reason) = row;
        if errno != 0 {
            faults.push(format!("{name} {kind}: nothing heard, errno {errno}"));
            continue;
        }
        let line = heard.next().unwrap_or("");
        let words: Vec<_> = line.split(' ').skip(1).collect();
        let answers: Vec<_> =
            words.iter().filter(|word| data.contains(word) || word.contains("A=")).copied().collect();
        if words.get(..3) != Some(&[*rcode, *name, *kind]) || answers != *data {
            faults.push(format!("{name} {kind}: heard {line}"));
        }
        if *rcode == "NXDOMAIN" && !line.contains("extended=1") {
            faults.push(format!("{name} {kind}: no extended error: {line}"));
        }
        match questions.next() {
            Some(event) if event["name"] == name.to_ascii_lowercase() && event["reason"] == *reason => {}
            event => faults.push(format!("{name} {kind}: told {event:?}")),
        }
    }
    if seen.label("secret") || seen.strangers_asked() {
        faults.push("a refused name got out".to_owned());
    }
    for label in ["secretwild", "evilwild", "refused", "test"] {
        if asked_for(&seen.asked, label) {
            faults.push(format!("{label} was asked for"));
        }
    }
    let odd = seen.asked.iter().filter_map(|asked| asked.question.as_ref());
    let odd: Vec<_> = odd.filter(|question| !matches!(question.query_type, 1 | 28)).collect();
    if !odd.is_empty() {
        faults.push(format!("types asked upstream: {odd:?}"));
    }
    report(faults);
}

/// The rows can fail: asked without `egress`, the server hears of each name, of each type.
#[test]
fn without_enforcement_the_server_hears_of_every_row() {
    let names = names();
    let run = names.run(POLICY);
    let asks: Vec<_> = ROWS.iter().map(|row| format!("askto 203.0.113.53:53 {} {}", row.0, row.1)).collect();
    let mut steps = vec!["socket inet dgram"];
    steps.extend(asks.iter().flat_map(|ask| [ask.as_str(), "?hear"]));
    let (_, seen) = free(&names, &run, &steps);
    let asked: Vec<_> = seen.asked.iter().filter_map(|asked| asked.question.as_ref()).collect();
    let expected: Vec<_> = ROWS.iter().map(|row| row.0).collect();
    let found: Vec<_> = asked.iter().map(|question| question.name.as_str()).collect();
    assert_eq!(found, expected);
    assert!(seen.label("secret") && seen.label("evilwild"));
}

/// Neither the client's spelling nor its options go upstream.
#[test]
fn what_is_asked_upstream_is_our_own() {
    let names = names();
    let run = names.run(POLICY);
    let dig = |options: &[&str]| {
        let mut words = vec!["dig", "@203.0.113.53", "+tries=1", "+time=3"];
        words.extend(options);
        words.extend(["ApI.LiStEd.ExAmPlE", "A"]);
        words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()
    };
    let options = ["+cookie=0011223344556677", "+subnet=198.51.100.0/24", "+nsid"];
    let words = dig(&options);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (_, free) = names.free(&words);
    let question = free.asked[0].question.as_ref().expect("a question");
    assert_eq!(question.options, [3, 8, 10], "dig sends NSID, subnet and cookie");
    names.forget();
    let ended = run.run(&words);
    let seen = names.seen();
    assert_eq!(seen.asked.len(), 1, "{} {}", ended.stdout, ended.stderr);
    let question = seen.asked[0].question.as_ref().expect("a question");
    assert_eq!((question.name.as_str(), question.options.as_slice()), ("api.listed.example", &[][..]));
    assert!(ended.stdout.contains("ApI.LiStEd.ExAmPlE"), "the client's spelling: {}", ended.stdout);
    assert!(ended.stdout.contains("203.0.113.10"), "{}", ended.stdout);
}

/// Hints are addresses that nobody judged, and keys hide the name that a connection is for.
#[test]
fn service_records_come_without_hints_and_keys() {
    let names = names();
    let steps = ["socket inet dgram", "askto 203.0.113.53:53 api.listed.example HTTPS", "hear"];
    let run = names.run(POLICY);
    let (printed, _) = free(&names, &run, &steps);
    // "keys", and 203.0.113.66.
    assert!(printed.contains("6b657973") && printed.contains("cb007142"), "{printed}");
    let (ended, _) = enforced(&names, &run, &steps);
    let heard = ended.heard().join(" ");
    assert!(heard.contains("NOERROR api.listed.example HTTPS HTTPS=0001000001000302683"), "{heard}");
    assert!(!heard.contains("6b657973") && !heard.contains("cb007142"), "{heard}");
    let run = names.run(&format!("{POLICY}  ech: keep\n"));
    let (ended, _) = enforced(&names, &run, &steps);
    let heard = ended.heard().join(" ");
    assert!(heard.contains("6b657973") && !heard.contains("cb007142"), "{heard} {}", ended.stderr);
}

/// A refusal says who asked, and what.
#[test]
fn a_refused_question_is_told_with_its_process() {
    let names = names();
    let run = names.run(POLICY);
    let (ended, _) = enforced(
        &names,
        &run,
        &["socket inet dgram", "askto 203.0.113.53:53 secret.refused.example AAAA", "hear"],
    );
    let event = told(&ended, "secret.refused.example");
    assert_eq!(event["verdict"], "deny", "{event}");
    let text = event.to_string();
    for word in ["\"AAAA\"", "\"attempt\"", "not-listed", "203.0.113.53"] {
        assert!(text.contains(word), "{word} is missing: {event}");
    }
    for word in
        ["DENY", "secret.refused.example", "AAAA", "attempt[", "not-listed", "host: secret.refused.example"]
    {
        assert!(ended.stderr.contains(word), "{word} is missing: {}", ended.stderr);
    }
}

/// A policy may choose REFUSED for names, and more types.
#[test]
fn the_refusal_and_the_types_are_settings() {
    let names = names();
    let run = names.run(&format!("{POLICY}  refusal: refused\n  types: [A, TXT]\n"));
    let steps = [
        "socket inet dgram",
        "askto 203.0.113.53:53 secret.refused.example A",
        "hear",
        "askto 203.0.113.53:53 api.listed.example TXT",
        "hear",
        "askto 203.0.113.53:53 api.listed.example AAAA",
        "hear",
    ];
    let (ended, seen) = enforced(&names, &run, &steps);
    let rcodes: Vec<_> = ended.heard().iter().map(|line| line.split(' ').nth(1).unwrap_or("")).collect();
    assert_eq!(rcodes, ["REFUSED", "NOERROR", "REFUSED"], "{} {}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("TXT=some words"), "{}", ended.stdout);
    assert!(!seen.label("secret"));
}

/// One name a second more than the bound, each new, below a wildcard.
#[test]
fn new_names_below_a_wildcard_are_bounded() {
    let names = names();
    let run = names.run(&format!("{POLICY}  wildcard: {{ new-names: 5 }}\n"));
    let asks: Vec<_> = (0..10).map(|n| format!("askto 203.0.113.53:53 data{n}.wild.example A")).collect();
    let mut steps = vec!["socket inet dgram"];
    steps.extend(asks.iter().flat_map(|ask| [ask.as_str(), "hear"]));
    // A name that is known is not new.
    steps.extend(["askto 203.0.113.53:53 data0.wild.example A", "hear"]);
    let (ended, seen) = enforced(&names, &run, &steps);
    let asked = |n| asked_for(&seen.asked, &format!("data{n}"));
    assert_eq!((0..10).map(asked).collect::<Vec<_>>(), [[true; 5], [false; 5]].concat(), "{}", ended.stderr);
    let bounded = ended.questions().iter().filter(|event| event["reason"] == "rate-bound").count();
    assert_eq!(bounded, 5, "{:?}", ended.questions());
}

/// PTR questions are answered from what was answered before, and never asked.
#[test]
fn an_address_is_named_from_what_was_answered() {
    let names: Names = names();
    let run = names.run(POLICY);
    let steps = [
        "socket inet dgram",
        "askto 203.0.113.53:53 api.listed.example A",
        "hear",
        "askto 203.0.113.53:53 10.113.0.203.in-addr.arpa PTR",
        "hear",
        "askto 203.0.113.53:53 66.113.0.203.in-addr.arpa PTR",
        "hear",
    ];
    let (_, seen) = free(&names, &run, &steps);
    assert!(seen.label("in-addr"), "without egress it is asked");
    let (ended, seen) = enforced(&names, &run, &steps);
    let heard = ended.heard();
    assert_eq!(heard.len(), 3, "{} {}", ended.stdout, ended.stderr);
    assert!(heard[1].contains("PTR=api.listed.example"), "{heard:?}");
    assert!(heard[2].contains("NXDOMAIN"), "{heard:?}");
    assert!(!seen.label("in-addr"));
}

/// Audit answers everything, lets everything pass, and says what would have been refused.
#[test]
fn audit_answers_and_tells() {
    let names = names();
    let run = names.run(POLICY).option(&["--audit"]);
    let steps = [
        "socket inet dgram",
        "askto 203.0.113.53:53 secret.refused.example A",
        "hear",
        "askto 203.0.113.53:53 api.listed.example A",
        "hear",
        "socket inet stream",
        "connect 203.0.113.66:443",
    ];
    let (ended, seen) = enforced(&names, &run, &steps);
    assert!(ended.stdout.contains("NOERROR secret.refused.example A A=203.0.113.66"), "{}", ended.stdout);
    assert!(seen.label("secret"));
    let event = told(&ended, "secret.refused.example");
    assert_eq!((&event["verdict"], &event["reason"]), (&"audit".into(), &"not-listed".into()), "{event}");
    assert_eq!(told(&ended, "api.listed.example")["verdict"], "allow");
    assert_eq!(ended.summary("audit").0, 1, "the connection: {}", ended.stderr);
}

/// What `private: true` opens is answered; special addresses are not, whatever a rule says.
#[test]
fn a_rule_may_have_private_addresses() {
    let names = names();
    let run = names.run(&POLICY.replace("ports: [443] }", "ports: [443], private: true }"));
    let steps = [
        "socket inet dgram",
        "askto 203.0.113.53:53 private.listed.example A",
        "hear",
        "askto 203.0.113.53:53 metadata.listed.example A",
        "hear",
        "askto 203.0.113.53:53 wrapped.listed.example AAAA",
        "hear",
        "askto 203.0.113.53:53 multicast.listed.example A",
        "hear",
    ];
    let (ended, _) = enforced(&names, &run, &steps);
    let heard = ended.heard();
    let rcodes: Vec<_> = heard.iter().map(|line| line.split(' ').nth(1).unwrap_or("")).collect();
    assert_eq!(rcodes, ["NOERROR", "NXDOMAIN", "NXDOMAIN", "NXDOMAIN"], "{} {}", ended.stdout, ended.stderr);
    assert!(heard[0].contains("A=10.1.2.3"), "{heard:?}");
    assert_eq!(told(&ended, "metadata.listed.example")["dropped"][0]["address"], "169.254.169.254");
}

/// A client's own guess is no attempt: it is told as what it is, and quietly.
#[test]
fn a_search_suffix_is_no_attempt() {
    let names = names();
    let resolver = "search corp.test listed.example\nnameserver 203.0.113.53\n";
    let run = names.run(POLICY).cover("/etc/resolv.conf", resolver);
    names.forget();
    // One dot is enough to be asked as it is first: this name has none.
    let ended = run.run(&["getent", "ahostsv4", "api"]);
    let seen = names.seen();
    assert!(ended.stdout.contains("203.0.113.10"), "{} {}", ended.stdout, ended.stderr);
    assert!(!asked_for(&seen.asked, "corp"), "{:?}", seen.asked);
    let (ended, seen) = enforced(
        &names,
        &run,
        &["socket inet dgram", "askto 203.0.113.53:53 api.listed.example.corp.test A", "hear"],
    );
    assert!(ended.stdout.contains("NXDOMAIN"), "{}", ended.stdout);
    assert!(!asked_for(&seen.asked, "corp"), "{:?}", seen.asked);
    assert_eq!(told(&ended, "api.listed.example.corp.test")["reason"], "search");
    assert!(!ended.stderr.contains("DENY"), "{}", ended.stderr);
}
