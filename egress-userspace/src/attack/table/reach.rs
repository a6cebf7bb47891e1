//! Making a process outside do it: its memory, its descriptors, signals, keys, and programs in the kernel.

use std::os::{fd::AsRawFd as _, unix::fs::FileExt as _};

use super::{Around, Attack, outside, success, token};
use crate::attack::{
    aim::Aim,
    call::{Done, Stop, call, of_io, raw, settle, stop, write},
    holder::PIPE,
};

fn held(aim: &Aim<'_>) -> Done<(i32, u64)> {
    aim.holder().ok_or(Stop { at: "holder", errno: libc::ESRCH })
}

fn trace(at: &'static str, request: u32, process: i32, place: u64, data: u64) -> Done<libc::c_long> {
    // SAFETY: memory of the other process is named, none of ours.
    call(at, || unsafe { libc::syscall(libc::SYS_ptrace, request, process, place, data) })
}

/// Writes the token into the other process's buffer, word by word.
fn poke(process: i32, buffer: u64, aim: &Aim<'_>) -> Done {
    // SAFETY: our tracee; the kernel writes nothing for a null status.
    unsafe { libc::waitpid(process, std::ptr::null_mut(), libc::__WALL) };
    for (place, chunk) in (buffer..).step_by(8).zip(aim.token().chunks(8)) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        trace("PTRACE_POKEDATA", libc::PTRACE_POKEDATA, process, place, u64::from_ne_bytes(word))?;
    }
    trace("PTRACE_DETACH", libc::PTRACE_DETACH, process, 0, 0)?;
    settle(150)
}

fn memory(aim: &Aim<'_>) -> Done {
    let (process, buffer) = held(aim)?;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).open(format!("/proc/{process}/mem")).map_err(of_io("open_mem"))?;
    file.write_all_at(&aim.token(), buffer).map_err(of_io("write_mem"))?;
    settle(150)
}

fn vectors(aim: &Aim<'_>) -> Done {
    let (process, buffer) = held(aim)?;
    let bytes = aim.token();
    let here = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let there = libc::iovec { iov_base: buffer as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: our bytes live through the call; the other side is another process's.
    call("process_vm_writev", || unsafe {
        libc::process_vm_writev(process, &raw const here, 1, &raw const there, 1, 0) as libc::c_long
    })?;
    settle(150)
}

/// A signal that carries a number.
fn queue(aim: &Aim<'_>) -> Done {
    let (process, _) = held(aim)?;
    let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(aim.index) };
    // SAFETY: no memory is named.
    call("sigqueue", || unsafe { libc::sigqueue(process, libc::SIGUSR1, value) }.into())?;
    settle(100)
}

fn signal(at: &'static str, send: impl FnOnce(i32) -> libc::c_long, aim: &Aim<'_>) -> Done {
    let (process, _) = held(aim)?;
    call(at, || send(process))?;
    settle(100)
}

const SIGNAL: i32 = libc::SIGUSR1;

fn bpf(command: libc::c_long, attributes: &[u8]) -> Done {
    let mut attributes = attributes.to_vec();
    // SAFETY: the attributes live through the call.
    call("bpf", || unsafe {
        libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), attributes.len())
    })
    .map(drop)
}

