//! Two network namespaces with a cable between them and no way out of either. They end with this process, however
//! that ends, since each lives by a child that ends when its standard input does.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::run;

/// The address of the agent's end of the cable.
const AGENT: &str = "203.0.113.1/24";

/// The agent's namespace and the servers'.
pub(crate) struct Pair {
    agent: Held,
    servers: Held,
}

/// A child that ends when this is dropped, or this process ends.
pub(crate) struct Held(Child);

impl Pair {
    /// Makes both; the servers' end of the cable gets the given IPv4 addresses, of 203.0.113.0/24.
    pub(crate) fn new(servers: &[&str]) -> Result<Self> {
        let pair = Self { agent: Held::namespace()?, servers: Held::namespace()? };
        let ip = |mut cmd: Command, line: &str| run::quietly(cmd.arg("ip").args(line.split(' ')));
        let peer = pair.servers.0.id();
        ip(pair.agent(), &format!("link add eth0 type veth peer name eth0 netns {peer}"))?;
        ip(pair.agent(), &format!("address add {AGENT} dev eth0"))?;
        for address in servers {
            ip(pair.servers(), &format!("address add {address}/24 dev eth0"))?;
        }
        for link in ["lo", "eth0"] {
            ip(pair.agent(), &format!("link set {link} up"))?;
            ip(pair.servers(), &format!("link set {link} up"))?;
        }
        Ok(pair)
    }

    /// Starts what is added to it in the agent's namespace.
    pub(crate) fn agent(&self) -> Command {
        self.agent.enter()
    }

    /// Starts what is added to it in the servers' namespace.
    pub(crate) fn servers(&self) -> Command {
        self.servers.enter()
    }
}

impl Held {
    /// Starts a command that must end with its standard input.
    pub(crate) fn start(cmd: &mut Command) -> Result<Self> {
        let child = cmd.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Ok(Self(child.with_context(|| format!("cannot start {}", cmd.get_program().display()))?))
    }

    /// The process, for its output.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    fn namespace() -> Result<Self> {
        let held = Self::start(Command::new("unshare").args(["--net", "cat"]))?;
        let own = fs::read_link("/proc/self/ns/net").context("cannot read this process's namespace")?;
        // `unshare` needs a moment; before that, what is meant for the new namespace would change the machine's own.
        for _ in 0..500 {
            thread::sleep(Duration::from_millis(2));
            if fs::read_link(held.path()).is_ok_and(|now| now != own) {
                return Ok(held);
            }
        }
        bail!("cannot make a network namespace (is this a container without CAP_SYS_ADMIN?)")
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn enter(&self) -> Command {
        let mut cmd = Command::new("nsenter");
        cmd.arg(format!("--net={}", self.path()));
        cmd
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Nothing is left to do about a child that cannot be awaited.
        let _ = self.0.wait();
    }
}
