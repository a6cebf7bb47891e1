//! Ping by policy: `protocol: icmp` makes ping sockets possible, and every echo request is judged.

use egress_common::{Hook, Reason, Verdict};
use egress_tests::{
    Attempt, Lab,
    cases::Told,
    policies,
    scope::{Scope, told},
};

const POLICY: &str = "version: 1
name: ping
allow:
  - { cidr: 203.0.113.0/24, protocol: icmp }
  - { cidr: 2001:db8:10::10/128, protocol: icmp }
  - { cidr: 198.51.100.0/24, protocol: any }
deny:
  - { cidr: 203.0.113.64/26 }
";

/// Socket and destination, by what the policy above says of them: the event, and the reason of a refusal.
const ECHOES: [(&str, &str, Option<Reason>); 5] = [
    ("inet dgram 1", "203.0.113.10:0", None),
    ("inet6 dgram 58", "[2001:db8:10::10]:0", None),
    ("inet dgram 1", "203.0.113.66:0", Some(Reason::DenyRule)),
    ("inet6 dgram 58", "[2001:db8:66::66]:0", Some(Reason::NoRule)),
    ("inet dgram 1", "127.0.0.2:0", None),
];

fn steps(socket: &str, to: &str) -> [String; 3] {
    let echo = if socket.starts_with("inet6") { "80" } else { "08" };
    [format!("socket {socket}"), format!("hexto {to} {echo}0000000000000061636861"), "receive".to_owned()]
}

/// Mutations seen to fail here: `Scope.icmp` left at 0; a denial without port and protocol that spares ping.
#[test]
fn echo_requests_go_where_the_policy_says() {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::open(&policies::compiled(POLICY)).expect("a scope");
    for (socket, to, refused) in ECHOES {
        let steps = steps(socket, to);
        let steps = steps.each_ref().map(String::as_str);
        lab.forget();
        let control = Attempt::new(&steps).run(&lab, None).expect("the attempt is made");
        assert_eq!(control.failure(), None, "{to}: nothing gets out even without enforcement");
        lab.forget();
        let (outcome, events) = scope.run(&lab, &Attempt::new(&steps)).expect("the attempt is made");
        let events: Vec<Told> = events.iter().map(told).collect();
        let sent = lab.frames().iter().any(|frame| frame.carries("acha"));
        match refused {
            None => {
                assert_eq!(outcome.failure(), None, "{to}: {events:?}");
                assert!(events.iter().all(|told| told.0 == Verdict::Allow), "{to}: {events:?}");
            }
            Some(reason) => {
                // For IPv6 the kernel does not tell a ping socket what became of its packet.
                let errno = if socket.starts_with("inet6") { libc::EAGAIN } else { libc::EPERM };
                assert_eq!(outcome.failure().map(|(_, errno)| errno), Some(errno), "{to}");
                let denied = events.iter().any(|told| told.0 == Verdict::Deny && told.2 == reason);
                assert!(denied && !sent, "{to}: {events:?}");
            }
        }
    }
}

#[test]
fn without_a_rule_for_ping_there_is_no_socket_for_it() {
    let lab = Lab::new().expect("the lab");
    let mut scope = Scope::open(&policies::lab_and("loopback: any\n")).expect("a scope");
    for socket in ["inet dgram 1", "inet6 dgram 58"] {
        let step = format!("socket {socket}");
        let (outcome, events) = scope.run(&lab, &Attempt::new(&[&step])).expect("the attempt is made");
        assert_eq!(outcome.failure(), Some(("socket", libc::EPROTONOSUPPORT)), "{socket}");
        let events: Vec<Told> = events.iter().map(told).collect();
        assert_eq!(events, [(Verdict::Deny, Hook::Create, Reason::SocketType)], "{socket}");
    }
}
