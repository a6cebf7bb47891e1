//! Runs the `egress` binary itself, inside the lab, and reads what it wrote.

use std::{
    ffi::CString,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Lab, attempt, policies};

/// One `egress run` to be.
#[derive(Debug)]
pub struct Run<'a> {
    lab: &'a Lab,
    directory: TempDir,
    options: Vec<String>,
    covers: Vec<(PathBuf, PathBuf)>,
}

/// An `egress run` that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What the command wrote.
    pub stdout: String,
    /// What `egress` and the command wrote.
    pub stderr: String,
    /// The lines of the events file.
    pub events: Vec<Value>,
}

impl Ended {
    /// The exit code; -1 if a signal ended `egress`.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// The events of denials.
    pub fn denials(&self) -> Vec<&Value> {
        let denied = |event: &&Value| event["type"] == "attempt" && event["verdict"] == "deny";
        self.events.iter().filter(denied).collect()
    }

    /// The events of DNS questions.
    pub fn questions(&self) -> Vec<&Value> {
        self.events.iter().filter(|event| event["type"] == "dns").collect()
    }

    /// What the contained program printed: the lines that begin with `> `.
    pub fn heard(&self) -> Vec<&str> {
        self.stdout.lines().filter_map(|line| line.strip_prefix("> ")).collect()
    }

    /// The errno of each of the contained program's steps of this verb, in order.
    pub fn errnos(&self, verb: &str) -> Vec<i32> {
        let words = self.stdout.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        words.filter(|words| words[0] == verb).map(|words| words[1].parse().expect("an errno")).collect()
    }

    /// The summary's count of attempts of one verdict, and of their fates: emitted, suppressed, dropped.
    pub fn summary(&self, verdict: &str) -> (u64, [u64; 3]) {
        let summary = self.events.iter().find(|event| event["type"] == "summary").expect("a summary");
        let rows = summary["verdicts"].as_array().expect("a list of verdicts");
        let row = rows.iter().find(|row| row["verdict"] == verdict).expect("a row for the verdict");
        let number = |key: &str| row[key].as_u64().expect("a number");
        (number("attempts"), ["emitted", "suppressed", "dropped"].map(number))
    }
}

/// The binary: `EGRESS_BIN`, or the one that was built beside the tests.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("EGRESS_BIN")
        .map_or_else(|| attempt::program().with_file_name("egress"), PathBuf::from);
    assert!(path.exists(), "{} is missing: build it with `cargo build -p egress`", path.display());
    path
}

impl<'a> Run<'a> {
    /// With the lab's policy.
    pub fn new(lab: &'a Lab) -> Self {
        Self::with_policy(lab, policies::LAB)
    }

    /// With a policy of its own.
    pub fn with_policy(lab: &'a Lab, policy: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // Ordinary users run the contained program from here.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("open the directory");
        show(&attempt::program(), &directory.path().join("attempt"));
        fs::write(directory.path().join("policy.yaml"), policy).expect("write the policy");
        Self { lab, directory, options: Vec::new(), covers: Vec::new() }
    }

