//! The state of one account's token, found by the account's id.

use super::{AccessToken, slot};
use crate::{
    clock::Now,
    id::{AccountId, Region},
    lwa::Application,
    store::{Credential, Epoch},
};
use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Mutex, MutexGuard};
use slot::{Policy, Slot};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::watch;

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
    pub(super) id: AccountId,
    pub(super) region: Region,
    pub(super) application: Arc<Application>,
    pub(super) authority: Authority,
    /// Written under the lock.
    pub(super) current: ArcSwapOption<AccessToken>,
    pub(super) finished: watch::Sender<u64>,
    waiters: AtomicUsize,
    locked: Mutex<Locked>,
}

/// The states of all registered accounts; read without a lock.
#[derive(Default)]
pub(super) struct States(ArcSwap<StateTable>);

/// The states of accounts by their ids.
pub type StateTable = BTreeMap<AccountId, Arc<TokenState>>;

impl States {
    pub(super) fn get(&self, id: &AccountId) -> Option<Arc<TokenState>> {
        self.0.load().get(id).cloned()
    }

    /// A token that needs no refresh; else the account's state, if there is such an account.
    pub(super) fn fresh(
        &self,
        id: &AccountId,
        now: Now,
    ) -> Result<Arc<AccessToken>, Option<Arc<TokenState>>> {
        let states = self.0.load();
        let state = states.get(id).ok_or(None)?;
        let current = state.current.load();
        match current.as_ref().filter(|token| token.is_fresh(now)) {
            Some(token) => Ok(token.clone()),
            None => Err(Some(state.clone())),
        }
    }

    /// Replaces all of them; gives back those that are no longer there.
    pub(super) fn replace(&self, states: StateTable) -> Vec<Arc<TokenState>> {
        let earlier = self.0.swap(Arc::new(states));
        let now = self.0.load();
        let is_kept = |state: &TokenState| {
            now.get(&state.id).is_some_and(|kept| std::ptr::eq(Arc::as_ptr(kept), state))
        };
        earlier.values().filter(|state| !is_kept(state)).cloned().collect()
    }

    pub(super) fn snapshot(&self) -> Arc<StateTable> {
        self.0.load_full()
    }
}

/// What is read and written under the lock.
pub(super) struct Locked {
    pub slot: Slot,
    pub last_error: Option<String>,
    /// The newest record, while the store does not take it.
    pub unsaved: Option<Unsaved>,
    /// The record in the store, as this process last read or wrote it.
    pub stored: Option<RecordId>,
    /// The record whose grant LWA called dead, which the store does not say yet.
    pub dead: Option<RecordId>,
    /// Seconds since 1970.
    pub consented_at: Option<u64>,
    /// The request that the refresh under way was begun for.
    pub request_id: Option<String>,
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
        policy: Policy,
    ) -> Self {
        let locked = Locked {
            slot: Slot::new(policy),
            last_error: None,
            unsaved: None,
            stored: None,
            dead: None,
            consented_at: None,
            request_id: None,
        };
        Self {
            id: id.clone(),
            region,
            application,
            authority,
            current: ArcSwapOption::empty(),
            finished: watch::Sender::new(0),
            waiters: AtomicUsize::new(0),
            locked: Mutex::new(locked),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Locked> {
        self.locked.lock()
    }

    /// The account's alias.
    pub fn id(&self) -> &AccountId {
        &self.id
    }

    /// The application its grant belongs to.
    pub fn application(&self) -> &Application {
        &self.application
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
        self.lock().stored.is_some_and(|stored| stored.epoch != record.epoch)
    }

    /// Whether there was a record when this process last looked.
    pub fn has_record(&self) -> bool {
        self.lock().stored.is_some()
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
            Some(stored) if stored == unsaved || Some(RecordId::of(stored)) == base => true,
            Some(stored) => {
                let ours = [Some(&unsaved.refresh_token), unsaved.previous_refresh_token.as_ref()];
                stored.epoch == unsaved.epoch
                    && stored.generation < unsaved.generation
                    && ours.contains(&Some(&stored.refresh_token))
            }
        };
        locked.unsaved.take_if(|unsaved| !goes_on(&unsaved.record));
        locked.unsaved.as_ref().map(|unsaved| unsaved.record.clone())
    }

    pub(super) fn publish(&self, token: AccessToken) {
        let mut locked = self.lock();
        locked.slot.succeeded(token.generation, token.life);
        locked.last_error = None;
        self.current.store(Some(Arc::new(token)));
        drop(locked);
        self.finish();
    }

    pub(super) fn fail(&self, failure: slot::Failure, why: &str, now: Now) {
        self.note_failure(failure, why, now);
        self.finish();
    }

    /// As `fail`, where something is to be done before `finish` wakes the waiters.
    pub(super) fn note_failure(&self, failure: slot::Failure, why: &str, now: Now) {
        let mut locked = self.lock();
        locked.slot.failed(failure, now);
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
        locked.slot.failed(slot::Failure::NotConnected, now);
        locked.last_error = Some("the account was removed".to_owned());
    }

    pub(super) fn finish(&self) {
        self.finished.send_modify(|refreshes| *refreshes += 1);
    }

    pub(super) fn good(&self, now: Now) -> Option<Arc<AccessToken>> {
        self.current.load_full().filter(|token| !token.life.is_expired(now))
    }
}

/// Which record of an account it is: another one after each consent and each refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordId {
    epoch: Epoch,
    generation: u64,
}

impl RecordId {
    pub(super) fn of(record: &Credential) -> Self {
        Self { epoch: record.epoch, generation: record.generation }
    }
}

/// A record that is in memory only, which is counted while it lasts.
pub(super) struct Unsaved {
    pub(super) record: Credential,
    count: Arc<AtomicUsize>,
}

impl Unsaved {
    /// Counts `record` in `count`; says whether it is the first there.
    pub(super) fn new(record: Credential, count: &Arc<AtomicUsize>) -> (Self, bool) {
        let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
        (Self { record, count: Arc::clone(count) }, is_first)
    }
}

impl Drop for Unsaved {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The right to wait for one account's token; their number is bounded.
pub(super) struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    pub(super) fn register(state: &'a TokenState, max: usize) -> Option<Self> {
        let waiter = Self(&state.waiters);
        let before = state.waiters.fetch_add(1, Ordering::Relaxed);
        (before < max).then_some(waiter)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
