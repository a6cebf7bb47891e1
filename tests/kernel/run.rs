//! `egress run`: exit codes, signals, terminal, identity, what the command may not do, and what is left behind.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use egress_tests::{
    Lab, cgroup,
    network::{address::BAD4, reached},
    run::Run,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const NOBODY: &str = "65534";

fn lab() -> Lab {
    Lab::new().expect("the lab")
}

#[test]
fn the_exit_code_is_the_commands() {
    let lab = lab();
    let run = Run::new(&lab);
    for (command, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "exit 255"], 255),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["sh", "-c", "kill -KILL $$"], 137),
        (&["/etc/passwd"], 126),
        (&["/nonexistent/program"], 127),
        (&["no-such-program-anywhere"], 127),
    ] {
        let ended = run.run(command);
        assert_eq!(ended.code(), code, "{command:?}: {}", ended.stderr);
    }
}

#[test]
fn what_keeps_the_command_from_running_has_a_code_of_its_own() {
    let lab = lab();
    let ended =
        Run::with_policy(&lab, "version: 1\nname: p\nallow:\n  - { cidr: 10.0.0.1/8 }\n").run(&["true"]);
    assert_eq!(ended.code(), 119, "{}", ended.stderr);
    assert!(ended.stderr.contains("policy.yaml:4"), "{}", ended.stderr);
    let ended = Run::new(&lab).option(&["--user", "no-such-user"]).run(&["true"]);
    assert_eq!(ended.code(), 121, "{}", ended.stderr);
    let run = Run::new(&lab);
    let mut command = run.command(&["true"]);
    // SAFETY: after the fork only system calls are made, and nothing is allocated.
    unsafe { command.pre_exec(|| Ok(nix::unistd::setresuid(65534.into(), 65534.into(), 65534.into())?)) };
    fs::set_permissions(run.directory(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("open it");
    let ended = run.end_of(&mut command).expect("egress starts");
    assert_eq!(ended.code(), 112, "{}", ended.stderr);
    assert!(ended.stderr.contains("root"), "{}", ended.stderr);
}

#[test]
fn a_signal_reaches_the_command() {
    let lab = lab();
    for (signal, code) in [(Signal::SIGTERM, 9), (Signal::SIGINT, 8), (Signal::SIGHUP, 6)] {
        let run = Run::new(&lab);
        let script = "trap 'exit 9' TERM; trap 'exit 8' INT; trap 'exit 6' HUP; echo ready; \
                      for i in $(seq 200); do sleep 0.05; done";
        let mut child = run.command(&["sh", "-c", script]).spawn().expect("egress starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        stdout.read_line(&mut line).expect("the command is ready");
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("signal egress");
        assert_eq!(child.wait().expect("egress ends").code(), Some(code), "{signal}");
    }
}

/// A terminal and a process on it, as a shell would start it.
struct Terminal {
    master: fs::File,
    child: std::process::Child,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let pair = nix::pty::openpty(None, None).expect("a terminal");
        let slave = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("duplicate the terminal"));
        command.stdin(slave(&pair.slave)).stdout(slave(&pair.slave)).stderr(slave(&pair.slave));
        let lead = || {
            nix::unistd::setsid()?;
            // SAFETY: a number and no pointer: standard input becomes the controlling terminal.
            if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        };
        // SAFETY: after the fork only system calls are made, and nothing is allocated.
        unsafe { command.pre_exec(lead) };
        let child = command.spawn().expect("egress starts");
        drop(command);
        drop(pair.slave);
        Self { master: fs::File::from(pair.master), child }
    }

    fn read_until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        let mut buffer = [0; 4096];
        while !seen.contains(text) {
            match self.master.read(&mut buffer) {
                Ok(length) if length > 0 => seen += &String::from_utf8_lossy(&buffer[..length]),
                _ => panic!("{text:?} did not come: {seen:?}"),
            }
        }
        seen
    }
}

