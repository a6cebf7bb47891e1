//! The permit is in the kernel before the answer is with the client, and ends when its time is over.

use egress_tests::{dns::asked_for, network::reached};

use super::{POLICY, SERVER, enforced, free, names, told};

const STREAM: &str = "socket inet stream";
const DGRAM: &str = "socket inet dgram";

/// What a name opens is what its answers say, on the ports of its rules, and not before the answer.
#[test]
fn an_answer_opens_its_addresses_and_nothing_else() {
    let names = names();
    let run = names.run(POLICY);
    let steps = [
        STREAM,
        "?connect 203.0.113.10:443",
        DGRAM,
        "askto 203.0.113.53:53 api.listed.example A",
        "hear",
        STREAM,
        "?connect 203.0.113.10:443",
        STREAM,
        "?connect 203.0.113.10:444",
        "socket inet6 stream",
        "?connect [2001:db8:10::10]:443",
        STREAM,
        "?connect 203.0.113.66:443",
        DGRAM,
        "askto 203.0.113.53:53 secret.refused.example A",
        "hear",
        STREAM,
        "?connect 203.0.113.66:443",
    ];
    let (printed, seen) = free(&names, &run, &steps);
    assert!(reached(&seen.frames, "203.0.113.66".parse().expect("an address")), "{printed}");
    let (ended, seen) = enforced(&names, &run, &steps);
    let eperm = libc::EPERM;
    assert_eq!(ended.errnos("connect"), [eperm, 0, eperm, eperm, eperm, eperm], "{}", ended.stderr);
    assert!(!reached(&seen.frames, "203.0.113.66".parse().expect("an address")));
    let allowed = ended.events.iter().find(|event| event["type"] == "attempt" && event["verdict"] == "allow");
    let allowed = allowed.expect("an allowed attempt");
    assert_eq!((&allowed["reason"], &allowed["name"]), (&"permit".into(), &"api.listed.example".into()));
}

/// Denials say what an address was last answered for, or that no answer ever gave it.
#[test]
fn a_denial_says_where_the_address_comes_from() {
    let names = names();
    let run = names.run(POLICY);
    let steps = [
        DGRAM,
        "askto 203.0.113.53:53 api.listed.example A",
        "hear",
        STREAM,
        "?connect 203.0.113.10:444",
        STREAM,
        "?connect 203.0.113.66:443",
    ];
    let (ended, _) = enforced(&names, &run, &steps);
    let denials = ended.denials();
    assert_eq!(denials.len(), 2, "{}", ended.stderr);
    assert!(denials[0].to_string().contains("api.listed.example"), "{}", denials[0]);
    assert!(ended.stderr.contains("literal address"), "{}", ended.stderr);
    assert!(!denials[1].to_string().contains("api.listed.example"), "{}", denials[1]);
}

/// Several names behind one address: the event of the flow has them all, and a refused name stays refused beside it.
#[test]
fn a_shared_address_is_told_with_all_its_names() {
    let names = names();
    let run = names.run(POLICY);
    let steps = [
        DGRAM,
        "askto 203.0.113.53:53 api.listed.example A",
        "hear",
        "askto 203.0.113.53:53 alias.listed.example A",
        "hear",
        "askto 203.0.113.53:53 edge.cdn.example A",
        "hear",
        STREAM,
        "connect 203.0.113.10:443",
    ];
    let (ended, _) = enforced(&names, &run, &steps);
    let allowed = ended.events.iter().find(|event| event["type"] == "attempt" && event["verdict"] == "allow");
    let allowed = allowed.expect("an allowed attempt");
    let opened: Vec<_> = allowed["names"].as_array().expect("a list of names").iter().collect();
    assert!(
        ["api.listed.example", "alias.listed.example"].iter().all(|name| opened.contains(&&(*name).into()))
    );
    assert!(!opened.contains(&&"edge.cdn.example".into()), "{allowed}");
    assert!(ended.heard()[2].contains("NXDOMAIN"), "{}", ended.stdout);
}

/// With `eager`, exact names are open before anybody asks; what the hosts file says always is.
#[test]
fn what_is_known_at_the_start_is_open_at_the_start() {
    let names = names();
    let steps = [
        STREAM,
        "?connect 203.0.113.13:443",
        STREAM,
        "?connect 203.0.113.77:443",
        STREAM,
        "?connect 203.0.113.78:443",
    ];
    let eperm = libc::EPERM;
    let (ended, seen) = enforced(&names, &names.run(POLICY), &steps);
    assert_eq!(ended.errnos("connect"), [eperm; 3], "{}", ended.stderr);
    assert!(seen.asked.is_empty(), "nobody asked, yet the server was: {:?}", seen.asked);
    let hosts =
        "127.0.0.1 localhost\n203.0.113.77 slow.listed.example\n203.0.113.78 secret.refused.example\n";
    let (ended, _) = enforced(&names, &names.run(POLICY).cover("/etc/hosts", hosts), &steps);
    assert_eq!(ended.errnos("connect"), [eperm, 0, eperm], "{}", ended.stderr);
    let (ended, seen) = enforced(&names, &names.run(&format!("{POLICY}  eager: true\n")), &steps);
    assert_eq!(ended.errnos("connect"), [0, eperm, eperm], "{}", ended.stderr);
    assert!(!seen.label("wild") && !seen.label("secret"), "{:?}", seen.asked);
}

