//! Principals that are known by a JWT.

use super::{
    Caller, Callers, Principal, Proof, Unauthenticated,
    credential::Presented,
    failures::GoodFrom,
    jwt::{Issuers, TokenCache, VerifiedJwt},
};
use crate::{
    clock::{Clock, Now},
    config::Config,
    inbound::peer::{ConnectionInfo, Origin},
};
use std::{sync::Arc, time::Duration};

/// What one worker remembers of tokens that it has verified.
pub type BearerCache = TokenCache<Arc<Principal>>;

/// The issuers, and what the bearers of their tokens may do.
#[derive(Debug)]
pub(super) struct Bearers {
    issuers: Issuers,
    /// By the place of their issuer.
    callers: Vec<Arc<Caller>>,
    good_from: GoodFrom,
}

impl Bearers {
    pub(super) fn new(config: &Config, issuers: Issuers) -> Self {
        let callers = config.issuers.iter();
        let callers = callers.map(|one| Arc::new(Caller::new(&one.name, &one.rules))).collect();
        Self { issuers, callers, good_from: GoodFrom::default() }
    }

    fn principal(&self, token: VerifiedJwt) -> Arc<Principal> {
        let VerifiedJwt { issuer, bearer } = token;
        let session = bearer.session.map(String::into);
        let proof = Proof::Token { subject: bearer.subject.into(), session };
        let expires = Some(Duration::from_secs(bearer.expires));
        let caller = Arc::clone(&self.callers[issuer]);
        Arc::new(Principal::new(caller, proof, bearer.tenant, expires))
    }
}

impl Callers {
    /// Whether a bearer that looks like a JWT is a credential.
    pub fn reads_tokens(&self) -> bool {
        !self.bearers.issuers.is_empty()
    }

    /// As [`Self::authenticate`], for JWTs too.
    ///
    /// # Errors
    /// As that, without `Unverified`.
    pub async fn authenticate_any(
        &self,
        credential: Presented<'_>,
        connection: &ConnectionInfo,
        clock: &dyn Clock,
    ) -> Result<Option<Arc<Principal>>, Unauthenticated> {
        match credential {
            Presented::Token(token) => {
                self.of_token(token, connection.peer.origin(), clock).await.map(Some)
            }
            other => self.authenticate(other, connection, clock.now()),
        }
    }

    /// The principal of a JWT that is good. May wait for its issuer's keys, 2 s at most.
    ///
    /// # Errors
    /// `Rejected` and `TooMany`.
    pub async fn of_token(
        &self,
        token: &str,
        origin: Origin,
        clock: &dyn Clock,
    ) -> Result<Arc<Principal>, Unauthenticated> {
        let from = Some(origin);
        // A signature is costly to check, so a stranger has only so many tries.
        if let Some(wait) = self.failures.exhausted(from, clock.now().mono)
            && !self.bearers.good_from.is(from)
        {
            return Err(Unauthenticated::TooMany(wait));
        }
        let verified = self.bearers.issuers.verify(token, clock).await;
        let verified = verified.map_err(|_| self.rejected(origin, clock.now()))?;
        self.bearers.good_from.note(from);
        Ok(self.bearers.principal(verified))
    }

    /// The principal of a JWT that `cache` remembers.
    pub fn of_remembered(
        &self,
        token: &str,
        cache: &BearerCache,
        now: Now,
    ) -> Option<Arc<Principal>> {
        cache.get(token, self.bearers.issuers.epoch(), now)
    }

    /// As [`Self::of_token`], and `cache` remembers it.
    ///
    /// # Errors
    /// `Rejected` and `TooMany`.
    pub async fn of_token_remembering(
        &self,
        token: &str,
        cache: &BearerCache,
        origin: Origin,
        clock: &dyn Clock,
    ) -> Result<Arc<Principal>, Unauthenticated> {
        // Before the keys are looked at: what was verified by older ones is not kept.
        let epoch = self.bearers.issuers.epoch();
        let principal = self.of_token(token, origin, clock).await?;
        let ends = principal.expires().unwrap_or_default();
        cache.insert(token, epoch, clock.now(), ends, principal.clone());
        Ok(principal)
    }
}
