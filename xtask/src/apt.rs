//! The distribution's packages: which are on offer, and their installation. Installs only when told to, and
//! never removes anything.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::ebpf::MIN_RUSTC;
use crate::run;

/// Whether packages can be installed by this process.
pub(crate) fn usable() -> bool {
    run::on_path("apt-get").is_some() && run::is_root()
}

/// A compiler of the distribution with what it needs to build the kernel side.
#[derive(Debug)]
pub(crate) struct Rust {
    /// The packages to install.
    pub(crate) packages: Vec<String>,
}

/// The best compiler that the package lists offer, if one is new enough.
pub(crate) fn rust() -> Option<Rust> {
    let mut families = vec![
        (
            "rustc-web".to_owned(),
            "libstd-rust-web-dev-bpf".to_owned(),
            ["rust-web-src", "cargo-web"].map(str::to_owned),
        ),
        ("rustc".to_owned(), "libstd-rust-dev-bpf".to_owned(), ["rust-src", "cargo"].map(str::to_owned)),
    ];
    let versioned = text(Command::new("apt-cache").args(["pkgnames", "rustc-1."]))?;
    families.extend(versioned.split_whitespace().map(|rustc| {
        let release = rustc.trim_start_matches("rustc-");
        let sources = [format!("rust-{release}-src"), format!("cargo-{release}")];
        (rustc.to_owned(), format!("libstd-rust-{release}-dev-bpf"), sources)
    }));
    families.into_iter().find_map(|(rustc, prebuilt, sources)| {
        if candidate(&rustc)? < MIN_RUSTC {
            return None;
        }
        let core = if candidate(&prebuilt).is_some() { vec![prebuilt] } else { sources.to_vec() };
        core.iter()
            .all(|package| candidate(package).is_some())
            .then(|| Rust { packages: [rustc].into_iter().chain(core).collect() })
    })
}

/// Fetches the package lists.
pub(crate) fn update() -> Result<()> {
    apt_get(&["update"])
}

/// Installs packages, without what they merely recommend.
pub(crate) fn install(packages: &[String]) -> Result<()> {
    let options = ["install", "--yes", "--no-install-recommends", "--no-remove"];
    let args: Vec<&str> = options.into_iter().chain(packages.iter().map(String::as_str)).collect();
    apt_get(&args)
}

fn apt_get(args: &[&str]) -> Result<()> {
    let mut cmd = Command::new("apt-get");
    cmd.args(["--quiet", "-o", "DPkg::Lock::Timeout=120"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive");
    let done = cmd.stdin(Stdio::null()).output().context("cannot start apt-get")?;
    if !done.status.success() {
        bail!("`apt-get {}` failed:\n{}", args.join(" "), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

/// The release of a package that would be installed.
fn candidate(package: &str) -> Option<(u32, u32)> {
    let policy = text(Command::new("apt-cache").args(["policy", package]))?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:"))?.trim();
    let upstream = version.split_once(':').map_or(version, |(_epoch, rest)| rest);
    let mut numbers = upstream.split(['.', '-', '+', '~']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn text(cmd: &mut Command) -> Option<String> {
    let done = cmd.env("LC_ALL", "C").stdin(Stdio::null()).output().ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
}
