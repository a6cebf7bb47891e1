//! System calls by their numbers, and some that need memory prepared.

use std::{ffi::CString, fs::File, os::fd::AsRawFd as _};

use crate::steps::Done;

/// Makes a call; its value. Arguments are numbers, or `@` and a text to point at.
pub(crate) fn call(words: &[&str]) -> Option<Result<i64, i32>> {
    let texts: Vec<CString> =
        words.iter().map(|word| CString::new(word.trim_start_matches('@')).ok()).collect::<Option<_>>()?;
    let mut args = [0_i64; 7];
    for ((place, word), text) in args.iter_mut().zip(words).zip(&texts) {
        *place = if word.starts_with('@') {
            i64::try_from(text.as_ptr().addr()).ok()?
        } else {
            word.parse().ok()?
        };
    }
    // SAFETY: the tests ask for calls that write to no memory of this program.
    let value = unsafe { libc::syscall(args[0], args[1], args[2], args[3], args[4], args[5], args[6]) };
    Some(if value < 0 { Err(last()) } else { Ok(value) })
}

/// The same call again and again; the first time's errno must be every time's.
pub(crate) fn again(count: u64, words: &[&str]) -> Option<Done> {
    let first = call(words)?.map(drop);
    for _ in 1..count {
        if call(words)?.map(drop) != first {
            return Some(Err(libc::EILSEQ));
        }
    }
    Some(first)
}

/// Writes a byte into another process, to an address that nobody has.
pub(crate) fn write_into(process: i32) -> Done {
    let mut byte = [0_u8];
    let local = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(1), iov_len: 1 };
    // SAFETY: both lists live through the call.
    let result = unsafe { libc::process_vm_writev(process, &raw const local, 1, &raw const remote, 1, 0) };
    if result < 0 { Err(last()) } else { Ok(()) }
}

/// Starts a process in another control group; that it could is success.
pub(crate) fn clone_into(directory: &str) -> Done {
    let directory = File::open(directory).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
    // SAFETY: all zero is a value of this structure of integers.
    let mut asked: libc::clone_args = unsafe { std::mem::zeroed() };
    asked.flags = 1 << 33;
    asked.exit_signal = libc::SIGCHLD.unsigned_abs().into();
    asked.cgroup = directory.as_raw_fd().unsigned_abs().into();
    // SAFETY: as fork: without CLONE_VM the child has a copy of this program's memory, and only ends.
    let child = unsafe { libc::syscall(libc::SYS_clone3, &raw const asked, size_of_val(&asked)) };
    match child {
        // SAFETY: ends the child.
        0 => unsafe { libc::_exit(0) },
        // SAFETY: waits for any child, and wants no status.
        child if child > 0 => unsafe {
            libc::waitpid(-1, std::ptr::null_mut(), 0);
            Ok(())
        },
        _ => Err(last()),
    }
}

/// getpid by the numbers of 32-bit programs.
#[cfg(target_arch = "x86_64")]
pub(crate) fn foreign() -> Done {
    let value: i32;
    // SAFETY: a call without arguments, which changes the result register only.
    unsafe { std::arch::asm!("int 0x80", inlateout("eax") 20 => value, options(nostack)) };
    if value < 0 { Err(-value) } else { Ok(()) }
}

/// There are no 32-bit programs to speak of.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn foreign() -> Done {
    Err(libc::EOPNOTSUPP)
}

fn last() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
