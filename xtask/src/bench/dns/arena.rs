//! Where it happens: a namespace for all who ask and answer, and one with those who are connected to.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::figures::Figures;
use super::forwarder::{Forwarder, POLICY, Server, UNBOUND, UPSTREAM};
use crate::bench::Bench;
use crate::netns::{Held, Pair};
use crate::run;

/// The core of the server, and that of all others.
const SERVER: &str = "0";
const OTHERS: &str = "1";

/// Every address below 2001:db8:1::/48 is the servers'.
const AGENT_SIDE: [&str; 2] =
    ["address add 2001:db8::1/64 dev eth0 nodad", "route add 2001:db8:1::/48 via 2001:db8::2"];
const SERVER_SIDE: [&str; 2] =
    ["address add 2001:db8::2/64 dev eth0 nodad", "route add local 2001:db8:1::/48 dev lo"];

/// Everything that lives through all runs.
pub(super) struct Arena<'a> {
    bench: &'a Bench,
    namespaces: Pair,
    program: PathBuf,
    policy: PathBuf,
    unbound: PathBuf,
    real_time: bool,
    upstream: Held,
    _acceptor: Held,
}

impl<'a> Arena<'a> {
    pub(super) fn new(bench: &'a Bench) -> Result<Self> {
        let cores = std::thread::available_parallelism().context("cannot count the cores")?;
        ensure!(cores.get() >= 2, "this takes two cores: one for the server, one for those who ask");
        let program = program(bench)?;
        let policy = bench.policy("dns.yaml", POLICY)?;
        let unbound = bench.policy("unbound.conf", UNBOUND)?;
        let namespaces = Pair::new(&["203.0.113.10"])?;
        for (lines, side) in [(AGENT_SIDE, namespaces.agent()), (SERVER_SIDE, namespaces.servers())] {
            let enter: Vec<_> = side.get_args().map(ToOwned::to_owned).collect();
            for line in lines {
                let mut cmd = Command::new(side.get_program());
                run::quietly(cmd.args(&enter).args(["ip", "-6"]).args(line.split(' ')))?;
            }
        }
        let real_time = run::quietly(Command::new("chrt").args(["--rr", "1", "true"])).is_ok();
        if !real_time {
            eprintln!("without real-time priority: what else this machine does shows in the figures");
        }
        let start = |outer: Command, words: &[&str]| {
            let mut outer = pinned(outer, real_time, OTHERS);
            let mut held = Held::start(outer.arg(&program).args(words))?;
            let mut first = String::new();
            let out = held.child().stdout.take().context("no output")?;
            BufReader::new(out).read_line(&mut first)?;
            ensure!(first.trim() == "ready", "`dns-bench {}` did not start", words.join(" "));
            Ok(held)
        };
        let upstream = start(namespaces.agent(), &["upstream", UPSTREAM])?;
        let acceptor = start(namespaces.servers(), &["accept", "443"])?;
        Ok(Self { bench, namespaces, program, policy, unbound, real_time, upstream, _acceptor: acceptor })
    }

    /// Has the upstream run on the core of the server, or of those who ask.
    pub(super) fn upstream_beside(&mut self, server: bool) -> Result<()> {
        let core = if server { SERVER } else { OTHERS };
        let process = self.upstream.child().id().to_string();
        run::quietly(Command::new("taskset").args(["--all-tasks", "--cpu-list", "--pid", core, &process]))
    }

    /// Asks a server that is started for it.
    pub(super) fn ask(&self, server: Server, words: &[&str]) -> Result<Figures> {
        let outer = |core| pinned(self.namespaces.agent(), self.real_time, core);
        let forwarder = Forwarder::start(server, outer(SERVER), &self.unbound)?;
        let mut cmd = match server {
            Server::Egress => {
                let mut cmd = self.bench.under(outer(SERVER), Some(&self.policy));
                cmd.args(["taskset", "--cpu-list", OTHERS]);
                cmd
            }
            _ => outer(OTHERS),
        };
        cmd.arg(&self.program).args(words).arg(format!("server={}", server.address()));
        cmd.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = cmd.spawn().context("cannot start those who ask")?;
        let process = match server {
            Server::Upstream => None,
            Server::Egress => Some(child.id()),
            _ => forwarder.as_ref().map(Forwarder::id),
        };
        let mut errors = child.stderr.take().context("no standard error")?;
        let said = std::thread::spawn(move || std::io::read_to_string(&mut errors).unwrap_or_default());
        let figures = Figures::follow(BufReader::new(child.stdout.take().context("no output")?), process);
        let status = child.wait().context("cannot wait for those who ask")?;
        let said = said.join().unwrap_or_default();
        if !status.success() {
            bail!("those who ask failed ({status}): {}", last_lines(&said));
        }
        figures.with_context(|| last_lines(&said))
    }
}

/// Builds the measuring program, and puts it where any user can start it.
fn program(bench: &Bench) -> Result<PathBuf> {
    let mut cmd = run::cargo();
    cmd.args(["build", "--release", "--quiet", "--package", "egress-tests", "--bin", "dns-bench"]);
    run::quietly(&mut cmd)?;
    let built = bench.egress.with_file_name("dns-bench");
    let program = bench.dir.join("dns-bench");
    fs::copy(&built, &program).with_context(|| format!("cannot copy {}", built.display()))?;
    Ok(program)
}

/// Has `outer` start what is added to it on one core, and end it with this process.
fn pinned(mut outer: Command, real_time: bool, core: &str) -> Command {
    outer.args(["setpriv", "--pdeathsig", "KILL"]);
    if real_time {
        outer.args(["chrt", "--rr", "1"]);
    }
    outer.args(["taskset", "--cpu-list", core]);
    outer
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
