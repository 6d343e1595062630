//! Who calls, and what they may.
//!
//! [`Callers`] knows every caller of the configuration, every issuer and every session, and finds
//! out on whose behalf a request is: its [`Principal`]. Workers read one snapshot without a lock;
//! what changes it (sessions, revocations, keys of issuers) happens on the control runtime.

#![allow(dead_code, reason = "sessions, issuers and the admin API follow")]

mod bearers;
mod configured;
pub mod credential;
mod denial;
pub(crate) mod explain;
pub mod failures;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod glob;
mod json;
pub mod jwt;
pub mod key;
pub mod mcp;
pub mod oidc;
mod path;
pub mod principal;
mod random_hash;
pub mod rate;
pub mod rules;
pub mod sessions;

pub use bearers::BearerCache;
pub use principal::{Caller, Principal, Proof};

use crate::{
    clock::Now,
    config::Config,
    https,
    id::Tenant,
    inbound::peer::{ConnectionInfo, Origin},
    metrics::Metrics,
};
use arc_swap::ArcSwap;
pub use configured::Configured;
use configured::KnownKey;
use credential::Presented;
use failures::{Failures, TokenTries};
use jwt::Issuers;
use key::{KeyDigest, KeyId, KeyKind, PresentedKey};
use random_hash::RandomKeyMap;
use sessions::SessionUser;
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, Release},
        },
    },
    time::Duration,
};
use tokio::runtime::Handle;

/// Why a request has no principal. Which half of a credential is wrong is never said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    #[error("the request brings no credential, and one is asked for")]
    Missing,
    #[error("the credential is not accepted")]
    Rejected,
    /// What comes from there is left to [`Callers::of_token`].
    #[error("the token was not verified yet")]
    Unverified(Origin),
    #[error("the request brings more than one credential")]
    Several,
    /// A wrong one, of an address that has brought too many; with the time to try again.
    #[error("too many credentials of this address are not accepted")]
    TooMany(Duration),
}

impl Unauthenticated {
    /// The error for the sender of a wrong credential, which was `counted`.
    fn wrong(counted: Result<(), Duration>) -> Self {
        counted.map_or_else(Self::TooMany, |()| Self::Rejected)
    }
}

/// Every caller that can be known. Cheap to share.
#[derive(Debug)]
pub struct Callers {
    /// Whether a listener beyond loopback asks nobody.
    allows_unauthenticated: bool,
    known: ArcSwap<CallerTable>,
    /// Whether there is any issuer.
    reads_tokens: AtomicBool,
    /// Changes with the issuers and their keys.
    jwt_epoch: Arc<AtomicU64>,
    /// How often something has ended a principal.
    epoch: AtomicU64,
    /// Of all credentials but tokens.
    failures: Failures,
    tokens: TokenTries,
    discovery: oidc::Discovery,
}

/// One snapshot.
#[derive(Debug)]
struct CallerTable {
    configured: Arc<Configured>,
    sessions: RandomKeyMap<KeyId, KnownKey>,
}

/// A session as the store keeps it.
#[derive(Debug, Clone)]
pub struct KnownSession {
    pub id: KeyId,
    pub digest: KeyDigest,
    /// Whose it is: it may do at most what this caller may; of a user's, the issuer.
    pub caller: String,
    /// The user that it is of.
    pub user: Option<SessionUser>,
    /// The tenant it is for, where the caller has none of its own.
    pub tenant: Option<Tenant>,
    /// The configured key that it ends with.
    pub issued_with: Option<KeyId>,
    /// Globs, as in the configuration.
    pub accounts: Option<Vec<String>>,
    pub read_only: bool,
    /// Since the Unix epoch.
    pub expires: Duration,
}

impl Callers {
    /// Without the keys of issuers: no JWT is good.
    pub fn new(config: &Config) -> Arc<Self> {
        let issuers = Issuers::idle(&[], &Metrics::default());
        Self::with(config, Configured::new(config, issuers, None))
    }

