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
mod callers;
pub mod health;
mod local;
mod oauth;
mod openapi;
mod outbox;
mod page;
mod paging;
mod respond;
mod routes;
mod scope;
mod sessions;
mod shape;
mod table;
mod throttling;

pub use local::TOKEN_PATH;
pub use routes::AdminSurface;
pub use table::ROUTES;

use crate::{
    audit::{Action, Entry},
    callers::{Principal, sessions::Sessions},
    config::{CALLBACK_PATH, is_callback_path},
    error_chain::chain,
    inbound::{
        fields::Fields,
        guard::{Guard, GuardRejection},
        peer::ConnectionInfo,
        request_id::{self, REQUEST_ID},
        throttle::PeerThrottle,
    },
    login::Logins,
    problem::{Code, Problem},
    proxy,
};
use access::CallerAccess;
use arguments::Arguments;
use bytes::Bytes;
use health::Health;
use http::{
    HeaderValue, Method, Request, Response, Uri,
    header::{ALLOW, CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS},
    request::Parts,
};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::Service};
use respond::Reply;
use routes::{Audience, FoundRoute, OtherRoutes, Site};
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

/// How many requests of one peer may change something without a credential, at once and after that.
const BURST: u32 = 60;
const INTERVAL: Duration = Duration::from_secs(1);

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
    /// Of requests that change something without a credential.
    throttle: PeerThrottle,
    /// Held by the one request that reads the audit log.
    audit_reader: tokio::sync::Mutex<()>,
    /// The number of the next request without an id.
    next_id: AtomicU64,
}

/// A request that its route may handle.
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
}

impl Admin {
    pub fn new(
        surface: AdminSurface,
        health: Arc<Health>,
        guard: Guard,
        logins: Logins,
        sessions: Sessions,
    ) -> Self {
        let paths = logins.engine.config().applications.values().filter_map(|application| {
            let uri: Uri = application.redirect_uri.parse().ok()?;
            Some(uri.path().to_owned()).filter(|path| is_callback_path(path))
        });
        let callbacks = paths.collect();
        let (throttle, next_id) =
            (PeerThrottle::new(BURST, INTERVAL), AtomicU64::new(request_id::first()));
        let audit_reader = Default::default();
        let state = AdminState {
            surface,
            health,
            guard,
            logins,
            callbacks,
            sessions,
            throttle,
            audit_reader,
            next_id,
        };
        Self(Arc::new(state), None)
    }

    /// The same for one connection, whose user the audit log names.
    pub fn of_connection(&self, info: &ConnectionInfo) -> Self {
        Self(self.0.clone(), Some(info.clone()))
    }

    /// Handles a request of this process.
    pub(crate) async fn respond(self, request: Request<Full<Bytes>>) -> Response<Full<Bytes>> {
        self.handle(request.map(|body| body.map_err(|never| match never {}).boxed())).await
    }

    async fn handle(self, request: Request<AdminBody>) -> Response<Full<Bytes>> {
        let id = request_id::of(&Fields::of(request.headers())).unwrap_or_else(|| self.fresh_id());
        let mut response = self.dispatch(request, &id).await;
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REQUEST_ID.clone(), id);
        response.map(Full::new)
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
        let CallerAccess { principal, scope, actor } = access;
        if matches!(self.0.surface, AdminSurface::Admin | AdminSurface::Public)
            && route.writes()
            && let Err(after) =
                self.0.throttle.take(self.1.as_ref().map(|it| it.peer.origin()), Instant::now())
        {
            let entry = Entry::new(actor, Action::RequestsIgnored).about("refused");
            // The log of the audit log itself reports a failure.
            let _ = self.0.logins.engine.audit().count(entry).await;
            return too_many(after, id);
        }
        let shown = id.to_str().unwrap_or_default();
        let theirs = request_id::of(&Fields::of(&parts.headers)).is_some();
        let own = theirs.then(|| self.fresh_id().to_str().unwrap_or_default().to_owned());
        let logins = self.0.logins.for_request(shown, own, actor);
        let (html, request_id) = (oauth::wants_html(&parts.headers), id.clone());
        let seen = scope.clone();
        let handled = async {
            let form = match parts.method {
                Method::POST => Arguments::of_body(&parts.headers, body).await?,
                _ => Arguments::default(),
            };
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
            };
            (route.handler)(call).await
        };
        handled.await.unwrap_or_else(|error| {
            let error = seen.worded(error);
            // The end of a login, which is public, is logged where it ends.
            if error.source.is_some() && route.audience != Audience::Public {
                let request_id = id.to_str().unwrap_or_default();
                tracing::error!(request_id, error = %chain(&error), "an admin request failed");
            }
            oauth::refuse(&error, html, id)
        })
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
            Site::Link | Site::LinkWith(_) => own().or_else(|_| guard.check_link(parts)),
            Site::Form => guard.check_form(parts),
        }
    }
}

impl Service<Request<Incoming>> for Admin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.handle(request.map(BodyExt::boxed)).await) })
    }
}

fn too_many(after: Duration, id: &HeaderValue) -> Reply {
    let retry_after_secs = Some(after.as_secs_f64().ceil() as u64);
    Problem { retry_after_secs, ..Code::TooManyRequests.problem() }.respond(id)
}

/// All that the public listener says of what it does not serve.
fn nothing(id: &HeaderValue) -> Reply {
    Problem { detail: "There is nothing at this path.", ..Code::NotFound.problem() }.respond(id)
}

/// Nothing is at the path, or other `methods` are.
fn no_route(methods: &str, id: &HeaderValue) -> Reply {
    if methods.is_empty() {
        let detail = "There is nothing at this path. GET / lists the paths.";
        return Problem { detail, ..Code::NotFound.problem() }.respond(id);
    }
    let detail = format!("This path takes {methods}. GET / lists the paths.");
    let problem = Problem { detail: &detail, ..Code::MethodNotAllowed.problem() };
    let mut response = problem.respond(id);
    if let Ok(methods) = HeaderValue::try_from(methods) {
        response.headers_mut().insert(ALLOW, methods);
    }
    response
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