#[test]
fn the_terminal_is_the_commands() {
    let lab = lab();
    let run = Run::new(&lab);
    // Counts interrupts: the terminal sends one to the whole group, and egress must not add its own.
    let script = "test -t 0 && test -t 1 && echo it-is-a-tty; n=0; trap 'n=$((n+1))' INT; read line; \
                  echo got:$line; sleep 0.3; echo interrupts:$n.";
    let mut terminal = Terminal::start(run.command(&["sh", "-c", script]));
    terminal.read_until("it-is-a-tty");
    terminal.master.write_all(b"hello\n").expect("type");
    terminal.read_until("got:hello");
    terminal.master.write_all(b"\x03").expect("interrupt");
    terminal.read_until("interrupts:1.");
    assert_eq!(terminal.child.wait().expect("egress ends").code(), Some(0));
}

#[test]
fn standard_input_passes_through() {
    let lab = lab();
    let run = Run::new(&lab);
    let mut child = run.command(&["cat"]).stdin(Stdio::piped()).spawn().expect("egress starts");
    child.stdin.take().expect("a pipe").write_all(b"through and through").expect("write");
    let output = child.wait_with_output().expect("egress ends");
    assert_eq!(output.stdout, b"through and through");
}

#[test]
fn the_command_runs_as_who_called_sudo() {
    let lab = lab();
    let run = Run::new(&lab);
    let mut command = run.command(&["sh", "-c", "id -u; id -g; id -G; echo sudo:$SUDO_UID"]);
    command.env("SUDO_UID", NOBODY).env("SUDO_GID", "65534").env("SUDO_USER", "nobody");
    let ended = run.end_of(&mut command).expect("egress runs");
    assert_eq!(ended.stdout, "65534\n65534\n65534\nsudo:\n", "{}", ended.stderr);
    let ended = run.run(&["id", "-u"]);
    assert_eq!(ended.stdout, "0\n");
    let ended = Run::new(&lab).option(&["--user", "nobody"]).run(&["id", "-u"]);
    assert_eq!(ended.stdout, "65534\n");
}

fn status_field(status: &str, name: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(name)).expect("a field of the status");
    let value = line.rsplit('\t').next().expect("a value");
    u64::from_str_radix(value, if name.starts_with("Cap") { 16 } else { 10 }).expect("a number")
}

#[test]
fn the_command_has_lost_what_leads_out() {
    // NET_ADMIN, NET_RAW, SYS_MODULE, SYS_PTRACE, SYS_ADMIN, PERFMON, BPF, SYS_RAWIO, DAC_READ_SEARCH, MKNOD; SETGID and
    // SETUID, because /proc/PID/root of another user's process shows the control groups as they are outside.
    let leading_out: u64 = [12, 13, 16, 19, 21, 38, 39, 17, 2, 27, 6, 7].map(|bit| 1_u64 << bit).iter().sum();
    let lab = lab();
    for user in ["root", "nobody"] {
        let ended = Run::new(&lab).option(&["--user", user]).run(&["cat", "/proc/self/status"]);
        assert_eq!(status_field(&ended.stdout, "NoNewPrivs"), 1, "{user}");
        for set in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert_eq!(status_field(&ended.stdout, set) & leading_out, 0, "{set} of {user}");
        }
    }
}

#[test]
fn the_command_inherits_no_descriptors() {
    let lab = lab();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let run = Run::new(&lab);
    let program = run.program();
    let mut command = run.command(&[&program, "fds"]);
    let descriptor = listener.as_raw_fd();
    // SAFETY: after the fork only one system call is made, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            if libc::dup2(descriptor, 77) == 77 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        })
    };
    let ended = run.end_of(&mut command).expect("egress runs");
    assert!(ended.stdout.starts_with("fds 0 "), "{} {}", ended.stdout, ended.stderr);
}