    /// Begins to fetch the keys of issuers on `control`.
    ///
    /// # Errors
    /// When there are issuers and no HTTPS client can be made.
    pub fn start(
        config: &Config,
        metrics: &Metrics,
        control: &Handle,
    ) -> Result<Arc<Self>, https::Error> {
        let issuers = Issuers::start(config, None, metrics, control)?;
        Ok(Self::with(config, Configured::new(config, issuers, None)))
    }

    fn with(config: &Config, configured: Configured) -> Arc<Self> {
        Arc::new(Self {
            reads_tokens: AtomicBool::new(configured.reads_tokens()),
            jwt_epoch: configured.jwt_epoch(),
            allows_unauthenticated: config.listen.unsafe_allow_unauthenticated,
            known: ArcSwap::from_pointee(CallerTable {
                configured: Arc::new(configured),
                sessions: RandomKeyMap::default(),
            }),
            epoch: AtomicU64::new(0),
            failures: Failures::default(),
            tokens: TokenTries::default(),
            discovery: oidc::Discovery::default(),
        })
    }

    /// Makes what [`Self::replace`] puts in force. Who is as before keeps its rates and its keys.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn prepare(
        &self,
        config: &Config,
        metrics: &Metrics,
        control: &Handle,
    ) -> Result<Arc<Configured>, https::Error> {
        let running = self.configured();
        let issuers = Issuers::start(config, Some(running.issuers()), metrics, control)?;
        Ok(Arc::new(Configured::new(config, issuers, Some(&running))))
    }

    fn configured(&self) -> Arc<Configured> {
        self.known.load().configured.clone()
    }

    /// Finds out on whose behalf a request is; none if it names no caller and need not.
    ///
    /// # Errors
    /// `Missing`, `Rejected` and `TooMany` of [`Unauthenticated`]; `Unverified` for a JWT, which is
    /// left to [`Self::of_token`] and [`Self::of_token_remembering`].
    pub fn authenticate(
        &self,
        credential: Presented<'_>,
        connection: &ConnectionInfo,
        now: Now,
    ) -> Result<Option<Arc<Principal>>, Unauthenticated> {
        self.prove(credential, connection, now).map_err(|error| match error {
            Unauthenticated::Rejected => self.rejected(connection.peer.origin(), now),
            error => error,
        })
    }

    /// Counts a wrong credential other than a token; the error for its sender.
    pub fn rejected(&self, origin: Origin, now: Now) -> Unauthenticated {
        Unauthenticated::wrong(self.failures.count(Some(origin), now.mono))
    }

    fn prove(
        &self,
        credential: Presented<'_>,
        connection: &ConnectionInfo,
        now: Now,
    ) -> Result<Option<Arc<Principal>>, Unauthenticated> {
        let known = self.known.load();
        let found = match credential {
            Presented::Key(text) => Some(known.key(&text).ok_or(Unauthenticated::Rejected)?),
            Presented::Token(_) => {
                return Err(Unauthenticated::Unverified(connection.peer.origin()));
            }
            Presented::None => known.configured.of_connection(connection, now)?,
        };
        match found {
            Some(principal) if principal.has_ended(now) => Err(Unauthenticated::Rejected),
            Some(principal) => {
                principal.note_use(now);
                Ok(Some(principal.clone()))
            }
            None if known.configured.is_required || self.asks(connection) => {
                Err(Unauthenticated::Missing)
            }
            found => Ok(found.cloned()),
        }
    }

    /// The principal of a key that came in another place than the head.
    ///
    /// # Errors
    /// `Rejected` and `TooMany`.
    pub fn of_key(
        &self,
        key: &str,
        origin: Origin,
        now: Now,
    ) -> Result<Arc<Principal>, Unauthenticated> {
        let found = self.known.load().key(key).cloned();
        let found = found.filter(|principal| !principal.has_ended(now));
        found.ok_or_else(|| self.rejected(origin, now))
    }

    /// The principal of the configured key `id`, while the key is accepted.
    pub fn of_key_id(&self, id: KeyId, now: Now) -> Option<Arc<Principal>> {
        let known = self.known.load();
        let principal = &known.configured.keys.get(&id)?.principal;
        (!principal.has_ended(now)).then(|| principal.clone())
    }

    fn asks(&self, connection: &ConnectionInfo) -> bool {
        connection.is_exposed && !self.allows_unauthenticated
    }

    /// How often something has ended a principal: what has not changed need not be looked at.
    pub fn epoch(&self) -> &AtomicU64 {
        &self.epoch
    }

    /// When each key and session that was used was used last, in seconds since 1970.
    pub fn uses(&self) -> Vec<(KeyId, u64)> {
        let known = self.known.load();
        let keys = known.configured.keys.iter().chain(&known.sessions);
        keys.filter_map(|(id, key)| Some((*id, key.principal.last_used()?))).collect()
    }

    /// Whether a session with this id is accepted now.
    pub fn has_session(&self, id: KeyId, now: Now) -> bool {
        self.known.load().sessions.get(&id).is_some_and(|one| !one.principal.has_ended(now))
    }

    /// When the key `id` ends, in seconds since 1970: `u64::MAX` if it does not by itself, none if it
    /// is not in the configuration.
    pub fn key_end(&self, id: KeyId) -> Option<u64> {
        let known = self.known.load();
        let key = known.configured.keys.get(&id)?;
        Some(key.principal.expires().map_or(u64::MAX, |end| end.as_secs()))
    }

    /// Replaces the sessions, and the ids of the keys that are revoked. Ends the principals that are
    /// not among them any more.
    pub fn publish(&self, sessions: &[KnownSession], revoked: &HashSet<KeyId>) {
        self.replace(self.configured(), sessions, revoked);
    }

    /// As [`Self::publish`], with other callers of the configuration.
    pub fn replace(
        &self,
        configured: Arc<Configured>,
        sessions: &[KnownSession],
        revoked: &HashSet<KeyId>,
    ) {
        let before = self.known.load_full();
        let is_live = |session: &&KnownSession| {
            // With the key that it was issued with, a session ends, too.
            !revoked.contains(&session.id)
                && session.issued_with.is_none_or(|id| configured.keys.contains_key(&id))
        };
        let mut next = RandomKeyMap::default();
        for session in sessions.iter().filter(is_live) {
            let kept = before.sessions.get(&session.id).filter(|one| {
                one.digest == session.digest && configured.keeps(session, &one.principal)
            });
            let principal = kept.map(|one| one.principal.clone());
            let principal = principal.or_else(|| configured.session(session));
            let key = |principal| KnownKey { digest: session.digest, principal };
            next.extend(principal.map(|principal| (session.id, key(principal))));
        }
        for (id, key) in &before.sessions {
            match next.get(id).filter(|one| one.principal.tenant == key.principal.tenant) {
                Some(one) => key.principal.end_by(one.principal.expires()),
                None => key.principal.end(),
            }
        }
        for (_, key) in configured.keys.iter().filter(|(id, _)| revoked.contains(*id)) {
            key.principal.end();
        }
        let is_other = !Arc::ptr_eq(&configured, &before.configured);
        if is_other {
            before.configured.end_missing(&configured);
        }
        let reads_tokens = configured.reads_tokens();
        self.known.store(Arc::new(CallerTable { configured, sessions: next }));
        if is_other {
            // In this order: a reader that sees the new epoch sees the new issuers.
            self.reads_tokens.store(reads_tokens, Relaxed);
            self.jwt_epoch.fetch_add(1, Release);
        }
        self.epoch.fetch_add(1, Release);
    }
}

impl CallerTable {
    fn key(&self, text: &str) -> Option<&Arc<Principal>> {
        let key = PresentedKey::parse(text).ok()?;
        let known = match key.kind {
            KeyKind::Caller => &self.configured.keys,
            KeyKind::Session => &self.sessions,
        };
        let known = known.get(&key.id)?;
        (known.digest == key.digest()).then_some(&known.principal)
    }
}
