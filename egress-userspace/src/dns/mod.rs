//! From a policy's names to permits: system settings and hosts file -> resolver -> permits with an expiry.
//!
//! Opens nothing itself: what it learns goes into a [`permit::PermitTable`], and only for names that the policy lists.

pub mod answer;
mod batch;
pub mod cache;
pub mod clock;
pub mod filter;
#[doc(hidden)]
pub mod fuzzing;
pub mod guard;
pub mod hosts;
pub mod listener;
pub mod message;
pub mod names;
pub mod outcome;
pub mod permit;
pub mod reply;
pub mod service;
mod service_binding;
mod sockets;
pub mod special;
pub mod system;
#[cfg(test)]
mod testing;
pub mod told;
pub mod upstream;

/// A name as policies and tables have it: ASCII lower case, no trailing dot.
pub(crate) fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}
