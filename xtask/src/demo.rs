//! `cargo xtask demo`: the same agent run twice, without and with `egress`, in a network of its own. Passes only
//! if the servers saw the leak without, and did not with, and the model was reached both times.

mod network;
mod report;

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::setup::Tools;
use crate::{build, run};
use network::Network;
use report::{Paint, Received};

/// The name that the policy allows.
pub(crate) const MODEL: &str = "api.model.example";
/// The name that the injected instruction gives.
pub(crate) const COLLECTOR: &str = "collect.attacker.example";

const POLICY: &str = "policies/doc-summarizer.yaml";

/// The servers may still be writing about the last packets.
const SETTLE: Duration = Duration::from_millis(200);

/// An agent that hangs is a failed demo, not a demo without end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the demo; the exit code says whether the story held.
pub(crate) fn demo() -> Result<ExitCode> {
    let binary = build::ready(Tools::Demo)?;
    if !run::is_root() {
        bail!(
            "the demo makes network namespaces and loads eBPF programs: run it as root (sudo cargo xtask demo)"
        );
    }
    let paint = Paint::for_stdout();
    let network = Network::new(&[(MODEL, "203.0.113.10"), (COLLECTOR, "203.0.113.66")])?;
    report::opening(&paint, POLICY);

    paint.section("1  without egress");
    let agent = network.agent_command();
    play(&paint, network.inside(&agent))?;
    let without = Received::read(&network)?;

    paint.section(&format!("2  with `egress run --policy {POLICY}`"));
    let policy = run::root().join(POLICY);
    let mut contained =
        vec![binary.into_os_string(), "run".into(), "--policy".into(), policy.into(), "--".into()];
    contained.extend(agent);
    play(&paint, network.inside(&contained))?;
    let with = Received::read(&network)?.since(&without);

    paint.section("what each server received, by its own log");
    let held = report::verdict(&paint, &without, &with);
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one act and shows what it says: the agent on its standard output, `egress` on its standard error.
fn play(paint: &Paint, mut cmd: Command) -> Result<()> {
    let mut child = cmd
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the agent")?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let screen = Mutex::new(());
    let status = thread::scope(|scope| {
        scope.spawn(|| show(out, &screen, |line| paint.agent(line)));
        scope.spawn(|| show(err, &screen, |line| paint.egress(line)));
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if started.elapsed() > PATIENCE {
                child.kill()?;
                bail!("the agent did not end within {} s", PATIENCE.as_secs());
            }
            thread::sleep(Duration::from_millis(5));
        }
    })?;
    if !status.success() {
        bail!("the agent's run failed ({status})");
    }
    thread::sleep(SETTLE);
    Ok(())
}

fn show(from: Option<impl Read>, screen: &Mutex<()>, print: impl Fn(&str)) {
    let lines = from.into_iter().flat_map(|from| BufReader::new(from).lines()).map_while(Result::ok);
    for line in lines {
        let _turn = screen.lock();
        print(&line);
    }
}
