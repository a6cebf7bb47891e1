//! The BPF LSM layer of a scope, on kernels where such programs load and run: neither is taken for granted, nor is one taken
//! for the other. What this layer closes is closed for tasks that are in the scope, whoever started them.

mod btf;
mod hook;
mod names;
mod program;

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use egress_common::{
    Reason, Scope, Verdict,
    lsm::{Facts, LsmCounters, Offsets, State, Unix as UnixSetting},
};
use nix::{
    sys::wait::waitpid,
    unistd::{ForkResult, fork},
};

pub use hook::LsmHook;

use super::{EnforceError, Engine, sys};
use crate::{compile::Compiled, policy::Restriction, policy::Unix};

/// What there is of the LSM layer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LsmStatus {
    /// These hooks work: programs were loaded and attached, and were seen to run.
    Active(Vec<LsmHook>),
    /// The kernel refuses such programs with this errno.
    Refused(i32),
    /// Programs were loaded and attached, but never ran: `bpf` is not among the active LSMs.
    NoEffect,
    /// The kernel has no BPF LSM, or no type information that tells where to attach it.
    Absent(String),
}

/// The LSM programs of one scope, attached and pinned. Pins outlive this value and the process.
#[derive(Debug)]
pub struct Lsm {
    links: Vec<(LsmHook, OwnedFd)>,
    directory: PathBuf,
}

/// Where a scope is.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Id of its cgroup.
    pub id: u64,
    /// Depth of its cgroup below the root.
    pub level: u8,
    /// Its `cgroup.procs`.
    pub procs: &'a File,
    /// Directory for pins.
    pub pins: &'a Path,
}

impl Lsm {
    /// Attaches `hooks` for the scope at `place`, proves that programs run, and pins their links. Until [`Lsm::open`]
    /// everything is refused that can be.
    ///
    /// Must be called while the process has one thread.
    ///
    /// # Errors
    /// Why there is no such layer; nothing stays attached or pinned then.
    pub fn attach(engine: &Engine, place: Place<'_>, hooks: &[LsmHook]) -> Result<Self, LsmStatus> {
        if let Some(error) = program::refusal() {
            return Err(refused(&error));
        }
        let (functions, offsets) = found()?;
        let facts = Facts { scope: place.id, level: place.level.into(), pad: 0, offsets };
        let unprepared = |error: EnforceError| LsmStatus::Absent(error.to_string());
        let programs = program::Programs::prepare(engine, &facts).map_err(unprepared)?;
        let mut lsm = Self { links: Vec::new(), directory: place.pins.to_owned() };
        for &hook in hooks {
            let function = functions[hook as usize];
            if function == 0 {
                tracing::debug!(hook = hook.name(), "this kernel has no such LSM hook");
                continue;
            }
            let program = programs.load(hook.program(), function).map_err(|error| refused(&error))?;
            let link = program::attach(program.as_fd()).map_err(|error| refused(&error))?;
            lsm.links.push((hook, link));
        }
        lsm.prove(engine, place.procs)?;
        lsm.pin().map_err(|error| {
            remove_lsm_pins(place.pins);
            refused(&error)
        })?;
        tracing::debug!(hooks = lsm.links.len(), "the LSM layer is attached and was seen to work");
        Ok(lsm)
    }

    /// Has a process inside do what one of the hooks refuses, and looks whether the hook's program has counted it.
    fn prove(&self, engine: &Engine, procs: &File) -> Result<(), LsmStatus> {
        let broken = |error: EnforceError| LsmStatus::Absent(error.to_string());
        let (attempt, reason): (fn() -> i32, Reason) = match self.links.first() {
            None => return Err(LsmStatus::Absent("it has none of the hooks".to_owned())),
            Some(_) if self.has(LsmHook::SocketCreate) => (make_socket, Reason::Family),
            Some(_) if self.has(LsmHook::Bpf) => (call_bpf, Reason::Bpf),
            // A part of the layer, for a measurement: nothing to prove it by.
            Some(_) => return Ok(()),
        };
        // Without a rate, so that the attempt is counted and not told.
        let silent = State { scope: Scope { slot: 1, ..Scope::ZERO }, ..State::ZERO };
        set_state(engine, &silent).map_err(broken)?;
        let joined = in_scope(procs, attempt).map_err(|error| LsmStatus::Absent(error.to_string()))?;
        let counted = counters(engine).map_err(broken)?.count(Verdict::Deny, reason);
        reset(engine).map_err(broken)?;
        if joined && counted > 0 { Ok(()) } else { Err(LsmStatus::NoEffect) }
    }

