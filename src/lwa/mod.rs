//! Login with Amazon: the consent page's address, one exchange of a code, one refresh with its
//! retries, fallback hosts and client secrets.
//!
//! Nothing of an answer's text leaves this module except known error codes: LWA may echo what
//! was sent. Source: Amazon's access token and refresh token pages, read 2026-11-20.

pub mod authorize;
mod revoke;
mod wire;

use crate::{backoff::Backoff, config, https::LwaHttp, secret::Secret};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri};
pub use revoke::Revoked;
use std::{
    error::Error as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tracing::warn;
use wire::Grant;
pub use wire::{Granted, percent_encode};
use zeroize::Zeroizing;

/// The largest answer that is read, bytes. Both tokens together are at most 4 KiB.
const ANSWER_MAX_BYTES: usize = 64 * 1024;
/// `Retry-After` counts up to this: it is a number from outside.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
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
    /// LWA responded with another error.
    #[error("status {status}, error {code}")]
    Refused {
        /// Its HTTP status.
        status: u16,
        /// Its error code, if it is a known one.
        code: &'static str,
        /// Its `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The application may not do this at all.
    #[error("unauthorized_client")]
    UnauthorizedClient,
    /// The response is not one of LWA's: a page of HTML, a redirect.
    #[error("status {status} without an error of login with amazon in it")]
    NotLwa {
        /// Its HTTP status.
        status: u16,
    },
    /// The code is older than its five minutes; of a code only.
    #[error("the code has expired")]
    CodeExpired,
    /// The code was given for another return address; of a code only.
    #[error("the return address differs")]
    RedirectMismatch,
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
            Self::InvalidGrant
            | Self::InvalidClient
            | Self::UnauthorizedClient
            | Self::NotLwa { .. }
            | Self::CodeExpired
            | Self::RedirectMismatch
            | Self::BadAnswer(_)
            | Self::Transport(_) => None,
        }
    }

    fn from_status(status: u16, code: &'static str, retry_after: Option<Duration>) -> Self {
        Self::Refused { status, code, retry_after }
    }

    /// Whether the same call may succeed a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(*status, 408 | 429 | 500..),
            // A hung LWA has already cost the whole timeout; asking again would only add to it.
            Self::Transport(error) => !error.is_timeout() || error.is_connect(),
            Self::InvalidGrant
            | Self::InvalidClient
            | Self::UnauthorizedClient
            | Self::NotLwa { .. }
            | Self::CodeExpired
            | Self::RedirectMismatch
            | Self::BadAnswer(_) => false,
        }
    }
}

