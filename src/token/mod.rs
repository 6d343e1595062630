//! Access tokens: who has one, who waits for one, who fetches one.
//!
//! Invariants: an expired token is never handed out; N callers that find no token cause one call
//! to LWA, whatever their order and whoever of them leaves; a refresh belongs to nobody's request
//! (it is a task of the control runtime); a failure is remembered like a success. This module does
//! not know HTTP requests, and nothing outside it keeps an access token beyond a request.

mod access_token;
mod announce;
pub mod background;
pub mod consent;
mod error;
mod holder;
mod refresh;
pub mod slot;
mod stored;

pub use access_token::AccessToken;
pub use error::{Error, Obstacle};
pub use holder::{Authority, Holder};
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
use holder::RecordId;
use slot::{Failure, Policy, Rejected, Want};
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
    /// this is the truth to tell.
    pub failed: Option<Error>,
}

/// Hands out access tokens and keeps them fresh. Cheap to clone.
#[derive(Clone)]
pub struct TokenManager(Arc<Inner>);

/// What a manager works with.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Tells the time.
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
    /// LWA's answer and the store may lose a rotated grant.
    pub control: Handle,
}

struct Inner {
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
    /// Accounts whose newest record is in memory only.
    unsaved: Arc<AtomicUsize>,
}

impl fmt::Debug for TokenManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenManager")
    }
}

impl TokenManager {
    /// A manager for no account yet: see [`TokenManager::adopt`].
    pub fn new(config: &config::Token, with: Surroundings) -> Self {
        Self(Arc::new(Inner {
            policy: Policy::new(config),
            clock: with.clock,
            lwa: with.lwa,
            grants: with.grants,
            metrics: with.metrics,
            announcer: announce::Announcer::new(with.reports),
            control: with.control,
            lwa_calls: Semaphore::new(config.lwa_concurrency),
            background: background::Queue::default(),
            unsaved: Arc::default(),
            config: config.clone(),
        }))
    }

    /// Takes an account into care; `authority` says who decided on `region` and `application`.
    pub fn adopt(
        &self,
        id: &AccountId,
        region: Region,
        application: Arc<Application>,
        authority: Authority,
    ) -> Arc<Holder> {
        Arc::new(Holder::new(id, region, application, authority, self.0.policy))
    }

    /// Takes over what the store knows of `holder`'s account. A token that is still good is used
    /// without a refresh.
    pub fn recall(&self, holder: &Arc<Holder>, record: &Credential) {
        let now = self.0.clock.now();
        *holder.stored.lock() = Some(RecordId::of(record));
        holder.remember_consent(record);
        if record.reauthorization_required {
            self.0.announcer.known_dead(holder.id());
        }
        if let Some(failure) = stored::failure(record) {
            let why = match failure {
                Failure::NotConnected => "the account was logged out",
                _ => "the grant is dead",
            };
            return holder.fail(failure, why, now);
        }
        if let Some(token) = self.0.stored_token(record, now) {
            if token.life.is_expired(now) {
                holder.slot.lock().expired(token.generation, token.life);
            } else {
                self.0.announcer.usable(holder, token.generation, now.unix());
                holder.publish(token);
            }
        }
        self.0.background.push(holder, now);
    }

    /// Takes over a record that the store refuses: it serves from memory, and is saved when that
    /// can be.
    pub fn recall_refused(&self, holder: &Holder, refused: Unwritten) {
        let Unwritten { record, stored, error } = refused;
        *holder.stored.lock() = stored.as_ref().map(RecordId::of);
        holder.remember_consent(&record);
        self.0.put_off(holder, record, &error);
    }

    /// How many accounts have a newer record than the store: some, and the store is degraded.
    pub fn unsaved(&self) -> usize {
        self.0.unsaved.load(Ordering::SeqCst)
    }

    /// Marks `holder`'s account as not connected.
    pub fn not_connected(&self, holder: &Holder) {
        holder.fail(Failure::NotConnected, "not connected", self.0.clock.now());
    }

    /// Marks `holder`'s account as one whose record cannot be read because of `error`.
    pub fn unreadable(&self, holder: &Holder, error: &store::Error) {
        let failure = Failure::unavailable(Obstacle::of_store(error));
        holder.fail(failure, &chain(error), self.0.clock.now());
    }

    /// Whether only another record, or a record that can be read, helps the account.
    pub fn is_stuck(&self, holder: &Holder) -> bool {
        holder.slot.lock().state(self.0.clock.now()).needs_record()
    }

    /// Forgets the tokens of an account that is gone.
    pub fn wipe(&self, holder: &Holder) {
        holder.wipe(self.0.clock.now());
    }

    /// Forgets failures if `record` brings a grant that is not known to be dead.
    pub fn reconnected(&self, holder: &Arc<Holder>, record: &Credential) -> bool {
        let known_dead = *holder.dead.lock() == Some(RecordId::of(record));
        if record.reauthorization_required || known_dead {
            return false;
        }
        holder.slot.lock().reconnected();
        *holder.last_error.lock() = None;
        self.recall(holder, record);
        true
    }

    /// Saves a record that the store would not take before, if there is one.
    ///
    /// # Errors
    /// When it still does not.
    pub async fn settle(&self, holder: &Holder) -> Result<(), store::Error> {
        self.0.settle(holder).await
    }

    /// Returns a token of `holder`'s account that has not expired.
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
    pub async fn token(&self, holder: &Arc<Holder>) -> Result<Arc<AccessToken>, Error> {
        self.token_at(holder, self.0.clock.now(), Cause::Caller).await
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
        holder: &Arc<Holder>,
        now: Now,
        cause: Cause<'_>,
    ) -> Result<Arc<AccessToken>, Error> {
        {
            let current = holder.current.load();
            if let Some(token) = current.as_ref().filter(|token| token.is_fresh(now)) {
                return Ok(token.clone());
            }
        }
        Box::pin(self.token_slowly(holder, now, cause)).await
    }

