//! What a worker has for requests in flight, shared out so that no party can hold all of it.
//!
//! A party is a tenant, or a caller without one. One whose requests wait, for a token or for Amazon,
//! holds at most half of a worker's places, and of its connections to each host. What comes before
//! that is known, the form of a token endpoint, has a small part of them; there the party is the
//! address.

use crate::{callers::Principal, forward::ConnectionShare, inbound::peer::Origin};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
};

/// Addresses that are remembered while none of their requests is open.
const IDLE_ADDRESSES_MAX: usize = 256;

/// Who holds a worker's places.
#[derive(Debug, Default)]
pub struct Places {
    pub tenants: Parties,
    /// Callers without a tenant.
    pub callers: Parties,
    /// Senders that are not known.
    addresses: RefCell<HashMap<Origin, Rc<Party>>>,
    /// All of those together.
    unknown: Rc<Party>,
}

/// Some of them, by name.
#[derive(Debug, Default)]
pub struct Parties(RefCell<HashMap<Box<str>, Rc<Party>>>);

#[derive(Debug, Default)]
struct Party {
    requests: Cell<usize>,
    connections: Rc<ConnectionShare>,
}

/// The place of one request, which is free again when this is dropped.
#[derive(Debug)]
pub struct TakenPlace(Rc<Party>);

impl Places {
    /// Counts a request of `principal`.
    pub fn enter(&self, principal: &Principal) -> TakenPlace {
        match &principal.tenant {
            Some(tenant) => self.tenants.enter(tenant.as_str()),
            None => self.callers.enter(&principal.caller.name),
        }
    }

    /// Counts a request of a sender that is not known: by its address, and with all such.
    pub fn enter_unknown(&self, origin: Origin) -> [TakenPlace; 2] {
        let mut addresses = self.addresses.borrow_mut();
        if addresses.len() >= IDLE_ADDRESSES_MAX {
            // What stays has a request open, of which there are only so many.
            addresses.retain(|_, party| party.requests.get() > 0);
        }
        let own = addresses.entry(origin).or_default().clone();
        [TakenPlace::of(own), TakenPlace::of(self.unknown.clone())]
    }
}

impl Parties {
    /// Counts a request of `name`.
    pub fn enter(&self, name: &str) -> TakenPlace {
        let mut parties = self.0.borrow_mut();
        let party = match parties.get(name) {
            Some(party) => party.clone(),
            // One that has no requests stays: the next one allocates nothing.
            None => parties.entry(name.into()).or_default().clone(),
        };
        TakenPlace::of(party)
    }
}

impl TakenPlace {
    fn of(party: Rc<Party>) -> Self {
        party.requests.update(|requests| requests + 1);
        Self(party)
    }

    /// How many its party has now.
    pub fn requests(&self) -> usize {
        self.0.requests.get()
    }

    pub fn connections(&self) -> &Rc<ConnectionShare> {
        &self.0.connections
    }
}

impl Drop for TakenPlace {
    fn drop(&mut self) {
        self.0.requests.update(|requests| requests - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(number: u32) -> Origin {
        Origin::Address(std::net::Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn addresses_count_apart_and_together() {
        let places = Places::default();
        let held: Vec<_> = (0..6).map(|at| places.enter_unknown(origin(at % 2))).collect();
        let [own, all] = places.enter_unknown(origin(0));
        assert_eq!((own.requests(), all.requests()), (4, 7));
        drop((held, own, all));
        let [own, all] = places.enter_unknown(origin(0));
        assert_eq!((own.requests(), all.requests()), (1, 1));
    }

    #[test]
    fn addresses_without_an_open_request_are_forgotten_and_others_are_not() {
        let places = Places::default();
        let held = places.enter_unknown(origin(0));
        (1..10_000).for_each(|number| drop(places.enter_unknown(origin(number))));
        assert!(places.addresses.borrow().len() <= IDLE_ADDRESSES_MAX);
        assert_eq!(places.enter_unknown(origin(0))[0].requests(), 2);
        drop(held);
    }
}
