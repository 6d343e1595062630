//! Has the running server, else the store that is opened in this process, put and remove grants.

use crate::{
    audit::Audit,
    cli::{Context, server::Server, wire::AdminRequest},
    clock::SystemClock,
    config::Config,
    grants::given::{GivenGrant, GivenResult},
    id::AccountId,
    store::Store,
};
use anyhow::bail;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// The server may have to wait for the audit log and the store.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A change that the audit log does not take.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::cli) struct Unrecorded(String);

/// Changes grants, and reads the store. Not to be dropped on an async thread.
#[derive(Clone)]
pub(in crate::cli) struct GrantWriter {
    pub(in crate::cli) config: Arc<Config>,
    server: Server,
    pub(in crate::cli) store: Store,
}

impl GrantWriter {
    /// # Errors
    /// When a server runs that this user may not use, or the store cannot be opened.
    pub(in crate::cli) fn open(context: &Context, config: Arc<Config>) -> anyhow::Result<Self> {
        let store = super::store_to_change(&config)?;
        let server = Server::find_or_open(context, (*config).clone())?;
        Ok(Self { config, server, store })
    }

    pub(in crate::cli) fn audit(&self) -> Audit {
        match &self.server {
            Server::Own(own) => own.logins.engine.audit().clone(),
            _ => Audit::of_store(&self.store, &self.config.audit, Arc::new(SystemClock)),
        }
    }

    /// Puts a grant in place if that is called for; `about` is what it comes from. A running server
    /// uses it when this returns, or, if `more` follow, once it has the last one.
    ///
    /// # Errors
    /// [`Unrecorded`] if it cannot be recorded.
    pub(in crate::cli) async fn give(
        &self,
        account: &AccountId,
        given: &GivenGrant,
        about: Option<&'static str>,
        more: bool,
    ) -> anyhow::Result<GivenResult> {
        let mut body = given.to_json();
        body["about"] = about.into();
        body["more"] = more.then_some("true").into();
        Ok(serde_json::from_value(self.ask(account, "grant", body).await?)?)
    }

    /// Says what would become of a grant.
    pub(in crate::cli) async fn check(
        &self,
        account: &AccountId,
        given: &GivenGrant,
    ) -> anyhow::Result<GivenResult> {
        Ok(serde_json::from_value(self.ask(account, "grant/check", given.to_json()).await?)?)
    }

    /// Forgets what the store has of `account`.
    pub(in crate::cli) async fn remove(&self, account: &AccountId) -> anyhow::Result<()> {
        self.ask(account, "removal", json!({})).await.map(drop)
    }

    async fn ask(&self, account: &AccountId, what: &str, body: Value) -> anyhow::Result<Value> {
        let (server, path) = (self.server.clone(), format!("/api/v1/accounts/{account}/{what}"));
        let request = AdminRequest::post(&path, &body).within(TIMEOUT);
        let asked = move || server.response(request);
        let response = tokio::task::spawn_blocking(asked).await??;
        let detail = || response.text("detail").unwrap_or_else(|| "it was not done".to_owned());
        match response.status {
            200 => Ok(response.said),
            _ if response.said["code"] == "audit_failed" => bail!(Unrecorded(detail())),
            // What the file says since then is unknown to it.
            400 if !matches!(self.server, Server::Own(_)) => bail!(
                "{}; so says the running server, by the configuration that it started with",
                detail()
            ),
            _ => bail!(detail()),
        }
    }
}
