//! Builds the kernel side and the binary that embeds it.

use std::fs;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};

use crate::progress::Steps;
use crate::setup::{self, Pending, Tools};
use crate::{ebpf, run};

/// How much the compiler is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For use.
    Release,
    /// For work on the project: built in seconds.
    Dev,
}

/// `cargo xtask setup`
pub(crate) fn setup() -> Result<()> {
    let started = Instant::now();
    let found = setup::install(Tools::Test)?;
    eprintln!("{}\nset-up is complete ({:.1} s)", setup::describe(&found), started.elapsed().as_secs_f64());
    Ok(())
}

/// `cargo xtask build-ebpf`
pub(crate) fn ebpf() -> Result<()> {
    let toolchain = setup::install(Tools::Build)?;
    let (object, _) =
        kernel_side(|build| ebpf::build(&toolchain, build, Stdio::inherit())).map_err(anyhow::Error::msg)?;
    let size = fs::metadata(&object).with_context(|| format!("cannot read {}", object.display()))?.len();
    println!("{} ({size} bytes)", object.display());
    Ok(())
}

/// Calls with the build of the kernel side for this machine.
pub(crate) fn kernel_side<T>(with: impl FnOnce(&ebpf::Build<'_>) -> T) -> T {
    with(&ebpf::Build {
        root: run::root(),
        target_dir: &run::target_dir(),
        arch: std::env::consts::ARCH,
        big_endian: cfg!(target_endian = "big"),
        log: false,
    })
}

/// Does all set-up and builds the binary as fast as it goes: set-up and compilation overlap.
pub(crate) fn ready(tools: Tools) -> Result<PathBuf> {
    let compile = || {
        let mut cmd = run::cargo();
        cmd.args(["build", "--package", "egress"]);
        // One job more than processors: the build script only waits while set-up runs.
        let jobs = thread::available_parallelism().map_or(2, NonZero::get) + 1;
        run::quietly(cmd.arg(format!("--jobs={jobs}")))
    };
    const TITLE: &str = "build egress";
    match setup::begin(tools)? {
        None => Steps::new(1).run(TITLE, compile)?,
        Some(pending) => {
            let mut steps = Steps::new(Pending::STEPS + 1);
            thread::scope(|scope| {
                let compiling = scope.spawn(compile);
                pending.finish(&mut steps)?;
                steps.run(TITLE, || compiling.join().map_err(|_| anyhow!("the build panicked"))?)
            })?;
        }
    }
    Ok(binary(Profile::Dev))
}

/// `cargo xtask build`
pub(crate) fn egress(profile: Profile) -> Result<()> {
    setup::install(Tools::Build)?;
    let mut cmd = run::cargo();
    cmd.args(["build", "--package", "egress"]);
    if profile == Profile::Release {
        cmd.arg("--release");
    }
    run::visibly(&mut cmd)?;
    println!("{}", binary(profile).display());
    Ok(())
}

/// Where the binary is after a build.
pub(crate) fn binary(profile: Profile) -> PathBuf {
    let dir = if profile == Profile::Release { "release" } else { "debug" };
    // The workspace names its target, so each build is below the host's triple.
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    run::target_dir().join(triple).join(dir).join("egress")
}
