//! How often credentials of one address may be wrong.
//!
//! What is limited is failing. A key is checked always: that costs a microsecond, and its 190 random
//! bits are beyond guessing at any rate; so a caller with a good key is served however many of its
//! neighbours, behind the same address, bring wrong ones. A failure beyond the limit is answered 429
//! in place of 403 and not logged. The signature of a JWT costs forty times as much, so wrong tokens
//! count apart from wrong keys: once an address is over the limit of those, all its tokens are checked
//! only if one from there was good before, else a few each second, so that a new user gets in.

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

/// Tokens of an exhausted address that are checked all the same, at once.
const RESERVE_BURST: u32 = 20;
/// Until one more is.
const RESERVE_INTERVAL: Duration = Duration::from_millis(50);

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

    fn is_exhausted(&self, origin: Option<Origin>, now: Instant) -> bool {
        self.0.exhausted(origin, now).is_some()
    }
}

/// Which tokens are worth the check of a signature.
#[derive(Debug)]
pub struct TokenTries {
    failures: Failures,
    /// Where good tokens came from.
    good_from: GoodFrom,
    reserve: PeerThrottle,
}

impl Default for TokenTries {
    fn default() -> Self {
        Self {
            failures: Failures::default(),
            good_from: GoodFrom::default(),
            reserve: PeerThrottle::new(RESERVE_BURST, RESERVE_INTERVAL),
        }
    }
}

impl TokenTries {
    /// Asks whether a token of `origin` is to be checked.
    ///
    /// # Errors
    /// How long until one more is.
    pub fn begin(&self, origin: Origin, now: Instant) -> Result<(), Duration> {
        let from = Some(origin);
        match self.failures.is_exhausted(from, now) && !self.good_from.is(from) {
            true => self.reserve.take(from, now),
            false => Ok(()),
        }
    }

    /// Counts a wrong token.
    ///
    /// # Errors
    /// As [`Failures::count`].
    pub fn failed(&self, origin: Origin, now: Instant) -> Result<(), Duration> {
        self.failures.count(Some(origin), now)
    }

    /// Remembers where a good token came from.
    pub fn succeeded(&self, origin: Origin) {
        self.good_from.note(Some(origin));
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
        assert!(!failures.is_exhausted(ip("10.0.0.1"), now));
        let counted = (0..100).filter(|_| failures.count(ip("10.0.0.1"), now).is_ok()).count();
        assert_eq!(counted, 20);
        assert_eq!(failures.count(ip("10.0.0.1"), now), Err(Duration::from_secs(3)));
        assert!(failures.is_exhausted(ip("10.0.0.1"), now));
        assert!(!failures.is_exhausted(ip("10.0.0.2"), now), "another address");
        assert_eq!(failures.count(ip("10.0.0.1"), now + Duration::from_secs(3)), Ok(()));
    }

    #[test]
    fn an_exhausted_address_has_twenty_tokens_a_second_checked_and_a_good_one_ends_that() {
        let (tries, now) = (TokenTries::default(), Instant::now());
        let origin = |text| ip(text).unwrap();
        let checked = |now| {
            let is_checked = || tries.begin(origin("10.0.0.1"), now).is_ok();
            (0..1000)
                .filter(|_| is_checked())
                .inspect(|_| {
                    let _ = tries.failed(origin("10.0.0.1"), now);
                })
                .count()
        };
        assert_eq!(checked(now), 20 + 20, "mistakes, and the reserve");
        assert_eq!(checked(now + Duration::from_millis(500)), 10);
        assert!(tries.begin(origin("10.0.0.1"), now).is_err(), "the twin: there is an end");
        assert!(tries.begin(origin("10.0.0.2"), now).is_ok(), "another address");
        tries.succeeded(origin("10.0.0.1"));
        assert!(tries.begin(origin("10.0.0.1"), now).is_ok());
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
