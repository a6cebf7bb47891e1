//! Which socket a path or name leads to: gives those of the kernel's list that it could be, and for a path a hold on its
//! inode, so that what is judged is what is connected to.
//!
//! A socket bound to a path can be reached from every network namespace, so all of them are looked through. The kernel lists
//! the lower half of an inode's number: several sockets may share it, and all of them are judged, unless one is seen to be bound
//! to the very inode.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
};

use nix::{
    sched::{CloneFlags, setns},
    sys::{
        stat::{major, minor},
        statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC},
    },
};

use super::{
    caller::{Caller, owned},
    diag::{self, Listed},
    own::Own,
    stand_in::{self, StandIn},
};

/// Most network namespaces that are looked through.
const NAMESPACES: usize = 1_024;

/// The dump is no snapshot: a socket that is there can be missed when others come and go.
const TRIES: usize = 2;

/// Ioctls that give the network namespace of a socket, and the inode that it is bound to.
const SIOCGSKNS: libc::c_ulong = 0x894c;
const SIOCUNIXFILE: libc::c_ulong = 0x89e0;

/// What a path led to.
#[derive(Debug)]
pub(super) struct Place {
    /// Its inode; cannot be read.
    pub(super) inode: File,
    /// Where it is, in the caller's view.
    pub(super) path: Vec<u8>,
    /// Device and lower half of the inode's number, as the kernel counts.
    file: (u32, u32),
}

/// Resolves a path as the caller.
///
/// # Errors
/// With the errno that the caller would have got.
pub(super) fn resolve(caller: &mut Caller, stand_in: &StandIn, path: &[u8]) -> io::Result<Place> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
    let inode = match caller.magic(path) {
        Some(magic) => {
            let (base, rest) = magic?;
            let rest = text(rest)?;
            if rest.is_empty() {
                OwnedFd::from(base)
            } else {
                let open = || stand_in::open(Some(&base), &rest);
                stand_in.within(&caller.root, &caller.directory, open)?
            }
        }
        None => {
            let path = text(path)?;
            stand_in.within(&caller.root, &caller.directory, || stand_in::open(None, &path))?
        }
    };
    let inode = File::from(inode);
    if inode.metadata()?.mode() & libc::S_IFMT != libc::S_IFSOCK {
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    let file = as_the_kernel_counts(&inode, &caller.mounts()?)?;
    let path = fs::read_link(format!("/proc/self/fd/{}", inode.as_raw_fd()))?;
    Ok(Place { inode, path: path.as_os_str().as_bytes().to_vec(), file })
}

impl Place {
    /// The sockets that it could be, of all network namespaces. Leaves the calling thread in one of them.
    ///
    /// # Errors
    /// As the list of sockets, and if there are too many namespaces.
    pub(super) fn sockets(&self) -> io::Result<Vec<Listed>> {
        for _ in 1..TRIES {
            let sockets = everywhere(|listed| self.may_be(listed))?;
            if !sockets.is_empty() {
                return Ok(sockets);
            }
        }
        everywhere(|listed| self.may_be(listed))
    }

    /// The one socket that it is, if that is the scope's own and in the network namespace of a socket of the caller's; as most
    /// are, which makes it quick. Leaves the calling thread there.
    pub(super) fn own(&self, socket: &OwnedFd, own: &Own) -> Option<Listed> {
        if !self.has_plain_numbers() {
            return None;
        }
        let listed = sockets_beside(socket).ok()?;
        let mut those = listed.into_iter().filter(|listed| self.may_be(listed));
        those.find(|listed| own.find(listed).is_some_and(|held| self.is_of(&held)))
    }

    fn may_be(&self, listed: &Listed) -> bool {
        listed.file == Some(self.file) && listed.may_be_reached()
    }

    /// Whether `stat` shows an inode's own numbers, which nobody else has: others can be served by anybody.
    fn has_plain_numbers(&self) -> bool {
        let plain = [TMPFS_MAGIC, EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC];
        nix::sys::statfs::fstatfs(&self.inode).is_ok_and(|about| plain.contains(&about.filesystem_type()))
    }

    /// Whether a socket is bound to this very inode, which then is no other's for ever.
    fn is_of(&self, held: &OwnedFd) -> bool {
        // SAFETY: makes a descriptor.
        let bound = unsafe { libc::ioctl(held.as_raw_fd(), SIOCUNIXFILE) };
        let bound = owned(bound.into()).and_then(|bound| File::from(bound).metadata());
        let (Ok(bound), Ok(here)) = (bound, self.inode.metadata()) else { return false };
        (bound.dev(), bound.ino()) == (here.dev(), here.ino())
    }
}