/// The supervisor may have more descriptors than the command, whose limits are what they were (mutation: not restored).
#[test]
fn the_limits_are_the_commands_own() {
    let lab = lab();
    let limits = "ulimit -Sn; ulimit -Hn; ulimit -l; grep 'Max open files' /proc/$PPID/limits";
    for user in ["root", "nobody"] {
        let run = Run::new(&lab).option(&["--user", user]);
        let mut command = run.command(&["sh", "-c", limits]);
        let limits = [
            (libc::RLIMIT_NOFILE, libc::rlimit { rlim_cur: 300, rlim_max: 4_000 }),
            (libc::RLIMIT_MEMLOCK, libc::rlimit { rlim_cur: 65_536, rlim_max: 65_536 }),
        ];
        let limit = move || {
            for (resource, limit) in &limits {
                // SAFETY: the limit is ours.
                if unsafe { libc::setrlimit(*resource, limit) } != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: after the fork only system calls are made, and nothing is allocated.
        unsafe { command.pre_exec(limit) };
        let ended = run.end_of(&mut command).expect("egress runs");
        let words: Vec<_> = ended.stdout.split_whitespace().collect();
        let expected = ["300", "4000", "64", "Max", "open", "files", "4000", "4000", "files"];
        assert_eq!(words, expected, "{user}: {}", ended.stderr);
    }
}

#[test]
fn a_network_socket_as_standard_input_is_refused() {
    let lab = lab();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let outside = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
    let run = Run::new(&lab);
    let mut command = run.command(&["cat"]);
    command.stdin(OwnedFd::from(outside));
    let ended = run.end_of(&mut command).expect("egress starts");
    assert_eq!(ended.code(), 125, "{}", ended.stderr);
    assert!(ended.stderr.contains("standard input is a network socket"), "{}", ended.stderr);
}

#[test]
fn a_directory_as_standard_input_is_refused() {
    let lab = lab();
    let run = Run::new(&lab);
    let mut command = run.command(&["true"]);
    command.stdin(fs::File::open("/").expect("the root"));
    let ended = run.end_of(&mut command).expect("egress starts");
    assert_eq!(ended.code(), 125, "{}", ended.stderr);
    assert!(ended.stderr.contains("standard input is a directory"), "{}", ended.stderr);
}

#[test]
fn the_command_cannot_leave_its_cgroup() {
    let lab = lab();
    let mount = cgroup::mount().expect("a mount");
    let join = format!("?join {}", mount.display());
    let join_parent = format!("?join {}", mount.join("egress").display());
    let make = format!("?write {}/cgroup.subtree_control +pids", mount.display());
    let unpin = "?exists /sys/fs/bpf/egress";
    let steps = [
        join.as_str(),
        join_parent.as_str(),
        make.as_str(),
        unpin,
        "socket inet stream",
        "connect 203.0.113.66:443",
    ];
    for user in ["root", "nobody"] {
        lab.forget();
        let ended = Run::new(&lab).option(&["--user", user]).attempt(&steps);
        let failed: Vec<_> = ended.stdout.lines().map(|line| line.split(' ').nth(1) != Some("0")).collect();
        assert_eq!(
            failed,
            [true, true, true, true, false, true],
            "{user}: {} {}",
            ended.stdout,
            ended.stderr
        );
        assert!(!reached(&lab.frames(), BAD4.into()), "{user}");
    }
}

#[test]
fn a_denial_is_told_at_once() {
    let lab = lab();
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let run = Run::new(&lab);
        let program = run.program();
        let mut command =
            run.command(&[&program, "socket inet stream", "?connect 203.0.113.66:443", "sleep 800"]);
        let mut child = command.spawn().expect("egress starts");
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let line =
            lines.map_while(Result::ok).find(|line| line.contains("DENY")).expect("a line for the denial");
        let arrived = SystemTime::now();
        for word in ["tcp", "203.0.113.66:443", "attempt[", "no-rule", "cidr: 203.0.113.66/32"] {
            assert!(line.contains(word), "{word} is missing: {line}");
        }
        child.wait().expect("egress ends");
        best = best.min(arrived.duration_since(time_of_denial(&run)).unwrap_or_default());
    }
    assert!(best < Duration::from_millis(100), "{best:?}");
}

fn time_of_denial(run: &Run<'_>) -> SystemTime {
    let events = run.events();
    let denial = events.iter().find(|event| event["verdict"] == "deny").expect("an event for the denial");
    let time = denial["time"].as_str().expect("a time");
    let output = Command::new("date").args(["-d", time, "+%s.%N"]).output().expect("run date");
    let seconds: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("seconds");
    SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)
}

