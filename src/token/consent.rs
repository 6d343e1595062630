//! How long an advertiser's consent still lasts: grants die 365 days after it.

/// The life of a grant made since July 2026, from the day of consent.
const GRANT_DAYS: i64 = 365;

const DAY_SECS: i64 = 86_400;

/// A person should ask for consent again when so few days are left: from day 335 on.
pub const WARN_DAYS: i64 = 30;

/// Counts the days, the current one included, that a grant consented to at `consented_at` still
/// lives; zero or less once it is dead. Both are seconds since 1970.
pub fn days_left(consented_at: u64, now_unix: u64) -> i64 {
    let seconds = |unix| i64::try_from(unix).unwrap_or(i64::MAX);
    let end = seconds(consented_at).saturating_add(GRANT_DAYS * DAY_SECS);
    let left = end.saturating_sub(seconds(now_unix));
    // Rounded up: `div_euclid` rounds down, whatever the sign.
    left.saturating_neg().div_euclid(DAY_SECS).saturating_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const CONSENT: u64 = 1_795_132_800;

    #[test]
    fn days_are_counted_down_to_the_end_of_the_grant() {
        for (age, left) in [
            (0, 365),
            (1, 365),
            (DAY - 1, 365),
            (DAY, 364),
            (335 * DAY - 1, WARN_DAYS + 1),
            (335 * DAY, WARN_DAYS),
            (364 * DAY, 1),
            (365 * DAY - 1, 1),
            (365 * DAY, 0),
            (366 * DAY - 1, 0),
            (366 * DAY, -1),
            (400 * DAY, -35),
        ] {
            assert_eq!(days_left(CONSENT, CONSENT + age), left, "{age}");
        }
    }

    #[test]
    fn clocks_that_are_wrong_break_nothing() {
        assert_eq!(days_left(CONSENT, CONSENT - DAY), 366);
        assert!(days_left(u64::MAX, 0) > 365);
        assert!(days_left(0, u64::MAX) < 0);
        assert!(days_left(u64::MAX, u64::MAX).abs() <= 365);
    }
}
