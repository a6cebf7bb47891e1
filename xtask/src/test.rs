//! `cargo xtask test [FILTER]`: all set-up, then every test of the workspace, as root, and one line that sums up.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::setup::Tools;
use crate::{build, run, vm};

/// The kernel side has no tests of its own: it is tested in the kernel.
const SCOPE: [&str; 3] = ["--workspace", "--exclude", "egress-ebpf"];

/// The filter that asks for the tests in virtual machines, which no other does: they take minutes.
const VMS: &str = "vm";

/// Outcomes, summed over all test programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    ignored: usize,
}

/// Runs the tests whose name contains the filter.
pub(crate) fn test(filter: Option<&str>) -> Result<ExitCode> {
    if !run::is_root() {
        bail!(
            "the kernel tests load eBPF programs and make namespaces: run them as root (sudo cargo xtask test)"
        );
    }
    let egress = build::ready(Tools::Test)?;
    let mut tally = Tally::default();
    let mut ended_well = true;
    for mut cmd in commands(filter) {
        ended_well &= follow(cmd.env("EGRESS_BIN", &egress), &mut tally)?;
    }
    if filter.is_none_or(|filter| filter == VMS) {
        vm::run_all(&vm::SUITE, "", &mut tally)?;
    }
    if tally == Tally::default() {
        bail!(
            "no test ran{}",
            filter.map(|filter| format!(": none has `{filter}` in its name")).unwrap_or_default()
        );
    }
    if tally.ignored > 0 {
        println!("{} ignored", tally.ignored);
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(if ended_well && tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What runs the tests: nextest and, for the examples in documentation, cargo; or cargo alone.
fn commands(filter: Option<&str>) -> Vec<Command> {
    let nextest = run::on_path("cargo-nextest").is_some();
    let verbs: &[&[&str]] = if nextest {
        &[&["nextest", "run", "--no-fail-fast", "--no-tests=pass"], &["test", "--doc", "--no-fail-fast"]]
    } else {
        &[&["test", "--no-fail-fast"]]
    };
    let command = |verb: &&[&str]| {
        let mut cmd = run::cargo();
        cmd.args(*verb).args(SCOPE).args(filter);
        cmd
    };
    verbs.iter().map(command).collect()
}

/// Runs a command in full view while counting the outcomes that it reports, on whichever stream.
pub(crate) fn follow(cmd: &mut Command, tally: &mut Tally) -> Result<bool> {
    let name = Path::new(cmd.get_program()).display().to_string();
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    let (out, err) = (writer.try_clone()?, writer);
    let child = cmd.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
    let mut child = child.with_context(|| format!("cannot start {name}"))?;
    // Else the pipe never ends: the command keeps its writing ends.
    cmd.stdout(Stdio::null()).stderr(Stdio::null());
    let mut screen = io::stdout().lock();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("cannot read what the tests print")?;
        let text = String::from_utf8_lossy(&line);
        writeln!(screen, "{text}").context("cannot print")?;
        tally.add(&text);
    }
    Ok(child.wait()?.success())
}

impl Tally {
    /// Adds another's.
    pub(crate) fn add_all(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    /// Adds a summary line of cargo's test harness (`test result: …`) or of nextest (`Summary […] N tests run: …`).
    ///
    /// Nextest repeats the harness's lines of failed tests, indented: those are in its summary too.
    fn add(&mut self, line: &str) {
        let harness = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "));
        let nextest = line.trim_start().strip_prefix("Summary [").and_then(|rest| rest.split_once("run: "));
        let Some((_, counts)) = harness.or(nextest) else { return };
        for part in counts.split([';', ',']) {
            let mut words = part.split_whitespace();
            let (Some(Ok(number)), Some(kind)) = (words.next().map(str::parse::<usize>), words.next()) else {
                continue;
            };
            match kind {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                // Timed out under nextest.
                "timed" => self.failed += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    /// Seen to fail with indented lines counted too, and with `failed` counted as `passed`.
    #[test]
    fn both_harnesses_are_counted() {
        let mut tally = Tally::default();
        tally.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        tally.add("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s");
        tally.add("     Summary [   0.1s] 9 tests run: 5 passed, 3 failed, 1 timed out, 4 skipped");
        tally.add("    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 6 filtered out; finished in 8s");
        tally.add("test policy::tests::result ... ok");
        assert_eq!(tally, Tally { passed: 10, failed: 5, ignored: 1 });
    }
}
