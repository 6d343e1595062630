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

/// Addresses that are remembered as good.
const GOOD_MAX: usize = 1024;

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

/// Addresses from where credentials were good last; a later one may take the place of an earlier.
#[derive(Debug)]
pub struct GoodFrom([AtomicU64; GOOD_MAX]);

impl Default for GoodFrom {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; GOOD_MAX])
    }
}

impl GoodFrom {
    pub fn note(&self, origin: Option<Origin>) {
        let digest = digest(origin);
        self.place(digest).store(digest, Relaxed);
    }

    pub fn is(&self, origin: Option<Origin>) -> bool {
        let digest = digest(origin);
        self.place(digest).load(Relaxed) == digest
    }

    fn place(&self, digest: u64) -> &AtomicU64 {
        &self.0[(digest % GOOD_MAX as u64) as usize]
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
    fn an_address_is_known_where_a_credential_was_good() {
        let good = GoodFrom::default();
        assert!(!good.is(ip("10.0.0.1")) && !good.is(None));
        good.note(ip("10.0.0.1"));
        assert!(good.is(ip("10.0.0.1")) && !good.is(ip("10.0.0.2")));
        good.note(ip("10.0.0.2"));
        good.note(ip("10.0.0.3"));
        let known = (1..4).filter(|host| good.is(ip(&format!("10.0.0.{host}")))).count();
        assert!(known >= 2, "others do not push it out but by chance: {known}");
    }
}
