//! The admin and health listeners: who is well, what happened, which accounts there are.
//!
//! A handful of paths, so a `match` instead of a framework. The health listener may stand on any
//! address (the kubelet asks the pod's) and serves health and metrics only, which change nothing;
//! the admin listener serves more, logins among it, and is guarded against browsers on other sites.

mod arguments;
pub mod health;
mod oauth;
mod page;
mod serve;
mod tokens;

pub use serve::serve;

use crate::{
    inbound::{
        fields::Fields,
        guard::{Guard, GuardRejection},
        request_id::{self, REQUEST_ID},
    },
    login::Logins,
    metrics::{AccountStatus, Accounts, Metrics},
};
use bytes::Bytes;
use health::Health;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};
use http_body_util::Full;
use hyper::{body::Incoming, service::Service};
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

const INDEX: &str = "adsproxy\n\n\
    /livez     the process runs\n\
    /readyz    requests are wanted (?verbose lists the checks)\n\
    /startupz  start-up is over\n\
    /healthz   the same as /readyz\n\
    /metrics   for Prometheus\n\
    /status    accounts and their tokens, JSON\n\n\
    GET  /api/auth/amazon/login?account=   begins a login: a redirect for browsers, else JSON\n\
    POST /api/auth/amazon/logins           a link that begins one, for {\"account\": ...}\n\
    GET  /api/auth/amazon/callback         where Amazon's answer comes to\n\
    POST /api/auth/refresh                 a new access token for {\"account\": ...}\n\
    GET  /api/auth/token-status?account=   how long the token lives\n";

/// Answers one path; given the query string.
type Handler = fn(&Admin, &str) -> Response<Full<Bytes>>;

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

/// The service of one of the two listeners.
#[derive(Clone)]
pub struct Admin {
    sources: Sources,
    /// Present on the admin listener.
    guard: Option<Arc<Guard>>,
    /// Present where accounts can be connected.
    oauth: Option<Arc<oauth::Oauth>>,
    /// The number of the next request without an id.
    next_id: Arc<AtomicU64>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("guard", &self.guard).finish_non_exhaustive()
    }
}

impl Admin {
    /// The admin listener's service: everything, for callers that `guard` accepts.
    #[must_use]
    pub fn guarded(sources: Sources, guard: Guard) -> Self {
        Self::new(sources, Some(Arc::new(guard)))
    }

    /// The health listener's service: any Host, health and metrics only.
    #[must_use]
    pub fn health(sources: Sources) -> Self {
        Self::new(sources, None)
    }

    fn new(sources: Sources, guard: Option<Arc<Guard>>) -> Self {
        let next_id = Arc::new(AtomicU64::new(request_id::first()));
        Self { sources, guard, oauth: None, next_id }
    }

    /// Connects accounts, too; on the guarded listener only.
    #[must_use]
    pub fn with_logins(mut self, logins: Logins) -> Self {
        if let Some(guard) = &self.guard {
            self.oauth = Some(Arc::new(oauth::Oauth::new(logins, guard.clone())));
        }
        self
    }

    async fn handle(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let id = request_id::of(&Fields::of(request.headers()))
            .unwrap_or_else(|| request_id::fresh(self.next_id.fetch_add(1, Relaxed)));
        let path = request.uri().path();
        let route = self.oauth.as_ref().and_then(|oauth| Some((oauth.clone(), oauth.route(path)?)));
        let mut response = match route {
            Some((oauth, route)) => oauth.answer(route, request, &id).await,
            None => self.answer(&request),
        };
        response.headers_mut().insert(REQUEST_ID.clone(), id);
        response
    }

    /// Answers a request; its body does not matter.
    #[must_use]
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if let Some(guard) = &self.guard
            && let Err(rejected) =
                guard.check(request.version(), request.uri(), &Fields::of(request.headers()))
        {
            return refused(rejected);
        }
        let Some(answer) = self.route(request.uri().path()) else {
            return problem(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path");
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return method_not_allowed("GET, HEAD");
        }
        answer(self, request.uri().query().unwrap_or_default())
    }

    fn route(&self, path: &str) -> Option<Handler> {
        match path {
            "/livez" => Some(|_, _| state(true)),
            "/startupz" => Some(|this, _| state(this.sources.health.has_started())),
            "/readyz" | "/healthz" => Some(Self::ready),
            "/metrics" => Some(|this, _| {
                let page = this.sources.metrics.render(&*this.sources.accounts);
                respond(StatusCode::OK, PROMETHEUS, page)
            }),
            "/status" if self.guard.is_some() => Some(|this, _| {
                respond(StatusCode::OK, JSON, status(&this.sources.accounts.accounts()))
            }),
            "/" if self.guard.is_some() => Some(|_, _| respond(StatusCode::OK, TEXT, INDEX)),
            _ => None,
        }
    }

    fn ready(&self, query: &str) -> Response<Full<Bytes>> {
        let (ready, report) = self.sources.health.report();
        let asked = |part: &str| part.split('=').next() == Some("verbose");
        if query.split('&').any(asked) {
            return respond(state_code(ready), TEXT, report);
        }
        state(ready)
    }
}

impl Service<Request<Incoming>> for Admin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.handle(request).await) })
    }
}

fn refused(rejected: GuardRejection) -> Response<Full<Bytes>> {
    problem(StatusCode::FORBIDDEN, "caller_rejected", &rejected.to_string())
}

fn method_not_allowed(allowed: &'static str) -> Response<Full<Bytes>> {
    let detail = format!("only {} is answered", allowed.replace(", ", " and "));
    let mut refusal = problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &detail);
    refusal.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    refusal
}

fn status(accounts: &[AccountStatus]) -> String {
    let accounts: Vec<Value> = accounts
        .iter()
        .map(|status| {
            json!({
                "account": status.account.as_str(),
                "state": status.state,
                "region": status.region.as_str(),
                "application": status.application,
                "expires_in_secs": status.expires_in.map(|left| left.as_secs()),
                "generation": status.generation,
                "last_error": status.last_error,
                "reauthorization_required": status.reauthorization_required,
                "consent_days_left": status.consent_days_left,
                "unsaved": status.is_unsaved,
            })
        })
        .collect();
    let degraded = accounts.iter().any(|account| account["unsaved"] == true);
    let store = if degraded { "degraded" } else { "ok" };
    json!({ "version": env!("CARGO_PKG_VERSION"), "store": store, "accounts": accounts })
        .to_string()
}

fn state_code(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn state(good: bool) -> Response<Full<Bytes>> {
    respond(state_code(good), TEXT, if good { "ok\n" } else { "not ok\n" })
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Response<Full<Bytes>> {
    let title = status.canonical_reason().unwrap_or_default();
    let body = json!({
        "type": "about:blank", "title": title, "status": status.as_u16(),
        "code": code, "detail": detail,
    });
    respond(status, PROBLEM, body.to_string())
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
