//! `adsproxy account`: looks at and changes the accounts in the store. Never shows a secret.

mod token_input;
mod verify;

use super::{
    Context, confirmed, day, print, region,
    table::{cell, configured, span, table, table_of},
    wire::block_on,
};
use crate::{
    audit::{Action, Actor, Audit, Entry},
    clock::{Clock, SystemClock},
    config::{Config, DEFAULT_APPLICATION, StoreKind},
    error_chain::chain,
    grants::{Consent, Grants, added_or_changed},
    id::{AccountId, Region, placeholder_alias},
    store::{Credential, Store},
    token::{consent::days_left, stored_state},
};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    io::{self, IsTerminal},
    path::PathBuf,
    sync::Arc,
};

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
        let config = context.load()?.config;
        block_on(async {
            match self {
                Self::List { json } => list(&config, *json).await,
                Self::Show { alias } => show(&config, alias).await,
                Self::Add(add) => add.run(context, &config).await,
                Self::Remove { alias, yes } => remove(&config, alias, *yes).await,
            }
        })?
    }
}

/// The store that outlives this process, if there is one.
fn lasting_store(config: &Config) -> anyhow::Result<Option<Store>> {
    if config.store.kind == StoreKind::Memory {
        return Ok(None);
    }
    let store = Store::open(&config.store, &config.encryption);
    Ok(Some(store.context("cannot open the store")?))
}

pub(super) fn store_to_change(config: &Config) -> anyhow::Result<Store> {
    lasting_store(config)?.context(
        "store.kind = \"memory\" keeps nothing between processes: put the account into the \
         configuration, with accounts.<alias>.refresh_token",
    )
}

/// What the configuration and the store say about one account.
async fn describe(config: &Config, store: Option<&Store>, alias: &AccountId) -> Option<Value> {
    let configured = config.accounts.get(alias);
    let loaded = match store {
        Some(store) => store.load(alias).await,
        None => Ok(None),
    };
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
    Some(json!({
        "account": alias.as_str(),
        "state": state.as_str(),
        "region": place.map(|(region, _)| region.as_str()),
        "application": place.map(|(_, application)| application),
        "in_config": configured.is_some(),
        "in_store": in_store,
        "access_token_expires_in_secs": token.map(|t| t.expires_at.saturating_sub(now.unix())),
        "generation": record.map(|record| record.generation),
        "consent_days_left": consented_at.map(|at| days_left(at, now.unix())),
        "consented": consented_at.and_then(date),
        "updated": record.and_then(|record| date(record.updated_at)),
        "error": found.err().map(|error| chain(error)),
    }))
}

fn date(unix: u64) -> Option<String> {
    Some(jiff::Timestamp::from_second(i64::try_from(unix).ok()?).ok()?.to_string())
}