/// One LWA security profile at work.
#[derive(Debug)]
pub struct Application {
    name: String,
    client_id: String,
    /// Replaced when the configuration is read again.
    secrets: ArcSwap<Vec<Secret>>,
    token_urls: Vec<Uri>,
    /// The secret that was accepted last is asked first.
    working: AtomicUsize,
    authorize_url: Uri,
    redirect_uri: String,
    scopes: Vec<String>,
    revocation_url: Option<Uri>,
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
            secrets: ArcSwap::from_pointee(config.client_secrets.clone()),
            token_urls,
            working: AtomicUsize::new(0),
            authorize_url: config.authorize_url.clone(),
            redirect_uri: config.redirect_uri.clone(),
            scopes: config.scopes.clone(),
            revocation_url: config.revocation_url.clone(),
        }
    }

    /// Uses `secrets` from the next call on.
    pub fn set_secrets(&self, secrets: &[Secret]) {
        self.secrets.store(Arc::new(secrets.to_vec()));
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

    /// Where consent returns to.
    #[must_use]
    pub fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// What is asked for.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// Where codes are exchanged.
    #[must_use]
    pub fn token_url(&self) -> String {
        self.token_urls.first().map(Uri::to_string).unwrap_or_default()
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
            let grant = Grant::Refresh(refresh_token);
            let error = match self.with_each_secret(application, &grant).await {
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

    /// Exchanges the `code` of a consent, once: it may be spent whatever the answer.
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
    ) -> Result<Granted, Error> {
        let redirect_uri = application.redirect_uri.as_str();
        self.with_each_secret(application, &Grant::Code { code, verifier, redirect_uri }).await
    }

    async fn with_each_secret(
        &self,
        application: &Application,
        grant: &Grant<'_>,
    ) -> Result<Granted, Error> {
        let secrets = application.secrets.load_full();
        let count = secrets.len();
        let first = application.working.load(Ordering::Relaxed);
        for offset in 0..count {
            let index = (first + offset) % count;
            let secret = &secrets[index];
            match self.with_each_host(application, secret, grant).await {
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
        grant: &Grant<'_>,
    ) -> Result<Granted, Error> {
        let (last, others) = match application.token_urls.split_last() {
            Some(split) => split,
            None => return Err(Error::BadAnswer("no token endpoint is configured")),
        };
        for url in others {
            match self.call(url, application, secret, grant).await {
                Err(Error::Transport(error)) if error.is_connect() => {
                    let host = url.host().unwrap_or_default();
                    warn!(host, "cannot connect to login with amazon, trying its next host");
                }
                outcome => return outcome,
            }
        }
        self.call(last, application, secret, grant).await
    }

    async fn call(
        &self,
        url: &Uri,
        application: &Application,
        secret: &Secret,
        grant: &Grant<'_>,
    ) -> Result<Granted, Error> {
        let body = wire::form(&application.client_id, secret, grant);
        let Received { status, retry_after, answer } = self.post(url, &body).await?;
        if status.is_client_error()
            && let Some(error) = wire::code_error(grant, &answer)
        {
            return Err(error);
        }
        interpret(status, retry_after, &answer)
    }

    /// Posts a form and reads the answer, up to its limit.
    async fn post(&self, url: &Uri, form: &Secret) -> Result<Received, Error> {
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
        let status = response.status();
        let retry_after = retry_after(response.headers());
        // All the room at once: a buffer that grows leaves copies behind.
        let mut answer = Zeroizing::new(Vec::with_capacity(ANSWER_MAX_BYTES));
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if answer.len() + chunk.len() > ANSWER_MAX_BYTES {
                return Err(Error::BadAnswer("it is too large"));
            }
            answer.extend_from_slice(&chunk);
        }
        Ok(Received { status, retry_after, answer })
    }
}

/// An answer, read whole.
struct Received {
    status: StatusCode,
    retry_after: Option<Duration>,
    answer: Zeroizing<Vec<u8>>,
}

/// The URL is dropped from the error: it is configured, and one place less for a secret.
fn transport(error: reqwest::Error) -> Error {
    let error = error.without_url();
    debug_assert!(error.source().is_none_or(|source| !source.to_string().contains("Atzr")));
    Error::Transport(error)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
    let seconds: u64 = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

fn interpret(
    status: StatusCode,
    retry_after: Option<Duration>,
    answer: &[u8],
) -> Result<Granted, Error> {
    if status == StatusCode::OK {
        return wire::granted(answer).map_err(Error::BadAnswer);
    }
    let Some(code) = wire::error_code(answer) else {
        let status = status.as_u16();
        // A gateway in front of LWA responds with pages of its own when LWA is down.
        return Err(match Error::from_status(status, "unknown", retry_after) {
            error if error.is_transient() => error,
            _ => Error::NotLwa { status },
        });
    };
    Err(match code {
        "invalid_grant" if status.is_client_error() => Error::InvalidGrant,
        "invalid_client" if status.is_client_error() => Error::InvalidClient,
        "unauthorized_client" if status.is_client_error() => Error::UnauthorizedClient,
        code => Error::from_status(status.as_u16(), code, retry_after),
    })
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
        for (status, code) in [(400, "unsupported_grant_type"), (403, "anything_new")] {
            let error = outcome(status, &body(code));
            assert!(matches!(error, Error::Refused { .. }) && !error.is_transient(), "{error}");
        }
        for (status, text) in [(307, ""), (403, "<html>Atzr|CANARY"), (404, "{}")] {
            assert!(matches!(outcome(status, text), Error::NotLwa { .. }), "{status}");
        }
        let error = outcome(400, &body("unauthorized_client"));
        assert!(matches!(error, Error::UnauthorizedClient), "it is not invalid_client");
    }

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
