//! The table's own laws, and what it says of a few kernels.

use std::{collections::BTreeSet, fs, path::PathBuf};

use super::*;
use crate::{
    enforce::{KernelProgram, LsmHook},
    policy,
};

/// A kernel with everything, and a launch that takes everything away.
fn everything() -> Capabilities {
    let mut capabilities = Capabilities { launched: true, ..Capabilities::default() };
    let guards = PATHS.iter().flat_map(|path| path.closed_by.iter().flat_map(|guards| guards.iter()));
    let mut lsm = BTreeSet::new();
    for guard in guards {
        match guard {
            Guard::Hook(name) => drop(capabilities.hooks.insert((*name).to_owned(), Hook::Active)),
            Guard::Lsm(name) => drop(lsm.insert((*name).to_owned())),
            Guard::Launch(restriction) => {
                capabilities.restrictions.insert(*restriction, Restricted::On("filter".to_owned()));
            }
            Guard::Hygiene => {}
        }
    }
    capabilities.lsm = LsmStatus::Active(lsm);
    capabilities
}

fn policy(text: &str) -> Policy {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("p.yaml");
    fs::write(&file, format!("version: 1\nname: p\nallow: []\n{text}")).unwrap();
    policy::load(&file, &[]).unwrap()
}

fn ids(capabilities: &Capabilities, text: &str) -> Vec<&'static str> {
    open(capabilities, &policy(text)).iter().map(|open| open.path.id).collect()
}

