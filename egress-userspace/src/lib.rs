//! Userspace of `egress`: from a policy file to filled kernel tables, and from kernel events to lines.
//!
//! `policy` and `compile` know nothing of kernels; `enforce` and `observe` know only the contract
//! ([`egress_common`]) and the compiled rules; only `scope` and the command line know all.

pub mod attack;
pub mod cli;
pub mod compile;
pub mod dns;
pub mod doctor;
pub mod enforce;
pub mod explain;
pub mod observe;
pub mod paths;
pub mod policy;
pub mod scope;
pub mod why;
