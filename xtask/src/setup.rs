//! Finds or installs what builds the kernel side, and the programs that the demo and the tests drive.
//! Touches nothing of the user's but the distribution's packages: the linker goes below `.toolchain`.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::ebpf::{self, Compiler, LINKER_VERSION, MIN_RUSTC, Toolchain};
use crate::progress::Steps;
use crate::{apt, build, run};

/// The LLVM releases that this bpf-linker can be built against.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// What the work at hand needs beside the toolchain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tools {
    /// Nothing.
    Build,
    /// The demo's network and servers.
    Demo,
    /// The real clients and servers of the lab.
    Test,
}

/// Programs, what needs them first, and the package that has them.
const TOOLS: [(Tools, &str, &str); 37] = [
    (Tools::Demo, "ip", "iproute2"),
    (Tools::Demo, "python3", "python3"),
    (Tools::Demo, "openssl", "openssl"),
    (Tools::Test, "curl", "curl"),
    (Tools::Test, "dig", "dnsutils"),
    (Tools::Test, "ncat", "ncat"),
    (Tools::Test, "node", "nodejs"),
    (Tools::Test, "git", "git"),
    (Tools::Test, "ssh", "openssh-client"),
    (Tools::Test, "sshd", "openssh-server"),
    (Tools::Test, "nft", "nftables"),
    (Tools::Test, "setpriv", "util-linux"),
    (Tools::Test, "wget", "wget"),
    (Tools::Test, "musl-gcc", "musl-tools"),
    (Tools::Test, "go", "golang-go"),
    (Tools::Test, "javac", "default-jdk-headless"),
    (Tools::Test, "pip3", "python3-pip"),
    (Tools::Test, "npm", "npm"),
    (Tools::Test, "hping3", "hping3"),
    (Tools::Test, "nmap", "nmap"),
    (Tools::Test, "scapy", "python3-scapy"),
    (Tools::Test, "socat", "socat"),
    (Tools::Test, "nc.openbsd", "netcat-openbsd"),
    (Tools::Test, "iodine", "iodine"),
    (Tools::Test, "dns2tcpc", "dns2tcp"),
    (Tools::Test, "ptunnel-ng", "ptunnel-ng"),
    (Tools::Test, "icmptx", "icmptx"),
    (Tools::Test, "bwrap", "bubblewrap"),
    (Tools::Test, "gdb", "gdb"),
    (Tools::Test, "strace", "strace"),
    (Tools::Test, "make", "make"),
    (Tools::Test, "pg_createcluster", "postgresql"),
    (Tools::Test, "chromium-headless-shell", "chromium-headless-shell"),
    (Tools::Test, "tmux", "tmux"),
    (Tools::Test, "dbus-run-session", "dbus-daemon"),
    (Tools::Test, "dbus-send", "dbus-bin"),
    (Tools::Test, "qemu-system-x86_64", "qemu-system-x86"),
];

/// Says what is there and what is missing, and changes nothing.
pub(crate) fn check(tools: Tools) -> Result<()> {
    let toolchain = ebpf::find(run::root());
    match &toolchain {
        Ok(found) => eprintln!("{}", describe(found)),
        Err(why) => eprintln!("{why}\n\n{}", by_hand()),
    }
    let missing = missing_tools(tools);
    if !missing.is_empty() {
        eprintln!("missing programs: install {}", missing.join(" "));
    }
    if toolchain.is_err() || !missing.is_empty() {
        bail!("set-up is incomplete: run `cargo xtask setup` as root");
    }
    Ok(())
}

/// Work that set-up still has to do. Builds that start while it exists wait for it in their build script.
pub(crate) struct Pending {
    packages: Vec<String>,
    _held: File,
}

/// Looks whether anything is missing; nothing is a matter of a moment.
pub(crate) fn begin(tools: Tools) -> Result<Option<Pending>> {
    let root = run::root();
    let packages = missing_tools(tools);
    if packages.is_empty() && ebpf::find(root).is_ok() {
        return Ok(None);
    }
    let held = ebpf::lock(root, true).map_err(anyhow::Error::msg)?;
    Ok(Some(Pending { packages, _held: held }))
}

