//! Accounts and their tokens without any listener: what the server, the commands and programs that
//! use adsproxy as a library stand on. The crate's page has an example.

mod cooldowns;
pub(crate) mod keys;

use crate::{
    account::AccountView,
    audit::{Actor, Audit},
    clock::{Clock, SystemClock},
    config::Config,
    event::Events,
    grants::Grants,
    https::{self, LwaHttp},
    id::AccountId,
    lwa::LwaClient,
    metrics::Metrics,
    recent::RecentRequests,
    reports::Reports,
    store::{self, Instance, Store},
    sync::{Account, enroll::Enroller},
    throttling::Throttling,
    token::{self, AccessToken, Dependencies, TokenManager},
};
use parking_lot::Mutex;
use std::{path::Path, sync::Arc};
use tokio::{runtime::Handle, task::JoinSet};

/// Why an engine cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be opened.
    #[error("cannot open the store")]
    Store(#[from] store::Error),
    /// The roots cannot be used.
    #[error("cannot set up TLS towards Amazon")]
    Https(#[from] https::Error),
}

/// Why an account has no token now.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Neither the configuration nor the store knows the account, or its record cannot be used.
    #[error("there is no usable account {0}: see `adsproxy account list`")]
    UnknownAccount(AccountId),
    /// The store cannot be read.
    #[error("cannot read the store")]
    Store(#[from] store::Error),
    /// The account has no token.
    #[error(transparent)]
    Token(#[from] token::Error),
}

/// The accounts of a configuration and a store, and a token for each. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) with: Dependencies,
    /// The HTTP client for calls of our own to Amazon: no redirects, no retries.
    pub(crate) http: LwaHttp,
    audit: Audit,
    tokens: TokenManager,
    /// What Amazon says of its limits; the data plane listens.
    pub(crate) throttling: Arc<Throttling>,
    /// What the data plane has served.
    pub(crate) requests: Arc<RecentRequests>,
    pub(crate) enroller: Enroller,
    /// Registers the keys of this process, as long as there is a clone of the engine.
    instance: Arc<Mutex<Option<Instance>>>,
}

impl Engine {
    /// Opens the configured store; knows no account until [`Engine::enroll`] or [`Engine::account`].
    ///
    /// `control` runs the refreshes and must live as long as they take; the audit log names
    /// `actor` for them. With a `socket`, tokens come over that control socket of a running server.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(
        socket: Option<&Path>,
        config: Arc<Config>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        actor: Actor,
        control: Handle,
    ) -> Result<Self, Error> {
        let store = Store::open(&config.store, &config.encryption)?;
        // Before anything is sealed.
        let instance = Arc::new(Mutex::new(keys::register(&store)));
        let tls = https::client_config(config.other_roots(), true)?;
        let token = &config.token;
        let http = match socket {
            Some(path) => LwaHttp::over_socket(&tls, path, token.lwa_timeout)?,
            None => LwaHttp::new(&tls, token.lwa_connect_timeout, token.lwa_timeout)?,
        };
        let audit = Audit::of_store(&store, &config.audit, clock.clone()).counted(metrics.clone());
        let with = Dependencies {
            clock,
            lwa: LwaClient::new(http.clone()),
            grants: Grants::new(store, audit.clone()),
            metrics,
            reports: Reports::new(audit.clone(), actor, control.clone()),
            control,
        };
        let tokens = TokenManager::new(token, with.clone());
        let enroller = Enroller::new(config.clone(), with.clone(), tokens.clone());
        let throttling = Throttling::new(config.throttling.enforce, with.clock.now());
        let requests = Arc::default();
        Ok(Self { with, http, audit, tokens, throttling, requests, enroller, instance })
    }

    /// Opens within a program: with the machine's clock, counters of its own, and refreshes on the
    /// current runtime, which must live as long as they take.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn embed(config: Config) -> Result<Self, Error> {
        let metrics = Metrics::new(&config.metrics, Arc::default());
        let (config, clock) = (Arc::new(config), Arc::new(SystemClock));
        Self::open(None, config, clock, metrics, Actor::Server, Handle::current())
    }

    /// Returns a token of `account` that has not expired: see [`TokenManager::token`].
    ///
    /// # Errors
    /// See [`TokenError`].
    ///
    /// # Cancel safety
    /// Safe: a refresh runs in its own task.
    pub async fn token(&self, account: &AccountId) -> Result<Arc<AccessToken>, TokenError> {
        let found = self.account(account).await?;
        let found = found.ok_or_else(|| TokenError::UnknownAccount(account.clone()))?;
        Ok(self.tokens.token(found.id()).await?)
    }

    /// The same for one account alone, if one is named: others are neither enrolled nor kept fresh.
    pub(crate) fn only(mut self, account: Option<AccountId>) -> Self {
        self.enroller.only = account;
        self
    }

    /// Seeds and loads every account once.
    pub async fn enroll(&self) -> Result<(), store::Error> {
        self.enroller.enroll().await
    }

    /// One account, enrolled alone where that has not happened yet. None if there is no such
    /// account, or nothing sensible can be said of it now, which is logged.
    pub async fn account(&self, id: &AccountId) -> Result<Option<Arc<Account>>, store::Error> {
        let known = self.enroller.directory.load().get(id.as_str()).cloned();
        if known.is_some() {
            return Ok(known);
        }
        self.enroller.enroll_one(id).await
    }

    /// Follows the store, finishes a rotation of its keys that was interrupted, and refreshes
    /// tokens ahead of their expiry, until the guard is dropped.
    #[must_use = "the work stops when the guard is dropped"]
    pub fn keep_fresh(&self) -> KeepFresh {
        let (enroller, tokens) = (self.enroller.clone(), self.tokens.clone());
        let (store, audit) = (self.store().clone(), self.audit.clone());
        let (mut tasks, control) = (JoinSet::new(), &self.with.control);
        tasks.spawn_on(audit.clone().keep_pruned(), control);
        tasks.spawn_on(keys::maintain(store, audit, self.instance.clone()), control);
        tasks.spawn_on(async move { enroller.follow().await }, control);
        let (throttling, clock) = (self.throttling.clone(), self.with.clock.clone());
        tasks.spawn_on(cooldowns::share(throttling, self.store().clone(), clock), control);
        tasks.spawn_on(async move { tokens.run_background().await }, control);
        KeepFresh(tasks)
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.enroller.config()
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.with.clock
    }

    /// The store.
    pub fn store(&self) -> &Store {
        self.with.grants.store()
    }

    /// Where to hear what happens to grants and tokens.
    pub fn events(&self) -> &Events {
        &self.with.reports.events
    }

    /// The audit log. What happens to tokens and grants is written to it already.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The token manager.
    pub fn tokens(&self) -> &TokenManager {
        &self.tokens
    }

    /// The view of every account, in the order of their ids.
    pub fn accounts(&self) -> Vec<AccountView> {
        self.tokens.views()
    }
}

/// Background work; dropping it stops the work. A refresh under way is not cut off.
#[derive(Debug)]
pub struct KeepFresh(#[allow(dead_code, reason = "stops the tasks when dropped")] JoinSet<()>);
