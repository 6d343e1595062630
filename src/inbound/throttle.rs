//! How often one party may do something that costs: a token bucket for each, mostly per address.

use super::peer::Origin;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Parties that are remembered; the buckets that are full again go first.
const PARTIES_MAX: usize = 10_000;

/// The buckets of addresses.
pub type PeerThrottle = Throttle<Origin>;

/// When the bucket of a party is full again; a request takes it one interval further away.
#[derive(Debug)]
pub struct Throttle<K> {
    /// Requests at once.
    burst: u32,
    /// Until one more is allowed after that.
    interval: Duration,
    buckets: Mutex<Buckets<K>>,
}

#[derive(Debug)]
struct Buckets<K> {
    full_at: HashMap<Option<K>, Instant>,
    /// No sooner is it worth looking for buckets that are full again.
    purge_at: Option<Instant>,
}

impl<K: Eq + Hash> Throttle<K> {
    pub fn new(burst: u32, interval: Duration) -> Self {
        let buckets = Buckets { full_at: HashMap::new(), purge_at: None };
        Self { burst, interval, buckets: Mutex::new(buckets) }
    }

    /// Takes a token of `party`, or says how long until there is one again.
    pub fn take(&self, party: Option<K>, now: Instant) -> Result<(), Duration> {
        let buckets = &mut *self.buckets.lock();
        let party = buckets.place(party, now, self.interval);
        let at = buckets.full_at.entry(party).or_insert(now);
        self.wait(*at, now).map_or(Ok(()), Err)?;
        *at = now + at.saturating_duration_since(now) + self.interval;
        Ok(())
    }

    /// How long until `party` has a token again, if it has none. Takes nothing.
    pub fn exhausted(&self, party: Option<K>, now: Instant) -> Option<Duration> {
        let buckets = &mut *self.buckets.lock();
        let party = buckets.place(party, now, self.interval);
        self.wait(*buckets.full_at.get(&party)?, now)
    }

    fn wait(&self, full_at: Instant, now: Instant) -> Option<Duration> {
        let wait =
            full_at.saturating_duration_since(now).checked_sub((self.burst - 1) * self.interval);
        wait.filter(|wait| !wait.is_zero())
    }
}

impl<K: Eq + Hash> Buckets<K> {
    /// The bucket of `party`. More parties than are remembered share one.
    fn place(&mut self, party: Option<K>, now: Instant, interval: Duration) -> Option<K> {
        if self.full_at.len() < PARTIES_MAX || self.full_at.contains_key(&party) {
            return party;
        }
        // Before an interval is over, none that was in use is full.
        if self.purge_at.is_none_or(|at| at <= now) {
            self.full_at.retain(|_, at| *at > now);
            self.purge_at = Some(now + interval);
        }
        if self.full_at.len() < PARTIES_MAX { party } else { None }
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
        for host in 0..PARTIES_MAX as u32 + 100 {
            let _ = throttle.take(origin(host), now);
        }
        assert!(throttle.buckets.lock().full_at.len() <= PARTIES_MAX + 1);
        throttle.take(origin(1 << 20), now + Duration::from_secs(2)).unwrap();
        assert!(throttle.buckets.lock().full_at.len() <= 2);
    }
}
