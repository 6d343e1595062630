//! One HTTP request over a connection of its own, for all commands.

use super::{CommandFailure, server::Server, table::plain};
use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, Response,
    header::{ACCEPT, CONTENT_TYPE, COOKIE, HOST},
    request,
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Body, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{error::Error as StdError, io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Builder,
};

const TIMEOUT: Duration = Duration::from_secs(3);

/// A response about 10,000 accounts has a few megabytes.
const RESPONSE_MAX_BYTES: usize = 64 << 20;

/// A request to the admin API.
#[derive(Debug)]
pub(super) struct AdminRequest {
    head: request::Builder,
    body: Bytes,
    /// How long the response may take.
    pub(super) timeout: Duration,
}

impl AdminRequest {
    pub(super) fn get(path: &str) -> Self {
        // A name that the server accepts from this machine, whatever address it listens on.
        let head = Request::get(path).header(HOST, "localhost").header(ACCEPT, "application/json");
        Self { head, body: Bytes::new(), timeout: TIMEOUT }
    }

    pub(super) fn post(path: &str, body: &Value) -> Self {
        let Self { head, timeout, .. } = Self::get(path);
        let head = head.method(Method::POST).header(CONTENT_TYPE, "application/json");
        Self { head, body: body.to_string().into(), timeout }
    }

    pub(super) fn delete(path: &str) -> Self {
        let Self { head, body, timeout } = Self::get(path);
        Self { head: head.method(Method::DELETE), body, timeout }
    }

    pub(super) fn cookie(self, cookie: &str) -> Self {
        Self { head: self.head.header(COOKIE, cookie), ..self }
    }

    pub(super) fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub(super) fn http(self) -> io::Result<Request<Full<Bytes>>> {
        self.head.body(Full::new(self.body)).map_err(io::Error::other)
    }
}

pub(super) struct AdminResponse {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// The body as JSON, which may hold an access token; null if it is none.
    pub(super) said: Value,
}

impl AdminResponse {
    pub(super) async fn read<B>(response: Response<B>) -> io::Result<Self>
    where
        B: Body<Error: Into<Box<dyn StdError + Send + Sync>>>,
    {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, RESPONSE_MAX_BYTES).collect().await;
        let body = body.map_err(io::Error::other)?.to_bytes();
        let said = serde_json::from_slice(&body).unwrap_or_default();
        Ok(Self { status: head.status.as_u16(), headers: head.headers, said })
    }

    /// The body of a success.
    ///
    /// # Errors
    /// A [`CommandFailure`] with what the server `at` says instead, and the exit code that fits.
    pub(super) fn success(self, at: &Server) -> anyhow::Result<Value> {
        if self.status < 300 && !self.said.is_null() {
            return Ok(self.said);
        }
        Err(failure(&self.said, &format!("adsproxy at {at} responds with {}", self.status)))
    }

    /// A text of the body, safe to show.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.said[name].as_str().map(plain)
    }
}

/// What a command does whose server asks who it is for.
const ASKS_WHO: &str = "Run the command as the server's user or as root, where the server has a \
    control socket ($XDG_RUNTIME_DIR, or the directory of the store), or set $ADSPROXY_KEY to the key \
    of an operator.";

/// What a failed login or a rejection says, else `otherwise`, with the exit code that fits.
pub(super) fn failure(said: &Value, otherwise: &str) -> anyhow::Error {
    let text = |name: &str| said[name].as_str().map(plain);
    let what = text("message").or(text("detail")).unwrap_or_else(|| otherwise.to_owned());
    let advice = match said["code"].as_str() {
        Some("authentication_required" | "caller_rejected") => Some(ASKS_WHO.to_owned()),
        _ => text("advice"),
    };
    let advice = advice.map(|advice| format!("\n{advice}")).unwrap_or_default();
    let code = match said["code"].as_str() {
        Some("lwa_timeout" | "lwa_unavailable" | "amazon_failed") => 69,
        _ => 1,
    };
    CommandFailure::new(code, what + &advice).into()
}

/// Sends `request` over `stream`, a connection of its own.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> io::Result<Response<Incoming>> {
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(io::Error::other)?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(io::Error::other)
}

/// Runs `future` on a runtime of its own.
pub(super) fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(Builder::new_current_thread().enable_all().build()?.block_on(future))
}
