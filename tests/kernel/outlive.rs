//! What lives longer than `egress run`: enforcement, for as long as the command's processes do, and nothing else.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::fd::AsRawFd as _,
    path::Path,
    time::Duration,
};

use egress::enforce::sys;
use egress_tests::{
    Cgroup, Lab, cgroup,
    foreign::Foreign,
    network::{address::BAD4, reached},
    run::{Run, eventually},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const SOON: Duration = Duration::from_secs(5);

fn lab() -> Lab {
    Lab::new().expect("the lab")
}

/// Whether a run of this process id has left a control group, pins or a process behind.
fn left_by(run: u32) -> Vec<String> {
    let name = format!("run-{run}-");
    let mut left = Vec::new();
    for place in [cgroup::mount().expect("a mount").join("egress"), "/sys/fs/bpf/egress".into()] {
        let entries = fs::read_dir(&place).into_iter().flatten().filter_map(Result::ok);
        let names = entries.map(|entry| entry.path().display().to_string());
        left.extend(names.filter(|path| path.contains(&name)));
    }
    left
}

/// Starts an attempt that sleeps, tries, sleeps, tries again; returns once it is inside.
fn sleeper(run: &Run<'_>, steps: &[&str]) -> (std::process::Child, u32) {
    let program = run.program();
    let mut command = vec![program.as_str(), "sleep 1"];
    command.extend(steps);
    let mut child = run.command(&command).spawn().expect("egress starts");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("the command started");
    let inside = contained_by(child.id());
    (child, inside)
}

/// The process id of the command of the run of this process id.
fn contained_by(run: u32) -> u32 {
    let left = left_by(run);
    let group = left.iter().find(|path| path.contains("cgroup")).expect("the run's control group");
    let procs = fs::read_to_string(Path::new(group).join("cgroup.procs")).expect("its processes");
    procs.trim().parse().expect("one process")
}

/// Killed at whatever moment, nothing gets out, and after the next run nothing is left.
#[test]
fn a_kill_at_any_moment_leaks_nothing() {
    let lab = lab();
    let run = Run::new(&lab);
    let program = run.program();
    let try_again = ["socket inet stream", "?connect 203.0.113.66:443", "sleep 20"];
    let mut command = vec![program.as_str()];
    command.extend(try_again.iter().cycle().take(try_again.len() * 5));
    let mut killed = Vec::new();
    for moment in 0..30 {
        let mut child = run.command(&command).spawn().expect("egress starts");
        std::thread::sleep(Duration::from_millis(moment * 10));
        let _ended = child.kill();
        child.wait().expect("egress is dead");
        killed.push(child.id());
    }
    let left = || killed.iter().flat_map(|id| left_by(*id)).collect::<Vec<_>>();
    assert!(
        eventually(SOON, || {
            run.run(&["true"]);
            left().is_empty()
        }),
        "left behind: {:?}",
        left()
    );
    assert!(!reached(&lab.frames(), BAD4.into()), "something got out");
}

/// Process ids of the keepers whose parent was this run.
fn keeper_of(run: u32) -> Option<u32> {
    let entries = fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    let mut numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.starts_with("Name:\tegress-keeper\n") && status.contains(&format!("PPid:\t{run}\n"))
    })
}

#[test]
fn the_scope_outlives_its_supervisor() {
    let lab = lab();
    let run = Run::new(&lab);
    let steps = [
        "sleep 600",
        "socket inet stream",
        "?connect 203.0.113.66:443",
        "?connect 203.0.113.10:443",
        "sleep 200",
    ];
    let (mut child, _) = sleeper(&run, &steps);
    let id = child.id();
    kill(Pid::from_raw(id.cast_signed()), Signal::SIGKILL).expect("kill egress");
    child.wait().expect("egress is dead");
    assert!(!left_by(id).is_empty(), "the command still runs, so its scope must be there");
    let mut rest = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut rest).expect("the command ends");
    let errnos: Vec<_> = rest.lines().map(|line| line.split(' ').nth(1).unwrap_or("")).collect();
    assert_eq!(errnos, ["0", "0", "1", "0", "0"], "{rest}");
    let frames = lab.frames();
    assert!(!reached(&frames, BAD4.into()), "something got out after the supervisor's death");
    assert!(eventually(SOON, || left_by(id).is_empty()), "left behind: {:?}", left_by(id));
}

