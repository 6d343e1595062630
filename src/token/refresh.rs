//! One refresh, from the account's lease to the published token.
//!
//! The order keeps grants alive: lease the account, read the record again, ask LWA, make a changed
//! refresh token durable, only then use the access token it came with. Nothing is locked while LWA
//! is asked: what is written is an update of the very record that the refresh began with.

use super::{
    AccessToken, Cause, Obstacle, TokenManagerInner, TokenState, slot,
    state::{RecordId, Unsaved},
};
use crate::{
    error_chain::chain,
    lwa::{self, LwaFailure},
    metrics::{RefreshOutcome, Trigger},
    store::{self, Began, Credential, Lease, StoredAccessToken, Versioned},
};
use slot::{Failure, Life};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

/// Longer than a refresh takes. The lease of a process that was killed ends with it.
const LEASE: Duration = Duration::from_secs(120);
/// How long a refresh waits for that of another process.
const LEASE_WAIT: Duration = Duration::from_secs(15);
/// How often a grant is looked at whose record is replaced while LWA is asked.
const TRIES: u32 = 3;

struct RefreshAttempt<'a> {
    state: &'a TokenState,
    began: Base,
    lease: Option<Lease>,
}

/// The record in the store that a refresh began with, none if there was none; or why it could not be
/// read.
type Base = Result<Option<Began>, store::Error>;

/// Why a refresh brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("there is no grant for this account")]
    NoGrant,
    #[error("the account could not be seeded or read yet")]
    Pending,
    #[error("the account was given to another region or application")]
    Moved,
    #[error("login with amazon says the grant is dead")]
    GrantDead,
    #[error("the record says that the grant is dead")]
    KnownDead,
    #[error("login with amazon")]
    Lwa(#[source] lwa::Error),
    #[error("the store")]
    Store(#[source] store::Error),
    #[error("login with amazon sent an access token that is not one")]
    BadToken,
}

impl Error {
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::NoGrant => Failure::NotConnected,
            Self::GrantDead | Self::KnownDead => Failure::GrantDead,
            Self::Lwa(error) => of_lwa(error),
            Self::Store(error) => Failure::unavailable(Obstacle::of_store(error)),
            Self::BadToken => Failure::unavailable(Obstacle::NOT_LWA),
            Self::Pending | Self::Moved => Failure::unavailable(Obstacle::Store),
        }
    }

    /// The stable code of events.
    pub(super) fn reason(&self) -> &'static str {
        match self.failure() {
            Failure::NotConnected => "not_connected",
            Failure::GrantDead => "invalid_grant",
            Failure::ApplicationRejected(why) => why.code(),
            Failure::Unavailable { reason, .. } => reason.code(),
        }
    }

    fn outcome(&self) -> RefreshOutcome {
        match self.failure() {
            Failure::NotConnected | Failure::GrantDead => RefreshOutcome::ReauthorizationRequired,
            Failure::ApplicationRejected(_) => RefreshOutcome::ApplicationRejected,
            Failure::Unavailable { .. } if matches!(self, Self::Store(_)) => {
                RefreshOutcome::StoreFailed
            }
            Failure::Unavailable { .. } => RefreshOutcome::Transient,
        }
    }
}

/// What an error of LWA means for the account.
fn of_lwa(error: &lwa::Error) -> Failure {
    match error.failure() {
        why @ (LwaFailure::InvalidClient | LwaFailure::UnauthorizedClient) => {
            Failure::ApplicationRejected(why)
        }
        failure => {
            let (reason, retry_after) = (Obstacle::Lwa(failure), error.retry_after());
            Failure::Unavailable { reason, retry_after }
        }
    }
}

/// Ends the refresh also when its task panics: a waiter must not wait for a refresh that is gone.
struct Ending<'a> {
    inner: &'a TokenManagerInner,
    state: &'a TokenState,
    done: bool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.done {
            let failure = Failure::unavailable(Obstacle::UNREACHABLE);
            self.state.fail(failure, "the refresh ended unexpectedly", self.inner.clock.now());
        }
    }
}

