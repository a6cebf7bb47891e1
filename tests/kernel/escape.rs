//! What root outside can do to a scope, and the supervisor sees: processes moved out, programs detached, pins removed.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::fd::AsRawFd as _,
    path::PathBuf,
    process::Child,
    time::Duration,
};

use egress::enforce::sys;
use egress_tests::{
    Cgroup, Lab, cgroup,
    run::{Run, eventually},
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);

fn lab() -> Lab {
    Lab::new().expect("the lab")
}

/// A run whose command sleeps; gives the command's process id.
fn sleeper(run: &Run<'_>) -> (Child, u32) {
    let mut child = run.command(&["sh", "-c", "echo $$; exec sleep 20"]).spawn().expect("egress starts");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("the command started");
    (child, line.trim().parse().expect("a process id"))
}

/// Lines may be half written.
fn escapes(run: &Run<'_>) -> Vec<Value> {
    let text = fs::read_to_string(run.events_file()).unwrap_or_default();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["type"] == "escape").collect()
}

fn pins(child: &Child) -> PathBuf {
    let name = format!("run-{}-", child.id());
    let entries = fs::read_dir("/sys/fs/bpf/egress").expect("the pins of runs").filter_map(Result::ok);
    let mut paths = entries.map(|entry| entry.path());
    paths.find(|path| path.display().to_string().contains(&name)).expect("the run's pins")
}

/// `BPF_LINK_DETACH`
fn detach(link: i32) {
    let link = u32::try_from(link).expect("a descriptor");
    // SAFETY: the attributes of this command are one number, and live through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, 34, &raw const link, size_of::<u32>()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn end(mut child: Child, process: u32) -> i32 {
    let process = nix::unistd::Pid::from_raw(process.try_into().expect("a process id"));
    let _ended = nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL);
    child.wait().expect("egress ends").code().unwrap_or(-1)
}

/// Mutation seen to fail here: what was moved taken for ended.
#[test]
fn a_process_that_is_moved_out_is_one_event() {
    let lab = lab();
    let run = Run::new(&lab);
    let (child, process) = sleeper(&run);
    let other = Cgroup::new().expect("a control group");
    // It has been seen inside by now: it is looked for as soon as the command has started.
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(escapes(&run), Vec::<Value>::new());
    fs::write(other.path().join("cgroup.procs"), process.to_string()).expect("move it");
    assert!(eventually(SOON, || !escapes(&run).is_empty()), "nothing was told");
    std::thread::sleep(Duration::from_millis(600));
    let seen = escapes(&run);
    assert_eq!(seen.len(), 1, "{seen:?}");
    let name = other.path().file_name().expect("a name").to_string_lossy().into_owned();
    assert_eq!((&seen[0]["reason"], &seen[0]["verdict"]), (&"cgroup".into(), &"allow".into()));
    assert_eq!(seen[0]["process"]["pid"], process);
    assert!(seen[0]["what"].as_str().expect("words").ends_with(&name), "{seen:?}");
    end(child, process);
    let events = run.events();
    let summary = events.last().expect("a summary");
    assert_eq!(summary["supervised"][0]["count"], 1, "{summary}");
    assert_eq!(summary["escapes"][0]["count"], 1, "{summary}");
}

#[test]
fn ending_is_no_escape() {
    let lab = lab();
    let ended = Run::new(&lab).run(&["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 0.2 & done; sleep 1"]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.events.iter().all(|event| event["type"] != "escape"), "{:?}", ended.events);
}

#[test]
fn a_move_within_the_scope_is_no_escape() {
    let lab = lab();
    let run = Run::new(&lab);
    let (child, process) = sleeper(&run);
    let name = format!("run-{}-", child.id());
    let place = cgroup::mount().expect("a mount").join("egress");
    let entries = fs::read_dir(place).expect("the runs").filter_map(Result::ok).map(|entry| entry.path());
    let scope =
        entries.into_iter().find(|path| path.display().to_string().contains(&name)).expect("the scope");
    std::thread::sleep(Duration::from_millis(400));
    fs::create_dir(scope.join("below")).expect("a control group below");
    fs::write(scope.join("below/cgroup.procs"), process.to_string()).expect("move it");
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(escapes(&run), Vec::<Value>::new());
    end(child, process);
}

#[test]
fn a_detached_program_and_a_removed_pin_are_an_event_each() {
    let lab = lab();
    let run = Run::new(&lab);
    let (child, process) = sleeper(&run);
    let pins = pins(&child);
    let link = sys::open_pin(&pins.join("connect4")).expect("the pin of connect4");
    detach(link.as_raw_fd());
    fs::remove_file(pins.join("packet")).expect("remove a pin");
    assert!(eventually(SOON, || escapes(&run).len() >= 2), "{:?}", escapes(&run));
    std::thread::sleep(Duration::from_millis(600));
    let seen: Vec<String> =
        escapes(&run).iter().map(|event| event["what"].as_str().expect("words").to_owned()).collect();
    assert_eq!(seen, ["detached connect4", "removed the pin of packet"]);
    end(child, process);
}

#[test]
fn on_demand_the_scope_is_killed() {
    let lab = lab();
    let run = Run::with_policy(&lab, "version: 1\nname: p\nallow: []\nescape: kill\n");
    let (mut child, process) = sleeper(&run);
    let other = Cgroup::new().expect("a control group");
    std::thread::sleep(Duration::from_millis(600));
    fs::write(other.path().join("cgroup.procs"), process.to_string()).expect("move it");
    let ended = eventually(SOON, || child.try_wait().expect("a child").is_some());
    assert!(ended, "the command lives on");
    assert_eq!(child.wait().expect("egress ends").code(), Some(137));
    assert_eq!(escapes(&run).len(), 1);
}
