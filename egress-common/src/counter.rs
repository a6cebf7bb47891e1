//! Exact accounting, per CPU and scope (per-CPU cgroup-local storage).
//!
//! Law: for each verdict, the sum of `attempts` is `emitted` + `suppressed` + `dropped`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Hook, Reason, Verdict};

/// Length of the window of [`crate::Scope::event_rate`], in nanoseconds.
pub const WINDOW_NS: u64 = 100_000_000;

/// What became of the events of one verdict.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Fate {
    /// Written to the ring buffer.
    pub emitted: u64,
    /// Not written: over the rate, or a repetition of an allowed flow.
    pub suppressed: u64,
    /// Lost: the ring buffer was full.
    pub dropped: u64,
    /// Start of the current window (`CLOCK_BOOTTIME` ns). Not a counter.
    pub window_start: u64,
    /// Events emitted in it. Not a counter.
    pub window_used: u64,
}

/// One CPU's counters of one scope.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counters {
    /// Attempts by verdict, hook and reason.
    pub attempts: [[[u64; Reason::COUNT]; Hook::COUNT]; Verdict::COUNT],
    /// Fate of their events by verdict.
    pub fate: [Fate; Verdict::COUNT],
}

impl Counters {
    /// All zero.
    pub const ZERO: Self = Self {
        attempts: [[[0; Reason::COUNT]; Hook::COUNT]; Verdict::COUNT],
        fate: [Fate { emitted: 0, suppressed: 0, dropped: 0, window_start: 0, window_used: 0 };
            Verdict::COUNT],
    };

    /// Adds another CPU's counters.
    pub fn add(&mut self, other: &Self) {
        let mine = self.attempts.as_flattened_mut().as_flattened_mut();
        for (mine, theirs) in mine.iter_mut().zip(other.attempts.as_flattened().as_flattened()) {
            *mine += theirs;
        }
        for (mine, theirs) in self.fate.iter_mut().zip(&other.fate) {
            mine.emitted += theirs.emitted;
            mine.suppressed += theirs.suppressed;
            mine.dropped += theirs.dropped;
        }
    }

    /// Attempts of one verdict over all hooks and reasons.
    pub fn total(&self, verdict: Verdict) -> u64 {
        self.attempts[verdict as usize].as_flattened().iter().sum()
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::ZERO
    }
}
