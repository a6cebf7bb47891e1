//! The clock by which the kernel judges expiry: `CLOCK_BOOTTIME`, which goes on while the machine sleeps.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A source of `CLOCK_BOOTTIME`, so that tests can have their own.
pub trait Clock {
    /// Nanoseconds since boot.
    fn now(&self) -> u64;
}

/// The kernel's.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> u64 {
        read(ClockId::CLOCK_BOOTTIME)
    }
}

/// A span as the clock counts.
pub(crate) fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds from `CLOCK_BOOTTIME`'s zero to the Unix epoch's clock: add it to an event's time to get wall time.
pub fn wall_offset() -> u64 {
    read(ClockId::CLOCK_REALTIME).saturating_sub(BootClock.now())
}

fn read(clock: ClockId) -> u64 {
    // Neither clock can fail on a kernel that has BPF; 0 would only make every permit expire at once.
    clock_gettime(clock).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_plus_offset_is_wall_time() {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let ours = Duration::from_nanos(BootClock.now() + wall_offset());
        assert!(ours.abs_diff(wall).as_secs() < 5, "{ours:?} against {wall:?}");
    }
}