    fn pin(&self) -> io::Result<()> {
        self.links
            .iter()
            .try_for_each(|(hook, link)| sys::pin(link.as_fd(), &self.directory.join(hook.program())))
    }

    /// Whether the kernel still shows each link as one of an LSM program.
    pub fn is_healthy(&self) -> bool {
        self.links.iter().all(|(_, link)| program::is_lsm_link(link.as_fd()).unwrap_or(false))
    }

    /// What it is.
    pub fn status(&self) -> LsmStatus {
        LsmStatus::Active(self.links.iter().map(|(hook, _)| *hook).collect())
    }

    /// Whether a hook is among those attached.
    pub fn has(&self, hook: LsmHook) -> bool {
        self.links.iter().any(|(attached, _)| *attached == hook)
    }

    /// Whether it judges every unix socket, so that no other layer has to.
    pub fn judges_unix(&self) -> bool {
        self.has(LsmHook::UnixStreamConnect) && self.has(LsmHook::UnixMaySend)
    }

    /// Writes the rules about unix sockets, and the scope's state in one write.
    ///
    /// # Errors
    /// [`EnforceError`]; the layer goes on refusing.
    pub fn open(
        &self,
        engine: &Engine,
        scope: &Scope,
        compiled: &Compiled,
        permitted: &[Restriction],
    ) -> Result<(), EnforceError> {
        write_names(engine, compiled)?;
        set_state(engine, &state_of(scope, compiled, permitted))
    }

    /// As [`Lsm::open`], of another policy in the place of one in force. Where rules about unix sockets change, all unix
    /// sockets are closed for the moment in which the tables hold parts of both.
    ///
    /// # Errors
    /// [`EnforceError`]; unix sockets stay closed.
    pub fn replace(
        &self,
        engine: &Engine,
        scope: &Scope,
        (old, new): (&Compiled, &Compiled),
        permitted: &[Restriction],
    ) -> Result<(), EnforceError> {
        let state = state_of(scope, new, permitted);
        if old.unix_rules != new.unix_rules {
            set_state(engine, &State { unix: UnixSetting::None as u8, ..state })?;
            remove_names(engine, old)?;
            write_names(engine, new)?;
        }
        set_state(engine, &state)
    }

    /// The counters, summed over the CPUs.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn counters(&self, engine: &Engine) -> Result<LsmCounters, EnforceError> {
        counters(engine)
    }
}

/// Removes the pins of the LSM programs of a scope; whatever is gone already is fine.
pub(super) fn remove_lsm_pins(directory: &Path) {
    for hook in LsmHook::ALL {
        let _gone = std::fs::remove_file(directory.join(hook.program()));
    }
}

/// Depth of a cgroup below the root of its hierarchy.
///
/// # Errors
/// If the file system cannot be asked.
pub fn depth(path: &Path) -> io::Result<u8> {
    use std::os::unix::fs::MetadataExt as _;
    let device = std::fs::metadata(path)?.dev();
    let same = |path: &&Path| std::fs::metadata(path).is_ok_and(|metadata| metadata.dev() == device);
    let above = path.ancestors().skip(1).take_while(same).count();
    u8::try_from(above).map_err(io::Error::other)
}

const fn bit(restriction: Restriction) -> u32 {
    match restriction {
        Restriction::Families => State::FAMILIES,
        Restriction::Netlink => State::NETLINK,
        Restriction::Ptrace => State::PTRACE,
        Restriction::Signals => State::SIGNALS,
        Restriction::Bpf => State::BPF,
        _ => 0,
    }
}

fn refused(error: &io::Error) -> LsmStatus {
    LsmStatus::Refused(error.raw_os_error().unwrap_or(0))
}

/// What the running kernel's type information says: ids of the hooks' functions, and where fields are.
fn found() -> Result<([u32; LsmHook::ALL.len()], Offsets), LsmStatus> {
    let info = btf::TypeInfo::read().map_err(|error| {
        LsmStatus::Absent(format!("the kernel's type information cannot be read: {error}"))
    })?;
    let functions = info.hooks();
    let offsets =
        offsets(&info).map_err(|field| LsmStatus::Absent(format!("this kernel has no field {field}")))?;
    Ok((functions, offsets))
}

