//! The clock by which the kernel judges expiry: `CLOCK_BOOTTIME`, which goes on while the machine sleeps.

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
        nanoseconds(ClockId::CLOCK_BOOTTIME)
    }
}

/// Nanoseconds from `CLOCK_BOOTTIME`'s zero to the Unix epoch's clock: add it to an event's time to get wall time.
pub fn wall_offset() -> u64 {
    nanoseconds(ClockId::CLOCK_REALTIME).saturating_sub(BootClock.now())
}

fn nanoseconds(clock: ClockId) -> u64 {
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
        let ours = std::time::Duration::from_nanos(BootClock.now() + wall_offset());
        assert!(ours.abs_diff(wall).as_secs() < 5, "{ours:?} against {wall:?}");
    }
}