pub(super) const ATTACKS: &[Attack] = &[
    token("p-ptrace", "PTRACE_ATTACH, and a word written", |aim| {
        let (process, buffer) = held(aim)?;
        trace("PTRACE_ATTACH", libc::PTRACE_ATTACH, process, 0, 0)?;
        poke(process, buffer, aim)
    })
    .around(Around::Holder),
    token("p-seize", "PTRACE_SEIZE, and a word written", |aim| {
        let (process, buffer) = held(aim)?;
        trace("PTRACE_SEIZE", libc::PTRACE_SEIZE, process, 0, 0)?;
        trace("PTRACE_INTERRUPT", libc::PTRACE_INTERRUPT, process, 0, 0)?;
        poke(process, buffer, aim)
    })
    .around(Around::Holder),
    token("p-memory", "/proc/PID/mem", memory).around(Around::Holder),
    token("p-vectors", "process_vm_writev", vectors).around(Around::Holder),
    outside("p-descriptor", "a pipe of a process outside, opened through /proc/PID/fd", |aim| {
        let (process, _) = held(aim)?;
        let mut options = std::fs::OpenOptions::new();
        let file =
            options.write(true).open(format!("/proc/{process}/fd/{PIPE}")).map_err(of_io("open_fd"))?;
        write("write", file.as_raw_fd(), &[&aim.token()[..], b"\n"].concat())
    })
    .around(Around::Holder),
    outside("p-root", "a socket reached through /proc/PID/root", |aim| {
        let (process, _) = held(aim)?;
        let below = aim.path("stream");
        let path = format!("/proc/{process}/root{}", below.display());
        let socket = crate::attack::call::Sock::open(libc::AF_UNIX, libc::SOCK_STREAM, 0)?;
        socket.connect(crate::attack::call::Name::path(path.as_ref()))?;
        socket.send(&aim.token())
    })
    .around(Around::Holder)
    .unix(),
    outside("p-signal", "a signal", |aim| {
        // SAFETY: no pointers.
        signal("kill", |process| unsafe { libc::kill(process, SIGNAL) }.into(), aim)
    })
    .around(Around::Holder),
    outside("p-signal-number", "a signal that carries a number", queue).around(Around::Holder),
    outside("p-signal-thread", "a signal to a thread", |aim| {
        // SAFETY: no pointers.
        signal("tgkill", |process| unsafe { libc::syscall(libc::SYS_tgkill, process, process, SIGNAL) }, aim)
    })
    .around(Around::Holder),
    outside("p-signal-handle", "a signal through a process descriptor", |aim| {
        signal(
            "pidfd_send_signal",
            |process| {
                // SAFETY: no pointers but a null one; the descriptor goes with this process.
                unsafe {
                    let handle = libc::syscall(libc::SYS_pidfd_open, process, 0);
                    libc::syscall(libc::SYS_pidfd_send_signal, handle, SIGNAL, std::ptr::null::<u8>(), 0)
                }
            },
            aim,
        )
    })
    .around(Around::Holder),
    success("p-bpf-map", "a map in the kernel", |_| {
        // Type array, keys of four bytes, values of eight, one entry.
        let attributes: Vec<u8> = [2_u32, 4, 8, 1, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        bpf(0, &attributes)
    }),
    success("p-bpf-program", "a program in the kernel", |_| {
        // r0 = 0; exit
        let code: [u64; 2] = [0xb7, 0x95];
        let mut attributes = [1_u32.to_ne_bytes(), 2_u32.to_ne_bytes()].concat();
        attributes.extend((code.as_ptr() as u64).to_ne_bytes());
        attributes.extend((c"GPL".as_ptr() as u64).to_ne_bytes());
        attributes.resize(72, 0);
        bpf(5, &attributes)
    }),
    success("p-bpf-links", "a walk through the links in the kernel", |_| {
        const LINK_GET_NEXT_ID: libc::c_long = 31;
        match bpf(LINK_GET_NEXT_ID, &[0; 16]) {
            // None is attached: it was allowed to look.
            Err(none) if none.errno == libc::ENOENT => Ok(()),
            other => other,
        }
    })
    .root(),
    success("p-key-request", "a key that a process of root outside is to find", |_| {
        // SAFETY: the texts end with a zero and live through the call.
        let result = call("request_key", || unsafe {
            let (kind, name, info) = (c"user".as_ptr(), c"egress:attack".as_ptr(), c"x".as_ptr());
            libc::syscall(libc::SYS_request_key, kind, name, info, 0)
        });
        match result {
            // Nobody has it: somebody was asked.
            Err(none) if [libc::ENOKEY, libc::EKEYREJECTED, libc::EKEYREVOKED].contains(&none.errno) => {
                Ok(())
            }
            other => other.map(drop),
        }
    }),
    success("p-key", "a key that others of the same user can read", |_| {
        const KEY_SPEC_USER_KEYRING: i32 = -4;
        // SAFETY: texts and bytes live through the call.
        let key = call("add_key", || unsafe {
            let (kind, name) = (c"user".as_ptr(), c"egress-attack".as_ptr());
            libc::syscall(libc::SYS_add_key, kind, name, c"x".as_ptr(), 1, KEY_SPEC_USER_KEYRING)
        })?;
        const KEYCTL_UNLINK: i32 = 9;
        // SAFETY: no pointers; takes away what was made.
        let _expires_by_itself = unsafe {
            const KEYCTL_SET_TIMEOUT: i32 = 15;
            libc::syscall(libc::SYS_keyctl, KEYCTL_SET_TIMEOUT, raw(key), 1);
            libc::syscall(libc::SYS_keyctl, KEYCTL_UNLINK, raw(key), KEY_SPEC_USER_KEYRING)
        };
        Ok(())
    })
    .conspires(),
    success("p-terminal", "characters pushed into the terminal", |_| {
        let byte = b"\n";
        // SAFETY: one byte that lives through the call.
        match call("TIOCSTI", || unsafe { libc::ioctl(0, libc::TIOCSTI, byte.as_ptr()) }.into()) {
            Err(refused) => stop(refused.at, refused.errno),
            Ok(_) => Ok(()),
        }
    })
    .needs("a terminal"),
];
