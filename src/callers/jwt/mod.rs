//! JWTs: who signed one, whether it is still good, and whose it is.
//!
//! A worker verifies a token once, with keys that are in memory, and remembers it by its hash. Keys
//! are fetched on the control runtime. The algorithm is the configuration's choice, never the
//! token's, and of a token nothing but names goes further than this module: no claim is logged.

mod cache;
mod claims;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod key_set;
mod keys;
mod rejection;
mod source;
mod token;

pub use cache::TokenCache;
pub use claims::{Bearer, IdTokenRules, accepts_tenant};
pub use rejection::JwtRejection;
pub(super) use source::sign_in_endpoints;
pub use source::{SignInEndpoints, SourceError};

use crate::{
    clock::{Clock, Now},
    config::{Config, IssuerConfig},
    https::{self, LwaHttp},
    metrics::Metrics,
};
use keys::{Keys, Pace};
use rejection::RejectionLog;
use serde_json::{Map, Value};
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
}

#[derive(Debug, Clone)]
struct Issuer {
    config: IssuerConfig,
    keys: Arc<Keys>,
    log: Arc<RejectionLog>,
    /// What keeps the keys fresh, until the last one drops it.
    _task: Option<Arc<JoinSet<()>>>,
}

/// Checks the claims of a token whose signature is right, now in seconds since 1970.
type Check<'c> = dyn Fn(&Map<String, Value>, &IssuerConfig, u64) -> Result<Bearer, JwtRejection>
    + Send
    + Sync
    + 'c;

/// Why a token is rejected, and whose it claims to be.
type Failure = (Option<usize>, JwtRejection);

impl Issuers {
    /// Begins to fetch the keys of all issuers, on `control`, and waits for none. Those that are
    /// among the `running` ones keep their keys.
    ///
    /// # Errors
    /// When no HTTPS client can be made; there is none without issuers.
    pub fn start(
        config: &Config,
        running: Option<&Self>,
        metrics: &Metrics,
        control: &Handle,
    ) -> Result<Self, https::Error> {
        let mut issuers = Self::next(&config.issuers, running, metrics);
        if issuers.issuers.iter().all(|issuer| issuer._task.is_some()) {
            return Ok(issuers);
        }
        let tls = https::client_config(config.tls.ca_file.as_deref(), true)?;
        let http = LwaHttp::new(&tls, CONNECT_TIMEOUT, FETCH_TIMEOUT)?;
        for issuer in issuers.issuers.iter_mut().filter(|issuer| issuer._task.is_none()) {
            let (source, keys) = (KeySource::of(&issuer.config), Arc::clone(&issuer.keys));
            let (pace, http) = (Pace::of(&source), http.clone());
            let source = Arc::new(source);
            let fetch = move || {
                let (source, http) = (Arc::clone(&source), http.clone());
                async move { source.read(&http).await }
            };
            let mut task = JoinSet::new();
            task.spawn_on(async move { keys.keep_fresh(pace, fetch).await }, control);
            issuer._task = Some(Arc::new(task));
        }
        Ok(issuers)
    }

    /// Without keys, and nothing that fetches them.
    pub fn idle(configured: &[IssuerConfig], metrics: &Metrics) -> Self {
        Self::next(configured, None, metrics)
    }

    fn next(configured: &[IssuerConfig], running: Option<&Self>, metrics: &Metrics) -> Self {
        // Of two providers in one program the library chooses none, and panics at the first token.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let epoch = running.map(|running| Arc::clone(&running.epoch)).unwrap_or_default();
        let issuer = |config: &IssuerConfig| {
            let mut running = running.iter().flat_map(|running| &running.issuers);
            if let Some(same) = running.find(|one| one.has_keys_of(config)) {
                return Issuer { config: config.clone(), ..same.clone() };
            }
            let metrics = metrics.issuer(&config.name);
            let keys = Arc::new(Keys::new(config, metrics, Arc::clone(&epoch)));
            Issuer { config: config.clone(), keys, log: Arc::default(), _task: None }
        };
        let issuers: Vec<_> = configured.iter().map(issuer).collect();
        metrics.only_issuers(&configured.iter().map(|one| one.name.as_str()).collect::<Vec<_>>());
        let by_url = configured.iter().enumerate().map(|(at, one)| (one.issuer.clone(), at));
        let by_url = by_url.collect();
        Self { issuers, by_url, epoch, log: RejectionLog::default() }
    }