#[test]
fn each_denial_is_one_event_and_the_summary_adds_up() {
    let lab = lab();
    let ended = Run::new(&lab).attempt(&[
        "socket inet stream",
        "?connect 203.0.113.66:443",
        "connect 203.0.113.10:443",
        "socket inet6 dgram",
        "?sendto [2001:db8:66::66]:443 leak",
        "?socket inet stream 262",
    ]);
    let hooks: Vec<_> = ended.denials().iter().map(|event| event["hook"].clone()).collect();
    assert_eq!(hooks, ["connect", "sendmsg", "create"], "{}", ended.stderr);
    assert_eq!(ended.summary("deny"), (3, [3, 0, 0]));
    assert_eq!(ended.summary("allow"), (1, [1, 0, 0]));
}

#[test]
fn audit_lets_pass_and_tells() {
    let lab = lab();
    let ended =
        Run::new(&lab).option(&["--audit"]).attempt(&["socket inet stream", "connect 203.0.113.66:443"]);
    assert_eq!(ended.summary("audit"), (1, [1, 0, 0]), "{}", ended.stderr);
    assert!(ended.stderr.contains("AUDIT"), "{}", ended.stderr);
    assert!(reached(&lab.frames(), BAD4.into()));
}

#[test]
fn an_option_allows_one_more_destination() {
    let lab = lab();
    let steps = ["socket inet stream", "connect 203.0.113.66:443"];
    let ended = Run::new(&lab).option(&["--allow", "203.0.113.66:443"]).attempt(&steps);
    assert_eq!(ended.summary("allow"), (1, [1, 0, 0]), "{}", ended.stderr);
    assert!(reached(&lab.frames(), BAD4.into()));
}

/// The first instruction is covered: every start is an attempt that nobody outside has a moment before.
#[test]
fn the_first_instruction_is_covered() {
    let lab = lab();
    let starts: u64 = std::env::var("EGRESS_STARTS").map_or(1000, |text| text.parse().expect("a number"));
    let run = Run::new(&lab);
    let program = run.program();
    // Each is a program of its own, started inside; the first of them by egress itself.
    let script = format!(
        "i=1; while [ $i -le {starts} ]; do {program} 'socket inet stream' 'connect 203.0.113.66:443'; i=$((i+1)); done"
    );
    for round in 0..10 {
        let ended = run.attempt(&["socket inet stream", "connect 203.0.113.66:443"]);
        assert_eq!(ended.summary("deny"), (1, [1, 0, 0]), "start {round}: {}", ended.stderr);
    }
    let ended = run.run(&["sh", "-c", &script]);
    let (attempts, fates) = ended.summary("deny");
    assert_eq!(attempts, starts, "{}", ended.stderr);
    assert_eq!(fates.iter().sum::<u64>(), starts);
    assert!(!reached(&lab.frames(), BAD4.into()), "a first instruction got out");
}

