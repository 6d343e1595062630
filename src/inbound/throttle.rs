//! How often one peer may do something that costs: a token bucket per address.

use super::peer::Origin;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Addresses that are remembered; the buckets that are full again go first.
const PEERS_MAX: usize = 10_000;

/// When the bucket of a peer is full again; a request takes it one interval further away.
#[derive(Debug)]
pub struct PeerThrottle {
    /// Requests at once.
    burst: u32,
    /// Until one more is allowed after that.
    interval: Duration,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    full_at: HashMap<Option<Origin>, Instant>,
    /// No sooner is it worth looking for buckets that are full again.
    purge_at: Option<Instant>,
}

impl PeerThrottle {
    pub fn new(burst: u32, interval: Duration) -> Self {
        Self { burst, interval, buckets: Mutex::default() }
    }

    /// Takes a token of `peer`, or says how long until there is one again.
    pub fn take(&self, peer: Option<Origin>, now: Instant) -> Result<(), Duration> {
        let buckets = &mut *self.buckets.lock();
        let peer = buckets.place(peer, now, self.interval);
        let at = buckets.full_at.entry(peer).or_insert(now);
        self.wait(*at, now).map_or(Ok(()), Err)?;
        *at = now + at.saturating_duration_since(now) + self.interval;
        Ok(())
    }

    /// How long until `peer` has a token again, if it has none. Takes nothing.
    pub fn exhausted(&self, peer: Option<Origin>, now: Instant) -> Option<Duration> {
        let buckets = &mut *self.buckets.lock();
        let peer = buckets.place(peer, now, self.interval);
        self.wait(*buckets.full_at.get(&peer)?, now)
    }

    fn wait(&self, full_at: Instant, now: Instant) -> Option<Duration> {
        let wait =
            full_at.saturating_duration_since(now).checked_sub((self.burst - 1) * self.interval);
        wait.filter(|wait| !wait.is_zero())
    }
}

impl Buckets {
    /// The bucket of `peer`. More addresses than are remembered share one, which is nobody's own.
    fn place(&mut self, peer: Option<Origin>, now: Instant, interval: Duration) -> Option<Origin> {
        if self.full_at.len() < PEERS_MAX || self.full_at.contains_key(&peer) {
            return peer;
        }
        // Before an interval is over, none that was in use is full.
        if self.purge_at.is_none_or(|at| at <= now) {
            self.full_at.retain(|_, at| *at > now);
            self.purge_at = Some(now + interval);
        }
        if self.full_at.len() < PEERS_MAX { peer } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::peer::Peer;
    use std::net::IpAddr;

    fn throttle() -> (PeerThrottle, Instant) {
        (PeerThrottle::new(60, Duration::from_secs(1)), Instant::now())
    }

    fn ip(text: &str) -> Option<Origin> {
        Some(Peer::Tcp((text.parse::<IpAddr>().unwrap(), 1).into()).origin())
    }

    #[test]
    fn a_flood_is_refused_and_told_when_to_come_back_while_others_are_served() {
        let (throttle, now) = throttle();
        let served = (0..3000).filter(|_| throttle.take(ip("10.0.0.1"), now).is_ok()).count();
        assert_eq!(served, 60);
        assert_eq!(throttle.take(ip("10.0.0.1"), now), Err(Duration::from_secs(1)));
        assert_eq!(throttle.take(ip("10.0.0.2"), now), Ok(()));
        let later = now + Duration::from_secs(3);
        let served = (0..10).filter(|_| throttle.take(ip("10.0.0.1"), later).is_ok()).count();
        assert_eq!(served, 3);
    }

    #[test]
    fn to_ask_takes_nothing() {
        let (throttle, now) = throttle();
        assert_eq!(throttle.exhausted(ip("10.0.0.1"), now), None);
        (0..60).for_each(|_| throttle.take(ip("10.0.0.1"), now).unwrap());
        for _ in 0..3 {
            let wait = throttle.exhausted(ip("10.0.0.1"), now);
            assert_eq!(wait, Some(Duration::from_secs(1)));
        }
        assert_eq!(throttle.exhausted(ip("10.0.0.2"), now), None);
        assert_eq!(throttle.exhausted(ip("10.0.0.1"), now + Duration::from_secs(1)), None);
    }

    #[test]
    fn one_host_has_one_bucket_however_many_addresses_it_has() {
        let (throttle, now) = throttle();
        for host in 0..60 {
            assert_eq!(throttle.take(ip(&format!("2001:db8::{host:x}")), now), Ok(()));
        }
        assert!(throttle.take(ip("2001:db8::ffff"), now).is_err());
        assert!(throttle.take(ip("2001:db8:0:1::1"), now).is_ok());
        assert!(throttle.take(ip("::ffff:10.0.0.1"), now).is_ok());
    }

    #[test]
    fn more_addresses_than_are_remembered_do_not_grow_the_table_and_go_again() {
        let (throttle, now) = throttle();
        let origin =
            |host: u32| Some(Origin::Address(std::net::Ipv4Addr::from_bits(host << 8).into()));
        for host in 0..PEERS_MAX as u32 + 100 {
            let _ = throttle.take(origin(host), now);
        }
        assert!(throttle.buckets.lock().full_at.len() <= PEERS_MAX + 1);
        throttle.take(origin(1 << 20), now + Duration::from_secs(2)).unwrap();
        assert!(throttle.buckets.lock().full_at.len() <= 2);
    }
}