impl TokenManagerInner {
    /// Begins the refresh that the slot has handed out, in a task of its own: a caller that leaves
    /// does not stop it.
    pub(super) fn spawn_refresh(
        self: &Arc<Self>,
        state: &Arc<TokenState>,
        trigger: Trigger,
        cause: Cause<'_>,
    ) -> JoinHandle<()> {
        state.lock().request_id = match cause {
            Cause::Request(id) => Some(String::from_utf8_lossy(id).into_owned()),
            Cause::Caller | Cause::Background => None,
        };
        self.control.spawn(self.clone().refresh(state.clone(), trigger))
    }

    /// Refreshes `state`'s token; the slot must have handed this refresh out.
    async fn refresh(self: Arc<Self>, state: Arc<TokenState>, trigger: Trigger) {
        let mut ending = Ending { inner: &self, state: &state, done: false };
        let started = self.clock.now();
        let result = self.fetch(&state).await;
        ending.done = true;
        let now = self.clock.now();
        let took = now.mono.saturating_duration_since(started.mono);
        match result {
            Ok(token) => {
                let (account, generation) = (state.id.as_str(), token.generation);
                info!(account, generation, trigger = trigger.as_str(), "access token refreshed");
                self.announcer.refreshed(&state, token.generation, now.unix());
                state.lock().request_id = None;
                state.publish(token);
                self.metrics.token_refresh(trigger, RefreshOutcome::Succeeded, took);
            }
            Err(error) => {
                report(&state, &error);
                state.note_failure(error.failure(), &chain(&error), now);
                // Reported before a waiter can ask for the result.
                self.announcer.failed(&state, &error, now.unix());
                state.lock().request_id = None;
                state.finish();
                self.metrics.token_refresh(trigger, error.outcome(), took);
            }
        }
        self.background.push(&state, now);
    }

    /// A token of the account's grant. A grant that was connected anew, or refreshed elsewhere,
    /// while LWA was asked is looked at again.
    async fn fetch(&self, state: &TokenState) -> Result<AccessToken, Error> {
        if state.is_pending() {
            return Err(Error::Pending);
        }
        for _ in 1..TRIES {
            match self.fetch_once(state).await {
                Err(Error::Store(store::Error::Superseded { .. })) => {}
                done => return done,
            }
        }
        self.fetch_once(state).await
    }

    async fn fetch_once(&self, state: &TokenState) -> Result<AccessToken, Error> {
        let known = state.lock().slot.generation();
        let lease = self.lease(state, LEASE_WAIT).await.map_err(Error::Store)?;
        // After the lease: a waiter for one account uses no slot of other accounts.
        if self.lwa_calls.available_permits() == 0 {
            self.metrics.lwa_concurrency_hit();
        }
        let _permit = self.lwa_calls.acquire().await.map_err(|_| Error::BadToken)?;
        let (record, began) = self.newest_record(state).await?;
        if state.has_moved(&record) {
            return Err(Error::Moved);
        }
        // Another process may have refreshed while this one waited for the lease.
        if record.generation > known
            && let Some(token) = self.stored_token(&record, self.clock.now())
            && !token.life.is_expired(self.clock.now())
        {
            return Ok(token);
        }
        if record.reauthorization_required {
            self.announcer.known_dead(&state.id);
            return Err(Error::KnownDead);
        }
        let attempt = RefreshAttempt { state, began, lease };
        let (record, granted) = self.ask_lwa(&attempt, record).await?;
        self.keep(&attempt, record, known, granted).await
    }

