//! The thread behind a call: opens what the call depends on while the caller waits, and reads it afterwards. What a hostile
//! caller changes meanwhile changes what is judged, never what was judged.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
};

use egress_common::Owner;

/// A thread of the scope and what its calls depend on.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) process: u32,
    pub(super) rights: Rights,
    pub(super) root: File,
    pub(super) directory: File,
    pub(super) mounts: File,
    pub(super) owner: Owner,
    memory: File,
    handle: OwnedFd,
    inner_process: Vec<u8>,
}

/// As whom it resolves names, and as whom listeners see it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Rights {
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) groups: Vec<u32>,
    /// Effective capabilities in the initial user namespace.
    pub(super) capabilities: u64,
}

impl Caller {
    /// Opens what is needed of a thread. It may be another's by then: see whether the call still waits.
    pub(super) fn open(thread: u32) -> io::Result<Self> {
        let at = |name: &str| format!("/proc/{thread}/{name}");
        let place = |name| File::options().read(true).custom_flags(libc::O_PATH).open(at(name));
        let status = fs::read_to_string(at("status"))?;
        let status = Status(&status);
        let process = status.number("Tgid:")?;
        let same_namespace = fs::metadata(at("ns/user"))?.ino() == fs::metadata("/proc/self/ns/user")?.ino();
        let capabilities = u64::from_str_radix(status.field("CapEff:")?, 16).map_err(io::Error::other)?;
        let rights = Rights {
            user: status.second("Uid:")?,
            group: status.second("Gid:")?,
            groups: status.list("Groups:")?,
            capabilities: if same_namespace { capabilities } else { 0 },
        };
        let mut comm = [0; 16];
        let name = fs::read(at("comm"))?;
        for (to, from) in comm.iter_mut().zip(name.strip_suffix(b"\n").unwrap_or(&name)) {
            *to = *from;
        }
        Ok(Self {
            process,
            root: place("root")?,
            directory: place("cwd")?,
            mounts: File::open(at("mountinfo"))?,
            memory: File::open(at("mem"))?,
            handle: handle(thread, process)?,
            inner_process: status
                .field("NStgid:")?
                .rsplit('\t')
                .next()
                .unwrap_or_default()
                .as_bytes()
                .to_vec(),
            owner: Owner { tgid: process, pid: thread, uid: rights.user, gid: rights.group, comm },
            rights,
        })
    }

    /// Reads its memory.
    pub(super) fn read(&self, address: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.memory.read_exact_at(&mut bytes, address)?;
        Ok(bytes)
    }

    /// A second descriptor of one of its open files.
    pub(super) fn descriptor(&self, number: i32) -> io::Result<OwnedFd> {
        duplicate(&self.handle, number)
    }

    /// A path below one of its own magic links of `/proc`, which lead by no name: what it leads to, and the rest of the path.
    pub(super) fn magic<'a>(&self, path: &'a [u8]) -> Option<io::Result<(File, &'a [u8])>> {
        let rest = path.strip_prefix(b"/proc/")?;
        let (who, rest) = split(rest);
        let itself =
            who == b"self" || who == b"thread-self" || (!who.is_empty() && who == self.inner_process);
        if !itself {
            return None;
        }
        let (kind, rest) = split(rest);
        match kind {
            b"root" => Some(self.root.try_clone().map(|root| (root, rest))),
            b"cwd" => Some(self.directory.try_clone().map(|directory| (directory, rest))),
            b"fd" => {
                let (number, rest) = split(rest);
                let number: u32 = std::str::from_utf8(number).ok()?.parse().ok()?;
                let link = format!("/proc/{}/fd/{number}", self.process);
                let opened = File::options().read(true).custom_flags(libc::O_PATH).open(link);
                Some(opened.map(|opened| (opened, rest)))
            }
            _ => None,
        }
    }

    /// Its table of mounts.
    pub(super) fn mounts(&mut self) -> io::Result<String> {
        let mut text = String::new();
        self.mounts.read_to_string(&mut text)?;
        Ok(text)
    }
}

