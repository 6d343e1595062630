//! `adsproxy logout`: forgets an account's grant here, and says where Amazon forgets it.

use super::{
    Context, confirmed, print,
    table::plain,
    wire::{Ask, Server},
};
use crate::{
    audit::Actor,
    clock::SystemClock,
    config::{Config, StoreKind},
    engine::Engine,
    id::AccountId,
    login::Logins,
    metrics::Metrics,
    provider::ads::CONSENT_MANAGEMENT_URL,
};
use anyhow::bail;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// A revocation may take a call to Amazon.
const PATIENCE: Duration = Duration::from_secs(60);

/// Forget an account's grant and tokens
#[derive(Debug, clap::Args)]
pub(super) struct Logout {
    /// The account's alias
    account: AccountId,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Logout {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let config = context.load()?.config;
        if !self.yes && !confirmed(&self.account)? {
            bail!("nothing was changed");
        }
        let is_memory = config.store.kind == StoreKind::Memory;
        let server = Server::find(context, &config)?;
        let server = server.or(is_memory.then_some(Server::Listener(config.listen.admin)));
        let done = match server {
            Some(server) => self.by_server(&server)?,
            None => self.here(config)?,
        };
        let account = &self.account;
        let mut text = format!("account {account} logged out; a running server forgets it, too\n");
        if done["revoked"] == true {
            text.push_str("the grant was revoked\n");
        } else {
            text.push_str(&format!(
                "Amazon still knows the consent: the advertiser revokes it at \
                 {CONSENT_MANAGEMENT_URL}\n"
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

    /// In the running server.
    fn by_server(&self, server: &Server) -> anyhow::Result<Value> {
        server.json(&Ask {
            json: Some(json!({ "account": self.account.as_str() }).to_string()),
            path: "/api/auth/amazon/logout",
            patience: Some(PATIENCE),
            ..Ask::default()
        })
    }
}
