//! A data plane of this process's own, for one command.

use super::{
    CommandFailure, Context,
    access::PLACEHOLDER,
    server::{Server, quiet, unknown},
    wire::{self, AdminRequest},
};
use crate::{
    admin::TOKEN_PATH,
    app::{App, Private},
    audit::{Action, Actor, Entry},
    config::{self, Config, StoreKind, load::Loaded},
    id::AccountId,
    inbound::session_key::SessionKey,
    listen::bind::ShortPath,
    secret::Secret,
};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;
use std::{collections::BTreeSet, time::Duration};
use tokio::net::TcpStream;

/// When the command has ended, its responses are not read any more.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A running private data plane.
pub(super) struct PrivateProxy {
    pub(super) app: App,
    pub(super) key: SessionKey,
    /// The variables that hold secrets of the configuration.
    pub(super) secret_variables: BTreeSet<String>,
    /// The running server, which tokens come from.
    server: Option<Server>,
    /// Its control socket's path, valid as long as this.
    _socket: Option<ShortPath>,
}

impl PrivateProxy {
    /// Starts one for `account`, or for all accounts. Beside a running server it takes tokens from
    /// that, and touches neither store nor audit log.
    pub(super) fn start(context: &Context, account: Option<&AccountId>) -> anyhow::Result<Self> {
        let Loaded { mut config, secret_variables, .. } = context.load()?;
        quiet(&mut config);
        config.proxy.drain_timeout = config.proxy.drain_timeout.min(DRAIN_TIMEOUT);
        let server = Server::find(context, &config)?;
        let socket = match &server {
            Some(server) => Some(server.serve_tokens_to(&mut config, account)?),
            None => None,
        };
        let key = SessionKey::generate()?;
        let path = socket.as_ref().map(|socket| socket.path().to_owned());
        let private = Private { account: account.cloned(), key: key.clone(), server: path };
        let app = App::start_private(config, private)?;
        if let Some(alias) = account {
            let Some(status) = app.engine.tokens().status(alias) else { bail!(unknown(alias)) };
            if status.reauthorization_required {
                return Err(CommandFailure::reauthorization_required(&[alias]).into());
            }
        }
        Ok(Self { app, key, secret_variables, server, _socket: socket })
    }

    /// Records in the audit log that `about` is given access to `account`.
    pub(super) fn record(
        &self,
        account: &AccountId,
        action: Action,
        about: &str,
    ) -> anyhow::Result<()> {
        let Some(server) = &self.server else {
            let entry = Entry::new(Actor::cli(), action).account(account).about(about);
            return Ok(self.app.engine.audit().record(&entry)?);
        };
        let path = format!("/api/v1/accounts/{account}/disclosures");
        let body = json!({ "action": action.as_str(), "about": about });
        server.json(AdminRequest::post(&path, &body)).map(drop)
    }

    /// Where it listens: `127.0.0.1:34567`.
    pub(super) fn address(&self) -> &str {
        self.app.proxy_addresses().first().map_or("", String::as_str)
    }

    /// Sends a request, whose target must begin with the mount.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Response<Incoming>> {
        let stream = TcpStream::connect(self.address()).await?;
        wire::exchange(stream, request).await.context("the request failed")
    }

    /// Scheme, address and mount: what every path is put behind.
    pub(super) fn origin(&self) -> String {
        format!("http://{}{}", self.address(), self.key.path_prefix())
    }
}

impl Server {
    /// Makes `config` one whose accounts, or the one `account`, are this server's: their tokens
    /// come over its control socket, whose path is returned.
    fn serve_tokens_to(
        &self,
        config: &mut Config,
        account: Option<&AccountId>,
    ) -> anyhow::Result<ShortPath> {
        let Self::Control(path) = self else { bail!("tokens come over the control socket only") };
        let one = account.map(|account| format!("/api/v1/accounts/{account}"));
        let path_of_list = one.as_deref().unwrap_or("/api/v1/accounts");
        let said = self.json(AdminRequest::get(path_of_list))?;
        let accounts = said["accounts"].as_array().cloned().unwrap_or_else(|| vec![said]);
        let configured = std::mem::take(&mut config.accounts);
        for said in &accounts {
            let text = |name: &str| said[name].as_str().unwrap_or_default();
            let id: AccountId = text("account").parse()?;
            if account.is_some() && said["reauthorization_required"] == true {
                return Err(CommandFailure::reauthorization_required(&[id]).into());
            }
            let account = config::AccountConfig {
                region: text("region").parse()?,
                application: text("application").to_owned(),
                refresh_token: Some(Secret::new(format!("Atzr|{id}"))),
                headers: configured.get(&id).map(|known| known.headers.clone()).unwrap_or_default(),
            };
            config.accounts.insert(id, account);
        }
        for application in config.applications.values_mut() {
            application.token_url = format!("http://localhost{TOKEN_PATH}").parse()?;
            application.fallback_token_urls.clear();
            application.client_secrets = vec![Secret::from(PLACEHOLDER)];
        }
        // The server keeps grants, writes the audit log and calls hooks.
        config.store.kind = StoreKind::Memory;
        config.audit.path = None;
        config.hooks.clear();
        Ok(ShortPath::of(path)?)
    }
}
