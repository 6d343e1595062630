//! How often credentials of one address may be wrong.
//!
//! What is limited is failing. A key is checked always: that costs a microsecond, and its 190 random
//! bits are beyond guessing at any rate; so a caller with a good key is served however many of its
//! neighbours, behind the same address, bring wrong ones. A failure beyond the limit is answered 429
//! in place of 403 and not logged. The signature of a JWT costs forty times as much: once an address
//! is over the limit, it is checked only for an issuer that vouched for a token from there before.

use crate::inbound::{peer::Origin, throttle::PeerThrottle};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Failures of one address at once.
const BURST: u32 = 20;
/// Until one more counts as an honest mistake.
const INTERVAL: Duration = Duration::from_secs(3);

/// The failures of all addresses, on all listeners. Only who fails takes its lock.
#[derive(Debug)]
pub struct Failures(PeerThrottle);

impl Default for Failures {
    fn default() -> Self {
        Self(PeerThrottle::new(BURST, INTERVAL))
    }
}

impl Failures {
    /// Counts a wrong credential.
    ///
    /// # Errors
    /// How long `origin` must wait before its failures are answered as such again.
    pub fn count(&self, origin: Option<Origin>, now: Instant) -> Result<(), Duration> {
        self.0.take(origin, now)
    }

    /// How long nothing costly is done for a credential of `origin`, if it failed too often.
    pub fn exhausted(&self, origin: Option<Origin>, now: Instant) -> Option<Duration> {
        self.0.exhausted(origin, now)
    }
}

/// The address from where a credential was good last.
#[derive(Debug, Default)]
pub struct GoodFrom(AtomicU64);

impl GoodFrom {
    pub fn note(&self, origin: Option<Origin>) {
        self.0.store(digest(origin), Relaxed);
    }

    pub fn is(&self, origin: Option<Origin>) -> bool {
        self.0.load(Relaxed) == digest(origin)
    }
}

/// Never 0, which is the address of nobody.
fn digest(origin: Option<Origin>) -> u64 {
    let mut hasher = DefaultHasher::new();
    origin.hash(&mut hasher);
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<Origin> {
        Some(Origin::Address(text.parse().unwrap()))
    }

    #[test]
    fn twenty_mistakes_are_answered_as_such_and_then_one_each_three_seconds() {
        let (failures, now) = (Failures::default(), Instant::now());
        assert_eq!(failures.exhausted(ip("10.0.0.1"), now), None);
        let counted = (0..100).filter(|_| failures.count(ip("10.0.0.1"), now).is_ok()).count();
        assert_eq!(counted, 20);
        assert_eq!(failures.count(ip("10.0.0.1"), now), Err(Duration::from_secs(3)));
        assert_eq!(failures.exhausted(ip("10.0.0.1"), now), Some(Duration::from_secs(3)));
        assert_eq!(failures.exhausted(ip("10.0.0.2"), now), None, "another address");
        assert_eq!(failures.count(ip("10.0.0.1"), now + Duration::from_secs(3)), Ok(()));
    }

    #[test]
    fn an_issuer_is_known_where_it_vouched_for_a_token_last() {
        let good = GoodFrom::default();
        assert!(!good.is(ip("10.0.0.1")) && !good.is(None));
        good.note(ip("10.0.0.1"));
        assert!(good.is(ip("10.0.0.1")) && !good.is(ip("10.0.0.2")));
        good.note(ip("10.0.0.2"));
        assert!(!good.is(ip("10.0.0.1")));
    }
}
