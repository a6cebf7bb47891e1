//! `cargo xtask bench`: what enforcement costs. Prints a table, writes target/bench.json (of single sections,
//! target/bench-SECTION.json); a target that is missed is reported, not an error. Sections are independent: one that
//! cannot be measured says why and fails the whole.

mod dns;
mod kernel;
pub(crate) mod load;
mod report;
mod start;
mod traffic;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

use crate::build::{self, Profile};
use crate::run;
use crate::setup::{self, Tools};
use report::Row;

/// What the sections share.
struct Bench {
    /// The released binary.
    egress: PathBuf,
    /// This program, where any user can start it: it makes the load.
    load: PathBuf,
    /// Holds it and the policies; removed at the end.
    dir: PathBuf,
}

/// Measures the sections named, or all.
pub(crate) fn bench(sections: &[&str]) -> Result<()> {
    type Section = fn(&Bench) -> Result<Vec<Row>>;
    const SECTIONS: [(&str, Section); 4] =
        [("kernel", kernel::rows), ("start", start::rows), ("traffic", traffic::rows), ("dns", dns::rows)];
    if let Some(unknown) = sections.iter().find(|name| SECTIONS.iter().all(|(known, _)| known != *name)) {
        bail!("no such section: `{unknown}`; there are kernel, start, traffic and dns");
    }
    if !run::is_root() {
        bail!("enforcement is measured by enforcing: run this as root (sudo cargo xtask bench)");
    }
    setup::install(Tools::Demo)?;
    build::egress(Profile::Release)?;
    let bench = Bench::new()?;
    let mut rows = Vec::new();
    for (name, section) in SECTIONS.iter().filter(|(name, _)| sections.is_empty() || sections.contains(name))
    {
        eprintln!("measuring: {name}");
        rows.extend(section(&bench).with_context(|| format!("section {name}"))?);
    }
    print!("{}", report::table(&rows));
    let name: String = ["bench"].iter().chain(sections).copied().collect::<Vec<_>>().join("-");
    let file = run::target_dir().join(name + ".json");
    fs::write(&file, report::json(&rows)).with_context(|| format!("cannot write {}", file.display()))?;
    println!("\n{}", file.display());
    Ok(())
}

impl Bench {
    fn new() -> Result<Self> {
        let dir = env::temp_dir().join(format!("egress-bench-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let load = dir.join("load");
        fs::copy(env::current_exe()?, &load).with_context(|| format!("cannot copy to {}", load.display()))?;
        Ok(Self { egress: build::binary(Profile::Release), load, dir })
    }

    /// Writes a policy and gives its path.
    fn policy(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Makes `outer` start what is added to it, under a policy if there is one.
    fn under(&self, mut outer: Command, policy: Option<&Path>) -> Command {
        if let Some(policy) = policy {
            outer.arg(&self.egress).args(["run", "--policy"]).arg(policy).arg("--");
        }
        outer
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // What cannot be removed is a few files in the directory for temporary ones.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The middle of the values; of an even number, the mean of the two in the middle.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values {
        [] => f64::NAN,
        values if values.len() % 2 == 1 => values[middle],
        values => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    /// Seen to fail with the upper of the two in the middle.
    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&mut [4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&mut []).is_nan());
    }
}
