//! The `bpf(2)` calls that the library has no wrapper for, or only for other key types.
//!
//! Keys and values go in as plain bytes of contract types; nothing here knows what they mean.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use aya_obj::generated::{
    bpf_attr, bpf_cmd, bpf_insn, bpf_link_info, bpf_link_type, bpf_prog_info, bpf_prog_type,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Update flag: create or replace.
pub const ANY: u64 = 0;

/// Update flag: only where there is nothing (EEXIST).
pub const NEW: u64 = 1;

/// What the kernel says of a cgroup link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CgroupLink {
    /// The cgroup that the link sits on; 0 once that cgroup is gone and the link is dead.
    pub cgroup: u64,
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
    /// The program that the link runs.
    pub program: u32,
}

/// Writes one map entry.
///
/// # Errors
/// `bpf(2)` `BPF_MAP_UPDATE_ELEM`: E2BIG when a hash or LPM map is full, ENOENT for a storage that no attach made.
pub fn map_update<K, V>(map: BorrowedFd<'_>, key: &K, value: &V, flags: u64) -> io::Result<()>
where
    K: IntoBytes + Immutable + ?Sized,
    V: IntoBytes + Immutable + ?Sized,
{
    let mut attr = map_attr(map, key.as_bytes(), value.as_bytes().as_ptr() as u64);
    attr.__bindgen_anon_2.flags = flags;
    call(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Removes one map entry; whether there was one.
///
/// # Errors
/// `bpf(2)` `BPF_MAP_DELETE_ELEM`.
pub fn map_delete<K: IntoBytes + Immutable + ?Sized>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    match call(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut map_attr(map, key.as_bytes(), 0)) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads one map entry.
///
/// # Errors
/// `bpf(2)` `BPF_MAP_LOOKUP_ELEM`: ENOENT if there is none.
pub fn map_lookup<K, V>(map: BorrowedFd<'_>, key: &K) -> io::Result<V>
where
    K: IntoBytes + Immutable + ?Sized,
    V: FromBytes + IntoBytes,
{
    let mut value = V::new_zeroed();
    lookup_into(map, key.as_bytes(), value.as_mut_bytes())?;
    Ok(value)
}

/// Reads one map entry and removes it; `None` if there is none.
///
/// # Errors
/// `bpf(2)` `BPF_MAP_LOOKUP_AND_DELETE_ELEM`, which hash maps have since 5.14; before, a look-up and a removal.
pub fn map_take<K, V>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>>
where
    K: IntoBytes + Immutable + ?Sized,
    V: FromBytes + IntoBytes,
{
    let mut value = V::new_zeroed();
    let mut attr = map_attr(map, key.as_bytes(), value.as_mut_bytes().as_mut_ptr() as u64);
    let absent = |error: &io::Error| error.raw_os_error() == Some(libc::ENOENT);
    match call(bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) {
        Ok(_) => return Ok(Some(value)),
        Err(error) if absent(&error) => return Ok(None),
        Err(error) if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTSUP | ENOTSUPP)) => {
            return Err(error);
        }
        Err(_) => {}
    }
    match map_lookup(map, key) {
        Ok(value) => map_delete(map, key).map(|_| Some(value)),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The kernel's own "not supported", which it should not show but does.
const ENOTSUPP: i32 = 524;

/// Reads one entry of a per-CPU map: one value for each possible CPU.
///
/// # Errors
/// `bpf(2)` `BPF_MAP_LOOKUP_ELEM`: ENOENT if there is none.
pub fn map_lookup_per_cpu<K, V>(map: BorrowedFd<'_>, key: &K, cpus: usize) -> io::Result<Vec<V>>
where
    K: IntoBytes + Immutable + ?Sized,
    V: FromBytes + IntoBytes,
{
    let stride = size_of::<V>().next_multiple_of(8);
    let mut bytes = vec![0_u8; stride * cpus];
    lookup_into(map, key.as_bytes(), &mut bytes)?;
    bytes.chunks_exact(stride).map(|chunk| read(&chunk[..size_of::<V>()])).collect()
}

/// Writes the same value for every CPU of an entry of a per-CPU map.
///
/// # Errors
/// As [`map_update`].
pub fn map_update_per_cpu<K, V>(map: BorrowedFd<'_>, key: &K, value: &V, cpus: usize) -> io::Result<()>
where
    K: IntoBytes + Immutable + ?Sized,
    V: IntoBytes + Immutable,
{
    let mut one = value.as_bytes().to_vec();
    one.resize(one.len().next_multiple_of(8), 0);
    map_update(map, key, one.repeat(cpus).as_slice(), ANY)
}

fn read<V: FromBytes>(bytes: &[u8]) -> io::Result<V> {
    V::read_from_bytes(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn lookup_into(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    call(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut map_attr(map, key, value.as_mut_ptr() as u64)).map(drop)
}

/// The key after this one, or the first; `None` at the end, or if this one is gone and so leads nowhere.
///
/// # Errors
/// `bpf(2)` `BPF_MAP_GET_NEXT_KEY`.
pub fn map_next_key<K>(map: BorrowedFd<'_>, after: Option<&K>) -> io::Result<Option<K>>
where
    K: FromBytes + IntoBytes + Immutable,
{
    let mut next = K::new_zeroed();
    let to = next.as_mut_bytes().as_mut_ptr() as u64;
    let mut attr = map_attr(map, after.map_or(&[], |key| key.as_bytes()), to);
    if after.is_none() {
        attr.__bindgen_anon_2.key = 0;
    }
    match call(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr) {
        Ok(_) => Ok(Some(next)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn map_attr(map: BorrowedFd<'_>, key: &[u8], value: u64) -> bpf_attr {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = fd(map);
    attr.__bindgen_anon_2.key = key.as_ptr() as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value;
    attr
}

/// What the kernel says of a link, or `None` if it is no cgroup link.
///
/// # Errors
/// `bpf(2)` `BPF_OBJ_GET_INFO_BY_FD`.
pub fn cgroup_link(link: BorrowedFd<'_>) -> io::Result<Option<CgroupLink>> {
    // SAFETY: plain data, zero is valid.
    let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
    let mut attr = zeroed();
    attr.info.bpf_fd = fd(link);
    attr.info.info_len = u32::try_from(size_of::<bpf_link_info>()).unwrap_or(u32::MAX);
    attr.info.info = &raw mut info as u64;
    call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    if info.type_ != bpf_link_type::BPF_LINK_TYPE_CGROUP as u32 {
        return Ok(None);
    }
    // SAFETY: the type says which part of the union is filled.
    let cgroup = unsafe { info.__bindgen_anon_1.cgroup };
    Ok(Some(CgroupLink { cgroup: cgroup.cgroup_id, attach_type: cgroup.attach_type, program: info.prog_id }))
}

/// Programs attached to a cgroup for one attach type: (attach flags, program ids).
///
/// # Errors
/// `bpf(2)` `BPF_PROG_QUERY`.
pub fn query_cgroup(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<(u32, Vec<u32>)> {
    let mut ids = [0_u32; 64];
    let mut attr = zeroed();
    attr.query.__bindgen_anon_1.target_fd = fd(cgroup);
    attr.query.attach_type = attach_type;
    attr.query.prog_ids = ids.as_mut_ptr() as u64;
    attr.query.__bindgen_anon_2.prog_cnt = 64;
    call(bpf_cmd::BPF_PROG_QUERY, &mut attr)?;
    // SAFETY: the kernel filled the query part.
    let (flags, count) = unsafe { (attr.query.attach_flags, attr.query.__bindgen_anon_2.prog_cnt) };
    let count = usize::try_from(count).unwrap_or(0).min(ids.len());
    Ok((flags, ids[..count].to_vec()))
}

/// Loads a program of the kind that sees addresses of sockets. With a `log` of some length the verifier writes there.
///
/// # Errors
/// `bpf(2)` `BPF_PROG_LOAD`: EINVAL where the kernel lacks the attach type.
pub fn load_sock_addr(
    name: &str,
    attach_type: u32,
    instructions: &[bpf_insn],
    license: &std::ffi::CStr,
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    // SAFETY: the part of the union that this command reads; all of it is zero so far.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR as u32;
    load.expected_attach_type = attach_type;
    load.insn_cnt = u32::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    load.insns = instructions.as_ptr() as u64;
    load.license = license.as_ptr() as u64;
    if !log.is_empty() {
        load.log_level = 1;
        load.log_size = u32::try_from(log.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        load.log_buf = log.as_mut_ptr() as u64;
    }
    // The last byte stays zero.
    for (to, from) in load.prog_name.iter_mut().take(15).zip(name.bytes()) {
        *to = std::ffi::c_char::from_ne_bytes([from]);
    }
    owned(call(bpf_cmd::BPF_PROG_LOAD, &mut attr)?)
}

/// How many instructions the verifier walked for a program (5.16).
///
/// # Errors
/// `bpf(2)` `BPF_OBJ_GET_INFO_BY_FD`.
pub fn verified_instructions(program: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: plain data, zero is valid.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let mut attr = zeroed();
    attr.info.bpf_fd = fd(program);
    attr.info.info_len = u32::try_from(size_of::<bpf_prog_info>()).unwrap_or(u32::MAX);
    attr.info.info = &raw mut info as u64;
    call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info.verified_insns)
}

/// Attaches a loaded program to a cgroup as a link, beside whatever else is there.
///
/// # Errors
/// `bpf(2)` `BPF_LINK_CREATE`: EINVAL where the kernel lacks the hook, EPERM where another program allows none beside it.
pub fn link_cgroup(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.link_create.__bindgen_anon_1.prog_fd = fd(program);
    attr.link_create.__bindgen_anon_2.target_fd = fd(cgroup);
    attr.link_create.attach_type = attach_type;
    owned(call(bpf_cmd::BPF_LINK_CREATE, &mut attr)?)
}

/// Pins an object in a BPF file system.
///
/// # Errors
/// `bpf(2)` `BPF_OBJ_PIN`.
pub fn pin(object: BorrowedFd<'_>, path: &std::path::Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attr.__bindgen_anon_4.bpf_fd = fd(object);
    call(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Opens a pinned object.
///
/// # Errors
/// `bpf(2)` `BPF_OBJ_GET`.
pub fn open_pin(path: &std::path::Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    owned(call(bpf_cmd::BPF_OBJ_GET, &mut attr)?)
}

fn c_path(path: &std::path::Path) -> io::Result<std::ffi::CString> {
    use std::os::unix::ffi::OsStrExt as _;
    Ok(std::ffi::CString::new(path.as_os_str().as_bytes())?)
}

/// A descriptor that a call returned.
pub(super) fn owned(fd: i64) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Number of CPUs that a per-CPU map has values for.
///
/// # Errors
/// Reading or parsing `/sys/devices/system/cpu/possible`.
pub fn possible_cpus() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let count = |part: &str| -> Option<usize> {
        match part.split_once('-') {
            Some((first, last)) => Some(last.parse::<usize>().ok()? - first.parse::<usize>().ok()? + 1),
            None => part.parse::<usize>().ok().map(|_| 1),
        }
    };
    text.trim()
        .split(',')
        .map(count)
        .sum::<Option<usize>>()
        .ok_or_else(|| io::Error::other(format!("cannot read the list of CPUs {text:?}")))
}

pub(super) fn zeroed() -> bpf_attr {
    // SAFETY: a union of plain data; the kernel demands that unused bytes are zero.
    unsafe { std::mem::zeroed() }
}

pub(super) fn fd(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

pub(super) fn call(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: the attributes are a whole `bpf_attr`; its pointers lead to buffers that the callers own.
    let result = unsafe { libc::syscall(libc::SYS_bpf, cmd as libc::c_long, attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
