//! What is kept of an account's token under a lock.

use super::{
    Cause,
    slot::{Decision, Slot},
};
use crate::{
    store::{Credential, Epoch, Lease, Version},
    telemetry::LinkedRequests,
};
use std::{
    num::{NonZeroU32, NonZeroU64},
    sync::Arc,
};

/// What is read and written under the lock. There may be a hundred thousand of it: what few accounts
/// have at a time is in boxes.
#[derive(Default)]
pub(super) struct Locked {
    pub slot: Slot,
    /// The record of a grant that is refreshed also while the database is away.
    pub steady: Option<Box<Credential>>,
    /// The record in the store, as this process last read or wrote it.
    pub stored: Option<RecordId>,
    /// The version of the record that was last looked at, and whether the account waited for a person
    /// or a key then.
    pub looked: Option<(Version, bool)>,
    /// When the newest record was changed that this process has seen, in seconds since 1970.
    pub newest: u32,
    /// Seconds since 1970.
    pub consented_at: Option<NonZeroU32>,
    pub(super) rare: Option<Box<Rare>>,
}

/// The id of a request, and the server's own id of it.
pub(super) type RequestIds = (Option<String>, Option<String>);

/// What a refresh is for.
#[derive(Default)]
pub(super) struct RefreshCause {
    /// Those of the request that it was begun for.
    pub request_ids: RequestIds,
    /// Those of its requests that are recorded for a collector.
    pub requests: LinkedRequests,
}

/// What an account has that is refreshed just now, or that something is wrong with.
#[derive(Default)]
pub(super) struct Rare {
    /// What the refresh under way is for.
    refresh: Option<RefreshCause>,
    pub(super) last_error: Option<String>,
    /// The newest record, while the store does not take it.
    unsaved: Option<Unsaved>,
    /// The lease that `unsaved` came under, if the store could not be reached then: when it can be,
    /// the record comes first, and not the next server's refresh.
    lease: Option<Lease>,
    /// The record whose grant LWA called dead, which the store does not say yet.
    dead: Option<RecordId>,
}

/// A record that the store does not take.
pub(super) struct Unsaved {
    pub record: Credential,
    /// Counts them.
    pub _counted: Arc<()>,
    /// Whether the store could not be reached when it was to take it.
    pub is_store_away: bool,
}

impl Locked {
    /// Links the refresh under way to a request that begins it or waits for it.
    pub fn link(&mut self, decision: Decision, cause: Cause<'_>) {
        let is_refreshing = !matches!(decision, Decision::Use | Decision::Refuse(_));
        if is_refreshing && let Cause::Request { span: Some(span), .. } = cause {
            self.refresh().requests.add(span);
        }
    }
}

/// Which record of an account it is: another one after each consent and each refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordId {
    pub epoch: Epoch,
    /// One more than its generation: so that none takes no room.
    next: NonZeroU64,
}

impl RecordId {
    pub fn new(epoch: Epoch, generation: u64) -> Self {
        Self { epoch, next: NonZeroU64::MIN.saturating_add(generation) }
    }

    pub fn generation(self) -> u64 {
        self.next.get() - 1
    }
}

pub(super) fn record_id(record: &Credential) -> RecordId {
    RecordId::new(record.epoch, record.generation)
}

/// A time in seconds since 1970, as it is kept.
pub(super) fn short(seconds: u64) -> u32 {
    seconds.try_into().unwrap_or(u32::MAX)
}

impl Locked {
    /// Keeps the lease of what could not be saved, else ends it.
    pub fn keep_lease(&mut self, lease: Option<Lease>) {
        if let Some(rare) = &mut self.rare
            && rare.unsaved.as_ref().is_some_and(|unsaved| unsaved.is_store_away)
        {
            rare.lease = lease;
        }
    }

    /// Takes the lease that was kept.
    pub fn take_lease(&mut self) -> Option<Lease> {
        self.change_rare(|rare| rare.lease.take())
    }

    pub fn has_lease(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.lease.is_some())
    }

    /// The newest record, while the store does not take it.
    pub fn unsaved(&self) -> Option<&Credential> {
        Some(&self.rare.as_ref()?.unsaved.as_ref()?.record)
    }

    pub fn set_unsaved(&mut self, unsaved: Option<Unsaved>) {
        self.change_rare(|rare| rare.unsaved = unsaved);
    }

    /// Whether LWA called the grant of `record` dead, which the store does not say yet.
    pub fn is_dead(&self, record: &Credential) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.dead == Some(record_id(record)))
    }

    pub fn set_dead(&mut self, dead: Option<RecordId>) {
        self.change_rare(|rare| rare.dead = dead);
    }

    pub fn set_error(&mut self, why: Option<String>) {
        self.change_rare(|rare| rare.last_error = why);
    }

    /// What the refresh that is under way, or begins, is for.
    pub fn refresh(&mut self) -> &mut RefreshCause {
        self.rare.get_or_insert_default().refresh.get_or_insert_default()
    }

    /// The request ids of the refresh under way.
    pub fn request_ids(&self) -> RequestIds {
        let refresh = self.rare.as_ref().and_then(|rare| rare.refresh.as_ref());
        refresh.map(|refresh| refresh.request_ids.clone()).unwrap_or_default()
    }

    /// Takes what the refresh was for that ends now.
    pub fn end_refresh(&mut self) -> RefreshCause {
        self.change_rare(|rare| rare.refresh.take()).unwrap_or_default()
    }

    fn change_rare<T>(&mut self, change: impl FnOnce(&mut Rare) -> T) -> T {
        let rare = self.rare.get_or_insert_default();
        let result = change(rare);
        let Rare { refresh, last_error, unsaved, lease, dead } = &**rare;
        let is_empty = refresh.is_none() && last_error.is_none() && unsaved.is_none();
        if is_empty && lease.is_none() && dead.is_none() {
            self.rare = None;
        }
        result
    }
}
