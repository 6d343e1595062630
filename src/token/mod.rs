//! Access tokens: one state per account, one refresh at a time.
//!
//! Invariants: an expired token is never handed out; N callers that find no token cause one call
//! to LWA, whatever their order and whichever of them leaves; a refresh belongs to no request
//! (it is a task of the control runtime); a failure is remembered like a success. This module does
//! not know HTTP requests, and nothing outside it keeps an access token beyond a request.

mod access_token;
mod announce;
pub mod background;
pub mod consent;
mod error;
mod refresh;
pub mod slot;
mod state;
mod stored;

pub use access_token::AccessToken;
pub use error::{Error, Obstacle};
pub use state::{Authority, StateTable, TokenState};
pub use stored::stored_state;

use crate::{
    account::AccountView,
    clock::{Clock, Now},
    config,
    error_chain::chain,
    grants::{Grants, Unwritten},
    id::{AccountId, Region},
    lwa::{Application, LwaClient},
    metrics::{Metrics, Trigger},
    reports::Reports,
    store::{self, Credential},
};
use slot::{Failure, Policy, Rejected, Want};
use state::RecordId;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{runtime::Handle, sync::Semaphore, sync::watch, time::timeout};

/// What a refresh begins for; the audit log and hooks name a request.
#[derive(Clone, Copy, Debug)]
pub enum Cause<'a> {
    /// A request, by its id.
    Request(&'a [u8]),
    /// A caller that has no request.
    Caller,
    /// The time: the token ends soon.
    Background,
}

/// What to replay a request with after a 401.
#[derive(Debug)]
pub struct Replacement {
    /// The token to replay with; the rejected one again where no other could be had in time.
    pub token: Arc<AccessToken>,
    /// Why it is the rejected one although a refresh was called for. If Amazon says 401 again,
    /// this is the error to report.
    pub failed: Option<Error>,
}

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

/// Hands out access tokens and keeps them fresh. Cheap to clone.
#[derive(Clone)]
pub struct TokenManager(Arc<TokenManagerInner>);

/// What a manager works with.
#[derive(Clone, Debug)]
pub struct Dependencies {
    /// Reads the time.
    pub clock: Arc<dyn Clock>,
    /// Is asked for tokens.
    pub lwa: LwaClient,
    /// Keeps grants.
    pub grants: Grants,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Where what happens is reported.
    pub reports: Reports,
    /// Runs the refreshes. It must live as long as they take: a refresh that is cut off between
    /// LWA's response and the store may lose a rotated grant.
    pub control: Handle,
}

struct TokenManagerInner {
    policy: Policy,
    config: config::Token,
    clock: Arc<dyn Clock>,
    lwa: LwaClient,
    grants: Grants,
    metrics: Arc<Metrics>,
    announcer: announce::Announcer,
    control: Handle,
    lwa_calls: Semaphore,
    background: background::Queue,
    states: state::States,
    /// Accounts whose newest record is in memory only.
    unsaved: Arc<AtomicUsize>,
}

impl fmt::Debug for TokenManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenManager")
    }
}

