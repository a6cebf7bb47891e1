//! What a measuring program said, and what its server used meanwhile.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::{fmt, fs};

use anyhow::{Context as _, Result};

use crate::bench::median;

/// Processor time is counted in hundredths of a second (`USER_HZ`).
const TICK_US: f64 = 10_000.0;

/// One run.
#[derive(Debug, Default)]
pub(super) struct Figures {
    words: BTreeMap<String, String>,
    /// Resident memory of the server at each mark, in MiB.
    pub(super) memory: Vec<f64>,
}

impl Figures {
    /// Follows a run to its end, with an eye on the server.
    pub(super) fn follow(output: impl BufRead, server: Option<u32>) -> Result<Self> {
        let mut figures = Self::default();
        let mut used = 0.0;
        for line in output.lines() {
            let line = line.context("cannot read what was measured")?;
            match (line.split(' ').next(), server) {
                (Some("begin"), Some(server)) => used = processor(server)?,
                (Some("mark"), Some(server)) => figures.memory.push(memory(server)?),
                (Some("end"), Some(server)) => {
                    let used = processor(server)? - used;
                    figures.words.insert("cpu_us".to_owned(), used.to_string());
                }
                _ => figures.words.extend(
                    line.split(' ')
                        .filter_map(|word| word.split_once('='))
                        .map(|(key, value)| (key.to_owned(), value.to_owned())),
                ),
            }
        }
        Ok(figures)
    }

    /// A figure.
    pub(super) fn get(&self, key: &str) -> Result<f64> {
        self.word(key)?.parse().with_context(|| format!("`{key}` is no number"))
    }

    /// A word.
    pub(super) fn word(&self, key: &str) -> Result<&str> {
        self.words
            .get(key)
            .map(String::as_str)
            .with_context(|| format!("the measuring program said no `{key}`"))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words.iter().try_for_each(|(key, value)| write!(f, "{key}={value} "))?;
        self.memory.iter().try_for_each(|value| write!(f, "{value:.1} "))
    }
}

/// The median of a figure over several runs.
pub(super) fn middle(runs: &[Figures], key: &str) -> Result<f64> {
    let mut values = runs.iter().map(|figures| figures.get(key)).collect::<Result<Vec<f64>>>()?;
    Ok(median(&mut values))
}

/// Processor time of a process, in microseconds.
fn processor(process: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("the server is gone")?;
    let ticks = ticks(&stat).context("cannot read the server's processor time")?;
    Ok(ticks * TICK_US)
}

fn ticks(stat: &str) -> Option<f64> {
    // The name may hold anything; user and system time are the 12th and 13th words after it (proc_pid_stat(5)).
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split(' ').skip(11);
    let (user, system): (f64, f64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(user + system)
}

fn memory(process: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).context("the server is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("no VmRSS")?;
    Ok(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail with the last line taken for the end, and with `split_once` at the name's end.
    #[test]
    fn words_and_times_are_read() {
        let said = &b"begin\nend\nsent=3 rate=1.5\n"[..];
        let figures = Figures::follow(said, Some(std::process::id())).expect("figures");
        assert!((figures.get("rate").expect("a rate") - 1.5).abs() < 1e-9);
        assert!(figures.get("cpu_us").is_ok() && figures.get("lost").is_err());
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(ticks(stat), Some(200.0));
    }
}
