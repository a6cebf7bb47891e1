//! Makes a machine out of a kernel with nothing else: this program is its first process.

use std::{fs, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};

const MOUNTS: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
];

/// What `cargo xtask vm` looks for.
const BEGIN: &str = "the tests begin";

fn is_first() -> bool {
    std::process::id() == 1
}

/// Mounts what there must be and turns the output to the second serial line. Gives the part of the tests' names that the
/// kernel's command line asks for; elsewhere than in such a machine, that of the first argument.
pub(crate) fn begin() -> Result<String> {
    if !is_first() {
        egress_tests::require_root();
        return Ok(std::env::args().nth(1).unwrap_or_default());
    }
    // On the console still: from here on a crash is no failure to boot.
    println!("{BEGIN}");
    for (kind, on) in MOUNTS {
        let _there = fs::create_dir(on);
        let mounted = mount(Some(kind), on, Some(kind), MsFlags::empty(), None::<&str>);
        // Some kernels mount this one by themselves.
        if kind != "devtmpfs" {
            mounted.with_context(|| format!("mount {on}"))?;
        }
    }
    let line = fs::OpenOptions::new().write(true).open("/dev/ttyS1").context("open the serial line")?;
    for descriptor in [1, 2] {
        // SAFETY: two open descriptors, or one that is to become open.
        unsafe { libc::dup2(line.as_raw_fd(), descriptor) };
    }
    loopback_up()?;
    let words = fs::read_to_string("/proc/cmdline")?;
    let filter = words.split_whitespace().find_map(|word| word.strip_prefix("tests="));
    Ok(filter.unwrap_or_default().to_owned())
}

fn loopback_up() -> Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: plain data, zero is valid; a name that fits and flags are all that the call reads.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = libc::c_char::try_from(b'l')?;
        request.ifr_name[1] = libc::c_char::try_from(b'o')?;
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING)?;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    };
    nix::errno::Errno::result(result).context("set the loopback device up").map(drop)
}

/// Switches the machine off.
pub(crate) fn end() {
    if is_first() {
        // SAFETY: an open descriptor; waits until the last line has left.
        unsafe { libc::tcdrain(1) };
        let _never = reboot(RebootMode::RB_POWER_OFF);
    }
}