    /// Leases the account from the store. None if there is nothing to lease, or the disk takes
    /// nothing: within this process the slot keeps other refreshes away, and a record that was
    /// written meanwhile is not overwritten.
    async fn lease(
        &self,
        state: &TokenState,
        wait: Duration,
    ) -> Result<Option<Lease>, store::Error> {
        match self.grants.store().lease_grant(&state.id, LEASE, wait).await {
            Ok(lease) => Ok(Some(lease)),
            Err(store::Error::Superseded { .. }) => Ok(None),
            Err(error) if error.takes_nothing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The store's record, or the newer one that the store would not take yet, and what the store
    /// holds.
    async fn newest_record(&self, state: &TokenState) -> Result<(Credential, Base), Error> {
        let stored = match self.grants.store().grant(&state.id).await {
            Ok(stored) => stored,
            // A store that is away says nothing about what it holds; a record that does not open
            // may be newer than ours.
            Err(error) if error.is_lasting() => return Err(Error::Store(error)),
            Err(error) => {
                let record = state.lock().unsaved.as_ref().map(|unsaved| unsaved.record.clone());
                return match record {
                    Some(record) => Ok((record, Err(error))),
                    None => Err(Error::Store(error)),
                };
            }
        };
        let successor = state.successor(stored.as_ref().map(|stored| &stored.value));
        state.lock().stored = stored.as_ref().map(|stored| RecordId::of(&stored.value));
        let began = stored.as_ref().map(Versioned::began);
        let record = successor.or(stored.map(|stored| stored.value)).ok_or(Error::NoGrant)?;
        Ok((record, Ok(began)))
    }

    /// Asks LWA with the current refresh token, then once with what may be behind a dead one.
    async fn ask_lwa(
        &self,
        attempt: &RefreshAttempt<'_>,
        mut record: Credential,
    ) -> Result<(Credential, lwa::GrantedToken), Error> {
        let state = attempt.state;
        let application = &state.application;
        let attempts = match state.lock().slot.failures() {
            0 => self.config.lwa_attempts_max,
            _ => 1,
        };
        match self.lwa.refresh(application, &record.refresh_token, attempts).await {
            Ok(granted) => return Ok((record, granted)),
            Err(lwa::Error::InvalidGrant) => {}
            Err(error) => return Err(Error::Lwa(error)),
        }
        // A person may have connected the account anew while LWA was asked.
        let again = self.grants.store().grant(&state.id).await.map_err(Error::Store)?;
        if state.lock().stored != again.map(|again| RecordId::of(&again.value)) {
            let account = state.id.clone();
            return Err(Error::Store(store::Error::Superseded { account }));
        }
        if let Some(previous) = record.previous_refresh_token.clone() {
            match self.lwa.refresh(application, &previous, 1).await {
                Ok(granted) => {
                    record.refresh_token = previous;
                    return Ok((record, granted));
                }
                Err(lwa::Error::InvalidGrant) => {}
                Err(error) => return Err(Error::Lwa(error)),
            }
        }
        record.reauthorization_required = true;
        record.access_token = None;
        record.updated_at = self.clock.now().unix();
        self.announcer.dead(state, record.updated_at).await;
        let saved = match attempt.began {
            Ok(began) => self.try_save(state, &record, began, attempt.lease.as_ref()).await,
            Err(_) => Ok(false),
        };
        if let Err(error @ store::Error::Superseded { .. }) = saved {
            return Err(Error::Store(error));
        }
        // Where the mark is saved, its absence says that the account was connected anew.
        state.lock().dead = (!saved.unwrap_or(false)).then(|| RecordId::of(&record));
        Err(Error::GrantDead)
    }

    /// Makes the response durable and a token of it.
    async fn keep(
        &self,
        attempt: &RefreshAttempt<'_>,
        mut record: Credential,
        known: u64,
        granted: lwa::GrantedToken,
    ) -> Result<AccessToken, Error> {
        let now = self.clock.now();
        record.generation = record.generation.max(known).saturating_add(1);
        let life = Life::new(now, granted.expires_in);
        let token = AccessToken::new(&granted.access_token, record.generation, life, &self.policy)
            .ok_or(Error::BadToken)?;
        // An absent or empty refresh token never replaces the one there is.
        let rotated = granted.refresh_token.filter(|new| *new != record.refresh_token);
        let tries = if rotated.is_some() { 3 } else { 1 };
        if let Some(new) = rotated {
            record.previous_refresh_token = Some(std::mem::replace(&mut record.refresh_token, new));
        }
        record.reauthorization_required = false;
        record.updated_at = now.unix();
        record.access_token = Some(StoredAccessToken {
            token: granted.access_token,
            issued_at: now.unix(),
            expires_at: now.unix().saturating_add(granted.expires_in.as_secs()),
        });
        self.save(attempt, record, tries).await?;
        Ok(token)
    }

    /// Saves `record`. A rotated refresh token is tried longer, because nothing else has it. When
    /// the disk still refuses, the record stays in memory, serves on and is saved when it can be.
    async fn save(
        &self,
        attempt: &RefreshAttempt<'_>,
        record: Credential,
        tries: u32,
    ) -> Result<(), Error> {
        let began = match &attempt.began {
            Ok(began) => *began,
            Err(error) => {
                self.put_off(attempt.state, record, error);
                return Ok(());
            }
        };
        let mut tried = 1;
        loop {
            match self.try_save(attempt.state, &record, began, attempt.lease.as_ref()).await {
                Ok(_) => return Ok(()),
                Err(error @ store::Error::Superseded { .. }) => return Err(Error::Store(error)),
                Err(_) if tried < tries => {
                    tokio::time::sleep(Duration::from_millis(100) * tried).await;
                }
                Err(error) => {
                    self.put_off(attempt.state, record, &error);
                    return Ok(());
                }
            }
            tried += 1;
        }
    }

    /// Keeps `record` in memory until the store takes it, and logs so once.
    pub(super) fn put_off(&self, state: &TokenState, record: Credential, error: &store::Error) {
        let (unsaved, is_first) = Unsaved::new(record, &self.unsaved);
        let known = state.lock().unsaved.replace(unsaved).is_some();
        let (account, error) = (state.id.as_str(), chain(error));
        if is_first {
            error!(account, error, "store degraded: what is new is kept in memory only");
            self.announcer.degraded(state, self.clock.now().unix());
        } else if !known {
            warn!(account, error, "cannot save the record, which is kept in memory");
        }
    }

    async fn try_save(
        &self,
        state: &TokenState,
        record: &Credential,
        began: Option<Began>,
        lease: Option<&Lease>,
    ) -> Result<bool, store::Error> {
        let saved = self.grants.update(record, began, lease).await;
        match &saved {
            Err(store::Error::Superseded { .. }) => {}
            saved => self.metrics.store_write(saved.is_ok()),
        }
        if saved.is_ok() {
            let mut locked = state.lock();
            (locked.stored, locked.unsaved) = (Some(RecordId::of(record)), None);
        }
        saved.map(|()| true)
    }

    /// Saves what the store would not take before, unless the store has gone on since.
    pub(super) async fn save_unsaved(&self, state: &TokenState) -> Result<(), store::Error> {
        if state.lock().unsaved.is_none() {
            return Ok(());
        }
        // Not while a refresh is writing; tried again soon.
        let lease = self.lease(state, Duration::ZERO).await?;
        let stored = self.grants.store().grant(&state.id).await?;
        if let Some(record) = state.successor(stored.as_ref().map(|stored| &stored.value)) {
            let began = stored.as_ref().map(Versioned::began);
            self.try_save(state, &record, began, lease.as_ref()).await?;
        }
        let still_unsaved = self.unsaved.load(Ordering::SeqCst);
        info!(account = state.id.as_str(), still_unsaved, "the store takes records again");
        Ok(())
    }
}

fn report(state: &TokenState, error: &Error) {
    let account = state.id.as_str();
    let error_text = chain(error);
    match error.failure() {
        Failure::NotConnected => error!(account, "not connected: connect the account"),
        Failure::GrantDead => {
            error!(account, error = %error_text, "grant is dead: connect the account again");
        }
        Failure::ApplicationRejected(why) => {
            let (application, advice) = (state.application.name(), why.advice());
            error!(account, application, error = %error_text, advice, "application rejected");
        }
        Failure::Unavailable { reason, .. } if reason.is_passing() => {
            warn!(account, error = %error_text, "refresh failed");
        }
        Failure::Unavailable { reason, .. } => {
            error!(account, error = %error_text, advice = reason.advice(), "refresh failed");
        }
    }
}