/// The calls that the supervisor would have answered fail at once: nobody waits for the dead. Mutation seen to fail here: errnos
/// given by the filter itself.
#[test]
fn denied_calls_fail_once_the_supervisor_is_dead() {
    let lab = lab();
    let run = Run::new(&lab);
    // bpf(2), which the supervisor refuses with EPERM.
    let denied = format!("?call {} 0 0 1000000", libc::SYS_bpf);
    let (mut child, _) = sleeper(&run, &[&denied, "sleep 700", &denied, "socket inet stream", "exists /"]);
    let id = child.id();
    assert!(eventually(SOON, || run.events().iter().any(|event| event["reason"] == "bpf")), "it is told");
    kill(Pid::from_raw(id.cast_signed()), Signal::SIGKILL).expect("kill egress");
    child.wait().expect("egress is dead");
    let mut rest = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut rest).expect("the command ends");
    let errnos: Vec<_> = rest.lines().map(|line| line.split(' ').nth(1).unwrap_or("")).collect();
    // The first of them may have been read together with the line before it.
    assert!(errnos.ends_with(&["0", "38", "0", "0"]), "{rest}");
    assert!(eventually(SOON, || left_by(id).is_empty()), "left behind: {:?}", left_by(id));
}

/// A call that waits for its answer while the supervisor dies.
#[test]
fn a_call_that_waits_while_the_supervisor_dies_fails() {
    let lab = lab();
    let run = Run::new(&lab);
    let (mut child, _) = sleeper(&run, &["sleep 500", &format!("call {} 0 0 1000000", libc::SYS_bpf)]);
    let id = Pid::from_raw(child.id().cast_signed());
    kill(id, Signal::SIGSTOP).expect("stop egress");
    std::thread::sleep(Duration::from_millis(1_500));
    kill(id, Signal::SIGKILL).expect("kill egress");
    child.wait().expect("egress is dead");
    let mut rest = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut rest).expect("the command ends");
    assert!(rest.contains("call 38 "), "{rest}");
}

#[test]
fn what_a_crash_leaves_is_cleaned_by_the_next_run() {
    let lab = lab();
    let run = Run::new(&lab);
    let (mut child, inside) = sleeper(&run, &["sleep 5000"]);
    let id = child.id();
    let keeper = keeper_of(id).expect("a keeper");
    for process in [id, keeper, inside] {
        kill(Pid::from_raw(process.cast_signed()), Signal::SIGKILL).expect("kill it");
    }
    child.wait().expect("egress is dead");
    assert!(!left_by(id).is_empty(), "nobody is there to tidy up");
    // The killed command leaves its control group only once it has been reaped.
    assert!(eventually(SOON, || {
        run.run(&["true"]);
        left_by(id).is_empty()
    }));
}

/// Two views of the machine that share the BPF file system: what one cannot see is not a leftover of the other.
#[test]
fn a_run_that_is_out_of_sight_is_left_alone() {
    let lab = lab();
    let root = Cgroup::new().expect("a control group");
    let run = Run::new(&lab);
    let (mut child, inside) = sleeper(&run, &["sleep 20000"]);
    let pins = |id| left_by(id).into_iter().filter(|path| path.contains("bpf")).count();
    assert_eq!(pins(child.id()), 1, "the run has a directory of pins");
    let other = Run::new(&lab);
    let covers = [(cgroup::mount().expect("a mount"), root.path().to_owned())];
    let ended = other.end_of(&mut other.command_with(&["true"], &covers)).expect("egress runs");
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(pins(child.id()), 1, "the other run removed the pins: {}", ended.stderr);
    kill(Pid::from_raw(inside.cast_signed()), Signal::SIGKILL).expect("end the command");
    assert_eq!(child.wait().expect("egress ends").code(), Some(137));
}

#[test]
fn nothing_is_left_behind() {
    let lab = lab();
    let run = Run::new(&lab);
    for command in [&["true"][..], &["false"], &["/nonexistent"], &["sh", "-c", "kill -9 $$"]] {
        let mut child = run.command(command).spawn().expect("egress starts");
        let id = child.id();
        child.wait().expect("egress ends");
        assert!(left_by(id).is_empty(), "{command:?} left {:?}", left_by(id));
        assert_eq!(keeper_of(id), None, "{command:?}");
    }
}

/// What is still running in the scope when the command ends goes on, enforced, and the keeper tidies up after it.
#[test]
fn a_daemon_that_the_command_leaves_stays_enforced() {
    let lab = lab();
    let run = Run::new(&lab);
    let program = run.program();
    let script = format!(
        "setsid {program} 'sleep 300' 'socket inet stream' '?connect 203.0.113.66:443' '?connect 203.0.113.10:443' > {}/daemon 2>&1 < /dev/null &",
        run.directory().display()
    );
    let mut child = run.command(&["sh", "-c", &script]).spawn().expect("egress starts");
    let id = child.id();
    assert!(child.wait().expect("egress ends").success());
    assert!(eventually(SOON, || left_by(id).is_empty()), "left behind: {:?}", left_by(id));
    let said = fs::read_to_string(run.directory().join("daemon")).expect("the daemon's output");
    assert!(said.contains("connect 1 ") && said.contains("connect 0 "), "{said}");
    assert!(!reached(&lab.frames(), BAD4.into()));
}

/// A run that sees only this control group as the root, and a BPF file system of its own.
fn confined(run: &Run<'_>, root: &Cgroup, command: &[&str]) -> egress_tests::run::Ended {
    let covers =
        [(cgroup::mount().expect("a mount"), root.path().to_owned()), ("/sys/fs/bpf".into(), "bpf".into())];
    run.end_of(&mut run.command_with(command, &covers)).expect("egress starts")
}

