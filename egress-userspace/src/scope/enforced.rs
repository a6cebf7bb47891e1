//! A scope from its cgroup to its policy: closed when made, proven closed, then opened as far as the policy says.

use std::{fs::File, path::Path};

use egress_common::{Counters, Scope, lsm::LsmCounters};

use super::{
    cgroup::{Cgroup, CgroupError, Places},
    live::{self, Destroyed, Standard, Tell},
    replace,
};
use crate::{
    compile::{Compiled, memory::MemoryTables},
    enforce::{
        self, Attachment, EnforceError, Engine, KernelProgram, Limits, Lsm, LsmHook, LsmStatus, Place, depth,
        self_test,
    },
    paths::{self, Capabilities, OpenPath},
    policy::{Policy, Restriction},
};

/// The first slot and epoch of a scope that has its tables to itself; each policy after has the next, so that nothing of an
/// older one is ever taken for one of a newer.
pub const SLOT: u32 = 1;
const EPOCH: u32 = 1;

/// Events a CPU may emit in each tenth of a second for each verdict.
const EVENT_RATE: u32 = 500;

/// Why a scope is not enforced. Nothing is left attached, pinned or made.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// The cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The kernel side.
    #[error(transparent)]
    Enforce(#[from] EnforceError),
}

/// A cgroup with the programs attached. Removed when dropped, unless processes live inside: then it stays enforced.
pub struct EnforcedScope {
    /// Maps and programs.
    pub engine: Engine,
    attachment: Attachment,
    lsm: Result<Lsm, LsmStatus>,
    cgroup: Cgroup,
    unix: UnixHooks,
    in_force: Option<InForce>,
}

/// A policy in force.
pub(super) struct InForce {
    pub(super) compiled: Compiled,
    pub(super) state: Scope,
    /// Restrictions that are lifted where the LSM layer makes them.
    pub(super) permitted: Vec<Restriction>,
}

/// What the unix hooks let pass once the policy is in force.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum UnixHooks {
    /// Everything: the policy says so, or another layer judges.
    #[default]
    Open,
    /// Nothing.
    Closed,
    /// What this process asks for.
    Broker(u32),
}

impl EnforcedScope {
    /// Makes the cgroup, attaches and pins the programs, verifies where each link is, and has attempts refused inside.
    /// The scope refuses everything until [`EnforcedScope::open`].
    ///
    /// Must be called while the process has one thread.
    ///
    /// # Errors
    /// [`ScopeError`].
    pub fn close(places: &Places, run: &str, limits: &Limits) -> Result<Self, ScopeError> {
        Self::close_parts(places, run, limits, &KernelProgram::ALL, &LsmHook::ALL)
    }

    /// As [`EnforcedScope::close`] with some of the programs only and without the self-test, which would fail: to
    /// measure what each program is for.
    ///
    /// # Errors
    /// [`ScopeError`].
    pub fn close_with(
        places: &Places,
        run: &str,
        limits: &Limits,
        programs: &[KernelProgram],
    ) -> Result<Self, ScopeError> {
        Self::close_parts(places, run, limits, programs, &[])
    }

    /// As [`EnforcedScope::close_with`], with some of the hooks of the LSM layer.
    ///
    /// # Errors
    /// [`ScopeError`]; that there is no LSM layer is none: see [`EnforcedScope::lsm`].
    pub fn close_parts(
        places: &Places,
        run: &str,
        limits: &Limits,
        programs: &[KernelProgram],
        hooks: &[LsmHook],
    ) -> Result<Self, ScopeError> {
        let engine = Engine::load_programs(limits, programs)?;
        let cgroup = Cgroup::create(places, run)?;
        let attached = engine.attach(programs, cgroup.fd(), cgroup.id(), cgroup.path(), cgroup.pins());
        let mut scope = match attached {
            Ok(attachment) => Self::around(engine, attachment, cgroup),
            Err(error) => {
                cgroup.remove_if_empty();
                return Err(error.into());
            }
        };
        if programs == KernelProgram::ALL {
            self_test(&scope.cgroup.procs()?)?;
            scope.engine.reset_counters(scope.cgroup.id())?;
            tracing::debug!(cgroup = scope.cgroup.id(), "the closed scope refused the self-test");
        }
        if !hooks.is_empty() {
            scope.lsm = scope.attach_lsm(&scope.cgroup.procs()?, hooks)?;
        }
        Ok(scope)
    }

