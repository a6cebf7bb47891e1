//! Programs that return 1 at once, attached to a cgroup of their own: what a hook costs whatever is in it.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_prog_info, bpf_prog_type};
use egress::enforce::KernelProgram;
use egress_tests::cgroup::Cgroup;

/// `r0 = 1; exit`
const RETURN_ONE: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];

/// One for each hook.
pub(crate) struct EmptyPrograms {
    cgroup: Cgroup,
    programs: Vec<(KernelProgram, OwnedFd)>,
    _links: Vec<OwnedFd>,
}

impl EmptyPrograms {
    pub(crate) fn attach() -> Result<Self> {
        let cgroup = Cgroup::new()?;
        let directory = File::open(cgroup.path())?;
        let (mut programs, mut links) = (Vec::new(), Vec::new());
        for hook in KernelProgram::ALL {
            let program = load(hook).with_context(|| format!("load an empty {}", hook.name()))?;
            links.push(attach(&program, &directory, hook).context("attach an empty program")?);
            programs.push((hook, program));
        }
        Ok(Self { cgroup, programs, _links: links })
    }

    pub(crate) fn cgroup(&self) -> &Path {
        self.cgroup.path()
    }

    pub(crate) fn counts(&self, hooks: &[KernelProgram]) -> Result<Vec<(Duration, u64)>> {
        let count = |hook: &KernelProgram| {
            let (_, program) =
                self.programs.iter().find(|(found, _)| found == hook).context("find the program")?;
            let info = info(program).context("read a program's statistics")?;
            Ok((Duration::from_nanos(info.run_time_ns), info.run_cnt))
        };
        hooks.iter().map(count).collect()
    }
}

fn program_type(hook: KernelProgram) -> u32 {
    (match hook {
        KernelProgram::Packet => bpf_prog_type::BPF_PROG_TYPE_CGROUP_SKB,
        KernelProgram::Create => bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK,
        _ => bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
    }) as u32
}

fn load(hook: KernelProgram) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.__bindgen_anon_3.prog_type = program_type(hook);
    attr.__bindgen_anon_3.insns = RETURN_ONE.as_ptr() as u64;
    attr.__bindgen_anon_3.insn_cnt = 2;
    attr.__bindgen_anon_3.license = c"GPL".as_ptr() as u64;
    attr.__bindgen_anon_3.expected_attach_type = hook.attach_type();
    call(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

fn attach(program: &OwnedFd, cgroup: &File, hook: KernelProgram) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().unsigned_abs();
    attr.link_create.__bindgen_anon_2.target_fd = cgroup.as_fd().as_raw_fd().unsigned_abs();
    attr.link_create.attach_type = hook.attach_type();
    call(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

fn info(program: &OwnedFd) -> io::Result<bpf_prog_info> {
    // SAFETY: plain data, zero is valid.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let mut attr = zeroed();
    attr.info.bpf_fd = program.as_raw_fd().unsigned_abs();
    attr.info.info_len = u32::try_from(size_of::<bpf_prog_info>()).unwrap_or(0);
    attr.info.info = &raw mut info as u64;
    raw_call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

fn zeroed() -> bpf_attr {
    // SAFETY: a union of plain data; the kernel demands that unused bytes are zero.
    unsafe { std::mem::zeroed() }
}

fn call(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = raw_call(cmd, attr)?;
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) })
}

fn raw_call(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: the attributes are a whole `bpf_attr`; its pointers lead to live buffers.
    let result = unsafe { libc::syscall(libc::SYS_bpf, cmd as libc::c_long, attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
