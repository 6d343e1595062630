//! The places of requests in flight, shared out so that one tenant cannot hold them all.
//!
//! A tenant whose requests wait, for a token or for Amazon, holds at most half of a worker's places.

use std::{cell::RefCell, collections::HashMap};

/// How many requests of each tenant a worker has in flight.
#[derive(Debug, Default)]
pub struct TenantPlaces(RefCell<HashMap<Box<str>, usize>>);

impl TenantPlaces {
    /// Counts a request of `tenant`; says how many it has now.
    pub fn enter(&self, tenant: &str) -> usize {
        let mut tenants = self.0.borrow_mut();
        if let Some(count) = tenants.get_mut(tenant) {
            *count += 1;
            return *count;
        }
        // A tenant that has no requests stays: the next one allocates nothing.
        tenants.insert(tenant.into(), 1);
        1
    }

    pub fn leave(&self, tenant: &str) {
        if let Some(count) = self.0.borrow_mut().get_mut(tenant) {
            *count -= 1;
        }
    }
}
