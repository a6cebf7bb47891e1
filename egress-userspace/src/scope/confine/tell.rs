//! What the supervisor tells of a call that was refused: whose it was, and what it asked for, in the words of the manual.

use std::fs;

use egress_common::{Escape, Hook, Owner, Reason, Verdict};

use super::{
    calls::{Call, PTRACE_ATTACH, PTRACE_SEIZE, TERMINAL},
    filter::Judged,
    notify::Notification,
};
use crate::{
    dns::clock::{BootClock, Clock as _},
    policy::Restriction,
};

/// A thread as `/proc` shows it; `None` if it is gone. Ask [`super::notify::Listener::waits`] afterwards, since the number may
/// have been given to another one.
pub fn owner(thread: u32) -> Option<Owner> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let comm = fs::read(format!("/proc/{thread}/comm")).ok()?;
    let field = |name: &str, column| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().nth(column)?.parse().ok()
    };
    let mut owner = Owner {
        tgid: field("Tgid:", 0)?,
        pid: thread,
        uid: field("Uid:", 1)?,
        gid: field("Gid:", 1)?,
        comm: [0; 16],
    };
    let name = comm.strip_suffix(b"\n").unwrap_or(&comm);
    // The last byte stays zero.
    for (place, byte) in owner.comm[..15].iter_mut().zip(name) {
        *place = *byte;
    }
    Some(owner)
}

/// The record of a refusal outside the kernel's own hooks, without the process that it may have been about.
pub fn escape(hook: Hook, reason: Reason, text: &str, scope: u64, owner: Owner, audit: bool) -> Escape {
    let verdict = if audit { Verdict::Audit } else { Verdict::Deny };
    let mut escape = Escape {
        time: BootClock.now(),
        scope,
        cgroup: scope,
        owner,
        hook: hook as u8,
        verdict: verdict as u8,
        reason: reason as u8,
        ..Escape::ZERO
    };
    for (place, byte) in escape.text.iter_mut().zip(text.as_bytes()) {
        *place = *byte;
    }
    escape
}

/// The restriction that refused what [`Hook::Launch`] tells of, so that one can say what would give it back.
pub fn restriction(escape: &Escape) -> Option<Restriction> {
    let end = escape.text.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
    let name = std::str::from_utf8(&escape.text[..end.unwrap_or(escape.text.len())]).ok()?;
    let reason = Reason::from_u8(escape.reason)?;
    if name == FOREIGN {
        return Some(Restriction::ForeignAbi);
    }
    Restriction::ALL.into_iter().find(|restriction| {
        super::calls::rows(*restriction).iter().any(|row| row.name == name && reason_of(row) == reason)
            && (name != "socket" && name != "socketpair" || *restriction == of_family(escape.number))
    })
}

/// First word of what is told of a call by another architecture's number.
const FOREIGN: &str = "call";

fn of_family(number: u32) -> Restriction {
    match i32::try_from(number) {
        Ok(libc::AF_NETLINK) => Restriction::Netlink,
        Ok(libc::AF_UNIX) => Restriction::UnixSockets,
        _ => Restriction::Families,
    }
}

/// Why the call of a row is refused.
pub(super) fn reason_of(call: &Call) -> Reason {
    match call.restriction {
        Some(Restriction::Families | Restriction::Netlink | Restriction::UnixSockets) => Reason::Family,
        Some(Restriction::Ptrace | Restriction::Terminal | Restriction::Signals) => Reason::Process,
        Some(Restriction::UserNamespaces) => Reason::Namespace,
        Some(Restriction::Bpf) => Reason::Bpf,
        _ => Reason::Syscall,
    }
}

/// Reason, number and text of a call.
pub(super) fn said(judged: Judged<'_>, call: &Notification) -> (Reason, u32, String) {
    let nr = call.nr.cast_unsigned();
    let Judged::Row(row) = judged else {
        return (Reason::Syscall, nr, format!("{FOREIGN} {nr} of another architecture ({:#x})", call.arch));
    };
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is what the kernel takes of an int")]
    let [first, second, third] = [call.args[0] as u32, call.args[1] as u32, call.args[2] as u32];
    let reason = reason_of(row);
    match row.restriction {
        Some(Restriction::Netlink) => (reason, first, format!("socket(AF_NETLINK, {third})")),
        Some(Restriction::Families | Restriction::UnixSockets) => {
            (reason, first, format!("{}({}{})", row.name, family(first), kind(second)))
        }
        Some(Restriction::Terminal) => {
            let name = TERMINAL.iter().find(|(request, _)| *request == second).map_or("?", |(_, name)| name);
            (reason, nr, format!("ioctl({name})"))
        }
        Some(Restriction::Bpf) => (reason, first, format!("bpf(command {first})")),
        Some(Restriction::UserNamespaces) if row.name != "setns" => {
            (reason, nr, format!("{}(CLONE_NEWUSER)", row.name))
        }
        Some(Restriction::Keys) => (reason, nr, "request_key with callout information".to_owned()),
        Some(Restriction::Ptrace) if row.name == "ptrace" => {
            let request = match first {
                PTRACE_ATTACH => "PTRACE_ATTACH".to_owned(),
                PTRACE_SEIZE => "PTRACE_SEIZE".to_owned(),
                other => other.to_string(),
            };
            (reason, nr, format!("ptrace({request}, {second})"))
        }
        _ => (reason, nr, row.name.to_owned()),
    }
}

