//! The places of requests in flight, shared out so that nobody can hold them all.
//!
//! A tenant, or a caller without one, whose requests wait, for a token or for Amazon, holds at most
//! half of a worker's places.

use crate::config::Config;
use std::{cell::RefCell, collections::HashMap};

/// Who holds a worker's places.
#[derive(Debug, Default)]
pub struct Places {
    pub tenants: Holders,
    /// Callers without a tenant; none where there is only one caller.
    pub callers: Option<Holders>,
}

/// How many requests each has in flight, by name.
#[derive(Debug, Default)]
pub struct Holders(RefCell<HashMap<Box<str>, usize>>);

impl Places {
    pub fn new(config: &Config) -> Self {
        let has_several = config.callers.len() > 1 || !config.issuers.is_empty();
        Self { tenants: Holders::default(), callers: has_several.then(Holders::default) }
    }
}

impl Holders {
    /// Counts a request of `name`; says how many it has now.
    pub fn enter(&self, name: &str) -> usize {
        let mut holders = self.0.borrow_mut();
        if let Some(count) = holders.get_mut(name) {
            *count += 1;
            return *count;
        }
        // One that has no requests stays: the next one allocates nothing.
        holders.insert(name.into(), 1);
        1
    }

    pub fn leave(&self, name: &str) {
        if let Some(count) = self.0.borrow_mut().get_mut(name) {
            *count -= 1;
        }
    }
}
