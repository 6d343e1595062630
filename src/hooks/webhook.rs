//! One attempt to deliver a message over HTTPS, to a receiver that may be slow or hostile.
//!
//! Nothing of the answer but its status and `Retry-After` is read, no redirect is followed, no
//! egress proxy is asked (it would connect to addresses that were never checked), and each attempt
//! has a connection of its own, so that each one's address is checked.

use super::{
    Failed,
    address::{self, Guarded, Lookup, PrivateAddress},
    sign::Signer,
};
use crate::{config, error_chain, https};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Client, Url};
use rustls::ClientConfig;
use std::{
    error::Error as _,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use zeroize::Zeroizing;

/// A receiver that is reached over HTTPS.
#[derive(Clone)]
pub(super) struct Webhook {
    url: Url,
    signer: Signer,
    guard: Guarded,
    client: Client,
}

impl Webhook {
    /// `None` if the URL is none, which the configuration rules out.
    ///
    /// # Errors
    /// When no client can be made.
    pub(super) fn new(
        config: &config::Webhook,
        tls: &ClientConfig,
    ) -> Result<Option<Self>, https::Error> {
        Self::with_lookup(config, tls, address::system())
    }

    fn with_lookup(
        config: &config::Webhook,
        tls: &ClientConfig,
        lookup: Lookup,
    ) -> Result<Option<Self>, https::Error> {
        let Ok(url) = config.url.expose().parse() else { return Ok(None) };
        let guard = Guarded::new(lookup, config.unsafe_allow_private_addresses);
        let client = https::hook_client(tls, Arc::new(guard.clone()))?;
        Ok(Some(Self { url, signer: Signer::new(&config.secrets), guard, client }))
    }

    /// Sends `body` under the message's `id`; `now` is in seconds since 1970.
    pub(super) async fn deliver(
        &self,
        id: &str,
        body: Zeroizing<Vec<u8>>,
        now: u64,
        timeout: Duration,
    ) -> Result<(), Failed> {
        let host = self.url.host_str().unwrap_or_default();
        self.guard.check_literal(host).map_err(|error| Failed::new(error.to_string()))?;
        let signature = self.signer.sign(id, now, &body);
        let request = self
            .client
            .post(self.url.clone())
            .timeout(timeout)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature)
            .body(body.to_vec());
        // The answer's body is dropped unread, and with it the connection.
        let answer = request.send().await.map_err(|error| why(error, timeout))?;
        judge(answer.status(), answer.headers(), now)
    }
}

/// Neither URL nor keys.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

fn judge(status: StatusCode, headers: &HeaderMap, now: u64) -> Result<(), Failed> {
    if status.is_success() {
        return Ok(());
    }
    let mut failed = Failed::new(format!("answered {}", status.as_u16()));
    // The specification's way to say that nobody is there any more.
    failed.is_final = status == StatusCode::GONE;
    failed.retry_after = headers.get(header::RETRY_AFTER).and_then(|value| retry_after(value, now));
    Err(failed)
}

/// `Retry-After` in either of its forms.
fn retry_after(value: &HeaderValue, now: u64) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let until = |time: SystemTime| time.duration_since(UNIX_EPOCH + Duration::from_secs(now));
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(until(httpdate::parse_http_date(text).ok()?).unwrap_or_default()),
    }
}

/// The URL is no part of it: some receivers' URLs are secrets.
fn why(error: reqwest::Error, timeout: Duration) -> Failed {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(private) = cause.downcast_ref::<PrivateAddress>() {
            return Failed::new(private.to_string());
        }
        source = cause.source();
    }
    if error.is_timeout() {
        return Failed::new(format!("no answer within {timeout:?}"));
    }
    Failed::new(error_chain::chain(&error.without_url()))
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
