//! The state of one account's token, found by the account's id.

use super::{
    AccessToken, Error,
    consent::days_left,
    locked::{Locked, RecordId, RefreshCause, record_id, short},
    slot::Slot,
};
use crate::{
    account::AccountView,
    clock::Now,
    config,
    id::{AccountId, Region},
    lwa::Application,
    store::{self, Credential, Mark, Version},
};
use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Mutex, MutexGuard};
use std::{
    fmt,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::sync::Notify;
use tracing::warn;

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
    place: ArcSwap<Place>,
    /// Written under the lock.
    pub(super) current: ArcSwapOption<AccessToken>,
    pub(super) finished: Notify,
    /// How many callers wait for the token.
    waiters: AtomicU32,
    locked: Mutex<Locked>,
}

/// Where an account belongs, and who says so.
#[derive(Debug)]
pub struct Place {
    /// Which API host.
    pub region: Region,
    /// Whose grant it has.
    pub application: Arc<Application>,
    /// What decided on both.
    pub authority: Authority,
}

/// A caller that waits for a token.
pub(super) struct Waiter<'a>(&'a AtomicU32);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How far the clocks of two servers may be apart: a consent that one of them saves is no older than
/// what another has saved before.
const CLOCKS_DIFFER_MAX_SECS: u64 = 300;

impl fmt::Debug for TokenState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenState").field("id", &self.id).finish_non_exhaustive()
    }
}

