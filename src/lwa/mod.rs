//! Login with Amazon: the consent page's address, one exchange of a code, one refresh with its
//! retries, fallback hosts and client secrets.
//!
//! Nothing of a response's text leaves this module except known error codes: LWA may echo what
//! was sent. Source: Amazon's access token and refresh token pages, read 2026-11-20.

pub mod authorize;
mod error;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod wire;

pub use error::{Error, LwaFailure};
pub use wire::{GrantedToken, percent_encode};

use crate::{backoff::Backoff, config, https::LwaHttp, secret::Secret};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri};
use std::{
    iter,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tracing::warn;
use wire::RawResponse;
use zeroize::Zeroizing;

/// The largest response that is read, bytes. Both tokens together are at most 4 KiB.
const RESPONSE_MAX_BYTES: usize = 64 * 1024;
/// `Retry-After` counts up to this: it is a number from outside.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// No further attempt starts after this much of one refresh.
const ATTEMPTS_WITHIN: Duration = Duration::from_secs(8);

/// One LWA security profile at work.
#[derive(Debug)]
pub struct Application {
    name: String,
    pub(crate) config: config::ApplicationConfig,
    /// The client id for the header of a request, which its accounts share.
    client_id: HeaderValue,
    /// Replaced when the configuration is read again.
    secrets: ArcSwap<Vec<Secret>>,
    /// The secret that was accepted last is used first.
    working: AtomicUsize,
}

impl Application {
    /// The application `name` as configured.
    pub fn new(name: &str, config: &config::ApplicationConfig) -> Self {
        Self {
            name: name.to_owned(),
            config: config.clone(),
            client_id: HeaderValue::from_maybe_shared(Bytes::from(config.client_id.clone()))
                .expect("the configuration accepts only client ids that fit a header"),
            secrets: ArcSwap::from_pointee(config.client_secrets.clone()),
            working: AtomicUsize::new(0),
        }
    }

    /// Whether it is the application of `config`, whatever the secrets.
    pub(crate) fn is_of(&self, config: &config::ApplicationConfig) -> bool {
        let client_secrets = self.config.client_secrets.clone();
        config::ApplicationConfig { client_secrets, ..config.clone() } == self.config
    }

    /// Uses `secrets` from the next call on.
    pub(crate) fn set_secrets(&self, secrets: &[Secret]) {
        if **self.secrets.load() != *secrets {
            self.secrets.store(Arc::new(secrets.to_vec()));
        }
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its public identifier.
    pub fn client_id(&self) -> &str {
        &self.config.client_id
    }

    /// The client id for the header of a request.
    pub(crate) fn client_id_header(&self) -> &HeaderValue {
        &self.client_id
    }

    /// LWA's host, and the region hosts to fall back to.
    fn token_urls(&self) -> Vec<&Uri> {
        iter::once(&self.config.token_url).chain(&self.config.fallback_token_urls).collect()
    }
}

/// Calls LWA's token endpoint. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LwaClient {
    http: LwaHttp,
}

impl LwaClient {
    /// A client over `http`.
    pub fn new(http: LwaHttp) -> Self {
        Self { http }
    }

    /// Exchanges `refresh_token` for an access token, in at most `attempts` tries.
    ///
    /// Tries again, with backoff, on transport errors, 429 and 5xx only.
    ///
    /// # Errors
    /// [`Error::InvalidGrant`]: a person must authorize again. [`Error::InvalidClient`]: no live
    /// secret is accepted.
    pub async fn refresh(
        &self,
        application: &Application,
        refresh_token: &Secret,
        attempts: u32,
    ) -> Result<GrantedToken, Error> {
        let own = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
        let started = Instant::now();
        let mut attempt = 1;
        loop {
            let urls = application.token_urls();
            let error = match self.ask(application, &urls, &own, wire::granted).await {
                Ok(granted) => return Ok(granted),
                Err(error) => error,
            };
            let pause = backoff.next().max(error.retry_after().unwrap_or_default());
            let is_late = started.elapsed() + pause > ATTEMPTS_WITHIN;
            if attempt >= attempts || is_late || !error.is_transient() {
                return Err(error);
            }
            attempt += 1;
            tokio::time::sleep(pause).await;
        }
    }

    /// Exchanges the `code` of a consent, once: it may be spent whatever the response.
    ///
    /// # Errors
    /// [`Error::InvalidGrant`]: the code was used before, or belongs to another login.
    ///
    /// # Cancel safety
    /// None: a dropped call may have spent the code. Run it in a task of its own.
    pub async fn exchange(
        &self,
        application: &Application,
        code: &Secret,
        verifier: &Secret,
    ) -> Result<GrantedToken, Error> {
        let own = [
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", &application.config.redirect_uri),
            ("code_verifier", verifier.expose()),
        ];
        self.ask(application, &application.token_urls(), &own, wire::granted_for_code).await
    }

    /// Revokes `token` (RFC 7009) and says whether it did: false if no endpoint is configured.
    /// Amazon documents none; a broker in front of it may have one.
    ///
    /// # Errors
    /// When the endpoint does not respond with 200: the grant may live on.
    pub async fn revoke(&self, application: &Application, token: &Secret) -> Result<bool, Error> {
        let Some(url) = &application.config.revocation_url else { return Ok(false) };
        let own = [("token", token.expose()), ("token_type_hint", "refresh_token")];
        self.ask(application, &[url], &own, wire::revoked).await.map(|()| true)
    }

    /// Posts the form `own` with each live client secret until one is not rejected.
    async fn ask<T>(
        &self,
        application: &Application,
        urls: &[&Uri],
        own: &[(&str, &str)],
        read: fn(&RawResponse) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            let secrets = application.secrets.load_full();
            let first = application.working.load(Relaxed);
            for offset in 0..secrets.len() {
                let index = (first + offset) % secrets.len();
                let form = wire::form(own, application.client_id(), &secrets[index]);
                match read(&self.post_to_any(urls, &form).await?) {
                    Err(Error::InvalidClient) => {}
                    outcome => {
                        application.working.store(index, Relaxed);
                        return outcome;
                    }
                }
            }
            // Others may have been configured meanwhile.
            if Arc::ptr_eq(&secrets, &application.secrets.load()) {
                return Err(Error::InvalidClient);
            }
        }
    }

    /// Tries the region hosts in turn: LWA's tokens and grants are global.
    async fn post_to_any(&self, urls: &[&Uri], form: &Secret) -> Result<RawResponse, Error> {
        let (last, others) = urls.split_last().expect("an application has a token endpoint");
        for url in others {
            match self.post(url, form).await {
                Err(Error::Transport(error)) if error.is_connect() => {
                    let host = url.host().unwrap_or_default();
                    warn!(host, "cannot connect to login with amazon, trying its next host");
                }
                outcome => return outcome,
            }
        }
        self.post(last, form).await
    }

    /// Posts a form and reads the response, up to its limit.
    async fn post(&self, url: &Uri, form: &Secret) -> Result<RawResponse, Error> {
        // The URL is dropped from errors: it is configured, and one place less for a secret.
        let transport = |error: reqwest::Error| Error::Transport(error.without_url());
        // Wiped when the library is done with it, as far as it makes no copies of its own.
        let form = Zeroizing::new(form.expose().as_bytes().to_vec());
        let mut response = self
            .http
            .client(url)
            .post(url.to_string())
            .header("content-type", "application/x-www-form-urlencoded;charset=UTF-8")
            .header("accept", "application/json")
            .body(Bytes::from_owner(form))
            .send()
            .await
            .map_err(transport)?;
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        // All the room at once: a buffer that grows leaves copies behind.
        let mut body = Zeroizing::new(Vec::with_capacity(RESPONSE_MAX_BYTES));
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if body.len() + chunk.len() > RESPONSE_MAX_BYTES {
                return Err(Error::BadResponse("it is too large"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(RawResponse { status, retry_after, body })
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
    let seconds: u64 = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_counts_in_seconds_only() {
        let with = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", text.parse().expect("a value"));
            retry_after(&headers)
        };
        assert_eq!(with(" 7"), Some(Duration::from_secs(7)));
        assert_eq!(with("18446744073709551615"), Some(RETRY_AFTER_MAX));
        assert_eq!(with("18446744073709551616"), None);
        assert_eq!(with("-1"), None);
        assert_eq!(with("soon"), None);
        assert_eq!(with("Fri, 20 Nov 2026 00:00:00 GMT"), None);
    }
}
