//! Reads a moment in the shapes in which programs write one.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// Numbers from here on count milliseconds: as seconds they would be after the year 5000.
const MILLIS_FROM: f64 = 1e11;

/// Returns seconds since 1970 for a number of seconds or milliseconds, or for ISO 8601 with or
/// without a zone; without one it is UTC, as Python's `utcnow` and most databases mean it.
pub(super) fn parse(text: &str) -> Option<u64> {
    if let Ok(number) = text.parse::<f64>() {
        let seconds = if number.abs() >= MILLIS_FROM { number / 1000.0 } else { number };
        // Also refuses what is no number at all, and what no calendar has.
        return (0.0..MILLIS_FROM).contains(&seconds).then_some(seconds as u64);
    }
    let timestamp = match text.parse::<Timestamp>() {
        Ok(timestamp) => timestamp,
        Err(_) => text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp(),
    };
    u64::try_from(timestamp.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-20 00:00 UTC.
    const DAY: u64 = 1_795_132_800;

    #[test]
    fn a_moment_is_read_in_every_usual_shape() {
        for text in [
            "1795132800",
            "1795132800.75",
            "1795132800000",
            "1.7951328e9",
            "2026-11-20",
            "2026-11-20T00:00:00",
            "2026-11-20 00:00:00.123456",
            "2026-11-20T00:00:00Z",
            "2026-11-20T00:00:00.5+00:00",
            "2026-11-20 01:30:00+01:30",
            "2026-11-20 00:00:00+00",
            "20261120T000000Z",
        ] {
            assert_eq!(parse(text), Some(DAY), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for text in [
            "",
            "soon",
            "-1",
            "NaN",
            "inf",
            "1e300",
            "1960-01-01",
            "2026-13-01",
            "20.11.2026",
            "2026-11-20T25:00:00Z",
            "0x10",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
