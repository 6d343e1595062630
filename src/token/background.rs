//! Refreshes tokens ahead of their expiry, from one priority queue.

use super::{Cause, TokenManager, TokenState, places::half, refresh::LEASE, slot, slot::Decision};
use crate::{
    clock::Now,
    id::AccountId,
    metrics::Trigger,
    store::{self, ClaimedGrant},
};
use parking_lot::Mutex;
use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap, binary_heap::PeekMut, hash_map::Entry},
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

/// How much later a refresh is tried whose tenant has enough under way, or which another server does.
const POSTPONED: Duration = Duration::from_secs(2);
/// Accounts that are leased with one statement.
const BATCH_MAX: usize = 64;
/// What comes due within this time, or a twentieth of the lead, is leased with what is due: a server
/// with many accounts needs fewer statements.
const BATCH_AHEAD_MAX: Duration = Duration::from_secs(1);

/// Accounts by the time of their next background refresh.
#[derive(Default)]
pub(super) struct Queue {
    plans: Mutex<Plans>,
    changed: Notify,
}

/// The number of a plan, and what it is for.
type Plan = (u64, Weak<TokenState>);

/// A newer plan for the same account makes an older one void.
struct Plans {
    /// The number of the newest plan.
    newest: u64,
    /// The earliest first.
    by_time: BinaryHeap<PlannedRefresh>,
    /// Since when the times of plans are counted.
    zero: Instant,
}

/// An account has one, or some of which one counts: kept small.
struct PlannedRefresh {
    /// Nanoseconds since [`Plans::zero`].
    at: u64,
    number: u64,
    /// Milliseconds since 1970.
    at_wall: u64,
    state: Weak<TokenState>,
}

impl Default for Plans {
    fn default() -> Self {
        Self { newest: 0, by_time: BinaryHeap::new(), zero: Instant::now() }
    }
}

impl Plans {
    fn add(&mut self, at: Now, number: u64, state: Weak<TokenState>) {
        let since = at.mono.saturating_duration_since(self.zero);
        let at_wall = at.wall.as_millis().try_into().unwrap_or(u64::MAX);
        let at = since.as_nanos().try_into().unwrap_or(u64::MAX);
        // By an eighth: a heap that doubles is half empty at worst.
        if self.by_time.len() == self.by_time.capacity() {
            self.by_time.reserve_exact(self.by_time.len() / 8 + 8);
        }
        self.by_time.push(PlannedRefresh { at, number, at_wall, state });
    }
}

