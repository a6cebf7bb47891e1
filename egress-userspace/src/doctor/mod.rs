//! What this machine can enforce, found out by doing it: receives a policy, gives a [`Report`]. Leaves nothing behind.

pub mod effects;
mod json;
mod text;

use std::{collections::BTreeMap, io};

use nix::unistd::geteuid;

use crate::{
    enforce::{EnforceError, KernelProgram, Limits},
    paths::{Capabilities, Hook, LsmStatus, PATHS, Path, State},
    policy::{Policy, Require},
    scope::{
        cgroup::Places,
        confine::{
            plan::{Plan, Situation},
            probe::{self, Abilities},
        },
        enforced::{EnforcedScope, ScopeError},
        identity::Identity,
        run::RunError,
    },
};

use effects::Effect;

/// What was found out.
#[derive(Clone, Debug)]
pub struct Report {
    /// Release of the kernel.
    pub kernel: String,
    /// Architecture.
    pub machine: String,
    /// Who commands run as.
    pub user: String,
    /// The programs of the kernel side, in the order in which they are attached.
    pub hooks: Vec<HookReport>,
    /// What can be taken away at launch.
    pub abilities: Abilities,
    /// Version of Landlock; 0 if there is none.
    pub landlock_abi: u32,
    /// What there is to close paths with.
    pub capabilities: Capabilities,
    /// Every path and what becomes of it, in the order of the table.
    pub paths: Vec<(&'static Path, State)>,
    /// Name of the policy.
    pub policy: String,
    /// What it requires.
    pub require: Require,
}

/// One program of the kernel side.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HookReport {
    /// Its name.
    pub name: &'static str,
    /// The hook, as the kernel's documentation writes it.
    pub kernel_name: &'static str,
    /// Whether a scope is not attached at all without it.
    pub required: bool,
    /// What became of it.
    pub state: Hook,
    /// Whether an attempt was refused; `None` for a hook of which none can be made alone.
    pub refused: Option<bool>,
}

impl HookReport {
    fn of(program: KernelProgram, state: Hook, refused: Option<bool>) -> Self {
        let (name, kernel_name, required) = (program.name(), program.kernel_name(), program.required());
        Self { name, kernel_name, required, state, refused }
    }
}

impl Report {
    /// Whether everything that the policy requires is there.
    pub fn is_enough(&self) -> bool {
        let hooks = self.hooks.iter().all(|hook| hook.state == Hook::Active || !hook.required);
        hooks && (self.require == Require::Kernel || self.open().next().is_none())
    }

    /// The paths that stay open, in the order of the table.
    pub fn open(&self) -> impl Iterator<Item = (&'static Path, &str)> {
        self.paths.iter().filter_map(|(path, state)| match state {
            State::Open(why) => Some((*path, why.as_str())),
            State::Closed(_) | State::ByPolicy(_) | State::Beyond => None,
        })
    }
}

/// Looks, for commands of this user under this policy. Must be called while the process has one thread.
///
/// # Errors
/// [`RunError`], where a scope cannot even be made.
pub fn examine(policy: &Policy, user: Option<&str>) -> Result<Report, RunError> {
    if !geteuid().is_root() {
        return Err(RunError::NotRoot);
    }
    let identity = Identity::find(user)?;
    let abilities = probe::abilities().map_err(failed("try out what can be taken away at launch"))?;
    let places = Places::find()?;
    let (hooks, lsm) = hooks(&places)?;
    let states = hooks.iter().map(|hook| (hook.name.to_owned(), hook.state.clone())).collect();
    let plan = Plan::new(&situation(&abilities, &identity, policy, &states, &lsm));
    let capabilities = Capabilities { hooks: states, lsm, ..Capabilities::default() }.with_plan(&plan);
    let name =
        nix::sys::utsname::uname().map_err(|error| failed("ask for the kernel's name")(error.into()))?;
    Ok(Report {
        kernel: name.release().to_string_lossy().into_owned(),
        machine: name.machine().to_string_lossy().into_owned(),
        user: identity.label(),
        hooks,
        abilities,
        landlock_abi: landlock_abi(),
        paths: PATHS.iter().map(|path| (path, path.state(&capabilities, policy))).collect(),
        capabilities,
        policy: policy.name.clone(),
        require: policy.require,
    })
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::Io { operation, source }
}

