//! `cargo xtask lint`: format, clippy on both sides, documentation, with every warning an error.

use std::process::Command;

use anyhow::{Result, anyhow, bail};

use crate::progress::Steps;
use crate::setup::{self, Tools};
use crate::{build, ebpf, run};

const SCOPE: [&str; 3] = ["--workspace", "--exclude", "egress-ebpf"];

/// Checks everything that needs no test to run.
pub(crate) fn lint() -> Result<()> {
    let toolchain = setup::install(Tools::Build)?;
    let mut steps = Steps::new(4);
    // All are run: whoever mends the first wants to know of the others.
    let outcomes = [
        steps.run("format", || run::quietly(run::cargo().args(["fmt", "--all", "--check"]))),
        steps.run("clippy, host", || {
            let mut cmd = run::cargo();
            run::quietly(cmd.arg("clippy").args(SCOPE).args(["--all-targets", "--", "-D", "warnings"]))
        }),
        steps.run("clippy, kernel side", || kernel_side(&toolchain)),
        steps.run("documentation", || {
            let mut cmd = run::cargo();
            cmd.arg("doc").args(SCOPE).args(["--no-deps", "--document-private-items"]);
            run::quietly(cmd.env("RUSTDOCFLAGS", "-D warnings"))
        }),
    ];
    let failures: Vec<String> =
        outcomes.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n\n")) }
}

/// Clippy of the very compiler that builds the kernel side: another's cannot read its `core`.
fn kernel_side(toolchain: &ebpf::Toolchain) -> Result<()> {
    let clippy = toolchain.compiler.rustc().with_file_name("cargo-clippy");
    if !clippy.is_file() {
        let installed = setup::install_clippy();
        if !clippy.is_file() {
            installed?;
            bail!("{} has no clippy: install it", toolchain.compiler.name);
        }
    }
    let like =
        build::kernel_side(|build| ebpf::command(&toolchain.compiler, &toolchain.linker, build, "clippy"));
    // Started by its path: `cargo clippy` would find that of another toolchain.
    let mut cmd = Command::new(&clippy);
    cmd.args(like.get_args()).args(["--", "-D", "warnings"]).env("CARGO", like.get_program());
    cmd.current_dir(like.get_current_dir().ok_or_else(|| anyhow!("the build has no directory"))?);
    for (key, value) in like.get_envs() {
        match value {
            Some(value) => cmd.env(key, value),
            None => cmd.env_remove(key),
        };
    }
    run::quietly(&mut cmd)
}
