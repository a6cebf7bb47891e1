//! Programs of somebody else on a control group of the lab's own.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result};
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_prog_type};

/// What a foreign program does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Foreign {
    /// Lets every packet pass, and lets no other program beside or below it.
    Exclusive,
    /// The same for IPv6 datagrams with an address of their own.
    ExclusiveSendmsg6,
    /// Turns every refusal of an IPv4 datagram with an address of its own into a success.
    UndoSendmsg4,
    /// Turns every refusal of an IPv4 connect into a success.
    UndoConnect4,
}

/// `r0 = 1; exit`
const PASS: [u64; 2] = [0x0000_0001_0000_00b7, 0x95];
/// `r1 = 0; call bpf_set_retval; r0 = 1; exit`
const UNDO: [u64; 4] = [0x0000_0000_0000_01b7, (187 << 32) | 0x85, 0x0000_0001_0000_00b7, 0x95];
const ALLOW_MULTI: u32 = 2;

impl Foreign {
    /// Attaches the program for as long as the control group lives.
    pub fn attach(self, cgroup: &Path) -> Result<()> {
        let directory = File::open(cgroup)?;
        let (kind, place, flags, code) = match self {
            Self::Exclusive => (
                bpf_prog_type::BPF_PROG_TYPE_CGROUP_SKB,
                bpf_attach_type::BPF_CGROUP_INET_EGRESS,
                0,
                &PASS[..],
            ),
            Self::ExclusiveSendmsg6 => (
                bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
                bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG,
                0,
                &PASS[..],
            ),
            Self::UndoSendmsg4 => (
                bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
                bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG,
                ALLOW_MULTI,
                &UNDO[..],
            ),
            Self::UndoConnect4 => (
                bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
                bpf_attach_type::BPF_CGROUP_INET4_CONNECT,
                ALLOW_MULTI,
                &UNDO[..],
            ),
        };
        let program = load(kind as u32, place as u32, code).context("load a foreign program")?;
        // SAFETY: all zero is a valid attribute; the fields are those of the command.
        let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
        attr.__bindgen_anon_5.__bindgen_anon_1.target_fd = directory.as_raw_fd().unsigned_abs();
        attr.__bindgen_anon_5.attach_bpf_fd = program.as_raw_fd().unsigned_abs();
        attr.__bindgen_anon_5.attach_type = place as u32;
        attr.__bindgen_anon_5.attach_flags = flags;
        call(bpf_cmd::BPF_PROG_ATTACH, &mut attr).context("attach a foreign program").map(drop)
    }
}

fn load(kind: u32, place: u32, code: &[u64]) -> io::Result<OwnedFd> {
    // SAFETY: all zero is a valid attribute.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: plain fields of a union that was zeroed; program and licence live through the call.
    let fd = unsafe {
        let fields = &mut attr.__bindgen_anon_3;
        fields.prog_type = kind;
        fields.expected_attach_type = place;
        fields.insns = code.as_ptr() as u64;
        fields.insn_cnt = u32::try_from(code.len()).expect("a short program");
        fields.license = c"GPL".as_ptr() as u64;
        call(bpf_cmd::BPF_PROG_LOAD, &mut attr)?
    };
    // SAFETY: the kernel just gave the descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn call(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: the attribute has the size we say, and what it points to lives through the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as u32, &raw mut *attr, size_of::<bpf_attr>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