    async fn token_slowly(
        &self,
        holder: &Arc<Holder>,
        now: Now,
        cause: Cause<'_>,
    ) -> Result<Arc<AccessToken>, Error> {
        // Subscribed before the state is looked at, so that no end of a refresh is missed.
        let finished = holder.finished.subscribe();
        let want = holder.slot.lock().want(now);
        match want {
            Want::Use => {}
            Want::UseAndRefresh => drop(self.0.spawn_refresh(holder, Trigger::Request, cause)),
            Want::Refresh => {
                drop(self.0.spawn_refresh(holder, Trigger::Request, cause));
                self.0.wait(holder, finished).await?;
            }
            Want::Wait => self.0.wait(holder, finished).await?,
            Want::Refuse(error) => return Err(error),
        }
        self.0.after_waiting(holder)
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
        holder: &Arc<Holder>,
        least: Duration,
    ) -> Result<Arc<AccessToken>, Error> {
        let token = self.token(holder).await?;
        let now = self.0.clock.now();
        if token.expires_in(now) >= least {
            return Ok(token);
        }
        let finished = holder.finished.subscribe();
        // Looked at again after subscribing: the refresh that `token` began may be over by now.
        if holder.slot.lock().generation() > token.generation {
            return self.0.after_waiting(holder);
        }
        let (begun, refusal) = {
            let mut slot = holder.slot.lock();
            (slot.background(now), slot.refusal(now))
        };
        if begun {
            drop(self.0.spawn_refresh(holder, Trigger::Request, Cause::Caller));
        } else if let Some(refusal) = refusal {
            return Err(refusal);
        }
        self.0.wait(holder, finished).await?;
        let refusal = holder.slot.lock().refusal(self.0.clock.now());
        refusal.map_or_else(|| self.0.after_waiting(holder), Err)
    }

    /// Returns what to replay a request with after Amazon's 401 to `rejected`.
    ///
    /// Refreshes only if nobody did meanwhile, and at most once per
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
        holder: &Arc<Holder>,
        rejected: &Arc<AccessToken>,
        cause: Cause<'_>,
    ) -> Result<Replacement, Error> {
        let now = self.0.clock.now();
        let finished = holder.finished.subscribe();
        let decision = holder.slot.lock().rejected(rejected.generation, now);
        let outcome = match decision {
            Rejected::Replay => Ok(()),
            Rejected::Refresh => {
                drop(self.0.spawn_refresh(holder, Trigger::Forced, cause));
                self.0.wait(holder, finished).await
            }
            Rejected::Wait => self.0.wait(holder, finished).await,
            Rejected::Refuse(error) => Err(error),
        };
        let now = self.0.clock.now();
        match (outcome, holder.good(now)) {
            (Ok(()), Some(token)) if decision == Rejected::Replay => {
                Ok(Replacement { token, failed: None })
            }
            (_, Some(token)) if token.generation > rejected.generation => {
                Ok(Replacement { token, failed: None })
            }
            (outcome, current) => {
                let refusal = holder.slot.lock().refusal(now);
                let error = outcome.err().or(refusal).unwrap_or(Error::later());
                if error == Error::ReauthorizationRequired {
                    holder.discard(rejected);
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

    /// Notes a 401 that comes too late for its own request: a refresh starts, nobody waits.
    pub fn reject(&self, holder: &Arc<Holder>, rejected: &AccessToken, cause: Cause<'_>) {
        let now = self.0.clock.now();
        if holder.slot.lock().rejected(rejected.generation, now) == Rejected::Refresh {
            drop(self.0.spawn_refresh(holder, Trigger::Forced, cause));
        }
    }

    /// What `/status` and `/metrics` show of one account.
    pub fn status(&self, holder: &Holder) -> AccountView {
        let now = self.0.clock.now();
        let slot = holder.slot.lock();
        let state = slot.state(now);
        let current = holder.current.load();
        AccountView {
            account: holder.id.clone(),
            state,
            region: holder.region,
            application: holder.application.name().to_owned(),
            expires_in: current.as_ref().map(|token| token.life.remaining(now)),
            generation: slot.generation(),
            last_error: holder.last_error.lock().clone(),
            reauthorization_required: state.needs_login(),
            consent_days_left: holder.consent_days_left(now.unix()),
            is_unsaved: holder.unsaved.lock().is_some(),
        }
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

impl Inner {
    /// Waits for the end of the refresh under way, however it ends.
    async fn wait(&self, holder: &Holder, mut finished: watch::Receiver<u64>) -> Result<(), Error> {
        let place =
            holder::Place::take(holder, self.config.waiters_max).ok_or(Error::TooManyWaiters)?;
        let ended = timeout(self.config.wait_timeout, finished.changed()).await;
        drop(place);
        match ended {
            Ok(Ok(())) => Ok(()),
            _ => Err(Error::later()),
        }
    }

    /// Looks again after a wait: a good token, or why there is none. Starts nothing.
    fn after_waiting(&self, holder: &Holder) -> Result<Arc<AccessToken>, Error> {
        let now = self.clock.now();
        let refusal = || holder.slot.lock().refusal(now).unwrap_or(Error::later());
        holder.good(now).ok_or_else(refusal)
    }

    /// The access token in `record`, which may have expired.
    fn stored_token(&self, record: &Credential, now: Now) -> Option<AccessToken> {
        let stored = record.access_token.as_ref()?;
        let life = stored::life(record, now)?;
        AccessToken::new(&stored.token, record.generation, life, &self.policy)
    }
}
