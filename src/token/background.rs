//! Refreshes tokens ahead of their expiry, from one priority queue.

use super::{Cause, TokenManager, TokenState, places::half, slot, slot::Decision};
use crate::{clock::Now, id::AccountId, metrics::Trigger};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};
use tokio::{
    sync::Notify,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// Requests have this long after the start before an account is tried without one.
const FIRST_TRY_AFTER: Duration = Duration::from_secs(30);
/// All accounts are tried within this time after the start, if LWA keeps up.
const SPREAD_MAX: Duration = Duration::from_secs(60);

/// How much later a refresh is tried whose tenant has enough under way.
const POSTPONED: Duration = Duration::from_secs(2);

/// Accounts by the time of their next background refresh.
#[derive(Default)]
pub(super) struct Queue {
    plans: Mutex<Plans>,
    changed: Notify,
}

/// A newer plan for the same account makes an older one void.
#[derive(Default)]
struct Plans {
    /// The number of the newest plan.
    newest: u64,
    /// By monotonic time and number; with the wall clock's time.
    by_time: BTreeMap<(Instant, u64), (Duration, Weak<TokenState>)>,
}

impl Queue {
    /// Plans `state`'s next background refresh, if it has one to come.
    pub(super) fn push(&self, state: &Arc<TokenState>, now: Now) {
        let mut plans = self.plans.lock();
        plans.newest += 1;
        let due = {
            let slot = &mut state.lock().slot;
            slot.plan = plans.newest;
            slot.background_due(now, jitter())
        };
        let Some(due) = due else { return };
        let at = match due.is_zero() {
            // By the monotonic clock alone: a wall clock that is set brings no haste.
            true => Now { wall: Duration::MAX, ..now.plus(spread(plans.by_time.len())) },
            false => now.plus(due),
        };
        let key = (at.mono, plans.newest);
        plans.by_time.insert(key, (at.wall, Arc::downgrade(state)));
        drop(plans);
        self.changed.notify_one();
    }

    /// Plans what is due a little later: its tenant has enough refreshes under way.
    fn postpone(&self, state: &Arc<TokenState>, plan: u64, now: Now) {
        let later = (now.mono + POSTPONED, plan);
        self.plans.lock().by_time.insert(later, (Duration::MAX, Arc::downgrade(state)));
    }

    /// Takes what is due, with the number of its plan, or says how long until something is.
    fn pop(&self, now: Now) -> Result<(u64, Weak<TokenState>), Duration> {
        let by_time = &mut self.plans.lock().by_time;
        let Some(first) = by_time.first_entry() else { return Err(Duration::from_secs(3600)) };
        let (mono, plan) = *first.key();
        // By either clock: a suspended machine stops one, an administrator moves the other.
        match slot::passed(Now { wall: first.get().0, mono }, now) {
            true => Ok((plan, first.remove().1)),
            false => Err(mono - now.mono),
        }
    }
}

/// Background refreshes under way, and how many each tenant has: one tenant whose application hangs
/// leaves half of the places to others.
#[derive(Default)]
struct Running {
    tasks: JoinSet<Option<Box<str>>>,
    of_tenants: HashMap<Box<str>, usize>,
}

impl Running {
    fn add(&mut self, account: &AccountId, refresh: JoinHandle<()>) {
        let tenant: Option<Box<str>> = account.tenant().map(Into::into);
        if let Some(tenant) = &tenant {
            *self.of_tenants.entry(tenant.clone()).or_default() += 1;
        }
        self.tasks.spawn(async move {
            // A panic in it is dealt with where it was begun.
            let _ = refresh.await;
            tenant
        });
    }

    /// Waits until fewer than `max` are under way.
    async fn room(&mut self, max: usize) {
        while let Some(ended) = self.tasks.try_join_next() {
            self.ended(ended.ok().flatten());
        }
        while self.tasks.len() >= max
            && let Some(ended) = self.tasks.join_next().await
        {
            self.ended(ended.ok().flatten());
        }
    }

    fn ended(&mut self, tenant: Option<Box<str>>) {
        if let Some(Entry::Occupied(mut count)) = tenant.map(|tenant| self.of_tenants.entry(tenant))
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Whether a tenant has as many under way as it may.
    fn has_half(&self, tenant: Option<&str>, max: usize) -> bool {
        let running = tenant.and_then(|tenant| self.of_tenants.get(tenant));
        running.is_some_and(|running| *running >= half(max))
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

impl TokenManager {
    /// Refreshes tokens ahead of their expiry until dropped.
    ///
    /// # Cancel safety
    /// Safe: refreshes under way finish in their own tasks.
    pub async fn run_background(&self) {
        let queue = &self.0.background;
        let mut running = Running::default();
        loop {
            running.room(self.0.config.background_concurrency).await;
            let now = self.0.with.clock.now();
            match queue.pop(now) {
                Ok((plan, state)) => {
                    let Some(state) = state.upgrade() else { continue };
                    if running.has_half(state.id.tenant(), self.0.config.background_concurrency) {
                        queue.postpone(&state, plan, now);
                        continue;
                    }
                    let mut locked = state.lock();
                    if locked.slot.plan != plan {
                        continue;
                    }
                    if locked.slot.refresh(now) == Decision::Refresh {
                        drop(locked);
                        let (trigger, cause) = (Trigger::Background, Cause::Background);
                        running.add(&state.id, self.spawn_refresh(&state, trigger, cause));
                    } else if locked.slot.background_due(now, 1.0).is_some_and(|due| !due.is_zero())
                    {
                        drop(locked);
                        queue.push(&state, now);
                    }
                }
                // The wait is cut so that a suspended or moved clock is noticed.
                Err(wait) => {
                    let wait = wait.min(Duration::from_secs(10));
                    let _ = timeout(wait, queue.changed.notified()).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{Clock, ManualClock},
        id::Region,
        lwa::Application,
        token::Authority,
    };

    fn queue(at: Now) -> Queue {
        let queue = Queue::default();
        queue.plans.lock().by_time.insert((at.mono, 1), (at.wall, Weak::new()));
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

    #[tokio::test]
    async fn a_tenant_has_at_most_half_of_the_background() {
        let id = |text: &str| text.parse::<AccountId>().expect("an id");
        let mut running = Running::default();
        let (hang, hangs) = tokio::sync::oneshot::channel::<()>();
        running.add(&id("a~1"), tokio::spawn(async { drop(hangs.await) }));
        running.add(&id("acme"), tokio::spawn(std::future::pending()));
        assert!(!running.has_half(Some("a"), 4));
        running.add(&id("a~2"), tokio::spawn(std::future::pending()));
        assert!(running.has_half(Some("a"), 4));
        assert!(!running.has_half(Some("b"), 4) && !running.has_half(None, 4));
        drop(hang);
        running.room(3).await;
        assert!(!running.has_half(Some("a"), 4), "one has ended");
    }

    #[test]
    fn what_is_postponed_comes_due_again() {
        let clock = ManualClock::new();
        let queue = Queue::default();
        let id = "t1~acme".parse().expect("an id");
        let application = Arc::new(Application::new("default", &Default::default()));
        let authority = Authority::Record;
        let state = TokenState::new(&id, Region::Na, application, authority, Arc::default());
        let state = Arc::new(state);
        queue.postpone(&state, 7, clock.now());
        assert!(queue.pop(clock.now()).is_err());
        clock.advance(POSTPONED);
        assert_eq!(queue.pop(clock.now()).ok().map(|(plan, _)| plan), Some(7));
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
