//! Reads the day on which an advertiser consented.

use crate::clock::{Clock, SystemClock};
use jiff::{civil::Date, tz::TimeZone};

/// It may be tomorrow already where the advertiser is.
const AHEAD_SECS: u64 = 86_400;

/// Returns the beginning of the day in UTC, in seconds since 1970.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    at(text, SystemClock.now().unix())
}

fn at(text: &str, now_unix: u64) -> Result<u64, String> {
    let date: Date = text.parse().map_err(|_| "write the day as 2026-11-20".to_owned())?;
    let start = date.to_zoned(TimeZone::UTC).map_err(|error| error.to_string())?;
    let unix = u64::try_from(start.timestamp().as_second())
        .map_err(|_| "that is before there were grants".to_owned())?;
    if unix > now_unix + AHEAD_SECS {
        return Err("that day is still to come".to_owned());
    }
    Ok(unix)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-20 00:00 UTC.
    const NOW: u64 = 1_795_132_800;

    #[test]
    fn a_day_begins_at_midnight_utc() {
        assert_eq!(at("2026-11-20", NOW), Ok(NOW));
        assert_eq!(at("2026-11-19", NOW), Ok(NOW - 86_400));
        assert_eq!(at("2026-11-21", NOW), Ok(NOW + 86_400));
    }

    #[test]
    fn what_is_no_day_of_consent_is_refused() {
        for text in ["", "20.11.2026", "2026-13-01", "2026-02-30", "1960-01-01", "2026-11-22"] {
            assert!(at(text, NOW).is_err(), "{text}");
        }
    }
}
