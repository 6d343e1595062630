//! Refreshes tokens ahead of their expiry, from one priority queue.

use super::{Cause, TokenManagerInner, TokenState, slot};
use crate::{clock::Now, metrics::Trigger};
use parking_lot::Mutex;
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{sync::Notify, task::JoinSet, time::timeout};

/// Requests have this long after the start before an account is tried without one.
const FIRST_TRY_AFTER: Duration = Duration::from_secs(30);
/// All accounts are tried within this time after the start, if LWA keeps up.
const SPREAD_MAX: Duration = Duration::from_secs(60);

/// Accounts by the time of their next background refresh.
#[derive(Default)]
pub(super) struct Queue {
    heap: Mutex<BinaryHeap<Reverse<PlannedRefresh>>>,
    changed: Notify,
}

struct PlannedRefresh {
    at: Now,
    state: Weak<TokenState>,
    /// A newer plan for the same account makes this one void.
    plan: u64,
}

impl PartialEq for PlannedRefresh {
    fn eq(&self, other: &Self) -> bool {
        self.at.mono == other.at.mono
    }
}
impl Eq for PlannedRefresh {}
impl PartialOrd for PlannedRefresh {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for PlannedRefresh {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.mono.cmp(&other.at.mono)
    }
}

impl Queue {
    /// Plans `state`'s next background refresh, if it has one to come.
    pub(super) fn push(&self, state: &Arc<TokenState>, now: Now) {
        let (due, plan) = {
            let slot = &mut state.lock().slot;
            (slot.background_due(now, jitter()), slot.next_plan())
        };
        let Some(due) = due else { return };
        let mut heap = self.heap.lock();
        let at = match due.is_zero() {
            // By the monotonic clock alone: a wall clock that is set brings no haste.
            true => Now { wall: Duration::MAX, ..now.plus(spread(heap.len())) },
            false => now.plus(due),
        };
        heap.push(Reverse(PlannedRefresh { at, state: Arc::downgrade(state), plan }));
        drop(heap);
        self.changed.notify_one();
    }

    /// Takes what is due, or says how long until something is.
    fn pop(&self, now: Now) -> Result<PlannedRefresh, Duration> {
        let mut heap = self.heap.lock();
        match heap.peek() {
            // By either clock: a suspended machine stops one, an administrator moves the other.
            Some(Reverse(first)) if slot::passed(first.at, now) => {}
            Some(Reverse(first)) => return Err(first.at.mono - now.mono),
            None => return Err(Duration::from_secs(3600)),
        }
        heap.pop().map(|Reverse(entry)| entry).ok_or(Duration::ZERO)
    }
}

/// 0.9 to 1.1, so that accounts connected together do not stay together.
fn jitter() -> f64 {
    0.9 + random() * 0.2
}

/// When to try an account without a fresh token beside `others`: the first seconds after a start
/// belong to requests, and LWA is not asked for all accounts at once.
fn spread(others: usize) -> Duration {
    let window = u32::try_from(others).unwrap_or(u32::MAX).saturating_mul(50);
    let window = Duration::from_millis(window.into()) + Duration::from_secs(1);
    FIRST_TRY_AFTER + window.min(SPREAD_MAX).mul_f64(random())
}

/// 0 to 1.
fn random() -> f64 {
    let mut byte = [0];
    // Without randomness there is no jitter, which is no reason to stop refreshing.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    f64::from(byte[0]) / 255.0
}

/// The refresher itself; runs until dropped.
pub(super) async fn run(inner: &Arc<TokenManagerInner>) {
    let mut running = JoinSet::new();
    loop {
        while running.len() >= inner.config.background_concurrency {
            running.join_next().await;
        }
        let now = inner.clock.now();
        match inner.background.pop(now) {
            Ok(entry) => {
                let Some(state) = entry.state.upgrade() else { continue };
                let mut locked = state.lock();
                if !locked.slot.is_planned(entry.plan) {
                    continue;
                }
                if locked.slot.background(now) {
                    drop(locked);
                    let (trigger, cause) = (Trigger::Background, Cause::Background);
                    running.spawn(inner.spawn_refresh(&state, trigger, cause));
                } else if locked.slot.background_due(now, 1.0).is_some_and(|due| !due.is_zero()) {
                    drop(locked);
                    inner.background.push(&state, now);
                }
            }
            // The wait is cut so that a suspended or moved clock is noticed.
            Err(wait) => {
                let wait = wait.min(Duration::from_secs(10));
                let _ = timeout(wait, inner.background.changed.notified()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    fn queue(at: Now) -> Queue {
        let queue = Queue::default();
        queue.heap.lock().push(Reverse(PlannedRefresh { at, state: Weak::new(), plan: 1 }));
        queue
    }

    #[test]
    fn a_suspend_makes_due_what_came_due_meanwhile() {
        let clock = ManualClock::new();
        let queue = queue(clock.now().plus(Duration::from_secs(600)));
        assert_eq!(queue.pop(clock.now()).err(), Some(Duration::from_secs(600)));
        clock.set_wall(clock.now().wall + Duration::from_secs(600));
        assert!(queue.pop(clock.now()).is_ok());
    }

    #[test]
    fn a_wall_clock_set_back_delays_nothing() {
        let clock = ManualClock::new();
        let queue = queue(clock.now().plus(Duration::from_secs(600)));
        clock.advance(Duration::from_secs(600));
        clock.set_wall(Duration::ZERO);
        assert!(queue.pop(clock.now()).is_ok());
    }
}
