//! How old the keys of the issuers of JWTs are.

use super::encode::Exposition;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// Of one issuer.
#[derive(Debug)]
pub struct IssuerMetrics {
    name: String,
    fetched: Mutex<Option<Instant>>,
    failures: AtomicU64,
}

impl IssuerMetrics {
    pub(super) fn new(name: &str) -> Arc<Self> {
        let (fetched, failures) = (Mutex::default(), AtomicU64::default());
        Arc::new(Self { name: name.to_owned(), fetched, failures })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Notes that the keys were read now.
    pub fn fetched(&self) {
        *self.fetched.lock() = Some(Instant::now());
    }

    /// Counts an attempt to read keys that failed.
    pub fn fetch_failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }
}

pub(super) fn render(issuers: &[Arc<IssuerMetrics>], page: &mut Exposition) {
    let ages = issuers.iter().filter_map(|issuer| {
        let fetched = *issuer.fetched.lock();
        Some((issuer.name.as_str(), fetched?.elapsed().as_secs()))
    });
    let help = "Since the keys of an issuer were read last; absent until they were.";
    page.by_label("adsproxy_jwks_age_seconds", help, "issuer", ages);
    let failures = issuers.iter().map(|one| (one.name.as_str(), one.failures.load(Relaxed)));
    let help = "Attempts to read the keys of an issuer that failed.";
    page.by_label("adsproxy_jwks_fetch_failures_total", help, "issuer", failures);
}