impl Ord for PlannedRefresh {
    /// The earliest is the greatest, as a heap has it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for PlannedRefresh {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PlannedRefresh {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for PlannedRefresh {}

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
        let number = plans.newest;
        plans.add(at, number, Arc::downgrade(state));
        drop(plans);
        self.changed.notify_one();
    }

    /// Plans what is due a little later: its tenant has enough refreshes under way, or another server
    /// does this one.
    fn postpone(&self, state: &Arc<TokenState>, plan: u64, now: Now) {
        let later = Now { wall: Duration::MAX, mono: now.mono + POSTPONED };
        self.plans.lock().add(later, plan, Arc::downgrade(state));
    }

    /// Takes what is due at `now`, with the number of its plan, or says how long until something is.
    fn pop(&self, now: Now) -> Result<Plan, Duration> {
        let Plans { by_time, zero, .. } = &mut *self.plans.lock();
        let Some(first) = by_time.peek_mut() else { return Err(Duration::from_secs(3600)) };
        // By either clock: a suspended machine stops one, an administrator moves the other.
        let mono = *zero + Duration::from_nanos(first.at);
        let due = Now { wall: Duration::from_millis(first.at_wall), mono };
        match slot::passed(due, now) {
            true => {
                let PlannedRefresh { number, state, .. } = PeekMut::pop(first);
                Ok((number, state))
            }
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

    /// Waits until fewer than `max` are under way; returns how many may begin.
    async fn room(&mut self, max: usize) -> usize {
        while let Some(ended) = self.tasks.try_join_next() {
            self.ended(ended.ok().flatten());
        }
        while self.tasks.len() >= max
            && let Some(ended) = self.tasks.join_next().await
        {
            self.ended(ended.ok().flatten());
        }
        max.saturating_sub(self.tasks.len())
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

    /// Whether a tenant has as many under way as it may, `more` among them.
    fn has_half(&self, tenant: Option<&str>, more: usize, max: usize) -> bool {
        let Some(tenant) = tenant else { return false };
        self.of_tenants.get(tenant).copied().unwrap_or(0) + more >= half(max)
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
            let room = running.room(self.0.config.background_concurrency).await;
            let now = self.0.with.clock.now();
            match queue.pop(now) {
                Ok(first) => {
                    let due = self.due(first, room, &running, now);
                    self.refresh_all(due, &mut running).await;
                }
                // The wait is cut so that a suspended or moved clock is noticed.
                Err(wait) => {
                    let wait = wait.min(Duration::from_secs(10));
                    let _ = timeout(wait, queue.changed.notified()).await;
                }
            }
        }
    }

    /// What is to be refreshed now, `first` above all: as much as there is room for, and one batch at
    /// most. Where nothing is gained by a batch, it is one.
    fn due(&self, first: Plan, room: usize, running: &Running, now: Now) -> Vec<DueRefresh> {
        let (queue, config) = (&self.0.background, &self.0.config);
        let ahead = now.plus((config.background_lead / 20).min(BATCH_AHEAD_MAX));
        let is_shared = self.0.with.grants.store().is_shared();
        let more = std::iter::from_fn(|| if is_shared { queue.pop(ahead).ok() } else { None });
        let mut due: Vec<DueRefresh> = Vec::new();
        // Not more taken than there is room for: who is taken, is refreshed.
        for (plan, state) in std::iter::once(first).chain(more).take(room.clamp(1, BATCH_MAX)) {
            let Some(state) = state.upgrade() else { continue };
            let tenant = state.id.tenant();
            let of_tenant = due.iter().filter(|one| one.state.id.tenant() == tenant).count();
            if running.has_half(tenant, of_tenant, config.background_concurrency) {
                queue.postpone(&state, plan, now);
                continue;
            }
            let locked = state.lock();
            if locked.slot.plan != plan {
                continue;
            }
            if locked.slot.may_refresh(now) {
                drop(locked);
                due.push(DueRefresh { plan, state });
            } else if locked.slot.background_due(now, 1.0).is_some_and(|due| !due.is_zero()) {
                drop(locked);
                queue.push(&state, now);
            }
        }
        due
    }

    /// Begins refreshes. Those in a database are leased together; what another server has leased is
    /// left to it: its token comes with the changes of the store.
    async fn refresh_all(&self, due: Vec<DueRefresh>, running: &mut Running) {
        let mut claims = self.claim(&due).await;
        let now = self.0.with.clock.now();
        for DueRefresh { plan, state } in due {
            let claimed = match claims.remove(&state.id).transpose() {
                Ok(claimed) => claimed,
                Err(_) => {
                    self.0.background.postpone(&state, plan, now);
                    continue;
                }
            };
            // Meanwhile a request may have begun one, which waits for this very lease, or another server's
            // token has come, with a plan of its own. The lease ends here then.
            let decision = {
                let slot = &mut state.lock().slot;
                (slot.plan == plan).then(|| slot.refresh(now))
            };
            if decision == Some(Decision::Refresh) {
                let (trigger, cause) = (Trigger::Background, Cause::Background);
                running.add(&state.id, self.spawn_refresh(&state, trigger, cause, claimed));
            }
        }
    }

    /// Leases the grants in a database; none where each refresh takes its own lease, which is also what
    /// happens when the database does not respond.
    async fn claim(
        &self,
        due: &[DueRefresh],
    ) -> HashMap<AccountId, Result<ClaimedGrant, store::Error>> {
        let store = self.0.with.grants.store();
        // One with a lease from before goes on with it.
        let free = due.iter().filter(|one| !one.state.lock().has_lease());
        let free: Vec<AccountId> = free.map(|one| one.state.id.clone()).collect();
        if !store.is_shared() || free.is_empty() {
            return HashMap::new();
        }
        store.claim_grants(&free, LEASE).await.unwrap_or_default().into_iter().collect()
    }
}

/// A background refresh whose time has come.
struct DueRefresh {
    plan: u64,
    state: Arc<TokenState>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{Clock, ManualClock},
        id::Region,
        lwa::Application,
        token::{Authority, Place},
    };

    fn queue(at: Now) -> Queue {
        let queue = Queue::default();
        queue.plans.lock().add(at, 1, Weak::new());
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
        assert!(!running.has_half(Some("a"), 0, 4));
        assert!(running.has_half(Some("a"), 1, 4), "with one that is about to begin");
        running.add(&id("a~2"), tokio::spawn(std::future::pending()));
        assert!(running.has_half(Some("a"), 0, 4));
        assert!(!running.has_half(Some("b"), 0, 4) && !running.has_half(None, 9, 4));
        drop(hang);
        running.room(3).await;
        assert!(!running.has_half(Some("a"), 0, 4), "one has ended");
    }

    #[test]
    fn what_is_postponed_comes_due_again() {
        let clock = ManualClock::new();
        let queue = Queue::default();
        let id = "t1~acme".parse().expect("an id");
        let application = Arc::new(Application::new("default", &Default::default()));
        let authority = Authority::Record;
        let place = Place { region: Region::Na, application, authority };
        let state = TokenState::new(&id, place.into(), Arc::default());
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
