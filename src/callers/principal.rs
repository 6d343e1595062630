//! On whose behalf a request is.

use super::{
    key::KeyId,
    rate::{Rate, TenantRates},
    rules::Rules,
};
use crate::{
    clock::Now,
    config::RulesConfig,
    id::{AccountId, Tenant},
};
use std::{
    borrow::Cow,
    fmt,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A caller of the configuration, or the bearers of one issuer's tokens.
#[derive(Debug)]
pub struct Caller {
    pub name: Arc<str>,
    pub rules: Arc<Rules>,
    /// Whether it may use the admin API.
    pub is_operator: bool,
    /// How often it may call; none: as often as it likes.
    rates: Option<TenantRates>,
}

/// How a principal is known. Shown in logs and in the audit log; never a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    Key(KeyId),
    /// With the subject of the user that it is of, if it is a user's.
    Session {
        id: KeyId,
        subject: Option<Box<str>>,
    },
    /// The user of a Unix socket's peer.
    User(u32),
    /// The group of a Unix socket's peer.
    Group(u32),
    /// A name in the client's certificate.
    Certificate(Box<str>),
    /// The subject of an issuer's token, and its session if it names one.
    Token {
        subject: Box<str>,
        session: Option<Box<str>>,
    },
}

impl Proof {
    /// The user of an issuer that it is of, if it is a user's.
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Token { subject, .. } => Some(subject),
            Self::Session { subject, .. } => subject.as_deref(),
            Self::Key(_) | Self::User(_) | Self::Group(_) | Self::Certificate(_) => None,
        }
    }
}

/// Who a request is from, and what it may do.
#[derive(Debug)]
pub struct Principal {
    pub caller: Arc<Caller>,
    pub proof: Proof,
    /// Whose accounts it sees; none: those of all.
    pub tenant: Option<Tenant>,
    /// Those of its caller, or narrower ones.
    pub rules: Arc<Rules>,
    rate: Option<Arc<Rate>>,
    /// When its credential ends, in seconds since 1970; `u64::MAX`: never.
    expires: AtomicU64,
    /// Whether its credential was revoked.
    has_ended: AtomicBool,
    /// In seconds since 1970; 0: never.
    last_used: AtomicU64,
}

impl Caller {
    pub fn new(name: &str, rules: &RulesConfig) -> Self {
        let per_minute = rules.requests_per_minute.and_then(NonZeroU32::new);
        Self {
            name: name.into(),
            rules: Arc::new(Rules::new(rules)),
            is_operator: rules.operator,
            rates: per_minute.map(|per_minute| TenantRates::new(per_minute, Instant::now())),
        }
    }
}

impl Principal {
    pub fn new(
        caller: Arc<Caller>,
        proof: Proof,
        tenant: Option<Tenant>,
        expires: Option<Duration>,
    ) -> Self {
        // The tenants of an issuer have a limit each; all that a caller does counts together.
        let sharer = tenant.as_ref().filter(|_| proof.subject().is_some());
        let rate = caller.rates.as_ref().map(|rates| rates.of(sharer, Instant::now()));
        let (rules, has_ended) = (caller.rules.clone(), AtomicBool::new(false));
        let last_used = AtomicU64::new(0);
        let expires = AtomicU64::new(seconds(expires));
        Self { caller, proof, tenant, rules, rate, expires, has_ended, last_used }
    }

    pub(super) fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = Arc::new(rules);
        self
    }

    /// Counts a request of it.
    ///
    /// # Errors
    /// How long until one more is allowed.
    pub fn take(&self, now: Now) -> Result<(), Duration> {
        self.rate.as_ref().map_or(Ok(()), |rate| rate.take(now.mono))
    }

    /// Whether its credential has expired or was revoked, by now: to be asked for each request, and
    /// while one is open.
    pub fn has_ended(&self, now: Now) -> bool {
        self.has_ended.load(Relaxed) || self.expires.load(Relaxed) <= now.unix()
    }

    /// When its credential ends, since the Unix epoch.
    pub fn expires(&self) -> Option<Duration> {
        let expires = self.expires.load(Relaxed);
        (expires < u64::MAX).then(|| Duration::from_secs(expires))
    }

    /// Whether the request itself brought its credential, and not the connection.
    pub fn is_presented(&self) -> bool {
        matches!(self.proof, Proof::Key(_) | Proof::Session { .. } | Proof::Token { .. })
    }

    /// Whether it can end while a request is open.
    pub fn can_end(&self) -> bool {
        matches!(self.proof, Proof::Key(_) | Proof::Session { .. })
    }

    /// Notes that it is used now, to the minute: most requests only read.
    pub(super) fn note_use(&self, now: Now) {
        if now.unix() >= self.last_used.load(Relaxed) + 60 {
            self.last_used.store(now.unix(), Relaxed);
        }
    }

    pub(super) fn last_used(&self) -> Option<u64> {
        Some(self.last_used.load(Relaxed)).filter(|at| *at > 0)
    }

    /// Brings its end forward to `expires`; a later one changes nothing.
    pub(super) fn end_by(&self, expires: Option<Duration>) {
        self.expires.fetch_min(seconds(expires), Relaxed);
    }

    pub(super) fn end(&self) {
        self.has_ended.store(true, Relaxed);
    }

    /// Whether it may use the whole admin API.
    pub fn is_operator(&self) -> bool {
        // A session that may do less than its caller is no operator: it could make one that may more.
        let is_whole = Arc::ptr_eq(&self.rules, &self.caller.rules);
        self.caller.is_operator && self.tenant.is_none() && is_whole
    }

    /// The id of the account that it calls `name`; none if its rules do not allow that account.
    /// Whether there is such an account is for others to see.
    pub fn account_id<'n>(&self, name: &'n str) -> Option<Cow<'n, str>> {
        if !self.rules.sees(name) {
            return None;
        }
        match &self.tenant {
            None => Some(name.into()),
            Some(tenant) => {
                AccountId::is_alias(name).then(|| Cow::Owned(format!("{tenant}~{name}")))
            }
        }
    }

    /// What it calls the account `id`; none if it may not see it.
    pub fn name_of<'i>(&self, id: &'i AccountId) -> Option<&'i str> {
        let name = match &self.tenant {
            None => id.as_str(),
            Some(tenant) => tenant.owns(id).then(|| id.alias())?,
        };
        self.rules.sees(name).then_some(name)
    }
}

/// Seconds since 1970, of an end or none.
fn seconds(expires: Option<Duration>) -> u64 {
    expires.map_or(u64::MAX, |expires| expires.as_secs())
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.caller.name)
    }
}
