//! What a stored record says of its account, for the server and for commands without one.

use super::{
    AccessToken, Error, Obstacle, Place, TokenManager, TokenState,
    locked::record_id,
    slot::{Life, Slot},
};
use crate::{
    account::State,
    clock::Now,
    config,
    error_chain::chain,
    grants::Unwritten,
    id::AccountId,
    store::{self, Credential, Mark},
};
use std::sync::{Arc, Weak};

/// What is known of an account's grant.
#[derive(Debug)]
pub enum KnownGrant {
    /// Its record.
    Record(Credential),
    /// There is none.
    Absent,
    /// A record that is older than one that was there before: it is not used.
    SetBack(Credential, Mark),
    /// A record that the store does not take.
    Unwritten(Box<Unwritten>),
    /// The record cannot be read.
    Unreadable(store::Error),
}

impl TokenManager {
    /// The state of an account at its place with what is known of its grant. It is found by id once
    /// it is in [`TokenManager::set_states`].
    pub fn new_state(&self, id: &AccountId, place: Place, grant: KnownGrant) -> Arc<TokenState> {
        let now = self.0.with.clock.now();
        let config = self.0.config.clone();
        let state = Arc::new(TokenState::new(id, self.shared_place(place), config));
        match grant {
            KnownGrant::Record(record) => self.load(&state, &record),
            KnownGrant::Absent => state.fail(Error::NotConnected, "not connected", now),
            KnownGrant::SetBack(record, mark) => {
                // From now on it is known what is too old.
                state.remember_mark(&mark);
                state.remember_consent(&record);
                let error = store::Error::set_back(id);
                let failure = Error::unavailable(Obstacle::of_store(&error));
                state.fail(failure, &chain(&error), now);
            }
            KnownGrant::Unreadable(error) => {
                let failure = Error::unavailable(Obstacle::of_store(&error));
                state.fail(failure, &chain(&error), now);
            }
            // Serves from memory, and is saved when that can be.
            KnownGrant::Unwritten(unwritten) => {
                let Unwritten { record, stored, error } = *unwritten;
                state.lock().stored = stored.as_ref().map(record_id);
                state.remember_consent(&record);
                self.put_off(&state, record, &error);
            }
        }
        state
    }

    /// Uses what the record says. A token that is still good is used without a refresh.
    fn load(&self, state: &Arc<TokenState>, record: &Credential) {
        let now = self.0.with.clock.now();
        state.saw(record);
        state.remember_consent(record);
        self.remember_steady(state, record, record.is_known_steady());
        if record.reauthorization_required {
            // It was reported then.
            self.0.reported.lock().dead.insert(state.id.clone());
        }
        if let Some(failure) = failure(record) {
            let why = match failure {
                Error::NotConnected => "the account was logged out",
                _ => "the grant is dead",
            };
            return state.fail(failure, why, now);
        }
        if let Some(token) = self.stored_token(record, now) {
            if token.life().is_expired(now) {
                state.lock().slot.set_token(token.generation, token.life());
            } else {
                self.report_usable(state, &token, now.unix());
                state.publish(token);
            }
        }
        self.0.background.push(state, now);
    }

    /// Uses the token of `record`, if another process has refreshed the grant: it need not be leased
    /// for that.
    pub(crate) fn install(&self, state: &Arc<TokenState>, record: &Credential) {
        let now = self.0.with.clock.now();
        let token = self.stored_token(record, now).filter(|token| !token.life().is_expired(now));
        if token.is_some_and(|token| state.install(token, record)) {
            self.remember_steady(state, record, record.is_known_steady());
            self.0.background.push(state, now);
        }
    }

    /// Remembers the refresh token of a grant that Login with Amazon `is_steady` with, where the
    /// store may be away while Amazon is not.
    pub(super) fn remember_steady(&self, state: &TokenState, record: &Credential, is_steady: bool) {
        if self.0.with.grants.store().is_shared() {
            state.keep_steady(Some(record).filter(|_| is_steady));
        }
    }

    /// One place for all accounts that belong there: with many accounts there are few.
    fn shared_place(&self, place: Place) -> Arc<Place> {
        let mut known = self.0.places.lock();
        known.retain(|place| place.strong_count() > 0);
        let is_same = |one: &Arc<Place>| {
            Arc::ptr_eq(&one.application, &place.application)
                && (one.region, one.authority) == (place.region, place.authority)
        };
        if let Some(same) = known.iter().filter_map(Weak::upgrade).find(is_same) {
            return same;
        }
        let place = Arc::new(place);
        known.push(Arc::downgrade(&place));
        place
    }

    /// Moves an account, with the token it has; that its application was rejected is forgotten.
    pub fn move_state(&self, state: &Arc<TokenState>, place: Place) {
        state.set_place(self.shared_place(place));
        self.forget_rejection(state);
    }

