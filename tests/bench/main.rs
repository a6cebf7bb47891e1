//! In-kernel cost of each hook, read from the kernel's own statistics: nanoseconds a run, by size of the tables, beside a
//! program that returns at once at the same hook under the same load. Prints JSON lines for `cargo xtask bench`.
//!
//! Everything is sent into a dummy device in a network namespace without any other.

mod empty;
mod load;
mod tables;

use std::time::Duration;

use anyhow::{Context as _, Result};
use egress::enforce::{KernelProgram, Limits};
use egress_tests::scope::Scope;
use serde_json::json;

use crate::{empty::EmptyPrograms, load::Load, tables::Tables};

/// Rounds of each measurement; the median is told.
const ROUNDS: usize = 3;

fn main() -> Result<()> {
    let _statistics = aya::sys::enable_stats(aya::sys::Stats::RunTime).context("switch run statistics on")?;
    let arena = load::Arena::new()?;
    let empty = EmptyPrograms::attach()?;
    for tables in Tables::ALL {
        let limits = Limits { permits: 262_144, ..Limits::default() };
        let mut scope = Scope::with_limits(&KernelProgram::ALL, &limits)?;
        scope.enforced.open(&tables.compiled(), 0)?;
        tables.write_permits(&scope)?;
        for load in Load::ALL {
            let hooks = load.hooks();
            let mut ours = vec![Vec::new(); hooks.len()];
            let mut nothing = vec![Vec::new(); hooks.len()];
            for round in 0..ROUNDS {
                let targets = tables.targets(round);
                let before = counts(&scope, hooks)?;
                arena.run(load, &targets, scope.cgroup().path())?;
                push(&mut ours, &before, &counts(&scope, hooks)?);
                let before = empty.counts(hooks)?;
                arena.run(load, &targets, empty.cgroup())?;
                push(&mut nothing, &before, &empty.counts(hooks)?);
            }
            for (index, hook) in hooks.iter().enumerate() {
                tell(tables, load, *hook, &mut ours[index], &mut nothing[index]);
            }
        }
    }
    Ok(())
}

/// Time spent in a program, and how often it ran.
type Spent = (Duration, u64);

fn counts(scope: &Scope, hooks: &[KernelProgram]) -> Result<Vec<Spent>> {
    let count = |hook: &KernelProgram| {
        let info = scope.enforced.engine.program(*hook).context("find the program")?.info()?;
        Ok((info.run_time(), info.run_count()))
    };
    hooks.iter().map(count).collect()
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a benchmark fit a float's mantissa")]
fn push(rounds: &mut [Vec<f64>], before: &[Spent], after: &[Spent]) {
    for ((round, before), after) in rounds.iter_mut().zip(before).zip(after) {
        let runs = after.1 - before.1;
        if runs > 0 {
            round.push((after.0 - before.0).as_nanos() as f64 / runs as f64);
        }
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn tell(tables: Tables, load: Load, hook: KernelProgram, ours: &mut [f64], nothing: &mut [f64]) {
    let (Some(ours), Some(nothing)) = (median(ours), median(nothing)) else { return };
    println!(
        "{}",
        json!({
            "tables": tables.name(),
            "load": load.name(),
            "hook": hook.name(),
            "ns": (ours * 10.0).round() / 10.0,
            "empty_ns": (nothing * 10.0).round() / 10.0,
            "over_empty_ns": ((ours - nothing) * 10.0).round() / 10.0,
        })
    );
}
