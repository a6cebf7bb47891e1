//! What `egress run` takes away from a command at launch: each restriction refuses, is told, and is given back by name; and
//! honest programs do not notice.

use std::{
    collections::BTreeSet,
    os::{
        fd::OwnedFd,
        unix::{net::UnixDatagram, net::UnixListener, net::UnixStream, process::CommandExt as _},
    },
    process::{Child, Command, Stdio},
    time::Duration,
};

use egress_tests::{
    Cgroup, Lab,
    run::{Ended, Run, eventually},
};
use serde_json::Value;

const NOBODY: u32 = 65534;

fn lab() -> Lab {
    Lab::new().expect("the lab")
}

/// What was told of system calls: reason and words of each.
fn told(ended: &Ended) -> Vec<(String, String)> {
    let of_launch = ended.events.iter().filter(|event| event["hook"] == "launch");
    let word = |word: &Value| word.as_str().unwrap_or_default().to_owned();
    let what = |event: &Value| word(if event["what"].is_null() { &event["subject"] } else { &event["what"] });
    of_launch.map(|event| (word(&event["reason"]), what(event))).collect()
}

/// The errno of the last step of the contained program.
fn last(ended: &Ended) -> i32 {
    let line = ended.stdout.lines().rfind(|line| !line.starts_with("> "));
    let errno = line.and_then(|line| line.split(' ').nth(1)?.parse().ok());
    errno.unwrap_or_else(|| panic!("no step: {} {}", ended.stdout, ended.stderr))
}

/// A process outside the scope, of the same user.
struct Outside(Child);

