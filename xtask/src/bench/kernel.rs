//! Nanoseconds per run of each hook inside the kernel, by the kernel's own count (run_time_ns / run_cnt), while one
//! load runs in a scope whose tables hold so many entries. The count is read from the supervisor's descriptors.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Bench;
use super::report::Row;
use super::traffic::{PORT, SERVER, serve};
use crate::netns::Pair;

const ROUNDS: usize = 5;

/// The switch of the kernel's statistics, which cost every BPF program on the machine some nanoseconds.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Starts the load with the bench's own names.
const ENTER: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;

/// What the tables hold.
#[derive(Clone, Copy, Debug)]
enum Tables {
    /// So many addresses learned for a name, the server's among them.
    Permits(u32),
    /// So many networks, the server's address among them.
    Networks(u32),
}

/// A hook: what it is called, the kernel's number for its type of program, and the load that runs it most.
const HOOKS: [(&str, &str, &str, u32); 3] = [
    ("packet", "8", "sendto", 100_000),
    ("sendmsg", "18", "sendto", 100_000),
    ("connect", "18", "connect", 5000),
];

/// The sizes, each with the most nanoseconds that a decision should take.
const SIZES: [(Tables, Option<f64>); 4] = [
    (Tables::Permits(10), None),
    (Tables::Permits(10_000), None),
    (Tables::Permits(100_000), Some(150.0)),
    (Tables::Networks(10_000), Some(350.0)),
];

/// One row for each hook and size, and one for packets of an established flow.
pub(crate) fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let _switch = Switch::on()?;
    let namespaces = Pair::new(&[SERVER])?;
    let _far = serve(bench, namespaces.servers(), SERVER)?;
    let mut rows = Vec::new();
    for (tables, target) in SIZES {
        for (hook, kind, load, amount) in HOOKS {
            let name = format!("{hook}, {tables}");
            let with =
                measure(bench, &namespaces, tables, (kind, load, amount)).with_context(|| name.clone())?;
            rows.push(Row { name, unit: "ns", without: None, with, target });
        }
    }
    let stream = measure(bench, &namespaces, Tables::Permits(100_000), ("8", "stream", 512))?;
    let name = "packet, established flow, 100000 permits".to_owned();
    rows.push(Row { name, unit: "ns", without: None, with: stream, target: None });
    Ok(rows)
}

/// The best of some rounds: the kernel counts by the clock on the wall, so whatever else the machine does only adds.
fn measure(bench: &Bench, namespaces: &Pair, tables: Tables, load: (&str, &str, u32)) -> Result<f64> {
    let figures: Result<Vec<f64>> = (0..ROUNDS).map(|_| once(bench, namespaces, tables, load)).collect();
    Ok(figures?.into_iter().fold(f64::INFINITY, f64::min))
}

/// Runs the load once in a scope of its own; the program that ran most is the hook that the load was made for.
fn once(
    bench: &Bench,
    namespaces: &Pair,
    tables: Tables,
    (kind, load, amount): (&str, &str, u32),
) -> Result<f64> {
    let hosts = bench.policy("hosts", &tables.hosts())?;
    let policy = bench.policy("kernel.yaml", &tables.policy(if load == "sendto" { "udp" } else { "tcp" }))?;
    let mut cmd = namespaces.agent();
    cmd.args(["unshare", "--mount", "sh", "-c", ENTER]).arg(hosts);
    let mut cmd = bench.under(cmd, Some(&policy));
    cmd.arg(&bench.load).args(["bench-load", load, &format!("{SERVER}:{PORT}"), &amount.to_string()]);
    let child = cmd.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.context("cannot start the load")?;
    let mut programs: BTreeMap<String, Run> = BTreeMap::new();
    while child.try_wait()?.is_none() {
        programs.extend(runs(child.id()));
        thread::sleep(Duration::from_millis(10));
    }
    let done = child.wait_with_output()?;
    if !done.status.success() {
        bail!("the load failed ({}): {}", done.status, String::from_utf8_lossy(&done.stderr));
    }
    let most = programs.values().filter(|run| run.kind == kind).max_by_key(|run| run.count);
    let most =
        most.filter(|run| run.count > amount / 2).context("no program ran as often as the load demands")?;
    Ok(most.nanoseconds / f64::from(most.count))
}

/// What one program has done, by the kernel's count.
struct Run {
    kind: String,
    nanoseconds: f64,
    count: u32,
}

/// The programs that a process holds, by their ids.
fn runs(process: u32) -> Vec<(String, Run)> {
    let files = fs::read_dir(format!("/proc/{process}/fdinfo")).into_iter().flatten().flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let run = |text: String| {
        let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let run = Run {
            kind: field("prog_type:")?.to_owned(),
            nanoseconds: field("run_time_ns:")?.parse().ok()?,
            count: field("run_cnt:")?.parse().ok()?,
        };
        Some((field("prog_id:")?.to_owned(), run))
    };
    texts.filter_map(run).collect()
}

impl Tables {
    fn hosts(self) -> String {
        let Self::Permits(size) = self else { return String::new() };
        let others = (1..size).map(|n| format!("2001:db8::{:x}:{:x} bench.example\n", n >> 16, n & 0xffff));
        format!("{SERVER} bench.example\n{}", others.collect::<String>())
    }

    /// One protocol only: an address takes an entry for each.
    fn policy(self, protocol: &str) -> String {
        let rule =
            |destination: &str| format!("  - {{ {destination}, protocol: {protocol}, ports: [{PORT}] }}\n");
        let rules = match self {
            Self::Permits(_) => rule("host: bench.example"),
            // Every second network, so that none can be merged with its neighbour.
            Self::Networks(size) => (1..size)
                .map(|n| rule(&format!("cidr: 10.{}.{}.0/24", n >> 7, (n & 0x7f) << 1)))
                .chain([rule(&format!("cidr: {SERVER}/32"))])
                .collect(),
        };
        format!("version: 1\nname: bench\nallow:\n{rules}")
    }
}

impl std::fmt::Display for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Permits(size) => write!(f, "{size} permits"),
            Self::Networks(size) => write!(f, "{size} networks"),
        }
    }
}

/// The kernel's statistics, on until this is dropped.
struct Switch {
    before: String,
}

impl Switch {
    fn on() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("cannot read {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("cannot write {SWITCH}"))?;
        Ok(Self { before })
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, self.before.trim()) {
            eprintln!("cannot restore {SWITCH}: {error}");
        }
    }
}
