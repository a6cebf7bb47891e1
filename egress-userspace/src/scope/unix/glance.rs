//! The family of a connect's address: receives a call, reads two bytes of its caller's memory. Judges nothing, and is quick,
//! since TCP waits for it.

use crate::scope::confine::notify::Notification;

/// Whether the address is a unix socket's. One that cannot be read is none: the kernel cannot read it either.
pub(super) fn names_unix(call: &Notification) -> bool {
    const FAMILY: usize = size_of::<libc::sa_family_t>();
    let length = call.args[2].to_le_bytes();
    let length = i32::from_le_bytes([length[0], length[1], length[2], length[3]]);
    let (Ok(length), Ok(address), Ok(thread)) =
        (usize::try_from(length), usize::try_from(call.args[1]), i32::try_from(call.pid))
    else {
        return false;
    };
    if length < FAMILY {
        return false;
    }
    let mut family: libc::sa_family_t = 0;
    let ours = libc::iovec { iov_base: (&raw mut family).cast(), iov_len: FAMILY };
    let theirs = libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: FAMILY };
    // SAFETY: writes the two bytes of the family; the other address is only another process's number.
    let read = unsafe { libc::process_vm_readv(thread, &raw const ours, 1, &raw const theirs, 1, 0) };
    usize::try_from(read) == Ok(FAMILY) && i32::from(family) == libc::AF_UNIX
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation seen to fail here: the length not looked at.
    #[test]
    fn the_family_is_read_from_the_callers_memory() {
        let thread = u32::try_from(nix::unistd::gettid().as_raw()).expect("an id");
        let (unix, inet): ([u16; 8], [u16; 8]) = ([1; 8], [2; 8]);
        let call = |address: u64, length| Notification {
            id: 0,
            pid: thread,
            nr: 0,
            arch: 0,
            args: [0, address, length, 0, 0, 0],
        };
        let (unix, inet) = (unix.as_ptr() as u64, inet.as_ptr() as u64);
        for (address, length, expected) in [
            (unix, 16, true),
            (unix, 2, true),
            (unix, 1, false),
            (unix, 0, false),
            (unix, u64::MAX, false),
            (unix, 1 << 32 | 16, true),
            (inet, 16, false),
            (0, 16, false),
            (u64::MAX, 16, false),
        ] {
            assert_eq!(names_unix(&call(address, length)), expected, "{length}");
        }
        assert!(!names_unix(&Notification { pid: 0, ..call(unix, 16) }));
    }
}
