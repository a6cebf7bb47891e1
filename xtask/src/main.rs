//! Tasks of the project: `cargo xtask TASK`. Needs nothing but cargo itself, and no other crate of the workspace.

use std::env;
use std::process::ExitCode;

use anyhow::{Result, bail};

mod apt;
mod bench;
mod build;
mod demo;
mod ebpf;
mod lint;
mod netns;
mod progress;
mod run;
mod setup;
mod test;
mod vm;

const HELP: &str = "\
Usage: cargo xtask TASK

  setup [--check]   find or install everything that builds, demo and tests need
  demo              watch an agent leak a document, and fail to with `egress` (root)
  test [FILTER]     run all tests, or those with FILTER in their name (root)
  vm [KERNEL]…      the tests of the BPF LSM layer in virtual machines: 6.1, 6.12, newest, or a file
  lint              format, clippy on both sides, documentation; warnings are errors
  bench [SECTION]…  what enforcement costs: kernel, start, traffic, dns (root)
  build-ebpf        build the kernel side alone; print its path and size
  build [--debug]   build `egress`, one static binary (release, unless --debug)
";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match task(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn task(args: &[&str]) -> Result<ExitCode> {
    match args {
        ["setup"] => build::setup()?,
        ["setup", "--check"] => setup::check(setup::Tools::Test)?,
        ["build-ebpf"] => build::ebpf()?,
        ["build"] => build::egress(build::Profile::Release)?,
        ["build", "--debug"] => build::egress(build::Profile::Dev)?,
        ["lint"] => lint::lint()?,
        ["test"] => return test::test(None),
        ["test", filter] => return test::test(Some(filter)),
        ["vm", kernels @ ..] => return vm::vm(kernels),
        ["bench", sections @ ..] => bench::bench(sections)?,
        ["bench-load", kind, address, amount] => bench::load::load(kind, address, amount)?,
        ["bench-serve", address] => bench::load::serve(address)?,
        ["demo"] => return demo::demo(),
        [] | ["help" | "--help" | "-h"] => print!("{HELP}"),
        _ => bail!("no such task: `{}`\n\n{HELP}", args.join(" ")),
    }
    Ok(ExitCode::SUCCESS)
}
