//! Principals that are known by a JWT.

use super::{
    Caller, Callers, Principal, Proof, Unauthenticated,
    jwt::{Issuers, TokenCache, VerifiedJwt, accepts_tenant},
    sessions::SessionUser,
};
use crate::{
    clock::{Clock, Now},
    config::{Config, IssuerConfig, RulesConfig},
    id::Tenant,
    inbound::peer::Origin,
};
use std::{
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Relaxed},
    },
    time::Duration,
};

/// What one worker remembers of tokens that it has verified.
pub type BearerCache = TokenCache<Arc<Principal>>;

/// The issuers, and what the bearers of their tokens may do.
#[derive(Debug)]
pub(super) struct Bearers {
    pub(super) issuers: Issuers,
    /// By the place of their issuer.
    callers: Vec<Arc<Caller>>,
    configs: Vec<IssuerConfig>,
}

impl Bearers {
    /// Those of `config`; who has the name and the rules of one `before` shares its rates.
    pub(super) fn new(config: &Config, issuers: Issuers, before: Option<&Self>) -> Self {
        let caller = |one: &IssuerConfig| {
            let known = before.iter().flat_map(|before| before.callers.iter().zip(&before.configs));
            let mut known = known.filter(|(caller, _)| *caller.name == *one.name);
            match known.find(|(_, before)| before.rules == one.rules) {
                Some((caller, _)) => Arc::clone(caller),
                None => Arc::new(Caller::new(&one.name, &one.rules)),
            }
        };
        let callers = config.issuers.iter().map(caller).collect();
        Self { issuers, callers, configs: config.issuers.clone() }
    }

    /// Whose the session of a user is; none where the issuer is gone, lets users have no sessions, or
    /// would not accept a token of that tenant any more.
    pub(super) fn caller_of(
        &self,
        name: &str,
        user: &SessionUser,
        tenant: Option<&Tenant>,
    ) -> Option<&Arc<Caller>> {
        let (caller, config) = self.issuer_of(name, user, tenant)?;
        config.session_ttl_max.is_some().then_some(caller)
    }

    /// The issuer `name`, where it would accept a token of `user` and `tenant`.
    fn issuer_of(
        &self,
        name: &str,
        user: &SessionUser,
        tenant: Option<&Tenant>,
    ) -> Option<(&Arc<Caller>, &IssuerConfig)> {
        let at = self.configs.iter().position(|config| config.name == name)?;
        let config = &self.configs[at];
        let is_accepted = config.issuer == user.issuer
            && config.tenant_claim.is_empty() == tenant.is_none()
            && tenant.is_none_or(|tenant| accepts_tenant(config, tenant));
        is_accepted.then(|| (&self.callers[at], config))
    }

    /// The principal of a token that was good.
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
        self.reads_tokens.load(Relaxed)
    }

    /// The principal of a user whose token the issuer `name` has vouched for before; none where it
    /// would accept no token of `user` and `tenant` any more.
    pub fn of_user(
        &self,
        name: &str,
        user: &SessionUser,
        tenant: Option<&Tenant>,
    ) -> Option<Arc<Principal>> {
        let configured = self.configured();
        let (caller, _) = configured.bearers.issuer_of(name, user, tenant)?;
        let proof = Proof::Token { subject: user.subject.as_str().into(), session: None };
        Some(Arc::new(Principal::new(caller.clone(), proof, tenant.cloned(), None)))
    }

    /// The principal of a user of the issuer `name` that the configuration lists as an operator; none
    /// where the issuer is another one. The rules of its other users are not for operators.
    pub fn of_operator(&self, name: &str, user: &SessionUser) -> Option<Arc<Principal>> {
        let configured = self.configured();
        let mut configs = configured.bearers.configs.iter();
        configs.find(|one| one.name == name && one.issuer == user.issuer)?;
        let rules = RulesConfig { operator: true, ..RulesConfig::default() };
        let proof = Proof::Token { subject: user.subject.as_str().into(), session: None };
        Some(Arc::new(Principal::new(Arc::new(Caller::new(name, &rules)), proof, None, None)))
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
        let configured = self.configured();
        let verified = configured.bearers.issuers.verify(token, clock).await;
        let verified = verified.map_err(|_| self.wrong_token(origin, clock.now()))?;
        self.tokens.succeeded(origin);
        Ok(configured.bearers.principal(verified))
    }

    /// A signature is costly to check, so a stranger has only so many tries.
    fn may_try(&self, origin: Origin, now: Now) -> Result<(), Unauthenticated> {
        self.tokens.begin(origin, now.mono).map_err(Unauthenticated::TooMany)
    }

    /// Counts a wrong token; the error for its sender.
    fn wrong_token(&self, origin: Origin, now: Now) -> Unauthenticated {
        Unauthenticated::wrong(self.tokens.failed(origin, now.mono))
    }

    /// The principal of a JWT that `cache` remembers.
    pub fn of_remembered(
        &self,
        token: &str,
        cache: &BearerCache,
        now: Now,
    ) -> Option<Arc<Principal>> {
        cache.get(token, self.jwt_epoch.load(Acquire), now)
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
        let epoch = self.jwt_epoch.load(Acquire);
        let principal = self.of_token(token, origin, clock).await?;
        let ends = principal.expires().unwrap_or_default();
        cache.insert(token, epoch, clock.now(), ends, principal.clone());
        Ok(principal)
    }
}
