//! The admin and health listeners and the control socket: who is well, what happened, which
//! accounts there are.
//!
//! `routes` is the table of all that is served; each listener serves the audiences it may. The
//! health listener may have any address (the kubelet asks the pod's) and serves health and metrics
//! only, which change nothing; the admin listener is guarded against browsers on other sites.

mod accounts;
mod arguments;
pub mod health;
mod local;
mod oauth;
mod page;
mod respond;
mod routes;
mod throttle;
mod tokens;

pub use local::TOKEN_PATH;
pub use routes::route_docs;

use crate::{
    audit::{Action, Actor, Entry},
    config::{CALLBACK_PATH, is_callback_path},
    inbound::{
        fields::Fields,
        guard::{Guard, GuardRejection},
        peer::Peer,
        request_id::{self, REQUEST_ID},
    },
    login::Logins,
    metrics::{Accounts, Metrics},
};
use arguments::Arguments;
use bytes::Bytes;
use health::Health;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header::ALLOW, request::Parts};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Body, service::Service};
use respond::{Document, Reply, problem};
use routes::{Found, Handler, ROUTES, Site, Surface};
use std::{
    collections::BTreeSet,
    convert::Infallible,
    fmt,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use throttle::{Throttle, Unreported};

const REPORT_INTERVAL: Duration = Duration::from_secs(60);

type RequestBody = BoxBody<Bytes, BrokenBody>;

/// The rest of a request's body cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the body broke off")]
pub(crate) struct BrokenBody;

/// What both listeners show.
#[derive(Clone)]
pub struct Sources {
    /// Readiness and its checks.
    pub health: Arc<Health>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The accounts.
    pub accounts: Arc<dyn Accounts>,
}

/// The service of one listener, or of one of its connections. Cheap to clone.
#[derive(Clone)]
pub struct Admin(Arc<Shared>, Option<Peer>);

struct Shared {
    surface: Surface,
    sources: Sources,
    guard: Guard,
    /// Present where accounts can be connected.
    logins: Option<Logins>,
    /// The paths of the configured return addresses.
    callbacks: BTreeSet<String>,
    throttle: Throttle,
    /// The number of the next request without an id.
    next_id: AtomicU64,
}

/// A request that its route may handle.
pub(crate) struct Call {
    admin: Admin,
    logins: Logins,
    parts: Parts,
    query: Arguments,
    body: RequestBody,
    /// The segment that stands for `{id}`.
    id: String,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("surface", &self.0.surface).finish_non_exhaustive()
    }
}

impl Admin {
    /// The admin listener's service, for callers that `guard` accepts; connects accounts by
    /// `logins`.
    #[must_use]
    pub fn guarded(sources: Sources, guard: Guard, logins: Option<Logins>) -> Self {
        Self::new(Surface::Admin, sources, guard, logins)
    }

    /// The health listener's service: any Host, health and metrics only.
    #[must_use]
    pub fn health(sources: Sources) -> Self {
        Self::new(Surface::Health, sources, Guard::default(), None)
    }

    /// The control socket's service: every route, for peers that the listener has let in.
    #[must_use]
    pub fn control(sources: Sources, logins: Logins) -> Self {
        Self::new(Surface::Control, sources, Guard::default(), Some(logins))
    }

    /// The same for a connection of `peer`, whose user the audit log names.
    #[must_use]
    pub fn of_peer(&self, peer: Peer) -> Self {
        Self(self.0.clone(), Some(peer))
    }

