//! The refreshes of an account as a small plot, and as the numbers behind it.

use super::history::{AccountDays, DAYS, RefreshDay};
use crate::hooks::rfc3339;
use std::time::Duration;

const DAY_SECS: u64 = 86_400;
/// Of the plot, and between two days.
const HEIGHT: u64 = 48;
const STEP: usize = 10;

/// The days of a plot.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RefreshPlot {
    pub(super) width: usize,
    pub(super) height: u64,
    /// The oldest first.
    pub(super) bars: Vec<PlotBar>,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    /// Since when all refreshes are counted, if that is not all days.
    pub(super) since: Option<String>,
    /// The newest are not counted yet.
    pub(super) is_stale: bool,
}

/// One day: what succeeded stands at the bottom, what failed on top of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PlotBar {
    pub(super) x: usize,
    /// In UTC, as the audit log has it.
    pub(super) day: String,
    pub(super) of: RefreshDay,
    pub(super) succeeded_height: u64,
    pub(super) failed_height: u64,
    pub(super) succeeded_y: u64,
    pub(super) failed_y: u64,
}

impl RefreshPlot {
    /// Of the days up to today; `now` is the time since 1970.
    pub(super) fn of(known: &AccountDays, now: Duration) -> Self {
        let AccountDays { days, since, is_stale } = known;
        let sum = |of: fn(&RefreshDay) -> u32| days.iter().map(|day| u64::from(of(day))).sum();
        let most = days.iter().map(|day| u64::from(day.succeeded) + u64::from(day.failed)).max();
        let most = most.unwrap_or(0).max(1);
        // What is there is seen.
        let height = |count: u32| (u64::from(count) * (HEIGHT - 2)).div_ceil(most);
        let first = (now.as_secs() / DAY_SECS + 1).saturating_sub(DAYS as u64);
        let bars = days.iter().enumerate().map(|(at, day)| {
            let [succeeded_height, failed_height] = [day.succeeded, day.failed].map(height);
            let succeeded_y = HEIGHT - succeeded_height;
            PlotBar {
                x: at * STEP,
                day: rfc3339((first + at as u64) * DAY_SECS)[..10].to_owned(),
                of: *day,
                succeeded_height,
                failed_height,
                succeeded_y,
                failed_y: succeeded_y.saturating_sub(failed_height),
            }
        });
        Self {
            width: DAYS * STEP,
            height: HEIGHT,
            bars: bars.collect(),
            succeeded: sum(|day| day.succeeded),
            failed: sum(|day| day.failed),
            since: since.map(rfc3339),
            is_stale: *is_stale,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_as_high_as_its_refreshes_and_no_day_leaves_the_plot() {
        let mut days = [RefreshDay::default(); DAYS];
        days[0] = RefreshDay { succeeded: 1000, failed: 0 };
        days[28] = RefreshDay { succeeded: 1, failed: 499 };
        days[29] = RefreshDay { succeeded: 999, failed: 1 };
        let plot = RefreshPlot::of(
            &AccountDays { days, since: Some(0), is_stale: false },
            Duration::from_secs(1_795_132_800),
        );
        assert_eq!(plot.since.as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!((plot.succeeded, plot.failed, plot.bars.len()), (2000, 500, DAYS));
        assert_eq!([&*plot.bars[0].day, &*plot.bars[29].day], ["2026-10-22", "2026-11-20"]);
        let heights = |at: usize| (plot.bars[at].succeeded_height, plot.bars[at].failed_height);
        assert_eq!(
            [heights(0), heights(1), heights(28), heights(29)],
            [(46, 0), (0, 0), (1, 23), (46, 1)]
        );
        for bar in &plot.bars {
            assert_eq!(bar.succeeded_y + bar.succeeded_height, plot.height);
            assert_eq!(bar.failed_y + bar.failed_height, bar.succeeded_y);
        }
        let days = [RefreshDay::default(); DAYS];
        let none =
            RefreshPlot::of(&AccountDays { days, since: None, is_stale: false }, Duration::ZERO);
        assert!(none.bars.iter().all(|bar| bar.succeeded_height + bar.failed_height == 0));
    }
}