impl TokenState {
    pub(super) fn new(id: &AccountId, place: Arc<Place>, config: Arc<config::Token>) -> Self {
        Self {
            id: id.clone(),
            place: ArcSwap::new(place),
            current: ArcSwapOption::empty(),
            finished: Notify::new(),
            waiters: AtomicU32::new(0),
            locked: Mutex::new(Locked { slot: Slot::new(config), ..Locked::default() }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Locked> {
        self.locked.lock()
    }

    /// A place to wait for the token; none where `max` callers wait.
    pub(super) fn waiter(&self, max: u32) -> Option<Waiter<'_>> {
        let waiter = Waiter(&self.waiters);
        (self.waiters.fetch_add(1, Ordering::Relaxed) < max).then_some(waiter)
    }

    /// Says whether the account's record, which has `version`, was looked at as it is.
    pub(crate) fn was_looked_at(&self, now: (Version, bool)) -> bool {
        self.lock().looked == Some(now)
    }

    /// Remembers which record was looked at.
    pub(crate) fn remember_look(&self, looked: Option<(Version, bool)>) {
        self.lock().looked = looked;
    }

    /// Whose application's grant it is.
    pub(crate) fn application(&self) -> Arc<Application> {
        self.place.load().application.clone()
    }

    pub fn region(&self) -> Region {
        self.place.load().region
    }

    /// Moves the account, with the token it has.
    pub(super) fn set_place(&self, place: Arc<Place>) {
        self.place.store(place);
    }

    /// Whether the account could not even be seeded or read so far.
    pub fn is_pending(&self) -> bool {
        self.place.load().authority == Authority::Undecided
    }

    /// Whether `record` says another region or application, and is the one to say.
    pub fn has_moved(&self, record: &Credential) -> bool {
        let place = self.place.load();
        place.authority == Authority::Record
            && (place.region != record.region || place.application.name() != record.application)
    }

    /// Whether `record` is of another consent than this process knows: the account was connected
    /// anew, or logged out.
    pub fn is_replaced(&self, record: &Credential) -> bool {
        self.lock().stored.is_some_and(|stored| stored.epoch != record.epoch)
    }

    /// Whether the store holds something else by now than when `record` was read from it.
    pub(super) fn is_outdated(&self, record: &Credential, stored: Option<&Credential>) -> bool {
        let has_left = stored.is_some_and(|stored| {
            stored.epoch == record.epoch && stored.application != record.application
        });
        has_left || self.lock().stored != stored.map(record_id)
    }

    /// Whether `record`, which the store has, is older than one that this process has seen there: the
    /// store was restored, or a row by hand. What it says opens, so nothing else tells.
    ///
    /// It does no harm where its refresh token is the one in use.
    pub fn is_set_back(&self, record: &Credential, now_unix: u64) -> bool {
        let locked = self.lock();
        // What was seen while the clock was ahead says nothing.
        let newest = u64::from(locked.newest).min(now_unix);
        let is_older = match locked.stored {
            Some(stored) if stored.epoch == record.epoch => record.generation < stored.generation(),
            _ => record.updated_at.saturating_add(CLOCKS_DIFFER_MAX_SECS) < newest,
        };
        let in_use = locked.steady.as_ref().map(|steady| &steady.refresh_token);
        let is_harmless = in_use == Some(&record.refresh_token);
        if is_older && is_harmless {
            warn!(account = self.id.as_str(), "the record was set back; its grant is the same");
        }
        is_older && !is_harmless
    }

    /// Remembers the record that the store has.
    pub(super) fn saw(&self, record: &Credential) {
        let mut locked = self.lock();
        locked.stored = Some(record_id(record));
        locked.newest = locked.newest.max(short(record.updated_at));
    }

    /// Remembers how far the record has come that is known to have been there.
    pub(super) fn remember_mark(&self, mark: &Mark) {
        let mut locked = self.lock();
        locked.stored = Some(RecordId::new(mark.epoch, mark.generation));
        locked.newest = locked.newest.max(short(mark.updated_at));
    }

    /// Whether there was a record when this process last looked.
    pub fn has_record(&self) -> bool {
        self.lock().stored.is_some()
    }

    /// Takes over what the record says of the consent.
    pub fn remember_consent(&self, record: &Credential) {
        self.lock().consented_at = record.consented_at.map(short).and_then(NonZeroU32::new);
    }

    #[cfg(feature = "dashboard")]
    pub(super) fn consent(&self) -> Option<store::ConsentId> {
        let locked = self.lock();
        let consented_at = locked.consented_at.map(|at| at.get().into());
        locked.stored.map(|stored| store::ConsentId { epoch: stored.epoch, consented_at })
    }

    /// As [`days_left`]; none if the date of consent is unknown.
    pub fn consent_days_left(&self, now_unix: u64) -> Option<i64> {
        self.lock().consented_at.map(|at| days_left(at.get().into(), now_unix))
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
        if locked.unsaved().is_some_and(|unsaved| !goes_on(unsaved)) {
            locked.set_unsaved(None);
        }
        let unsaved = locked.unsaved().cloned();
        match stored {
            Some(stored) => unsaved?.moved_with(stored),
            None => unsaved,
        }
    }

    /// Uses `token` of `record`, which another process has refreshed; false if it is of no use.
    pub(super) fn install(&self, token: AccessToken, record: &Credential) -> bool {
        let mut locked = self.lock();
        let is_of_grant = locked.stored.is_some_and(|stored| stored.epoch == record.epoch);
        let is_adopted = is_of_grant
            && locked.unsaved().is_none()
            && locked.slot.install(token.generation, token.life());
        if is_adopted {
            locked.stored = Some(record_id(record));
            locked.newest = locked.newest.max(short(record.updated_at));
            locked.set_error(None);
            self.current.store(Some(Arc::new(token)));
        }
        is_adopted
    }

    /// Remembers `record`, or that none is to be refreshed while the database is away.
    pub(super) fn keep_steady(&self, record: Option<&Credential>) {
        // Without the access token, which is kept already.
        let steady = record.map(|record| Credential { access_token: None, ..record.clone() });
        self.lock().steady = steady.map(Box::new);
    }

    /// The record to refresh with although the store cannot be read, for `error`: one that it did not
    /// take, or one whose refresh token Login with Amazon is known to keep. With any other an answer
    /// might be lost that is the only one to have the next refresh token.
    pub(super) fn known_record(&self, error: &store::Error) -> Option<Credential> {
        let locked = self.lock();
        let unsaved = locked.unsaved();
        let steady = locked.steady.as_deref().filter(|_| error.is_away());
        unsaved.filter(|_| !error.is_lasting()).or(steady).cloned()
    }

    /// Puts `token` into use and wakes those that wait for one; returns what the refresh was for.
    pub(super) fn publish(&self, token: AccessToken) -> RefreshCause {
        let mut locked = self.lock();
        let cause = locked.end_refresh();
        locked.slot.succeeded(token.generation, token.life());
        locked.set_error(None);
        self.current.store(Some(Arc::new(token)));
        drop(locked);
        self.finished.notify_waiters();
        cause
    }

    /// Remembers why there is no token. Those that wait are woken by `finished`.
    pub(super) fn fail(&self, error: Error, why: &str, now: Now) {
        let mut locked = self.lock();
        locked.slot.failed(error, now);
        locked.set_error(Some(why.to_owned()));
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
        (locked.stored, locked.steady) = (None, None);
        locked.set_unsaved(None);
        locked.set_dead(None);
        drop(locked.take_lease());
        locked.slot.failed(Error::NotConnected, now);
        locked.set_error(Some("the account was removed".to_owned()));
    }

    pub(super) fn good(&self, now: Now) -> Option<Arc<AccessToken>> {
        self.current.load_full().filter(|token| !token.life().is_expired(now))
    }

    pub(super) fn view(&self, now: Now) -> AccountView {
        let consent_days_left = self.consent_days_left(now.unix());
        let expires_in = self.current.load().as_ref().map(|token| token.life().remaining(now));
        let place = self.place.load();
        let locked = self.lock();
        let state = locked.slot.state(now);
        AccountView {
            account: self.id.clone(),
            state,
            region: place.region,
            application: place.application.name().to_owned(),
            expires_in,
            generation: locked.slot.generation,
            last_error: locked.rare.as_ref().and_then(|rare| rare.last_error.clone()),
            reauthorization_required: state.needs_login(),
            consent_days_left,
            is_unsaved: locked.unsaved().is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{Clock, ManualClock},
        secret::Secret,
        store::Epoch,
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
    fn a_record_is_set_back_if_it_is_older_than_one_that_was_seen() {
        let application =
            Arc::new(Application::new("default", &config::ApplicationConfig::default()));
        let id = "acme".parse().expect("an alias");
        let place = Place { region: Region::Na, application, authority: Authority::Record };
        let state = TokenState::new(&id, place.into(), Arc::default());
        let seen = Credential {
            account: id,
            epoch: Epoch::random(),
            application: "default".to_owned(),
            region: Region::Na,
            refresh_token: Secret::from("Atzr|new"),
            previous_refresh_token: None,
            access_token: None,
            generation: 5,
            consented_at: None,
            updated_at: 10_000,
            reauthorization_required: false,
            seed: None,
            unknown: Default::default(),
        };
        let now = 10_000;
        let old = Secret::from("Atzr|old");
        let before = Credential { generation: 4, refresh_token: old.clone(), ..seen.clone() };
        assert!(!state.is_set_back(&before, now), "nothing was seen yet");
        state.saw(&seen);
        assert!(!state.is_set_back(&seen, now));
        assert!(state.is_set_back(&before, now));
        let other = |updated_at| Credential {
            epoch: Epoch::random(),
            generation: 0,
            updated_at,
            refresh_token: old.clone(),
            ..seen.clone()
        };
        assert!(state.is_set_back(&other(9_699), now), "of an earlier consent");
        assert!(!state.is_set_back(&other(9_700), now), "by a server whose clock is behind");
        assert!(!state.is_set_back(&other(10_001), now), "connected anew");
        assert!(!state.is_set_back(&other(6_000), 6_000), "what was seen is of a clock ahead");
        state.keep_steady(Some(&Credential { refresh_token: old, ..seen }));
        assert!(!state.is_set_back(&before, now), "the same refresh token");
    }

    #[test]
    fn the_token_of_a_removed_account_is_wiped_with_the_last_request_that_holds_it() {
        let now = ManualClock::new().now();
        let application =
            Arc::new(Application::new("default", &config::ApplicationConfig::default()));
        let id = "acme".parse().expect("an alias");
        let place = Place { region: Region::Na, application, authority: Authority::Record };
        let state = TokenState::new(&id, place.into(), Arc::default());
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
