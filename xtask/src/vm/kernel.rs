//! Kernels of the distribution, fetched by the name of their package and kept. Nothing is installed: lists of packages and
//! packages go below the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{cached, work_dir};
use crate::run;

/// A kernel ready to boot.
pub(super) struct Image {
    pub(super) path: PathBuf,
    pub(super) release: String,
}

/// Names for kernels, and where each is: the part of the archive, its suites, best first, and the package.
const KERNELS: [(&str, &str, &[&str]); 4] = [
    ("5.10", "debian-security", &["bullseye-security"]),
    ("6.1", "debian-security", &["bookworm-security"]),
    ("6.12", "debian", &["trixie"]),
    ("newest", "debian", &["trixie-backports", "sid"]),
];

/// Depends on the kernel for virtual machines that is current in a suite.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// The kernel of this name, or one whose file is named.
pub(super) fn find(name: &str) -> Result<Image> {
    if Path::new(name).is_file() {
        return Ok(Image { path: name.into(), release: name.to_owned() });
    }
    let (path, release) = (cached(name, "vmlinuz")?, cached(name, "release")?);
    if !path.is_file() {
        fetch(name, &path, &release).with_context(|| format!("cannot get the kernel {name}"))?;
    }
    Ok(Image { path, release: fs::read_to_string(&release).unwrap_or_default() })
}

fn fetch(name: &str, path: &Path, release: &Path) -> Result<()> {
    let known = KERNELS.iter().find(|(known, ..)| *known == name);
    let Some((_, archive, suites)) = known else {
        let names = KERNELS.map(|(name, ..)| name).join(", ");
        bail!("no such kernel: neither a file nor one of {names}")
    };
    let mut last = None;
    for suite in *suites {
        match fetch_from(archive, suite, path, release) {
            Ok(()) => return Ok(()),
            Err(error) => last = Some(error.context(format!("from {suite}"))),
        }
    }
    Err(last.context("no suite has it")?)
}

fn fetch_from(archive: &str, suite: &str, path: &Path, release: &Path) -> Result<()> {
    let apt = Apt::of(archive, suite)?;
    let depends = apt.depends(PACKAGE)?;
    let image = depends.iter().find(|name| name.starts_with("linux-image-"));
    let image = image.with_context(|| format!("{PACKAGE} depends on no kernel"))?;
    let directory = apt.directory.join("packages");
    let _none = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory)?;
    run::quietly(apt.get(&directory).args(["download", "--quiet", image]))?;
    // Later releases have the kernel itself in a package of its own.
    for part in apt.depends(image)?.iter().filter(|name| name.starts_with("linux-binary-")) {
        run::quietly(apt.get(&directory).args(["download", "--quiet", part]))?;
    }
    let packages = children(&directory);
    for package in packages.iter().filter(|path| path.extension().is_some_and(|end| end == "deb")) {
        run::quietly(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&directory))?;
    }
    let kernel = vmlinuz(&directory, 6).context("the packages have no kernel in them")?;
    fs::write(release, image.trim_start_matches("linux-image-"))?;
    fs::copy(kernel, path).context("cannot keep the kernel")?;
    fs::remove_dir_all(&directory).context("cannot remove the packages")
}

/// A kernel below a directory.
fn vmlinuz(directory: &Path, depth: u32) -> Option<PathBuf> {
    let found = children(directory);
    let kernel = |path: &&PathBuf| {
        path.is_file() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
    };
    if let Some(path) = found.iter().find(kernel) {
        return Some(path.clone());
    }
    found.iter().filter(|path| depth > 0 && path.is_dir()).find_map(|path| vmlinuz(path, depth - 1))
}

fn children(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The package tools with lists of one suite, apart from those of this machine.
struct Apt {
    directory: PathBuf,
    config: PathBuf,
}

impl Apt {
    fn of(archive: &str, suite: &str) -> Result<Self> {
        let directory = work_dir()?.join("apt").join(suite);
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let source = format!(
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {}/{archive} {suite} main\n",
            mirror()?
        );
        fs::write(directory.join("sources.list"), source)?;
        fs::write(directory.join("status"), "")?;
        let at = directory.display();
        let config = format!(
            "Dir::Etc::sourcelist \"{at}/sources.list\"; Dir::Etc::sourceparts \"-\";\n\
             Dir::State::lists \"{at}/lists\"; Dir::State::status \"{at}/status\"; Dir::Cache \"{at}/cache\";\n\
             Acquire::Languages \"none\"; APT::Sandbox::User \"root\"; Acquire::Retries \"3\";\n"
        );
        let apt = Self { config: directory.join("apt.conf"), directory };
        fs::write(&apt.config, config)?;
        run::quietly(apt.get(&apt.directory).args(["update", "--quiet"]))?;
        Ok(apt)
    }

    fn get(&self, directory: &Path) -> Command {
        let mut cmd = Command::new("apt-get");
        cmd.env("APT_CONFIG", &self.config).current_dir(directory);
        cmd
    }

    /// Names of the packages that one depends on.
    fn depends(&self, package: &str) -> Result<Vec<String>> {
        let mut cmd = Command::new("apt-cache");
        cmd.env("APT_CONFIG", &self.config).args(["show", "--no-all-versions", package]);
        let shown = String::from_utf8(cmd.output().context("cannot start apt-cache")?.stdout)?;
        let line = shown.lines().find_map(|line| line.strip_prefix("Depends: "));
        let line = line.with_context(|| format!("there is no package {package}"))?;
        let names = line.split([',', '|']).filter_map(|part| part.split_whitespace().next());
        Ok(names.map(str::to_owned).collect())
    }
}

/// Where this machine's own packages come from, without the part of the archive.
fn mirror() -> Result<String> {
    let done = Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]).output();
    let shown = String::from_utf8(done.context("cannot start apt-get")?.stdout)?;
    let site = shown.lines().next().context("this machine has no source of packages")?;
    let site = site.trim_end_matches('/');
    let root = ["/debian-security", "/debian"].iter().find_map(|part| site.strip_suffix(part));
    Ok(root.unwrap_or(site).to_owned())
}
