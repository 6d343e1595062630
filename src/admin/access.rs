//! Who may send a request to a route: judged before anything is looked up, so that without a
//! credential nothing tells which accounts or *operate* routes there are.

use super::{
    Admin, Visitor,
    arguments::Arguments,
    respond::Reply,
    routes::{AdminSurface, FoundRoute, Route, Site},
    scope::Scope,
};
use crate::{
    audit::{Action, Actor, ActorProof, Entry},
    callers::{
        Principal, Proof, Unauthenticated,
        credential::{self, Presented},
    },
    inbound::fields::Fields,
    problem::{Code, Problem},
};
use http::{HeaderValue, Method, header::WWW_AUTHENTICATE, request::Parts};
use std::sync::Arc;

/// What a session may do to itself.
const END_SESSION: &str = "endSession";

/// On whose behalf a request is.
pub(super) struct CallerAccess {
    /// None for a request that needs none, and on the control socket.
    pub(super) principal: Option<Arc<Principal>>,
    pub(super) scope: Scope,
    pub(super) actor: Actor,
    /// The browser that is signed in to the dashboard, on its routes.
    pub(super) visitor: Option<Arc<Visitor>>,
}

impl Admin {
    /// Finds out on whose behalf a request is; `found` is what it is for.
    ///
    /// # Errors
    /// The response to a request that may not be sent.
    pub(super) async fn access(
        &self,
        found: &FoundRoute<'_>,
        parts: &Parts,
        query: &Arguments,
        id: &HeaderValue,
    ) -> Result<CallerAccess, Reply> {
        let state = &self.0;
        if state.surface == AdminSurface::Control {
            // The system has said who the peer is, and who is none of ours was not let in.
            let uid = self.1.as_ref().and_then(|it| it.peer.uid());
            let actor = uid.map_or_else(|| state.logins.actor.clone(), Actor::cli_user);
            let (principal, scope, visitor) = (None, Scope::Every, None);
            return Ok(CallerAccess { principal, scope, actor, visitor });
        }
        #[cfg(feature = "dashboard")]
        if let Ok((route, _)) = found
            && route.audience == super::routes::Audience::Dashboard
        {
            return self.visitor_access(route, parts, id).await;
        }
        let is_open = match found {
            Ok((route, _)) => route.is_open(query),
            Err(other) => other.is_open || state.surface != AdminSurface::Admin,
        };
        if is_open {
            return Ok(self.open_access(parts).await);
        }
        let principal = match self.authenticate(parts).await {
            Ok(principal) => principal,
            Err(error) => return Err(self.refuse(error, id).await),
        };
        let route = found.as_ref().ok().map(|(route, _)| *route);
        let is_its_own = matches!((&principal.proof, found), (Proof::Session { id: own, .. }, Ok((route, id)))
            if route.operation == END_SESSION && own.as_str() == *id);
        let scope = match is_its_own {
            true => Ok(Scope::None),
            false => scope_of(&principal, route, &parts.method),
        };
        let scope = scope
            .map_err(|detail| Problem { detail, ..Code::CallerRejected.problem() }.respond(id))?;
        let actor = self.actor(&principal);
        Ok(CallerAccess { principal: Some(principal), scope, actor, visitor: None })
    }

    /// Of a request that needs no credential. A good one that it brings all the same says whose
    /// accounts it may be about.
    async fn open_access(&self, parts: &Parts) -> CallerAccess {
        let principal = self.authenticate(parts).await.ok();
        let principal = principal.filter(|it| it.is_operator() || it.tenant.is_some());
        let scope = principal.as_ref().map_or(Scope::None, |it| match &it.tenant {
            Some(tenant) => Scope::Tenant(tenant.clone()),
            None => Scope::Every,
        });
        let actor = principal.as_ref().map_or_else(Actor::unknown, |it| self.actor(it));
        CallerAccess { principal, scope, actor, visitor: None }
    }

    async fn authenticate(&self, parts: &Parts) -> Result<Arc<Principal>, Unauthenticated> {
        let (callers, fields) = (self.0.sessions.callers(), Fields::of(&parts.headers));
        let connection = self.1.as_ref().ok_or(Unauthenticated::Missing)?;
        let credential = credential::find(&parts.headers, &fields, callers.reads_tokens())?;
        let clock = self.0.logins.engine.clock();
        match credential {
            Presented::Token(token) => {
                callers.of_token(token, connection.peer.origin(), &**clock).await
            }
            other => {
                let found = callers.authenticate(other, connection, clock.now())?;
                found.ok_or(Unauthenticated::Missing)
            }
        }
    }