    /// With one more option of `egress run`.
    #[must_use]
    pub fn option(mut self, words: &[&str]) -> Self {
        self.options.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// With another text in the place of a file, for `egress` and the command alike.
    #[must_use]
    pub fn cover(mut self, place: &str, text: &str) -> Self {
        let shown = self.file(&format!("cover{}", place.replace('/', "-")), text);
        self.covers.retain(|(covered, _)| covered != Path::new(place));
        self.covers.push((place.into(), shown));
        self
    }

    /// Runs a command whose complaints come on standard output, so that what `egress` says at the same time cannot fall in
    /// between.
    pub fn run_apart(&self, command: &[&str]) -> Ended {
        self.run(&[&["sh", "-c", "exec \"$@\" 2>&1", "sh"], command].concat())
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The contained program, where every user can execute it.
    pub fn program(&self) -> String {
        self.directory.path().join("attempt").display().to_string()
    }

    /// `egress run … -- command`, on the agent's side, without the marks of a `sudo` around the tests.
    pub fn command(&self, command: &[&str]) -> Command {
        self.command_with(command, &[])
    }

    /// As [`Run::command`], in a mount namespace of its own in which each first path shows what is at the second one
    /// (`bpf`: a new BPF file system).
    pub fn command_with(&self, command: &[&str], covers: &[(PathBuf, PathBuf)]) -> Command {
        let mut egress = Command::new(binary());
        egress.arg("run").arg("--policy").arg(self.directory.path().join("policy.yaml"));
        egress.arg("--events").arg(self.events_file()).args(&self.options).arg("--").args(command);
        self.place(&mut egress, covers);
        egress
    }

    /// Runs the command without `egress`, otherwise as with it.
    pub fn free(&self, command: &[&str]) -> Output {
        let mut free = Command::new(command[0]);
        free.args(&command[1..]);
        self.place(&mut free, &[]);
        free.output().unwrap_or_else(|error| panic!("{}: {error}", command[0]))
    }

    fn place(&self, command: &mut Command, covers: &[(PathBuf, PathBuf)]) {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER"] {
            command.env_remove(name);
        }
        self.lab.agent.place(command);
        let covers: Vec<_> = self.covers.iter().chain(covers).cloned().collect();
        if !covers.is_empty() {
            cover(command, &covers);
        }
    }

    /// A file of this run's directory.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).expect("write a file");
        path
    }

    /// Runs a command to its end.
    pub fn run(&self, command: &[&str]) -> Ended {
        self.end_of(&mut self.command(command)).expect("egress runs")
    }

    /// Runs steps of the contained program to their end.
    pub fn attempt(&self, steps: &[&str]) -> Ended {
        let program = self.program();
        let mut command = vec![program.as_str()];
        command.extend(steps);
        self.run(&command)
    }

    /// Runs a prepared command to its end.
    pub fn end_of(&self, command: &mut Command) -> Result<Ended> {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.ended(command.spawn().context("start egress")?)
    }

    /// Waits for the end of a run that was started with piped output.
    pub fn ended(&self, child: Child) -> Result<Ended> {
        let output = child.wait_with_output()?;
        Ok(Ended {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            events: self.events(),
        })
    }

    /// Where its events go.
    pub fn events_file(&self) -> PathBuf {
        self.directory.path().join("events.json")
    }

    /// The lines of the events file so far.
    pub fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.events_file()).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }
}

/// Has a program be at a second place too: linked where one file system has both, or else copied.
fn show(program: &Path, place: &Path) {
    if fs::hard_link(program, place).is_err() {
        fs::copy(program, place).unwrap_or_else(|error| panic!("copy {}: {error}", program.display()));
    }
}

/// Has the command start in a mount namespace of its own.
fn cover(command: &mut Command, covers: &[(PathBuf, PathBuf)]) {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).expect("a path without zero");
    let covers: Vec<_> = covers.iter().map(|(place, shown)| (text(place), text(shown))).collect();
    let none = None::<&str>;
    let cover = move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        for (place, shown) in &covers {
            let (kind, flags) = if shown.as_c_str() == c"bpf" {
                (Some(c"bpf"), MsFlags::empty())
            } else {
                (None, MsFlags::MS_BIND)
            };
            mount(Some(shown.as_c_str()), place.as_c_str(), kind, flags, none)?;
        }
        Ok(())
    };
    // SAFETY: after the fork only system calls are made; short paths are copied to the stack, not to the heap.
    unsafe { command.pre_exec(cover) };
}

/// What something takes that took `first`: if that is not within `most`, the best of three, because a busy machine only adds.
pub fn at_best(first: Duration, most: Duration, mut again: impl FnMut()) -> Duration {
    let mut best = first;
    for _ in 0..2 {
        if best < most {
            break;
        }
        let start = Instant::now();
        again();
        best = best.min(start.elapsed());
    }
    best
}

/// Waits until `holds`, at most for the given time; whether it came to hold.
pub fn eventually(within: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    while !holds() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
