//! Clients in a network namespace of their own: a listener comes to them, or nothing answers; nothing gets out.

use egress_tests::{Names, run::Run};

use super::{POLICY, enforced, names};

const ASK: [&str; 3] = ["socket inet dgram", "askto 203.0.113.53:53 api.listed.example A", "hear"];

/// A run whose command may make namespaces, as root too.
fn apart(names: &Names) -> Run<'_> {
    names.run(POLICY).option(&["--permit", "userns"])
}

#[test]
fn a_namespace_of_its_own_gets_a_listener() {
    let names = names();
    for user in ["root", "nobody"] {
        let run = apart(&names).option(&["--user", user]);
        let refused = ["askto 203.0.113.53:53 secret.refused.example A", "hear"];
        let steps = [&["namespace", "lo"], &ASK[..], &refused].concat();
        let (ended, seen) = enforced(&names, &run, &steps);
        let heard = ended.heard();
        assert_eq!(heard.len(), 2, "{user}: {} {}", ended.stdout, ended.stderr);
        assert!(
            heard[0].starts_with("203.0.113.53:53 NOERROR api.listed.example A A=203.0.113.10"),
            "{heard:?}"
        );
        assert!(heard[1].starts_with("203.0.113.53:53 NXDOMAIN secret.refused.example"), "{heard:?}");
        assert!(!seen.label("secret") && !seen.strangers_asked(), "{user}");
    }
}

#[test]
fn it_answers_over_ipv6_and_tcp_too() {
    let names = names();
    let run = apart(&names);
    let steps = [
        "namespace",
        "lo",
        "socket inet6 dgram",
        "askto [2001:db8:53::53]:53 api.listed.example A",
        "hear",
        "socket inet stream",
        "connect 203.0.113.53:53",
        "ask api.listed.example A",
        "hear",
        "socket inet6 dgram",
        "askto [::ffff:203.0.113.53]:53 api.listed.example A",
        "hear",
    ];
    let (ended, _) = enforced(&names, &run, &steps);
    let from: Vec<_> = ended.heard().iter().map(|line| line.split(' ').next().unwrap_or("")).collect();
    assert_eq!(
        from,
        ["[2001:db8:53::53]:53", "203.0.113.53:53", "[::ffff:203.0.113.53]:53"],
        "{} {}",
        ended.stdout,
        ended.stderr
    );
}

/// The first of all questions may be one over TCP: it has no payload that could be carried to userspace, so the kernel's
/// own second try, a second later, is the one that finds the listener.
#[test]
fn a_first_question_over_tcp_is_answered() {
    let names = names();
    let run = apart(&names);
    let steps = [
        "namespace",
        "lo",
        "socket inet stream",
        "patience 3000",
        "connect 203.0.113.53:53",
        "ask api.listed.example A",
        "hear",
    ];
    let (ended, _) = enforced(&names, &run, &steps);
    assert_eq!(ended.heard().len(), 1, "{} {}", ended.stdout, ended.stderr);
}

/// Without a loopback device there is no way to a listener: an error at once, and one that is told.
#[test]
fn without_loopback_it_fails_at_once_and_is_told() {
    let names = names();
    let run = apart(&names);
    let steps = [
        "namespace",
        "socket inet dgram",
        "?connect 203.0.113.53:53",
        "socket inet dgram",
        "?askto 203.0.113.53:53 secret.refused.example A",
        "socket inet stream",
        "?connect 203.0.113.53:53",
    ];
    let (ended, seen) = enforced(&names, &run, &steps);
    let errnos = [ended.errnos("connect"), ended.errnos("askto")].concat();
    assert_eq!(errnos.len(), 3, "{}", ended.stdout);
    assert!(errnos.iter().all(|errno| [libc::EPERM, libc::ENETUNREACH].contains(errno)), "{errnos:?}");
    assert!(!seen.label("secret"));
    let told = ended.questions().into_iter().chain(ended.denials()).next();
    let told = told.unwrap_or_else(|| panic!("no event: {:?} {}", ended.events, ended.stderr));
    assert!(told.to_string().contains("no-listener"), "{told}");
}

/// More sockets at a time than are looked at in one go, where there can be no listener: other namespaces get theirs all the
/// same. Seen to fail with what one look left in the ring forgotten.
#[test]
fn many_sockets_elsewhere_do_not_keep_listeners_away() {
    let names = names();
    let run = apart(&names);
    let program = run.program();
    let sockets = "'socket inet dgram' ".repeat(1_000);
    let ask = ASK.map(|step| format!("'{step}'")).join(" ");
    let script = format!("{program} namespace {sockets} > /dev/null; {program} namespace lo {ask}");
    let ended = run.run(&["sh", "-c", &script]);
    let heard = ended.heard();
    assert_eq!(heard.len(), 1, "{} {}", ended.stdout, ended.stderr);
    assert!(heard[0].starts_with("203.0.113.53:53 NOERROR api.listed.example A A=203.0.113.10"), "{heard:?}");
}

/// What a namespace's listener answers is a permit in the scope: the same program goes on in the first namespace.
#[test]
fn two_namespaces_at_a_time_are_told_apart() {
    let names = names();
    let run = apart(&names);
    let program = run.program();
    // The shell's other child asks from the first namespace meanwhile.
    let script = format!(
        "{program} namespace lo 'socket inet dgram' 'askto 203.0.113.53:53 api.listed.example A' hear \
         'sleep 200' 'askto 203.0.113.53:53 slow.listed.example A' hear > {dir}/one & \
         {program} 'socket inet dgram' 'askto 203.0.113.53:53 slow.listed.example A' hear \
         'askto 203.0.113.53:53 api.listed.example A' hear > {dir}/two; wait",
        dir = run.directory().display()
    );
    names.forget();
    let ended = run.run(&["sh", "-c", &script]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    for (file, expected) in [("one", ["api", "slow"]), ("two", ["slow", "api"])] {
        let text = std::fs::read_to_string(run.directory().join(file)).expect("its output");
        let heard: Vec<_> = text.lines().filter(|line| line.contains("NOERROR")).collect();
        assert_eq!(heard.len(), 2, "{file}: {text} {}", ended.stderr);
        assert!(heard.iter().zip(expected).all(|(line, name)| line.contains(name)), "{file}: {text}");
    }
}
