//! Loads the programs and their maps, once for any number of scopes.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Map, MapData, MapError, RingBuf},
    programs::{Program, ProgramError},
};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::chroot,
};

use super::{EnforceError, KernelProgram, object::OBJECT, raw, sys};

/// Sizes of the tables.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most permits (address × port block × transport) of all scopes.
    pub permits: u32,
    /// Most networks of all policies.
    pub networks: u32,
    /// Most port blocks of all policies.
    pub ports: u32,
    /// Bytes of the event ring; a power of two, at least a page.
    pub ring: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { permits: 131_072, networks: 65_536, ports: 262_144, ring: 1 << 20 }
    }
}

/// What a kernel offers to programs, as the verifier shows.
#[derive(Clone, Copy)]
struct Offers {
    typed_errno: bool,
    current: bool,
}

/// The loaded programs and maps. Dropping it detaches nothing that is pinned.
pub struct Engine {
    pub(super) ebpf: Ebpf,
    pub(super) cpus: usize,
    /// The programs that the library cannot load.
    raw: Vec<(KernelProgram, OwnedFd)>,
    /// Whether `bpf_set_retval` gives refused socket kinds an errno of their own.
    pub typed_errno: bool,
}

impl Engine {
    /// Loads maps and programs.
    ///
    /// # Errors
    /// [`EnforceError`]; nothing stays in the kernel then.
    pub fn load(limits: &Limits) -> Result<Self, EnforceError> {
        Self::load_programs(limits, &KernelProgram::ALL)
    }

    /// Loads maps and some of the programs; the rest of them cannot be attached.
    ///
    /// # Errors
    /// [`EnforceError`]; nothing stays in the kernel then.
    pub fn load_programs(limits: &Limits, programs: &[KernelProgram]) -> Result<Self, EnforceError> {
        raise_memlock();
        let mut offers = Offers { typed_errno: true, current: true };
        loop {
            let error = match Self::try_load(limits, programs, offers) {
                Err(error) => error,
                loaded => return loaded,
            };
            let EnforceError::Verifier { program, .. } = &error else { return Err(error) };
            let is = |known: KernelProgram| program == known.name();
            if offers.typed_errno && is(KernelProgram::Create) {
                // Before 5.18 there is no bpf_set_retval: the program gets EPERM instead of EPROTONOSUPPORT.
                offers.typed_errno = false;
            } else if offers.current && (is(KernelProgram::Sysctl) || is(KernelProgram::Device)) {
                offers.current = false;
            } else {
                return Err(error);
            }
        }
    }

    fn try_load(limits: &Limits, programs: &[KernelProgram], offers: Offers) -> Result<Self, EnforceError> {
        let typed_errno = offers.typed_errno;
        let (set_retval, current) = (u8::from(typed_errno), u8::from(offers.current));
        let mut ebpf = loader()
            .override_global("SET_RETVAL", &set_retval, true)
            .override_global("CURRENT_KNOWN", &current, true)
            .map_max_entries("PERMITS", limits.permits)
            .map_max_entries("NETWORKS", limits.networks)
            .map_max_entries("PORTS", limits.ports)
            .map_max_entries("EVENTS", limits.ring)
            .load(OBJECT)
            .map_err(load_error)?;
        for &program in programs.iter().filter(|program| !program.is_raw()) {
            load_program(&mut ebpf, program)?;
        }
        let raw: Vec<_> = programs.iter().copied().filter(|program| program.is_raw()).collect();
        let raw = if raw.is_empty() { Vec::new() } else { raw::load(&ebpf, &raw)? };
        tracing::debug!(programs = programs.len(), typed_errno, "loaded the kernel side");
        let cpus = sys::possible_cpus().map_err(|error| EnforceError::other("count CPUs", error))?;
        Ok(Self { ebpf, cpus, raw, typed_errno })
    }

