//! Builds the kernel side and the binary that embeds it.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::setup::{self, Tools};
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
    let target_dir = run::target_dir();
    let build = ebpf::Build {
        root: run::root(),
        target_dir: &target_dir,
        arch: std::env::consts::ARCH,
        big_endian: cfg!(target_endian = "big"),
        log: false,
    };
    let (object, _) = ebpf::build(&toolchain, &build, Stdio::inherit()).map_err(anyhow::Error::msg)?;
    let size = fs::metadata(&object).with_context(|| format!("cannot read {}", object.display()))?.len();
    println!("{} ({size} bytes)", object.display());
    Ok(())
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
