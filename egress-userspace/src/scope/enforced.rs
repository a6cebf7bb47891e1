//! A scope from its cgroup to its policy: closed when made, proven closed, then opened as far as the policy says.

use egress_common::{Counters, Scope, lsm::LsmCounters};

use super::cgroup::{Cgroup, CgroupError, Places};
use crate::{
    compile::Compiled,
    enforce::{
        Attachment, EnforceError, Engine, KernelProgram, Limits, Lsm, LsmHook, LsmStatus, Place, depth,
        self_test,
    },
    policy::Restriction,
};

/// The one slot and epoch of a scope that has its tables to itself.
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
        let none = Err(LsmStatus::Absent("it was not asked for".to_owned()));
        let mut scope = match attached {
            Ok(attachment) => Self { engine, attachment, lsm: none, cgroup, unix: UnixHooks::default() },
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
            scope.lsm = scope.attach_lsm(hooks)?;
        }
        Ok(scope)
    }

    fn attach_lsm(&self, hooks: &[LsmHook]) -> Result<Result<Lsm, LsmStatus>, ScopeError> {
        let level = depth(self.cgroup.path())
            .map_err(|error| EnforceError::other("find the depth of the cgroup", error))?;
        let procs = self.cgroup.procs()?;
        let place = Place { id: self.cgroup.id(), level, procs: &procs, pins: self.cgroup.pins() };
        let lsm = Lsm::attach(&self.engine, place, hooks);
        if let Err(why) = &lsm {
            tracing::debug!(?why, "no LSM layer");
        }
        Ok(lsm)
    }

    /// Writes the policy and puts it into force in one write. `dns_port` is the first port of the scope's DNS listeners; 0
    /// closes DNS.
    ///
    /// # Errors
    /// [`EnforceError`]; the scope stays closed.
    pub fn open(&self, compiled: &Compiled, dns_port: u16) -> Result<(), EnforceError> {
        self.open_permitting(compiled, dns_port, &[])
    }

    /// As [`EnforcedScope::open`], with some restrictions lifted where the LSM layer makes them.
    ///
    /// # Errors
    /// [`EnforceError`]; the scope stays closed.
    pub fn open_permitting(
        &self,
        compiled: &Compiled,
        dns_port: u16,
        permitted: &[Restriction],
    ) -> Result<(), EnforceError> {
        self.engine.write_slot(SLOT, compiled)?;
        let state = Scope {
            slot: SLOT,
            epoch: EPOCH,
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
            pad: 0,
        };
        if let Ok(lsm) = &self.lsm {
            lsm.open(&self.engine, &state, compiled, permitted)?;
        }
        self.engine.set_scope(self.cgroup.id(), &state)?;
        self.attachment.verify()
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
