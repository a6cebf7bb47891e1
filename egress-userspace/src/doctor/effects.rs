//! Attempts that only one hook refuses each, made inside a closed scope by a child, so that a hook counts by what it does.
//! Nothing leaves this machine's own loopback, and what is written is what was read.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{SocketAddr, UdpSocket},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    time::Duration,
};

use nix::{
    sys::wait::waitpid,
    unistd::{ForkResult, fork},
};

/// What became of an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// It was refused.
    Refused,
    /// It was let through, and should not have been.
    LetThrough,
    /// It cannot be made on this machine.
    Unknown,
}

/// Longest time that a datagram takes over loopback.
const ARRIVES: Duration = Duration::from_millis(200);
const TUN: &str = "/dev/net/tun";
const SETTING: &str = "/proc/sys/net/ipv4/ip_default_ttl";

/// The hooks of which an attempt of their own can be made here, and what became of it. `procs` is the open `cgroup.procs`
/// of a scope without a policy.
///
/// Must be called while the process has one thread.
///
/// # Errors
/// As `pipe(2)`, `fork(2)` and reading.
pub fn probe(procs: &File) -> io::Result<Vec<(&'static str, Effect)>> {
    let (mut told, tell) = io::pipe()?;
    // SAFETY: this process has one thread, so the child may do whatever the parent could.
    let child = match unsafe { fork() }? {
        ForkResult::Child => {
            let status = i32::from(attempt_all(procs, tell).is_err());
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => child,
    };
    drop(tell);
    let mut port = [0; 2];
    told.read_exact(&mut port)?;
    let sent = send_from_outside(u16::from_ne_bytes(port));
    let mut effects = [0; 4];
    told.read_exact(&mut effects)?;
    waitpid(child, None)?;
    let [mut ingress, setsockopt, device, sysctl] = effects.map(Effect::of_byte);
    if !sent || port == [0; 2] {
        ingress = Effect::Unknown;
    }
    Ok(vec![("ingress", ingress), ("setsockopt", setsockopt), ("device", device), ("sysctl", sysctl)])
}

impl Effect {
    const fn of_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Refused,
            1 => Self::LetThrough,
            _ => Self::Unknown,
        }
    }

    /// Of an attempt that only we answer with EPERM.
    fn of(result: io::Result<()>) -> Self {
        match result {
            Ok(()) => Self::LetThrough,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Self::Refused,
            Err(_) => Self::Unknown,
        }
    }
}

fn attempt_all(procs: &File, mut tell: io::PipeWriter) -> io::Result<()> {
    let possible = [File::open(TUN).is_ok(), fs::read(SETTING).is_ok()];
    nix::unistd::write(procs, b"0")?;
    let listener = UdpSocket::bind("127.0.0.1:0").ok();
    let port = listener.as_ref().and_then(|socket| socket.local_addr().ok()).map_or(0, |own| own.port());
    tell.write_all(&port.to_ne_bytes())?;
    let ingress = listener.as_ref().map_or(Effect::Unknown, hears);
    let setsockopt = listener.as_ref().map_or(Effect::Unknown, set_option);
    let device = if possible[0] { Effect::of(File::open(TUN).map(drop)) } else { Effect::Unknown };
    let sysctl = if possible[1] { Effect::of(write_setting()) } else { Effect::Unknown };
    tell.write_all(&[ingress as u8, setsockopt as u8, device as u8, sysctl as u8])
}

fn hears(socket: &UdpSocket) -> Effect {
    let heard = socket.set_read_timeout(Some(ARRIVES)).and_then(|()| socket.recv(&mut [0; 8]));
    if heard.is_ok() { Effect::LetThrough } else { Effect::Refused }
}

fn send_from_outside(port: u16) -> bool {
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", to)).is_ok()
}

/// `IP_FREEBIND`, which needs no privilege.
fn set_option(socket: &UdpSocket) -> Effect {
    let on = 1_i32;
    let length = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(0);
    // SAFETY: an open socket and a number that lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_FREEBIND,
            (&raw const on).cast(),
            length,
        )
    };
    Effect::of(if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) })
}

/// Writes what is there.
fn write_setting() -> io::Result<()> {
    let value = fs::read(SETTING)?;
    let mut setting = File::options().write(true).custom_flags(libc::O_CLOEXEC).open(SETTING)?;
    setting.write_all(&value)
}