/// One upstream question, a thousand clients, and nobody comes before the permit.
#[test]
fn a_thousand_lookups_at_once_are_all_permitted() {
    let names = names();
    let run = names.run(POLICY);
    for name in ["slow.listed.example", "api.listed.example"] {
        let storm = format!("storm {SERVER} {name} A 1000 443");
        let (ended, seen) = enforced(&names, &run, &[&storm]);
        assert_eq!(ended.errnos("storm"), [0], "{name}: {} {}", ended.stdout, ended.stderr);
        assert_eq!(ended.summary("deny").0, 0, "{name}: {}", ended.stderr);
        assert_eq!(seen.asked.len(), 1, "{name}: one question is enough: {}", seen.asked.len());
    }
}

/// 500 addresses, fifteen with each answer, none of which the client may keep, and egress for a second only.
#[test]
fn a_name_that_rotates_is_followed() {
    let names = names();
    let run = names.run(POLICY);
    let follow = format!("follow {SERVER} rotating.listed.example AAAA 34 443");
    let (ended, seen) = enforced(&names, &run, &[&follow]);
    assert_eq!(ended.heard(), ["met 500"], "{} {}", ended.stdout, ended.stderr);
    assert_eq!(ended.summary("deny").0, 0, "{}", ended.stderr);
    assert_eq!(seen.asked.len(), 34);
}

/// However short an answer lives, its client gets to connect.
#[test]
fn short_lives_are_long_enough() {
    let names = names();
    let run = names.run(POLICY);
    for (name, address, most) in [
        ("zero.listed.example", "203.0.113.11", 0),
        ("second.listed.example", "203.0.113.12", 1),
        ("five.listed.example", "203.0.113.13", 5),
        ("api.listed.example", "203.0.113.10", 60),
    ] {
        let ask = format!("askto {SERVER} {name} A");
        let connect = format!("connect {address}:443");
        // At the very end of the time that the client was given.
        let wait = format!("sleep {}", if most == 1 { 990 } else { 5 });
        let steps = [DGRAM, &ask, "hear", &wait, STREAM, &connect];
        let (ended, _) = enforced(&names, &run, &steps);
        assert_eq!(ended.errnos("connect"), [0], "{name}: {} {}", ended.stdout, ended.stderr);
        let heard = ended.heard()[0];
        let ttl = heard.rsplit("ttl=").next().and_then(|ttl| ttl.parse::<u32>().ok());
        assert!(ttl.is_some_and(|ttl| ttl <= most), "{name}: {heard}");
    }
}

/// The table is full: the new lookup fails and says so, what is open stays open.
#[test]
fn a_full_table_fails_the_new_lookup_alone() {
    let names = names();
    let run = names.run(POLICY).option(&["--max-permits", "1"]);
    let steps = [
        DGRAM,
        "askto 203.0.113.53:53 api.listed.example A",
        "hear",
        "askto 203.0.113.53:53 five.listed.example A",
        "hear",
        STREAM,
        "connect 203.0.113.10:443",
        STREAM,
        "?connect 203.0.113.13:443",
        DGRAM,
        "askto 203.0.113.53:53 api.listed.example A",
        "hear",
    ];
    let (ended, _) = enforced(&names, &run, &steps);
    let rcodes: Vec<_> = ended.heard().iter().map(|line| line.split(' ').nth(1).unwrap_or("")).collect();
    assert_eq!(rcodes, ["NOERROR", "SERVFAIL", "NOERROR"], "{} {}", ended.stdout, ended.stderr);
    assert_eq!(ended.errnos("connect"), [0, libc::EPERM], "{}", ended.stdout);
    assert_eq!(told(&ended, "five.listed.example")["reason"], "no-permit");
}

/// A second answer within the first one's time comes from memory; the server is not asked again.
#[test]
fn what_is_known_is_not_asked_again() {
    let names = names();
    let run = names.run(POLICY);
    let ask = "askto 203.0.113.53:53 api.listed.example A";
    let (ended, seen) = enforced(&names, &run, &[DGRAM, ask, "hear", ask, "hear", ask, "hear"]);
    assert_eq!(ended.heard().len(), 3, "{}", ended.stderr);
    assert_eq!(seen.asked.len(), 1);
    assert!(asked_for(&seen.asked, "api"));
}

/// Permits last at least 5 s and what clients get on top, 30 s. Then the address is closed, and the denial says whose it was.
#[test]
fn an_expired_permit_is_named() {
    let names = names();
    let run = names.run(POLICY);
    let steps = [
        DGRAM,
        "askto 203.0.113.53:53 second.listed.example A",
        "hear",
        "sleep 36000",
        STREAM,
        "?connect 203.0.113.12:443",
        DGRAM,
        "askto 203.0.113.53:53 second.listed.example A",
        "hear",
        STREAM,
        "?connect 203.0.113.12:443",
    ];
    let (ended, _) = enforced(&names, &run, &steps);
    assert_eq!(ended.errnos("connect"), [libc::EPERM, 0], "{} {}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("expired permit for second.listed.example"), "{}", ended.stderr);
    assert_eq!(ended.denials()[0]["reason"], "expired", "{}", ended.denials()[0]);
}