/// Device and lower half of the inode number. `stat` may show others (btrfs, overlays), and what it shows may be chosen by
/// whoever serves a file system.
fn as_the_kernel_counts(inode: &File, mounts: &str) -> io::Result<(u32, u32)> {
    let shown = fs::read_to_string(format!("/proc/self/fdinfo/{}", inode.as_raw_fd()))?;
    let field = |name: &str| {
        let line = shown.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse::<u64>().ok())
    };
    let refused = || io::Error::from_raw_os_error(libc::ECONNREFUSED);
    let (mount, number) = (field("mnt_id:").ok_or_else(refused)?, field("ino:").ok_or_else(refused)?);
    let ours = || fs::read_to_string("/proc/self/mountinfo").ok();
    let device =
        device_of(mounts, mount).or_else(|| device_of(&ours()?, mount)).or_else(|| plain_device(inode));
    let device = device.ok_or_else(refused)?;
    let lower = u32::try_from(number & 0xffff_ffff).map_err(io::Error::other)?;
    Ok((device, lower))
}

/// The device that `stat` shows, where that is the kernel's own: of file systems with one device each. For what is not in a
/// caller's table of mounts, since its root hides it.
fn plain_device(inode: &File) -> Option<u32> {
    let kind = nix::sys::statfs::fstatfs(inode).ok()?.filesystem_type();
    let device = inode.metadata().ok()?.dev();
    let number = |half: u64| u32::try_from(half).ok();
    [TMPFS_MAGIC, EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC]
        .contains(&kind)
        .then(|| Some(number(major(device))? << 20 | number(minor(device))?))?
}

/// The device of a mount, in the kernel's own encoding.
fn device_of(mounts: &str, mount: u64) -> Option<u32> {
    let wanted = mount.to_string();
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(&wanted))?;
    let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
    Some(major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?)
}

/// Looks through all network namespaces that processes are in. Leaves the calling thread in one of them.
fn everywhere(wanted: impl Fn(&Listed) -> bool) -> io::Result<Vec<Listed>> {
    let mut seen = BTreeSet::new();
    let mut found: Vec<Listed> = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let is_process = process.file_name().as_bytes().first().is_some_and(u8::is_ascii_digit);
        let namespace = process.path().join("ns/net");
        let Ok(name) = fs::read_link(&namespace) else { continue };
        if !is_process || !seen.insert(name) {
            continue;
        }
        if seen.len() > NAMESPACES {
            return Err(io::Error::from_raw_os_error(libc::ENFILE));
        }
        let Ok(namespace) = File::open(namespace) else { continue };
        if setns(&namespace, CloneFlags::CLONE_NEWNET).is_err() {
            continue;
        }
        for listed in diag::list()? {
            if wanted(&listed) && !found.iter().any(|known| known.cookie == listed.cookie) {
                found.push(listed);
            }
        }
    }
    Ok(found)
}

/// The sockets with an abstract name in the network namespace of a socket. Leaves the calling thread there.
pub(super) fn named(socket: &OwnedFd, name: &[u8]) -> io::Result<Vec<Listed>> {
    let wanted = [&[0], name].concat();
    let mut found = sockets_beside(socket)?;
    found.retain(|listed| listed.name == wanted && listed.may_be_reached());
    Ok(found)
}

/// The sockets in the network namespace of a socket. Leaves the calling thread there.
fn sockets_beside(socket: &OwnedFd) -> io::Result<Vec<Listed>> {
    // SAFETY: makes a descriptor.
    let namespace = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
    setns(owned(namespace.into())?.as_fd(), CloneFlags::CLONE_NEWNET)?;
    diag::list()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn devices_are_read_as_the_kernel_counts_them() {
        let mounts = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n\
                      361 35 0:1048575 / / rw - tmpfs none rw\n";
        assert_eq!(device_of(mounts, 36), Some(98 << 20));
        assert_eq!(device_of(mounts, 361), Some(0xf_ffff));
        assert_eq!(device_of(mounts, 3), None);
    }

    #[test]
    fn a_bound_inode_is_found_in_the_kernels_list() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("listener");
        let listener = UnixListener::bind(&path).expect("bind");
        let text = CString::new(path.as_os_str().as_bytes()).expect("a path");
        let inode = File::from(stand_in::open(None, &text).expect("open"));
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read the mounts");
        let file = as_the_kernel_counts(&inode, &mounts).expect("its numbers");
        let found = diag::list().expect("the list").into_iter().filter(|listed| listed.file == Some(file));
        assert_eq!(plain_device(&inode).unwrap_or(file.0), file.0);
        let other = UnixListener::bind(directory.path().join("other")).expect("bind");
        let place = Place { inode, path: Vec::new(), file };
        assert!(place.is_of(&listener.into()), "bound to it");
        assert!(!place.is_of(&other.into()), "bound to another");
        assert!(!place.is_of(&UnixDatagram::unbound().expect("a socket").into()), "bound to nothing");
        let names: Vec<_> = found.map(|listed| listed.rule_name()).collect();
        assert_eq!(names, [Some(path.as_os_str().as_bytes().to_vec())]);
    }
}
