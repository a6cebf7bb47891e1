//! Loads and attaches programs of type `BPF_PROG_TYPE_LSM`, for which the library would first read all of the kernel's type
//! information into memory.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya_obj::{
    EbpfSectionKind, Object,
    generated::{
        BPF_F_RDONLY_PROG, bpf_attach_type, bpf_cmd, bpf_insn, bpf_link_info, bpf_link_type, bpf_map_type,
        bpf_prog_type,
    },
};
use egress_common::lsm::Facts;
use zerocopy::IntoBytes as _;

use super::super::{EnforceError, Engine, object::OBJECT, sys};

/// Enough for a verifier's complaint; a longer log fails the load, so it is asked for only after one.
const LOG_BYTES: usize = 1 << 24;

/// Whether this kernel refuses programs of this kind whatever they are, and with which errno. One that does not says that
/// there is no such place to attach to. Costs microseconds, and no type information need be read for it.
pub(super) fn refusal() -> Option<io::Error> {
    let nothing = [0xb7, 0x95].map(|code| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm: 0,
    });
    let nowhere = u32::MAX;
    let error = load_instructions("lsm_probe", &nothing, nowhere, &mut []).err()?;
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)).then_some(error)
}

/// The programs of one scope, with their constants, ready to be loaded.
pub(super) struct Programs {
    object: Object,
    /// Programs hold the maps of constants; this holds them until there are programs.
    _constants: Vec<OwnedFd>,
}

impl Programs {
    /// Leads the programs to the engine's maps, and to constants of their own.
    pub(super) fn prepare(engine: &Engine, facts: &Facts) -> Result<Self, EnforceError> {
        let fault = |error: &dyn std::fmt::Display| EnforceError::other("prepare the LSM programs", error);
        let mut object = Object::parse(OBJECT).map_err(|error| fault(&error))?;
        let text = object.functions.keys().map(|key| key.0).collect();
        let ours = |name: &str| name.starts_with("lsm_");
        let others = object.programs.iter().filter(|(name, _)| !ours(name));
        let others: Vec<_> = others.map(|(_, program)| program.function_key()).collect();
        object.programs.retain(|name, _| ours(name));
        object.functions.retain(|key, _| !others.contains(key));
        let globals = [("LSM_FACTS", (facts.as_bytes(), true))].into_iter().collect();
        object.patch_map_data(globals).map_err(|error| fault(&error))?;
        let (mut constants, mut maps) = (Vec::new(), Vec::new());
        for (name, map) in &object.maps {
            if map.section_kind() == EbpfSectionKind::Rodata {
                let fd = constant(map.data()).map_err(|error| fault(&error))?;
                maps.push((name.clone(), fd.as_raw_fd(), map.clone()));
                constants.push(fd);
            } else if let Ok(fd) = engine.map(name) {
                maps.push((name.clone(), fd.as_raw_fd(), map.clone()));
            }
        }
        let maps = maps.iter().map(|(name, fd, map)| (name.as_str(), *fd, map));
        object.relocate_maps(maps, &text).map_err(|error| fault(&error))?;
        object.relocate_calls(&text).map_err(|error| fault(&error))?;
        Ok(Self { object, _constants: constants })
    }

    /// Loads one program for the function with this id in the kernel's type information.
    ///
    /// # Errors
    /// As `bpf(2)` `BPF_PROG_LOAD`; what the verifier said is logged.
    pub(super) fn load(&self, name: &str, function: u32) -> io::Result<OwnedFd> {
        let program = self.object.programs.get(name).ok_or(io::ErrorKind::NotFound)?;
        let code = self.object.functions.get(&program.function_key()).ok_or(io::ErrorKind::NotFound)?;
        load_instructions(name, &code.instructions, function, &mut []).inspect_err(|error| {
            let mut log = vec![0; LOG_BYTES];
            let _again = load_instructions(name, &code.instructions, function, &mut log);
            let said = log.split(|byte| *byte == 0).next().unwrap_or_default();
            let said = String::from_utf8_lossy(said);
            let lines: Vec<&str> = said.lines().collect();
            let end = lines[lines.len().saturating_sub(12)..].join("\n");
            tracing::warn!(program = name, %error, "the kernel refused an LSM program:\n{end}");
        })
    }
}

/// A map with one value that nobody can change, not even by way of this descriptor: so the verifier knows it.
fn constant(data: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = sys::zeroed();
    attr.__bindgen_anon_1.map_type = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
    attr.__bindgen_anon_1.key_size = 4;
    attr.__bindgen_anon_1.value_size = size(data.len());
    attr.__bindgen_anon_1.max_entries = 1;
    attr.__bindgen_anon_1.map_flags = BPF_F_RDONLY_PROG;
    let map = sys::owned(sys::call(bpf_cmd::BPF_MAP_CREATE, &mut attr)?)?;
    sys::map_update(map.as_fd(), &0_u32, data, sys::ANY)?;
    let mut attr = sys::zeroed();
    attr.__bindgen_anon_2.map_fd = sys::fd(map.as_fd());
    sys::call(bpf_cmd::BPF_MAP_FREEZE, &mut attr)?;
    Ok(map)
}

fn load_instructions(name: &str, code: &[bpf_insn], function: u32, log: &mut [u8]) -> io::Result<OwnedFd> {
    let license = c"GPL";
    let short = CString::new(&name.as_bytes()[..name.len().min(15)])?;
    let mut attr = sys::zeroed();
    attr.__bindgen_anon_3.prog_type = bpf_prog_type::BPF_PROG_TYPE_LSM as u32;
    attr.__bindgen_anon_3.expected_attach_type = bpf_attach_type::BPF_LSM_MAC as u32;
    attr.__bindgen_anon_3.attach_btf_id = function;
    attr.__bindgen_anon_3.insn_cnt = size(code.len());
    attr.__bindgen_anon_3.insns = code.as_ptr() as u64;
    attr.__bindgen_anon_3.license = license.as_ptr() as u64;
    if !log.is_empty() {
        attr.__bindgen_anon_3.log_level = 1;
        attr.__bindgen_anon_3.log_size = size(log.len());
        attr.__bindgen_anon_3.log_buf = log.as_mut_ptr() as u64;
    }
    // SAFETY: the names are plain bytes, and this part of the union is in use.
    let to = unsafe { &mut attr.__bindgen_anon_3.prog_name };
    for (to, from) in to.iter_mut().zip(short.as_bytes()) {
        *to = from.cast_signed();
    }
    sys::owned(sys::call(bpf_cmd::BPF_PROG_LOAD, &mut attr)?)
}

/// Attaches a loaded program to the place that it was loaded for.
pub(super) fn attach(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = sys::zeroed();
    attr.raw_tracepoint.prog_fd = sys::fd(program);
    sys::owned(sys::call(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)?)
}

/// Whether a link is one of an LSM program.
pub(super) fn is_lsm_link(link: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: plain data, zero is valid.
    let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
    let mut attr = sys::zeroed();
    attr.info.bpf_fd = sys::fd(link);
    attr.info.info_len = size(size_of::<bpf_link_info>());
    attr.info.info = &raw mut info as u64;
    sys::call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    // SAFETY: plain numbers; the type says which part of the union is filled.
    let attach_type = unsafe { info.__bindgen_anon_1.tracing.attach_type };
    Ok(info.type_ == bpf_link_type::BPF_LINK_TYPE_TRACING as u32
        && attach_type == bpf_attach_type::BPF_LSM_MAC as u32)
}

fn size(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
