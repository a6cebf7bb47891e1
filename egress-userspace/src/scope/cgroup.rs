//! Cgroups and pin directories of scopes: found, made, and removed when nothing lives in them any more.
//!
//! Everything is named after the run: `<cgroup2 mount>/egress/<run>` and `<bpffs>/egress/<run>`.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _, Seek as _},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    fcntl::{Flock, FlockArg, OFlag, openat},
    sys::stat::Mode,
};

use crate::enforce;

/// Why a scope's cgroup could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup2 is mounted.
    #[error(
        "no cgroup2 file system is mounted in this mount namespace: mount one (`mount -t cgroup2 none \
         /sys/fs/cgroup`), and note that `ip netns exec` hides it: use `nsenter --net=/run/netns/NAME` instead"
    )]
    NoCgroup2,
    /// The kernel's list of mounts could not be read.
    #[error("cannot read /proc/self/mounts: {0}")]
    Mounts(io::Error),
    /// Somebody but root can write here, so what runs inside could leave.
    #[error(
        "{0} can be written by others than root: a process inside a scope below it could move itself out; \
         run `egress` where the cgroup2 root belongs to root"
    )]
    Delegated(PathBuf),
    /// The root cgroup, or no cgroup at all.
    #[error(
        "{0} is no cgroup that can be a scope: name a directory below the cgroup2 mount, not the mount itself"
    )]
    NoScope(PathBuf),
    /// A file or directory could not be made or opened.
    #[error("cannot {operation} {path}: {source}", path = .path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No BPF file system, and none could be mounted.
    #[error(
        "no BPF file system at {path} and none could be mounted there ({source}): `mount -t bpf bpf {path}`",
        path = .path.display()
    )]
    NoBpffs {
        /// The usual place.
        path: PathBuf,
        /// Why it could not be mounted.
        source: io::Error,
    },
}

impl CgroupError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }
}

/// Where scopes of this machine live.
#[derive(Clone, Debug)]
pub struct Places {
    /// `<cgroup2 mount>/egress`
    pub cgroups: PathBuf,
    /// `<bpffs>/egress`
    pub pins: PathBuf,
}

const BPFFS: &str = "/sys/fs/bpf";
const BPFFS_MAGIC: u64 = 0xcafe_4a11;

impl Places {
    /// Finds the cgroup2 mount and a BPF file system, mounting the latter where it is missing.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn find() -> Result<Self, CgroupError> {
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(CgroupError::Mounts)?;
        let cgroup2 = mounted(&mounts, "cgroup2").next().ok_or(CgroupError::NoCgroup2)?;
        Ok(Self { cgroups: cgroup2.join("egress"), pins: bpffs(&mounts)?.join("egress") })
    }
}

/// Mount points of one type of file system, in the order of the mounts.
pub fn mounted<'a>(mounts: &'a str, kind: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
    mounts.lines().filter_map(move |line| {
        let mut fields = line.split(' ');
        let (_, place, found) = (fields.next()?, fields.next()?, fields.next()?);
        (found == kind).then(|| PathBuf::from(unescape(place)))
    })
}

/// `/proc/mounts` writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    let mut result = String::new();
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        result.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 4).and_then(|octal| u8::from_str_radix(octal, 8).ok());
        let Some(byte) = digits else { break };
        result.push(char::from(byte));
        rest = &rest[at + 4..];
    }
    result + rest
}

fn bpffs(mounts: &str) -> Result<PathBuf, CgroupError> {
    let usual = PathBuf::from(BPFFS);
    if let Some(found) = mounted(mounts, "bpf").find(|place| *place == usual) {
        return Ok(found);
    }
    let missing =
        |source: nix::Error| CgroupError::NoBpffs { path: PathBuf::from(BPFFS), source: source.into() };
    nix::mount::mount(Some("bpf"), &usual, Some("bpf"), nix::mount::MsFlags::empty(), Some("mode=700"))
        .map_err(missing)?;
    let stat = nix::sys::statfs::statfs(&usual).map_err(missing)?;
    if u64::try_from(stat.filesystem_type().0).unwrap_or(0) != BPFFS_MAGIC {
        return Err(missing(nix::Error::ENODEV));
    }
    Ok(usual)
}

/// A scope's own cgroup, locked against the clean-up of other processes while this value lives.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    pins: PathBuf,
    id: u64,
    directory: Flock<File>,
    /// Somebody else's, who removes it.
    adopted: bool,
}

impl Cgroup {
    /// Makes the cgroup of a run.
    ///
    /// # Errors
    /// [`CgroupError`]; nothing is left behind.
    pub fn create(places: &Places, run: &str) -> Result<Self, CgroupError> {
        let (path, pins) = (places.cgroups.join(run), places.pins.join(run));
        let _shared = SharedLock::take(&places.cgroups)?;
        create_private(&path, 0o711).map_err(CgroupError::io("make the cgroup", &path))?;
        let result = create_private(&pins, 0o700)
            .map_err(CgroupError::io("make the pin directory", &pins))
            .and_then(|()| Self::open(places, run))
            .and_then(|cgroup| {
                let root = places.cgroups.parent().unwrap_or(&places.cgroups);
                cgroup.refuse_delegated(root).map(|()| cgroup)
            });
        if result.is_err() {
            remove_tree(&path);
            enforce::remove_pins(&pins);
            remove_parents(&path, &pins);
        }
        result
    }