fn left_in(root: &Cgroup) -> Vec<String> {
    let entries = fs::read_dir(root.path()).expect("the control group").filter_map(Result::ok);
    let directories = entries.filter(|entry| entry.path().is_dir());
    directories.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_foreign_program_that_refuses_ours_is_named() {
    let lab = lab();
    let root = Cgroup::new().expect("a control group");
    let run = Run::new(&lab);
    let ended = confined(&run, &root, &["echo", "it", "ran"]);
    assert_eq!((ended.code(), ended.stdout.as_str()), (0, "it ran\n"), "control: {}", ended.stderr);
    Foreign::Exclusive.attach(root.path()).expect("attach a foreign program");
    let ended = confined(&run, &root, &["echo", "it", "ran"]);
    assert_eq!((ended.code(), ended.stdout.as_str()), (116, ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("a foreign eBPF program refuses ours"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("enforcing policy"), "{}", ended.stderr);
    assert_eq!(left_in(&root), [""; 0]);
}

#[test]
fn a_delegated_cgroup_is_refused() {
    let lab = lab();
    let root = Cgroup::new().expect("a control group");
    std::os::unix::fs::chown(root.path().join("cgroup.procs"), Some(65534), None).expect("delegate");
    let ended = confined(&Run::new(&lab), &root, &["echo", "it", "ran"]);
    assert_eq!((ended.code(), ended.stdout.as_str()), (113, ""), "{}", ended.stderr);
    assert_eq!(left_in(&root), [""; 0]);
}

/// Between "enforcing" and the start lies the time in which names are resolved. Mutation seen to fail here: links
/// not verified again, and the control group found by its path.
#[test]
fn a_control_group_made_anew_before_the_start_is_not_joined() {
    let lab = lab();
    // Nobody answers there.
    let policy =
        "version: 1\nname: p\ndns: { upstream: [192.0.2.77], eager: true }\nallow:\n  - host: api.example\n";
    let run = Run::with_policy(&lab, policy);
    let mut child = run.command(&["echo", "it ran"]).spawn().expect("egress starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("a line");
    assert!(line.contains("enforcing"), "{line}");
    let left = left_by(child.id());
    let group = left.iter().find(|path| path.contains("cgroup")).expect("the run's control group");
    fs::remove_dir(group).expect("remove it");
    fs::create_dir(group).expect("make it anew");
    let mut stdout = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut stdout).expect("egress ends");
    stderr.read_to_string(&mut line).expect("egress ends");
    assert_eq!(child.wait().expect("egress ends").code(), Some(120), "{line}");
    assert_eq!(stdout, "");
    assert!(eventually(SOON, || left_by(child.id()).is_empty()), "{:?}", left_by(child.id()));
}

/// Takes one of a run's programs off its control group, as root can.
fn detach(run: u32, program: &str) {
    const BPF_LINK_DETACH: libc::c_long = 34;
    let left = left_by(run);
    let pin = left.iter().map(|path| Path::new(path).join(program)).find(|path| path.exists());
    let link = sys::open_pin(&pin.expect("the pin")).expect("open the pin");
    let mut attr = [0_u32; 32];
    attr[0] = link.as_raw_fd().unsigned_abs();
    // SAFETY: the attributes are long enough for the command.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, attr.as_ptr(), size_of_val(&attr)) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// What was refused waits in a connection's queue and is sent again by the kernel, also when its process and the run are
/// over. Mutation seen to fail here: pins removed right after the control group.
#[test]
fn what_was_refused_is_not_sent_after_the_run() {
    let lab = lab();
    let run = Run::new(&lab);
    // SO_BINDTODEVICE on a connection to the DNS listener: its packets would leave through the agent's device, `agent0`.
    let device = "option 1 25 6167656e743000";
    let detached = run.directory().join("detached");
    let wait = format!("await {}", detached.display());
    let connect = ["socket inet stream", "bind 192.0.2.2:0", "connect 203.0.113.10:53", &wait, device];
    // Once the command runs: until then the loss would be noticed, and nothing started.
    let (child, _) = sleeper(&run, &[&connect[..], &["send afterwards", "sleep 50"]].concat());
    // The option has a hook of its own, which root takes away here to have a packet that only the packet hook refuses.
    detach(child.id(), "setsockopt");
    fs::write(&detached, "").expect("write a file");
    let ended = run.ended(child).expect("egress ends");
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(
        ended.denials().iter().any(|event| event["reason"] == "not-plain"),
        "{} {}",
        ended.stdout,
        ended.stderr
    );
    // The kernel tries again after 0.2, 0.6, 1.4 and 3 seconds.
    std::thread::sleep(Duration::from_secs(4));
    assert!(!lab.frames().iter().any(|frame| frame.carries("afterwards")), "it was sent after the run");
}
