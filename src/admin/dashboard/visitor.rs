//! Who sends a request: the visitor whose browser is signed in, by the cookie of its session.

use super::{
    cookie::{SessionCookie, presented},
    identity::VisitorIdentity,
    live::asks_for_events,
    session::{BrowserSession, parse},
    verified::VerifiedSessions,
};
use crate::{
    admin::Admin,
    audit::{Actor, ActorProof},
    callers::Principal,
    error_chain::chain,
    login::LoginError,
    problem::Code,
    secret::Secret,
    store::{self, Expected, Version},
};
use http::HeaderMap;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// So long after the sign-in what cannot be taken back needs no other one.
const FRESH_SECS: u64 = 5 * 60;
/// A use is noted in the store so often at most.
const NOTE_SECS: u64 = 60;
/// How long a request that only reads waits for the store to say who sends it.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// A use of its own, which its page sends: it does not keep a session from ending.
const LIVE_FIELD: &str = "x-ads-dashboard";

/// A browser that is signed in.
#[derive(Debug)]
pub(in crate::admin) struct Visitor {
    pub(super) identity: VisitorIdentity,
    /// None for a user of the machine, who may do all.
    pub(in crate::admin) principal: Option<Arc<Principal>>,
    /// What each form of this session holds.
    pub(super) csrf: Secret,
    /// The sign-in was a moment ago.
    pub(super) is_fresh: bool,
    /// The name of its entry.
    pub(super) key: String,
    /// The store is away, and had the session a moment ago.
    pub(super) is_remembered: bool,
}

impl Visitor {
    /// The visitor as the audit log names it.
    pub(in crate::admin) fn actor(&self, admin: &Admin) -> Actor {
        match (&self.principal, &self.identity) {
            (Some(principal), _) => admin.actor(principal),
            (None, VisitorIdentity::User { uid }) => {
                Actor::admin("dashboard", None, ActorProof::User { uid: *uid })
            }
            (None, _) => Actor::unknown(),
        }
    }

    /// What the pages call the visitor.
    pub(super) fn name(&self) -> String {
        self.identity.name(self.principal.as_deref())
    }

    /// Whether it sees all that there is.
    pub(super) fn is_operator(&self) -> bool {
        self.principal.as_ref().is_none_or(|principal| principal.is_operator())
    }

    /// Whether it may end the browsers of others.
    pub(super) fn may_end_any(&self) -> bool {
        let may_change = |it: &Arc<Principal>| !it.rules.is_read_only();
        self.is_operator() && self.principal.as_ref().is_none_or(may_change)
    }
}

impl Admin {
    pub(super) fn verified(&self) -> &VerifiedSessions {
        &self.0.live.verified
    }

    /// The browser that sends these `headers`, if it is signed in.
    pub(in crate::admin) async fn visitor(
        &self,
        headers: &HeaderMap,
    ) -> Result<Option<Visitor>, LoginError> {
        self.find_visitor(headers, false).await
    }

    /// The same for a request that only reads: while the store is away, a session that it had a moment
    /// ago is good.
    pub(in crate::admin) async fn reading_visitor(
        &self,
        headers: &HeaderMap,
    ) -> Result<Option<Visitor>, LoginError> {
        self.find_visitor(headers, true).await
    }

    async fn find_visitor(
        &self,
        headers: &HeaderMap,
        only_reads: bool,
    ) -> Result<Option<Visitor>, LoginError> {
        let mut away = None;
        for cookie in presented(headers) {
            let at = self.0.logins.engine.clock().now();
            let looked = self.session_of(&cookie);
            let found = match only_reads {
                true => timeout(READ_TIMEOUT, looked)
                    .await
                    .unwrap_or_else(|_| Err(store::Error::unresponsive())),
                false => looked.await,
            };
            let (session, version) = match found {
                Ok(Some((session, version))) => (session, Some(version)),
                Ok(None) => continue,
                Err(error) if error.is_away() => match self.verified().get(&cookie, at) {
                    Some(session) if only_reads => (session, None),
                    _ => {
                        away = Some(error);
                        continue;
                    }
                },
                Err(error) => return Err(error.into()),
            };
            let (name, now) = (cookie.name.clone(), at.unix());
            let principal = self.principal_of(&session.identity).ok();
            let Some(principal) = principal.filter(|_| !session.has_ended(now)) else {
                match version {
                    Some(_) => log_failure("delete", self.end_session(&name).await.err()),
                    None => self.verified().end(&name, at),
                }
                continue;
            };
            if let Some(version) = version {
                self.verified().keep(&name, &session, at);
                self.note_use(headers, &name, &session, version).await;
            }
            return Ok(Some(Visitor {
                identity: session.identity,
                principal,
                csrf: cookie.csrf(),
                is_fresh: now < session.signed_in + FRESH_SECS && version.is_some(),
                key: name,
                is_remembered: version.is_none(),
            }));
        }
        away.map_or(Ok(None), |error| Err(store_is_away(error)))
    }

