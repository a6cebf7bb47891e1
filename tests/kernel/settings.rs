//! `sysctl` and `device`: kernel settings that root writes, and devices that carry packets past every socket.

use egress::enforce::KernelProgram;
use egress_common::{Hook, Reason, Verdict};
use egress_tests::{
    Attempt, Lab, policies,
    scope::{Scope, told},
};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// A setting of the lab's own network namespace.
const WRITE: &str = "write /proc/sys/net/ipv4/ip_default_ttl 64";

#[test]
fn root_writes_no_kernel_setting() {
    let lab = Lab::new().expect("the lab");
    assert_eq!(
        Attempt::new(&[WRITE]).run(&lab, None).expect("the attempt is made").failure(),
        None,
        "control"
    );
    let mut scope = Scope::open(&policies::lab()).expect("a scope");
    let (outcome, events) = scope.run(&lab, &Attempt::new(&[WRITE])).expect("the attempt is made");
    assert_eq!(outcome.failure(), Some(("write", libc::EPERM)));
    let told: Vec<_> = events.iter().map(told).collect();
    assert_eq!(told, [(Verdict::Deny, Hook::Sysctl, Reason::Sysctl)]);
    let (outcome, events) = scope
        .run(&lab, &Attempt::new(&["print /proc/sys/net/ipv4/ip_default_ttl"]))
        .expect("the attempt is made");
    assert_eq!((outcome.failure(), events.len()), (None, 0), "reading is no attempt");
}

#[test]
fn without_the_hook_root_writes_settings() {
    let lab = Lab::new().expect("the lab");
    let mut scope = without(KernelProgram::Sysctl);
    let (outcome, _) = scope.run(&lab, &Attempt::new(&[WRITE])).expect("the attempt is made");
    assert_eq!(outcome.failure(), None);
}

fn without(removed: KernelProgram) -> Scope {
    let rest: Vec<_> = KernelProgram::ALL.into_iter().filter(|program| *program != removed).collect();
    let mut scope = Scope::closed(&rest).expect("a scope");
    scope.enforced.open(&policies::lab(), 0).expect("a policy");
    scope
}

/// tun, mem, kmsg, a serial line, vhost-net, ppp, uverbs; and null, which everybody needs.
const DEVICES: [(u64, u64, bool); 8] = [
    (10, 200, true),
    (1, 1, true),
    (1, 11, true),
    (4, 64, true),
    (10, 238, true),
    (108, 0, true),
    (231, 192, true),
    (1, 3, false),
];

#[test]
fn devices_that_lead_past_sockets_are_closed() {
    let lab = Lab::new().expect("the lab");
    let places = tempfile::tempdir().expect("a directory");
    let (mut scope, mut without) =
        (Scope::open(&policies::lab()).expect("a scope"), without(KernelProgram::Device));
    for (major, minor, closed) in DEVICES {
        let path = places.path().join(format!("{major}-{minor}"));
        mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor)).expect("a node");
        let step = format!("open {}", path.display());
        let (outcome, events) = scope.run(&lab, &Attempt::new(&[&step])).expect("the attempt is made");
        let told: Vec<_> = events.iter().map(told).collect();
        if closed {
            assert_eq!(outcome.failure(), Some(("open", libc::EPERM)), "{major}:{minor}");
            assert_eq!(told, [(Verdict::Deny, Hook::Device, Reason::Device)], "{major}:{minor}");
            let event = events[0];
            assert_eq!((u64::from(event.protocol), u64::from(event.port)), (major, minor));
            let (outcome, _) = without.run(&lab, &Attempt::new(&[&step])).expect("the attempt is made");
            // There may be no such driver here, which the open then says.
            assert_ne!(outcome.failure(), Some(("open", libc::EPERM)), "{major}:{minor} without the hook");
        } else {
            assert_eq!((outcome.failure(), told.len()), (None, 0), "{major}:{minor}");
        }
    }
}
