//! The contract: what the kernel programs and userspace both hold to be true.
//!
//! `no_std`, no allocation, no system call. Receives plain values, gives verdicts and table layouts.
//! Nothing here may know of a kernel, a file or a clock; [`decide()`] is the only place where a verdict is made.
#![no_std]

pub mod address;
pub mod counter;
pub mod decide;
pub mod event;
pub mod lsm;
pub mod names;
pub mod question;
pub mod rule;

pub use address::Address;
pub use counter::Counters;
pub use decide::{Decision, Flow, Peer, Reason, Tables, Verdict, decide, decide_inbound};
pub use event::{Escape, Event, Hook, Owner, Tag};
pub use question::{Arrival, Asker, AskerKey, Listener, ListenerKey, Servers};
pub use rule::{
    Caller, Class, Network, NetworkKey, Permit, PermitKey, PortKey, PortRule, RuleId, Scope, Span, Transport,
};
