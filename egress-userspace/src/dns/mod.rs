//! From a policy's names to permits: system settings and hosts file -> resolver -> permits with an expiry.
//!
//! Opens nothing itself: what it learns goes into a [`permit::PermitTable`], and only for names that the policy lists.

pub mod clock;
pub mod hosts;
pub mod names;
pub mod outcome;
pub mod permit;
pub mod resolver;
pub mod special;
pub mod system;
pub mod told;
mod wire;

/// A name as policies and tables have it: ASCII lower case, no trailing dot.
pub(crate) fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}
