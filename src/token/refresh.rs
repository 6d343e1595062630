//! One refresh, from the account's lease to the published token.
//!
//! The order keeps grants alive: lease the account, read the record again, ask LWA, make a changed
//! refresh token durable, only then use the access token it came with. Nothing is locked while LWA
//! is asked: what is written is an update of the very record that the refresh began with.

use super::{
    AccessToken, Cause, Error, Obstacle, TokenManager, TokenState, locked::record_id,
    report::TokenSource, slot::Life,
};
use crate::{
    clock::Now,
    error_chain::chain,
    lwa::{self, GrantedToken, LwaFailure},
    metrics::{RefreshOutcome, Trigger},
    store::{self, Began, ClaimedGrant, Credential, Lease, StoredAccessToken, Versioned},
    telemetry::RefreshFacts,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

/// Longer than a refresh takes. The lease of a process that was killed ends with it.
pub(super) const LEASE: Duration = Duration::from_secs(120);
/// A record that was read with its lease is read again where LWA could not be asked for so long.
const RECORD_LIFETIME: Duration = Duration::from_secs(1);
/// How long a refresh waits for that of another process.
const LEASE_WAIT: Duration = Duration::from_secs(15);
/// How long a refresh waits for a database that restarts or fails over, and between looks at it.
const STORE_WAIT: Duration = Duration::from_secs(10);
pub(super) const STORE_RETRY: Duration = Duration::from_millis(250);
/// How often a grant is looked at whose record is replaced while LWA is asked.
const TRIES: u32 = 3;

pub(super) struct RefreshAttempt<'a> {
    pub(super) state: &'a TokenState,
    pub(super) began: Base,
    pub(super) lease: Option<Lease>,
}

/// The record in the store that a refresh began with, none if there was none; or why it could not be
/// read.
pub(super) type Base = Result<Option<Began>, store::Error>;

/// A record that was read with its lease, and when.
pub(super) type Found = (Result<Versioned<Credential>, store::Error>, Instant);

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
            (_, Self::Store(store::Error::Held { .. })) => RefreshOutcome::Transient,
            (_, Self::Store(_)) => RefreshOutcome::StoreFailed,
            _ => RefreshOutcome::Transient,
        }
    }
}

