//! Sessions that the store has confirmed a moment ago: they may still read while it is away, so that an
//! operator sees what works and what does not.
//!
//! Another server may have ended one meanwhile, which a minute bounds. What this server ended is marked
//! before the store is asked to delete it: a request that has read it before does not bring it back.

use super::{cookie::SessionCookie, session::BrowserSession};
use crate::clock::Now;
use parking_lot::Mutex;
use std::{collections::HashMap, time::Duration};

/// How long a session is good without the store, and how long the mark of one that has ended is kept:
/// longer than any request reads.
const LIFETIME: Duration = Duration::from_secs(60);
/// Sessions at a time. Marks are as many as sessions end in a minute, which the store limits.
const SESSIONS_MAX: usize = 1000;

#[derive(Default)]
pub(super) struct VerifiedSessions(Mutex<HashMap<String, VerifiedSession>>);

/// What is known of a session, and since when.
struct VerifiedSession {
    at: Now,
    /// None for one that has ended.
    session: Option<BrowserSession>,
}

impl VerifiedSessions {
    /// Keeps `session`, which the store had at the time `at`, unless it has ended here or there are too
    /// many.
    pub(super) fn keep(&self, name: &str, session: &BrowserSession, at: Now) {
        let mut known = self.0.lock();
        if known.len() >= SESSIONS_MAX {
            known.retain(|_, it| it.is_fresh(at));
        }
        let has_place = known.contains_key(name) || known.len() < SESSIONS_MAX;
        let has_ended = known.get(name).is_some_and(|it| it.session.is_none() && it.is_fresh(at));
        if has_place && !has_ended {
            known.insert(name.to_owned(), VerifiedSession { at, session: Some(session.clone()) });
        }
    }

    /// Marks the session `name` as one that has ended.
    pub(super) fn end(&self, name: &str, at: Now) {
        let mut known = self.0.lock();
        if known.len() >= SESSIONS_MAX {
            known.retain(|_, it| it.is_fresh(at));
        }
        known.insert(name.to_owned(), VerifiedSession { at, session: None });
    }

    /// Forgets the session `name`, which the store does not have.
    pub(super) fn forget(&self, name: &str) {
        let mut known = self.0.lock();
        if known.get(name).is_some_and(|it| it.session.is_some()) {
            known.remove(name);
        }
    }

    /// The session that `cookie` is of, if the store had it a moment ago.
    pub(super) fn get(&self, cookie: &SessionCookie, now: Now) -> Option<BrowserSession> {
        let known = self.0.lock();
        let session = known.get(&cookie.name).filter(|it| it.is_fresh(now))?.session.as_ref();
        session.filter(|it| it.is_of(cookie)).cloned()
    }
}

impl VerifiedSession {
    /// By both clocks: one stands still while the machine is suspended, the other may be set.
    fn is_fresh(&self, now: Now) -> bool {
        now.mono.saturating_duration_since(self.at.mono) < LIFETIME
            && now.wall.saturating_sub(self.at.wall) < LIFETIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::dashboard::session::tests::session_of,
        clock::{Clock as _, ManualClock},
    };

    #[test]
    fn a_session_is_known_for_a_minute_by_its_cookie_only() {
        let (sessions, clock) = (VerifiedSessions::default(), ManualClock::new());
        let [one, other] = ["0123456789abcdef"; 2].map(|tag| SessionCookie::new(tag, false));
        let forged = SessionCookie { name: one.name.clone(), ..SessionCookie::new("a", false) };
        sessions.keep(&one.name, &session_of(&one), clock.now());
        clock.advance(LIFETIME - Duration::from_secs(1));
        assert!(sessions.get(&one, clock.now()).is_some());
        assert!(sessions.get(&other, clock.now()).is_none());
        assert!(sessions.get(&forged, clock.now()).is_none());
        clock.set_wall(clock.now().wall + Duration::from_secs(1));
        assert!(sessions.get(&one, clock.now()).is_none());
    }

    #[test]
    fn one_that_has_ended_does_not_come_back_and_there_is_a_limit() {
        let (sessions, clock) = (VerifiedSessions::default(), ManualClock::new());
        let one = SessionCookie::new("0123456789abcdef", false);
        let session = session_of(&one);
        sessions.keep(&one.name, &session, clock.now());
        sessions.end(&one.name, clock.now());
        sessions.forget(&one.name);
        sessions.keep(&one.name, &session, clock.now());
        assert!(sessions.get(&one, clock.now()).is_none());
        for number in 0..2 * SESSIONS_MAX {
            sessions.keep(&number.to_string(), &session, clock.now());
        }
        assert_eq!(sessions.0.lock().len(), SESSIONS_MAX);
        clock.advance(LIFETIME);
        sessions.keep(&one.name, &session, clock.now());
        assert_eq!(sessions.0.lock().len(), 1, "those that are too old make room");
        sessions.forget(&one.name);
        assert!(sessions.get(&one, clock.now()).is_none());
    }
}
