//! `adsproxy account`: looks at and changes the accounts in the store. Never shows a secret.

mod token_input;
mod verify;
pub(super) mod writer;

use super::{
    Context, confirmed, day, print, region,
    table::{cell, span, table, table_of},
    wire::block_on,
};
use crate::{
    clock::{Clock, SystemClock},
    config::Config,
    error_chain::chain,
    grants::given::{GivenGrant, GivenOutcome, GivenResult, Replace},
    hooks::rfc3339,
    id::{AccountId, Region, placeholder_alias},
    secret::Secret,
    store::{Store, StoredAccessToken},
    token::{consent::days_left, stored_state},
};
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    io::{self, IsTerminal},
    path::PathBuf,
    sync::Arc,
};
use writer::GrantWriter;

#[derive(Debug, clap::Subcommand)]
pub(super) enum AccountVerb {
    /// List the accounts in the configuration and in the store
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one account, without its secrets
    Show {
        /// Its alias
        alias: AccountId,
    },
    /// Put an account into the store; its refresh token is read from standard input
    Add(Add),
    /// Forget an account's stored credential
    Remove {
        /// Its alias
        alias: AccountId,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The name that callers will use
    alias: AccountId,
    /// na, eu, fe or a marketplace; needed only for a new account
    #[arg(long, value_parser = region::flag)]
    region: Option<Region>,
    /// The LWA application that the grant belongs to [default: default]
    #[arg(long, value_name = "NAME")]
    application: Option<String>,
    /// Read the refresh token from this file instead of standard input
    #[arg(long, value_name = "PATH")]
    refresh_token_file: Option<PathBuf>,
    /// The day of consent, as 2026-11-20; the grant ends 365 days later
    #[arg(long, value_name = "DATE", value_parser = day::consent)]
    consented_at: Option<u64>,
    /// Replace the refresh token of an account that is there already
    #[arg(long)]
    replace: bool,
    /// Try the token before it is stored [default: on a terminal]
    #[arg(long, overrides_with = "no_verify")]
    verify: bool,
    /// Do not try it [default: without a terminal]
    #[arg(long)]
    no_verify: bool,
}

impl AccountVerb {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let config = Arc::new(context.load()?.config);
        match self {
            Self::List { json } => block_on(list(&config, *json))?,
            Self::Show { alias } => block_on(show(&config, alias))?,
            Self::Add(add) => {
                let writer = GrantWriter::open(context, config)?;
                block_on(add.run(context, &writer))?
            }
            Self::Remove { alias, yes } => {
                let writer = GrantWriter::open(context, config)?;
                block_on(remove(&writer, alias, *yes))?
            }
        }
    }
}

/// The store; an empty one where none outlives its process.
fn open_store(config: &Config) -> anyhow::Result<Store> {
    if !config.store.kind.seals() {
        return Ok(Store::memory()?);
    }
    Store::open(&config.store, &config.encryption).context("cannot open the store")
}

pub(super) fn store_to_change(config: &Config) -> anyhow::Result<Store> {
    if !config.store.kind.seals() {
        bail!(
            "store.kind = \"memory\" keeps nothing between processes: put the account into the \
             configuration, with accounts.<alias>.refresh_token"
        );
    }
    open_store(config)
}

