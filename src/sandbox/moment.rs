//! Points in time as Amazon spells them.

use crate::clock::Now;
use std::time::Duration;

/// `2026-11-20T09:30:00.000Z`
pub(super) const ISO: &str = "%Y-%m-%dT%H:%M:%S.000Z";
/// `2026-11-20`
pub(super) const DATE: &str = "%Y-%m-%d";
/// `20261120T093000Z`
pub(super) const COMPACT: &str = "%Y%m%dT%H%M%SZ";

/// `days` whole days before `now`.
pub(super) fn days_ago(now: Now, days: u64) -> Duration {
    now.wall.saturating_sub(Duration::from_secs(days * 86_400))
}

pub(super) fn spelled(since_epoch: Duration, format: &str) -> String {
    let seconds = i64::try_from(since_epoch.as_secs()).ok();
    let time = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.unwrap_or(jiff::Timestamp::MAX).strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_three_spellings() {
        let moment = Duration::from_secs(1_763_631_000);
        assert_eq!(spelled(moment, ISO), "2025-11-20T09:30:00.000Z");
        assert_eq!(spelled(moment, DATE), "2025-11-20");
        assert_eq!(spelled(moment, COMPACT), "20251120T093000Z");
    }
}
