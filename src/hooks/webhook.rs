//! One attempt to deliver a message over HTTPS, to a receiver that may be slow or hostile.
//!
//! Of the response only its status and `Retry-After` are read, no redirect is followed, and each
//! attempt has a connection of its own, so that each one's address is checked. Where the environment
//! names an egress proxy, that one looks up the address: then this machine's own lookup is checked.

use super::{
    DeliveryError,
    address::{Guarded, Lookup, PrivateAddress},
    sign::sign,
};
use crate::{config, error_chain, https, secret::Secret};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Client, Url};
use rustls::ClientConfig;
use std::{
    error::Error as _,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use zeroize::Zeroizing;

/// A receiver that is reached over HTTPS.
pub(super) struct WebhookClient {
    /// None where the URL has a host that is no host, such as `1.2.3.999`.
    url: Option<Url>,
    secrets: Vec<Secret>,
    guard: Guarded,
    client: Client,
    is_proxied: bool,
}

impl WebhookClient {
    pub(super) fn new(
        config: &config::Webhook,
        tls: &ClientConfig,
        lookup: Lookup,
    ) -> Result<Self, https::Error> {
        let guard = Guarded { lookup, allow_private: config.unsafe_allow_private_addresses };
        let url = config.url.expose();
        let (client, is_proxied) = https::hook_client(tls, url, Arc::new(guard.clone()))?;
        let (url, secrets) = (url.parse().ok(), config.secrets.clone());
        Ok(Self { url, secrets, guard, client, is_proxied })
    }

    /// Sends `body` under the message's `id`; `now` is in seconds since 1970.
    pub(super) async fn deliver(
        &self,
        id: &str,
        body: Zeroizing<Vec<u8>>,
        now: u64,
        timeout: Duration,
    ) -> Result<(), DeliveryError> {
        let Some(url) = &self.url else {
            return Err(DeliveryError::new("its url cannot be used".to_owned()));
        };
        let host = url.host_str().unwrap_or_default();
        let checked = self.guard.check(host, self.is_proxied).await;
        checked.map_err(|error| DeliveryError::new(error.to_string()))?;
        let signature = sign(&self.secrets, id, now, &body);
        let request = self
            .client
            .post(url.clone())
            .timeout(timeout)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature)
            .body(body.to_vec());
        // The response's body is dropped unread, and with it the connection.
        let response = request.send().await.map_err(|error| why(error, timeout))?;
        judge(response.status(), response.headers(), now)
    }
}

fn judge(status: StatusCode, headers: &HeaderMap, now: u64) -> Result<(), DeliveryError> {
    if status.is_success() {
        return Ok(());
    }
    let mut failed = DeliveryError::new(format!("responded with {}", status.as_u16()));
    // The specification's way to say that the receiver is gone.
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
fn why(error: reqwest::Error, timeout: Duration) -> DeliveryError {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(private) = cause.downcast_ref::<PrivateAddress>() {
            return DeliveryError::new(private.to_string());
        }
        source = cause.source();
    }
    if error.is_timeout() {
        return DeliveryError::new(format!("no response within {timeout:?}"));
    }
    DeliveryError::new(error_chain::chain(&error.without_url()))
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
