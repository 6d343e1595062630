//! Login with Amazon: one refresh, with its retries, fallback hosts and client secrets.
//!
//! Nothing of an answer's text leaves this module except known error codes: LWA may echo what
//! was sent. Source: Amazon's access token and refresh token pages, read 2026-11-20.

mod wire;

use crate::{backoff::Backoff, config, https::LwaHttp, secret::Secret};
use http::{HeaderMap, StatusCode, Uri};
use std::{
    error::Error as _,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};
use tracing::warn;
pub use wire::Granted;

/// The largest answer that is read, bytes. Both tokens together are at most 4 KiB.
const ANSWER_MAX_BYTES: usize = 64 * 1024;
/// No further attempt starts after this much of one refresh.
const ATTEMPTS_WITHIN: Duration = Duration::from_secs(8);

/// Why LWA gave no token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The refresh token is dead.
    #[error("invalid_grant")]
    InvalidGrant,
    /// No live client secret was accepted.
    #[error("invalid_client")]
    InvalidClient,
    /// LWA answered with another error.
    #[error("status {status}, error {code}")]
    Refused {
        /// Its HTTP status.
        status: u16,
        /// Its error code, if it is a known one.
        code: &'static str,
        /// Its `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// A success without a usable token in it.
    #[error("unusable answer: {0}")]
    BadAnswer(&'static str),
    /// No answer.
    #[error("no answer")]
    Transport(#[source] reqwest::Error),
}

impl Error {
    /// How long LWA asked to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::InvalidGrant | Self::InvalidClient | Self::BadAnswer(_) | Self::Transport(_) => {
                None
            }
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            // A hung LWA has already cost the whole timeout; asking again would only add to it.
            Self::Transport(error) => !error.is_timeout() || error.is_connect(),
            Self::InvalidGrant | Self::InvalidClient | Self::BadAnswer(_) => false,
        }
    }
}

/// One LWA security profile at work.
#[derive(Debug)]
pub struct Application {
    name: String,
    client_id: String,
    secrets: Vec<Secret>,
    token_urls: Vec<Uri>,
    /// The secret that was accepted last is asked first.
    working: AtomicUsize,
}

impl Application {
    /// The application `name` as configured.
    #[must_use]
    pub fn new(name: &str, config: &config::Application) -> Self {
        let mut token_urls = vec![config.token_url.clone()];
        token_urls.extend(config.fallback_token_urls.iter().cloned());
        Self {
            name: name.to_owned(),
            client_id: config.client_id.clone(),
            secrets: config.client_secrets.clone(),
            token_urls,
            working: AtomicUsize::new(0),
        }
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its public identifier.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }
}

/// Calls LWA's token endpoint. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LwaClient {
    http: LwaHttp,
}

impl LwaClient {
    /// A client over `http`.
    #[must_use]
    pub fn new(http: LwaHttp) -> Self {
        Self { http }
    }

