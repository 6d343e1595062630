//! A data plane of this process's own, for one command.

use super::{
    Context, Failure,
    session::{quiet, unknown},
};
use crate::{
    app::{App, Private},
    config::load::Loaded,
    id::AccountId,
    inbound::session_key::SessionKey,
};
use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::{collections::BTreeSet, time::Duration};
use tokio::net::TcpStream;

/// Five thousand profiles have two megabytes.
const ANSWER_MAX_BYTES: usize = 16 << 20;

/// Nobody is left to read the answers when the command has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A running private data plane.
pub(super) struct PrivateProxy {
    pub(super) app: App,
    pub(super) key: SessionKey,
    /// The variables that hold secrets of the configuration.
    pub(super) secret_variables: BTreeSet<String>,
}

impl PrivateProxy {
    /// Starts one for `account`, or for all accounts.
    pub(super) fn start(context: &Context, account: Option<&AccountId>) -> anyhow::Result<Self> {
        let Loaded { mut config, secret_variables, .. } = context.load()?;
        quiet(&mut config);
        config.proxy.drain_timeout = config.proxy.drain_timeout.min(DRAIN_TIMEOUT);
        let key = SessionKey::generate()?;
        let private = Private { account: account.cloned(), key: key.clone() };
        let app = App::start_private(config, private)?;
        if let Some(alias) = account {
            let table = app.engine().directory().snapshot();
            let Some(account) = table.get(alias) else { bail!(unknown(alias)) };
            if app.engine().tokens().status(&account.holder).reauthorization_required {
                return Err(Failure::ReauthorizationRequired(vec![alias.to_string()]).into());
            }
        }
        Ok(Self { app, key, secret_variables })
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
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        sender.send_request(request).await.context("the request failed")
    }

    /// The status and the whole body of an answer to `GET`.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<(u16, Bytes)> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = (self.key.path_prefix() + path).parse()?;
        request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
        let answer = self.send(request).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
        let body = body.map_err(|_| anyhow!("the answer broke off, or is too large"))?;
        Ok((status, body.to_bytes()))
    }

    /// Scheme, address and mount: what every path is put behind.
    pub(super) fn origin(&self) -> String {
        format!("http://{}{}", self.address(), self.key.path_prefix())
    }
}
