//! Sizes and times as people say them.

use cluster_types::Timestamp;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
const MONTH: u64 = 30 * DAY;
const YEAR: u64 = 12 * MONTH;
/// From here on nobody counts years.
const LONG: u64 = 37 * YEAR;

/// Names of powers of 1000.
const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// A number of bytes in the largest unit that leaves something before the point.
pub(crate) fn bytes(count: u64) -> String {
    if count < 10 {
        return format!("{count} B");
    }
    let power = (count.ilog10() / 3) as usize;
    // Tenths of the unit, rounded: exact where floating point is not.
    let unit = 1000_u128.pow(u32::try_from(power).unwrap_or(0));
    let tenths = (u128::from(count) * 10 + unit / 2) / unit;
    let name = UNITS.get(power).copied().unwrap_or("EB");
    if power > 0 && tenths < 100 {
        return format!("{}.{} {name}", tenths / 10, tenths % 10);
    }
    format!("{} {name}", (tenths + 5) / 10)
}

/// Where `then` lies as seen from `now`.
pub(crate) fn relative(then: Timestamp, now: Timestamp) -> String {
    let (distance, direction) = if then > now { (then.since(now), "from now") } else { (now.since(then), "ago") };
    let seconds = distance.as_secs();
    let text = match seconds {
        0 => return "now".to_owned(),
        1 => "1 second".to_owned(),
        _ if seconds < MINUTE => format!("{seconds} seconds"),
        _ if seconds < 2 * MINUTE => "1 minute".to_owned(),
        _ if seconds < HOUR => format!("{} minutes", seconds / MINUTE),
        _ if seconds < 2 * HOUR => "1 hour".to_owned(),
        _ if seconds < DAY => format!("{} hours", seconds / HOUR),
        _ if seconds < 2 * DAY => "1 day".to_owned(),
        _ if seconds < WEEK => format!("{} days", seconds / DAY),
        _ if seconds < 2 * WEEK => "1 week".to_owned(),
        _ if seconds < MONTH => format!("{} weeks", seconds / WEEK),
        _ if seconds < 2 * MONTH => "1 month".to_owned(),
        _ if seconds < YEAR => format!("{} months", seconds / MONTH),
        _ if seconds < 18 * MONTH => "1 year".to_owned(),
        _ if seconds < 2 * YEAR => "2 years".to_owned(),
        _ if seconds < LONG => format!("{} years", seconds / YEAR),
        _ => "a long while".to_owned(),
    };
    format!("{text} {direction}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sizes_have_two_digits_and_a_unit() {
        let cases = [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_500_000_000, "1.5 GB"),
            (83_000_000, "83 MB"),
            (82_854_982, "83 MB"),
            (123_000_000_000, "123 GB"),
            (u64::MAX, "18 EB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times_are_told_in_the_largest_unit_that_fits() {
        let now = Timestamp::from_unix_seconds(10_000_000_000);
        let cases = [
            (0, "now"),
            (1, "1 second"),
            (25, "25 seconds"),
            (60, "1 minute"),
            (150, "2 minutes"),
            (HOUR, "1 hour"),
            (5 * HOUR, "5 hours"),
            (DAY, "1 day"),
            (3 * DAY, "3 days"),
            (WEEK, "1 week"),
            (20 * DAY, "2 weeks"),
            (MONTH, "1 month"),
            (70 * DAY, "2 months"),
            (YEAR, "1 year"),
            (19 * MONTH, "2 years"),
            (5 * YEAR, "5 years"),
            (LONG, "a long while"),
        ];
        for (seconds, text) in cases {
            let past = Timestamp::from_unix_seconds(10_000_000_000 - i64::try_from(seconds).unwrap());
            let future = now.saturating_add(Duration::from_secs(seconds));
            if seconds == 0 {
                assert_eq!(relative(now, now), text);
            } else {
                assert_eq!(relative(past, now), format!("{text} ago"));
                assert_eq!(relative(future, now), format!("{text} from now"));
            }
        }
    }
}