/// First component of a path, and what follows its slashes.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
    let (first, rest) = path.split_at(end);
    let slashes = rest.iter().take_while(|byte| **byte == b'/').count();
    (first, &rest[slashes..])
}

/// `/proc/PID/status`.
struct Status<'a>(&'a str);

impl<'a> Status<'a> {
    fn field(&self, name: &str) -> io::Result<&'a str> {
        let mut lines = self.0.lines();
        lines
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
            .ok_or_else(|| io::Error::other("status"))
    }

    fn list(&self, name: &str) -> io::Result<Vec<u32>> {
        self.field(name)?
            .split_ascii_whitespace()
            .map(|word| word.parse().map_err(io::Error::other))
            .collect()
    }

    fn number(&self, name: &str) -> io::Result<u32> {
        self.field(name)?.parse().map_err(io::Error::other)
    }

    /// Of real, effective, saved and file system: the effective one.
    fn second(&self, name: &str) -> io::Result<u32> {
        self.list(name)?.get(1).copied().ok_or_else(|| io::Error::other("status"))
    }
}

/// A handle on the thread, or before Linux 6.9 on its process.
fn handle(thread: u32, process: u32) -> io::Result<OwnedFd> {
    let open = |id: u32, flags: libc::c_uint| {
        // SAFETY: makes a descriptor.
        owned(unsafe { libc::syscall(libc::SYS_pidfd_open, id, flags) })
    };
    open(thread, libc::PIDFD_THREAD).or_else(|_| open(process, 0))
}

/// A handle on a process.
pub(super) fn handle_of_process(process: u32) -> io::Result<OwnedFd> {
    // SAFETY: makes a descriptor.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) })
}

/// A second descriptor of a file that the process behind a handle has open.
pub(super) fn duplicate(handle: &OwnedFd, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: makes a descriptor.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, handle.as_raw_fd(), number, 0) })
}

/// A descriptor that a call returned.
pub(super) fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let Ok(descriptor) = i32::try_from(result) else { return Err(io::ErrorKind::InvalidData.into()) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_links_are_the_callers_own() {
        let thread = u32::try_from(nix::unistd::gettid().as_raw()).expect("an id");
        let caller = Caller::open(thread).expect("open this thread");
        let file = tempfile::tempfile().expect("a file");
        let inode = file.metadata().expect("look").ino();
        let own = std::process::id();
        for (path, expected) in [
            (format!("/proc/self/fd/{}", file.as_raw_fd()), Some("")),
            (format!("/proc/thread-self/fd/{}//a/b", file.as_raw_fd()), Some("a/b")),
            (format!("/proc/{own}/fd/{}/a", file.as_raw_fd()), Some("a")),
            ("/proc/1/fd/0".to_owned(), None),
            ("/proc/self/maps".to_owned(), None),
            ("/proc/self/fd/x".to_owned(), None),
            ("/proc//fd/0".to_owned(), None),
            ("/tmp/x".to_owned(), None),
        ] {
            let found = caller.magic(path.as_bytes()).map(|found| found.expect("open"));
            let rest = found.as_ref().map(|(_, rest)| std::str::from_utf8(rest).expect("text"));
            assert_eq!(rest, expected, "{path}");
            if let Some((found, _)) = found {
                assert_eq!(found.metadata().expect("look").ino(), inode, "{path}");
            }
        }
        let (root, rest) = caller.magic(b"/proc/self/root/run").expect("magic").expect("open");
        assert_eq!(
            (root.metadata().expect("look").ino(), rest),
            (fs::metadata("/").expect("look").ino(), &b"run"[..])
        );
    }

    #[test]
    fn its_rights_are_this_threads() {
        let caller =
            Caller::open(u32::try_from(nix::unistd::gettid().as_raw()).expect("an id")).expect("open");
        assert_eq!(caller.rights.user, nix::unistd::geteuid().as_raw());
        assert_eq!(caller.rights.group, nix::unistd::getegid().as_raw());
        let text = b"seen through its memory";
        assert_eq!(caller.read(text.as_ptr() as u64, text.len()).expect("read"), text);
        assert!(caller.read(0, 1).is_err());
    }
}