    /// Notes in the store that a session is used, now and then. Where that fails, the session goes on, and
    /// ends as if it was not used: a full disk must not keep out those who look for its cause.
    async fn note_use(
        &self,
        headers: &HeaderMap,
        name: &str,
        session: &BrowserSession,
        version: Version,
    ) {
        let (is_pages_own, now) =
            (headers.contains_key(LIVE_FIELD) || asks_for_events(headers), self.unix_now());
        if !is_pages_own && session.used + NOTE_SECS <= now {
            let mut used = session.clone();
            used.used = now;
            // A session that ended meanwhile does not come back by this.
            let expected = Expected::Version(version);
            log_failure("keep", self.browsers().replace(name, &used.item(), expected).await.err());
        }
    }

    /// Remembers the sessions of these `headers` no more, for a sign-out that the store cannot take.
    pub(super) fn forget_visitor(&self, headers: &HeaderMap) {
        let now = self.0.logins.engine.clock().now();
        for cookie in presented(headers) {
            if self.verified().get(&cookie, now).is_some() {
                self.verified().end(&cookie.name, now);
            }
        }
    }

    /// The session that a cookie is of, good or not.
    pub(super) async fn session_of(
        &self,
        cookie: &SessionCookie,
    ) -> Result<Option<(BrowserSession, Version)>, store::Error> {
        let Some((item, version)) = self.browsers().read(&cookie.name).await? else {
            self.verified().forget(&cookie.name);
            return Ok(None);
        };
        let session = parse(&item).filter(|session| session.is_of(cookie));
        Ok(session.map(|session| (session, version)))
    }

    /// What a visitor may do now.
    ///
    /// # Errors
    /// When its credential is accepted no more.
    pub(super) fn principal_of(
        &self,
        identity: &VisitorIdentity,
    ) -> Result<Option<Arc<Principal>>, ()> {
        let (callers, engine) = (self.0.sessions.callers(), &self.0.logins.engine);
        let principal = match identity {
            VisitorIdentity::User { .. } => return Ok(None),
            VisitorIdentity::Key { id } => callers.of_key_id(*id, engine.clock().now()),
            VisitorIdentity::Bearer { name, user, tenant } => {
                callers.of_user(name, user, tenant.as_ref())
            }
            VisitorIdentity::Operator { name, user } => {
                let config = engine.config();
                let oidc = config.dashboard.oidc.as_ref();
                let is_listed = oidc.is_some_and(|oidc| {
                    oidc.issuer == *name && oidc.operators.contains(&user.subject)
                });
                if is_listed { callers.of_operator(name, user) } else { None }
            }
        };
        let is_for = |it: &Arc<Principal>| it.is_operator() || it.tenant.is_some();
        principal.filter(is_for).map(Some).ok_or(())
    }
}

/// What a request gets whose session cannot be looked up.
pub(super) fn store_is_away(error: store::Error) -> LoginError {
    let detail = "the store cannot be reached, so no session can be checked: try again when it can";
    LoginError { detail: detail.into(), ..LoginError::of(Code::StoreFailed, error) }
}

fn log_failure(action: &str, error: Option<store::Error>) {
    if let Some(error) = error {
        tracing::warn!(action, error = %chain(&error), "cannot write a session of the dashboard");
    }
}
