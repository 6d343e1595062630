//! How often one peer may change something without a credential: a token bucket per address.

use crate::id::AccountId;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    mem,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Requests at once.
const BURST: f64 = 60.0;
/// Requests per second after that.
const RATE: f64 = 1.0;
/// Addresses that are remembered; the buckets that are full again go first.
const PEERS_MAX: usize = 10_000;

/// The buckets, and what was not done since the last report.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    buckets: HashMap<Option<IpAddr>, Bucket>,
    /// When a refresh of an account was last asked for and recorded.
    refreshes: HashMap<AccountId, Instant>,
    unreported: Unreported,
}

/// Requests that changed nothing, to be recorded together.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreported {
    /// Refused: the bucket was empty.
    pub(super) refused: u64,
    /// Asked for a refresh where none was due.
    pub(super) idle: u64,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * RATE).min(BURST);
        self.filled = now;
    }
}

impl Throttle {
    /// Takes a token of `peer`.
    ///
    /// # Errors
    /// How long until there is one again.
    pub(super) fn take(&self, peer: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        let state = &mut *self.0.lock();
        let peer = peer.map(network);
        if state.buckets.len() >= PEERS_MAX && !state.buckets.contains_key(&peer) {
            state.buckets.retain(|_, bucket| {
                bucket.fill(now);
                bucket.tokens < BURST
            });
        }
        // More addresses than that at once share one bucket.
        let peer = if state.buckets.len() >= PEERS_MAX { None } else { peer };
        let full = || Bucket { tokens: BURST, filled: now };
        let bucket = state.buckets.entry(peer).or_insert_with(full);
        bucket.fill(now);
        if bucket.tokens < 1.0 {
            state.unreported.refused += 1;
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / RATE));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }

    /// Says whether a refresh of `account` is worth an entry in the audit log; else counts it: none
    /// is due so soon after the last one that was asked for.
    pub(super) fn is_refresh_due(
        &self,
        account: &AccountId,
        interval: Duration,
        now: Instant,
    ) -> bool {
        let state = &mut *self.0.lock();
        let last = state.refreshes.get(account);
        let is_due = last.is_none_or(|last| now.saturating_duration_since(*last) >= interval);
        if is_due {
            state.refreshes.insert(account.clone(), now);
        } else {
            state.unreported.idle += 1;
        }
        is_due
    }

    /// What was counted since this was called last.
    pub(super) fn report(&self) -> Unreported {
        mem::take(&mut self.0.lock().unreported)
    }
}

/// One host has a whole /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_flood_is_refused_and_told_when_to_come_back_while_others_are_served() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let served = (0..3000).filter(|_| throttle.take(ip("10.0.0.1"), now).is_ok()).count();
        assert_eq!(served, 60);
        assert_eq!(throttle.take(ip("10.0.0.1"), now), Err(Duration::from_secs(1)));
        assert_eq!(throttle.take(ip("10.0.0.2"), now), Ok(()));
        let later = now + Duration::from_secs(3);
        let served = (0..10).filter(|_| throttle.take(ip("10.0.0.1"), later).is_ok()).count();
        assert_eq!(served, 3);
        assert_eq!(throttle.report(), Unreported { refused: 2941 + 7, idle: 0 });
        assert_eq!(throttle.report(), Unreported::default());
    }

    #[test]
    fn a_refresh_that_cannot_be_due_is_counted_and_not_recorded() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let (acme, globex) = ("acme".parse().unwrap(), "globex".parse().unwrap());
        let is_due = |account, secs| {
            let later = now + Duration::from_secs(secs);
            throttle.is_refresh_due(account, Duration::from_secs(30), later)
        };
        assert!(is_due(&acme, 0) && is_due(&globex, 1));
        assert!(!(0..40).any(|_| is_due(&acme, 29)));
        assert!(is_due(&acme, 30));
        assert_eq!(throttle.report(), Unreported { refused: 0, idle: 40 });
    }

    #[test]
    fn one_host_has_one_bucket_however_many_addresses_it_has() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for host in 0..60 {
            assert_eq!(throttle.take(ip(&format!("2001:db8::{host:x}")), now), Ok(()));
        }
        assert!(throttle.take(ip("2001:db8::ffff"), now).is_err());
        assert!(throttle.take(ip("2001:db8:0:1::1"), now).is_ok());
        assert!(throttle.take(ip("::ffff:10.0.0.1"), now).is_ok());
    }

    #[test]
    fn more_addresses_than_are_remembered_do_not_grow_the_table() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for host in 0..PEERS_MAX as u32 + 100 {
            let _ = throttle.take(Some(std::net::Ipv4Addr::from_bits(host << 8).into()), now);
        }
        assert!(throttle.0.lock().buckets.len() <= PEERS_MAX + 1);
    }
}