    /// A cgroup that is there already, to be enforced with links in `pins`, which is made.
    ///
    /// # Errors
    /// [`CgroupError`], also of the root cgroup; nothing is left behind.
    pub fn adopt(path: &Path, pins: &Path) -> Result<Self, CgroupError> {
        let path = path.canonicalize().map_err(CgroupError::io("find", path))?;
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(CgroupError::Mounts)?;
        let root = mounted(&mounts, "cgroup2").find(|root| path.starts_with(root));
        // Only the root cgroup has no type, whatever a mount shows as its root.
        let Some(root) = root.filter(|_| path.join("cgroup.type").is_file()) else {
            return Err(CgroupError::NoScope(path));
        };
        let directory = File::open(&path).map_err(CgroupError::io("open", &path))?;
        let id = directory.metadata().map_err(CgroupError::io("look at", &path))?.ino();
        let directory = Flock::lock(directory, FlockArg::LockSharedNonblock)
            .map_err(|(_, error)| CgroupError::io("lock", &path)(error.into()))?;
        let cgroup = Self { path, pins: pins.to_owned(), id, directory, adopted: true };
        cgroup.refuse_delegated(&root)?;
        let pins = &cgroup.pins;
        create_private(pins, 0o700).map_err(CgroupError::io("make the pin directory", pins))?;
        Ok(cgroup)
    }

    /// Lets go of an adopted cgroup that nothing was attached to.
    pub(super) fn release(&self) {
        enforce::remove_pins(&self.pins);
    }

