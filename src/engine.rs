//! Accounts and their tokens without any listener: what the server, the commands and programs that
//! use adsproxy as a library stand on. The crate's page has an example.

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
    lwa::{Application, LwaClient},
    metrics::Metrics,
    reports::Reports,
    store::{self, Instance, Store},
    sync::{Account, Directory, enroll::Enroller},
    token::{self, AccessToken, Dependencies, TokenManager},
};
use parking_lot::Mutex;
use std::{path::Path, sync::Arc};
use tokio::{runtime::Handle, task::JoinHandle};

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
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    grants: Grants,
    http: LwaHttp,
    lwa: LwaClient,
    metrics: Arc<Metrics>,
    audit: Audit,
    reports: Reports,
    tokens: TokenManager,
    enroller: Enroller,
    control: Handle,
    /// Registers the keys of this process, as long as there is a clone of the engine.
    instance: Arc<Mutex<Option<Instance>>>,
}

impl Engine {
    /// Opens the configured store; knows no account until [`Engine::enroll`] or [`Engine::account`].
    ///
    /// `control` runs the refreshes and must live as long as they take; the audit log names
    /// `actor` for them.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(
        config: Arc<Config>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        actor: Actor,
        control: Handle,
    ) -> Result<Self, Error> {
        Self::open_over(None, config, clock, metrics, actor, control)
    }

    /// As [`Engine::open`]; tokens come over the control socket `socket` of a running server.
    pub(crate) fn open_over(
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
        let lwa = LwaClient::new(http.clone());
        let audit = Audit::of_store(&store, &config.audit, clock.clone()).counted(metrics.clone());
        let grants = Grants::new(store, audit.clone());
        let reports = Reports::new(audit.clone(), actor, control.clone());
        let with = Dependencies {
            clock: clock.clone(),
            lwa: lwa.clone(),
            grants: grants.clone(),
            metrics: metrics.clone(),
            reports: reports.clone(),
            control: control.clone(),
        };
        let tokens = TokenManager::new(token, with);
        let enroller = Enroller::new(
            config.clone(),
            grants.clone(),
            tokens.clone(),
            clock.clone(),
            reports.clone(),
        );
        Ok(Self {
            config,
            clock,
            grants,
            http,
            lwa,
            metrics,
            audit,
            reports,
            tokens,
            enroller,
            control,
            instance,
        })
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
        Self::open(
            Arc::new(config),
            Arc::new(SystemClock),
            metrics,
            Actor::Server,
            Handle::current(),
        )
    }

    pub(crate) fn application(&self, name: &str) -> Option<Arc<Application>> {
        self.enroller.application(name)
    }

    /// Uses the client secrets of `config` from the next call to LWA on; says of which
    /// applications.
    pub(crate) fn set_client_secrets(&self, config: &Config) -> Vec<&str> {
        self.enroller.set_client_secrets(config)
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
        Ok(self.tokens.token(&found.id).await?)
    }

    /// The same for one account alone, if one is named: others are neither enrolled nor kept fresh.
    pub(crate) fn only(mut self, account: Option<AccountId>) -> Self {
        self.enroller = self.enroller.only(account);
        self
    }

    /// Seeds and loads every account once.
    pub async fn enroll(&self) -> Result<(), store::Error> {
        self.enroller.enroll().await
    }

    /// One account, enrolled alone where that has not happened yet. None if there is no such
    /// account, or nothing sensible can be said of it now, which is logged.
    pub async fn account(&self, id: &AccountId) -> Result<Option<Arc<Account>>, store::Error> {
        let known = self.directory().load().get(id).cloned();
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
        KeepFresh([
            self.control.spawn(keys::look_after(
                self.store().clone(),
                self.audit.clone(),
                self.instance.clone(),
            )),
            self.control.spawn(async move { enroller.follow().await }),
            self.control.spawn(async move { tokens.run_background().await }),
        ])
    }

    pub(crate) fn config(&self) -> &Arc<Config> {
        &self.config
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The store.
    pub fn store(&self) -> &Store {
        self.grants.store()
    }

    /// The only way to change a grant.
    pub(crate) fn grants(&self) -> &Grants {
        &self.grants
    }

    /// Looks at the store now instead of at the next time: something was changed there.
    pub(crate) async fn follow_now(&self) {
        self.enroller.follow_now().await;
    }

    /// The HTTP client for calls of our own to Amazon: no redirects, no retries.
    pub(crate) fn http(&self) -> &LwaHttp {
        &self.http
    }

    pub(crate) fn lwa(&self) -> &LwaClient {
        &self.lwa
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Where to hear what happens to grants and tokens.
    pub fn events(&self) -> &Events {
        &self.reports.events
    }

    /// The audit log. What happens to tokens and grants is written to it already.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    pub(crate) fn reports(&self) -> &Reports {
        &self.reports
    }

    /// The token manager.
    pub fn tokens(&self) -> &TokenManager {
        &self.tokens
    }

    /// The view of every account, in the order of their ids.
    pub fn accounts(&self) -> Vec<AccountView> {
        self.tokens.states().keys().filter_map(|id| self.tokens.status(id)).collect()
    }

    /// The accounts that are enrolled.
    pub(crate) fn directory(&self) -> &Directory {
        &self.enroller.directory
    }
}

/// Background work; dropping it stops the work. A refresh under way is not cut off.
#[derive(Debug)]
pub struct KeepFresh([JoinHandle<()>; 3]);

impl Drop for KeepFresh {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}
