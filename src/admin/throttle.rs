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
const BURST: u32 = 60;
/// Until one more is allowed after that.
const INTERVAL: Duration = Duration::from_secs(1);
/// Addresses that are remembered; the buckets that are full again go first.
const PEERS_MAX: usize = 10_000;

/// The buckets, and what was not done since the last report.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    /// When the bucket of a peer is full again; a request takes it one interval further away.
    full_at: HashMap<Option<IpAddr>, Instant>,
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

impl Throttle {
    /// Takes a token of `peer`, or says how long until there is one again.
    pub(super) fn take(&self, peer: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        let Buckets { full_at, unreported, .. } = &mut *self.0.lock();
        let mut peer = peer.map(network);
        if full_at.len() >= PEERS_MAX && !full_at.contains_key(&peer) {
            full_at.retain(|_, at| *at > now);
            if full_at.len() >= PEERS_MAX {
                // More addresses than that at once share one bucket.
                peer = None;
            }
        }
        let at = full_at.entry(peer).or_insert(now);
        let missing = at.saturating_duration_since(now);
        if let Some(wait) = missing.checked_sub((BURST - 1) * INTERVAL).filter(|it| !it.is_zero()) {
            unreported.refused += 1;
            return Err(wait);
        }
        *at = now + missing + INTERVAL;
        Ok(())
    }

    /// Whether a refresh of `account` is worth an entry in the audit log; else it is counted: none
    /// is due so soon after the last one that was asked for.
    pub(super) fn is_refresh_due(
        &self,
        account: &AccountId,
        interval: Duration,
        now: Instant,
    ) -> bool {
        let Buckets { refreshes, unreported, .. } = &mut *self.0.lock();
        let last = refreshes.get(account);
        if last.is_some_and(|last| now.saturating_duration_since(*last) < interval) {
            unreported.idle += 1;
            return false;
        }
        refreshes.insert(account.clone(), now);
        true
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
        assert!(throttle.0.lock().full_at.len() <= PEERS_MAX + 1);
    }
}
