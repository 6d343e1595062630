//! One refresh, from the account's lease to the published token.
//!
//! The order keeps grants alive: lease the account, read the record again, ask LWA, make a changed
//! refresh token durable, only then use the access token it came with. Nothing is locked while LWA
//! is asked: what is written is an update of the very record that the refresh began with.

use super::{
    AccessToken, Cause, Error, Obstacle, TokenManager, TokenState, slot::Life, state::record_id,
};
use crate::{
    clock::Now,
    error_chain::chain,
    lwa::{self, GrantedToken, LwaFailure},
    metrics::{RefreshOutcome, Trigger},
    store::{self, Began, Credential, Lease, StoredAccessToken, Versioned},
};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;
use tracing::info;

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
pub(super) enum RefreshError {
    #[error("login with amazon")]
    Lwa(#[source] lwa::Error),
    #[error("the store")]
    Store(#[from] store::Error),
    #[error("{1}")]
    Other(Error, &'static str),
}

impl RefreshError {
    /// What it means for those that want a token; the time to try again is LWA's, if it says one.
    pub(super) fn failure(&self) -> Error {
        match self {
            Self::Lwa(error) => {
                let retry_after = error.retry_after().unwrap_or_default();
                match error.failure() {
                    why @ (LwaFailure::InvalidClient | LwaFailure::UnauthorizedClient) => {
                        Error::ApplicationRejected { why, retry_after }
                    }
                    why => Error::Unavailable { reason: Obstacle::Lwa(why), retry_after },
                }
            }
            Self::Store(error) => Error::unavailable(Obstacle::of_store(error)),
            Self::Other(error, _) => *error,
        }
    }

    fn outcome(&self) -> RefreshOutcome {
        match (self.failure(), self) {
            (Error::NotConnected | Error::ReauthorizationRequired, _) => {
                RefreshOutcome::ReauthorizationRequired
            }
            (Error::ApplicationRejected { .. }, _) => RefreshOutcome::ApplicationRejected,
            (_, Self::Store(_)) => RefreshOutcome::StoreFailed,
            _ => RefreshOutcome::Transient,
        }
    }
}

impl TokenManager {
    /// Begins the refresh that the slot has handed out, in a task of its own: a caller that leaves
    /// does not stop it.
    pub(super) fn spawn_refresh(
        &self,
        state: &Arc<TokenState>,
        trigger: Trigger,
        cause: Cause<'_>,
    ) -> JoinHandle<()> {
        state.lock().request_id = match cause {
            Cause::Request(id) => Some(String::from_utf8_lossy(id).into_owned()),
            Cause::Caller | Cause::Background => None,
        };
        let (this, state) = (self.clone(), state.clone());
        self.0.with.control.spawn(async move {
            let started = this.0.with.clock.now();
            let (its_manager, its_state) = (this.clone(), state.clone());
            let refresh = this.0.with.control.spawn(async move {
                let fetched = its_manager.fetch(&its_state).await;
                its_manager.conclude(&its_state, trigger, started, fetched);
            });
            if refresh.await.is_err() {
                // A panic in it ends the refresh, too: no caller waits for one that is gone.
                let error = Error::unavailable(Obstacle::UNREACHABLE);
                let error = RefreshError::Other(error, "the refresh ended unexpectedly");
                this.conclude(&state, trigger, started, Err(error));
            }
        })
    }

    /// Publishes and reports how a refresh that began at `started` has ended.
    fn conclude(
        &self,
        state: &Arc<TokenState>,
        trigger: Trigger,
        started: Now,
        fetched: Result<AccessToken, RefreshError>,
    ) {
        let now = self.0.with.clock.now();
        let outcome = match fetched {
            Ok(token) => {
                self.report_refreshed(state, &token, trigger, now.unix());
                state.lock().request_id = None;
                state.publish(token);
                RefreshOutcome::Succeeded
            }
            Err(error) => {
                state.fail(error.failure(), &chain(&error), now);
                // Reported before a waiter can ask for the result.
                self.report_failed(state, &error, now.unix());
                state.lock().request_id = None;
                state.finished.send_replace(());
                error.outcome()
            }
        };
        let took = now.mono.saturating_duration_since(started.mono);
        self.0.with.metrics.token_refresh(trigger, outcome, took);
        self.0.background.push(state, now);
    }

    /// A token of the account's grant. A grant that was connected anew, or refreshed elsewhere,
    /// while LWA was asked is looked at again.
    async fn fetch(&self, state: &TokenState) -> Result<AccessToken, RefreshError> {
        if state.is_pending() {
            let why = "the account could not be seeded or read yet";
            return Err(RefreshError::Other(Error::unavailable(Obstacle::Store), why));
        }
        let mut tries = 1;
        loop {
            match self.fetch_once(state).await {
                Err(RefreshError::Store(store::Error::Conflict)) if tries < TRIES => tries += 1,
                done => return done,
            }
        }
    }

    /// Lease, record, LWA, save: the token is used only after its record is durable.
    async fn fetch_once(&self, state: &TokenState) -> Result<AccessToken, RefreshError> {
        let known = state.lock().slot.generation;
        let lease = self.lease(state, LEASE_WAIT).await?;
        // After the lease: a waiter for one account uses no slot of other accounts.
        let waits = || self.0.with.metrics.lwa_concurrency_hit();
        let _place = self.0.lwa_calls.take(&state.id, waits).await;
        let (record, began) = self.newest_record(state).await?;
        if state.has_moved(&record) {
            let why = "the account was given to another region or application";
            return Err(RefreshError::Other(Error::unavailable(Obstacle::Store), why));
        }
        // Another process may have refreshed while this one waited for the lease.
        if record.generation > known
            && let Some(token) = self.stored_token(&record, self.0.with.clock.now())
            && !token.life.is_expired(self.0.with.clock.now())
        {
            return Ok(token);
        }
        if record.reauthorization_required {
            self.0.reported.lock().dead.insert(state.id.clone());
            let why = "the record says that the grant is dead";
            return Err(RefreshError::Other(Error::ReauthorizationRequired, why));
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
        match self.0.with.grants.store().lease_grant(&state.id, LEASE, wait).await {
            Ok(lease) => Ok(Some(lease)),
            Err(store::Error::Conflict) => Ok(None),
            Err(error) if error.is_unwritable() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The store's record, or the newer one that the store would not take yet, and what the store
    /// holds.
    async fn newest_record(&self, state: &TokenState) -> Result<(Credential, Base), RefreshError> {
        let stored = match self.0.with.grants.store().grant(&state.id).await {
            Ok(stored) => stored,
            // A store that is away says nothing about what it holds; a record that does not open
            // may be newer than ours.
            Err(error) => {
                let unsaved = state.lock().unsaved.as_ref().map(|(record, _)| record.clone());
                return match unsaved.filter(|_| !error.is_lasting()) {
                    Some(record) => Ok((record, Err(error))),
                    None => Err(error.into()),
                };
            }
        };
        let successor = state.successor(stored.as_ref().map(|stored| &stored.value));
        state.lock().stored = stored.as_ref().map(|stored| record_id(&stored.value));
        let began = stored.as_ref().map(Versioned::began);
        let record = successor.or(stored.map(|stored| stored.value));
        let why = "there is no grant for this account";
        let record = record.ok_or(RefreshError::Other(Error::NotConnected, why))?;
        Ok((record, Ok(began)))
    }

    /// Asks LWA with the current refresh token, then once with what may be behind a dead one.
    async fn ask_lwa(
        &self,
        attempt: &RefreshAttempt<'_>,
        mut record: Credential,
    ) -> Result<(Credential, GrantedToken), RefreshError> {
        let (state, lwa) = (attempt.state, &self.0.with.lwa);
        let attempts = match state.lock().slot.failures {
            0 => self.0.config.lwa_attempts_max,
            _ => 1,
        };
        let mut asked = lwa.refresh(&state.application, &record.refresh_token, attempts).await;
        if matches!(asked, Err(lwa::Error::InvalidGrant)) {
            // A person may have connected the account anew, or moved it, while LWA was asked.
            let again = self.0.with.grants.store().grant(&state.id).await?;
            let has_left = again.as_ref().is_some_and(|again| {
                let again = &again.value;
                again.epoch == record.epoch && again.application != record.application
            });
            if has_left || state.lock().stored != again.map(|again| record_id(&again.value)) {
                return Err(store::Error::Conflict.into());
            }
            if let Some(previous) = record.previous_refresh_token.clone() {
                asked = lwa.refresh(&state.application, &previous, 1).await;
                if asked.is_ok() {
                    record.refresh_token = previous;
                }
            }
        }
        match asked {
            Ok(granted) => Ok((record, granted)),
            Err(lwa::Error::InvalidGrant) => Err(self.mark_dead(attempt, record).await),
            Err(error) => Err(RefreshError::Lwa(error)),
        }
    }

    /// Reports that the grant is dead, and marks its record so, for other processes.
    async fn mark_dead(
        &self,
        attempt: &RefreshAttempt<'_>,
        mut record: Credential,
    ) -> RefreshError {
        record.reauthorization_required = true;
        record.access_token = None;
        record.updated_at = self.0.with.clock.now().unix();
        self.report_dead(attempt.state, record.updated_at).await;
        let is_saved = match attempt.began {
            Ok(began) => {
                let lease = attempt.lease.as_ref();
                match self.try_save(attempt.state, &record, began, lease).await {
                    Err(error @ store::Error::Conflict) => return error.into(),
                    saved => saved.is_ok(),
                }
            }
            Err(_) => false,
        };
        // Where the mark is saved, its absence says that the account was connected anew.
        attempt.state.lock().dead = (!is_saved).then(|| record_id(&record));
        let why = "login with amazon says the grant is dead";
        RefreshError::Other(Error::ReauthorizationRequired, why)
    }

    /// Makes the response durable and a token of it.
    async fn keep(
        &self,
        attempt: &RefreshAttempt<'_>,
        mut record: Credential,
        known: u64,
        granted: GrantedToken,
    ) -> Result<AccessToken, RefreshError> {
        let now = self.0.with.clock.now();
        record.generation = record.generation.max(known).saturating_add(1);
        record.access_token = Some(StoredAccessToken {
            token: granted.access_token,
            issued_at: now.unix(),
            expires_at: now.unix().saturating_add(granted.expires_in.as_secs()),
        });
        let life = Life::new(now, granted.expires_in);
        let why = "login with amazon sent an access token that is not one";
        let token = self
            .token_of(&record, life)
            .ok_or(RefreshError::Other(Error::unavailable(Obstacle::NOT_LWA), why))?;
        // An absent or empty refresh token never replaces the one there is.
        let rotated = granted.refresh_token.filter(|new| *new != record.refresh_token);
        // A rotated one is tried longer, because nothing else has it.
        let tries = if rotated.is_some() { 3 } else { 1 };
        if let Some(new) = rotated {
            record.previous_refresh_token = Some(std::mem::replace(&mut record.refresh_token, new));
        }
        record.reauthorization_required = false;
        record.updated_at = now.unix();
        self.save(attempt, record, tries).await?;
        Ok(token)
    }

    /// Saves `record`. When the disk refuses, the record stays in memory, serves on and is saved
    /// when it can be.
    async fn save(
        &self,
        RefreshAttempt { state, began, lease }: &RefreshAttempt<'_>,
        record: Credential,
        tries: u32,
    ) -> Result<(), store::Error> {
        let began = match began {
            Ok(began) => *began,
            Err(error) => {
                self.put_off(state, record, error);
                return Ok(());
            }
        };
        for tried in 1.. {
            match self.try_save(state, &record, began, lease.as_ref()).await {
                Err(error) if !matches!(error, store::Error::Conflict) => {
                    if tried == tries {
                        self.put_off(state, record, &error);
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(100) * tried).await;
                }
                saved => return saved,
            }
        }
        Ok(())
    }

    async fn try_save(
        &self,
        state: &TokenState,
        record: &Credential,
        began: Option<Began>,
        lease: Option<&Lease>,
    ) -> Result<(), store::Error> {
        let saved = self.0.with.grants.update(record, began, lease).await;
        if !matches!(saved, Err(store::Error::Conflict)) {
            self.0.with.metrics.store_write(saved.is_ok());
        }
        if saved.is_ok() {
            let mut locked = state.lock();
            (locked.stored, locked.unsaved) = (Some(record_id(record)), None);
        }
        saved
    }

    /// Saves a record that the store would not take before, if there is one and the store has not
    /// gone on since.
    ///
    /// # Errors
    /// When it still does not take it.
    pub(crate) async fn save_unsaved(&self, state: &TokenState) -> Result<(), store::Error> {
        if state.lock().unsaved.is_none() {
            return Ok(());
        }
        // Not while a refresh is writing; tried again soon.
        let lease = self.lease(state, Duration::ZERO).await?;
        let stored = self.0.with.grants.store().grant(&state.id).await?;
        if let Some(record) = state.successor(stored.as_ref().map(|stored| &stored.value)) {
            let began = stored.as_ref().map(Versioned::began);
            self.try_save(state, &record, began, lease.as_ref()).await?;
        }
        let still_unsaved = self.unsaved();
        info!(account = state.id.as_str(), still_unsaved, "the store takes records again");
        Ok(())
    }
}
