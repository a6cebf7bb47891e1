//! Exit codes of `egress run`, beside the command's own: one for each way not to run.

use crate::{
    enforce::EnforceError,
    scope::{
        cgroup::CgroupError, enforced::ScopeError, identity::IdentityError, launch::LaunchError,
        run::RunError,
    },
};

/// Wrong usage.
pub(super) const USAGE: u8 = 2;
/// Not started as root.
pub(super) const NOT_ROOT: u8 = 112;
/// No cgroup2, or none that is safe from the command.
pub(super) const NO_CGROUP: u8 = 113;
/// No usable eBPF, or no BPF file system.
pub(super) const NO_BPF: u8 = 114;
/// A hook is missing from this kernel.
pub(super) const MISSING_HOOK: u8 = 115;
/// A program of somebody else does not allow ours.
pub(super) const FOREIGN_PROGRAM: u8 = 116;
/// A table of the kernel is too small for the policy.
pub(super) const TABLE_FULL: u8 = 117;
/// The verifier refused a program.
pub(super) const VERIFIER: u8 = 118;
/// The policy cannot be read or has errors.
pub(super) const POLICY: u8 = 119;
/// Attached, but the kernel does not show it, or it has no effect.
pub(super) const NO_EFFECT: u8 = 120;
/// The user to run as is unknown.
pub(super) const NO_USER: u8 = 121;
/// A path stays open, and the policy requires that none does.
pub(super) const OPEN_PATHS: u8 = 122;
/// Anything else that `egress` itself failed at.
pub(super) const FAILED: u8 = 125;
/// The command cannot be executed.
pub(super) const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
pub(super) const NOT_FOUND: u8 = 127;

/// The exit code for a run that did not come about.
pub(super) const fn of_run_error(error: &RunError) -> u8 {
    match error {
        RunError::NotRoot => NOT_ROOT,
        RunError::OpenPaths(_) => OPEN_PATHS,
        RunError::Identity(IdentityError::NoSuchUser(_)) => NO_USER,
        RunError::Launch(LaunchError::NotFound(_)) => NOT_FOUND,
        RunError::Launch(LaunchError::NotExecutable { .. }) => NOT_EXECUTABLE,
        RunError::Scope(ScopeError::Cgroup(error)) => match error {
            CgroupError::NoBpffs { .. } => NO_BPF,
            CgroupError::NoCgroup2 | CgroupError::Delegated(_) | CgroupError::NoScope(_) => NO_CGROUP,
            CgroupError::Mounts(_) | CgroupError::Io { .. } => NO_CGROUP,
        },
        RunError::Scope(ScopeError::Enforce(error)) => of_enforce_error(error),
        RunError::Interrupted(signal) => 128 + *signal as u8,
        RunError::Identity(_) | RunError::Launch(_) | RunError::Lost { .. } | RunError::Io { .. } => FAILED,
    }
}

const fn of_enforce_error(error: &EnforceError) -> u8 {
    match error {
        EnforceError::NotPermitted => NOT_ROOT,
        EnforceError::NoBpf(_) => NO_BPF,
        EnforceError::MissingHook { .. } => MISSING_HOOK,
        EnforceError::ForeignProgram { .. } => FOREIGN_PROGRAM,
        EnforceError::Verifier { .. } => VERIFIER,
        EnforceError::Table(_) => TABLE_FULL,
        EnforceError::NotAttached { .. } | EnforceError::SelfTest { .. } => NO_EFFECT,
        EnforceError::Attach { .. } | EnforceError::Pin { .. } | EnforceError::Other { .. } => FAILED,
    }
}
