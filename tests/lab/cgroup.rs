//! A control group of a test's own; removed with it, also when the test panics.

use std::{
    fs,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

static MADE: AtomicU32 = AtomicU32::new(0);
/// Done once by each test process.
pub(crate) static STALE: std::sync::Once = std::sync::Once::new();

/// A control group.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

/// Where the second version of control groups is mounted.
pub fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = fields.find(|fields| fields.get(2) == Some(&"cgroup2"));
    found.map(|fields| PathBuf::from(fields[1])).context("no cgroup2 is mounted: kernel tests need one")
}

/// Removes what tests that were killed have left: control groups and pins that bear the number of a process that is
/// gone.
pub fn remove_stale() -> Result<()> {
    for place in [mount()?, PathBuf::from("/sys/fs/bpf")] {
        for entry in fs::read_dir(place).into_iter().flatten().filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let number = name.strip_prefix("egress-lab-").and_then(|rest| rest.split('-').next());
            if number.is_some_and(|number| !Path::new("/proc").join(number).exists()) {
                let _ = fs::write(entry.path().join("cgroup.kill"), "1");
                remove_below(&entry.path());
            }
        }
    }
    Ok(())
}

/// Files of a control group cannot be removed and go with it; those of a BPF file system can and must.
fn remove_below(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        if entry.path().is_dir() {
            remove_below(&entry.path());
        } else {
            let _ = fs::remove_file(entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

impl Cgroup {
    /// Makes one under the mount.
    pub fn new() -> Result<Self> {
        STALE.call_once(|| remove_stale().unwrap_or_else(|error| eprintln!("lab: {error:#}")));
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        Self::at(mount()?.join(format!("egress-lab-{}-{number}", std::process::id())))
    }

    /// Makes one inside this one.
    pub fn child(&self, name: &str) -> Result<Self> {
        Self::at(self.path.join(name))
    }

    fn at(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("make the control group {}", path.display()))?;
        Ok(Self { path })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its id: the inode of its directory.
    pub fn id(&self) -> u64 {
        fs::metadata(&self.path).map(|metadata| metadata.ino()).unwrap_or_default()
    }

    /// Has `command` start inside: it joins before its program is executed.
    pub fn place<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let procs = self.path.join("cgroup.procs");
        let procs = fs::OpenOptions::new().write(true).open(procs).expect("open the control group");
        // SAFETY: after the fork only one system call is made, and nothing is allocated.
        unsafe { command.pre_exec(move || Ok(nix::unistd::write(&procs, b"0").map(drop)?)) }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        // A killed process leaves its group only when it has been reaped by the kernel.
        for _ in 0..200 {
            if fs::remove_dir(&self.path).is_ok() || !self.path.exists() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        eprintln!("lab: the control group {} could not be removed", self.path.display());
    }
}
