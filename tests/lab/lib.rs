//! The lab: two network namespaces without a way out, servers that record what reaches them, and programs that try.
//!
//! Verdicts are judged at the far end of the wire ([`sniffer`]), never by what a client says.

pub mod attempt;
pub mod cases;
pub mod cgroup;
pub mod dns;
pub mod ears;
pub mod foreign;
pub mod judge;
pub mod message;
pub mod names;
pub mod namespace;
pub mod network;
pub mod policies;
pub mod programs;
pub mod rows;
pub mod run;
pub mod scope;
pub mod servers;
pub mod site;
pub mod sniffer;
pub mod ssh;
pub mod zone;

pub use attempt::{Attempt, Outcome};
pub use cases::{Case, Proof};
pub use cgroup::Cgroup;
pub use names::Names;
pub use namespace::Namespace;
pub use network::Lab;
pub use servers::Servers;

/// Fails the test if it does not run as root: it could prove nothing.
pub fn require_root() {
    assert!(nix::unistd::geteuid().is_root(), "kernel tests need root: namespaces, cgroups and BPF");
}
