//! The callers of one configuration, by what they are known by.

use super::{
    Caller, KnownSession, Principal, Proof, Unauthenticated,
    bearers::Bearers,
    jwt::Issuers,
    key::{KeyDigest, KeyId},
    random_hash::RandomKeyMap,
};
use crate::{
    clock::Now,
    config::{CallerConfig, Config},
    id::Tenant,
    inbound::peer::{ConnectionInfo, Peer},
};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

#[derive(Debug)]
pub struct Configured {
    /// Whether everybody is asked.
    pub(super) is_required: bool,
    pub(super) bearers: Bearers,
    callers: HashMap<Arc<str>, (Arc<Caller>, CallerConfig)>,
    pub(super) keys: RandomKeyMap<KeyId, KnownKey>,
    uids: HashMap<u32, Arc<Principal>>,
    gids: HashMap<u32, Arc<Principal>>,
    names: HashMap<Box<str>, Arc<Principal>>,
}

#[derive(Debug, Clone)]
pub(super) struct KnownKey {
    pub(super) digest: KeyDigest,
    pub(super) principal: Arc<Principal>,
}

impl Configured {
    /// The callers of `config`. Those that are as in `before` are the same ones.
    pub(super) fn new(config: &Config, issuers: Issuers, before: Option<&Self>) -> Self {
        let mut configured = Self {
            is_required: config.auth.required,
            bearers: Bearers::new(config, issuers, before.map(|before| &before.bearers)),
            callers: HashMap::new(),
            keys: RandomKeyMap::default(),
            uids: HashMap::new(),
            gids: HashMap::new(),
            names: HashMap::new(),
        };
        for config in &config.callers {
            configured.add(config, before);
        }
        configured
    }

    fn add(&mut self, config: &CallerConfig, before: Option<&Self>) {
        let same = before.and_then(|before| before.callers.get(config.name.as_str()));
        let same = same.filter(|(_, old)| old.rules == config.rules && old.tenant == config.tenant);
        let caller = match same {
            Some((caller, _)) => caller.clone(),
            None => Arc::new(Caller::new(&config.name, &config.rules)),
        };
        let principal = |known: Option<&Arc<Principal>>, proof, expires| {
            let is_same = |known: &&Arc<Principal>| {
                Arc::ptr_eq(&known.caller, &caller) && known.expires() == expires
            };
            known.filter(is_same).cloned().unwrap_or_else(|| {
                let (caller, tenant) = (caller.clone(), config.tenant.clone());
                Arc::new(Principal::new(caller, proof, tenant, expires))
            })
        };
        for key in &config.keys {
            // Checked by the configuration.
            let (Ok(id), Ok(digest)) = (key.id.parse(), key.sha256.parse()) else { continue };
            let expires = key.expires.map(|at| Duration::from_secs(at.as_second().max(0) as u64));
            let known = before.and_then(|before| before.keys.get(&id));
            let known = known.filter(|known| known.digest == digest).map(|known| &known.principal);
            let principal = principal(known, Proof::Key(id), expires);
            self.keys.insert(id, KnownKey { digest, principal });
        }
        for uid in &config.unix_uids {
            let known = before.and_then(|before| before.uids.get(uid));
            self.uids.insert(*uid, principal(known, Proof::User(*uid), None));
        }
        for gid in &config.unix_gids {
            let known = before.and_then(|before| before.gids.get(gid));
            self.gids.insert(*gid, principal(known, Proof::Group(*gid), None));
        }
        for name in &config.mtls_san {
            let known = before.and_then(|before| before.names.get(name.as_str()));
            let proof = Proof::Certificate(name.as_str().into());
            self.names.insert(name.as_str().into(), principal(known, proof, None));
        }
        self.callers.insert(caller.name.clone(), (caller, config.clone()));
    }

    pub(super) fn issuers(&self) -> &Issuers {
        &self.bearers.issuers
    }

    pub(super) fn reads_tokens(&self) -> bool {
        !self.issuers().is_empty()
    }

    pub(super) fn jwt_epoch(&self) -> Arc<AtomicU64> {
        self.issuers().shared_epoch()
    }

    /// Whether `principal` is what the session would be now.
    pub(super) fn keeps(&self, session: &KnownSession, principal: &Principal) -> bool {
        self.caller_of(session).is_some_and(|(caller, tenant)| {
            Arc::ptr_eq(caller, &principal.caller)
                && tenant == principal.tenant
                && principal.expires() == self.end(session)
        })
    }

    /// When a session ends: with the key that it was issued with, if that ends before it.
    fn end(&self, session: &KnownSession) -> Option<Duration> {
        let key = session.issued_with.and_then(|id| self.keys.get(&id));
        let key = key.and_then(|key| key.principal.expires());
        let own = (session.expires < Duration::MAX).then_some(session.expires);
        key.into_iter().chain(own).min()
    }

    /// Whose session it is, and of which tenant; none if that caller is gone, or has no such sessions.
    fn caller_of(&self, session: &KnownSession) -> Option<(&Arc<Caller>, Option<Tenant>)> {
        if let Some(user) = &session.user {
            let caller = self.bearers.caller_of(&session.caller, user, session.tenant.as_ref())?;
            return Some((caller, session.tenant.clone()));
        }
        let (caller, config) = self.callers.get(session.caller.as_str())?;
        Some((caller, config.tenant.clone().or_else(|| session.tenant.clone())))
    }

    /// Ends the principals whose credential `next` does not know any more, or knows as that of
    /// another caller. One that it lets end earlier ends then.
    pub(super) fn end_missing(&self, next: &Self) {
        let end = |own: &Principal, other: Option<&Arc<Principal>>| {
            let is_same = |other: &Arc<Principal>| {
                other.caller.name == own.caller.name && other.tenant == own.tenant
            };
            match other.filter(|other| is_same(other)) {
                Some(other) => own.end_by(other.expires()),
                None => own.end(),
            }
        };
        for (id, key) in &self.keys {
            let other = next.keys.get(id).filter(|other| other.digest == key.digest);
            end(&key.principal, other.map(|other| &other.principal));
        }
        self.uids.iter().for_each(|(uid, own)| end(own, next.uids.get(uid)));
        self.gids.iter().for_each(|(gid, own)| end(own, next.gids.get(gid)));
        self.names.iter().for_each(|(name, own)| end(own, next.names.get(name)));
    }

    /// Who the connection itself is known to be. A certificate is a credential like a key; the user
    /// of a peer, which each has, is one only where a caller is known by it.
    pub(super) fn of_connection(
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

    /// The principal of a session; none if its caller is gone, or has no such sessions.
    pub(super) fn session(&self, session: &KnownSession) -> Option<Arc<Principal>> {
        let (caller, tenant) = self.caller_of(session)?;
        let subject = session.user.as_ref().map(|user| user.subject.as_str().into());
        let proof = Proof::Session { id: session.id, subject };
        let principal = Principal::new(caller.clone(), proof, tenant, self.end(session));
        if session.accounts.is_none() && !session.read_only {
            return Some(Arc::new(principal));
        }
        let rules = caller.rules.narrowed(session.accounts.as_deref(), session.read_only);
        Some(Arc::new(principal.with_rules(rules)))
    }
}

#[cfg(test)]
#[path = "configured_tests.rs"]
mod tests;
