//! How often one peer may change something without a credential: a token bucket per address.

use crate::inbound::peer::Origin;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Requests at once.
const BURST: u32 = 60;
/// Until one more is allowed after that.
const INTERVAL: Duration = Duration::from_secs(1);
/// Addresses that are remembered; the buckets that are full again go first.
const PEERS_MAX: usize = 10_000;

/// When the bucket of a peer is full again; a request takes it one interval further away.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<HashMap<Option<Origin>, Instant>>);

impl Throttle {
    /// Takes a token of `peer`, or says how long until there is one again.
    pub(super) fn take(&self, mut peer: Option<Origin>, now: Instant) -> Result<(), Duration> {
        let full_at = &mut *self.0.lock();
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
            return Err(wait);
        }
        *at = now + missing + INTERVAL;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::peer::Peer;
    use std::net::IpAddr;

    fn ip(text: &str) -> Option<Origin> {
        Some(Peer::Tcp((text.parse::<IpAddr>().unwrap(), 1).into()).origin())
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
            let address = std::net::Ipv4Addr::from_bits(host << 8);
            let _ = throttle.take(Some(Origin::Address(address.into())), now);
        }
        assert!(throttle.0.lock().len() <= PEERS_MAX + 1);
    }
}
