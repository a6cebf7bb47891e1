//! The servers that are compared: the upstream itself, and three forwarders to it that keep what they are told.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use crate::{run, setup};

/// Where the upstream answers.
pub(super) const UPSTREAM: &str = "127.0.0.1:5300";

/// Who is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Server {
    /// The upstream, directly.
    Upstream,
    /// `egress run`, by asking a server that is not there.
    Egress,
    /// dnsmasq.
    Dnsmasq,
    /// unbound.
    Unbound,
}

impl Server {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Egress => "egress",
            Self::Dnsmasq => "dnsmasq",
            Self::Unbound => "unbound",
        }
    }

    /// Where it is asked.
    pub(super) const fn address(self) -> &'static str {
        match self {
            Self::Upstream => UPSTREAM,
            Self::Egress => "198.51.100.53:53",
            Self::Dnsmasq => "127.0.0.1:5301",
            Self::Unbound => "127.0.0.1:5302",
        }
    }
}

/// Every name of the benchmark, asked as fast as anybody likes.
pub(super) const POLICY: &str = "version: 1
name: bench
allow:
  - host: \"*.bench.example\"
dns:
  upstream: [\"127.0.0.1:5300\"]
  wildcard: { label: 63, name: 253, new-names: 1000000 }
";

/// Without validation, which dnsmasq and `egress` do not do either, and with room for every question.
pub(super) const UNBOUND: &str = "server:
  num-threads: 1
  interface: 127.0.0.1
  port: 5302
  do-ip6: no
  access-control: 127.0.0.0/8 allow
  do-not-query-localhost: no
  module-config: \"iterator\"
  qname-minimisation: no
  outgoing-range: 8192
  num-queries-per-thread: 4096
  msg-cache-size: 64m
  rrset-cache-size: 128m
  so-rcvbuf: 8m
  do-daemonize: no
  use-syslog: no
  username: \"\"
  chroot: \"\"
  pidfile: \"\"
remote-control:
  control-enable: no
forward-zone:
  name: \".\"
  forward-addr: 127.0.0.1@5300
";

const DNSMASQ: [&str; 11] = [
    "--no-daemon",
    "--conf-file=/dev/null",
    "--no-resolv",
    "--no-hosts",
    "--user=root",
    "--pid-file=",
    "--port=5301",
    "--listen-address=127.0.0.1",
    "--cache-size=10000",
    "--dns-forward-max=4096",
    "--server=127.0.0.1#5300",
];

/// Installs dnsmasq and unbound if they are missing, and starts neither, now or later.
pub(super) fn install() -> Result<()> {
    let wanted = [("dnsmasq", "dnsmasq-base"), ("unbound", "unbound")];
    let missing: Vec<String> = wanted
        .iter()
        .filter(|(program, _)| run::on_path(program).is_none())
        .map(|(_, package)| (*package).to_owned())
        .collect();
    if !missing.iter().any(|package| package == "unbound") || run::on_path("systemctl").is_none() {
        return setup::install_packages(&missing);
    }
    // The package of unbound would start a resolver on this machine.
    let unit = |verbs: &[&str]| run::quietly(Command::new("systemctl").args(verbs).arg("unbound.service"));
    unit(&["mask", "--runtime"])?;
    let installed = setup::install_packages(&missing);
    let disabled = if installed.is_ok() { unit(&["disable"]) } else { Ok(()) };
    unit(&["unmask", "--runtime"])?;
    installed.and(disabled)
}

/// A forwarder that runs until this is dropped, or this process ends.
pub(super) struct Forwarder(Child);

impl Forwarder {
    /// Has `outer` start one, if it is one that is started by itself.
    pub(super) fn start(server: Server, mut outer: Command, unbound: &Path) -> Result<Option<Self>> {
        match server {
            Server::Upstream | Server::Egress => return Ok(None),
            Server::Dnsmasq => outer.arg("dnsmasq").args(DNSMASQ),
            Server::Unbound => outer.args(["unbound", "-d", "-c"]).arg(unbound),
        };
        outer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = outer.spawn().with_context(|| format!("cannot start {}", server.name()))?;
        Ok(Some(Self(child)))
    }

    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // One that has ended needs no end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