    fn around(engine: Engine, attachment: Attachment, cgroup: Cgroup) -> Self {
        let lsm = Err(LsmStatus::Absent("it was not asked for".to_owned()));
        Self { engine, attachment, lsm, cgroup, unix: UnixHooks::default(), in_force: None }
    }

    fn attach_lsm(&self, procs: &File, hooks: &[LsmHook]) -> Result<Result<Lsm, LsmStatus>, EnforceError> {
        let level = depth(self.cgroup.path())
            .map_err(|error| EnforceError::other("find the depth of the cgroup", error))?;
        let place = Place { id: self.cgroup.id(), level, procs, pins: self.cgroup.pins() };
        let lsm = Lsm::attach(&self.engine, place, hooks);
        if let Err(why) = &lsm {
            tracing::debug!(?why, "no LSM layer");
        }
        Ok(lsm)
    }

    /// Attaches the programs to a cgroup that is somebody else's and in which processes run already, pins them in `pins`,
    /// verifies where each link is, and has attempts refused inside. From then on the scope refuses everything until
    /// [`EnforcedScope::open_live`]. The cgroup is never removed, and stays enforced until [`EnforcedScope::detach`].
    ///
    /// Must be called while the process has one thread.
    ///
    /// # Errors
    /// [`ScopeError`]; of the root cgroup and of those that others than root can write, too.
    pub fn attach_live(directory: &Path, pins: &Path, limits: &Limits) -> Result<Self, ScopeError> {
        let programs = &KernelProgram::ALL;
        let engine = Engine::load_programs(limits, programs)?;
        let cgroup = Cgroup::adopt(directory, pins)?;
        let attached = engine.attach(programs, cgroup.fd(), cgroup.id(), cgroup.path(), cgroup.pins());
        let attachment = attached.inspect_err(|_| cgroup.release())?;
        let mut scope = Self::around(engine, attachment, cgroup);
        match scope.prove_live() {
            Ok(lsm) => {
                scope.lsm = lsm;
                Ok(scope)
            }
            Err(error) => {
                scope.detach();
                Err(error)
            }
        }
    }

    fn prove_live(&self) -> Result<Result<Lsm, LsmStatus>, ScopeError> {
        let proven = self.cgroup.with_test_cgroup(|procs| {
            self_test(procs)?;
            self.attach_lsm(procs, &LsmHook::ALL)
        })?;
        Ok(proven?)
    }

    /// Writes the policy and puts it into force in one write. `dns_port` is the first port of the scope's DNS listeners; 0
    /// closes DNS.
    ///
    /// # Errors
    /// [`EnforceError`]; the scope stays closed.
    pub fn open(&mut self, compiled: &Compiled, dns_port: u16) -> Result<(), EnforceError> {
        self.open_permitting(compiled, dns_port, &[])
    }

    /// As [`EnforcedScope::open`], with some restrictions lifted where the LSM layer makes them.
    ///
    /// # Errors
    /// [`EnforceError`]; the scope stays closed.
    pub fn open_permitting(
        &mut self,
        compiled: &Compiled,
        dns_port: u16,
        permitted: &[Restriction],
    ) -> Result<(), EnforceError> {
        self.engine.write_slot(SLOT, compiled)?;
        let state = self.state(compiled, (SLOT, EPOCH), dns_port);
        if let Ok(lsm) = &self.lsm {
            lsm.open(&self.engine, &state, compiled, permitted)?;
        }
        self.engine.set_scope(self.cgroup.id(), &state)?;
        self.in_force = Some(InForce { compiled: compiled.clone(), state, permitted: permitted.to_vec() });
        self.attachment.verify()
    }

    /// As [`EnforcedScope::open`] for a scope in which processes run already: their sockets from outside the scope are
    /// silenced before, and their flows that do not fit are destroyed after.
    ///
    /// # Errors
    /// [`EnforceError`]; the scope stays closed.
    pub fn open_live(
        &mut self,
        compiled: &Compiled,
        dns_port: u16,
        tell: Tell<'_>,
    ) -> Result<Destroyed, EnforceError> {
        let mut found = Destroyed::default();
        live::settle(&self.engine, &self.cgroup, compiled.audit, &mut found, tell);
        self.open(compiled, dns_port)?;
        let tables = MemoryTables::new(compiled);
        let standard = Standard { tables: &tables, dns_port, epoch: EPOCH, replaced: None, before: false };
        live::cut(&self.engine, &self.cgroup, &standard, &mut found, tell);
        Ok(found)
    }