async fn list(config: &Config, as_json: bool) -> anyhow::Result<()> {
    let store = lasting_store(config)?;
    let mut aliases: BTreeSet<AccountId> = config.accounts.keys().cloned().collect();
    if let Some(store) = &store {
        aliases.extend(store.grants().await?);
    }
    let mut accounts = Vec::new();
    for alias in &aliases {
        accounts.extend(describe(config, store.as_ref(), alias).await);
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
    let store = lasting_store(config)?;
    let Some(account) = describe(config, store.as_ref(), alias).await else {
        bail!("there is no account {alias}; `adsproxy account list` shows those there are");
    };
    let keys = [
        "account",
        "state",
        "region",
        "application",
        "in_config",
        "in_store",
        "generation",
        "consented",
        "consent_days_left",
        "updated",
        "error",
    ];
    let mut rows = Vec::from(keys.map(|key| [key.replace('_', " "), cell(&account[key])]));
    let expires = account["access_token_expires_in_secs"].as_u64();
    rows.push(["access token for".to_owned(), expires.map(span).unwrap_or_default()]);
    print(table(&rows))
}

impl Add {
    async fn run(&self, context: &Context, config: &Config) -> anyhow::Result<()> {
        let store = store_to_change(config)?;
        // Before a token is typed for nothing.
        let existing = store.load(&self.alias).await?;
        self.refuse_existing(existing.as_ref())?;
        let (_, application) = self.region_and_application(config, existing.as_ref())?;
        let refresh_token = token_input::read(self.refresh_token_file.as_deref(), context)?;
        if let Some(named) = placeholder_alias(refresh_token.expose(), "Atzr")
            && let Ok(named) = named.parse::<AccountId>()
            && (named == self.alias
                || config.accounts.contains_key(&named)
                || store.grants().await?.contains(&named))
        {
            bail!(
                "this is a placeholder of adsproxy's own, which `exec` and `env` set, and no refresh \
                 token: give the one that Amazon issued"
            );
        }
        let wants_verification = self.verify || (!self.no_verify && io::stderr().is_terminal());
        let verified = match wants_verification {
            true => Some(verify::verify(config, &application, &refresh_token).await?),
            false => None,
        };
        let (refresh_token, access_token) = match verified {
            Some(verified) => (verified.refresh_token, Some(verified.access_token)),
            None => (refresh_token, None),
        };
        let mut replaced = false;
        let decide = |existing: Option<&Credential>| {
            self.refuse_existing(existing)?;
            let (region, application) = self.region_and_application(config, existing)?;
            replaced = existing.is_some();
            let configured = config.accounts.get(&self.alias);
            let consent = Consent {
                application,
                region,
                refresh_token: refresh_token.clone(),
                access_token: access_token.clone(),
                consented_at: self.consented_at,
                // Without this, the server would seed the record anew from the configuration.
                seed: configured.and_then(|known| known.refresh_token.clone()),
                is_copied: false,
            };
            let now = SystemClock.now().unix();
            Ok::<_, anyhow::Error>(Some(consent.replacing(&self.alias, existing, now)))
        };
        let entry =
            |is_change| Entry::new(Actor::cli(), added_or_changed(is_change)).account(&self.alias);
        grants(&store, config).put(&self.alias, &[], entry, decide).await?;
        let done = match (replaced, wants_verification) {
            (true, false) => "replaced",
            (false, false) => "added",
            (true, true) => "replaced: Login with Amazon accepts its grant",
            (false, true) => "added: Login with Amazon accepts its grant",
        };
        print(format!("account {} {done}; a running server notices by itself\n", self.alias))
    }

    fn refuse_existing(&self, existing: Option<&Credential>) -> anyhow::Result<()> {
        if existing.is_some() && !self.replace {
            bail!("account {} is in the store already; say --replace to replace it", self.alias);
        }
        Ok(())
    }

    /// What the flags say, else the configuration, else the store.
    fn region_and_application(
        &self,
        config: &Config,
        existing: Option<&Credential>,
    ) -> anyhow::Result<(Region, String)> {
        let own = config.accounts.get(&self.alias);
        let region = self.region.or(own.map(|account| account.region));
        let Some(region) = region.or(existing.map(|record| record.region)) else {
            bail!("say which region the account is in: --region na, eu or fe");
        };
        let application = self.application.as_ref();
        let application = application.or(own.map(|account| &account.application));
        let application = application.or(existing.map(|record| &record.application));
        let application = application.map_or(DEFAULT_APPLICATION, String::as_str);
        if !config.applications.contains_key(application) {
            let known = configured(config.applications.keys());
            bail!("there is no application {application:?}; {known}");
        }
        if own.is_some_and(|known| known.region != region || known.application != application) {
            bail!(
                "accounts.{} in the configuration says another region or application, and wins; \
                 change it there",
                self.alias,
            );
        }
        Ok((region, application.to_owned()))
    }
}

async fn remove(config: &Config, alias: &AccountId, yes: bool) -> anyhow::Result<()> {
    let store = store_to_change(config)?;
    if !store.grants().await?.contains(alias) {
        bail!("account {alias} is not in the store; `adsproxy account list` shows those there are");
    }
    if !yes && !confirmed(alias)? {
        bail!("nothing was removed");
    }
    let entry = Entry::new(Actor::cli(), Action::AccountRemove).account(alias);
    let now = SystemClock.now().unix();
    grants(&store, config).forget::<anyhow::Error>(alias, entry, None, now).await?;
    let again = config.accounts.contains_key(alias).then(|| {
        format!("it is still in the configuration as accounts.{alias}; remove it there too\n")
    });
    print(format!("account {alias} removed\n{}", again.unwrap_or_default()))
}

fn grants(store: &Store, config: &Config) -> Grants {
    Grants::new(store.clone(), Audit::of_store(store, &config.audit, Arc::new(SystemClock)))
}
