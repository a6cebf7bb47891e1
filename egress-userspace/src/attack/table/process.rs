//! The same connection by other processes, threads, namespaces and numberings of system calls.

use std::{os::fd::AsRawFd as _, time::Duration};

use super::{Around, Attack, Handed, descriptors::inherited, outside, tcp::tell, wire};
use crate::attack::{
    aim::Aim,
    call::{Done, Name, Sock, c_path, call, of_io, owned, pause, raw, settle, stop},
    packet::{echo, portless},
    process::{child, fork, in_child},
};

fn out(aim: &Aim<'_>) -> Done {
    tell(&Sock::tcp4()?, aim.to4(), aim)
}

fn unshare(flags: i32) -> Done {
    // SAFETY: no pointers.
    call("unshare", || unsafe { libc::unshare(flags) }.into()).map(drop)
}

fn enter(fd: i32) -> Done {
    // SAFETY: no pointers.
    call("setns", || unsafe { libc::setns(fd, libc::CLONE_NEWNET) }.into()).map(drop)
}

/// A child of a child, in a session of its own.
fn orphan(delay: u64, aim: &Aim<'_>) -> Done {
    let first = fork()?;
    if first != 0 {
        return in_child(first);
    }
    child(|| {
        // SAFETY: no pointers.
        unsafe { libc::setsid() };
        if fork()? != 0 {
            return Ok(());
        }
        child(|| {
            // SAFETY: a bound on this process, which nobody waits for; and nobody is to kill it sooner.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, 0);
                libc::alarm(5);
            }
            pause(delay);
            out(aim)
        })
    })
}

