//! Instants and durations as the REST API and the configuration file write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The REST API's "no time": `0001-01-01T00:00:00Z`.
const ZERO_SECONDS: i64 = -62_135_596_800;

/// A text is not a time or a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TimeError {
    reason: String,
}

/// An instant, written in RFC 3339; the zero value means "none".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// "No time", written `0001-01-01T00:00:00Z`.
    pub const ZERO: Self = Self(jiff::Timestamp::constant(ZERO_SECONDS, 0));

    /// Whether this is "no time".
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    /// From seconds since the Unix epoch; out-of-range values become the nearest end.
    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self(jiff::Timestamp::from_second(seconds).unwrap_or(if seconds < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        }))
    }

    /// From nanoseconds since the Unix epoch; out-of-range values become the latest instant.
    pub fn from_unix_nanos(nanos: i128) -> Self {
        Self(jiff::Timestamp::from_nanosecond(nanos).unwrap_or(jiff::Timestamp::MAX))
    }

    /// From milliseconds since the Unix epoch; out-of-range values become the latest instant.
    pub fn from_unix_millis(millis: i64) -> Self {
        Self(jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX))
    }

    /// Seconds since the Unix epoch.
    pub fn unix_seconds(self) -> i64 {
        self.0.as_second()
    }

    /// Milliseconds since the Unix epoch.
    pub fn unix_millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// Nanoseconds since the Unix epoch, cut to what an `i64` holds.
    pub fn unix_nanos(self) -> i64 {
        i64::try_from(self.0.as_nanosecond()).unwrap_or(if self.0.as_second() < 0 { i64::MIN } else { i64::MAX })
    }

    /// The same instant without its fraction of a second.
    pub fn whole_seconds(self) -> Self {
        Self::from_unix_seconds(self.0.as_second())
    }

    /// The same instant in whole milliseconds.
    pub fn whole_millis(self) -> Self {
        Self::from_unix_millis(self.0.as_millisecond())
    }

    /// This instant and `duration` more, or the latest instant.
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self::from_unix_nanos(self.0.as_nanosecond() + i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX / 2))
    }

    /// How long after `earlier` this is; nothing if it is before.
    pub fn since(self, earlier: Self) -> Duration {
        let nanos = self.0.as_nanosecond() - earlier.0.as_nanosecond();
        u128::try_from(nanos)
            .map_or(Duration::ZERO, |nanos| Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// The wrapped instant, for formatting.
    pub fn inner(self) -> jiff::Timestamp {
        self.0
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        text.parse().map(Self).or_else(|error: jiff::Error| {
            if is_past_the_end(text) {
                Ok(Self(jiff::Timestamp::MAX))
            } else {
                Err(TimeError { reason: error.to_string() })
            }
        })
    }
}

/// Whether a text is an instant of the last two days of the year 9999, some of which the wrapped type does not hold: `9999-12-31T23:59:59Z`
/// is how many programs write "never".
fn is_past_the_end(text: &str) -> bool {
    jiff::fmt::temporal::Pieces::parse(text).is_ok_and(|pieces| {
        let date = pieces.date();
        let is_instant = pieces.time().is_some() && pieces.to_numeric_offset().is_some();
        is_instant && date.year() == 9999 && date.month() == 12 && date.day() >= 30
    })
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A duration as Go writes it: `1h0m0s`, `300ms`, `0s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GoDuration(pub Duration);

impl FromStr for GoDuration {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let fail = || TimeError { reason: format!("invalid duration {text:?}: write it like 1h30m, 15s or 300ms") };
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(Self(Duration::ZERO));
        }
        if rest.is_empty() {
            return Err(fail());
        }
        let mut nanos: f64 = 0.0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
            let (number, tail) = rest.split_at(digits);
            let number: f64 = number.parse().map_err(|_| fail())?;
            let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            nanos += number * unit_nanos(unit).ok_or_else(fail)?;
            rest = tail;
        }
        // Go keeps durations in an i64 of nanoseconds: some 292 years.
        if nanos > 9.2e18 {
            return Err(fail());
        }
        Duration::try_from_secs_f64(nanos / 1e9).map(Self).map_err(|_| fail())
    }
}

fn unit_nanos(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    })
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        if nanos < 1_000 {
            return write!(f, "{nanos}ns");
        }
        if nanos < 1_000_000 {
            return write!(f, "{}µs", fraction(nanos, 1_000));
        }
        if nanos < 1_000_000_000 {
            return write!(f, "{}ms", fraction(nanos, 1_000_000));
        }
        let seconds = self.0.as_secs();
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", fraction(nanos % 60_000_000_000, 1_000_000_000))
    }
}

/// `value / unit` in decimal, without trailing zeros.
fn fraction(value: u128, unit: u128) -> String {
    let rest = value % unit;
    if rest == 0 {
        return (value / unit).to_string();
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    format!("{}.{}", value / unit, digits.trim_end_matches('0'))
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_at_the_end_of_time_is_the_latest_there_is() {
        let latest = Timestamp(jiff::Timestamp::MAX);
        for never in ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999999+14:00", "9999-12-30T23:00:00Z"] {
            assert_eq!(never.parse(), Ok(latest), "{never}");
        }
        assert!("9999-12-30T21:59:59Z".parse::<Timestamp>().unwrap() < latest);
        assert_eq!(latest.to_string().parse(), Ok(latest));
        for bad in [
            "9999-12-32T00:00:00Z",
            "9999-12-31",
            "9999-12-31T23:59:59",
            "9999-12-31T25:00:00Z",
            "10000-01-01T00:00:00Z",
        ] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for text in ["1h0m0s", "2m0s", "300ms", "0s", "1.5s", "1h30m0.25s", "24h0m0s", "15s", "1µs", "7ns"] {
            let duration: GoDuration = text.parse().unwrap();
            assert_eq!(duration.to_string(), text);
        }
        assert_eq!("24h".parse::<GoDuration>().unwrap().0, Duration::from_secs(86_400));
        assert_eq!("1h30m".parse::<GoDuration>().unwrap().0, Duration::from_secs(5_400));
        for bad in ["", "5", "h", "1x", "-1s", "1h-", "99999999999999h", "1e3s", "NaNs", "é"] {
            assert!(bad.parse::<GoDuration>().is_err(), "{bad}");
        }
    }

    #[test]
    fn no_time_is_the_first_of_january_of_year_one() {
        assert_eq!(Timestamp::ZERO.to_string(), "0001-01-01T00:00:00Z");
        let parsed: Timestamp = "0001-01-01T00:00:00Z".parse().unwrap();
        assert!(parsed.is_zero());
    }

    #[test]
    fn zones_are_understood_and_written_in_utc() {
        let parsed: Timestamp = "2026-05-11T10:17:41.123456789+02:00".parse().unwrap();
        assert_eq!(parsed.to_string(), "2026-05-11T08:17:41.123456789Z");
        assert_eq!(parsed.whole_seconds().to_string(), "2026-05-11T08:17:41Z");
    }
}