impl TokenManager {
    /// Begins the refresh that the slot has handed out, in a task of its own: a caller that leaves
    /// does not stop it. `claimed`: the grant, if it is leased already.
    pub(super) fn spawn_refresh(
        &self,
        state: &Arc<TokenState>,
        trigger: Trigger,
        cause: Cause<'_>,
        claimed: Option<ClaimedGrant>,
    ) -> JoinHandle<()> {
        if let Cause::Request { id, server_id, .. } = cause {
            let ids =
                (Some(String::from_utf8_lossy(id).into_owned()), server_id.map(str::to_owned));
            state.lock().refresh().request_ids = ids;
        }
        let (this, state) = (self.clone(), state.clone());
        self.0.with.control.spawn(async move {
            let started = this.0.with.clock.now();
            let (its_manager, its_state) = (this.clone(), state.clone());
            let refresh = this.0.with.control.spawn(async move {
                let fetched = its_manager.fetch(&its_state, claimed).await;
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
        fetched: Result<(AccessToken, TokenSource), RefreshError>,
    ) {
        let now = self.0.with.clock.now();
        let error = fetched.as_ref().err().map(|error| error.failure().code());
        let cause;
        let outcome = match fetched {
            Ok((token, source)) => {
                self.report_refreshed(state, (&token, source), trigger, now.unix());
                cause = state.publish(token);
                RefreshOutcome::Succeeded
            }
            Err(error) => {
                state.fail(error.failure(), &chain(&error), now);
                // Reported before a waiter can ask for the result.
                self.report_failed(state, &error, now.unix());
                cause = state.lock().end_refresh();
                state.finished.notify_waiters();
                error.outcome()
            }
        };
        let took = now.mono.saturating_duration_since(started.mono);
        self.0.with.metrics.token_refresh(trigger, outcome, took, now.unix());
        if let Some(spans) = self.0.spans.get() {
            let account = state.id.as_str();
            let facts = RefreshFacts { account, trigger, outcome, error, began: started, took };
            spans.end(&facts, cause.requests);
        }
        self.0.background.push(state, now);
    }

    /// A token of the account's grant. A grant that was connected anew, or refreshed elsewhere,
    /// while LWA was asked is looked at again.
    async fn fetch(
        &self,
        state: &TokenState,
        mut claimed: Option<ClaimedGrant>,
    ) -> Result<(AccessToken, TokenSource), RefreshError> {
        if state.is_pending() {
            let why = "the account could not be seeded or read yet";
            return Err(RefreshError::Other(Error::unavailable(Obstacle::Store), why));
        }
        let mut tries = 1;
        let until = Instant::now() + STORE_WAIT;
        loop {
            match self.fetch_once(state, claimed.take()).await {
                Err(RefreshError::Store(store::Error::Conflict)) if tries < TRIES => tries += 1,
                Err(RefreshError::Store(store::Error::Database { .. }))
                    if Instant::now() < until =>
                {
                    sleep(STORE_RETRY).await;
                }
                done => return done,
            }
        }
    }

    /// Lease, record, LWA, save: the token is used only after its record is durable.
    async fn fetch_once(
        &self,
        state: &TokenState,
        claimed: Option<ClaimedGrant>,
    ) -> Result<(AccessToken, TokenSource), RefreshError> {
        let known = state.lock().slot.generation;
        let (lease, found) = match claimed {
            Some(claimed) => Self::leased(claimed),
            None => self.lease(state, LEASE_WAIT).await?,
        };
        // After the lease: a waiter for one account uses no slot of other accounts.
        let waits = || self.0.with.metrics.lwa_concurrency_hit();
        let _place = self.0.lwa_calls.take(&state.id, waits).await;
        let (record, began) = self.newest_record(state, found).await?;
        if state.has_moved(&record) {
            let why = "the account was given to another region or application";
            return Err(RefreshError::Other(Error::unavailable(Obstacle::Store), why));
        }
        // Another process may have refreshed while this one waited for the lease.
        if record.generation > known
            && let Some(token) = self.stored_token(&record, self.0.with.clock.now())
            && !token.life().is_expired(self.0.with.clock.now())
        {
            return Ok((token, TokenSource::AnotherServer));
        }
        if record.reauthorization_required {
            self.0.reported.lock().dead.insert(state.id.clone());
            let why = "the record says that the grant is dead";
            return Err(RefreshError::Other(Error::ReauthorizationRequired, why));
        }
        let attempt = RefreshAttempt { state, began, lease };
        let asked_at = self.0.with.clock.now();
        let (record, granted) = self.ask_lwa(&attempt, record).await?;
        let kept = self.keep(&attempt, record, known, (granted, asked_at)).await;
        let source = TokenSource::asked_with(attempt.lease.as_ref());
        state.lock().keep_lease(attempt.lease);
        kept.map(|token| (token, source))
    }

    /// Leases the account from the store. None if there is nothing to lease, or the disk takes
    /// nothing: within this process the slot keeps other refreshes away, and a record that was
    /// written meanwhile is not overwritten.
    pub(super) async fn lease(
        &self,
        state: &TokenState,
        wait: Duration,
    ) -> Result<(Option<Lease>, Option<Found>), store::Error> {
        if let Some(kept) = state.lock().take_lease() {
            return Ok((Some(kept), None));
        }
        match self.0.with.grants.store().claim_grant(&state.id, LEASE, wait).await {
            Ok(claimed) => Ok(Self::leased(claimed)),
            Err(store::Error::Conflict) => Ok((None, None)),
            Err(error) if error.is_unwritable() => Ok((None, None)),
            // Others may do the same meanwhile, which costs a call each and no grant. As long as the
            // token lives, the store is waited for.
            Err(error)
                if error.is_away()
                    && state.good(self.0.with.clock.now()).is_none()
                    && state.known_record(&error).is_some() =>
            {
                Ok((None, None))
            }
            Err(error) => Err(error),
        }
    }

    fn leased(ClaimedGrant { lease, found, at }: ClaimedGrant) -> (Option<Lease>, Option<Found>) {
        (Some(lease), found.map(|found| (found, at)))
    }

    /// The store's record, as it was `found` a moment ago if it was, or the newer one that the store
    /// would not take yet, and what the store holds.
    async fn newest_record(
        &self,
        state: &TokenState,
        found: Option<Found>,
    ) -> Result<(Credential, Base), RefreshError> {
        let found = found.filter(|(_, at)| at.elapsed() < RECORD_LIFETIME);
        let stored = match found {
            Some((found, _)) => found.map(Some),
            None => self.0.with.grants.store().grant(&state.id).await,
        };
        let stored = match stored {
            Ok(stored) => stored,
            // A store that is away says nothing about what it holds; a record that does not open
            // may be newer than ours.
            Err(error) => {
                return match state.known_record(&error) {
                    Some(record) => Ok((record, Err(error))),
                    None => Err(error.into()),
                };
            }
        };
        let now = self.0.with.clock.now().unix();
        if stored.as_ref().is_some_and(|stored| state.is_set_back(&stored.value, now)) {
            return Err(store::Error::set_back(&state.id).into());
        }
        let successor = state.successor(stored.as_ref().map(|stored| &stored.value));
        match &stored {
            Some(stored) => state.saw(&stored.value),
            None => state.lock().stored = None,
        }
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
        let application = state.application();
        let attempts = match state.lock().slot.failures {
            0 => self.0.config.lwa_attempts_max,
            _ => 1,
        };
        let mut asked = lwa.refresh(&application, &record.refresh_token, attempts).await;
        if let Err(error) = &asked {
            let is_dead = matches!(error, lwa::Error::InvalidGrant);
            // A person may have connected the account anew, or moved it, while LWA was asked; or
            // another process has refreshed it, because this one stood still.
            match self.0.with.grants.store().grant(&state.id).await {
                Ok(again)
                    if state.is_outdated(&record, again.as_ref().map(|again| &again.value)) =>
                {
                    return Err(store::Error::Conflict.into());
                }
                Err(away) if is_dead => return Err(away.into()),
                Ok(_) | Err(_) => {}
            }
            let previous = record.previous_refresh_token.clone().filter(|_| is_dead);
            if let Some(previous) = previous {
                asked = lwa.refresh(&application, &previous, 1).await;
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
        attempt.state.keep_steady(None);
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
        attempt.state.lock().set_dead((!is_saved).then(|| record_id(&record)));
        let why = "login with amazon says the grant is dead";
        RefreshError::Other(Error::ReauthorizationRequired, why)
    }

    /// Makes the response durable and a token of it. The token lives from when it was asked for: how long
    /// after that Login with Amazon has issued it is not known.
    async fn keep(
        &self,
        attempt: &RefreshAttempt<'_>,
        mut record: Credential,
        known: u64,
        (granted, now): (GrantedToken, Now),
    ) -> Result<AccessToken, RefreshError> {
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
        let is_steady = rotated.is_none() && record.has_one_refresh_token();
        // A rotated one is tried longer, because nothing else has it.
        let tries = if rotated.is_some() { 3 } else { 1 };
        if let Some(new) = rotated {
            record.previous_refresh_token = Some(std::mem::replace(&mut record.refresh_token, new));
        }
        record.reauthorization_required = false;
        record.updated_at = now.unix();
        self.remember_steady(attempt.state, &record, is_steady);
        self.save(attempt, record, tries).await?;
        Ok(token)
    }
}
