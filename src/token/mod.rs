//! Access tokens: one state per account, one refresh at a time.
//!
//! Invariants: an expired token is never handed out; N callers that find no token cause one call
//! to LWA, whatever their order and whichever of them leaves; a refresh belongs to no request
//! (it is a task of the control runtime); a failure is remembered like a success. This module does
//! not know HTTP requests, and nothing outside it keeps an access token beyond a request.

mod access_token;
mod background;
pub mod consent;
mod error;
mod locked;
mod places;
mod refresh;
mod report;
mod save;
mod slot;
mod state;
mod stored;
mod table;

pub use access_token::AccessToken;
pub use error::{Error, Obstacle};
pub use state::{Authority, Place, TokenState};
pub use stored::{KnownGrant, stored_state};

use crate::{
    account::AccountView,
    clock::{Clock, Now},
    config,
    grants::Grants,
    id::AccountId,
    lwa::LwaClient,
    metrics::{Metrics, Trigger},
    reports::Reports,
    telemetry::RefreshSpans,
    trace_context::SpanContext,
};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use places::LwaPlaces;
use slot::{Decision, Slot};
use std::{
    fmt,
    pin::pin,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};
use table::StateTable;
use tokio::{runtime::Handle, time::timeout};

/// What a refresh begins for; the audit log and hooks name a request.
#[derive(Clone, Copy, Debug)]
pub enum Cause<'a> {
    /// A request.
    Request {
        /// The id that its response has.
        id: &'a [u8],
        /// The server's own, where `id` is the caller's.
        server_id: Option<&'a str>,
        /// Of a request that is recorded for a collector.
        span: Option<SpanContext>,
    },
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
    config: Arc<config::Token>,
    with: Dependencies,
    reported: Mutex<report::Reported>,
    lwa_calls: LwaPlaces,
    background: background::Queue,
    /// The states of all registered accounts; read without a lock.
    states: ArcSwap<StateTable>,
    /// Where accounts belong.
    places: Mutex<Vec<Weak<Place>>>,
    /// Where refreshes are recorded for a collector, if there is one.
    spans: OnceLock<RefreshSpans>,
    /// Each account whose newest record is in memory only has a clone.
    unsaved: Mutex<Arc<()>>,
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
            with,
            reported: Mutex::default(),
            lwa_calls: LwaPlaces::new(config.lwa_concurrency),
            background: background::Queue::default(),
            states: ArcSwap::default(),
            places: Mutex::default(),
            spans: OnceLock::new(),
            unsaved: Mutex::default(),
            config: Arc::new(config.clone()),
        }))
    }

    /// Records refreshes from now on.
    pub(crate) fn record(&self, spans: RefreshSpans) {
        // Set once, at the start.
        let _ = self.0.spans.set(spans);
    }

    /// The states of all accounts.
    pub(crate) fn states(&self) -> Arc<StateTable> {
        self.0.states.load_full()
    }

    /// Replaces the states of all accounts, and wipes the tokens of those that are gone.
    /// Of several of one account the first is kept.
    pub fn set_states(&self, states: impl IntoIterator<Item = Arc<TokenState>>) {
        let states = Arc::new(states.into_iter().collect::<StateTable>());
        for state in self.0.states.swap(states.clone()).iter() {
            let kept = states.get(state.id.as_str());
            if !kept.is_some_and(|kept| Arc::ptr_eq(kept, state)) {
                state.wipe(self.0.with.clock.now());
            }
        }
    }

    /// The state of the account's token, if there is such an account.
    pub(crate) fn state(&self, id: &AccountId) -> Option<Arc<TokenState>> {
        self.0.states.load().get(id.as_str()).cloned()
    }

    /// How many accounts have a newer record than the store: some, and the store is degraded.
    pub fn unsaved(&self) -> usize {
        Arc::strong_count(&self.0.unsaved.lock()) - 1
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
        let state = self.existing(account)?;
        self.token_at(&state, self.0.with.clock.now(), Cause::Caller).await
    }

    /// As [`TokenManager::token`], for a caller that has just read the clock itself, and knows the
    /// account's state. A token that needs no refresh costs no lock and no allocation.
    pub(crate) async fn token_at(
        &self,
        state: &TokenState,
        now: Now,
        cause: Cause<'_>,
    ) -> Result<Arc<AccessToken>, Error> {
        {
            let current = state.current.load();
            if let Some(token) = current.as_ref().filter(|token| token.is_fresh(now)) {
                return Ok(token.clone());
            }
        }
        // The state may have been replaced since the caller has found it.
        let mut state = self.existing(&state.id)?;
        // Boxed, so that callers whose token is fresh do not carry its size.
        Box::pin(async move {
            loop {
                let want = |slot: &mut Slot| slot.want(now);
                let followed = self.follow(&state, Trigger::Request, cause, want).await;
                match followed.and_then(|_| self.current(&state)) {
                    Err(error) => state = self.replacement(&state).ok_or(error)?,
                    token => return token,
                }
            }
        })
        .await
    }

    /// Returns a token that lives for at least `least` more, where a refresh can bring one.
    ///
    /// Refreshes once if less is left, and then returns what there is: the caller looks at
    /// [`AccessToken::expires_in`]. Errors are those of [`TokenManager::token`], also when a token
    /// that lives shorter is there.
    pub(crate) async fn token_for(
        &self,
        account: &AccountId,
        least: Duration,
    ) -> Result<Arc<AccessToken>, Error> {
        let state = self.existing(account)?;
        let token = self.token(account).await?;
        let now = self.0.with.clock.now();
        if token.expires_in(now) >= least {
            return Ok(token);
        }
        let renew = |slot: &mut Slot| slot.renew(token.generation, now);
        self.follow(&state, Trigger::Request, Cause::Caller, renew).await?;
        let rejection = state.lock().slot.rejection(self.0.with.clock.now());
        rejection.map_or_else(|| self.current(&state), Err)
    }

    /// Returns what to replay a request with after Amazon's 401 to `rejected`.
    ///
    /// Refreshes only if no refresh has ended meanwhile, and at most once per
    /// `token.forced_refresh_min_interval_secs`; inside that time the same token comes back,
    /// because Amazon's gateway sometimes sends a spurious 401.
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
        let state = self.existing(account)?;
        let now = self.0.with.clock.now();
        let decide = |slot: &mut Slot| slot.rejected(rejected.generation, now);
        let followed = self.follow(&state, Trigger::Forced, cause, decide).await;
        let now = self.0.with.clock.now();
        let current = state.good(now);
        if let Some(token) = &current
            && (followed == Ok(Decision::Use) || token.generation > rejected.generation)
        {
            return Ok(Replacement { token: token.clone(), failed: None });
        }
        let rejection = state.lock().slot.rejection(now);
        let error = followed.err().or(rejection).unwrap_or(Error::LATER);
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

    /// Records a 401 that comes too late for its own request: a refresh starts, no caller waits.
    pub(crate) fn reject(&self, account: &AccountId, rejected: &AccessToken, cause: Cause<'_>) {
        let now = self.0.with.clock.now();
        let Some(state) = self.state(account) else { return };
        let decision = state.lock().slot.rejected(rejected.generation, now);
        if decision == Decision::Refresh {
            drop(self.spawn_refresh(&state, Trigger::Forced, cause, None));
        }
    }

    /// What is known of every account, in the order of their ids.
    pub(crate) fn views(&self) -> Vec<AccountView> {
        let now = self.0.with.clock.now();
        self.states().iter().map(|state| state.view(now)).collect()
    }

    /// What `/status` and `/metrics` show of one account; none if there is no such account.
    pub fn status(&self, account: &AccountId) -> Option<AccountView> {
        Some(self.state(account)?.view(self.0.with.clock.now()))
    }

    /// Which consent of the account is in place; none if there is no grant.
    #[cfg(feature = "dashboard")]
    pub(crate) fn consent(&self, account: &AccountId) -> Option<crate::store::ConsentId> {
        self.state(account)?.consent()
    }

    /// The state in the place of `state`, whose account has another grant since.
    fn replacement(&self, state: &Arc<TokenState>) -> Option<Arc<TokenState>> {
        self.state(&state.id).filter(|now| !Arc::ptr_eq(now, state))
    }

    /// An account that was removed while its request was under way is not connected.
    fn existing(&self, account: &AccountId) -> Result<Arc<TokenState>, Error> {
        self.state(account).ok_or(Error::ReauthorizationRequired)
    }

    /// Waits until no refresh is under way, and lets none begin any more.
    pub(crate) async fn finish(&self) {
        self.0.lwa_calls.close().await;
    }

    /// Does what the slot decides: begins a refresh, waits for its end, however it ends.
    async fn follow(
        &self,
        state: &Arc<TokenState>,
        trigger: Trigger,
        cause: Cause<'_>,
        decide: impl FnOnce(&mut Slot) -> Decision,
    ) -> Result<Decision, Error> {
        // Subscribed before the state is looked at, so that no end of a refresh is missed.
        let mut finished = pin!(state.finished.notified());
        finished.as_mut().enable();
        let decision = {
            let mut locked = state.lock();
            let decision = decide(&mut locked.slot);
            locked.link(decision, cause);
            decision
        };
        match decision {
            Decision::Use => return Ok(decision),
            Decision::Refuse(error) => return Err(error),
            Decision::Refresh | Decision::UseAndRefresh => {
                drop(self.spawn_refresh(state, trigger, cause, None));
            }
            Decision::Wait => {}
        }
        if decision != Decision::UseAndRefresh {
            let max = u32::try_from(self.0.config.waiters_max).unwrap_or(u32::MAX);
            let _waiter = state.waiter(max).ok_or(Error::TooManyWaiters)?;
            let ended = timeout(self.0.config.wait_timeout, finished).await;
            ended.map_err(|_| Error::LATER)?;
        }
        Ok(decision)
    }

    /// Looks again after a wait: a good token, or why there is none. Starts nothing.
    fn current(&self, state: &TokenState) -> Result<Arc<AccessToken>, Error> {
        let now = self.0.with.clock.now();
        let rejection = || state.lock().slot.rejection(now).unwrap_or(Error::LATER);
        state.good(now).ok_or_else(rejection)
    }
}