#[test]
fn each_path_has_a_name_of_its_own_and_stands_with_its_class() {
    let mut seen = BTreeSet::new();
    let mut classes: Vec<Class> = Vec::new();
    for path in PATHS {
        assert!(seen.insert(path.id), "{} twice", path.id);
        assert!(path.id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", path.id);
        if classes.last() != Some(&path.class) {
            assert!(!classes.contains(&path.class), "{} stands apart from its class", path.id);
            classes.push(path.class);
        }
        assert_eq!(path.closed_by.is_empty(), path.since.is_empty(), "{}", path.id);
        assert!(!path.closed_by.is_empty() || !path.left.is_empty(), "{}: what is left?", path.id);
        assert!(path.closed_by.iter().all(|guards| !guards.is_empty()), "{}", path.id);
    }
    assert!((40..=75).contains(&PATHS.len()), "{}", PATHS.len());
}

#[test]
fn every_hook_of_the_table_exists_and_every_hook_closes_something() {
    let named: BTreeSet<&str> = PATHS
        .iter()
        .flat_map(|path| path.closed_by.iter().flat_map(|guards| guards.iter()))
        .filter_map(|guard| if let Guard::Hook(name) = guard { Some(*name) } else { None })
        .collect();
    let known: BTreeSet<&str> = KernelProgram::ALL.iter().map(|program| program.name()).collect();
    let unknown: Vec<_> = named.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // These show addresses, or tell the broker of a socket, and close nothing.
    let cosmetic = ["recvmsg4", "recvmsg6", "getpeername4", "getpeername6", "getsockname_unix"];
    let unused: Vec<_> = known.difference(&named).filter(|name| !cosmetic.contains(*name)).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

/// Mutation seen to fail here: the guard `task_kill` left out of `signals`.
#[test]
fn the_hooks_of_lsm_are_those_of_the_table() {
    let guards = PATHS.iter().flat_map(|path| path.closed_by.iter().flat_map(|guards| guards.iter()));
    let named: BTreeSet<&str> =
        guards.filter_map(|guard| if let Guard::Lsm(name) = guard { Some(*name) } else { None }).collect();
    assert_eq!(named, LsmHook::ALL.iter().map(|hook| hook.name()).collect());
}

#[test]
fn every_restriction_closes_something() {
    // Mutation seen to fail here: the row `terminal` left out.
    for restriction in Restriction::ALL {
        let uses =
            |path: &&Path| path.closed_by.iter().any(|guards| guards.contains(&Guard::Launch(restriction)));
        assert!(PATHS.iter().any(|path| uses(&path)), "{restriction:?}");
    }
}

#[test]
fn a_kernel_with_everything_leaves_nothing_open() {
    assert_eq!(ids(&everything(), ""), [""; 0]);
}

#[test]
fn nothing_at_all_leaves_open_what_could_be_closed_the_worst_first() {
    let nothing = Capabilities::default();
    let closable = PATHS.iter().filter(|path| !path.closed_by.is_empty()).count();
    let open = open(&nothing, &policy(""));
    assert_eq!(open.len(), closable);
    assert!(open.is_sorted_by_key(|open| open.path.severity));
    assert!(open.iter().all(|open| !open.why.is_empty()));
}

#[test]
fn a_missing_hook_opens_what_only_it_closes() {
    // Mutation seen to fail here: one guard of several enough.
    let mut capabilities = everything();
    capabilities.hooks.insert("setsockopt".to_owned(), Hook::Missing("x".to_owned()));
    let open = ids(&capabilities, "");
    assert!(open.contains(&"membership") && open.contains(&"source-route"), "{open:?}");
    assert!(!open.contains(&"tcp"), "{open:?}");
}

#[test]
fn without_lsm_and_unix_hooks_it_is_the_launch_that_closes_unix_sockets() {
    let mut capabilities = everything();
    capabilities.lsm = LsmStatus::default();
    capabilities.hooks.remove("connect_unix");
    assert_eq!(ids(&capabilities, ""), [""; 0]);
    let judged = Restricted::NotNeeded("judged".to_owned());
    capabilities.restrictions.insert(Restriction::UnixSockets, judged);
    let open = ids(&capabilities, "");
    assert!(open.contains(&"unix-path") && open.contains(&"unix-abstract"), "{open:?}");
    assert!(!ids(&capabilities, "unix: any").contains(&"unix-path"));
}

#[test]
fn a_scope_without_a_launch_has_what_only_a_launch_closes_open() {
    let mut capabilities = everything();
    (capabilities.launched, capabilities.lsm) = (false, LsmStatus::Refused("EPERM".to_owned()));
    capabilities.restrictions.clear();
    let open = ids(&capabilities, "");
    for id in ["packet", "inherited", "cgroup-procs", "ptrace", "bpf"] {
        assert!(open.contains(&id), "{id}: {open:?}");
    }
    assert!(!open.contains(&"tcp") && !open.contains(&"tun"), "{open:?}");
}

#[test]
fn what_was_given_back_is_said() {
    let mut capabilities = everything();
    capabilities.lsm = LsmStatus::default();
    capabilities.restrictions.insert(Restriction::Ptrace, Restricted::Lifted(Lifted::Option));
    let open = open(&capabilities, &policy(""));
    let ptrace = open.iter().find(|open| open.path.id == "ptrace").unwrap();
    assert_eq!(ptrace.why, "given back by `--permit ptrace`");
    // The hooks close io_uring by themselves.
    capabilities.restrictions.insert(Restriction::IoUring, Restricted::Lifted(Lifted::Policy));
    assert!(!ids(&capabilities, "").contains(&"io-uring"));
}

#[test]
fn what_the_policy_opens_is_no_open_path() {
    let find = |id| PATHS.iter().find(|path| path.id == id).unwrap();
    let nothing = Capabilities::default();
    for (id, text) in
        [("loopback", "loopback: any"), ("unix-path", "unix: any"), ("inbound", "inbound: allow")]
    {
        assert_eq!(find(id).state(&nothing, &policy(text)), State::ByPolicy(text));
        assert!(matches!(find(id).state(&nothing, &policy("")), State::Open(_)), "{id}");
    }
    assert_eq!(find("allowed").state(&everything(), &policy("")), State::Beyond);
}

/// SECURITY.md has the table; `EGRESS_UPDATE=1` writes it.
#[test]
fn security_md_has_this_table() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../SECURITY.md");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the line that begins the table");
    let (_, after) = rest.split_once(END).expect("the line that ends the table");
    let expected = format!("{before}{BEGIN}\n{}{END}{after}", table());
    if std::env::var_os("EGRESS_UPDATE").is_some() {
        fs::write(&file, &expected).unwrap();
    }
    assert!(
        fs::read_to_string(&file).unwrap() == expected,
        "SECURITY.md differs: run this test with EGRESS_UPDATE=1"
    );
}