impl TokenManager {
    /// A manager for no account yet: see [`TokenManager::set_states`].
    pub fn new(config: &config::Token, with: Dependencies) -> Self {
        Self(Arc::new(TokenManagerInner {
            policy: Policy::new(config),
            clock: with.clock,
            lwa: with.lwa,
            grants: with.grants,
            metrics: with.metrics,
            announcer: announce::Announcer::new(with.reports),
            control: with.control,
            lwa_calls: Semaphore::new(config.lwa_concurrency),
            background: background::Queue::default(),
            states: state::States::default(),
            unsaved: Arc::default(),
            config: config.clone(),
        }))
    }

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
        let now = self.0.clock.now();
        let state = TokenState::new(id, region, application, authority, self.0.policy);
        let state = Arc::new(state);
        match grant {
            KnownGrant::Record(record) => self.load(&state, &record),
            KnownGrant::Absent => state.fail(Failure::NotConnected, "not connected", now),
            KnownGrant::Unreadable(error) => {
                let failure = Failure::unavailable(Obstacle::of_store(&error));
                state.fail(failure, &chain(&error), now);
            }
            // Serves from memory, and is saved when that can be.
            KnownGrant::Unwritten(unwritten) => {
                let Unwritten { record, stored, error } = *unwritten;
                state.lock().stored = stored.as_ref().map(RecordId::of);
                state.remember_consent(&record);
                self.0.put_off(&state, record, &error);
            }
        }
        state
    }

    /// The states of all accounts.
    pub fn states(&self) -> Arc<StateTable> {
        self.0.states.snapshot()
    }

    /// Replaces the states of all accounts, and wipes the tokens of those that are gone.
    pub fn set_states(&self, states: StateTable) {
        for state in self.0.states.replace(states) {
            state.wipe(self.0.clock.now());
        }
    }

    /// The state of the account's token, if there is such an account.
    pub fn state(&self, id: &AccountId) -> Option<Arc<TokenState>> {
        self.0.states.get(id)
    }

    /// Uses what the record says. A token that is still good is used without a refresh.
    fn load(&self, state: &Arc<TokenState>, record: &Credential) {
        let now = self.0.clock.now();
        state.lock().stored = Some(RecordId::of(record));
        state.remember_consent(record);
        if record.reauthorization_required {
            self.0.announcer.known_dead(state.id());
        }
        if let Some(failure) = stored::failure(record) {
            let why = match failure {
                Failure::NotConnected => "the account was logged out",
                _ => "the grant is dead",
            };
            return state.fail(failure, why, now);
        }
        if let Some(token) = self.0.stored_token(record, now) {
            if token.life.is_expired(now) {
                state.lock().slot.expired(token.generation, token.life);
            } else {
                self.0.announcer.usable(state, token.generation, now.unix());
                state.publish(token);
            }
        }
        self.0.background.push(state, now);
    }

    /// How many accounts have a newer record than the store: some, and the store is degraded.
    pub fn unsaved(&self) -> usize {
        self.0.unsaved.load(Ordering::SeqCst)
    }

    /// Whether only another record, or a record that can be read, helps the account.
    pub fn is_stuck(&self, state: &TokenState) -> bool {
        state.lock().slot.state(self.0.clock.now()).needs_record()
    }

    /// Forgets failures if `record` brings a grant that is not known to be dead.
    pub fn reconnected(&self, state: &Arc<TokenState>, record: &Credential) -> bool {
        let mut locked = state.lock();
        if record.reauthorization_required || locked.dead == Some(RecordId::of(record)) {
            return false;
        }
        locked.slot.reconnected();
        locked.last_error = None;
        drop(locked);
        self.load(state, record);
        true
    }

    /// Saves a record that the store would not take before, if there is one.
    ///
    /// # Errors
    /// When it still does not.
    pub async fn save_unsaved(&self, state: &TokenState) -> Result<(), store::Error> {
        self.0.save_unsaved(state).await
    }

    /// Returns a token of `account` that has not expired.
    ///
    /// A token inside the refresh buffer is returned at once while a refresh starts beside it.
    /// Without a valid token this waits, at most `token.wait_timeout_secs`, for the one refresh
    /// that all callers share.
    ///
    /// # Errors
    /// [`Error::ReauthorizationRequired`] and [`Error::ApplicationRejected`] are remembered and
    /// come at once; [`Error::Unavailable`] carries the time to try again.
    ///
    /// # Cancel safety
    /// Safe: the refresh runs in its own task, and goes on when every caller has left.
    pub async fn token(&self, account: &AccountId) -> Result<Arc<AccessToken>, Error> {
        self.token_at(account, self.0.clock.now(), Cause::Caller).await
    }

    /// As [`TokenManager::token`], for a caller that has just read the clock itself.
    ///
    /// # Errors
    /// As [`TokenManager::token`].
    ///
    /// # Cancel safety
    /// As [`TokenManager::token`].
    pub async fn token_at(
        &self,
        account: &AccountId,
        now: Now,
        cause: Cause<'_>,
    ) -> Result<Arc<AccessToken>, Error> {
        let state = match self.0.states.fresh(account, now) {
            Ok(token) => return Ok(token),
            Err(state) => state.ok_or(Error::ReauthorizationRequired)?,
        };
        Box::pin(self.token_slowly(&state, now, cause)).await
    }

    async fn token_slowly(
        &self,
        state: &Arc<TokenState>,
        now: Now,
        cause: Cause<'_>,
    ) -> Result<Arc<AccessToken>, Error> {
        // Subscribed before the state is looked at, so that no end of a refresh is missed.
        let finished = state.finished.subscribe();
        let want = state.lock().slot.want(now);
        match want {
            Want::Use => {}
            Want::UseAndRefresh => drop(self.0.spawn_refresh(state, Trigger::Request, cause)),
            Want::Refresh => {
                drop(self.0.spawn_refresh(state, Trigger::Request, cause));
                self.0.wait(state, finished).await?;
            }
            Want::Wait => self.0.wait(state, finished).await?,
            Want::Refuse(error) => return Err(error),
        }
        self.0.after_waiting(state)
    }

    /// Returns a token that lives for at least `least` more, where a refresh can bring one.
    ///
    /// Refreshes once if less is left, and then returns what there is: the caller looks at
    /// [`AccessToken::expires_in`].
    ///
    /// # Errors
    /// As [`TokenManager::token`], also when a token that lives shorter is there.
    ///
    /// # Cancel safety
    /// As [`TokenManager::token`].
    pub async fn token_for(
        &self,
        account: &AccountId,
        least: Duration,
    ) -> Result<Arc<AccessToken>, Error> {
        let state = &self.existing(account)?;
        let token = self.token(account).await?;
        let now = self.0.clock.now();
        if token.expires_in(now) >= least {
            return Ok(token);
        }
        let finished = state.finished.subscribe();
        // Looked at again after subscribing: the refresh that `token` began may be over by now.
        if state.lock().slot.generation() > token.generation {
            return self.0.after_waiting(state);
        }
        let (begun, refusal) = {
            let slot = &mut state.lock().slot;
            (slot.background(now), slot.refusal(now))
        };
        if begun {
            drop(self.0.spawn_refresh(state, Trigger::Request, Cause::Caller));
        } else if let Some(refusal) = refusal {
            return Err(refusal);
        }
        self.0.wait(state, finished).await?;
        let refusal = state.lock().slot.refusal(self.0.clock.now());
        refusal.map_or_else(|| self.0.after_waiting(state), Err)
    }

    /// Returns what to replay a request with after Amazon's 401 to `rejected`.
    ///
    /// Refreshes only if no refresh has ended meanwhile, and at most once per
    /// `token.forced_refresh_min_interval_secs`; inside that time the same token comes back,
    /// because Amazon's gateway sometimes answers a spurious 401.
    ///
    /// # Errors
    /// As [`TokenManager::token`]; a transient failure with a token that still lives by the clock
    /// is no error but `Replacement::failed`.
    ///
    /// # Cancel safety
    /// Safe: the refresh runs in its own task.
    pub async fn replace(
        &self,
        account: &AccountId,
        rejected: &Arc<AccessToken>,
        cause: Cause<'_>,
    ) -> Result<Replacement, Error> {
        let state = &self.existing(account)?;
        let now = self.0.clock.now();
        let finished = state.finished.subscribe();
        let decision = state.lock().slot.rejected(rejected.generation, now);
        let outcome = match decision {
            Rejected::Replay => Ok(()),
            Rejected::Refresh => {
                drop(self.0.spawn_refresh(state, Trigger::Forced, cause));
                self.0.wait(state, finished).await
            }
            Rejected::Wait => self.0.wait(state, finished).await,
            Rejected::Refuse(error) => Err(error),
        };
        let now = self.0.clock.now();
        match (outcome, state.good(now)) {
            (Ok(()), Some(token)) if decision == Rejected::Replay => {
                Ok(Replacement { token, failed: None })
            }
            (_, Some(token)) if token.generation > rejected.generation => {
                Ok(Replacement { token, failed: None })
            }
            (outcome, current) => {
                let refusal = state.lock().slot.refusal(now);
                let error = outcome.err().or(refusal).unwrap_or(Error::later());
                if error == Error::ReauthorizationRequired {
                    state.discard(rejected);
                }
                match (error, current) {
                    (Error::Unavailable { .. } | Error::TooManyWaiters, Some(token)) => {
                        Ok(Replacement { token, failed: Some(error) })
                    }
                    _ => Err(error),
                }
            }
        }
    }

    /// Notes a 401 that comes too late for its own request: a refresh starts, no caller waits.
    pub fn reject(&self, account: &AccountId, rejected: &AccessToken, cause: Cause<'_>) {
        let now = self.0.clock.now();
        let Some(state) = &self.state(account) else { return };
        if state.lock().slot.rejected(rejected.generation, now) == Rejected::Refresh {
            drop(self.0.spawn_refresh(state, Trigger::Forced, cause));
        }
    }

    /// What `/status` and `/metrics` show of one account; none if there is no such account.
    pub fn status(&self, account: &AccountId) -> Option<AccountView> {
        let state = self.state(account)?;
        let now = self.0.clock.now();
        let consent_days_left = state.consent_days_left(now.unix());
        let expires_in = state.current.load().as_ref().map(|token| token.life.remaining(now));
        let locked = state.lock();
        let word = locked.slot.state(now);
        Some(AccountView {
            account: state.id.clone(),
            state: word,
            region: state.region,
            application: state.application.name().to_owned(),
            expires_in,
            generation: locked.slot.generation(),
            last_error: locked.last_error.clone(),
            reauthorization_required: word.needs_login(),
            consent_days_left,
            is_unsaved: locked.unsaved.is_some(),
        })
    }

    /// An account that was removed while its request was under way is not connected.
    fn existing(&self, account: &AccountId) -> Result<Arc<TokenState>, Error> {
        self.state(account).ok_or(Error::ReauthorizationRequired)
    }

    /// Waits until no refresh is under way, and lets none begin any more.
    ///
    /// # Cancel safety
    /// Safe: refreshes may begin again then.
    pub async fn finish(&self) {
        let all = u32::try_from(self.0.config.lwa_concurrency).unwrap_or(u32::MAX);
        if let Ok(places) = self.0.lwa_calls.acquire_many(all).await {
            places.forget();
        }
    }

    /// Refreshes tokens ahead of their expiry until dropped.
    ///
    /// # Cancel safety
    /// Safe: refreshes under way finish in their own tasks.
    pub async fn run_background(&self) {
        background::run(&self.0).await;
    }
}

impl TokenManagerInner {
    /// Waits for the end of the refresh under way, however it ends.
    async fn wait(
        &self,
        state: &TokenState,
        mut finished: watch::Receiver<u64>,
    ) -> Result<(), Error> {
        let waiter =
            state::Waiter::register(state, self.config.waiters_max).ok_or(Error::TooManyWaiters)?;
        let ended = timeout(self.config.wait_timeout, finished.changed()).await;
        drop(waiter);
        match ended {
            Ok(Ok(())) => Ok(()),
            _ => Err(Error::later()),
        }
    }

    /// Looks again after a wait: a good token, or why there is none. Starts nothing.
    fn after_waiting(&self, state: &TokenState) -> Result<Arc<AccessToken>, Error> {
        let now = self.clock.now();
        let refusal = || state.lock().slot.refusal(now).unwrap_or(Error::later());
        state.good(now).ok_or_else(refusal)
    }

    /// The access token in `record`, which may have expired.
    fn stored_token(&self, record: &Credential, now: Now) -> Option<AccessToken> {
        let stored = record.access_token.as_ref()?;
        let life = stored::life(record, now)?;
        AccessToken::new(&stored.token, record.generation, life, &self.policy)
    }
}
