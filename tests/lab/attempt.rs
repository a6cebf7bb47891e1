//! Runs the contained program of the tests and reads what became of its steps.

use std::{
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{Cgroup, Lab, Namespace};

/// Steps to perform, see the program's own `steps.rs`.
#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    steps: &'a [&'a str],
    user: Option<u32>,
}

/// What became of one step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// Its first word.
    pub verb: String,
    /// 0 if it succeeded.
    pub errno: i32,
    /// How long it took.
    pub took: Duration,
}

/// What became of an attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Process id of the program.
    pub pid: u32,
    /// The steps that were performed.
    pub steps: Vec<Step>,
}

impl Outcome {
    /// The step that failed, if one did, and its errno.
    pub fn failure(&self) -> Option<(&str, i32)> {
        self.steps.iter().find(|step| step.errno != 0).map(|step| (step.verb.as_str(), step.errno))
    }

    /// How long the longest step took.
    pub fn longest(&self) -> Duration {
        self.steps.iter().map(|step| step.took).max().unwrap_or_default()
    }

    /// Waits for the program and reads what it says.
    pub fn of(child: std::process::Child) -> Result<Self> {
        let pid = child.id();
        let output = child.wait_with_output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the contained program: {}: {errors}", output.status);
        Self::parse(pid, std::str::from_utf8(&output.stdout)?)
    }

    /// Reads the program's lines.
    pub fn parse(pid: u32, text: &str) -> Result<Self> {
        let line = |line: &str| -> Option<Step> {
            let mut words = line.split(' ');
            let verb = words.next()?.to_owned();
            let errno = words.next()?.parse().ok()?;
            Some(Step { verb, errno, took: Duration::from_micros(words.next()?.parse().ok()?) })
        };
        let lines = text.lines().filter(|text| !text.starts_with("> "));
        let steps = lines.map(|text| line(text).with_context(|| format!("unexpected line {text:?}")));
        Ok(Self { pid, steps: steps.collect::<Result<_>>()? })
    }
}

/// The contained program's file.
pub fn program() -> PathBuf {
    // Beside the test binaries' directory `deps`.
    let mut path = std::env::current_exe().expect("a test knows its own file");
    path.pop();
    path.pop();
    path.join("attempt")
}

/// Changes the user last of all: entering a namespace needs root.
fn become_user(command: &mut Command, user: u32) {
    let change = move || {
        nix::unistd::setgroups(&[])?;
        nix::unistd::setresgid(user.into(), user.into(), user.into())?;
        Ok(nix::unistd::setresuid(user.into(), user.into(), user.into())?)
    };
    // SAFETY: after the fork only system calls are made, and nothing is allocated.
    unsafe { command.pre_exec(change) };
}

impl<'a> Attempt<'a> {
    /// These steps, as the test's own user.
    pub const fn new(steps: &'a [&'a str]) -> Self {
        Self { steps, user: None }
    }

    /// As another user.
    #[must_use]
    pub const fn user(self, user: u32) -> Self {
        Self { user: Some(user), ..self }
    }

    /// The command that performs it on the agent's side.
    pub fn command(&self, lab: &Lab) -> Command {
        self.command_in(&lab.agent)
    }

    /// The command that performs it in a network namespace.
    pub fn command_in(&self, namespace: &Namespace) -> Command {
        let mut command = Command::new(program());
        command.args(self.steps).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        namespace.place(&mut command);
        command
    }

    /// Performs it, in a control group if one is given.
    pub fn run(&self, lab: &Lab, cgroup: Option<&Cgroup>) -> Result<Outcome> {
        let mut command = self.command(lab);
        if let Some(cgroup) = cgroup {
            cgroup.place(&mut command);
        }
        if let Some(user) = self.user {
            become_user(&mut command, user);
        }
        Outcome::of(command.spawn().context("start the contained program")?)
    }
}
