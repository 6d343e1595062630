//! One account for one command: its token comes from the running server, over the control socket,
//! or, where none runs, from the store, opened in this process.
//!
//! Without a server, the lock of the store makes this safe beside other processes: the one that
//! comes second finds the token that the first one fetched. What a refresh has to save is saved
//! before the process ends.

use super::{
    CommandFailure, Context,
    table::plain,
    wire::{AdminRequest, Server, send},
};
use crate::{
    app,
    audit::{Action, Actor, Entry},
    clock::{Clock, SystemClock},
    config::{Config, LogFormat},
    engine::Engine,
    hooks::Hooks,
    id::AccountId,
    log,
    metrics::Metrics,
    secret::Secret,
    sync::Account,
    token::{self, AccessToken, Obstacle},
};
use anyhow::{Context as _, anyhow, bail};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::runtime::Builder;

/// How long refreshes under way may take at the end.
const FINISH_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the server may take to fetch a token.
const SERVER_TIMEOUT: Duration = Duration::from_secs(60);

/// A token as a command needs it.
#[derive(Debug)]
pub(super) struct HandedToken {
    pub(super) secret: Secret,
    pub(super) expires_in: Duration,
    pub(super) generation: u64,
    pub(super) client_id: String,
}

/// How long a token should live, and whether another one will do while LWA cannot be reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) least: Duration,
    pub(super) must: bool,
    /// It is handed out, which is recorded, unless it is shorter than it must be.
    pub(super) discloses: bool,
}

/// Returns a token of `alias`, from the running server if there is one.
pub(super) fn token(
    context: &Context,
    alias: &AccountId,
    wish: Wish,
) -> anyhow::Result<HandedToken> {
    let config = context.load()?.config;
    match Server::find(context, &config)? {
        Some(server) => from_server(&server, alias, wish),
        None => from_store(config, alias, wish),
    }
}

pub(super) fn from_server(
    server: &Server,
    alias: &AccountId,
    wish: Wish,
) -> anyhow::Result<HandedToken> {
    let mut body = json!({ "min_ttl_secs": wish.least.as_secs(), "must": wish.must });
    if wish.discloses {
        body["purpose"] = "token".into();
    }
    let path = format!("/api/v1/accounts/{alias}/token");
    let request = AdminRequest::post(&path, &body).within(SERVER_TIMEOUT);
    let response =
        send(server, &request).map_err(|error| CommandFailure::no_server(server, &error))?;
    let said = response.json();
    let text = |name: &str| said[name].as_str().unwrap_or_default();
    if response.status == 200 {
        return Ok(HandedToken {
            secret: Secret::from(text("access_token")),
            expires_in: Duration::from_secs(said["expires_in_secs"].as_u64().unwrap_or(0)),
            generation: said["generation"].as_u64().unwrap_or(0),
            client_id: text("client_id").to_owned(),
        });
    }
    let detail = text("detail");
    let no_token = no_token(alias, &plain(detail), said["last_error"].as_str());
    match text("code") {
        "unknown_account" => bail!(unknown(alias)),
        "reauthorization_required" => bail!(CommandFailure::reauthorization_required(&[alias])),
        "token_unavailable" if LASTING.iter().any(|lasting| lasting.advice() == detail) => {
            bail!(no_token)
        }
        "token_unavailable" | "overloaded" => bail!(CommandFailure::unavailable(no_token)),
        _ => bail!("account {alias}: {}", plain(detail)),
    }
}

/// Opens the store in this process, for one account and its token.
fn from_store(mut config: Config, alias: &AccountId, wish: Wish) -> anyhow::Result<HandedToken> {
    quiet(&mut config);
    let log = log::init(&config.log)?;
    let metrics = Metrics::new(&config.metrics, log.dropped());
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (config, clock, control) =
        (Arc::new(config), Arc::new(SystemClock), runtime.handle().clone());
    let engine = Engine::open(config, clock, metrics, Actor::cli(), control.clone())?;
    // The process that LWA refuses a dead grant is the only one to send hooks.
    let hooks = app::start_hooks(&engine, control)?;
    let account = runtime.block_on(engine.account(alias)).context("cannot read the store")?;
    let Some(account) = account else { bail!(unknown(alias)) };
    let fetched = runtime.block_on(fetch(&engine, &account, hooks, wish));
    let token = fetched.map_err(|error| {
        let status = engine.tokens().status(&account.id);
        let last_error = status.and_then(|status| status.last_error);
        failure(error, &account.id, last_error.as_deref())
    })?;
    let expires_in = token.expires_in(SystemClock.now());
    if wish.discloses && !(wish.must && expires_in < wish.least) {
        let entry = Entry::new(Actor::cli(), Action::TokenDisclose).account(&account.id);
        engine.audit().record(&entry.generation(token.generation()).about("token"))?;
    }
    Ok(HandedToken {
        secret: Secret::from(token.expose()),
        expires_in,
        generation: token.generation(),
        client_id: account.client_id().to_owned(),
    })
}

/// Returns when what a refresh has to save, to record and to send is done, too.
async fn fetch(
    engine: &Engine,
    account: &Account,
    hooks: Option<Hooks>,
    wish: Wish,
) -> Result<Arc<AccessToken>, token::Error> {
    let (tokens, id) = (engine.tokens(), &account.id);
    let token = match tokens.token_for(id, wish.least).await {
        Err(token::Error::Unavailable { .. }) if !wish.must => tokens.token(id).await,
        outcome => outcome,
    };
    let ended = async {
        tokens.finish().await;
        engine.audit().flush().await;
    };
    let _ = tokio::time::timeout(FINISH_TIMEOUT, ended).await;
    if let Some(mut hooks) = hooks {
        app::finish_hooks(&mut hooks).await;
    }
    token
}

/// What is in the way of a token until a person acts; the rest passes.
const LASTING: [Obstacle; 4] =
    [Obstacle::Sealed, Obstacle::Unreadable, Obstacle::REFUSED, Obstacle::NOT_LWA];

fn no_token(alias: &AccountId, advice: &str, last_error: Option<&str>) -> String {
    let cause = last_error.map(|error| format!(" ({})", plain(error))).unwrap_or_default();
    format!("no token for account {alias}: {advice}{cause}")
}

/// The failure, with its exit code, that `error` is for the command line.
fn failure(error: token::Error, alias: &AccountId, last_error: Option<&str>) -> anyhow::Error {
    let no_token = no_token(alias, &error.to_string(), last_error);
    match error {
        token::Error::NotConnected | token::Error::ReauthorizationRequired => {
            CommandFailure::reauthorization_required(&[alias]).into()
        }
        token::Error::ApplicationRejected { why, .. } => {
            anyhow!("account {alias}: {}", why.advice())
        }
        token::Error::Unavailable { reason, .. } if !reason.is_passing() => anyhow!(no_token),
        token::Error::Unavailable { .. } | token::Error::TooManyWaiters => {
            CommandFailure::unavailable(no_token).into()
        }
    }
}

pub(super) fn unknown(alias: &AccountId) -> String {
    format!("there is no account {alias}; `adsproxy account list` lists the accounts")
}

/// A command reports by itself what failed; of the log only errors are of interest.
pub(super) fn quiet(config: &mut Config) {
    "error".clone_into(&mut config.log.filter);
    config.log.access = false;
    config.log.format.get_or_insert(LogFormat::Text);
}