    /// The events. Can be taken once.
    ///
    /// # Errors
    /// If taken before, or the ring cannot be mapped.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>, EnforceError> {
        self.take_ring("EVENTS", "open the event ring")
    }

    /// The questions that come from network namespaces without a listener ([`egress_common::Arrival`]). Can be taken once.
    ///
    /// # Errors
    /// If taken before, or the ring cannot be mapped.
    pub fn take_arrivals(&mut self) -> Result<RingBuf<MapData>, EnforceError> {
        self.take_ring("ARRIVALS", "open the ring of arriving questions")
    }

    fn take_ring(&mut self, name: &str, operation: &'static str) -> Result<RingBuf<MapData>, EnforceError> {
        let map = self.ebpf.take_map(name).ok_or_else(|| EnforceError::other(operation, "it is in use"))?;
        RingBuf::try_from(map).map_err(|error| EnforceError::other(operation, error))
    }

    /// Whether the program is loaded. One that is not [`KernelProgram::required`] may be missing from this kernel.
    pub fn has(&self, program: KernelProgram) -> bool {
        self.program_fd(program).is_ok()
    }

    /// A program loaded by the library, for measurements.
    pub fn program(&self, program: KernelProgram) -> Option<&Program> {
        self.ebpf.program(program.name())
    }

    /// A loaded program.
    ///
    /// # Errors
    /// If it is not loaded.
    pub fn program_fd(&self, program: KernelProgram) -> Result<BorrowedFd<'_>, EnforceError> {
        if let Some((_, loaded)) = self.raw.iter().find(|(raw, _)| *raw == program) {
            return Ok(loaded.as_fd());
        }
        let loaded = self.program(program);
        let missing = || EnforceError::other("find a loaded program", program.name());
        loaded.and_then(|program| program.fd().ok()).map(AsFd::as_fd).ok_or_else(missing)
    }

    pub(super) fn map(&self, name: &str) -> Result<BorrowedFd<'_>, EnforceError> {
        let map = self.ebpf.map(name);
        match map {
            Some(
                Map::HashMap(data)
                | Map::LruHashMap(data)
                | Map::LpmTrie(data)
                | Map::CgroupStorage(data)
                | Map::PerCpuCgroupStorage(data)
                | Map::Array(data)
                | Map::PerCpuArray(data)
                | Map::RingBuf(data)
                | Map::SkStorage(data),
            ) => Ok(data.fd().as_fd()),
            _ => Err(EnforceError::other("find a map", name)),
        }
    }
}

/// A loader without the kernel's own type information. The programs read no kernel structures, and reading it is half of
/// the start-up time and memory; but the library does so whenever a loader is made, before it can be told. So it is made
/// by a thread for which there are no files; this process itself is left as it is.
fn loader<'a>() -> EbpfLoader<'a> {
    let without_files = || {
        // If it cannot be, the start takes longer. Nothing is to be found below a process's own directory.
        let _slower = unshare(CloneFlags::CLONE_FS).and_then(|()| chroot("/proc/self"));
        EbpfLoader::new()
    };
    let made = thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, without_files).ok()?;
        thread.join().ok()
    });
    let mut loader = made.unwrap_or_default();
    loader.btf(None);
    loader
}

fn load_program(ebpf: &mut Ebpf, program: KernelProgram) -> Result<(), EnforceError> {
    let missing = || EnforceError::other("find a program in the embedded object", program.name());
    let result = match ebpf.program_mut(program.name()).ok_or_else(missing)? {
        Program::CgroupSkb(loaded) => loaded.load(),
        Program::CgroupSock(loaded) => loaded.load(),
        Program::CgroupSockAddr(loaded) => loaded.load(),
        Program::CgroupSockopt(loaded) => loaded.load(),
        Program::CgroupSysctl(loaded) => loaded.load(),
        Program::CgroupDevice(loaded) => loaded.load(),
        _ => return Err(missing()),
    };
    result.map_err(|error| match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            verifier_error(program, io_error, &verifier_log.to_string())
        }
        ProgramError::SyscallError(error) => verifier_error(program, error.io_error, ""),
        error => EnforceError::other("load a program", error),
    })
}

pub(super) fn verifier_error(program: KernelProgram, reason: io::Error, log: &str) -> EnforceError {
    match reason.raw_os_error() {
        Some(libc::EPERM) if log.is_empty() => EnforceError::NotPermitted,
        // An attach type that the kernel does not know is refused before the verifier has said a word.
        Some(libc::EINVAL) if log.is_empty() => EnforceError::MissingHook { program, source: reason },
        _ => {
            let lines: Vec<&str> = log.lines().collect();
            let log = lines[lines.len().saturating_sub(12)..].join("\n");
            EnforceError::Verifier { program: program.name().to_owned(), reason, log }
        }
    }
}

fn load_error(error: EbpfError) -> EnforceError {
    let io_error = match error {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) => io_error,
        EbpfError::MapError(MapError::SyscallError(error)) => error.io_error,
        EbpfError::BtfError(error) => return EnforceError::other("load type information", error),
        error => return EnforceError::other("load the kernel side", error),
    };
    match io_error.raw_os_error() {
        Some(libc::EPERM) => EnforceError::NotPermitted,
        Some(libc::ENOSYS | libc::EINVAL) => EnforceError::NoBpf(io_error),
        _ => EnforceError::other("create the kernel's tables", io_error),
    }
}

/// Kernels before 5.11 charge maps and programs to this limit.
fn raise_memlock() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a valid structure; on failure the old limit stays and the load says what is missing.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}
