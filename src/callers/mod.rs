//! Who calls, and what they may.
//!
//! [`Callers`] knows every caller of the configuration, every issuer and every session, and finds
//! out on whose behalf a request is: its [`Principal`]. Workers read one snapshot without a lock;
//! what changes it (sessions, revocations, keys of issuers) happens on the control runtime.

#![allow(dead_code, reason = "sessions, issuers and the admin API follow")]

mod bearers;
pub mod credential;
pub mod failures;
mod glob;
mod json;
pub mod jwt;
pub mod key;
pub mod mcp;
mod path;
pub mod principal;
pub mod rate;
pub mod rules;
pub mod sessions;

pub use bearers::BearerCache;
pub use principal::{Caller, Principal, Proof};

use crate::{
    clock::Now,
    config::{CallerConfig, Config},
    https,
    id::Tenant,
    inbound::peer::{ConnectionInfo, Origin, Peer},
    metrics::Metrics,
};
use arc_swap::ArcSwap;
use bearers::Bearers;
use credential::Presented;
use failures::Failures;
use jwt::Issuers;
use key::{KeyDigest, KeyId, KeyKind, PresentedKey};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Release},
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

/// Every caller that can be known. Cheap to share.
#[derive(Debug)]
pub struct Callers {
    /// Whether everybody is asked.
    is_required: bool,
    /// Whether a listener beyond loopback asks nobody.
    allows_unauthenticated: bool,
    known: ArcSwap<CallerTable>,
    bearers: Bearers,
    /// How often something has ended a principal.
    epoch: AtomicU64,
    pub failures: Failures,
}

/// One snapshot.
#[derive(Debug, Default)]
struct CallerTable {
    configured: Arc<Configured>,
    sessions: HashMap<KeyId, KnownKey>,
}

/// The callers of the configuration, by what they are known by.
#[derive(Debug, Default)]
struct Configured {
    callers: HashMap<Arc<str>, (Arc<Caller>, Option<Tenant>)>,
    keys: HashMap<KeyId, KnownKey>,
    uids: HashMap<u32, Arc<Principal>>,
    gids: HashMap<u32, Arc<Principal>>,
    names: HashMap<Box<str>, Arc<Principal>>,
}

#[derive(Debug, Clone)]
struct KnownKey {
    digest: KeyDigest,
    principal: Arc<Principal>,
}

/// A session as the store keeps it.
#[derive(Debug, Clone)]
pub struct KnownSession {
    pub id: KeyId,
    pub digest: KeyDigest,
    /// Whose it is: it may do at most what this caller may.
    pub caller: String,
    /// The tenant it is for, where the caller has none of its own.
    pub tenant: Option<Tenant>,
    /// Globs, as in the configuration.
    pub accounts: Option<Vec<String>>,
    pub read_only: bool,
    /// Since the Unix epoch.
    pub expires: Duration,
}

impl Callers {
    /// Without the keys of issuers: no JWT is good.
    pub fn new(config: &Config) -> Arc<Self> {
        Self::with(config, Issuers::idle(&[], &Metrics::default()))
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
        Ok(Self::with(config, Issuers::start(config, metrics, control)?))
    }

    fn with(config: &Config, issuers: Issuers) -> Arc<Self> {
        let configured = Configured::new(&config.callers);
        Arc::new(Self {
            bearers: Bearers::new(config, issuers),
            is_required: config.auth.required,
            allows_unauthenticated: config.listen.unsafe_allow_unauthenticated,
            known: ArcSwap::from_pointee(CallerTable {
                configured: Arc::new(configured),
                sessions: HashMap::new(),
            }),
            epoch: AtomicU64::new(0),
            failures: Failures::default(),
        })
    }

    /// Finds out on whose behalf a request is; none if it names nobody and need not. A JWT is
    /// verified each time; workers have [`Self::of_token_remembering`].
    ///
    /// # Errors
    /// `Missing`, `Rejected` and `TooMany` of [`Unauthenticated`].
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

