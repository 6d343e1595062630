//! The keys of one issuer over time: fetched now and then and when one is missing, never more than
//! once a minute; the old ones serve until new ones are read.

use super::{
    key_set::{KeySet, KeySetError},
    source::{KeySource, SourceError},
};
use crate::{
    config::{IssuerConfig, JwtAlgorithm},
    error_chain::chain,
    metrics::IssuerMetrics,
};
use arc_swap::{ArcSwap, Guard};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Release},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{sleep, timeout},
};

/// How long a request waits for a key that it needs.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Requests that wait for the keys of one issuer; others are answered at once.
const WAITERS_MAX: usize = 64;

/// How often keys are fetched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Between two attempts at least, whatever becomes of them.
    pub(super) least: Duration,
    /// Between two attempts while none fails and no key is missing.
    pub(super) usual: Duration,
}

impl Pace {
    pub(super) fn of(source: &KeySource) -> Self {
        match source {
            KeySource::File(_) => Self { least: Duration::from_secs(5), usual: Duration::ZERO },
            _ => Self { least: Duration::from_secs(60), usual: Duration::from_secs(600) },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Fetching,
    /// Too soon after an attempt for another.
    Resting,
    /// Fetches when asked.
    Ready,
}

/// The keys that an issuer's tokens are verified with.
#[derive(Debug)]
pub(super) struct Keys {
    issuer: String,
    algorithms: Vec<JwtAlgorithm>,
    current: ArcSwap<KeySet>,
    epoch: Arc<AtomicU64>,
    phase: watch::Sender<Phase>,
    wanted: Notify,
    waiters: Semaphore,
    metrics: Arc<IssuerMetrics>,
}

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
enum KeyRefreshError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the JWK set")]
    KeySet(#[from] KeySetError),
}

impl Keys {
    /// None yet.
    pub(super) fn new(
        config: &IssuerConfig,
        metrics: Arc<IssuerMetrics>,
        epoch: Arc<AtomicU64>,
    ) -> Self {
        Self {
            issuer: config.name.clone(),
            algorithms: config.algorithms.clone(),
            current: ArcSwap::default(),
            epoch,
            phase: watch::Sender::new(Phase::Fetching),
            wanted: Notify::new(),
            waiters: Semaphore::new(WAITERS_MAX),
            metrics,
        }
    }

    pub(super) fn current(&self) -> Guard<Arc<KeySet>> {
        self.current.load()
    }

    /// Asks for a fetch because a key is missing.
    fn want(&self) {
        if *self.phase.borrow() == Phase::Ready {
            self.wanted.notify_one();
        }
    }

    /// Asks for a fetch because a key is missing, and waits for its end; not at all if the last one
    /// was within the last minute, or too many wait already.
    pub(super) async fn next_fetch(&self) {
        let mut phase = self.phase.subscribe();
        self.want();
        let Ok(_place) = self.waiters.try_acquire() else { return };
        let _ = timeout(WAIT_MAX, phase.wait_for(|phase| *phase == Phase::Resting)).await;
    }

    /// Fetches by `pace` until dropped.
    ///
    /// # Cancel safety
    /// Safe: keys are built, then swapped.
    pub(super) async fn keep_fresh<F>(&self, pace: Pace, fetch: impl Fn() -> F)
    where
        F: Future<Output = Result<Vec<u8>, SourceError>>,
    {
        let mut last_error = None;
        loop {
            self.phase.send_replace(Phase::Fetching);
            let result = match fetch().await {
                Ok(document) => self.replace(&document).map_err(KeyRefreshError::from),
                Err(error) => Err(error.into()),
            };
            let is_fresh = result.is_ok();
            self.report(result, &mut last_error);
            self.phase.send_replace(Phase::Resting);
            sleep(pace.least).await;
            self.phase.send_replace(Phase::Ready);
            // Spread, so that the replicas of a server do not ask together.
            let rest =
                if is_fresh { pace.usual.saturating_sub(pace.least) } else { Duration::ZERO };
            let rest = rest + pace.least.min(pace.usual).mul_f64(random());
            let _ = timeout(rest, self.wanted.notified()).await;
        }
    }

    /// Uses the keys in `document`; says whether it is another one than before.
    pub(super) fn replace(&self, document: &[u8]) -> Result<bool, KeySetError> {
        let keys = KeySet::parse(document, &self.algorithms)?;
        if keys.is_same(&self.current.load()) {
            return Ok(false);
        }
        // In this order: whoever sees the new epoch sees the new keys.
        self.current.store(Arc::new(keys));
        self.epoch.fetch_add(1, Release);
        Ok(true)
    }

    /// Logs what changed since the attempt before.
    fn report(&self, result: Result<bool, KeyRefreshError>, last_error: &mut Option<String>) {
        let issuer = &self.issuer;
        match result {
            Ok(is_new) => {
                self.metrics.fetched();
                if is_new || last_error.take().is_some() {
                    tracing::info!(issuer, is_new, "keys of an issuer read");
                }
                *last_error = None;
            }
            Err(error) => {
                self.metrics.fetch_failed();
                let error = chain(&error);
                if last_error.as_ref() != Some(&error) {
                    tracing::warn!(
                        issuer,
                        error,
                        "keys of an issuer cannot be read; old keys stay in use"
                    );
                }
                *last_error = Some(error);
            }
        }
    }
}

/// 0 to 1.
fn random() -> f64 {
    let mut byte = [0];
    // Without randomness there is no jitter, which is no reason to stop.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    f64::from(byte[0]) / 255.0
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