/// What the configuration and the store say about one account, in the order in which it is shown.
async fn describe(
    config: &Config,
    store: &Store,
    alias: &AccountId,
) -> Option<[(&'static str, Value); 12]> {
    let configured = config.accounts.get(alias);
    let loaded = store.load(alias).await;
    let found = loaded.as_ref().map(Option::as_ref);
    let record = found.ok().flatten();
    let in_store = record.is_some() || found.is_err();
    if configured.is_none() && !in_store {
        return None;
    }
    let now = SystemClock.now();
    let has_token = configured.is_some_and(|account| account.refresh_token.is_some());
    let state = stored_state(found, has_token, &config.token, now);
    let place = configured.map(|account| (account.region, &account.application));
    let place = place.or(record.map(|record| (record.region, &record.application)));
    let token = record.and_then(|record| record.access_token.as_ref());
    let consented_at = record.and_then(|record| record.consented_at);
    let expires_in = token.map(|token| token.expires_at.saturating_sub(now.unix()));
    Some([
        ("account", alias.as_str().into()),
        ("state", state.as_str().into()),
        ("region", place.map(|(region, _)| region.as_str()).into()),
        ("application", place.map(|(_, application)| application.as_str()).into()),
        ("in_config", configured.is_some().into()),
        ("in_store", in_store.into()),
        ("generation", record.map(|record| record.generation).into()),
        ("consented", consented_at.map(rfc3339).into()),
        ("consent_days_left", consented_at.map(|at| days_left(at, now.unix())).into()),
        ("updated", record.map(|record| rfc3339(record.updated_at)).into()),
        ("error", found.err().map(|error| chain(error)).into()),
        ("access_token_expires_in_secs", expires_in.into()),
    ])
}

async fn list(config: &Config, as_json: bool) -> anyhow::Result<()> {
    let store = open_store(config)?;
    let mut aliases: BTreeSet<AccountId> = config.accounts.keys().cloned().collect();
    aliases.extend(store.grants().await?);
    let mut accounts = Vec::new();
    for alias in &aliases {
        let account = describe(config, &store, alias).await;
        accounts.extend(account.map(Value::from_iter));
    }
    if as_json {
        return print(format!("{:#}\n", Value::Array(accounts)));
    }
    if accounts.is_empty() {
        return print("no accounts; `adsproxy account add ALIAS --region na` makes one\n");
    }
    let columns =
        ["account", "state", "region", "application", "in_config", "in_store", "consent_days_left"];
    print(table_of(columns, &accounts))
}

async fn show(config: &Config, alias: &AccountId) -> anyhow::Result<()> {
    let store = open_store(config)?;
    let Some(account) = describe(config, &store, alias).await else {
        bail!("there is no account {alias}; `adsproxy account list` shows those there are");
    };
    print(table(&account.map(|(name, value)| match name {
        "access_token_expires_in_secs" => {
            ["access token for".to_owned(), value.as_u64().map(span).unwrap_or_default()]
        }
        _ => [name.replace('_', " "), cell(&value)],
    })))
}

impl Add {
    async fn run(&self, context: &Context, writer: &GrantWriter) -> anyhow::Result<()> {
        let config = &writer.config;
        let existing = writer.store.load(&self.alias).await?;
        // Before a token is typed for nothing.
        self.refuse_existing(existing.is_some())?;
        let nothing = self.given(Secret::from(""), None);
        let now = SystemClock.now().unix();
        let application = nothing.decide(config, &self.alias, existing.as_ref(), now)?.application;
        let refresh_token = token_input::read(self.refresh_token_file.as_deref(), context)?;
        if let Some(named) = placeholder_alias(refresh_token.expose(), "Atzr")
            && let Ok(named) = named.parse::<AccountId>()
            && (named == self.alias
                || config.accounts.contains_key(&named)
                || writer.store.has_grant(&named).await?)
        {
            bail!(
                "this is a placeholder of adsproxy's own, which `exec` and `env` set, and no refresh \
                 token: give the one that Amazon issued"
            );
        }
        let is_verified = self.verify || (!self.no_verify && io::stderr().is_terminal());
        let mut given = self.given(refresh_token, None);
        let mut is_rotated = false;
        if is_verified {
            // Login with Amazon may replace the token: then it is too late for a no.
            let checked = writer.check(&self.alias, &given).await?;
            self.outcome(&checked)?;
            let verified = verify::verify(config, &application, &given.refresh_token).await?;
            is_rotated = verified.refresh_token != given.refresh_token;
            given = self.given(verified.refresh_token, Some(verified.access_token));
        }
        let put = writer.give(&self.alias, &given, None, false).await;
        let done = put.and_then(|put| self.outcome(&put));
        let done = if is_rotated { done.with_context(|| self.rotated())? } else { done? };
        let verified = if is_verified { ": Login with Amazon accepts its grant" } else { "" };
        print(format!("account {} {done}{verified}; a running server uses it\n", self.alias))
    }

    fn given(&self, refresh_token: Secret, access_token: Option<StoredAccessToken>) -> GivenGrant {
        GivenGrant {
            refresh_token,
            access_token,
            region: self.region,
            application: self.application.clone(),
            consented_at: self.consented_at,
            replace: if self.replace { Replace::Always } else { Replace::Never },
        }
    }

    fn outcome(&self, result: &GivenResult) -> anyhow::Result<&'static str> {
        match result.outcome {
            GivenOutcome::Added => Ok("added"),
            GivenOutcome::Replaced => Ok("replaced"),
            GivenOutcome::Unchanged | GivenOutcome::Differs => {
                self.refuse_existing(true).map(|()| "unchanged")
            }
        }
    }

    /// The new token is in the memory of this process alone, and is not printed.
    fn rotated(&self) -> String {
        format!(
            "Login with Amazon replaced the refresh token when it verified it, and the new one may \
             not be stored, which `adsproxy account show {0}` says; the one that you gave may not work \
             any more. Run this again, or connect the account: `adsproxy login {0}`",
            self.alias
        )
    }

    fn refuse_existing(&self, exists: bool) -> anyhow::Result<()> {
        if exists && !self.replace {
            bail!("account {} is in the store already; say --replace to replace it", self.alias);
        }
        Ok(())
    }
}

async fn remove(writer: &GrantWriter, alias: &AccountId, yes: bool) -> anyhow::Result<()> {
    if !writer.store.has_grant(alias).await? {
        bail!("account {alias} is not in the store; `adsproxy account list` shows those there are");
    }
    if !yes && !confirmed(alias)? {
        bail!("nothing was removed");
    }
    writer.remove(alias).await?;
    let again = writer.config.accounts.contains_key(alias).then(|| {
        format!("it is still in the configuration as accounts.{alias}; remove it there too\n")
    });
    print(format!("account {alias} removed\n{}", again.unwrap_or_default()))
}
