//! Nanoseconds per run of each hook inside the kernel, by the kernel's own count, beside a program that returns at once.
//! A program of its own measures, since that takes the crates that this one must do without; it tells JSON lines.

use anyhow::{Context as _, Result, bail};

use super::Bench;
use super::report::{Row, Target};
use crate::run;

/// The load of an established flow, in the words of the measuring program.
const ESTABLISHED: &str = "established";

/// One row for each filling of the tables, load and hook.
pub(crate) fn rows(_bench: &Bench) -> Result<Vec<Row>> {
    let mut cmd = run::cargo();
    cmd.args(["run", "--release", "--quiet", "--package", "egress-tests", "--bin", "kernel-bench"]);
    let done = cmd.output().context("cannot start the measuring program")?;
    if !done.status.success() {
        bail!("the measuring program failed ({}):\n{}", done.status, String::from_utf8_lossy(&done.stderr));
    }
    let said = String::from_utf8_lossy(&done.stdout);
    let rows: Option<Vec<Row>> = said.lines().map(row).collect();
    rows.filter(|rows| !rows.is_empty())
        .with_context(|| format!("the measuring program said no figures: {said}"))
}

fn row(line: &str) -> Option<Row> {
    let text = |key: &str| field(line, key).map(|value| value.trim_matches('"'));
    let (tables, load, hook) = (text("tables")?, text("load")?, text("hook")?);
    let target = match (tables, load) {
        (_, ESTABLISHED) => Some(Target::Over(60.0)),
        ("100000 permits", _) => Some(Target::Total(150.0)),
        ("10000 networks", _) => Some(Target::Total(350.0)),
        _ => None,
    };
    Some(Row {
        name: format!("{hook}, {load}, {tables}"),
        unit: "ns",
        without: Some(text("empty_ns")?.parse().ok()?),
        with: text("ns")?.parse().ok()?,
        target,
    })
}

/// The value of a key in one flat JSON object whose strings hold neither commas nor braces.
fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("\"{key}\":"))?;
    rest.split([',', '}']).next().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail with the targets' arms swapped.
    #[test]
    fn a_line_becomes_a_row() {
        let line = r#"{"empty_ns":20.5,"hook":"packet","load":"established","ns":70.0,"over_empty_ns":49.5,"tables":"100000 permits"}"#;
        let row = row(line).expect("a row");
        assert_eq!(row.name, "packet, established, 100000 permits");
        assert_eq!((row.without, row.with, row.target), (Some(20.5), 70.0, Some(Target::Over(60.0))));
        assert!(super::row("{}").is_none());
    }
}