    /// Counts a wrong credential; what its sender is told.
    fn rejected(&self, origin: Origin, now: Now) -> Unauthenticated {
        let counted = self.failures.count(Some(origin), now.mono);
        counted.map_or_else(Unauthenticated::TooMany, |()| Unauthenticated::Rejected)
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
            Presented::Token(token) => {
                let origin = connection.peer.origin();
                return self.of_token_without_waiting(token, origin, now).map(Some);
            }
            Presented::None => known.configured.of_connection(connection, now)?,
        };
        match found {
            Some(principal) if principal.has_ended(now) => Err(Unauthenticated::Rejected),
            Some(principal) => {
                principal.note_use(now);
                Ok(Some(principal.clone()))
            }
            None if self.asks(connection) => Err(Unauthenticated::Missing),
            found => Ok(found.cloned()),
        }
    }

    /// The principal of a key that came in another place than the head.
    ///
    /// # Errors
    /// `Rejected`.
    pub fn of_key(&self, key: &str, now: Now) -> Result<Arc<Principal>, Unauthenticated> {
        let found = self.known.load().key(key).cloned();
        found.filter(|principal| !principal.has_ended(now)).ok_or(Unauthenticated::Rejected)
    }

    fn asks(&self, connection: &ConnectionInfo) -> bool {
        self.is_required || (connection.is_exposed && !self.allows_unauthenticated)
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

    /// Replaces the sessions, and the ids of the keys that are revoked. Ends the principals that are
    /// not among them any more.
    pub fn publish(&self, sessions: &[KnownSession], revoked: &HashSet<KeyId>) {
        let before = self.known.load_full();
        let mut next = HashMap::with_capacity(sessions.len());
        for session in sessions.iter().filter(|session| !revoked.contains(&session.id)) {
            let kept = before.sessions.get(&session.id).filter(|one| one.digest == session.digest);
            let principal = kept.map(|one| one.principal.clone());
            let principal = principal.or_else(|| before.configured.session(session));
            let key = |principal| KnownKey { digest: session.digest, principal };
            next.extend(principal.map(|principal| (session.id, key(principal))));
        }
        for (id, key) in &before.sessions {
            if !next.contains_key(id) {
                key.principal.end();
            }
        }
        for (_, key) in before.configured.keys.iter().filter(|(id, _)| revoked.contains(*id)) {
            key.principal.end();
        }
        let configured = before.configured.clone();
        self.known.store(Arc::new(CallerTable { configured, sessions: next }));
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

impl Configured {
    fn new(configs: &[CallerConfig]) -> Self {
        let mut configured = Self::default();
        for config in configs {
            let caller = Arc::new(Caller::new(&config.name, &config.rules));
            let principal = |proof, expires| {
                let (caller, tenant) = (caller.clone(), config.tenant.clone());
                Arc::new(Principal::new(caller, proof, tenant, expires))
            };
            for key in &config.keys {
                // Checked by the configuration.
                let (Ok(id), Ok(digest)) = (key.id.parse(), key.sha256.parse()) else { continue };
                let expires =
                    key.expires.map(|at| Duration::from_secs(at.as_second().max(0) as u64));
                let principal = principal(Proof::Key(id), expires);
                configured.keys.insert(id, KnownKey { digest, principal });
            }
            for uid in &config.unix_uids {
                configured.uids.insert(*uid, principal(Proof::User(*uid), None));
            }
            for gid in &config.unix_gids {
                configured.gids.insert(*gid, principal(Proof::Group(*gid), None));
            }
            for name in &config.mtls_san {
                let proof = Proof::Certificate(name.as_str().into());
                configured.names.insert(name.as_str().into(), principal(proof, None));
            }
            let name = caller.name.clone();
            configured.callers.insert(name, (caller.clone(), config.tenant.clone()));
        }
        configured
    }

    /// Whom the connection itself is known to be. A certificate is a credential like a key; the user
    /// of a peer, which each has, is one only where a caller is known by it.
    fn of_connection(
        &self,
        connection: &ConnectionInfo,
        now: Now,
    ) -> Result<Option<&Arc<Principal>>, Unauthenticated> {
        if let Some(certificate) = &connection.certificate {
            if certificate.is_expired(now.wall) {
                return Err(Unauthenticated::Rejected);
            }
            let known = certificate.names.iter().find_map(|name| self.names.get(name));
            return known.map(Some).ok_or(Unauthenticated::Rejected);
        }
        Ok(match connection.peer {
            Peer::Unix { uid, gid } => self.uids.get(&uid).or_else(|| self.gids.get(&gid)),
            Peer::Tcp(_) => None,
        })
    }

    /// The principal of a session; none if its caller is gone.
    fn session(&self, session: &KnownSession) -> Option<Arc<Principal>> {
        let (caller, tenant) = self.callers.get(session.caller.as_str())?;
        let tenant = tenant.clone().or_else(|| session.tenant.clone());
        let proof = Proof::Session(session.id);
        let principal = Principal::new(caller.clone(), proof, tenant, Some(session.expires));
        if session.accounts.is_none() && !session.read_only {
            return Some(Arc::new(principal));
        }
        let rules = caller.rules.narrowed(session.accounts.as_deref(), session.read_only);
        Some(Arc::new(principal.with_rules(rules)))
    }
}
