//! What a run costs before and around its command: time to start, memory of the supervisor.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::report::{Row, Target};
use super::{Bench, median};

const RUNS: usize = 15;

/// Longest start-up that goes unnoticed, and memory that a laptop does not miss.
const START_MS: f64 = 150.0;
const RSS_MIB: f64 = 20.0;

/// Start-up time and peak memory.
pub(crate) fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let policy = bench.policy("deny-all.yaml", "version: 1\nname: deny-all\nallow: []\n")?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        for (policy, times) in [(None, &mut without), (Some(policy.as_path()), &mut with)] {
            let mut cmd = bench.under(Command::new("env"), policy);
            cmd.arg("true").stdout(Stdio::null()).stderr(Stdio::null());
            let started = Instant::now();
            let status = cmd.status().context("cannot start `egress run -- true`")?;
            times.push(started.elapsed().as_secs_f64() * 1000.0);
            if !status.success() {
                bail!("`egress run -- true` failed ({status})");
            }
        }
    }
    let start = Row {
        name: "egress run -- true".to_owned(),
        unit: "ms",
        without: Some(median(&mut without)),
        with: median(&mut with),
        target: Some(Target::Total(START_MS)),
    };
    let rss = Row {
        name: "peak memory of the supervisor".to_owned(),
        unit: "MiB",
        without: None,
        with: peak_memory(bench, &policy)?,
        target: Some(Target::Total(RSS_MIB)),
    };
    Ok(vec![start, rss])
}

/// Peak resident memory of the supervisor, the command not counted.
fn peak_memory(bench: &Bench, policy: &std::path::Path) -> Result<f64> {
    let mut child = Command::new(&bench.egress)
        .args(["run", "--policy"])
        .arg(policy)
        .args(["--", "sleep", "2"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start `egress run -- sleep`")?;
    thread::sleep(Duration::from_secs(1));
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()));
    child.wait()?;
    let status = status.context("the supervisor ended before its command")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = peak.and_then(|peak| peak.split_whitespace().next()?.parse().ok()).context("no peak")?;
    Ok(kib / 1024.0)
}