#[test]
fn a_command_of_root_cannot_set_what_the_kernel_runs() {
    let lab = lab();
    // Each is written back as it is, so that a hole changes nothing either.
    let script = "for f in /proc/sys/kernel/core_pattern /proc/sys/net/core/optmem_max; do \
                  v=$(cat $f) && echo \"$v\" > $f && echo WRITTEN $f; done; \
                  unshare -Uprmf --mount-proc sh -c 'f=/proc/sys/kernel/core_pattern; \
                  v=$(cat $f) && echo \"$v\" > $f && echo WRITTEN in a fresh proc'; exit 0";
    let control = Command::new("sh").args(["-c", script]).output().expect("sh starts");
    let written = String::from_utf8_lossy(&control.stdout).matches("WRITTEN /proc").count();
    assert_eq!(written, 2, "outside, root writes both");
    let ended = Run::new(&lab).option(&["--user", "root"]).run(&["sh", "-c", script]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(!ended.stdout.contains("WRITTEN"), "{}", ended.stdout);
}

/// Mutation seen to fail here: only what is below /proc made read-only.
#[test]
fn a_command_of_root_cannot_set_it_through_another_proc() {
    let lab = lab();
    let run = Run::new(&lab);
    let proc = run.directory().join("proc");
    fs::create_dir(&proc).expect("a mount point");
    let script = format!(
        "f={}/sys/kernel/core_pattern; v=$(cat $f) && echo \"$v\" > $f && echo WRITTEN",
        proc.display()
    );
    let run = run.option(&["--user", "root"]);
    let mut command = run.command_with(&["sh", "-c", &script], &[(proc, "/proc".into())]);
    let ended = run.end_of(&mut command).expect("egress starts");
    assert!(ended.stderr.contains("Read-only file system"), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
}

#[test]
fn an_id_that_means_no_change_is_refused() {
    let lab = lab();
    let run = Run::new(&lab);
    let mut command = run.command(&["id"]);
    command.env("SUDO_UID", "4294967295").env("SUDO_GID", "1000");
    let ended = run.end_of(&mut command).expect("egress starts");
    assert_eq!((ended.code(), ended.stdout.as_str()), (125, ""), "{}", ended.stderr);
    let ended = Run::new(&lab).option(&["--user", "4294967295"]).run(&["id"]);
    assert_eq!((ended.code(), ended.stdout.as_str()), (121, ""), "{}", ended.stderr);
}

/// A run that is being made has its cgroup for a moment without a lock of its own, and looks like a leftover.
#[test]
fn a_run_that_is_being_made_is_left_alone() {
    let lab = lab();
    let scopes = cgroup::mount().expect("a mount").join("egress");
    let fresh = scopes.join(format!("run-being-made-{}", std::process::id()));
    // Other tests' runs remove the directory when it is empty.
    while fs::create_dir_all(&fresh).is_err() {}
    let directory = fs::File::open(&scopes).expect("open the directory of scopes");
    let held = nix::fcntl::Flock::lock(directory, nix::fcntl::FlockArg::LockShared).expect("lock it");
    while !fresh.exists() {
        let _again = fs::create_dir(&fresh);
    }
    let run = Run::new(&lab);
    let mut child = run.command(&["echo", "ran"]).spawn().expect("egress starts");
    std::thread::sleep(Duration::from_millis(700));
    let left_alone = fresh.exists();
    fs::remove_dir(&fresh).expect("remove the cgroup");
    drop(held);
    assert!(child.wait().expect("egress ends").success(), "it goes on once the lock is free");
    assert!(left_alone, "the cgroup of a run that is being made was removed");
}

#[test]
fn runs_that_start_together_leave_each_other_alone() {
    let lab = lab();
    let run = Run::new(&lab);
    let start = |_| run.command(&["echo", "ran"]).spawn().expect("egress starts");
    let children: Vec<_> = (0..30).map(start).collect();
    for child in children {
        let output = child.wait_with_output().expect("egress ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ran\n", "{errors}");
        assert!(!errors.contains("earlier crash"), "{errors}");
    }
}

#[test]
fn events_go_to_a_file_and_not_where_a_link_leads() {
    let lab = lab();
    let linked = Run::new(&lab);
    let victim = linked.directory().join("victim");
    fs::write(&victim, "precious").expect("write the victim");
    std::os::unix::fs::symlink(&victim, linked.events_file()).expect("make the link");
    let piped = Run::new(&lab);
    nix::unistd::mkfifo(&piped.events_file(), nix::sys::stat::Mode::S_IRWXU).expect("make the pipe");
    for (run, why) in [(&linked, "symbolic link"), (&piped, "nobody reads")] {
        let ended = run.command(&["echo", "ran"]).output().expect("egress starts");
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert_eq!((ended.status.code(), ended.stdout.as_slice()), (Some(125), &b""[..]), "{errors}");
        assert!(errors.contains(why), "{errors}");
    }
    assert_eq!(fs::read_to_string(&victim).expect("read the victim"), "precious");
}