fn kind(number: u32) -> &'static str {
    if number & 0xf == 10 { ", SOCK_PACKET" } else { "" }
}

/// The name of a socket family.
fn family(number: u32) -> String {
    let names = [
        (libc::AF_UNIX, "AF_UNIX"),
        (libc::AF_INET, "AF_INET"),
        (libc::AF_INET6, "AF_INET6"),
        (libc::AF_PACKET, "AF_PACKET"),
        (libc::AF_PPPOX, "AF_PPPOX"),
        (libc::AF_CAN, "AF_CAN"),
        (libc::AF_TIPC, "AF_TIPC"),
        (libc::AF_BLUETOOTH, "AF_BLUETOOTH"),
        (libc::AF_RXRPC, "AF_RXRPC"),
        (libc::AF_ALG, "AF_ALG"),
        (libc::AF_NFC, "AF_NFC"),
        (libc::AF_VSOCK, "AF_VSOCK"),
        (libc::AF_KEY, "AF_KEY"),
        (libc::AF_XDP, "AF_XDP"),
        (libc::AF_RDS, "AF_RDS"),
        (AF_KCM, "AF_KCM"),
        (AF_QIPCRTR, "AF_QIPCRTR"),
        (AF_SMC, "AF_SMC"),
        (AF_MCTP, "AF_MCTP"),
    ];
    let known = names.into_iter().find(|(family, _)| family.cast_unsigned() == number);
    known.map_or_else(|| format!("family {number}"), |(_, name)| name.to_owned())
}

const AF_KCM: i32 = 41;
const AF_QIPCRTR: i32 = 42;
const AF_SMC: i32 = 43;
const AF_MCTP: i32 = 45;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::confine::{calls::rows, filter::Filter};

    fn call(nr: libc::c_long, args: [u64; 6]) -> Notification {
        let nr = i32::try_from(nr).unwrap();
        Notification { id: 1, pid: 1, nr, arch: super::super::calls::NATIVE, args }
    }

    /// Whoever reads an event learns the word that gives it back.
    #[test]
    fn a_refusal_leads_back_to_its_restriction() {
        for (nr, args, text, of) in [
            (libc::SYS_socket, [17, 3, 0, 0, 0, 0], "socket(AF_PACKET)", Restriction::Families),
            (
                libc::SYS_socket,
                [2, 0x8000a, 0, 0, 0, 0],
                "socket(AF_INET, SOCK_PACKET)",
                Restriction::Families,
            ),
            (libc::SYS_socketpair, [99, 1, 0, 0, 0, 0], "socketpair(family 99)", Restriction::Families),
            (libc::SYS_socket, [16, 3, 2, 0, 0, 0], "socket(AF_NETLINK, 2)", Restriction::Netlink),
            (libc::SYS_socket, [1, 1, 0, 0, 0, 0], "socket(AF_UNIX)", Restriction::UnixSockets),
            (libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0], "ioctl(TIOCSTI)", Restriction::Terminal),
            (libc::SYS_bpf, [5, 0, 0, 0, 0, 0], "bpf(command 5)", Restriction::Bpf),
            (libc::SYS_io_uring_setup, [0; 6], "io_uring_setup", Restriction::IoUring),
            (
                libc::SYS_unshare,
                [0x1000_0000, 0, 0, 0, 0, 0],
                "unshare(CLONE_NEWUSER)",
                Restriction::UserNamespaces,
            ),
            (libc::SYS_setns, [0; 6], "setns", Restriction::UserNamespaces),
            (libc::SYS_ptrace, [16, 7, 0, 0, 0, 0], "ptrace(PTRACE_ATTACH, 7)", Restriction::Ptrace),
            (
                libc::SYS_request_key,
                [0, 0, 1, 0, 0, 0],
                "request_key with callout information",
                Restriction::Keys,
            ),
        ] {
            let filter = Filter { calls: rows(of), foreign: false, told: true };
            let call = call(nr, args);
            let judged = filter.judge(call.arch, call.nr, &call.args);
            let (reason, number, said) = said(judged, &call);
            assert_eq!(said, text);
            let mut record = escape(Hook::Launch, reason, &said, 7, Owner::default(), false);
            record.number = number;
            assert_eq!(restriction(&record), Some(of), "{said}");
        }
    }

    #[test]
    fn a_foreign_call_leads_back_too() {
        let filter = Filter { calls: vec![], foreign: true, told: true };
        let call = Notification { arch: 0x4000_0003, ..call(3, [0; 6]) };
        let (reason, _, said) = said(filter.judge(call.arch, call.nr, &call.args), &call);
        assert_eq!(said, "call 3 of another architecture (0x40000003)");
        let record = escape(Hook::Launch, reason, &said, 7, Owner::default(), false);
        assert_eq!(restriction(&record), Some(Restriction::ForeignAbi));
    }

    #[test]
    fn a_thread_is_read_from_proc() {
        let owner = owner(std::process::id()).unwrap();
        assert_eq!((owner.tgid, owner.pid), (std::process::id(), std::process::id()));
        assert_eq!(owner.uid, nix::unistd::geteuid().as_raw());
        assert_ne!(owner.comm, [0; 16]);
        assert!(super::owner(0).is_none());
    }
}