/// Installs what is missing, step by step.
pub(crate) fn install(tools: Tools) -> Result<Toolchain> {
    if let Some(pending) = begin(tools)? {
        pending.finish(&mut Steps::new(Pending::STEPS))?;
    }
    ebpf::find(run::root()).map_err(anyhow::Error::msg)
}

impl Pending {
    /// How many steps `finish` takes.
    pub(crate) const STEPS: usize = 3;

    /// Does what is left to do; when it returns, waiting builds go on.
    pub(crate) fn finish(self, steps: &mut Steps) -> Result<()> {
        let root = run::root();
        let mut packages = self.packages;
        let mut compiler = steps.run("look for a compiler for BPF", || Ok(usable_compiler()))?;
        steps.run("install packages", || {
            if compiler.is_none() {
                packages.extend(compiler_packages()?);
            }
            install_packages(&packages)?;
            compiler = compiler.take().or_else(usable_compiler);
            Ok(())
        })?;
        let Some(compiler) = compiler else { bail!("no usable compiler for BPF\n\n{}", by_hand()) };
        let title = format!("build bpf-linker {LINKER_VERSION} for {}", compiler.name);
        steps.run(title, || install_linker(root, &compiler))?;
        ebpf::find(root).map_err(|why| anyhow!("{why}\n\n{}", by_hand()))?;
        Ok(())
    }
}

/// Installs clippy for the distribution's compiler.
pub(crate) fn install_clippy() -> Result<()> {
    let rustc =
        apt::rust().context("the distribution has no compiler that is new enough")?.packages.swap_remove(0);
    let suffix = rustc.trim_start_matches("rustc").to_owned();
    let package = if suffix.starts_with("-web") {
        "rust-web-clippy".to_owned()
    } else {
        format!("rust{suffix}-clippy")
    };
    install_packages(&[package])
}

/// One line about a toolchain.
pub(crate) fn describe(found: &Toolchain) -> String {
    format!("kernel side: {}, LLVM {}, {}", found.compiler.name, found.compiler.llvm, found.linker.display())
}

/// A compiler that is complete, or would be with a linker that can be built.
fn usable_compiler() -> Option<Compiler> {
    ebpf::compilers().into_iter().find(|compiler| {
        compiler.lacks().is_none()
            && (ebpf::linker_for(run::root(), compiler).is_some()
                || (LINKER_LLVM.contains(&compiler.llvm) && llvm_library(compiler).is_some()))
    })
}

/// The packages with the distribution's compiler; without a distribution's compiler, rustup's nightly is tried.
fn compiler_packages() -> Result<Vec<String>> {
    if apt::usable() {
        if let Some(rust) = apt::rust() {
            return Ok(rust.packages);
        }
        apt::update()?;
        if let Some(rust) = apt::rust() {
            return Ok(rust.packages);
        }
    }
    if run::on_path("rustup").is_some() {
        let args = ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"];
        run::quietly(Command::new("rustup").args(args)).with_context(by_hand)?;
        return Ok(Vec::new());
    }
    bail!("{}", by_hand())
}

/// Installs packages of the distribution.
pub(crate) fn install_packages(packages: &[String]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if !apt::usable() {
        bail!("cannot install packages here (this needs apt-get and root); install: {}", packages.join(" "));
    }
    // The lists may be older than the archive; fetching them costs seconds, so only when it is needed.
    apt::install(packages).or_else(|_| apt::update().and_then(|()| apt::install(packages)))
}

