//! Points in time as Amazon spells them.

use crate::clock::Now;
use std::time::Duration;

/// `days` whole days before `now`.
pub(super) fn days_ago(now: Now, days: u64) -> Duration {
    now.wall.saturating_sub(Duration::from_secs(days * 86_400))
}

/// `2026-11-20T09:30:00.000Z`
pub(super) fn iso(since_epoch: Duration) -> String {
    let seconds = i64::try_from(since_epoch.as_secs()).ok();
    let time = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    format!("{:.3}", time.unwrap_or(jiff::Timestamp::MAX))
}

/// `2026-11-20`
pub(super) fn iso_date(since_epoch: Duration) -> String {
    iso(since_epoch).chars().take("2026-11-20".len()).collect()
}

/// `20261120T093000Z`
pub(super) fn compact(since_epoch: Duration) -> String {
    let text = iso(since_epoch).replace(".000", "");
    text.chars().filter(|c| !matches!(c, '-' | ':')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_three_spellings() {
        let moment = Duration::from_secs(1_763_631_000);
        assert_eq!(iso(moment), "2025-11-20T09:30:00.000Z");
        assert_eq!(iso_date(moment), "2025-11-20");
        assert_eq!(compact(moment), "20251120T093000Z");
    }
}
