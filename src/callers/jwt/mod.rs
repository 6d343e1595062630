//! JWTs: who signed one, whether it is still good, and whose it is.
//!
//! A worker verifies a token once, with keys that are in memory, and remembers it by its hash. Keys
//! are fetched on the control runtime. The algorithm is the configuration's choice, never the
//! token's, and of a token nothing but names goes further than this module: no claim is logged.

mod cache;
mod claims;
mod key_set;
mod keys;
mod rejection;
mod source;
mod token;

pub use cache::TokenCache;
pub use claims::Bearer;
pub use rejection::JwtRejection;

use crate::{
    clock::{Clock, Now},
    config::{Config, IssuerConfig},
    https::{self, LwaHttp},
    metrics::Metrics,
};
use keys::{Keys, Pace};
use rejection::RejectionLog;
use source::KeySource;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Acquire},
    },
    time::Duration,
};
use token::UnverifiedToken;
use tokio::{runtime::Handle, task::JoinSet};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For one document, its body included.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// A token that is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedJwt {
    /// The place of its issuer in the configuration.
    pub issuer: usize,
    /// What it says of its bearer.
    pub bearer: Bearer,
}

/// All configured issuers, with their keys.
#[derive(Debug)]
pub struct Issuers {
    issuers: Vec<Issuer>,
    /// Places in `issuers` by the `iss` of their tokens.
    by_url: HashMap<String, usize>,
    /// Changes with the keys of any issuer.
    epoch: Arc<AtomicU64>,
    /// For tokens of no issuer.
    log: RejectionLog,
    /// What keeps the keys fresh, until this is dropped.
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Issuer {
    config: IssuerConfig,
    keys: Arc<Keys>,
    log: RejectionLog,
}

/// Why a token is rejected, and whose it claims to be.
type Failure = (Option<usize>, JwtRejection);

impl Issuers {
    /// Begins to fetch the keys of all issuers, on `control`, and waits for none.
    ///
    /// # Errors
    /// When no HTTPS client can be made; there is none without issuers.
    pub fn start(
        config: &Config,
        metrics: &Metrics,
        control: &Handle,
    ) -> Result<Self, https::Error> {
        let mut issuers = Self::idle(&config.issuers, metrics);
        if issuers.issuers.is_empty() {
            return Ok(issuers);
        }
        let tls = https::client_config(config.tls.ca_file.as_deref(), true)?;
        let http = LwaHttp::new(&tls, CONNECT_TIMEOUT, FETCH_TIMEOUT)?;
        for issuer in &issuers.issuers {
            let (source, keys) = (KeySource::of(&issuer.config), Arc::clone(&issuer.keys));
            let (pace, http) = (Pace::of(&source), http.clone());
            let source = Arc::new(source);
            let fetch = move || {
                let (source, http) = (Arc::clone(&source), http.clone());
                async move { source.read(&http).await }
            };
            issuers._tasks.spawn_on(async move { keys.keep_fresh(pace, fetch).await }, control);
        }
        Ok(issuers)
    }

    /// Without keys, and nothing that fetches them.
    pub fn idle(configured: &[IssuerConfig], metrics: &Metrics) -> Self {
        // Of two providers in one program the library chooses none, and panics at the first token.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let epoch = Arc::<AtomicU64>::default();
        let issuer = |config: &IssuerConfig| Issuer {
            config: config.clone(),
            keys: Arc::new(Keys::new(config, metrics.issuer(&config.name), Arc::clone(&epoch))),
            log: RejectionLog::default(),
        };
        let issuers: Vec<_> = configured.iter().map(issuer).collect();
        let by_url = configured.iter().enumerate().map(|(at, one)| (one.issuer.clone(), at));
        let by_url = by_url.collect();
        Self { issuers, by_url, epoch, log: RejectionLog::default(), _tasks: JoinSet::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.issuers.is_empty()
    }

    /// Changes with the keys of any issuer: what was verified before may not be good any more.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    /// Verifies `token`. Where its issuer may have published its key since the last look, it waits
    /// for the next one, 2 s at most.
    ///
    /// # Errors
    /// Why it is rejected, which is for the log and has been logged.
    ///
    /// # Cancel safety
    /// Safe: the keys are fetched elsewhere.
    pub async fn verify(
        &self,
        token: &str,
        clock: &dyn Clock,
    ) -> Result<VerifiedJwt, JwtRejection> {
        let mut result = self.verify_now(token, clock.now());
        if let Err((Some(at), JwtRejection::UnknownKey)) = result {
            self.issuers[at].keys.next_fetch().await;
            result = self.verify_now(token, clock.now());
        }
        result.map_err(|failure| self.report(failure, clock.now()))
    }

    /// Verifies `token` by the keys that are here. One that is missing is asked for.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_without_waiting(
        &self,
        token: &str,
        now: Now,
    ) -> Result<VerifiedJwt, JwtRejection> {
        self.verify_now(token, now).map_err(|failure| {
            if let (Some(at), JwtRejection::UnknownKey) = failure {
                self.issuers[at].keys.want();
            }
            self.report(failure, now)
        })
    }

    fn report(&self, (at, cause): Failure, now: Now) -> JwtRejection {
        let issuer = at.map(|at| &self.issuers[at]);
        let log = issuer.map_or(&self.log, |issuer| &issuer.log);
        log.report(issuer.map(|issuer| issuer.config.name.as_str()), cause, now.mono);
        cause
    }

    fn verify_now(&self, token: &str, now: Now) -> Result<VerifiedJwt, Failure> {
        let token = UnverifiedToken::parse(token).map_err(|cause| (None, cause))?;
        let url = token.claims.get("iss").and_then(serde_json::Value::as_str);
        let at = url.and_then(|url| self.by_url.get(url)).copied();
        let at = at.ok_or((None, JwtRejection::UnknownIssuer))?;
        let bearer = self.issuers[at].verify(&token, now);
        let bearer = bearer.map_err(|cause| (Some(at), cause))?;
        Ok(VerifiedJwt { issuer: at, bearer })
    }
}

impl Issuer {
    fn verify(&self, token: &UnverifiedToken<'_>, now: Now) -> Result<Bearer, JwtRejection> {
        let algorithm = token.algorithm.filter(|one| self.config.algorithms.contains(one));
        let algorithm = algorithm.ok_or(JwtRejection::Algorithm)?;
        let keys = self.keys.current();
        match keys.verify(token.key_id.as_deref(), algorithm, token.message, token.signature) {
            None => Err(JwtRejection::UnknownKey),
            Some(false) => Err(JwtRejection::Signature),
            Some(true) => claims::verify(&token.claims, &self.config, now.unix()),
        }
    }
}

#[cfg(test)]
#[path = "samples_tests.rs"]
mod samples;

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
