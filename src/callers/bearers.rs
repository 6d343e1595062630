//! Principals that are known by a JWT.

use super::{
    Caller, Callers, Principal, Proof, Unauthenticated,
    failures::GoodFrom,
    jwt::{Issuers, TokenCache, VerifiedJwt},
};
use crate::{
    clock::{Clock, Now},
    config::Config,
    inbound::peer::Origin,
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

    /// The principal of a token that was good, and came from there.
    fn principal(&self, token: VerifiedJwt, origin: Origin) -> Arc<Principal> {
        self.good_from.note(Some(origin));
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
        self.may_try(origin, clock.now())?;
        let verified = self.bearers.issuers.verify(token, clock).await;
        let verified = verified.map_err(|_| self.rejected(origin, clock.now()))?;
        Ok(self.bearers.principal(verified, origin))
    }

    /// As [`Self::of_token`], by the keys that are here; a failure is for the caller to count.
    pub(super) fn of_token_without_waiting(
        &self,
        token: &str,
        origin: Origin,
        now: Now,
    ) -> Result<Arc<Principal>, Unauthenticated> {
        self.may_try(origin, now)?;
        let verified = self.bearers.issuers.verify_without_waiting(token, now);
        let verified = verified.map_err(|_| Unauthenticated::Rejected)?;
        Ok(self.bearers.principal(verified, origin))
    }

    /// A signature is costly to check, so a stranger has only so many tries.
    fn may_try(&self, origin: Origin, now: Now) -> Result<(), Unauthenticated> {
        let from = Some(origin);
        match self.failures.exhausted(from, now.mono) {
            Some(wait) if !self.bearers.good_from.is(from) => Err(Unauthenticated::TooMany(wait)),
            _ => Ok(()),
        }
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