impl Outside {
    fn of(user: u32) -> Self {
        // Without capabilities, so that only what is tested keeps a command of root from it.
        let mut command = Command::new("setpriv");
        command
            .args(["--bounding-set=-all", "--inh-caps=-all", "sleep", "60"])
            .stdin(Stdio::null())
            .uid(user)
            .gid(user);
        let outside = Self(command.spawn().expect("setpriv starts"));
        let name = || std::fs::read_to_string(format!("/proc/{}/comm", outside.id())).unwrap_or_default();
        assert!(eventually(Duration::from_secs(5), || name() == "sleep\n"), "{}", name());
        outside
    }

    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// A call that a restriction refuses.
struct Row {
    restriction: &'static str,
    steps: Vec<String>,
    /// What it gets, and what it gets where the restriction is lifted: not the same, so that a case can fail.
    refused: i32,
    lifted: i32,
    /// Reason and beginning of the words, if it is told.
    told: Option<(&'static str, &'static str)>,
}

fn row(
    restriction: &'static str,
    step: &str,
    refused: i32,
    lifted: i32,
    told: Option<(&'static str, &'static str)>,
) -> Row {
    Row { restriction, steps: vec![step.to_owned()], refused, lifted, told }
}

fn call(nr: libc::c_long, args: &str) -> String {
    format!("call {nr} {args}").trim_end().to_owned()
}

const FAMILY: &str = "family";
const SYSCALL: &str = "syscall";
const PROCESS: &str = "process";

/// Arguments are such that the kernel refuses the call with another errno, or that it does no harm.
fn rows_of_calls() -> Vec<Row> {
    use libc::{EAFNOSUPPORT, EFAULT, EINVAL, ENOSYS, ENOTTY, EPERM};
    let socket = |args| call(libc::SYS_socket, args);
    let pair = |args| call(libc::SYS_socketpair, args);
    let told = |reason, words| Some((reason, words));
    vec![
        row(
            "io_uring",
            &call(libc::SYS_io_uring_setup, "8 0"),
            ENOSYS,
            EFAULT,
            told(SYSCALL, "io_uring_setup"),
        ),
        row(
            "io_uring",
            &call(libc::SYS_io_uring_enter, "99 0 0 0 0 0"),
            ENOSYS,
            libc::EBADF,
            told(SYSCALL, "io_uring_enter"),
        ),
        row("clone3", &call(libc::SYS_clone3, "0 0"), ENOSYS, EINVAL, None),
        row("bpf", &call(libc::SYS_bpf, "0 0 1000000"), EPERM, libc::E2BIG, told("bpf", "bpf(command 0)")),
        row("families", &socket("17 3 0"), EAFNOSUPPORT, EPERM, told(FAMILY, "packet")),
        row("families", &socket("2 10 0"), EAFNOSUPPORT, EPERM, told(FAMILY, "inet")),
        row("families", &socket("10 524298 0"), EAFNOSUPPORT, libc::ESOCKTNOSUPPORT, told(FAMILY, "inet6")),
        row("families", &pair("17 3 0 0"), EAFNOSUPPORT, EFAULT, told(FAMILY, "packet")),
        // The upper half of a register is not what the kernel looks at.
        row("families", &socket("4294967313 3 0"), EAFNOSUPPORT, EPERM, told(FAMILY, "packet")),
        row("netlink", &socket("16 3 2"), libc::EPROTONOSUPPORT, 0, told(FAMILY, "netlink")),
        row("terminal", &call(libc::SYS_ioctl, "0 21522 @x"), EPERM, ENOTTY, told(PROCESS, "ioctl(TIOCSTI)")),
        row(
            "terminal",
            &call(libc::SYS_ioctl, "0 21532 @x"),
            EPERM,
            ENOTTY,
            told(PROCESS, "ioctl(TIOCLINUX)"),
        ),
        row(
            "terminal",
            &call(libc::SYS_ioctl, "0 4294988835 @x"),
            EPERM,
            ENOTTY,
            told(PROCESS, "ioctl(TIOCSETD)"),
        ),
        row(
            "keys",
            &call(libc::SYS_request_key, "@no-such-type @x @callout 0"),
            EPERM,
            libc::ENOKEY,
            told(SYSCALL, "request_key"),
        ),
        row("foreign-abi", "foreign", ENOSYS, 0, told(SYSCALL, "call 20 of another architecture")),
    ]
}

/// Calls that reach into a process of the same user outside.
fn rows_of_reach(outside: u32) -> Vec<Row> {
    use libc::EPERM;
    let told = |words| Some((PROCESS, words));
    let getfd =
        vec![call(libc::SYS_pidfd_open, &format!("{outside} 0")), call(libc::SYS_pidfd_getfd, "3 0 0")];
    vec![
        row(
            "ptrace",
            &call(libc::SYS_ptrace, &format!("16 {outside}")),
            EPERM,
            0,
            told("ptrace(PTRACE_ATTACH"),
        ),
        row(
            "ptrace",
            &call(libc::SYS_ptrace, &format!("16902 {outside} 0 0")),
            EPERM,
            0,
            told("ptrace(PTRACE_SEIZE"),
        ),
        row("ptrace", &format!("write-into {outside}"), EPERM, libc::EFAULT, told("process_vm_writev")),
        Row { restriction: "ptrace", steps: getfd, refused: EPERM, lifted: 0, told: told("pidfd_getfd") },
        row("ptrace", &format!("write /proc/{outside}/mem x"), libc::EACCES, libc::EIO, None),
        row("signals", &call(libc::SYS_kill, &format!("{outside} 0")), EPERM, 0, None),
    ]
}

fn complain(row: &Row, user: &str, found: &Ended, lifted: bool) -> Option<String> {
    let expected = if lifted { row.lifted } else { row.refused };
    let told = told(found);
    let as_said = match row.told.filter(|_| !lifted) {
        None => told.is_empty(),
        Some((reason, words)) => told.len() == 1 && told[0].0 == reason && told[0].1.starts_with(words),
    };
    (last(found) != expected || !as_said).then(|| {
        let Row { restriction, steps, .. } = row;
        format!("{user} {restriction} {steps:?} lifted {lifted}: {} {told:?} {}", found.stdout, found.stderr)
    })
}

fn judge(rows: &[Row], user: &str) -> Vec<String> {
    let lab = lab();
    let perform = |row: &Row, permit: Option<&str>| {
        let mut run = Run::new(&lab).option(&["--user", user]);
        if let Some(permit) = permit {
            run = run.option(&["--permit", permit]);
        }
        run.attempt(&row.steps.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let mut complaints = Vec::new();
    for row in rows {
        complaints.extend(complain(row, user, &perform(row, None), false));
        complaints.extend(complain(row, user, &perform(row, Some(row.restriction)), true));
    }
    complaints
}

/// As [`judge`] for rows of one step each, which do not hinder each other: all in one run that refuses them, and one run for each
/// restriction that lifts it.
fn judge_together(rows: &[Row], user: &str) {
    let lab = lab();
    let perform = |rows: &[&Row], options: &[&str]| {
        let steps: Vec<_> = rows.iter().map(|row| format!("?{}", row.steps[0])).collect();
        let run = Run::new(&lab).option(&["--user", user]).option(options);
        let ended = run.attempt(&steps.iter().map(String::as_str).collect::<Vec<_>>());
        let errnos = ended.stdout.lines().filter_map(|line| line.split(' ').nth(1)?.parse().ok());
        (errnos.collect::<Vec<i32>>(), told(&ended), ended.stderr)
    };
    let all: Vec<_> = rows.iter().collect();
    let (errnos, told, stderr) = perform(&all, &[]);
    assert_eq!(errnos, rows.iter().map(|row| row.refused).collect::<Vec<_>>(), "{stderr}");
    let expected: Vec<_> = rows.iter().filter_map(|row| row.told).collect();
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for ((reason, words), (expected_reason, beginning)) in told.iter().zip(expected) {
        assert!(reason == expected_reason && words.starts_with(beginning), "{words} is not {beginning}");
    }
    for restriction in rows.iter().map(|row| row.restriction).collect::<BTreeSet<_>>() {
        let rows: Vec<_> = rows.iter().filter(|row| row.restriction == restriction).collect();
        let (errnos, told, stderr) = perform(&rows, &["--permit", restriction]);
        assert_eq!(errnos, rows.iter().map(|row| row.lifted).collect::<Vec<_>>(), "{restriction} {stderr}");
        assert_eq!(told, [], "{restriction}");
    }
}

/// Mutations seen to fail here: a row left out of the table; the whole register compared.
#[test]
fn each_call_is_refused_told_and_given_back_by_name() {
    judge_together(&rows_of_calls(), "nobody");
}

/// Mutation seen to fail here: no Landlock domain.
#[test]
fn processes_outside_are_out_of_reach() {
    for (user, id) in [("nobody", NOBODY), ("root", 0)] {
        let outside = Outside::of(id);
        let complaints = judge(&rows_of_reach(outside.id()), user);
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }
}

#[test]
fn user_namespaces_are_taken_from_root_only() {
    use libc::EPERM;
    const NEW_USER: &str = "268435456";
    let rows = [
        row(
            "userns",
            &call(libc::SYS_unshare, NEW_USER),
            EPERM,
            0,
            Some(("namespace", "unshare(CLONE_NEWUSER)")),
        ),
        // With CLONE_FS, which the kernel refuses beside it.
        row(
            "userns",
            &call(libc::SYS_clone, "268435968 0 0 0 0"),
            EPERM,
            libc::EINVAL,
            Some(("namespace", "clone(CLONE_NEWUSER)")),
        ),
        row("userns", &call(libc::SYS_setns, "99 0"), EPERM, libc::EBADF, Some(("namespace", "setns"))),
    ];
    let complaints = judge(&rows, "root");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    let lab = lab();
    let ended = Run::new(&lab).option(&["--user", "nobody"]).attempt(&[&call(libc::SYS_unshare, NEW_USER)]);
    assert_eq!((last(&ended), told(&ended)), (0, vec![]), "{}", ended.stderr);
}

/// The kernel looks at who owns `cgroup.procs` only, not at the mount that it is reached by. Lifted, it is a way out.
#[test]
fn a_command_of_root_starts_nothing_in_another_cgroup() {
    let (lab, other) = (lab(), Cgroup::new().expect("a control group"));
    let step = format!("clone-into {}", other.path().display());
    let run = |permits: &[&str]| Run::new(&lab).option(&["--user", "root"]).option(permits).attempt(&[&step]);
    assert_eq!(last(&run(&[])), libc::ENOSYS);
    let lifted = run(&["--permit", "clone3"]);
    assert_eq!(last(&lifted), 0, "the control: {}", lifted.stderr);
}

#[test]
fn permits_are_a_list_and_unknown_names_are_refused() {
    let lab = lab();
    let steps = [call(libc::SYS_io_uring_setup, "8 0"), call(libc::SYS_bpf, "0 0 1000000")];
    let steps = steps.map(|step| step.replace("call", "?call"));
    let run = Run::new(&lab).option(&["--user", "nobody", "--permit", "io_uring,bpf"]);
    let ended = run.attempt(&[&steps[0], &steps[1]]);
    assert_eq!(ended.errnos("call"), [libc::EFAULT, libc::E2BIG], "{}", ended.stderr);
    assert!(ended.stderr.contains("given back to the command: io_uring, bpf"), "{}", ended.stderr);
    let ended = Run::new(&lab).option(&["--permit", "everything"]).attempt(&["exists /"]);
    assert_eq!((ended.code(), ended.stdout.as_str()), (2, ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("io_uring, userns"), "{}", ended.stderr);
}

#[test]
fn a_policy_gives_back_too_and_the_start_says_so() {
    let lab = lab();
    let policy = "version: 1\nname: p\npermit: [io_uring]\nallow: []\n";
    let ended = Run::with_policy(&lab, policy).attempt(&[&call(libc::SYS_io_uring_setup, "8 0")]);
    assert_eq!(last(&ended), libc::EFAULT, "{}", ended.stderr);
    assert!(ended.stderr.contains("given back to the command: io_uring (policy)"), "{}", ended.stderr);
}

#[test]
fn a_refusal_says_what_would_give_it_back() {
    let lab = lab();
    let ended = Run::new(&lab).attempt(&[&call(libc::SYS_io_uring_setup, "8 0")]);
    let line = ended.stderr.lines().find(|line| line.contains("io_uring_setup")).expect("a line");
    assert!(line.contains("--permit io_uring") && line.contains("attempt["), "{line}");
    let process = ended.events.iter().find(|event| event["hook"] == "launch").map(|event| &event["process"]);
    assert_eq!(process.expect("an event")["comm"], "attempt", "{}", ended.stderr);
}

#[test]
fn audit_takes_nothing_away_and_tells() {
    let (lab, outside) = (lab(), Outside::of(NOBODY));
    let run = Run::new(&lab).option(&["--user", "nobody", "--audit"]);
    let steps = [
        call(libc::SYS_io_uring_setup, "8 0"),
        call(libc::SYS_clone3, "0 0"),
        call(libc::SYS_kill, &format!("{} 0", outside.id())),
    ];
    let steps = steps.map(|step| step.replace("call", "?call"));
    let ended = run.attempt(&steps.each_ref().map(String::as_str));
    assert_eq!(ended.errnos("call"), [libc::EFAULT, libc::EINVAL, 0], "{}", ended.stderr);
    let verdicts: Vec<_> = ended
        .events
        .iter()
        .filter(|event| event["hook"] == "launch")
        .map(|event| &event["verdict"])
        .collect();
    assert_eq!(verdicts, ["audit"], "{}", ended.stderr);
}

/// Each is told, nothing is made up, and names are answered meanwhile.
#[test]
fn a_flood_of_refusals_is_told_to_the_last() {
    let lab = lab();
    let run = Run::new(&lab).option(&["--user", "nobody"]);
    let program = run.program();
    let each = 800;
    let script = format!(
        "for i in 1 2 3; do {program} 'again {each} {} 8 0' & done; wait; {program} 'socket inet stream' \
         '?connect 203.0.113.66:443'",
        libc::SYS_io_uring_setup
    );
    let ended = run.run(&["sh", "-c", &script]);
    assert_eq!(ended.errnos("again"), [libc::ENOSYS; 3], "{}", ended.stderr);
    assert_eq!(told(&ended).len(), 3 * each, "{}", ended.stderr);
    assert_eq!(ended.summary("deny").0, 1, "{}", ended.stderr);
}

#[test]
fn the_session_keyring_is_the_commands_own() {
    let lab = lab();
    // KEYCTL_GET_KEYRING_ID of the session keyring, which is made if there is none.
    let step = format!("value {} 0 -3 1", libc::SYS_keyctl);
    let id = |options: &[&str]| {
        let ended = Run::new(&lab).option(&["--user", "root"]).option(options).attempt(&[&step]);
        assert_eq!(last(&ended), 0, "{} {}", ended.stdout, ended.stderr);
        ended.heard()[0].to_owned()
    };
    // SAFETY: numbers only.
    let ours = unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 1) }.to_string();
    assert_ne!(id(&[]), ours);
    assert_eq!(id(&["--permit", "keys"]), ours, "the control");
}

/// A datagram socket, be it one of a pair, and one that is not connected could be led to any other socket.
#[test]
fn a_unix_socket_as_standard_input_must_be_one_end_of_a_stream() {
    let lab = lab();
    let directory = tempfile::tempdir().expect("a directory");
    let (stream, _peer) = UnixStream::pair().expect("a pair");
    let (datagram, _peer2) = UnixDatagram::pair().expect("a pair");
    let listener = UnixListener::bind(directory.path().join("socket")).expect("a listener");
    for (socket, code) in [(OwnedFd::from(stream), 0), (datagram.into(), 125), (listener.into(), 125)] {
        let run = Run::new(&lab);
        let mut command = run.command(&["true"]);
        command.stdin(socket);
        let ended = run.end_of(&mut command).expect("egress starts");
        assert_eq!(ended.code(), code, "{}", ended.stderr);
        assert_eq!(ended.stderr.contains("one end of a stream"), code != 0, "{}", ended.stderr);
    }
}

/// Side by side with a run without `egress`.
fn same_as_free(script: &str, expected: &str) {
    let lab = lab();
    let run = Run::new(&lab).option(&["--user", "nobody"]);
    let free =
        run.free(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c", script]);
    let said = String::from_utf8_lossy(&free.stdout);
    assert!(said.contains(expected), "the control: {script}: {said}");
    let ended = run.run(&["bash", "-c", script]);
    assert!(ended.stdout.contains(expected), "{script}: {} {}", ended.stdout, ended.stderr);
    assert_eq!(Some(ended.code()), free.status.code(), "{script}: {} {}", ended.stdout, ended.stderr);
    assert_eq!(told(&ended), [], "{script}");
}

#[test]
fn debuggers_work_on_their_own_children() {
    same_as_free("strace -f sh -c 'true & wait' 2>&1", "execve(");
    same_as_free(
        "export SHELL=/bin/sh; gdb -nx -batch -ex run -ex 'info inferiors' true 2>&1",
        "exited normally",
    );
    same_as_free("sleep 60 & (sleep 3; kill $!) & strace -p $! 2>&1; wait; echo over", "attached");
    same_as_free("sleep 60 & gdb -nx -batch -ex bt -p $! 2>&1; kill $!", "detached");
}

#[test]
fn sandboxes_of_ordinary_users_work() {
    same_as_free("unshare -Urm sh -c 'mount -t tmpfs none /mnt && echo mounted'", "mounted");
    let sandbox = "bwrap --ro-bind / / --dev /dev --proc /proc --unshare-all echo inside";
    same_as_free(sandbox, "inside");
}

#[test]
fn interpreters_and_their_processes_work() {
    let pool = "import multiprocessing as m, os, signal\n\
                def f(n): return n * n\n\
                if __name__ == '__main__':\n\
                \x20   for way in ('fork', 'spawn'):\n\
                \x20       with m.get_context(way).Pool(2) as p: print(sum(p.map(f, range(10))))\n\
                \x20   pid = os.fork()\n\
                \x20   if not pid: signal.pause()\n\
                \x20   os.kill(pid, 15); print(os.waitpid(pid, 0)[1])\n";
    let lab = lab();
    let run = Run::new(&lab).option(&["--user", "nobody"]);
    let file = run.file("pool.py", pool).display().to_string();
    let ended = run.run(&["/usr/bin/python3", &file]);
    assert_eq!((ended.code(), ended.stdout.as_str()), (0, "285\n285\n15\n"), "{}", ended.stderr);
    let script = "const c = require('child_process'); console.log(c.execSync('echo node').toString());\
                  new (require('worker_threads').Worker)('console.log(\"worker\")', { eval: true })";
    let ended = run.run(&["/usr/bin/node", "-e", script]);
    assert!(ended.stdout.contains("node") && ended.stdout.contains("worker"), "{}", ended.stderr);
}
