//! Processes that an attack starts: each tells by its exit code where it stopped.

use super::call::{Done, Stop, wait};

/// In a new process: makes the attack and ends.
pub(super) fn child(work: impl FnOnce() -> Done) -> ! {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    let code = match done {
        Ok(Ok(())) => 0,
        // Both numbers in a byte would not fit: the errno, which is what people ask for.
        Ok(Err(stop)) => stop.errno.clamp(1, 200),
        Err(_) => 255,
    };
    // SAFETY: ends the process without running what the parent registered.
    unsafe { libc::_exit(code) }
}

/// Starts a process for the attack.
pub(super) fn fork() -> Done<i32> {
    // SAFETY: this process has one thread wherever attacks fork.
    wait("fork", || unsafe { libc::fork() }.into()).map(super::call::raw)
}

/// What became of a process for the attack.
pub(super) fn in_child(process: i32) -> Done {
    let mut status = 0;
    // SAFETY: the kernel writes one number.
    wait("waitpid", || unsafe { libc::waitpid(process, &raw mut status, 0) }.into())?;
    if libc::WIFSIGNALED(status) {
        return Err(Stop { at: "killed", errno: libc::WTERMSIG(status) });
    }
    match libc::WEXITSTATUS(status) {
        0 => Ok(()),
        errno => Err(Stop { at: "child", errno }),
    }
}
