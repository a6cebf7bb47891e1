//! What traffic costs: the same load without and with enforcement, by turns, in namespaces of its own.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::report::Row;
use super::{Bench, median};
use crate::netns::{Held, Pair};

const ROUNDS: usize = 9;
const SERVER: &str = "203.0.113.10";
const PORT: u16 = 7000;

/// A policy with the servers among rules of every kind, as real ones have.
const POLICY: &str = "version: 1
name: bench
allow:
  - cidr: 203.0.113.10/32
    ports: [7000]
  - cidr: 203.0.113.10/32
    protocol: udp
    ports: [7000]
  - cidr: 198.51.100.0/24
    ports: [22, 8000-8100]
deny:
  - cidr: 192.0.2.0/24
loopback: any
";

/// A kind of load, what it is called, its unit, the address and the amount.
const LOADS: [(&str, &str, &str, &str, u32); 4] = [
    ("connect", "TCP connect", "ns", SERVER, 3000),
    ("send", "UDP send, connected", "ns", SERVER, 100_000),
    ("sendto", "UDP send, unconnected", "ns", SERVER, 100_000),
    ("stream", "loopback TCP, time per MiB", "us", "127.0.0.1", 1024),
];

/// One row for each kind of load.
pub(crate) fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let namespaces = Pair::new(&[SERVER])?;
    let _far = serve(bench, namespaces.servers(), SERVER)?;
    let _near = serve(bench, namespaces.agent(), "127.0.0.1")?;
    let policy = bench.policy("bench.yaml", POLICY)?;
    let mut rows = Vec::new();
    for (kind, name, unit, address, amount) in LOADS {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            for (policy, figures) in [(None, &mut without), (Some(policy.as_path()), &mut with)] {
                let mut cmd = bench.under(namespaces.agent(), policy);
                cmd.arg(&bench.load).args([
                    "bench-load",
                    kind,
                    &format!("{address}:{PORT}"),
                    &amount.to_string(),
                ]);
                figures.push(figure(&mut cmd)?);
            }
        }
        let (without, with) = (Some(median(&mut without)), median(&mut with));
        rows.push(Row { name: name.to_owned(), unit, without, with, target: None });
    }
    Ok(rows)
}

fn serve(bench: &Bench, mut cmd: Command, address: &str) -> Result<Held> {
    let mut held = Held::start(cmd.arg(&bench.load).args(["bench-serve", &format!("{address}:{PORT}")]))?;
    let out = held.child().stdout.take().context("the server has no output")?;
    let mut first = String::new();
    BufReader::new(out).read_line(&mut first).context("cannot read from the server")?;
    if first.trim() != "ready" {
        bail!("the server at {address} did not start");
    }
    Ok(held)
}

fn figure(cmd: &mut Command) -> Result<f64> {
    let done = cmd.stdin(Stdio::null()).output().context("cannot start the load")?;
    let said = String::from_utf8_lossy(&done.stdout);
    let figure = said.trim().parse();
    figure.with_context(|| {
        format!("the load failed ({}): {said}{}", done.status, String::from_utf8_lossy(&done.stderr))
    })
}
