//! The only place that asks the system for the time.

use parking_lot::Mutex;
use std::{
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The monotonic clock cannot be asked for any later time without risk of an overflow.
const LATER_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// By how much the clocks differ after the machine was suspended.
const SUSPENDED: Duration = Duration::from_secs(5);

/// One reading of both clocks: a laptop that sleeps stops one, an administrator moves the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since 1970-01-01 UTC.
    pub wall: Duration,
    /// Monotonic time; stands still while the machine is suspended.
    pub mono: Instant,
}

impl Now {
    /// The reading `by` later on both clocks; `by` counts up to ten years.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        let by = by.min(LATER_MAX);
        Self { wall: self.wall.saturating_add(by), mono: self.mono + by }
    }

    /// Whether the wall clock alone ran on since `then`.
    #[must_use]
    pub fn was_suspended_since(self, then: Self) -> bool {
        let awake = self.mono.saturating_duration_since(then.mono);
        self.wall.saturating_sub(then.wall) > awake + SUSPENDED
    }

    /// Whole seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn unix(self) -> u64 {
        self.wall.as_secs()
    }
}

/// Where the time comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Reads both clocks.
    fn now(&self) -> Now;

    /// Reads the monotonic clock alone.
    fn mono(&self) -> Instant {
        self.now().mono
    }
}

/// The machine's clocks.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        // A wall clock before 1970 reads as 1970: tokens then look unexpired to it, and the
        // monotonic clock alone decides.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { wall, mono: self.mono() }
    }

    fn mono(&self) -> Instant {
        Instant::now()
    }
}

/// A clock that moves only by its methods, for tests.
#[derive(Debug)]
pub struct ManualClock(Mutex<Now>);

impl ManualClock {
    /// A clock that stands at 2026-11-20 00:00 UTC.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(Now { wall: Duration::from_secs(1_795_132_800), mono: Instant::now() }))
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock();
        *now = now.plus(by);
    }

    /// Sets the wall clock alone, as an administrator or NTP would.
    pub fn set_wall(&self, wall: Duration) {
        self.0.lock().wall = wall;
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        *self.0.lock()
    }
}
