//! The forms of a report, as people and programs read them.

use std::time::Duration;

use super::{
    super::{Finding, Told, table},
    *,
};

fn finding(id: &str, verdict: Verdict, at: &str, errno: i32) -> Finding {
    let (index, attack) = table::all().enumerate().find(|(_, attack)| attack.id == id).expect("in the table");
    let told = Told { at: at.into(), errno, longest: Duration::from_micros(40) };
    let note = (verdict == Verdict::Allowed).then(|| "a rule allows <it>".to_owned());
    Finding { index, attack, user: "ann".into(), verdict, control: told.clone(), enforced: told, note }
}

fn report(leak: bool) -> Report {
    let mut slow = finding("a-tcp6", Verdict::Contained, "connect", libc::ETIMEDOUT);
    slow.enforced.longest = Duration::from_millis(1_500);
    let mut findings = vec![
        finding("a-tcp4", Verdict::Contained, "connect", libc::EPERM),
        slow,
        finding("b-to4", Verdict::Allowed, "", 0),
        finding("m-fifo", Verdict::Known, "", 0),
        finding("m-alg", Verdict::NotPossible, "socket", libc::EAFNOSUPPORT),
    ];
    if leak {
        findings.insert(3, finding("l-join4", Verdict::Leaked, "", 0));
        findings.push(finding("o-udp", Verdict::Unknown, "", 0));
    }
    let (policy, users) = ("lab".to_owned(), vec!["ann".to_owned()]);
    Report { policy, users, findings, took: Duration::from_millis(12_340) }
}

#[test]
fn people_read_what_to_do() {
    insta::assert_snapshot!(text(&report(true), false), @r#"
    class                                       attempts  contained  leaked  not possible  known
    a TCP                                              2          2       0             0      0
    b UDP                                              0          0       0             0      0
    l broadcast and groups                             1          0       1             0      0
    m unix sockets and other families                  2          0       0             1      1
    o names                                            1          0       0             0      0
    all                                                6          2       1             1      1

    LEAKED l-join4 joining a group, IP_ADD_MEMBERSHIP (as ann): it arrived; the program saw: every call succeeded
      what to do: the hook `setsockopt` must refuse joins: see `egress doctor`
    UNKNOWN o-udp a server of one's own, UDP (as ann): it was not made, so nothing is known
    slow: a-tcp6 TCP over IPv6 (as ann): contained, but the program waited 1500 ms
    known: m-fifo: these need somebody outside who helps and whom no policy binds (SECURITY.md)
    not possible here, even without enforcement:
      as ann: EAFNOSUPPORT at socket: m-alg
    no attack under this policy: a rule allows <it>: b-to4

    1 leaked, 1 unknown, 2 contained (policy lab, as ann, 12.3 s)
    "#);
}

#[test]
fn people_read_that_nothing_leaked() {
    insta::assert_snapshot!(text(&report(false), false), @r#"
    class                                       attempts  contained  leaked  not possible  known
    a TCP                                              2          2       0             0      0
    b UDP                                              0          0       0             0      0
    m unix sockets and other families                  2          0       0             1      1
    all                                                4          2       0             1      1

    slow: a-tcp6 TCP over IPv6 (as ann): contained, but the program waited 1500 ms
    known: m-fifo: these need somebody outside who helps and whom no policy binds (SECURITY.md)
    not possible here, even without enforcement:
      as ann: EAFNOSUPPORT at socket: m-alg
    no attack under this policy: a rule allows <it>: b-to4

    nothing leaked: 2 attacks that get through without enforcement were contained (policy lab, as ann, 12.3 s)
    "#);
    assert!(text(&report(false), true).contains("\x1b[32m"));
}

#[test]
fn test_reports_count_leaks_as_failures() {
    insta::assert_snapshot!(junit(&report(true)), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <testsuites name="egress doctor --attack" tests="7" failures="2" time="12.340">
      <testsuite name="TCP" tests="2" failures="0" skipped="0">
        <testcase classname="TCP" name="a-tcp4 as ann: TCP over IPv4" time="0.000040"/>
        <testcase classname="TCP" name="a-tcp6 as ann: TCP over IPv6" time="1.500000"/>
      </testsuite>
      <testsuite name="UDP" tests="1" failures="0" skipped="1">
        <testcase classname="UDP" name="b-to4 as ann: UDP to an address, IPv4" time="0.000040"><skipped message="a rule allows &lt;it&gt;"/></testcase>
      </testsuite>
      <testsuite name="broadcast and groups" tests="1" failures="1" skipped="0">
        <testcase classname="broadcast and groups" name="l-join4 as ann: joining a group, IP_ADD_MEMBERSHIP" time="0.000040"><failure message="it arrived; the hook `setsockopt` must refuse joins: see `egress doctor`"/></testcase>
      </testsuite>
      <testsuite name="unix sockets and other families" tests="2" failures="0" skipped="2">
        <testcase classname="unix sockets and other families" name="m-fifo as ann: a named pipe that a process outside reads" time="0.000040"><skipped message="needs somebody outside who helps"/></testcase>
        <testcase classname="unix sockets and other families" name="m-alg as ann: socket of the family alg" time="0.000040"><skipped message="not possible here: EAFNOSUPPORT at socket"/></testcase>
      </testsuite>
      <testsuite name="names" tests="1" failures="1" skipped="0">
        <testcase classname="names" name="o-udp as ann: a server of one's own, UDP" time="0.000040"><failure message="it was not made, so nothing is known"/></testcase>
      </testsuite>
    </testsuites>
    "#);
}

#[test]
fn programs_read_every_finding() {
    let read: serde_json::Value = serde_json::from_str(&json(&report(true))).expect("JSON");
    assert_eq!(read["totals"]["leaked"], 1);
    assert_eq!(read["totals"]["not possible"], 1);
    assert_eq!(read["attacks"][3]["id"], "l-join4");
    assert_eq!(read["attacks"][3]["enforced"]["at"], serde_json::Value::Null);
    assert_eq!(read["attacks"][0]["enforced"]["errno"], libc::EPERM);
    assert!(read["attacks"][3]["advice"].is_string() && read["attacks"][0]["advice"].is_null());
    assert_eq!(read["attacks"][1]["slow"], true);
}
