//! `requests_per_minute`: how often a caller may call. One atomic number, shared by all workers.
//!
//! The generic cell rate algorithm: a caller may send [`burst`] requests at once, and one more for
//! each minute's share that passes. An issuer's limit is that of each tenant: the requests of one use
//! up nothing of another's.

use crate::id::Tenant;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Requests at once of a caller that may send more than this a minute, unless a tenth is more.
const BURST_MIN: u32 = 60;

/// Tenants that have a limit of their own; those that did not call for long go first.
const TENANTS_MAX: usize = 10_000;

/// One caller's limit.
#[derive(Debug)]
pub struct Rate {
    began: Instant,
    /// When all that was sent is paid for, in nanoseconds since `began`.
    paid_at: AtomicU64,
    /// What one request costs, in nanoseconds.
    interval: u64,
    /// By how much `paid_at` may be ahead, in nanoseconds.
    tolerance: u64,
}

/// Requests that may come at once: a tenth of a minute's, at least 60, and no more than a minute's.
fn burst(per_minute: NonZeroU32) -> u32 {
    (per_minute.get() / 10).max(BURST_MIN).min(per_minute.get())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Rate {
    pub fn new(per_minute: NonZeroU32, now: Instant) -> Self {
        let interval = 60_000_000_000_u64.div_ceil(per_minute.get().into());
        let tolerance = interval * u64::from(burst(per_minute) - 1);
        Self { began: now, paid_at: AtomicU64::new(0), interval, tolerance }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// How long until one more is allowed; the request is not counted then.
    pub fn take(&self, now: Instant) -> Result<(), Duration> {
        let now = nanos(now.saturating_duration_since(self.began));
        let mut paid_at = self.paid_at.load(Relaxed);
        loop {
            let ahead = paid_at.saturating_sub(now);
            if let Some(wait) = ahead.checked_sub(self.tolerance).filter(|wait| *wait > 0) {
                return Err(Duration::from_nanos(wait));
            }
            let next = paid_at.max(now).saturating_add(self.interval);
            match self.paid_at.compare_exchange_weak(paid_at, next, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => paid_at = other,
            }
        }
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.paid_at.load(Relaxed) <= nanos(now.saturating_duration_since(self.began))
    }
}

/// The limits of the tenants of one caller or issuer. Asked when a credential is proved, not for each
/// request: who is proved keeps its limit.
#[derive(Debug)]
pub struct TenantRates {
    per_minute: NonZeroU32,
    /// Of those without a tenant.
    own: Arc<Rate>,
    /// Of the tenants beyond those that are remembered, together.
    others: Arc<Rate>,
    tenants: Mutex<HashMap<Tenant, Arc<Rate>>>,
}

impl TenantRates {
    pub fn new(per_minute: NonZeroU32, now: Instant) -> Self {
        let rate = || Arc::new(Rate::new(per_minute, now));
        Self { per_minute, own: rate(), others: rate(), tenants: Mutex::default() }
    }

    /// The limit of `tenant`.
    pub fn of(&self, tenant: Option<&Tenant>, now: Instant) -> Arc<Rate> {
        let Some(tenant) = tenant else { return self.own.clone() };
        let tenants = &mut *self.tenants.lock();
        if let Some(rate) = tenants.get(tenant) {
            return rate.clone();
        }
        if tenants.len() >= TENANTS_MAX {
            // One that is held may be used again; beside a new one it would count half.
            tenants.retain(|_, rate| Arc::strong_count(rate) > 1 || !rate.is_idle(now));
            if tenants.len() >= TENANTS_MAX {
                return self.others.clone();
            }
        }
        let rate = Arc::new(Rate::new(self.per_minute, now));
        tenants.insert(tenant.clone(), rate.clone());
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn per_minute(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    fn allowed(rate: &Rate, requests: usize, now: Instant) -> usize {
        (0..requests).filter(|_| rate.take(now).is_ok()).count()
    }

    #[test]
    fn a_minutes_worth_is_allowed_and_then_one_for_each_share_of_it() {
        for (limit, at_once) in [(1, 1), (5, 5), (60, 60), (600, 60), (6000, 600)] {
            let now = Instant::now();
            let rate = Rate::new(per_minute(limit), now);
            assert_eq!(allowed(&rate, 10_000, now), at_once, "{limit} a minute");
            let wait = rate.take(now).unwrap_err();
            let share = Duration::from_secs(60) / limit;
            assert!(wait.abs_diff(share) < Duration::from_micros(1), "{limit}: {wait:?}");
            assert_eq!(rate.take(now + wait - Duration::from_micros(1)).ok(), None);
            assert_eq!(allowed(&rate, 9, now + wait), 1, "{limit} a minute");
            let rested = now + Duration::from_secs(3600);
            assert_eq!(allowed(&rate, 10_000, rested), at_once, "an hour saves no more");
        }
    }

    #[test]
    fn a_refused_request_costs_nothing() {
        let now = Instant::now();
        let rate = Rate::new(per_minute(1), now);
        rate.take(now).unwrap();
        for second in 1..60 {
            rate.take(now + Duration::from_secs(second)).unwrap_err();
        }
        rate.take(now + Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn workers_share_one_limit() {
        let now = Instant::now();
        let rate = Rate::new(per_minute(6000), now);
        let count = thread::scope(|scope| {
            let workers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| allowed(&rate, 5000, now))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum::<usize>()
        });
        assert_eq!(count, 600);
    }

    #[test]
    fn a_tenant_does_not_use_up_what_another_may_send() {
        let now = Instant::now();
        let rates = TenantRates::new(per_minute(10), now);
        let tenant = |name: &str| name.parse::<Tenant>().unwrap();
        let (one, two) = (tenant("t1"), tenant("t2"));
        assert_eq!(allowed(&rates.of(Some(&one), now), 99, now), 10);
        assert_eq!(allowed(&rates.of(Some(&one), now), 99, now), 0, "a second token, one tenant");
        assert_eq!(allowed(&rates.of(Some(&two), now), 99, now), 10);
        assert_eq!(allowed(&rates.of(None, now), 99, now), 10);
    }

    #[test]
    fn more_tenants_than_are_remembered_do_not_grow_the_table() {
        let now = Instant::now();
        let rates = TenantRates::new(per_minute(1), now);
        let tenant = |number: usize| format!("t{number}").parse::<Tenant>().unwrap();
        for number in 0..TENANTS_MAX + 100 {
            let _ = rates.of(Some(&tenant(number)), now).take(now);
        }
        assert_eq!(rates.tenants.lock().len(), TENANTS_MAX);
        let kept = rates.of(Some(&tenant(7)), now);
        let later = now + Duration::from_secs(120);
        rates.of(Some(&tenant(TENANTS_MAX + 1)), later).take(later).unwrap();
        assert_eq!(rates.tenants.lock().len(), 2, "those who rest go");
        assert!(Arc::ptr_eq(&kept, &rates.of(Some(&tenant(7)), later)), "but not who is proved");
    }
}
