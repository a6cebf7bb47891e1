//! What tests and runs whose process is gone have left behind: nothing.

use std::{fs, path::Path, time::Duration};

use egress_tests::{cgroup, run::eventually};

/// Directories named after a process that is gone.
fn left() -> Vec<String> {
    let mount = cgroup::mount().expect("a mount");
    let places = [mount.clone(), mount.join("egress"), "/sys/fs/bpf".into(), "/sys/fs/bpf/egress".into()];
    let mut found = Vec::new();
    for place in places {
        for entry in fs::read_dir(place).into_iter().flatten().filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let rest = name.strip_prefix("egress-lab-").or_else(|| name.strip_prefix("run-"));
            let process = rest.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}

#[test]
fn nothing_is_left_of_what_is_gone() {
    egress_tests::require_root();
    // A keeper may still be about to tidy up.
    eventually(Duration::from_secs(10), || left().is_empty());
    assert_eq!(left(), [""; 0]);
}
