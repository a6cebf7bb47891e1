//! A network namespace without a name: it is gone with its last descriptor, whatever becomes of the test.

use std::{
    fs::{self, File},
    io::Write as _,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};

use crate::run::eventually;

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes one, with nothing in it but a loopback device that is down.
    pub fn new() -> Result<Self> {
        let made = thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
            File::open("/proc/thread-self/ns/net").context("open the network namespace")
        });
        Ok(Self { file: made.join().expect("the thread does not panic")? })
    }

    /// Runs `work` on a thread inside. Sockets made there stay in the namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Waits until there is a listening TCP socket or a UDP socket at each of these ports, twenty seconds at most; whether there
    /// is.
    pub fn await_ports(&self, ports: &[u16]) -> bool {
        eventually(Duration::from_secs(20), || {
            let bound = self.enter(bound_ports);
            ports.iter().all(|port| bound.contains(port))
        })
    }

    /// Has `command` start inside.
    pub fn place<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let file = self.file.try_clone().expect("duplicate the namespace's descriptor");
        // SAFETY: after the fork only one system call is made, and nothing is allocated.
        unsafe { command.pre_exec(move || Ok(setns(&file, CloneFlags::CLONE_NEWNET)?)) }
    }

    /// A path by which `ip` finds the namespace while this value lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Runs lines of `ip` commands inside.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut child = self
            .place(Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()))
            .spawn()
            .context("start ip (package iproute2)")?;
        child.stdin.take().context("ip has a standard input")?.write_all(lines.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "ip: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Writes network settings: lines of `name = value`, as in `net.ipv4.conf.all.rp_filter = 0`.
    pub fn sysctl(&self, lines: &str) -> Result<()> {
        self.enter(|| {
            for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
                let (name, value) = line.split_once(" = ").with_context(|| format!("setting {line:?}"))?;
                let path = format!("/proc/sys/{}", name.replace('.', "/"));
                fs::write(&path, value).with_context(|| format!("write {value} to {path}"))?;
            }
            Ok(())
        })
    }
}

/// Where a TCP socket listens or a UDP socket is, in the network namespace of this thread.
fn bound_ports() -> Vec<u16> {
    const LISTEN: &str = "0A";
    let mut ports = Vec::new();
    for (table, stream) in [("tcp", true), ("tcp6", true), ("udp", false), ("udp6", false)] {
        let text =
            fs::read_to_string(format!("/proc/thread-self/net/{table}")).expect("read the kernel's table");
        for line in text.lines().skip(1) {
            let words: Vec<_> = line.split_whitespace().collect();
            let [_, local, _, state, ..] = words.as_slice() else { continue };
            let port = local.rsplit(':').next().and_then(|port| u16::from_str_radix(port, 16).ok());
            ports.extend(port.filter(|_| !stream || *state == LISTEN));
        }
    }
    ports
}