    /// Exchanges `refresh_token` for an access token, in at most `attempts` tries.
    ///
    /// Tries again, with backoff, on transport errors, 429 and 5xx only.
    ///
    /// # Errors
    /// [`Error::InvalidGrant`]: a person must authorize again. [`Error::InvalidClient`]: no live
    /// secret is accepted. Everything else may pass.
    pub async fn refresh(
        &self,
        application: &Application,
        refresh_token: &Secret,
        attempts: u32,
    ) -> Result<Granted, Error> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
        let started = Instant::now();
        let mut attempt = 1;
        loop {
            let error = match self.with_each_secret(application, refresh_token).await {
                Ok(granted) => return Ok(granted),
                Err(error) => error,
            };
            let pause = backoff.next().max(error.retry_after().unwrap_or_default());
            let late = started.elapsed() + pause > ATTEMPTS_WITHIN;
            if attempt >= attempts || late || !error.is_transient() {
                return Err(error);
            }
            attempt += 1;
            tokio::time::sleep(pause).await;
        }
    }

    async fn with_each_secret(
        &self,
        application: &Application,
        refresh_token: &Secret,
    ) -> Result<Granted, Error> {
        let count = application.secrets.len();
        let first = application.working.load(Ordering::Relaxed);
        for offset in 0..count {
            let index = (first + offset) % count;
            let secret = &application.secrets[index];
            match self.with_each_host(application, secret, refresh_token).await {
                Err(Error::InvalidClient) => {}
                outcome => {
                    application.working.store(index, Ordering::Relaxed);
                    return outcome;
                }
            }
        }
        Err(Error::InvalidClient)
    }

    /// Tries the region hosts in turn: LWA's tokens and grants are global.
    async fn with_each_host(
        &self,
        application: &Application,
        secret: &Secret,
        refresh_token: &Secret,
    ) -> Result<Granted, Error> {
        let (last, others) = match application.token_urls.split_last() {
            Some(split) => split,
            None => return Err(Error::BadAnswer("no token endpoint is configured")),
        };
        for url in others {
            match self.call(url, application, secret, refresh_token).await {
                Err(Error::Transport(error)) if error.is_connect() => {
                    let host = url.host().unwrap_or_default();
                    warn!(host, "cannot connect to login with amazon, trying its next host");
                }
                outcome => return outcome,
            }
        }
        self.call(last, application, secret, refresh_token).await
    }

    async fn call(
        &self,
        url: &Uri,
        application: &Application,
        secret: &Secret,
        refresh_token: &Secret,
    ) -> Result<Granted, Error> {
        let body = wire::refresh_form(&application.client_id, secret, refresh_token);
        let mut response = self
            .http
            .client(url)
            .post(url.to_string())
            .header("content-type", "application/x-www-form-urlencoded;charset=UTF-8")
            .header("accept", "application/json")
            .body(body)
            .send()
            .await
            .map_err(transport)?;
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let mut answer = zeroize::Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if answer.len() + chunk.len() > ANSWER_MAX_BYTES {
                return Err(Error::BadAnswer("it is too large"));
            }
            answer.extend_from_slice(&chunk);
        }
        interpret(status, retry_after, &answer)
    }
}

/// The URL is dropped from the error: it is configured, and one place less for a secret.
fn transport(error: reqwest::Error) -> Error {
    let error = error.without_url();
    debug_assert!(error.source().is_none_or(|source| !source.to_string().contains("Atzr")));
    Error::Transport(error)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

fn interpret(
    status: StatusCode,
    retry_after: Option<Duration>,
    answer: &[u8],
) -> Result<Granted, Error> {
    if status == StatusCode::OK {
        return wire::granted(answer).map_err(Error::BadAnswer);
    }
    match wire::error_code(answer) {
        "invalid_grant" if status.is_client_error() => Err(Error::InvalidGrant),
        "invalid_client" | "unauthorized_client" if status.is_client_error() => {
            Err(Error::InvalidClient)
        }
        code => Err(Error::Refused { status: status.as_u16(), code, retry_after }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_documented_pairs_of_status_and_code_are_final() {
        let body =
            |code: &str| format!(r#"{{"error":"{code}","error_description":"Atzr|CANARY"}}"#);
        let outcome = |status: u16, text: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            interpret(status, None, text.as_bytes()).expect_err("no success")
        };
        assert!(matches!(outcome(400, &body("invalid_grant")), Error::InvalidGrant));
        assert!(matches!(outcome(401, &body("invalid_client")), Error::InvalidClient));
        for (status, text) in [
            (500, body("invalid_grant")),
            (500, body("ServerError")),
            (429, String::new()),
            (503, "<html>".into()),
        ] {
            let error = outcome(status, &text);
            assert!(error.is_transient(), "{status}");
            assert!(!format!("{error} {error:?}").contains("CANARY"));
        }
        assert!(!outcome(400, &body("unsupported_grant_type")).is_transient());
        assert!(!outcome(307, "").is_transient());
    }

    #[test]
    fn retry_after_counts_in_seconds_only() {
        let with = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", text.parse().expect("a value"));
            retry_after(&headers)
        };
        assert_eq!(with(" 7"), Some(Duration::from_secs(7)));
        assert_eq!(with("soon"), None);
        assert_eq!(with("Fri, 20 Nov 2026 00:00:00 GMT"), None);
    }
}
