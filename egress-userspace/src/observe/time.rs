//! Wall time in text.

use std::mem::MaybeUninit;

const NANOS: u64 = 1_000_000_000;
const DAY: u64 = 86_400;

/// `2026-11-22T10:36:58.123456789Z` from nanoseconds since the Unix epoch.
pub fn rfc3339(nanos: u64) -> String {
    let seconds = nanos / NANOS;
    let (year, month, day) = date(seconds / DAY);
    let (hour, minute, second) = clock(seconds % DAY);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", nanos % NANOS)
}

/// `12:34:56.789` at an offset from UTC in seconds.
pub fn time_of_day(nanos: u64, offset: i64) -> String {
    let seconds = (nanos / NANOS).saturating_add_signed(offset);
    let (hour, minute, second) = clock(seconds % DAY);
    format!("{hour:02}:{minute:02}:{second:02}.{:03}", nanos % NANOS / 1_000_000)
}

/// The local zone's offset from UTC in seconds at a time in nanoseconds; 0 if the system does not know it.
pub fn local_offset(nanos: u64) -> i64 {
    let Ok(seconds) = libc::time_t::try_from(nanos / NANOS) else { return 0 };
    let mut broken_down = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both pointers are valid for the call.
    let filled = unsafe { libc::localtime_r(&raw const seconds, broken_down.as_mut_ptr()) };
    if filled.is_null() {
        return 0;
    }
    // SAFETY: a non-null result says that the structure was filled.
    unsafe { broken_down.assume_init() }.tm_gmtoff
}

fn clock(seconds: u64) -> (u64, u64, u64) {
    (seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Year, month and day of a day since 1970-01-01, counting years from March, so that the leap day comes last.
fn date(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let days = days + 719_468;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_the_calendar() {
        // Expected values from date(1). Mutation seen to fail here: 36_524 as 36_525.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000000000Z"),
            (1_798_761_600, "2027-01-01T00:00:00.000000000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(seconds * NANOS), text);
        }
        assert_eq!(rfc3339(1_999_999_999), "1970-01-01T00:00:01.999999999Z");
    }

    #[test]
    fn the_time_of_day_goes_with_the_zone() {
        let nanos = 1_798_761_600 * NANOS + 789_999_999;
        assert_eq!(time_of_day(nanos, 0), "00:00:00.789");
        assert_eq!(time_of_day(nanos, -3600), "23:00:00.789");
        assert_eq!(time_of_day(nanos, 5 * 3600 + 1800), "05:30:00.789");
        assert!(local_offset(nanos).abs() <= 14 * 3600);
    }
}