fn situation(
    abilities: &Abilities,
    identity: &Identity,
    policy: &Policy,
    hooks: &BTreeMap<String, Hook>,
    lsm: &LsmStatus,
) -> Situation {
    let active = |name: &str| hooks.get(name) == Some(&Hook::Active);
    let judges = |hook: &str| matches!(lsm, LsmStatus::Active(hooks) if hooks.contains(hook));
    let lsm_unix = judges("unix_stream_connect") && judges("unix_may_send");
    let unix_hooks = active("connect_unix") && active("sendmsg_unix");
    Situation {
        abilities: *abilities,
        root: identity.uid.is_root(),
        lsm: judges("ptrace_access_check"),
        unix_judged: lsm_unix || unix_hooks,
        broker: !lsm_unix && unix_hooks,
        unix: policy.unix,
        audit: false,
        option: [].into(),
        policy: policy.permits.clone(),
    }
}

/// Tables are made and not filled.
const SMALL: Limits = Limits { permits: 64, networks: 64, ports: 64, ring: 1 << 16 };

fn run_name(what: &str) -> String {
    format!("doctor-{}-{what}", std::process::id())
}

/// All programs at once, as a run has them; where that fails, each alone, so that every missing one is named.
fn hooks(places: &Places) -> Result<(Vec<HookReport>, LsmStatus), RunError> {
    let scope = match EnforcedScope::close(places, &run_name("all"), &SMALL) {
        Ok(scope) => scope,
        Err(
            error @ (ScopeError::Cgroup(_)
            | ScopeError::Enforce(EnforceError::NotPermitted | EnforceError::NoBpf(_))),
        ) => {
            return Err(error.into());
        }
        Err(all) => {
            let each = KernelProgram::ALL.map(|program| alone(places, program)).to_vec();
            // Each is there, and together they are not: that is the answer.
            let missing = each.iter().any(|hook| hook.state != Hook::Active);
            return if missing { Ok((each, LsmStatus::default())) } else { Err(all.into()) };
        }
    };
    let procs = scope.cgroup().procs()?;
    let effects = effects::probe(&procs).map_err(failed("make attempts inside a closed scope"))?;
    Ok((of_scope(&scope, &effects), LsmStatus::of(scope.lsm())))
}

fn of_scope(scope: &EnforcedScope, effects: &[(&'static str, Effect)]) -> Vec<HookReport> {
    let health = scope.attachment().health();
    let report = |program: KernelProgram| {
        let attached = health.iter().any(|link| link.program == program && link.healthy);
        let effect = effects.iter().find(|(name, _)| *name == program.name()).map(|(_, effect)| *effect);
        let state = match (attached, effect) {
            (false, _) => Hook::Missing("this kernel has none".to_owned()),
            (true, Some(Effect::LetThrough)) => {
                Hook::Missing("it is attached, and an attempt was let through".to_owned())
            }
            (true, _) => Hook::Active,
        };
        let refused = match effect {
            Some(Effect::Refused) => Some(true),
            Some(Effect::LetThrough) => Some(false),
            Some(Effect::Unknown) => None,
            // The self-test of every closed scope has passed.
            None => SELF_TESTED.contains(&program.name()).then_some(true),
        };
        HookReport::of(program, state, refused)
    };
    KernelProgram::ALL.map(report).to_vec()
}

/// What the self-test of a closed scope makes attempts at.
const SELF_TESTED: [&str; 6] = ["packet", "create", "connect4", "connect6", "sendmsg4", "sendmsg6"];

fn alone(places: &Places, program: KernelProgram) -> HookReport {
    let scope = EnforcedScope::close_with(places, &run_name(program.name()), &SMALL, &[program]);
    let state = scope.map_or_else(|error| Hook::Missing(error.to_string()), |_| Hook::Active);
    HookReport::of(program, state, None)
}

/// `LANDLOCK_CREATE_RULESET_VERSION`
const VERSION: u32 = 1;

fn landlock_abi() -> u32 {
    let none = std::ptr::null::<u8>();
    // SAFETY: with this flag the call takes no structure and gives a number.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, VERSION) };
    u32::try_from(version).unwrap_or(0)
}

#[cfg(test)]
mod tests;
