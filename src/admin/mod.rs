//! The admin and health listeners and the control socket: health, metrics, accounts, logins.
//!
//! `routes` is the table of all that is served; each listener serves the audiences it may. The
//! health listener may have any address (the kubelet asks the pod's) and serves health and metrics
//! only, which change nothing; the admin listener is guarded against browsers on other sites.

mod access;
mod accounts;
mod arguments;
mod audit_log;
mod bodies;
mod caller_bodies;
mod callers;
#[cfg(feature = "dashboard")]
mod dashboard;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod health;
mod languages;
mod local;
mod oauth;
mod openapi;
mod outbox;
mod page;
mod paging;
pub mod reload;
mod requests;
mod respond;
mod routes;
mod scope;
mod sessions;
mod shape;
mod table;
mod throttling;
mod writers;

pub use local::{TOKEN_PATH, describe_server};
pub use routes::AdminSurface;
pub use table::ROUTES;

use crate::{
    audit::{Action, Actor, Entry},
    callers::{Principal, sessions::Sessions},
    config::{CALLBACK_PATH, is_callback_path},
    error_chain::chain,
    inbound::{
        fields::Fields,
        guard::{Guard, GuardRejection},
        peer::ConnectionInfo,
        request_id::{self, REQUEST_ID},
    },
    login::{LoginError, Logins},
    problem::{Code, Problem},
    proxy,
};
use access::CallerAccess;
use arguments::Arguments;
use bytes::Bytes;
use health::Health;
use http::{
    HeaderValue, Method, Request, Response, Uri,
    header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS},
    request::Parts,
};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Body, service::Service};
use languages::Words;
use respond::{Reply, ReplyBody, no_route, nothing};
use routes::{Audience, FoundRoute, OtherRoutes, Route, Site};
use scope::Scope;
use std::{
    collections::BTreeSet,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use writers::{ChangeParty, Writers};

#[cfg(feature = "dashboard")]
use dashboard::{LiveStreams, Visitor};
/// There is no dashboard to sign in to.
#[cfg(not(feature = "dashboard"))]
type Visitor = Infallible;

type AdminBody = BoxBody<Bytes, hyper::Error>;

/// The service of one listener, or of one of its connections. Cheap to clone.
#[derive(Clone)]
pub struct Admin(Arc<AdminState>, Option<ConnectionInfo>);

struct AdminState {
    surface: AdminSurface,
    health: Arc<Health>,
    /// The hosts and sites that the admin listener serves.
    guard: Guard,
    logins: Logins,
    /// The paths of the configured return addresses.
    callbacks: BTreeSet<String>,
    sessions: Sessions,
    writers: Writers,
    /// Held by the one request that reads the audit log.
    audit_reader: tokio::sync::Mutex<()>,
    /// The number of the next request without an id.
    next_id: AtomicU64,
    #[cfg(feature = "dashboard")]
    live: LiveStreams,
}

/// A request that its route may handle.
#[derive(Clone)]
struct AdminCall {
    admin: Admin,
    logins: Logins,
    parts: Parts,
    query: Arguments,
    form: Arguments,
    /// The segment that matches `{id}`.
    segment: String,
    /// Whether it is a browser's.
    html: bool,
    request_id: HeaderValue,
    /// Who sends it, where it needs a credential.
    principal: Option<Arc<Principal>>,
    scope: Scope,
    /// The browser that is signed in to the dashboard, on its routes.
    #[cfg(feature = "dashboard")]
    visitor: Option<Arc<Visitor>>,
}

impl Admin {
    pub fn new(
        surface: AdminSurface,
        health: Arc<Health>,
        guard: Guard,
        logins: Logins,
        sessions: Sessions,
    ) -> Self {
        let config = logins.engine.config();
        let paths = config.applications.values().filter_map(|application| {
            let uri: Uri = application.redirect_uri.parse().ok()?;
            Some(uri.path().to_owned()).filter(|path| is_callback_path(path))
        });
        let callbacks = paths.collect();
        let (writers, next_id) = (Writers::new(), AtomicU64::new(request_id::first()));
        let audit_reader = Default::default();
        let state = AdminState {
            surface,
            health,
            guard,
            logins,
            callbacks,
            sessions,
            writers,
            audit_reader,
            next_id,
            #[cfg(feature = "dashboard")]
            live: LiveStreams::default(),
        };
        Self(Arc::new(state), None)
    }

    /// The same for one connection, whose user the audit log names.
    pub fn of_connection(&self, info: &ConnectionInfo) -> Self {
        Self(self.0.clone(), Some(info.clone()))
    }

    /// Handles a request of this process.
    pub(crate) async fn respond(self, request: Request<Full<Bytes>>) -> Response<ReplyBody> {
        self.handle(request.map(|body| body.map_err(|never| match never {}).boxed())).await
    }

    async fn handle(self, request: Request<AdminBody>) -> Response<ReplyBody> {
        let id = request_id::of(&Fields::of(request.headers())).unwrap_or_else(|| self.fresh_id());
        let mut response = self.dispatch(request, &id).await;
        let headers = response.headers_mut();
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REQUEST_ID.clone(), id);
        respond::sent(response)
    }

    fn fresh_id(&self) -> HeaderValue {
        request_id::fresh(self.0.next_id.fetch_add(1, Relaxed))
    }

    async fn dispatch(self, request: Request<AdminBody>, id: &HeaderValue) -> Reply {
        let (parts, body) = request.into_parts();
        let query = Arguments::of_form(parts.uri.query().unwrap_or_default());
        let path = match parts.uri.path() {
            path if self.0.callbacks.contains(path) => CALLBACK_PATH,
            path => path,
        };
        let found = self.find(&parts.method, path, &query);
        let site = found.as_ref().map_or(Site::Own, |(route, _)| route.site);
        if let Err(rejection) = self.check_site(site, &parts, &query) {
            let rejection = proxy::Error::Guard(rejection, None);
            let detail = rejection.public_text();
            return Problem { detail, ..Code::CallerRejected.problem() }.respond(id);
        }
        let access = match self.access(&found, &parts, &query, id).await {
            Ok(access) => access,
            Err(refusal) => return refusal,
        };
        let (route, segment) = match found {
            Ok((route, segment)) => (route, segment.to_owned()),
            Err(_) if self.0.surface == AdminSurface::Public => return nothing(id),
            Err(OtherRoutes { methods, .. }) => return no_route(&methods, id),
        };
        let CallerAccess { principal, scope, actor, visitor } = access;
        let writer = self.writer(route, principal.as_deref(), &query);
        let allowed = match (&writer, &principal) {
            (Some(writer), _) => self.0.writers.begin(writer, Instant::now()),
            (None, Some(reader)) => self.0.writers.read(reader, Instant::now()),
            (None, None) => Ok(()),
        };
        if let Err(after) = allowed {
            return self.too_many(actor, after, id).await;
        }
        let shown = id.to_str().unwrap_or_default();
        let theirs = request_id::of(&Fields::of(&parts.headers)).is_some();
        let own = theirs.then(|| self.fresh_id().to_str().unwrap_or_default().to_owned());
        let logins = self.0.logins.for_request(shown, own, actor);
        let (html, request_id) = (oauth::wants_html(&parts.headers), id.clone());
        let words = html.then(|| Words::of(&parts.headers));
        let (seen, this) = (scope.clone(), self.clone());
        let handled = async {
            let form = form_of(route, visitor.as_deref(), &parts, body).await?;
            let call = AdminCall {
                admin: self,
                logins,
                parts,
                query,
                form,
                segment,
                html,
                request_id,
                principal,
                scope,
                #[cfg(feature = "dashboard")]
                visitor,
            };
            route.handle(call).await
        };
        let response = handled.await.unwrap_or_else(|error| {
            let error = seen.worded(error);
            log_failure(route, &error, id);
            refuse(route, &error, words, id)
        });
        this.charge(writer, response, id).await
    }

    /// Charges a request that is over; the response to it.
    async fn charge(
        &self,
        writer: Option<ChangeParty>,
        response: Reply,
        id: &HeaderValue,
    ) -> Reply {
        let Some(writer) = writer else { return response };
        let origin = self.1.as_ref().map(|it| it.peer.origin());
        match self.0.writers.end(writer, origin, response.status(), Instant::now()) {
            Ok(()) => response,
            // A link names no person.
            Err(after) => self.too_many(Actor::unknown(), after, id).await,
        }
    }

    /// Who is charged for a request, where changes are limited.
    fn writer(
        &self,
        route: &Route,
        principal: Option<&Principal>,
        query: &Arguments,
    ) -> Option<ChangeParty> {
        let is_limited = matches!(self.0.surface, AdminSurface::Admin | AdminSurface::Public);
        let link = match route.site {
            Site::LinkWith(argument) => query.all(argument).concat(),
            _ => String::new(),
        };
        (is_limited && route.writes()).then(|| ChangeParty::of(principal, &link))
    }

    async fn too_many(&self, actor: Actor, after: Duration, id: &HeaderValue) -> Reply {
        let entry = Entry::new(actor, Action::RequestsIgnored).about("refused");
        // The log of the audit log itself reports a failure.
        let _ = self.0.logins.engine.audit().count(entry).await;
        let retry_after_secs = Some(after.as_secs_f64().ceil() as u64);
        Problem { retry_after_secs, ..Code::TooManyRequests.problem() }.respond(id)
    }

    /// The route of a request. On the public listener a route that a link leads to is there only for
    /// who has the link.
    fn find<'p>(&self, method: &Method, path: &'p str, query: &Arguments) -> FoundRoute<'p> {
        let found = routes::find(ROUTES, self.0.surface, method, path)?;
        match found.0.site {
            Site::LinkWith(argument)
                if self.0.surface == AdminSurface::Public
                    && query.all(argument).iter().all(String::is_empty) =>
            {
                Err(OtherRoutes::default())
            }
            _ => Ok(found),
        }
    }

    /// Amazon's response to a login and links in mails come from another site; other requests
    /// must not.
    fn check_site(
        &self,
        site: Site,
        parts: &Parts,
        query: &Arguments,
    ) -> Result<(), GuardRejection> {
        if matches!(self.0.surface, AdminSurface::Health | AdminSurface::Control) {
            return Ok(());
        }
        let guard = &self.0.guard;
        let own = || guard.check(parts, &Fields::of(&parts.headers));
        match site {
            Site::Own => own(),
            Site::LinkWith(argument) if query.all(argument).iter().all(String::is_empty) => own(),
            // A request from a page of this listener is one of a program.
            Site::Link | Site::LinkWith(_) | Site::Page => {
                own().or_else(|_| guard.check_link(parts))
            }
            Site::Form => guard.check_form(parts),
            Site::OwnForm => guard.check_own_form(parts),
        }
    }
}

