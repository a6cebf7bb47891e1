//! Puts compiled rules into force: loads the programs, attaches them to a cgroup, fills their tables, and proves by
//! effect that they work. Knows the contract and compiled rules, nothing of files, names or processes to run.

mod attach;
mod engine;
mod error;
#[cfg(feature = "kernel-log")]
pub mod kernel_log;
mod lsm;
pub(crate) mod netlink;
mod object;
mod program;
mod raw;
mod selftest;
pub mod sock_diag;
pub mod sys;
mod tables;
mod tags;

pub use attach::{Attachment, LinkHealth, pins_are_dead, remove_pins};
pub use engine::{Engine, Limits};
pub use error::EnforceError;
pub use lsm::{Lsm, LsmHook, LsmStatus, Place, depth};
pub use object::COMPILER;
pub use program::KernelProgram;
pub use selftest::self_test;
pub use tables::{Askers, Permits, TableError};
