//! `adsproxy logout`: forgets an account's grant here, and says where Amazon forgets it.

use super::{
    Context, print,
    table::plain,
    wire::{self, Ask},
};
use crate::{
    audit::Actor,
    clock::SystemClock,
    config::{Config, StoreKind},
    engine::Engine,
    id::AccountId,
    login::{Logins, REVOKE_AT},
    metrics::Metrics,
};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// A revocation may take a call to Amazon.
const PATIENCE: Duration = Duration::from_secs(60);

/// Forget an account's grant and tokens
#[derive(Debug, clap::Args)]
pub(super) struct Logout {
    /// The account's alias
    account: AccountId,
}

impl Logout {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let config = context.load()?.config;
        let is_memory = config.store.kind == StoreKind::Memory;
        let done = if is_memory { self.by_server(&config)? } else { self.here(config)? };
        let account = &self.account;
        let mut text = format!("account {account} logged out; a running server forgets it, too\n");
        if done["revoked"] == true {
            text.push_str("the grant was revoked\n");
        } else {
            text.push_str(&format!(
                "Amazon still knows the consent: the advertiser revokes it at {REVOKE_AT}\n"
            ));
        }
        print(text)?;
        if done["in_config"] == true {
            let when = if is_memory { "at the next start" } else { "once it changes" };
            eprintln!(
                "note: accounts.{account}.refresh_token is still in the configuration, and will be \
                 used again {when}: remove it there"
            );
        }
        if let Some(error) = done["revocation_error"].as_str() {
            bail!("the grant could not be revoked at lwa.revocation_url: {}", plain(error));
        }
        Ok(())
    }

    /// In the store that all processes share.
    fn here(&self, config: Config) -> anyhow::Result<Value> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let metrics = Metrics::new(&config.metrics, Arc::default());
        let handle = runtime.handle().clone();
        let engine =
            Engine::open(Arc::new(config), Arc::new(SystemClock), metrics, Actor::cli(), handle)?;
        let done = runtime.block_on(Logins::new(engine, Actor::cli()).logout(&self.account))?;
        Ok(serde_json::to_value(done)?)
    }

    /// In the server, which alone has it.
    fn by_server(&self, config: &Config) -> anyhow::Result<Value> {
        let address = config.listen.admin;
        let ask = Ask {
            json: Some(json!({ "account": self.account.as_str() }).to_string()),
            path: "/api/auth/amazon/logout",
            patience: Some(PATIENCE),
            ..Ask::default()
        };
        let answer = wire::send(address, &ask)
            .map_err(|source| super::Failure::NoServer { address, source })?;
        let said: Value = serde_json::from_str(&answer.body).context("the server's answer")?;
        if answer.status != 200 {
            bail!("{}", plain(said["detail"].as_str().unwrap_or("the server refused")));
        }
        Ok(said)
    }
}