fn offsets(info: &btf::TypeInfo) -> Result<Offsets, &'static str> {
    Ok(Offsets {
        socket_sk: info.offset("socket.sk")?,
        socket_file: info.offset("socket.file")?,
        sock_family: info.offset("sock.__sk_common.skc_family")?,
        sock_cgroup: info.offset("sock.sk_cgrp_data.cgroup")?,
        unix_sock_addr: info.offset("unix_sock.addr")?,
        unix_address_len: info.offset("unix_address.len")?,
        unix_address_name: info.offset("unix_address.name")?,
        file_inode: info.offset("file.f_inode")?,
        file_private: info.offset("file.private_data")?,
        file_dentry: info.offset("file.f_path.dentry")?,
        dentry_name: info.offset("dentry.d_name.name")?,
        inode_sb: info.offset("inode.i_sb")?,
        inode_private: info.offset("inode.i_private")?,
        super_magic: info.offset("super_block.s_magic")?,
        task_cgroups: info.offset("task_struct.cgroups")?,
        task_tgid: info.offset("task_struct.tgid")?,
        css_set_cgroup: info.offset("css_set.dfl_cgrp")?,
        cgroup_level: info.offset("cgroup.level")?,
        cgroup_ancestors: info.offset("cgroup.ancestors")?,
        cgroup_node: info.offset("cgroup.kn")?,
        node_id: info.offset("kernfs_node.id")?,
        node_name: info.offset("kernfs_node.name")?,
    })
}

fn state_of(scope: &Scope, compiled: &Compiled, permitted: &[Restriction]) -> State {
    let unix = match compiled.unix {
        Unix::Own => UnixSetting::Own,
        Unix::Any => UnixSetting::Any,
        Unix::None => UnixSetting::None,
    };
    let lifted = permitted.iter().map(|restriction| bit(*restriction)).fold(0, |all, bit| all | bit);
    State { scope: *scope, lifted, unix: unix as u8, pad: [0; 3] }
}

fn write_names(engine: &Engine, compiled: &Compiled) -> Result<(), EnforceError> {
    let names = names::names(&compiled.unix_rules);
    for (table, entries) in [("UNIX_NAMES", &names.exact), ("UNIX_PREFIXES", &names.prefixes)] {
        let map = engine.map(table)?;
        for (name, rule) in entries {
            sys::map_update(map, name, rule, sys::ANY)
                .map_err(|error| EnforceError::other("write the table of unix sockets", error))?;
        }
    }
    Ok(())
}

fn remove_names(engine: &Engine, compiled: &Compiled) -> Result<(), EnforceError> {
    let names = names::names(&compiled.unix_rules);
    for (table, entries) in [("UNIX_NAMES", &names.exact), ("UNIX_PREFIXES", &names.prefixes)] {
        let map = engine.map(table)?;
        for name in entries.keys() {
            sys::map_delete(map, name)
                .map_err(|error| EnforceError::other("write the table of unix sockets", error))?;
        }
    }
    Ok(())
}

fn set_state(engine: &Engine, state: &State) -> Result<(), EnforceError> {
    sys::map_update(engine.map("LSM_STATE")?, &0_u32, state, sys::ANY)
        .map_err(|error| EnforceError::other("write the LSM layer's state", error))
}

fn counters(engine: &Engine) -> Result<LsmCounters, EnforceError> {
    let map = engine.map("LSM_COUNTERS")?;
    let values: Vec<LsmCounters> = sys::map_lookup_per_cpu(map, &0_u32, engine.cpus)
        .map_err(|error| EnforceError::other("read the LSM layer's counters", error))?;
    let mut sum = LsmCounters::ZERO;
    for value in &values {
        sum.add(value);
    }
    Ok(sum)
}

fn reset(engine: &Engine) -> Result<(), EnforceError> {
    let map = engine.map("LSM_COUNTERS")?;
    sys::map_update_per_cpu(map, &0_u32, &LsmCounters::ZERO, engine.cpus)
        .map_err(|error| EnforceError::other("reset the LSM layer's counters", error))?;
    set_state(engine, &State::ZERO)
}

/// Runs an attempt in a child inside the scope; whether it got so far.
fn in_scope(procs: &File, attempt: fn() -> i32) -> io::Result<bool> {
    // SAFETY: the process has one thread, so the child may do whatever the parent could.
    match unsafe { fork() }? {
        ForkResult::Child => {
            // SAFETY: an open descriptor and one byte; then the child ends without running the parent's destructors.
            unsafe {
                let joined = libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) == 1;
                if joined {
                    attempt();
                }
                libc::_exit(i32::from(!joined))
            }
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None)?;
            Ok(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)))
        }
    }
}

fn make_socket() -> i32 {
    // SAFETY: plain numbers. What is made ends with the process.
    unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }
}

fn call_bpf() -> i32 {
    i32::from(sys::call(aya_obj::generated::bpf_cmd::BPF_MAP_CREATE, &mut sys::zeroed()).is_ok())
}
