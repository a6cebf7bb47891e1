//! Builds the kernel side and hands its object to the crate, which embeds it. Fails rather than embed a stale
//! object or none.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

#[path = "../xtask/src/ebpf.rs"]
mod ebpf;

fn main() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            for line in message.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), String> {
    let manifest = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let root = manifest.parent().ok_or("the crate is not inside its workspace")?;
    let out = PathBuf::from(var("OUT_DIR")?);
    for input in ["egress-ebpf", "egress-common", "Cargo.toml", "Cargo.lock", "xtask/src/ebpf.rs"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let _held = ebpf::lock(root, false)?;
    let toolchain = ebpf::find(root).map_err(|why| format!("{why}\nrun `cargo xtask setup`"))?;
    println!("cargo::rerun-if-changed={}", toolchain.linker.display());
    println!("cargo::rerun-if-changed={}", toolchain.compiler.rustc().display());
    println!("cargo::rustc-env=EGRESS_KERNEL_SIDE_COMPILER={}", toolchain.compiler.name);
    let arch = var("CARGO_CFG_TARGET_ARCH")?;
    let build = ebpf::Build {
        root,
        target_dir: &target_dir(&out)?,
        arch: &arch,
        big_endian: var("CARGO_CFG_TARGET_ENDIAN")? == "big",
        log: env::var_os("CARGO_FEATURE_KERNEL_LOG").is_some(),
    };
    let (object, said) = ebpf::build(&toolchain, &build, Stdio::piped())?;
    if said.contains("warning: ") {
        let progress =
            |line: &&str| ["Compiling ", "Finished "].iter().any(|word| line.trim().starts_with(word));
        for line in said.lines().filter(|line| !progress(line)) {
            println!("cargo::warning={line}");
        }
    }
    let copy = out.join("egress-ebpf");
    fs::copy(&object, &copy).map_err(|error| format!("cannot write {}: {error}", copy.display()))?;
    Ok(())
}

/// The workspace's target directory: above `[TRIPLE/]PROFILE/build/PACKAGE/out`.
fn target_dir(out: &Path) -> Result<PathBuf, String> {
    let above = out.ancestors().nth(4).ok_or("OUT_DIR is not inside a target directory")?;
    let per_target = above.file_name().is_some_and(|name| Some(name) == env::var_os("TARGET").as_deref());
    let dir = if per_target { above.parent() } else { Some(above) };
    dir.map(Path::to_path_buf).ok_or_else(|| "OUT_DIR is not inside a target directory".to_owned())
}

fn var(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set: this is a build script, run by cargo"))
}
