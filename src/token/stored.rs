//! What a stored record says of its account, for the server and for commands without one.

use super::{
    AccessToken, Authority, Error, Obstacle, TokenManager, TokenState,
    slot::{Life, Slot},
    state::record_id,
};
use crate::{
    account::State,
    clock::Now,
    config,
    error_chain::chain,
    grants::Unwritten,
    id::{AccountId, Region},
    lwa::Application,
    store::{self, Credential},
};
use std::sync::Arc;

/// What is known of an account's grant.
#[derive(Debug)]
pub enum KnownGrant {
    /// Its record.
    Record(Credential),
    /// There is none.
    Absent,
    /// A record that the store does not take.
    Unwritten(Box<Unwritten>),
    /// The record cannot be read.
    Unreadable(store::Error),
}

impl TokenManager {
    /// The state of an account with what is known of its grant; `authority` says what decided on
    /// `region` and `application`. It is found by id once it is in [`TokenManager::set_states`].
    pub fn new_state(
        &self,
        id: &AccountId,
        region: Region,
        application: Arc<Application>,
        authority: Authority,
        grant: KnownGrant,
    ) -> Arc<TokenState> {
        let now = self.0.with.clock.now();
        let config = self.0.config.clone();
        let state = Arc::new(TokenState::new(id, region, application, authority, config));
        match grant {
            KnownGrant::Record(record) => self.load(&state, &record),
            KnownGrant::Absent => state.fail(Error::NotConnected, "not connected", now),
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
        state.lock().stored = Some(record_id(record));
        state.remember_consent(record);
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
            if token.life.is_expired(now) {
                state.lock().slot.set_token(token.generation, token.life);
            } else {
                self.report_usable(state, &token, now.unix());
                state.publish(token);
            }
        }
        self.0.background.push(state, now);
    }

    /// Whether only another record, or a record that can be read, helps the account.
    pub(crate) fn is_stuck(&self, state: &TokenState) -> bool {
        state.lock().slot.state(self.0.with.clock.now()).needs_record()
    }

    /// Forgets failures if `record` brings a grant that is not known to be dead.
    pub(crate) fn reconnected(&self, state: &Arc<TokenState>, record: &Credential) -> bool {
        let mut locked = state.lock();
        if record.reauthorization_required || locked.dead == Some(record_id(record)) {
            return false;
        }
        locked.slot.reconnected();
        locked.last_error = None;
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