    /// Records once a minute, until dropped, how many requests changed nothing: an entry for each
    /// would push others out of the audit log.
    pub async fn run_reports(&self) {
        let Some(logins) = &self.0.logins else { return };
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            let Unreported { refused, idle } = self.0.throttle.report();
            for (count, about) in [(refused, "refused"), (idle, "idle_refresh")] {
                if count > 0 {
                    let entry = Entry::new(Actor::admin(None), Action::RequestsIgnored);
                    // The log of the audit log itself reports a failure.
                    let _ = logins.engine.audit().write(entry.count(count).about(about)).await;
                }
            }
        }
    }

    fn new(surface: Surface, sources: Sources, guard: Guard, logins: Option<Logins>) -> Self {
        let applications =
            logins.iter().flat_map(|logins| logins.engine.config().applications.values());
        let paths = applications.filter_map(|application| {
            let uri: Uri = application.redirect_uri.parse().ok()?;
            Some(uri.path().to_owned()).filter(|path| is_callback_path(path))
        });
        let callbacks = paths.collect();
        let (throttle, next_id) = (Throttle::default(), AtomicU64::new(request_id::first()));
        Self(
            Arc::new(Shared { surface, sources, guard, logins, callbacks, throttle, next_id }),
            None,
        )
    }

    /// Handles one request.
    pub async fn handle<B>(self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Send + Sync + 'static,
    {
        let id = request_id::of(&Fields::of(request.headers()))
            .unwrap_or_else(|| request_id::fresh(self.0.next_id.fetch_add(1, Relaxed)));
        let response = self.dispatch(request, &id).await;
        respond::with_request_id(response, REQUEST_ID.clone(), id)
    }

    async fn dispatch<B>(self, request: Request<B>, id: &HeaderValue) -> Reply
    where
        B: Body<Data = Bytes> + Send + Sync + 'static,
    {
        let (parts, body) = request.into_parts();
        let query = parts.uri.query().unwrap_or_default();
        let arguments = Arguments::of_form(query);
        let path = match parts.uri.path() {
            path if self.0.callbacks.contains(path) => CALLBACK_PATH,
            path => path,
        };
        let found = routes::find(ROUTES, self.0.surface, &parts.method, path);
        if let Err(rejected) = self.accepts(&found, &parts, &arguments) {
            return problem(StatusCode::FORBIDDEN, "caller_rejected", &rejected.to_string());
        }
        let (route, segment) = match found {
            Found::Route(route, segment) => (route, segment),
            Found::OtherMethod(methods) => return method_not_allowed(&methods),
            Found::Nothing => return not_found(),
        };
        if self.0.surface == Surface::Admin
            && route.writes_unauthenticated()
            && let Err(after) = self.0.throttle.take(self.address(), Instant::now())
        {
            return too_many(after);
        }
        let act = match (route.handler, &self.0.logins) {
            (Handler::Show(show), _) => return show(&self.0.sources, query),
            (Handler::Act(act), Some(logins)) => {
                let uid = self.1.as_ref().and_then(Peer::uid);
                let actor = uid.map_or_else(|| logins.actor.clone(), Actor::cli_user);
                (act, logins.for_request(id.to_str().unwrap_or_default(), actor))
            }
            (Handler::Act(_), None) => return not_found(),
        };
        let (act, logins) = act;
        let html = oauth::wants_html(&parts.headers);
        let body = body.map_err(|_| BrokenBody).boxed();
        let call = Call { admin: self, logins, parts, query: arguments, body, id: segment };
        act(call).await.unwrap_or_else(|error| oauth::refuse(&error, html))
    }

    fn address(&self) -> Option<IpAddr> {
        match self.1 {
            Some(Peer::Tcp(address)) => Some(address.ip()),
            Some(Peer::Unix(_)) | None => None,
        }
    }

    /// Amazon's response to a login and links in mails come from another site; other requests
    /// must not.
    fn accepts(
        &self,
        found: &Found,
        parts: &Parts,
        query: &Arguments,
    ) -> Result<(), GuardRejection> {
        if self.0.surface != Surface::Admin {
            return Ok(());
        }
        let (guard, version) = (&self.0.guard, parts.version);
        let (uri, headers) = (&parts.uri, &parts.headers);
        let own = || guard.check(version, uri, &Fields::of(headers));
        let site = match found {
            Found::Route(route, _) => route.site,
            Found::OtherMethod(_) | Found::Nothing => Site::Own,
        };
        match site {
            Site::LinkWith(argument) if query.all(argument).iter().all(String::is_empty) => own(),
            // A request from a page of this listener is one of a program.
            Site::Link | Site::LinkWith(_) => {
                own().or_else(|_| guard.check_link(version, uri, headers))
            }
            Site::Form => guard.check_form(version, uri, headers),
            Site::Own => own(),
        }
    }
}

impl<B> Service<Request<B>> for Admin
where
    B: Body<Data = Bytes> + Send + Sync + 'static,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.handle(request).await) })
    }
}

fn too_many(after: Duration) -> Reply {
    let document = Document {
        status: StatusCode::TOO_MANY_REQUESTS,
        code: "too_many_requests",
        detail: "this address has changed things too often; try again later, or use the commands \
                 of adsproxy, which have no such limit",
        retry_after_secs: Some(after.as_secs_f64().ceil() as u64),
        ..Document::default()
    };
    document.respond()
}

fn not_found() -> Reply {
    problem(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path; / lists the paths")
}

fn method_not_allowed(methods: &str) -> Reply {
    let detail = format!("this path takes {methods}");
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &detail);
    if let Ok(methods) = HeaderValue::try_from(methods) {
        response.headers_mut().insert(ALLOW, methods);
    }
    response
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