/// Numbers and arguments of the 32-bit kind, which a filter of native calls does not see.
#[cfg(target_arch = "x86_64")]
fn foreign(aim: &Aim<'_>) -> Done {
    let (socket, connect) = (359_u32, 362_u32);
    let process = fork()?;
    if process != 0 {
        return in_child(process);
    }
    child(|| {
        let name = Name::of(aim.to4());
        // SAFETY: a page below 4 GiB, which such calls can name; the name fits in it.
        let place = call("mmap", || unsafe {
            let (both, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            libc::mmap(std::ptr::null_mut(), 4096, both, flags | libc::MAP_32BIT, -1, 0) as libc::c_long
        })?;
        let low = u32::try_from(place)
            .map_err(|_| crate::attack::call::Stop { at: "mmap", errno: libc::ENOMEM })?;
        // SAFETY: the page is ours and larger than the name.
        unsafe { std::ptr::copy_nonoverlapping(name.0.as_ptr(), place as *mut u8, name.0.len()) };
        let call = |number: u32, first: u32, second: u32, third: u32| -> Done<i32> {
            let result: u32;
            // SAFETY: a system call of the 32-bit kind; rbx is saved around it, since the compiler keeps it.
            unsafe {
                std::arch::asm!(
                    "xchg rbx, {first}", "int 0x80", "xchg rbx, {first}",
                    first = inout(reg) u64::from(first) => _,
                    inout("eax") number => result, in("ecx") second, in("edx") third,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                );
            }
            match result.cast_signed() {
                errno @ -4095..0 => stop("int80", -errno),
                result => Ok(result),
            }
        };
        let (family, kind) = (libc::AF_INET.cast_unsigned(), libc::SOCK_STREAM.cast_unsigned());
        let fd = call(socket, family, kind, 0)?;
        call(connect, fd.cast_unsigned(), low, name.length()).map(drop)
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn foreign(_: &Aim<'_>) -> Done {
    stop("int80", libc::ENOSYS)
}

/// As a program of its own, executed by this one.
fn exec(aim: &Aim<'_>) -> Done {
    let brief = serde_json::to_string(aim.brief)
        .map_err(|_| crate::attack::call::Stop { at: "exec", errno: libc::EINVAL })?;
    let status = std::process::Command::new("/proc/self/exe")
        .args(["attack-agent", "once", &aim.index.to_string(), &brief])
        .status()
        .map_err(of_io("exec"))?;
    match status.code() {
        Some(0) => Ok(()),
        code => stop("child", code.unwrap_or(255)),
    }
}

/// Called by the executed program.
pub(in crate::attack) fn executed(aim: &Aim<'_>) -> Done {
    out(aim)
}

pub(super) const ATTACKS: &[Attack] = &[
    wire("j-orphan", "a child of a child in a session of its own", |aim| {
        orphan(0, aim)?;
        settle(100)
    }),
    wire("j-outlives", "a process that outlives the command", |aim| orphan(2_500, aim)),
    wire("j-thread", "another thread", |aim| {
        let out = std::thread::scope(|scope| scope.spawn(|| out(aim)).join());
        out.unwrap_or_else(|_| stop("thread", libc::EIO))
    }),
    wire("j-vfork", "a child that shares the memory", |aim| {
        // SAFETY: the child makes its calls on a stack of its own, of which it uses little, and ends.
        let mut stack = vec![0_u128; 16_384];
        extern "C" fn start(aim: *mut libc::c_void) -> i32 {
            // SAFETY: the parent waits until this process ends, and gave an address of the right type.
            let aim = unsafe { &*aim.cast::<Aim<'_>>() };
            match out(aim) {
                Ok(()) => 0,
                Err(stop) => stop.errno.clamp(1, 200),
            }
        }
        // SAFETY: as above.
        let process = call("clone", || unsafe {
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            let top = stack.as_mut_ptr().add(stack.len()).cast();
            libc::clone(start, top, flags, std::ptr::from_ref(aim).cast_mut().cast()).into()
        })?;
        in_child(raw(process))
    }),
    wire("j-exec", "another program", exec),
    wire("j-foreign", "system calls of another architecture's numbering", foreign),
    wire("j-net", "a network namespace of its own", |aim| {
        unshare(libc::CLONE_NEWNET)?;
        out(aim)
    })
    .root(),
    wire("j-user", "a user namespace, in which it is root: raw socket", |aim| {
        unshare(libc::CLONE_NEWUSER)?;
        let socket = Sock::open(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)?;
        socket.send_to(portless(aim.to4()), &echo(8, &aim.token()))
    }),
    wire("j-user-enter", "a user namespace, from which it enters another network namespace", |aim| {
        unshare(libc::CLONE_NEWUSER)?;
        let Some((process, _)) = aim.holder() else { return stop("holder", libc::ESRCH) };
        let path = c_path(format!("/proc/{process}/ns/net").as_ref());
        // SAFETY: the path lives through the call.
        let fd = call("open", || unsafe { libc::open(path.as_ptr(), libc::O_RDONLY) }.into()).map(owned)?;
        enter(fd.as_raw_fd())?;
        out(aim)
    })
    .around(Around::Holder),
    outside("j-enter", "an inherited network namespace", |aim| {
        enter(inherited(aim)?.as_raw_fd())?;
        out(aim)
    })
    .around(Around::Inherited(Handed::Namespace))
    .root(),
    outside("j-enter-udp", "an inherited network namespace, by UDP", |aim| {
        enter(inherited(aim)?.as_raw_fd())?;
        Sock::udp4()?.send_to(aim.to4(), &aim.token())
    })
    .around(Around::Inherited(Handed::Namespace))
    .root(),
    wire("j-enter-init", "the network namespace of a process outside", |aim| {
        let Some((process, _)) = aim.holder() else { return stop("holder", libc::ESRCH) };
        // SAFETY: no pointers.
        let handle = call("pidfd_open", || unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) })?;
        enter(owned(handle).as_raw_fd())?;
        out(aim)
    })
    .around(Around::Holder)
    .root(),
    wire("j-many", "many attempts at once, more than are told", |aim| {
        let mut last = Ok(());
        let start = std::time::Instant::now();
        for _ in 0..2_000 {
            last = Sock::udp4()?.send_to(aim.to4(), &aim.token());
            if start.elapsed() > Duration::from_secs(1) {
                break;
            }
        }
        last
    }),
];