    /// Puts another policy in the place of the one in force: in one write, so that every attempt is judged by the one or the
    /// other. Flows that still fit go on; those that do not are destroyed, and told of.
    ///
    /// Names whose rule stays as it is keep their addresses; answers from now on belong into [`EnforcedScope::slot`].
    ///
    /// # Errors
    /// [`EnforceError`]; if the tables have no room for both, the policy in force stays, entire.
    pub fn replace(&mut self, compiled: &Compiled, tell: Tell<'_>) -> Result<Destroyed, EnforceError> {
        let Some(old) = self.in_force.as_ref() else {
            return Err(EnforceError::other("replace the policy", "none is in force"));
        };
        let state = self.state(compiled, (old.state.slot + 1, old.state.epoch + 1), old.state.dns_port);
        let new = InForce { compiled: compiled.clone(), state, permitted: old.permitted.clone() };
        let found = replace::replace(self, old, &new, tell);
        if found.is_ok() {
            self.in_force = Some(new);
        }
        let found = found?;
        self.attachment.verify()?;
        Ok(found)
    }

    fn state(&self, compiled: &Compiled, (slot, epoch): (u32, u32), dns_port: u16) -> Scope {
        Scope {
            slot,
            epoch,
            cgroup: self.cgroup.id(),
            audit: u8::from(compiled.audit),
            blocks: u8::from(compiled.needs_blocks()),
            dns_port,
            event_rate: EVENT_RATE,
            inbound: compiled.inbound,
            broker: if let UnixHooks::Broker(process) = self.unix { process } else { 0 },
            level: 0,
            own: u8::from(compiled.own),
            unix_open: u8::from(self.unix == UnixHooks::Open),
            icmp: u8::from(compiled.icmp),
            broadcast: u8::from(compiled.broadcast),
            pad: [0; 3],
        }
    }

    /// The ways out that stay open under a policy, the worst first: what only a launch or BPF LSM could close.
    pub fn open_paths(&self, policy: &Policy) -> Vec<OpenPath> {
        let links = Capabilities::default().with_links(&self.attachment.health());
        paths::open(&links.with_lsm(self.lsm()), policy)
    }

    /// The slot of the policy in force; 0 if there is none.
    pub fn slot(&self) -> u32 {
        self.in_force.as_ref().map_or(0, |in_force| in_force.state.slot)
    }

    /// Takes the programs off the cgroup: what runs inside is no longer bounded.
    pub fn detach(self) {
        enforce::remove_pins(self.cgroup.pins());
    }

    /// Says what the unix hooks let pass from [`EnforcedScope::open`] on.
    pub fn set_unix(&mut self, unix: UnixHooks) {
        self.unix = unix;
    }

    /// Whether this kernel's unix hooks are all in place.
    pub fn has_unix_hooks(&self) -> bool {
        [KernelProgram::ConnectUnix, KernelProgram::SendmsgUnix, KernelProgram::GetsocknameUnix]
            .into_iter()
            .all(|program| self.engine.has(program))
    }

    /// Its cgroup.
    pub const fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Its links.
    pub const fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Its LSM layer, or why it has none.
    pub const fn lsm(&self) -> Result<&Lsm, &LsmStatus> {
        self.lsm.as_ref()
    }

    /// Whether its LSM layer judges every unix socket, so that no other layer has to.
    pub fn lsm_judges_unix(&self) -> bool {
        self.lsm.as_ref().is_ok_and(Lsm::judges_unix)
    }

    /// Counters of its LSM layer; all zero if it has none.
    ///
    /// # Errors
    /// [`EnforceError`].
    pub fn lsm_counters(&self) -> Result<LsmCounters, EnforceError> {
        self.lsm.as_ref().map_or(Ok(LsmCounters::ZERO), |lsm| lsm.counters(&self.engine))
    }

    /// Its counters.
    ///
    /// # Errors
    /// [`EnforceError`].
    pub fn counters(&self) -> Result<Counters, EnforceError> {
        self.engine.counters(self.cgroup.id())
    }
}

impl Drop for EnforcedScope {
    fn drop(&mut self) {
        self.cgroup.remove_if_empty();
    }
}