    /// The number of [`Self::epoch`], which all issuers of a process share.
    pub fn shared_epoch(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.epoch)
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
        self.verify_by(token, clock, &claims::verify).await
    }

    /// Verifies the ID token of a sign-in, which says other things than a credential does: it is for
    /// the client that asked for it.
    ///
    /// # Errors
    /// As [`Self::verify`].
    ///
    /// # Cancel safety
    /// As [`Self::verify`].
    pub async fn verify_id_token(
        &self,
        token: &str,
        rules: &IdTokenRules<'_>,
        clock: &dyn Clock,
    ) -> Result<Bearer, JwtRejection> {
        let check = |claims: &Map<String, Value>, issuer: &IssuerConfig, now| {
            claims::verify_id_token(claims, issuer, rules, now)
        };
        Ok(self.verify_by(token, clock, &check).await?.bearer)
    }

    async fn verify_by(
        &self,
        token: &str,
        clock: &dyn Clock,
        check: &Check<'_>,
    ) -> Result<VerifiedJwt, JwtRejection> {
        let mut result = self.verify_now(token, clock.now(), check);
        if let Err((Some(at), JwtRejection::UnknownKey)) = result {
            self.issuers[at].keys.next_fetch().await;
            result = self.verify_now(token, clock.now(), check);
        }
        result.map_err(|failure| self.report(failure, clock.now()))
    }

    fn report(&self, (at, cause): Failure, now: Now) -> JwtRejection {
        let issuer = at.map(|at| &self.issuers[at]);
        let log = issuer.map_or(&self.log, |issuer| &*issuer.log);
        log.report(issuer.map(|issuer| issuer.config.name.as_str()), cause, now.mono);
        cause
    }

    fn verify_now(&self, token: &str, now: Now, check: &Check<'_>) -> Result<VerifiedJwt, Failure> {
        let token = UnverifiedToken::parse(token).map_err(|cause| (None, cause))?;
        let url = token.claims.get("iss").and_then(Value::as_str);
        let at = url.and_then(|url| self.by_url.get(url)).copied();
        let at = at.ok_or((None, JwtRejection::UnknownIssuer))?;
        let bearer = self.issuers[at].verify(&token, now, check);
        let bearer = bearer.map_err(|cause| (Some(at), cause))?;
        Ok(VerifiedJwt { issuer: at, bearer })
    }
}

impl Issuer {
    /// Whether the keys of `config` are these.
    fn has_keys_of(&self, config: &IssuerConfig) -> bool {
        let own = &self.config;
        (&own.name, &own.issuer, &own.jwks_url, &own.jwks, &own.algorithms)
            == (&config.name, &config.issuer, &config.jwks_url, &config.jwks, &config.algorithms)
    }

    fn verify(
        &self,
        token: &UnverifiedToken<'_>,
        now: Now,
        check: &Check<'_>,
    ) -> Result<Bearer, JwtRejection> {
        let algorithm = token.algorithm.filter(|one| self.config.algorithms.contains(one));
        let algorithm = algorithm.ok_or(JwtRejection::Algorithm)?;
        let keys = self.keys.current();
        match keys.verify(token.key_id.as_deref(), algorithm, token.message, token.signature) {
            None => Err(JwtRejection::UnknownKey),
            Some(false) => Err(JwtRejection::Signature),
            Some(true) => check(&token.claims, &self.config, now.unix()),
        }
    }
}

#[cfg(test)]
#[path = "samples_tests.rs"]
mod samples;

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