/// Builds the linker against the compiler's own LLVM, so that it reads exactly that compiler's bitcode.
fn install_linker(root: &Path, compiler: &Compiler) -> Result<()> {
    if ebpf::linker_for(root, compiler).is_some() {
        return Ok(());
    }
    let library = llvm_library(compiler).with_context(|| format!("no LLVM {} library", compiler.llvm))?;
    let home = ebpf::linker_home(root, compiler);
    let unfinished = home.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("cannot clear {}", unfinished.display()))?;
    }
    let llvm = home.join("llvm");
    fs::create_dir_all(llvm.join("lib")).with_context(|| format!("cannot make {}", llvm.display()))?;
    let own_name = library.file_name().context("the LLVM library has no name")?;
    for name in [own_name, "libLLVM.so".as_ref()] {
        let link = llvm.join("lib").join(name);
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(&link)?;
        }
        symlink(&library, &link).with_context(|| format!("cannot make {}", link.display()))?;
    }
    let feature = format!("llvm-{}", compiler.llvm);
    let mut cmd = run::cargo();
    cmd.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--debug", "--quiet"])
        .args(["--no-default-features", "--features", &feature, "--root"])
        .arg(&unfinished)
        .arg("--target-dir")
        .arg(unfinished.join("target"))
        .env("LLVM_PREFIX", &llvm)
        .env("CARGO_PROFILE_DEV_DEBUG", "false");
    for key in ["CARGO_BUILD_TARGET", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        cmd.env_remove(key);
    }
    thread::scope(|scope| {
        // Compiles what the kernel side depends on; what fails here fails, and is told, in the build itself.
        let warm_up = scope.spawn(|| {
            run::quietly(&mut build::kernel_side(|build| {
                ebpf::command(compiler, &home.join("bin/bpf-linker"), build, "check")
            }))
        });
        let built = run::quietly(&mut cmd).with_context(by_hand);
        let _ = warm_up.join();
        built
    })?;
    fs::create_dir_all(home.join("bin"))?;
    fs::rename(unfinished.join("bin/bpf-linker"), home.join("bin/bpf-linker"))?;
    fs::remove_dir_all(&unfinished).with_context(|| format!("cannot clear {}", unfinished.display()))
}

/// The shared LLVM of a compiler, or one of the same release from the distribution.
fn llvm_library(compiler: &Compiler) -> Option<PathBuf> {
    let major = compiler.llvm;
    let prefixes = [format!("/usr/lib/llvm-{major}/lib"), format!("/usr/lib64/llvm{major}/lib64")];
    let names = [format!("libLLVM.so.{major}.1"), format!("libLLVM-{major}.so")];
    let elsewhere = prefixes.iter().flat_map(|dir| names.iter().map(move |name| Path::new(dir).join(name)));
    compiler.llvm_library.clone().into_iter().chain(elsewhere).find(|path| path.is_file())
}

fn missing_tools(tools: Tools) -> Vec<String> {
    let wanted = TOOLS.iter().filter(|(group, ..)| *group <= tools);
    let missing = wanted.filter(|(_, program, _)| run::on_path(program).is_none());
    missing.map(|(_, _, package)| (*package).to_owned()).collect()
}

/// What a person has to install where this program cannot.
fn by_hand() -> String {
    let (major, minor) = MIN_RUSTC;
    let packages = apt::rust().map_or_else(
        || "a distribution package of that release with its `rust-src` or its `core` for BPF".to_owned(),
        |rust| format!("as root: apt-get install {}", rust.packages.join(" ")),
    );
    let home = env::var("CARGO_HOME").unwrap_or_else(|_| "~/.cargo".to_owned());
    let first = if run::on_path("apt-get").is_some() && !run::is_root() {
        "run `cargo xtask setup` as root, or "
    } else {
        ""
    };
    format!(
        "To build the kernel side, {first}install by hand:\n\
         1. a Rust compiler, {major}.{minor} or newer, with `core` for BPF; either\n   \
            {packages}; or\n   \
            rustup toolchain install nightly --profile minimal --component rust-src\n\
         2. bpf-linker for that compiler's LLVM N (the last line of its `rustc -vV`), into {home}/bin:\n   \
            cargo install bpf-linker --version {LINKER_VERSION} --no-default-features --features llvm-N\n   \
            with LLVM_PREFIX naming the directory whose lib/ holds libLLVM.so\n\
         and run `cargo xtask setup` again."
    )
}

#[cfg(test)]
mod tests {
    use super::TOOLS;

    /// Seen to fail without the line for `nft`.
    #[test]
    fn what_the_lab_needs_is_installed() {
        let lab = include_str!("../../tests/packages.txt");
        let missing = lab.lines().filter(|package| TOOLS.iter().all(|(_, _, known)| known != package));
        assert_eq!(missing.collect::<Vec<_>>(), Vec::<&str>::new());
    }
}