    /// Of a browser that has signed in to the dashboard.
    #[cfg(feature = "dashboard")]
    pub(super) async fn visitor_access(
        &self,
        route: &Route,
        parts: &Parts,
        id: &HeaderValue,
    ) -> Result<CallerAccess, Reply> {
        use super::dashboard;
        let failed = |error: &crate::login::LoginError| dashboard::failed(error, id);
        let visitor = match parts.method {
            Method::GET => self.reading_visitor(&parts.headers).await,
            _ => self.visitor(&parts.headers).await,
        };
        let visitor = match visitor {
            Ok(Some(visitor)) => visitor,
            Ok(None) => return Err(dashboard::sign_in::ask(parts, id)),
            Err(error) => return Err(failed(&error)),
        };
        let scope = match &visitor.principal {
            None => Ok(Scope::Every),
            Some(principal) => scope_of(principal, Some(route), &parts.method),
        };
        let denied = |why| failed(&crate::login::LoginError::new(Code::CallerRejected, why));
        let (scope, actor) = (scope.map_err(denied)?, visitor.actor(self));
        let principal = visitor.principal.clone();
        Ok(CallerAccess { principal, scope, actor, visitor: Some(Arc::new(visitor)) })
    }

    /// One response to all that bring no good credential.
    pub(super) async fn refuse(&self, error: Unauthenticated, id: &HeaderValue) -> Reply {
        if error == Unauthenticated::Several {
            let detail = "The request brings more than one credential. Send exactly one.";
            return Problem { detail, ..Code::BadRequest.problem() }.respond(id);
        }
        if let Unauthenticated::TooMany(after) = error {
            let detail = "This address has brought too many credentials that are not accepted. Try \
                again later.";
            let retry_after_secs = Some(after.as_secs_f64().ceil() as u64);
            let problem = Code::TooManyRequests.problem();
            return Problem { detail, retry_after_secs, ..problem }.respond(id);
        }
        if error != Unauthenticated::Missing {
            let entry = Entry::new(Actor::unknown(), Action::RequestsIgnored).about("credential");
            // The log of the audit log itself reports a failure.
            let _ = self.0.logins.engine.audit().count(entry).await;
        }
        let mut response = Code::AuthenticationRequired.problem().respond(id);
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        response
    }

    /// The principal as the audit log names it.
    pub(super) fn actor(&self, principal: &Principal) -> Actor {
        let name = &principal.caller.name;
        let proof = match &principal.proof {
            Proof::Key(id) => ActorProof::key(&format!("adsk_{id}")),
            Proof::Session { id, subject } => {
                ActorProof::session(&format!("adss_{id}"), subject.as_deref())
            }
            Proof::User(uid) => ActorProof::User { uid: *uid },
            Proof::Group(_) => {
                let uid = self.1.as_ref().and_then(|it| it.peer.uid());
                ActorProof::User { uid: uid.unwrap_or(u32::MAX) }
            }
            Proof::Certificate(name) => ActorProof::certificate(name),
            Proof::Token { subject, session } => ActorProof::jwt(name, subject, session.as_deref()),
        };
        Actor::admin(name, principal.tenant.as_ref().map(|it| it.as_str()), proof)
    }
}

/// What the principal sees on `route`; without a route it learns which ones there are.
fn scope_of(
    principal: &Principal,
    route: Option<&Route>,
    method: &Method,
) -> Result<Scope, &'static str> {
    let is_user = matches!(principal.proof, Proof::Token { .. });
    let is_users = is_user && route.is_some_and(|route| route.for_users);
    let scope = match &principal.tenant {
        _ if principal.is_operator() => Scope::Every,
        Some(tenant) if is_users || route.is_some_and(|route| route.for_tenants) => {
            Scope::Tenant(tenant.clone())
        }
        // Its sessions are no accounts.
        None if is_users => Scope::None,
        _ => {
            return Err("This caller may not do this: it is for operators (operator = true).");
        }
    };
    let reads = matches!(*method, Method::GET | Method::HEAD)
        && !route.is_some_and(|route| matches!(route.site, Site::LinkWith(_)));
    // A user's session may only read, too.
    match principal.rules.is_read_only() && !reads && !is_users {
        true => Err("This caller may only read."),
        false => Ok(scope),
    }
}
