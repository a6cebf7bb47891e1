//! Work in another network namespace, and back; or the end of the process: one in the wrong namespace would judge the wrong
//! network.

use std::{fs::File, io, process};

use nix::sched::{CloneFlags, setns};

/// Does `work`, which must not start threads, with the calling thread in another network namespace.
///
/// # Errors
/// The namespace cannot be entered.
pub(super) fn within<T>(namespace: &File, work: impl FnOnce() -> T) -> io::Result<T> {
    let home = File::open("/proc/thread-self/ns/net")?;
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let result = work();
    if setns(&home, CloneFlags::CLONE_NEWNET).is_err() {
        process::abort();
    }
    Ok(result)
}
