//! A data plane of this process's own, for one command.

use super::{
    CommandFailure, Context,
    access::PLACEHOLDER,
    server::{Server, quiet, unknown},
    wire::{self, AdminRequest},
};
use crate::{
    admin::TOKEN_PATH,
    app::{App, CommandProxy},
    audit::{Action, Actor, Entry},
    callers::key::{KeyKind, NewKey},
    config::{self, Config, StoreKind, load::Loaded},
    id::AccountId,
    inbound::path_key,
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
    pub(super) key: NewKey,
    /// The variables that hold secrets of the configuration.
    pub(super) secret_variables: BTreeSet<String>,
    /// The running server, which tokens come from.
    server: Option<Server>,
    /// Its control socket's path, valid as long as this.
    _socket: Option<ShortPath>,
}

impl PrivateProxy {
    /// Starts one for `account`. Beside a running server it takes tokens from that, and touches
    /// neither store nor audit log.
    pub(super) fn start(
        context: &Context,
        account: &AccountId,
        read_only: bool,
    ) -> anyhow::Result<Self> {
        let Loaded { mut config, secret_variables, .. } = context.load()?;
        quiet(&mut config);
        config.proxy.drain_timeout = config.proxy.drain_timeout.min(DRAIN_TIMEOUT);
        let server = Server::find(context, &config)?;
        let socket = match &server {
            Some(server) => Some(server.serve_tokens_to(&mut config, account)?),
            None => None,
        };
        let key = NewKey::generate(KeyKind::Session)?;
        let path = socket.as_ref().map(|socket| socket.path.clone());
        let private =
            CommandProxy { account: account.clone(), key: key.clone(), read_only, server: path };
        let app = App::start_private(config, private)?;
        let Some(status) = app.engine.tokens().status(account) else { bail!(unknown(account)) };
        if status.reauthorization_required {
            bail!(CommandFailure::reauthorization_required(&[account]));
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

    /// What every path is put behind, the key in it.
    pub(super) fn mount(&self) -> String {
        path_key::prefix(self.key.expose())
    }

    /// Scheme, address and mount: what every path is put behind.
    pub(super) fn origin(&self) -> String {
        format!("http://{}{}", self.address(), self.mount())
    }
}

impl Server {
    /// Makes `config` one whose only account is `account` of this server: its tokens come over its
    /// control socket, whose path is returned.
    fn serve_tokens_to(
        &self,
        config: &mut Config,
        account: &AccountId,
    ) -> anyhow::Result<ShortPath> {
        let Self::Control(path) = self else { bail!("tokens come over the control socket only") };
        let said = self.json(AdminRequest::get(&format!("/api/v1/accounts/{account}")))?;
        if said["reauthorization_required"] == true {
            bail!(CommandFailure::reauthorization_required(&[account]));
        }
        let text = |name: &str| said[name].as_str().unwrap_or_default();
        let configured = config.accounts.remove(account);
        let only = config::AccountConfig {
            region: text("region").parse()?,
            application: text("application").to_owned(),
            refresh_token: Some(Secret::new(format!("Atzr|{account}"))),
            headers: configured.map(|known| known.headers).unwrap_or_default(),
        };
        config.accounts = [(account.clone(), only)].into();
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
