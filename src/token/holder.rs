//! One account's token and everything that decides over it.

use super::{AccessToken, slot};
use crate::{
    clock::Now,
    id::{AccountId, Region},
    lwa::Application,
    store::{Credential, Epoch},
};
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use slot::{Policy, Slot};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::watch;

/// Who says which region and application an account has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The configuration, whatever the record says.
    Configuration,
    /// The record: a grant of another application must never be shown to this one.
    Record,
    /// Nobody yet: the configured account could not be seeded or read. Nothing is refreshed.
    Nobody,
}

/// One account's token and everything that decides over it.
pub struct Holder {
    pub(super) id: AccountId,
    pub(super) region: Region,
    pub(super) application: Arc<Application>,
    pub(super) authority: Authority,
    pub(super) current: ArcSwapOption<AccessToken>,
    pub(super) slot: Mutex<Slot>,
    pub(super) finished: watch::Sender<u64>,
    waiters: AtomicUsize,
    pub(super) last_error: Mutex<Option<String>>,
    /// The newest record, while the store does not take it.
    pub(super) unsaved: Mutex<Option<Unsaved>>,
    /// The record in the store, as this process last read or wrote it.
    pub(super) stored: Mutex<Option<RecordId>>,
    /// The record whose grant LWA called dead, which the store does not say yet.
    pub(super) dead: Mutex<Option<RecordId>>,
    /// Seconds since 1970.
    pub(super) consented_at: Mutex<Option<u64>>,
    /// The request that the refresh under way was begun for.
    pub(super) asked_by: Mutex<Option<String>>,
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holder").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Holder {
    pub(super) fn new(
        id: &AccountId,
        region: Region,
        application: Arc<Application>,
        authority: Authority,
        policy: Policy,
    ) -> Self {
        Self {
            id: id.clone(),
            region,
            application,
            authority,
            current: ArcSwapOption::empty(),
            slot: Mutex::new(Slot::new(policy)),
            finished: watch::Sender::new(0),
            waiters: AtomicUsize::new(0),
            last_error: Mutex::new(None),
            unsaved: Mutex::new(None),
            stored: Mutex::new(None),
            dead: Mutex::new(None),
            consented_at: Mutex::new(None),
            asked_by: Mutex::new(None),
        }
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
        self.authority == Authority::Nobody
    }

    /// Whether `record` says another region or application, and is the one to say.
    pub fn has_moved(&self, record: &Credential) -> bool {
        self.authority == Authority::Record
            && (self.region != record.region || self.application.name() != record.application)
    }

    /// Whether `record` is of another consent than this process knows: the account was connected
    /// anew, or logged out.
    pub fn is_replaced(&self, record: &Credential) -> bool {
        self.stored.lock().is_some_and(|stored| stored.epoch != record.epoch)
    }

    /// Whether there was a record when this process last looked.
    pub fn has_record(&self) -> bool {
        self.stored.lock().is_some()
    }

    /// The record that the store does not take, if it goes on from the one that is `stored` there.
    ///
    /// Otherwise it is given up: another process has gone on, the account was connected anew, or it
    /// was removed.
    pub(super) fn successor(&self, stored: Option<&Credential>) -> Option<Credential> {
        let base = *self.stored.lock();
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
        let mut unsaved = self.unsaved.lock();
        unsaved.take_if(|unsaved| !goes_on(&unsaved.record));
        unsaved.as_ref().map(|unsaved| unsaved.record.clone())
    }

    pub(super) fn publish(&self, token: AccessToken) {
        let mut slot = self.slot.lock();
        slot.succeeded(token.generation, token.life);
        self.current.store(Some(Arc::new(token)));
        drop(slot);
        *self.last_error.lock() = None;
        self.finish();
    }

    pub(super) fn fail(&self, failure: slot::Failure, why: &str, now: Now) {
        self.note_failure(failure, why, now);
        self.finish();
    }

    /// As `fail`, for one who has more to do before `finish` wakes those who wait.
    pub(super) fn note_failure(&self, failure: slot::Failure, why: &str, now: Now) {
        self.slot.lock().failed(failure, now);
        *self.last_error.lock() = Some(why.to_owned());
    }

    /// Amazon rejects `token`, and the grant is dead: later requests are told so without asking.
    pub(super) fn discard(&self, token: &AccessToken) {
        let mut slot = self.slot.lock();
        if slot.discard(token.generation) {
            self.current.store(None);
        }
    }

    /// Forgets every token: the account is gone. Callers that have one keep it until they are done.
    pub(super) fn wipe(&self, now: Now) {
        self.current.store(None);
        (*self.stored.lock(), *self.dead.lock()) = (None, None);
        *self.unsaved.lock() = None;
        self.note_failure(slot::Failure::NotConnected, "the account was removed", now);
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

/// A place in the bounded crowd that waits for one account's token.
pub(super) struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    pub(super) fn take(holder: &'a Holder, max: usize) -> Option<Self> {
        let place = Self(&holder.waiters);
        let before = holder.waiters.fetch_add(1, Ordering::Relaxed);
        (before < max).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
