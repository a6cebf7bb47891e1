//! `egress run` on a kernel with the layer: the command's own work goes on beside everything else that is taken away from it,
//! and what leads out does not.

use std::{fs, process::Command, process::ExitCode};

use anyhow::{Result, ensure};

use crate::{call, honest::WORK, outside::Outside};

/// The first argument of this program as the command of `egress run`.
pub(crate) const CONTAINED: &str = "contained";

const EGRESS: &str = "/egress";

/// A policy that opens nothing; names are asked of nobody.
const POLICY: &str = "version: 1\nname: lsm\nallow: []\ndns:\n  upstream: [192.0.2.53]\n";

/// Runs this program as the command.
pub(crate) fn test() -> Result<()> {
    let outside = Outside::new()?;
    fs::write("/tmp/policy.yaml", POLICY)?;
    let mut command = Command::new(EGRESS);
    command.args(["run", "--policy", "/tmp/policy.yaml", "--", "/init", CONTAINED]);
    command.arg(outside.path("stream")).arg(outside.victim.to_string());
    let done = command.env("EGRESS_LOG", "debug").output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{}\n{}\n{said}", done.status, String::from_utf8_lossy(&done.stdout));
    ensure!(said.contains("the LSM layer is attached"), "the layer is not in use:\n{said}");
    ensure!(said.contains("unix"), "the unix socket outside is told of:\n{said}");
    Ok(())
}

/// What the command does. The exit status says that all went as it should.
pub(crate) fn contained() -> ExitCode {
    let mut fine = true;
    let mut expect = |name: &str, errno: i32, expected: &[i32]| {
        if !expected.contains(&errno) {
            fine = false;
            println!("{name}: errno {errno}");
        }
    };
    for (name, work) in WORK {
        expect(name, work(), &[0]);
    }
    let mut arguments = std::env::args().skip(2);
    let (stream, victim) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let refused = [libc::EPERM, libc::EACCES, libc::EROFS, libc::EAFNOSUPPORT];
    let connected = call::unix_connect(nix::sys::socket::SockType::Stream, &stream);
    expect("a unix socket outside", connected, &refused);
    expect("a packet socket", call::make_socket(libc::AF_PACKET, libc::SOCK_RAW, 0), &refused);
    let memory = call::open_write(format!("/proc/{victim}/mem").as_ref());
    expect("a process outside", memory, &refused);
    expect("another cgroup", call::open_write("/sys/fs/cgroup/cgroup.procs".as_ref()), &refused);
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
