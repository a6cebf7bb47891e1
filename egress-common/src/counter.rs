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

impl Fate {
    /// All zero.
    pub const ZERO: Self = Self { emitted: 0, suppressed: 0, dropped: 0, window_start: 0, window_used: 0 };
}

/// One CPU's counters of one scope.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counters {
    /// Attempts by verdict, hook and column of the reason. The whole must fit a page, which is the most that Linux 5.10
    /// gives one value of this kind of map: see [`Counters::column`].
    pub attempts: [[[u64; Self::COLUMNS]; Self::HOOKS]; Verdict::COUNT],
    /// Fate of their events by verdict.
    pub fate: [Fate; Verdict::COUNT],
}

impl Counters {
    /// The hooks that count here: those of the scope's cgroup, which come first.
    pub const HOOKS: usize = Hook::Lsm as usize;

    /// A column for each reason up to this one, which are about destinations, and one for what is a hook's own reason.
    pub const COLUMNS: usize = Reason::Inbound as usize + 2;

    /// All zero.
    pub const ZERO: Self = Self {
        attempts: [[[0; Self::COLUMNS]; Self::HOOKS]; Verdict::COUNT],
        fate: [Fate::ZERO; Verdict::COUNT],
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

    /// The column that counts a reason.
    #[inline(always)]
    pub const fn column(reason: Reason) -> usize {
        let (column, last) = (reason as usize, Self::COLUMNS - 1);
        if column < last { column } else { last }
    }

    /// Attempts that came to one decision.
    pub fn count(&self, verdict: Verdict, hook: Hook, reason: Reason) -> u64 {
        let own = match hook {
            Hook::Setsockopt => Some(Reason::SocketOption),
            Hook::Unix => Some(Reason::Unix),
            Hook::Sysctl => Some(Reason::Sysctl),
            Hook::Device => Some(Reason::Device),
            _ => None,
        };
        let column = Self::column(reason);
        if column == Self::COLUMNS - 1 && own != Some(reason) {
            return 0;
        }
        self.attempts[verdict as usize].get(hook as usize).map_or(0, |hook| hook[column])
    }

    /// Attempts of one verdict over all hooks and reasons.
    pub fn total(&self, verdict: Verdict) -> u64 {
        self.attempts[verdict as usize].as_flattened().iter().sum()
    }
}

const _: () = assert!(size_of::<Counters>() <= 4096);

impl Default for Counters {
    fn default() -> Self {
        Self::ZERO
    }
}