    /// Runs `test` with the `cgroup.procs` of a cgroup below, made for it: where resources are controlled, processes may only
    /// be in the lowest.
    ///
    /// # Errors
    /// The cgroup cannot be made.
    pub(super) fn with_test_cgroup<T>(&self, test: impl FnOnce(&File) -> T) -> Result<T, CgroupError> {
        let path = self.path.join(format!("egress-self-test-{}", std::process::id()));
        fs::create_dir(&path).map_err(CgroupError::io("make the cgroup", &path))?;
        let procs = File::options().write(true).open(path.join("cgroup.procs"));
        let result = procs.map(|procs| test(&procs)).map_err(CgroupError::io("open", &path));
        // The kernel takes a moment to let go of a process that has ended.
        for _ in 0..100 {
            if remove_tree(&path) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        result
    }

    fn open(places: &Places, run: &str) -> Result<Self, CgroupError> {
        let path = places.cgroups.join(run);
        let directory = File::open(&path).map_err(CgroupError::io("open", &path))?;
        // The cgroup id is the inode number of its directory.
        let id = directory.metadata().map_err(CgroupError::io("look at", &path))?.ino();
        let directory = Flock::lock(directory, FlockArg::LockSharedNonblock)
            .map_err(|(_, error)| CgroupError::io("lock", &path)(error.into()))?;
        Ok(Self { pins: places.pins.join(run), path, id, directory, adopted: false })
    }

    /// A process may move to another cgroup if it can write `cgroup.procs` there and in their common ancestor.
    fn refuse_delegated(&self, root: &Path) -> Result<(), CgroupError> {
        for directory in self.path.ancestors().take_while(|path| path.starts_with(root)) {
            let procs = directory.join("cgroup.procs");
            for path in [directory, &procs] {
                let metadata = fs::metadata(path).map_err(CgroupError::io("look at", path))?;
                if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
                    return Err(CgroupError::Delegated(path.to_owned()));
                }
            }
        }
        Ok(())
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its links are pinned.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Its id, the inode number of its directory.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Its directory, opened.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Opens `cgroup.procs` for joining.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn procs(&self) -> Result<File, CgroupError> {
        // By the directory, not its path: at that there may be another cgroup now, one without programs.
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        openat(self.fd(), "cgroup.procs", flags, Mode::empty())
            .map(File::from)
            .map_err(|error| CgroupError::io("open", &self.path.join("cgroup.procs"))(error.into()))
    }

    /// Ids of the processes inside, children cgroups included.
    pub fn processes(&self) -> Vec<u32> {
        let mut found = Vec::new();
        collect_processes(&self.path, &mut found);
        found
    }

    /// Ids of it and of all cgroups below.
    pub fn ids(&self) -> std::collections::BTreeSet<u64> {
        let mut found = [self.id].into();
        collect_ids(&self.path, &mut found);
        found
    }

    /// Removes cgroup and pins if no process is left inside; whether it did. Of a cgroup that is somebody else's only the
    /// pins, once it is gone.
    pub fn remove_if_empty(&self) -> bool {
        if self.adopted {
            return !self.path.exists() && unpin_once_dead(&self.pins);
        }
        remove_scope(&self.path, &self.pins)
    }
}

pub(super) fn collect_processes(path: &Path, found: &mut Vec<u32>) {
    let procs = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    found.extend(procs.lines().filter_map(|line| line.parse::<u32>().ok()));
    for child in subdirectories(path) {
        collect_processes(&child, found);
    }
}

fn collect_ids(path: &Path, found: &mut std::collections::BTreeSet<u64>) {
    for child in subdirectories(path) {
        found.extend(fs::metadata(&child).map(|metadata| metadata.ino()));
        collect_ids(&child, found);
    }
}

/// Whether `cgroup.events` says that processes live inside.
///
/// # Errors
/// As `read(2)`; ENODEV once the cgroup is gone.
pub fn is_populated(events: &mut File) -> io::Result<bool> {
    let mut text = String::new();
    events.rewind()?;
    events.read_to_string(&mut text)?;
    Ok(text.lines().any(|line| line == "populated 1"))
}

/// Removes what runs left behind whose supervisor and keeper are gone and in which no process lives any more; the
/// names of the runs. Those that still have processes stay enforced and are left alone.
pub fn clean_up(places: &Places) -> Vec<String> {
    let mut removed = Vec::new();
    // A run that is being made has no lock of its own for a moment. If this one cannot be had, the next run tidies up.
    let Ok(_shared) = SharedLock::take(&places.cgroups) else { return removed };
    for path in subdirectories(&places.cgroups) {
        let Some(run) = path.file_name().and_then(|name| name.to_str()) else { continue };
        // A supervisor and its keeper hold the lock shared.
        let Ok(directory) = File::open(&path) else { continue };
        let Ok(lock) = Flock::lock(directory, FlockArg::LockExclusiveNonblock) else { continue };
        if remove_tree(&path) {
            unpin_once_dead(&places.pins.join(run));
            removed.push(run.to_owned());
        }
        drop(lock);
    }
    for pins in subdirectories(&places.pins) {
        let Some(run) = pins.file_name().and_then(|name| name.to_str()) else { continue };
        // The cgroup of a run in another cgroup namespace is not seen from here; its links are alive all the same.
        if !places.cgroups.join(run).exists() && enforce::pins_are_dead(&pins) {
            enforce::remove_pins(&pins);
            removed.push(run.to_owned());
        }
    }
    let _in_use = fs::remove_dir(&places.pins);
    let _in_use = fs::remove_dir(&places.cgroups);
    removed
}

/// Removes a scope in which no process lives; whether nothing is left of it. The cgroup goes first: as long as it exists its pins must.
/// They must still while sockets of its processes live on in the kernel with data that was refused: see
/// [`unpin_once_dead`].
pub(super) fn remove_scope(path: &Path, pins: &Path) -> bool {
    let Some(_shared) = path.parent().and_then(|parent| SharedLock::take(parent).ok()) else { return false };
    if !remove_tree(path) {
        return false;
    }
    let unpinned = unpin_once_dead(pins);
    remove_parents(path, pins);
    unpinned
}

/// Removes the pins of a removed cgroup, unless its programs are still needed: the kernel lets go of them when the last
/// socket that was made inside is gone, which may be minutes after its process. Detached before, they would let out what
/// they had refused and the socket tries again. Waits a moment, since even without sockets it takes one.
pub(super) fn unpin_once_dead(pins: &Path) -> bool {
    for _ in 0..10 {
        if enforce::pins_are_dead(pins) {
            enforce::remove_pins(pins);
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Only if they are empty.
pub(super) fn remove_parents(path: &Path, pins: &Path) {
    for parent in [path.parent(), pins.parent()].into_iter().flatten() {
        let _in_use = fs::remove_dir(parent);
    }
}

/// Removes a cgroup and what processes made below it; false if one of them is in use.
fn remove_tree(path: &Path) -> bool {
    for child in subdirectories(path) {
        remove_tree(&child);
    }
    match fs::remove_dir(path) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Held while directories that runs share are made or removed: a lock on the directory of all scopes, which only root can
/// open.
struct SharedLock {
    _directory: Flock<File>,
}

impl SharedLock {
    fn take(directory: &Path) -> Result<Self, CgroupError> {
        for _ in 0..300 {
            create_private(directory, 0o711).map_err(CgroupError::io("make the cgroup", directory))?;
            // It may be removed by another run before it is locked.
            let Ok(file) = File::open(directory) else { continue };
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) if is_same(&lock, directory) => return Ok(Self { _directory: lock }),
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        let busy = io::Error::other("another `egress` has held it for seconds");
        Err(CgroupError::io("lock", directory)(busy))
    }
}

fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(path)) => (file.dev(), file.ino()) == (path.dev(), path.ino()),
        _ => false,
    }
}

/// Makes a directory, and its parents, unless it is there; what is made has this mode.
fn create_private(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().mode(mode).recursive(true).create(path)?;
    // A cgroup's directory ignores the mode it is made with.
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn subdirectories(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_type_with_escapes_undone() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/uni\\040fied cgroup2 rw 0 0\n\
                      none /cgroup2 ext4 rw 0 0\n";
        let found: Vec<_> = mounted(mounts, "cgroup2").collect();
        assert_eq!(found, [PathBuf::from("/sys/fs/cgroup/uni fied")]);
    }
}
