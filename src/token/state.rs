//! The state of one account's token, found by the account's id.

use super::{AccessToken, Error, consent::days_left, slot::Slot};
use crate::{
    account::AccountView,
    clock::Now,
    config,
    id::{AccountId, Region},
    lwa::Application,
    store::{Credential, Epoch},
};
use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, MutexGuard};
use std::{collections::BTreeMap, fmt, sync::Arc};
use tokio::sync::{Semaphore, watch};

/// What decides on the region and application of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The configuration, whatever the record says.
    Configuration,
    /// The record: a grant of another application must never be shown to this one.
    Record,
    /// Neither yet: the configured account could not be seeded or read. Nothing is refreshed.
    Undecided,
}

/// The state of one account's token: what callers read without a lock, and the rest under one.
pub struct TokenState {
    pub(crate) id: AccountId,
    region: Region,
    pub(crate) application: Arc<Application>,
    authority: Authority,
    /// Written under the lock.
    pub(super) current: ArcSwapOption<AccessToken>,
    pub(super) finished: watch::Sender<()>,
    /// Bounds the callers that wait for the token.
    pub(super) waiters: Semaphore,
    locked: Mutex<Locked>,
}

/// The states of accounts by their ids.
pub type StateTable = BTreeMap<AccountId, Arc<TokenState>>;

/// What is read and written under the lock.
#[derive(Default)]
pub(super) struct Locked {
    pub slot: Slot,
    pub last_error: Option<String>,
    /// The newest record, while the store does not take it; the second part counts them.
    pub unsaved: Option<(Credential, Arc<()>)>,
    /// The record in the store, as this process last read or wrote it.
    pub stored: Option<RecordId>,
    /// The record whose grant LWA called dead, which the store does not say yet.
    pub dead: Option<RecordId>,
    /// Seconds since 1970.
    pub consented_at: Option<u64>,
    /// The request that the refresh under way was begun for.
    pub request_id: Option<String>,
}

/// Which record of an account it is: another one after each consent and each refresh.
pub(super) type RecordId = (Epoch, u64);

pub(super) fn record_id(record: &Credential) -> RecordId {
    (record.epoch, record.generation)
}

impl fmt::Debug for TokenState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenState").field("id", &self.id).finish_non_exhaustive()
    }
}

