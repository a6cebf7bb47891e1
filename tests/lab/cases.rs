//! A case: steps to perform, and where on the wire it would show that they got out.

use std::net::IpAddr;

use egress_common::{Hook, Reason, Verdict};

use crate::{
    network::{Lab, reached},
    sniffer::Frame,
};

/// What on the far end of the wire proves that an attempt got out.
#[derive(Clone, Copy, Debug)]
pub enum Proof {
    /// Any packet to this address.
    To(IpAddr),
    /// Any packet from this address.
    From(IpAddr),
    /// Any packet that carries this text.
    Carries(&'static str),
    /// Any packet of this protocol to this address.
    Protocol(u8, IpAddr),
    /// Any IPv4 packet with options to this address.
    Options(IpAddr),
}

impl Proof {
    /// Whether the frames hold it.
    pub fn in_frames(&self, frames: &[Frame]) -> bool {
        match *self {
            Self::To(address) => reached(frames, address),
            Self::From(address) => frames.iter().any(|frame| frame.from == address),
            Self::Carries(text) => frames.iter().any(|frame| frame.carries(text)),
            Self::Protocol(protocol, address) => {
                frames.iter().any(|frame| frame.protocol == protocol && frame.to == address)
            }
            Self::Options(address) => frames
                .iter()
                .any(|frame| frame.to == address && frame.bytes[0] >> 4 == 4 && frame.bytes[0] != 0x45),
        }
    }
}

/// An event as a case expects it.
pub type Told = (Verdict, Hook, Reason);

/// The event of a denial.
pub const fn denied(hook: Hook, reason: Reason) -> Told {
    (Verdict::Deny, hook, reason)
}

/// The event of an attempt that a rule allowed.
pub const fn allowed(hook: Hook) -> Told {
    (Verdict::Allow, hook, Reason::Rule)
}

/// A forbidden attempt.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The way out, in words.
    pub name: &'static str,
    /// The steps of the contained program.
    pub steps: &'static [&'static str],
    /// What must be on the wire without enforcement and must not with it.
    pub proof: Proof,
    /// The step that must fail and its errno; `None` if all succeed and yet nothing gets out.
    pub refusal: Option<(&'static str, i32)>,
    /// The events, in order; the last one may come more than once where `repeats`.
    pub told: &'static [Told],
    /// The kernel tries again by itself (a TCP segment that was refused).
    pub repeats: bool,
}

/// A case that one hook refuses at one step, with one event.
pub const fn case(
    name: &'static str,
    steps: &'static [&'static str],
    proof: Proof,
    refusal: (&'static str, i32),
    told: &'static [Told],
) -> Case {
    Case { name, steps, proof, refusal: Some(refusal), told, repeats: false }
}

/// An attempt that must succeed under enforcement.
#[derive(Clone, Copy, Debug)]
pub struct Honest {
    /// What it is, in words.
    pub name: &'static str,
    /// The steps of the contained program.
    pub steps: &'static [&'static str],
    /// The text that must arrive; empty if nothing at all may be on the wire.
    pub arrives: &'static str,
    /// The events, in order.
    pub told: &'static [Told],
}

/// An honest attempt.
pub const fn honest(
    name: &'static str,
    steps: &'static [&'static str],
    arrives: &'static str,
    told: &'static [Told],
) -> Honest {
    Honest { name, steps, arrives, told }
}

impl Case {
    /// Without enforcement the attempt must get out: a case that cannot fail is none.
    pub fn control(&self, lab: &Lab) -> Result<(), String> {
        lab.forget();
        let outcome = crate::Attempt::new(self.steps).run(lab, None);
        let frames = lab.frames();
        if self.proof.in_frames(&frames) {
            return Ok(());
        }
        let seen: Vec<_> = frames.iter().map(|frame| (frame.protocol, frame.to)).collect();
        Err(format!("{}: nothing got out even without enforcement: {outcome:?}; seen: {seen:?}", self.name))
    }
}
