//! What commands that need a token share: one account, opened in this process.
//!
//! The lock of the store makes this safe beside a running server: whoever comes second finds the
//! token that the first one fetched. What a refresh has to save is saved before the process ends.

use super::{Context, Failure};
use crate::{
    account::Account,
    app,
    audit::{Action, Actor, Entry},
    clock::{Now, SystemClock},
    config::{Config, LogFormat},
    engine::Engine,
    hooks::Hooks,
    id::AccountId,
    log::{self, Log},
    metrics::Metrics,
    token::{self, AccessToken},
};
use anyhow::{Context as _, anyhow, bail};
use std::{sync::Arc, time::Duration};
use tokio::runtime::{Builder, Runtime};

/// How long refreshes under way may take at the end.
const FINISH_TIMEOUT: Duration = Duration::from_secs(15);

/// One account and its token.
pub(super) struct Session {
    runtime: Runtime,
    engine: Engine,
    account: Arc<Account>,
    /// Whoever is told by LWA that a grant is dead is the only one who tells hooks.
    hooks: Option<Hooks>,
    _log: Log,
}

impl Session {
    /// Opens the store and the account in it.
    pub(super) fn open(context: &Context, alias: &AccountId) -> anyhow::Result<Self> {
        let mut config = context.load()?.config;
        quiet(&mut config);
        let log = log::init(&config.log)?;
        let metrics = Metrics::new(&config.metrics, log.dropped());
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (config, clock) = (Arc::new(config), Arc::new(SystemClock));
        let engine = Engine::open(config, clock, metrics, Actor::cli(), runtime.handle().clone())?;
        let hooks = app::hooks(&engine, runtime.handle().clone())?;
        let account = runtime.block_on(engine.account(alias)).context("cannot read the store")?;
        let Some(account) = account else { bail!(unknown(alias)) };
        Ok(Self { runtime, engine, account, hooks, _log: log })
    }

    /// A token that lives for `least` more where a refresh can bring one. While LWA cannot be
    /// reached, the one there is will do, unless it `must` be so long.
    pub(super) fn token(
        &mut self,
        least: Duration,
        must: bool,
    ) -> anyhow::Result<Arc<AccessToken>> {
        let (tokens, holder) = (self.engine.tokens(), &self.account.holder);
        let hooks = &mut self.hooks;
        let token = self.runtime.block_on(async {
            let token = match tokens.token_for(holder, least).await {
                Err(token::Error::Unavailable { .. }) if !must => tokens.token(holder).await,
                outcome => outcome,
            };
            let ended = async {
                tokens.finish().await;
                self.engine.settle_audit().await;
            };
            let _ = tokio::time::timeout(FINISH_TIMEOUT, ended).await;
            if let Some(hooks) = hooks {
                app::finish_hooks(hooks).await;
            }
            token
        });
        token.map_err(|error| self.failure(error))
    }

    /// Writes down that `token` is handed out.
    pub(super) fn record_disclosure(&self, token: &AccessToken) -> anyhow::Result<()> {
        let entry = Entry::new(Actor::cli(), Action::TokenDisclose).account(&self.account.id);
        Ok(self.engine.audit().record(&entry.generation(token.generation()).about("token"))?)
    }

    pub(super) fn now(&self) -> Now {
        self.engine.clock().now()
    }

    pub(super) fn client_id(&self) -> &str {
        self.account.holder.application().client_id()
    }

    fn failure(&self, error: token::Error) -> anyhow::Error {
        let status = self.engine.tokens().status(&self.account.holder);
        failure(error, &status.account, status.state, status.last_error)
    }
}

/// The failure, with its exit code, that `error` is for the command line.
pub(super) fn failure(
    error: token::Error,
    alias: &AccountId,
    state: &str,
    last_error: Option<String>,
) -> anyhow::Error {
    let why = last_error.unwrap_or_else(|| error.to_string());
    match error {
        token::Error::ReauthorizationRequired => {
            Failure::ReauthorizationRequired(vec![alias.to_string()]).into()
        }
        token::Error::ApplicationRejected { .. } => anyhow!(
            "login with amazon rejects the client id or secret of account {alias}: check [lwa] in \
             the configuration"
        ),
        token::Error::Unavailable { .. } if state == "sealed" => {
            anyhow!("{why}")
        }
        token::Error::Unavailable { .. } | token::Error::TooManyWaiters => {
            Failure::Unavailable(format!("no token for account {alias}: {why}")).into()
        }
    }
}

pub(super) fn unknown(alias: &AccountId) -> String {
    format!("there is no account {alias}; `adsproxy account list` shows those there are")
}

/// A command says what went wrong by itself; of the log only errors are of interest.
pub(super) fn quiet(config: &mut Config) {
    "error".clone_into(&mut config.log.filter);
    config.log.access = false;
    config.log.format.get_or_insert(LogFormat::Text);
}
