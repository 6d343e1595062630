//! Reads a moment, such as the day of an advertiser's consent, in the forms that programs write.

use crate::clock::{Clock, SystemClock};
use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    fmt::rfc2822,
    tz::TimeZone,
};

/// 2013-01-01: Login with Amazon began in that year, so nothing of its is older.
const FIRST: u64 = 1_356_998_400;
/// Numbers from here on count milliseconds: as seconds they lie after the year 5000.
const MILLIS_FROM: f64 = 1e11;
/// It may be tomorrow already where the advertiser is, and clocks differ.
const AHEAD_SECS: u64 = 86_400;

/// Returns the seconds since 1970 of a day or a moment: ISO 8601 with or without dashes and zone
/// (without one it is UTC), RFC 2822, or a count of seconds or milliseconds. None before 2013.
pub(super) fn moment(text: &str) -> Option<u64> {
    let text = text.trim();
    let unix = number(text).or_else(|| calendar(text))?;
    (unix >= FIRST).then_some(unix)
}

/// As [`moment`], of a consent: not in the future.
pub(super) fn consent(text: &str) -> Result<u64, &'static str> {
    consent_at(text, SystemClock.now().unix())
}

pub(super) fn consent_at(text: &str, now_unix: u64) -> Result<u64, &'static str> {
    match moment(text) {
        Some(unix) if unix <= now_unix + AHEAD_SECS => Ok(unix),
        Some(_) => Err("that day is still to come"),
        None => Err("write the day as 2026-11-20; Login with Amazon began in 2013"),
    }
}

/// A count since 1970; a number of eight or fourteen digits is a date.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        match text.len() {
            8 => return utc(text.parse::<Date>().ok()?.at(0, 0, 0, 0)),
            14 => return utc(DateTime::strptime("%Y%m%d%H%M%S", text).ok()?),
            _ => {}
        }
    }
    let number: f64 = text.parse().ok()?;
    let seconds = if number.abs() >= MILLIS_FROM { number / 1000.0 } else { number };
    // Not so for infinity, and what is no number at all.
    (0.0..MILLIS_FROM).contains(&seconds).then_some(seconds as u64)
}

fn calendar(text: &str) -> Option<u64> {
    let dashed = text.replace('/', "-");
    let civil = |text: &str| utc(text.parse().ok()?);
    let zoned = |timestamp: Timestamp| u64::try_from(timestamp.as_second()).ok();
    text.parse().ok().and_then(zoned).or_else(|| civil(&dashed)).or_else(|| {
        let moment = rfc2822::DateTimeParser::new().parse_timestamp(text);
        moment.ok().and_then(zoned)
    })
}

fn utc(moment: DateTime) -> Option<u64> {
    let moment = moment.to_zoned(TimeZone::UTC).ok()?;
    u64::try_from(moment.timestamp().as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-20 00:00 UTC.
    const DAY: u64 = 1_795_132_800;

    #[test]
    fn a_moment_is_read_in_every_usual_form() {
        for text in [
            "1795132800",
            "1795132800.75",
            "1795132800000",
            "1.7951328e9",
            "20261120",
            "20261120000000",
            "2026-11-20",
            " 2026-11-20 ",
            "2026/11/20",
            "2026-11-20T00:00:00",
            "2026-11-20 00:00:00.123456",
            "2026-11-20T00:00:00Z",
            "2026-11-20T00:00:00.5+00:00",
            "2026-11-20 01:30:00+01:30",
            "2026-11-20 00:00:00+00",
            "20261120T000000Z",
            "Fri, 20 Nov 2026 00:00:00 GMT",
        ] {
            assert_eq!(moment(text), Some(DAY), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_or_lies_before_login_with_amazon_is_none() {
        for text in [
            "",
            "soon",
            "-1",
            "NaN",
            "inf",
            "1e300",
            "1960-01-01",
            "2026-13-01",
            "20261301",
            "20.11.2026",
            "11/20/2026",
            "2026-11-20T25:00:00Z",
            "0x10",
            "0",
            "2012-12-31",
            "20121231",
            // How spreadsheets count days.
            "46346",
        ] {
            assert_eq!(moment(text), None, "{text}");
        }
    }

    #[test]
    fn a_consent_is_at_most_a_day_ahead() {
        for (text, expected) in [
            ("2026-11-20", Some(DAY)),
            ("20261119", Some(DAY - 86_400)),
            ("2026-11-21", Some(DAY + 86_400)),
            ("2026-11-22", None),
            ("2999-01-01", None),
            ("yesterday", None),
        ] {
            assert_eq!(consent_at(text, DAY).ok(), expected, "{text}");
        }
    }
}
