//! Whose a socket is. It is the scope's own if a process of the scope holds it and it was made in the scope; the first gives
//! us a descriptor of it, the second the kernel says of that. To hold alone proves nothing: descriptors can be passed on, and
//! taken from others.

use std::{
    collections::HashMap,
    fs,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use egress_common::Tag;
use zerocopy::FromZeros as _;

use super::{
    caller::{duplicate, handle_of_process},
    diag::Listed,
};
use crate::{enforce::sys, scope::cgroup};

/// Most sockets whose holder is remembered.
const REMEMBERED: usize = 4_096;

/// The sockets of one scope.
#[derive(Debug)]
pub(super) struct Own {
    cgroup: PathBuf,
    scope: u64,
    tags: OwnedFd,
    /// By cookie, who held a socket under which number. A hint: it is looked at again each time.
    holders: Mutex<HashMap<u64, (u32, i32)>>,
}

impl Own {
    pub(super) fn new(cgroup: PathBuf, scope: u64, tags: OwnedFd) -> Self {
        Self { cgroup, scope, tags, holders: Mutex::default() }
    }

    /// A descriptor of the socket, if it is the scope's own. While it is held, the socket keeps its name.
    pub(super) fn find(&self, listed: &Listed) -> Option<OwnedFd> {
        let held = self.remembered(listed).or_else(|| self.search(listed))?;
        self.was_made_here(&held).then_some(held)
    }

    fn remembered(&self, listed: &Listed) -> Option<OwnedFd> {
        let (process, number) = *self.lock().get(&listed.cookie)?;
        if !self.processes().contains(&process) {
            return None;
        }
        let held = duplicate(&handle_of_process(process).ok()?, number).ok()?;
        (cookie(held.as_fd()) == Some(listed.cookie)).then_some(held)
    }

    fn search(&self, listed: &Listed) -> Option<OwnedFd> {
        let wanted = format!("socket:[{}]", listed.inode);
        for process in self.processes() {
            let Ok(handle) = handle_of_process(process) else { continue };
            let Ok(open) = fs::read_dir(format!("/proc/{process}/fd")) else { continue };
            for entry in open.flatten() {
                if fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str())
                    && let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                    && let Ok(held) = duplicate(&handle, number)
                    && cookie(held.as_fd()) == Some(listed.cookie)
                {
                    self.remember(listed.cookie, process, number);
                    return Some(held);
                }
            }
        }
        None
    }

    fn remember(&self, cookie: u64, process: u32, number: i32) {
        let mut holders = self.lock();
        if holders.len() >= REMEMBERED {
            holders.clear();
        }
        holders.insert(cookie, (process, number));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (u32, i32)>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The processes of the scope.
    pub(super) fn processes(&self) -> Vec<u32> {
        let mut found = Vec::new();
        cgroup::collect_processes(&self.cgroup, &mut found);
        found
    }

    /// Asked for its name by the broker, a socket that was made in the scope is marked by the scope's own program.
    fn was_made_here(&self, socket: &OwnedFd) -> bool {
        let mut name = [0_u8; super::address::LONGEST];
        let mut length = libc::socklen_t::try_from(name.len()).unwrap_or(0);
        // SAFETY: writes no more than the name has room for.
        let asked =
            unsafe { libc::getsockname(socket.as_raw_fd(), name.as_mut_ptr().cast(), &raw mut length) };
        let tag = sys::map_lookup::<i32, Tag>(self.tags.as_fd(), &socket.as_raw_fd());
        asked == 0 && tag.unwrap_or_else(|_| Tag::new_zeroed()).scope == self.scope
    }
}

fn cookie(socket: BorrowedFd<'_>) -> Option<u64> {
    let mut value = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(8);
    // SAFETY: a number and its size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(value)
}
