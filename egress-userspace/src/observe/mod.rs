//! From kernel events to lines: bytes -> [`record::Record`], questions -> [`question::Question`] -> sinks
//! ([`text`], [`json`]) and a [`summary`].
//!
//! Judges nothing. Everything that the agent chose (thread name, executable, names) is escaped before it is shown.

pub mod detail;
pub mod escape;
pub mod fold;
pub mod json;
pub mod option;
pub mod question;
pub mod record;
pub mod sink;
pub mod summary;
pub mod text;
pub mod time;
