//! What a stored record says of its account, for the server and for commands without one.

use super::{
    Policy,
    error::Obstacle,
    slot::{Failure, Life, Slot},
};
use crate::{
    account::State,
    clock::Now,
    config,
    store::{self, Credential},
};

/// Why `record` gives no token, if it never will.
pub(super) fn failure(record: &Credential) -> Option<Failure> {
    let is_empty = record.refresh_token.is_empty();
    record.reauthorization_required.then_some(match is_empty {
        true => Failure::NotConnected,
        false => Failure::GrantDead,
    })
}

/// The life of the access token in `record`.
pub(super) fn life(record: &Credential, now: Now) -> Option<Life> {
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
    let mut slot = Slot::new(Policy::new(config));
    let failure = match found {
        Ok(Some(record)) => {
            if let Some(life) = life(record, now) {
                slot.expired(record.generation, life);
            }
            failure(record)
        }
        Ok(None) => (!is_seeded).then_some(Failure::NotConnected),
        Err(error) if error.is_sealed() => Some(Failure::unavailable(Obstacle::Sealed)),
        Err(_) => Some(Failure::unavailable(Obstacle::Unreadable)),
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
