//! Events of grants and tokens, and their subscribers within the program.
//!
//! An event names accounts and reasons, never a secret.

use crate::{id::AccountId, named::named};
use parking_lot::RwLock;
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

named! {
    /// What happened, in the order of the documentation.
    pub enum Kind {
        /// A new access token is in use.
        TokenRefreshed = "token.refreshed",
        /// A refresh brought no token: reported for the first failure in a row, and then each time
        /// that their number doubles.
        TokenRefreshFailed = "token.refresh_failed",
        /// The grant is dead: a person must connect the account again.
        ReauthorizationRequired = "grant.reauthorization_required",
        /// An account whose grant was dead has a token again.
        Recovered = "grant.recovered",
        /// The grant ends within 30 days, or has ended by now: once a day.
        Expiring = "grant.expiring",
        /// Login with Amazon rejects the application's client id or secret: once until it is
        /// accepted.
        ApplicationRejected = "application.rejected",
        /// The store does not take records; tokens are served from memory: once until it does.
        StoreDegraded = "store.degraded",
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: Kind,
    /// Whose account, where it concerns one.
    pub account: Option<AccountId>,
    /// The LWA application it concerns, by its name in the configuration.
    pub application: Option<String>,
    /// When, in seconds since 1970.
    pub at: u64,
    /// The generation of the access token in use, where there is one.
    pub generation: Option<u64>,
    /// Why, as a stable code: `invalid_grant`, `lwa_unavailable`, …
    pub reason: Option<&'static str>,
    /// How many days the consent still lasts, if known.
    pub days_left: Option<i64>,
    /// The request that a refresh was begun for; none if it was begun ahead of the expiry.
    pub request_id: Option<String>,
    /// The server's own id of that request, where `request_id` is the caller's.
    pub server_request_id: Option<String>,
}

impl Event {
    /// An event of `kind` at `at` (seconds since 1970) that names nothing yet.
    pub fn new(kind: Kind, at: u64) -> Self {
        Self {
            kind,
            account: None,
            application: None,
            at,
            generation: None,
            reason: None,
            days_left: None,
            request_id: None,
            server_request_id: None,
        }
    }
}

type Subscriber = Box<dyn Fn(&Event) + Send + Sync>;

/// The subscribers of one engine. Cheap to clone.
#[derive(Clone, Default)]
pub struct Events(Arc<RwLock<Vec<Subscriber>>>);

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events({})", self.0.read().len())
    }
}

impl Events {
    /// Calls `subscriber` for every event from now on, in the thread where it happens.
    ///
    /// It must not block and must not subscribe: it takes note, for instance by a channel, and does
    /// its work elsewhere. A panic in it is logged and goes no further.
    pub fn subscribe(&self, subscriber: impl Fn(&Event) + Send + Sync + 'static) {
        self.0.write().push(Box::new(subscriber));
    }

    pub(crate) fn emit(&self, event: &Event) {
        for subscriber in &*self.0.read() {
            if catch_unwind(AssertUnwindSafe(|| subscriber(event))).is_err() {
                tracing::error!(event = event.kind.as_str(), "a subscriber of events panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[test]
    fn every_listener_hears_what_happens_after_it_came_in_order() {
        let events = Events::default();
        let heard = Arc::new(Mutex::new(Vec::new()));
        events.emit(&Event::new(Kind::Recovered, 1));
        for name in ["first", "second"] {
            let heard = heard.clone();
            events.subscribe(move |event| heard.lock().push((name, event.kind, event.at)));
        }
        events.clone().emit(&Event::new(Kind::Expiring, 2));
        assert_eq!(*heard.lock(), [("first", Kind::Expiring, 2), ("second", Kind::Expiring, 2)]);
    }

    #[test]
    fn a_listener_that_panics_harms_nobody() {
        let events = Events::default();
        let heard = Arc::new(Mutex::new(0));
        events.subscribe(|_| panic!("a listener's own mistake"));
        let count = heard.clone();
        events.subscribe(move |_| *count.lock() += 1);
        events.emit(&Event::new(Kind::Recovered, 1));
        events.emit(&Event::new(Kind::Recovered, 2));
        assert_eq!(*heard.lock(), 2);
    }

    #[test]
    fn names_are_those_of_the_documentation_and_differ() {
        let mut names = Kind::ALL.map(Kind::as_str).to_vec();
        assert!(names.iter().all(|name| name.split_once('.').is_some()));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
