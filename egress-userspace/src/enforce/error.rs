//! Why enforcement could not be put into force. Whatever it is, nothing stays attached or pinned.

use std::{io, path::PathBuf};

use super::{KernelProgram, TableError};

/// Enforcement is not on, and why.
#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    /// Not root, or root without the capabilities.
    #[error("loading eBPF programs is not permitted (CAP_BPF and CAP_NET_ADMIN are needed): run as root")]
    NotPermitted,
    /// The kernel has no eBPF, or it is switched off.
    #[error("this kernel has no usable eBPF ({0}): it needs CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF")]
    NoBpf(io::Error),
    /// A hook is missing from this kernel.
    #[error(
        "this kernel has no {} hook ({source}): without it `egress` would leave a path open, so it does not start; \
         Linux 5.10 and later with CONFIG_CGROUP_BPF have it", program.kernel_name()
    )]
    MissingHook {
        /// The program without a place.
        program: KernelProgram,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The verifier refused a program.
    #[error("the kernel's verifier refused program {program}: {reason}\n{log}")]
    Verifier {
        /// Name of the program.
        program: String,
        /// The system call's error.
        reason: io::Error,
        /// End of the verifier's log.
        log: String,
    },
    /// A program that allows no others sits on the cgroup or above it.
    #[error(
        "a foreign eBPF program refuses ours at {} of {}: program {programs} was attached there without \
         BPF_F_ALLOW_MULTI, so nothing can be attached below; see `bpftool cgroup show {}`, and have its owner \
         attach it with ALLOW_MULTI or by a link", .program.kernel_name(), .cgroup.display(), .cgroup.display()
    )]
    ForeignProgram {
        /// What could not be attached.
        program: KernelProgram,
        /// Where the foreign program sits.
        cgroup: PathBuf,
        /// Its ids.
        programs: String,
    },
    /// The kernel refused the attach for another reason.
    #[error("cannot attach {} to {}: {reason}", .program.kernel_name(), .cgroup.display())]
    Attach {
        /// What could not be attached.
        program: KernelProgram,
        /// Where.
        cgroup: PathBuf,
        /// Why.
        reason: String,
    },
    /// After the attach, the kernel does not show the link where it should be.
    #[error(
        "{} was attached, but the kernel shows its link {found}, not on cgroup {expected}: not enforcing",
        .program.kernel_name()
    )]
    NotAttached {
        /// Which.
        program: KernelProgram,
        /// The cgroup id it should be on.
        expected: u64,
        /// What the kernel shows.
        found: String,
    },
    /// Pinning failed.
    #[error("cannot pin {} in {}: {source}", .program.name(), .directory.display())]
    Pin {
        /// Which.
        program: KernelProgram,
        /// Where.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The denied self-test was not denied.
    #[error(
        "self-test: {attempt} inside the closed scope was not refused ({outcome}): the programs are attached but \
         have no effect, so `egress` does not start"
    )]
    SelfTest {
        /// What was tried.
        attempt: &'static str,
        /// What happened.
        outcome: String,
    },
    /// A table could not be written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Anything else from the library or the kernel.
    #[error("cannot {operation}: {reason}")]
    Other {
        /// What was being done.
        operation: &'static str,
        /// Why not.
        reason: String,
    },
}

impl EnforceError {
    pub(crate) fn other(operation: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Other { operation, reason: reason.to_string() }
    }
}