    /// Tries an account again whose application was rejected: it is another one, or has another
    /// secret.
    pub fn forget_rejection(&self, state: &Arc<TokenState>) {
        let now = self.0.with.clock.now();
        let mut locked = state.lock();
        if locked.slot.state(now) == State::ApplicationRejected {
            locked.slot.reconnected();
            drop(locked);
            self.0.background.push(state, now);
        }
    }

    /// Whether only another record, or a record that can be read, helps the account.
    pub(crate) fn is_stuck(&self, state: &TokenState) -> bool {
        state.lock().slot.state(self.0.with.clock.now()).needs_record()
    }

    /// Forgets failures if `record` brings a grant that is not known to be dead.
    pub(crate) fn reconnected(&self, state: &Arc<TokenState>, record: &Credential) -> bool {
        let mut locked = state.lock();
        if record.reauthorization_required || locked.is_dead(record) {
            return false;
        }
        locked.slot.reconnected();
        locked.set_error(None);
        drop(locked);
        self.load(state, record);
        true
    }

    /// The access token in `record`, which may have expired.
    pub(super) fn stored_token(&self, record: &Credential, now: Now) -> Option<AccessToken> {
        self.token_of(record, life(record, now)?)
    }

    /// The access token in `record`, if it is fit for a header.
    pub(super) fn token_of(&self, record: &Credential, life: Life) -> Option<AccessToken> {
        let token = &record.access_token.as_ref()?.token;
        AccessToken::new(token, record.generation, life, self.0.config.refresh_buffer)
    }
}

/// Why `record` gives no token, if it never will.
fn failure(record: &Credential) -> Option<Error> {
    let is_empty = record.refresh_token.is_empty();
    record.reauthorization_required.then_some(match is_empty {
        true => Error::NotConnected,
        false => Error::ReauthorizationRequired,
    })
}

/// The life of the access token in `record`.
fn life(record: &Credential, now: Now) -> Option<Life> {
    let stored = record.access_token.as_ref()?;
    Some(Life::stored(stored.issued_at, stored.expires_at, now))
}

/// The state of an account that the store says `found` of, as a server that has just started would
/// show it. `is_seeded`: the configuration has a refresh token for it.
pub fn stored_state(
    found: Result<Option<&Credential>, &store::Error>,
    is_seeded: bool,
    config: &config::Token,
    now: Now,
) -> State {
    let mut slot = Slot::new(Arc::new(config.clone()));
    let failure = match found {
        Ok(Some(record)) => {
            if let Some(life) = life(record, now) {
                slot.set_token(record.generation, life);
            }
            failure(record)
        }
        Ok(None) => (!is_seeded).then_some(Error::NotConnected),
        Err(error) if error.is_sealed() => Some(Error::unavailable(Obstacle::Sealed)),
        Err(_) => Some(Error::unavailable(Obstacle::Unreadable)),
    };
    if let Some(failure) = failure {
        slot.failed(failure, now);
    }
    slot.state(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{Clock, ManualClock},
        secret::Secret,
        store::{Epoch, StoredAccessToken},
    };

    fn config() -> config::Token {
        config::Token::default()
    }

    #[test]
    fn a_record_has_the_state_that_a_server_would_show() {
        let now = ManualClock::new().now();
        let token = |age: u64| StoredAccessToken {
            token: "Atza|x".into(),
            issued_at: now.unix() - age,
            expires_at: now.unix() - age + 3600,
        };
        let idle = Credential {
            epoch: Epoch::random(),
            account: "acme".parse().expect("an alias"),
            application: "default".into(),
            region: crate::id::Region::Na,
            refresh_token: "Atzr|x".into(),
            previous_refresh_token: None,
            access_token: None,
            generation: 1,
            consented_at: None,
            updated_at: 0,
            reauthorization_required: false,
            seed: None,
            unknown: Default::default(),
        };
        let with = |age| Credential { access_token: Some(token(age)), ..idle.clone() };
        let dead = Credential { reauthorization_required: true, ..idle.clone() };
        let out = Credential { refresh_token: Secret::from(""), ..dead.clone() };
        for (record, state) in [
            (&idle, State::Idle),
            (&with(0), State::Fresh),
            (&with(3400), State::Due),
            (&with(3600), State::Expired),
            (&dead, State::ReauthorizationRequired),
            (&out, State::NotConnected),
        ] {
            assert_eq!(stored_state(Ok(Some(record)), true, &config(), now), state);
        }
        assert_eq!(stored_state(Ok(None), true, &config(), now), State::Idle);
        assert_eq!(stored_state(Ok(None), false, &config(), now), State::NotConnected);
        let error = store::Error::Random;
        assert_eq!(stored_state(Err(&error), true, &config(), now), State::Unreadable);
    }
}