impl<B> Service<Request<B>> for Admin
where
    B: Body<Data = Bytes, Error = hyper::Error> + Send + Sync + 'static,
{
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.handle(request.map(BodyExt::boxed)).await) })
    }
}

/// What a request says in its body; of a form of the dashboard, whose session it is is checked.
async fn form_of(
    route: &Route,
    visitor: Option<&Visitor>,
    parts: &Parts,
    body: AdminBody,
) -> Result<Arguments, LoginError> {
    let form = match parts.method {
        Method::POST => Arguments::of_body(&parts.headers, body).await?,
        _ => Arguments::default(),
    };
    #[cfg(feature = "dashboard")]
    let form = dashboard::checked_form(route, visitor, parts, form)?;
    #[cfg(not(feature = "dashboard"))]
    let _ = (route, visitor);
    Ok(form)
}

fn log_failure(route: &Route, error: &LoginError, id: &HeaderValue) {
    // The end of a login, which is public, is logged where it ends.
    if error.source.is_some() && route.audience != Audience::Public {
        let request_id = id.to_str().unwrap_or_default();
        tracing::error!(request_id, error = %chain(error), "an admin request failed");
    }
}

/// The response to a request that failed.
fn refuse(route: &Route, error: &LoginError, words: Option<&Words>, id: &HeaderValue) -> Reply {
    #[cfg(feature = "dashboard")]
    if route.is_of_dashboard() {
        return dashboard::failed(error, id);
    }
    #[cfg(not(feature = "dashboard"))]
    let _ = route;
    oauth::refuse(error, words, id)
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
