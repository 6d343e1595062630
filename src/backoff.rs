//! How long to wait before the next try: doubling intervals with jitter between two bounds.
//!
//! The only place that uses the `backoff` crate, and only its arithmetic: the loop, the overall
//! deadline and `Retry-After` belong to the caller.

use ::backoff::{ExponentialBackoff, backoff::Backoff as _};
use std::time::Duration;

/// A generator of waiting times, each between `min` and `max`.
#[derive(Debug, Clone)]
pub struct Backoff {
    inner: ExponentialBackoff,
    min: Duration,
    max: Duration,
}

/// The jitter around an interval: from half of it to one and a half.
const RANDOMIZATION: f64 = 0.5;
/// Each interval is this many times the one before.
const MULTIPLIER: f64 = 2.0;

impl Backoff {
    /// Starts at `min` to three times `min` and doubles until `max`. A `max` below `min` counts
    /// as `min`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        let max = max.max(min);
        // The intervals are centres of a range of plus and minus half: twice `min` reaches down to
        // `min`, two thirds of `max` reach up to `max`. Clamping alone would pile half of all
        // waits onto the bounds themselves and so undo the jitter. Zero never grows by doubling.
        let last = max * 2 / 3;
        let first = (min * 2).max(Duration::from_millis(1)).min(last);
        let inner = ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            randomization_factor: RANDOMIZATION,
            multiplier: MULTIPLIER,
            max_interval: last,
            // Its own clock is no tokio clock, and giving up is the caller's decision.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Self { inner, min, max }
    }

    /// Returns the next waiting time.
    pub fn next(&mut self) -> Duration {
        self.inner.next_backoff().unwrap_or(self.max).clamp(self.min, self.max)
    }

    /// Starts from the beginning, after a success.
    pub fn reset(&mut self) {
        self.inner.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const MIN: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(10);

    #[test]
    fn stays_between_its_bounds_for_ever() {
        let mut backoff = Backoff::new(MIN, MAX);
        for _ in 0..10_000 {
            let wait = backoff.next();
            assert!((MIN..=MAX).contains(&wait), "{wait:?}");
        }
    }

    #[test]
    fn begins_short_grows_and_begins_again_after_a_reset() {
        let mut backoff = Backoff::new(MIN, MAX);
        assert!(backoff.next() <= MIN * 3);
        let late = (0..20).map(|_| backoff.next()).last();
        assert!(late >= Some(MAX / 3), "{late:?}");
        backoff.reset();
        assert!(backoff.next() <= MIN * 3);
    }

    #[test]
    fn two_generators_do_not_march_in_step() {
        let first: HashSet<_> = (0..50).map(|_| Backoff::new(MIN, MAX).next()).collect();
        assert!(first.len() > 25, "{}", first.len());
    }

    #[test]
    fn odd_bounds_neither_panic_nor_leave_the_bounds() {
        let ms = Duration::from_millis;
        for (min, max) in [(ms(0), ms(0)), (ms(0), ms(50)), (ms(5), ms(5)), (ms(9), ms(3))] {
            let mut backoff = Backoff::new(min, max);
            for _ in 0..100 {
                let wait = backoff.next();
                assert!(wait >= min && wait <= max.max(min), "{min:?} {max:?} {wait:?}");
            }
        }
    }
}