impl TokenState {
    pub(super) fn new(
        id: &AccountId,
        region: Region,
        application: Arc<Application>,
        authority: Authority,
        config: Arc<config::Token>,
    ) -> Self {
        Self {
            id: id.clone(),
            region,
            application,
            authority,
            current: ArcSwapOption::empty(),
            finished: watch::Sender::new(()),
            waiters: Semaphore::new(config.waiters_max),
            locked: Mutex::new(Locked { slot: Slot::new(config), ..Locked::default() }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Locked> {
        self.locked.lock()
    }

    /// Whether the account could not even be seeded or read so far.
    pub fn is_pending(&self) -> bool {
        self.authority == Authority::Undecided
    }

    /// Whether `record` says another region or application, and is the one to say.
    pub fn has_moved(&self, record: &Credential) -> bool {
        self.authority == Authority::Record
            && (self.region != record.region || self.application.name() != record.application)
    }

    /// Whether `record` is of another consent than this process knows: the account was connected
    /// anew, or logged out.
    pub fn is_replaced(&self, record: &Credential) -> bool {
        self.lock().stored.is_some_and(|(epoch, _)| epoch != record.epoch)
    }

    /// Whether there was a record when this process last looked.
    pub fn has_record(&self) -> bool {
        self.lock().stored.is_some()
    }

    /// Takes over what the record says of the consent.
    pub fn remember_consent(&self, record: &Credential) {
        self.lock().consented_at = record.consented_at;
    }

    /// As [`days_left`]; none if the date of consent is unknown.
    pub fn consent_days_left(&self, now_unix: u64) -> Option<i64> {
        self.lock().consented_at.map(|at| days_left(at, now_unix))
    }

    /// The record that the store does not take, if it goes on from the one that is `stored` there.
    ///
    /// Otherwise it is given up: another process has gone on, the account was connected anew, or it
    /// was removed.
    pub(super) fn successor(&self, stored: Option<&Credential>) -> Option<Credential> {
        let mut locked = self.lock();
        let base = locked.stored;
        let goes_on = |unsaved: &Credential| match stored {
            None => base.is_none(),
            // The same one is there if only its last sync failed: it may yet be lost.
            Some(stored) if stored == unsaved || Some(record_id(stored)) == base => true,
            Some(stored) => {
                let ours = [Some(&unsaved.refresh_token), unsaved.previous_refresh_token.as_ref()];
                stored.epoch == unsaved.epoch
                    && stored.generation < unsaved.generation
                    && ours.contains(&Some(&stored.refresh_token))
            }
        };
        locked.unsaved.take_if(|(unsaved, _)| !goes_on(unsaved));
        let unsaved = locked.unsaved.as_ref().map(|(unsaved, _)| unsaved.clone());
        match stored {
            Some(stored) => unsaved?.moved_with(stored),
            None => unsaved,
        }
    }

    /// Puts `token` into use and wakes those that wait for one.
    pub(super) fn publish(&self, token: AccessToken) {
        let mut locked = self.lock();
        locked.slot.succeeded(token.generation, token.life);
        locked.last_error = None;
        self.current.store(Some(Arc::new(token)));
        drop(locked);
        self.finished.send_replace(());
    }

    /// Remembers why there is no token. Those that wait are woken by `finished`.
    pub(super) fn fail(&self, error: Error, why: &str, now: Now) {
        let mut locked = self.lock();
        locked.slot.failed(error, now);
        locked.last_error = Some(why.to_owned());
    }

    /// Amazon rejects `token`, and the grant is dead: later requests are refused at once.
    pub(super) fn discard(&self, token: &AccessToken) {
        if self.lock().slot.discard(token.generation) {
            self.current.store(None);
        }
    }

    /// Deletes every token: the account is gone. Callers that have one keep it until they are done.
    pub(super) fn wipe(&self, now: Now) {
        let mut locked = self.lock();
        self.current.store(None);
        (locked.stored, locked.dead, locked.unsaved) = (None, None, None);
        locked.slot.failed(Error::NotConnected, now);
        locked.last_error = Some("the account was removed".to_owned());
    }

    pub(super) fn good(&self, now: Now) -> Option<Arc<AccessToken>> {
        self.current.load_full().filter(|token| !token.life.is_expired(now))
    }

    pub(super) fn view(&self, now: Now) -> AccountView {
        let consent_days_left = self.consent_days_left(now.unix());
        let expires_in = self.current.load().as_ref().map(|token| token.life.remaining(now));
        let locked = self.lock();
        let state = locked.slot.state(now);
        AccountView {
            account: self.id.clone(),
            state,
            region: self.region,
            application: self.application.name().to_owned(),
            expires_in,
            generation: locked.slot.generation,
            last_error: locked.last_error.clone(),
            reauthorization_required: state.needs_login(),
            consent_days_left,
            is_unsaved: locked.unsaved.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{Clock, ManualClock},
        secret::Secret,
        token::slot::Life,
    };
    use std::{fs::File, os::unix::fs::FileExt, time::Duration};

    /// What is in this process's memory at `address`; nothing if that is no memory any more.
    fn memory(address: usize, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let memory = File::open("/proc/self/mem").expect("the memory of this process");
        let _ = memory.read_at(&mut bytes, address as u64);
        bytes
    }

    #[test]
    fn the_token_of_a_removed_account_is_wiped_with_the_last_request_that_holds_it() {
        let now = ManualClock::new().now();
        let application =
            Arc::new(Application::new("default", &config::ApplicationConfig::default()));
        let id = "acme".parse().expect("an alias");
        let state =
            TokenState::new(&id, Region::Na, application, Authority::Record, Arc::default());
        let text = format!("Atza|of-the-removed-{}", "y".repeat(300));
        let life = Life::new(now, Duration::from_secs(3600));
        let token = AccessToken::new(&Secret::new(text.clone()), 1, life, Duration::ZERO);
        state.publish(token.expect("a token"));
        let request = state.good(now).expect("a token");
        let at = request.expose().as_ptr() as usize;
        state.wipe(now);
        assert!(state.good(now).is_none());
        assert_eq!(memory(at, text.len()), text.as_bytes(), "the request goes on with it");
        drop(request);
        let left = memory(at, text.len());
        assert!(!left.windows(16).any(|window| window == [b'y'; 16]));
    }
}
