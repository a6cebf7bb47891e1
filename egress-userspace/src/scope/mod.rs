//! Scopes: the cgroup that a policy applies to, and the commands that run inside.

pub mod addresses;
pub mod cgroup;
pub mod confine;

pub mod enforced;
mod held;
pub mod identity;
pub mod keeper;
pub mod launch;
pub mod limits;
pub mod live;
pub mod lookout;
mod namespace;
mod questions;
mod replace;
mod ring;
pub mod run;
pub mod signals;
pub mod unix;
