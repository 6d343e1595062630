//! The places for calls to LWA, shared out so that one tenant cannot hold them all.
//!
//! A tenant holds at most half of them, whatever its application does: one that hangs costs no other
//! tenant a refresh. Accounts without a tenant belong to the operator and have no share of their own.

use crate::id::AccountId;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

#[derive(Debug)]
pub(super) struct LwaPlaces {
    max: usize,
    all: Semaphore,
    /// The halves of tenants that have calls under way, or waiting.
    tenants: Mutex<HashMap<Box<str>, Arc<Semaphore>>>,
}

/// One place. The tenant's is given back last.
#[derive(Debug)]
pub(super) struct LwaPlace<'a> {
    _place: SemaphorePermit<'a>,
    _of_tenant: Option<OwnedSemaphorePermit>,
}

impl LwaPlaces {
    pub(super) fn new(max: usize) -> Self {
        Self { max, all: Semaphore::new(max), tenants: Mutex::default() }
    }

    /// Waits for a place; `waits` is called if there is none at once.
    ///
    /// # Cancel safety
    /// Safe: the turn is lost.
    pub(super) async fn take(&self, account: &AccountId, waits: impl FnOnce()) -> LwaPlace<'_> {
        let share = account.tenant().map(|tenant| self.share(tenant));
        let is_full = share.as_ref().is_some_and(|share| share.available_permits() == 0);
        if is_full || self.all.available_permits() == 0 {
            waits();
        }
        // First the tenant's: those that wait for it stand in no other's way.
        let of_tenant = match share {
            None => None,
            Some(share) => Some(share.acquire_owned().await.expect("it is never closed")),
        };
        let place = self.all.acquire().await.expect("it is never closed");
        LwaPlace { _place: place, _of_tenant: of_tenant }
    }

    /// Waits until no place is taken, and lets none be taken any more.
    pub(super) async fn close(&self) {
        let all = u32::try_from(self.max).unwrap_or(u32::MAX);
        if let Ok(permits) = self.all.acquire_many(all).await {
            permits.forget();
        }
    }

    fn share(&self, tenant: &str) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock();
        let half = half(self.max);
        tenants.retain(|_, share| Arc::strong_count(share) > 1 || share.available_permits() < half);
        match tenants.entry(tenant.into()) {
            Entry::Occupied(entry) => entry.get().clone(),
            Entry::Vacant(entry) => entry.insert(Arc::new(Semaphore::new(half))).clone(),
        }
    }
}

/// What one tenant may hold of `max` places.
pub(super) fn half(max: usize) -> usize {
    (max / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::pin::pin;

    fn id(text: &str) -> AccountId {
        text.parse().expect("an id")
    }

    #[tokio::test]
    async fn a_tenant_holds_half_and_those_without_a_tenant_all() {
        let places = LwaPlaces::new(4);
        let (a, b, nobody) = (id("a~1"), id("b~1"), id("acme"));
        let take = |account| places.take(account, || ());
        let (first, _second) = (take(&a).await, take(&a).await);
        let mut waits = pin!(take(&a));
        assert!(waits.as_mut().now_or_never().is_none(), "a has its half");
        let _of_b = take(&b).now_or_never().expect("b has a half, too");
        let last = take(&nobody).now_or_never().expect("one is free");
        let mut full = pin!(take(&nobody));
        assert!(full.as_mut().now_or_never().is_none());
        drop(last);
        let _taken = full.now_or_never().expect("it came free");
        drop(first);
        assert!(waits.as_mut().now_or_never().is_some());
    }

    #[test]
    fn a_single_place_serves_all_and_what_is_idle_is_forgotten() {
        let places = LwaPlaces::new(1);
        for number in 0..100 {
            let account = id(&format!("t{number}~acme"));
            let taken = places.take(&account, || panic!("there is one"));
            assert!(taken.now_or_never().is_some());
        }
        assert!(places.tenants.lock().len() <= 1);
    }
}
