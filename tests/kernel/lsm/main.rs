//! Tests of the LSM layer, run as the only program of a virtual machine: the kernels of many machines refuse such programs.
//! Prints what the standard harness prints.

mod attacks;
mod call;
mod cost;
mod guest;
mod honest;
mod outside;
mod run;
mod scope;
mod tests;

use std::{panic::catch_unwind, process::ExitCode};

use anyhow::Result;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(run::CONTAINED) {
        return run::contained();
    }
    let filter = guest::begin().unwrap_or_else(|error| panic!("set the machine up: {error:#}"));
    // What the verifier says of a program that it refuses.
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let chosen: Vec<_> = tests::TESTS.iter().filter(|(name, _)| name.contains(&filter)).collect();
    println!("\nrunning {} tests", chosen.len());
    let failed = chosen.iter().filter(|(name, test)| !perform(name, *test)).count();
    let passed = chosen.len() - failed;
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    guest::end();
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn perform(name: &str, test: fn() -> Result<()>) -> bool {
    let outcome = match catch_unwind(test) {
        Ok(Ok(())) => "ok".to_owned(),
        Ok(Err(error)) => format!("FAILED\n    {error:#}"),
        Err(_) => "FAILED\n    it panicked".to_owned(),
    };
    println!("test {name} ... {outcome}");
    outcome == "ok"
}
