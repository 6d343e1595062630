//! Logins over HTTP: for browsers in pages and redirects, for programs in JSON.

use super::{
    JSON,
    arguments::{Arguments, cookies},
    method_not_allowed, page, refused, respond, tokens,
};
use crate::{
    config::{CALLBACK_PATH, is_callback_path},
    id::AccountId,
    inbound::{
        fields::Fields,
        guard::{Guard, GuardRejection},
    },
    login::{Callback, Finished, LOGIN_PATH, Logins, Problem, Started, Wish},
    secret::Secret,
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, HOST, LOCATION, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE},
    request::Parts,
};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

const LOGINS_PATH: &str = "/api/auth/amazon/logins";
const LOGOUT_PATH: &str = "/api/auth/amazon/logout";

/// The OAuth part of the admin listener.
pub(super) struct Oauth {
    logins: Logins,
    guard: Arc<Guard>,
    /// Where answers come to.
    callbacks: BTreeSet<String>,
}

/// What a path is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Login,
    Callback,
    Confirm,
    Logins,
    Outcome(String),
    Logout,
    Refresh,
    TokenStatus,
}

impl Oauth {
    pub(super) fn new(logins: Logins, guard: Arc<Guard>) -> Self {
        let applications = logins.engine().config().applications.values();
        let paths = applications.filter_map(|application| {
            let uri: Uri = application.redirect_uri.parse().ok()?;
            Some(uri.path().to_owned()).filter(|path| is_callback_path(path))
        });
        let mut callbacks: BTreeSet<_> = paths.collect();
        callbacks.insert(CALLBACK_PATH.to_owned());
        Self { logins, guard, callbacks }
    }

    pub(super) fn route(&self, path: &str) -> Option<Route> {
        match path {
            LOGIN_PATH => Some(Route::Login),
            page::CONFIRM_PATH => Some(Route::Confirm),
            LOGINS_PATH => Some(Route::Logins),
            LOGOUT_PATH => Some(Route::Logout),
            "/api/auth/refresh" => Some(Route::Refresh),
            "/api/auth/token-status" => Some(Route::TokenStatus),
            path if self.callbacks.contains(path) => Some(Route::Callback),
            path => {
                let handle = path.strip_prefix(LOGINS_PATH)?.strip_prefix('/')?;
                Some(Route::Outcome(handle.to_owned()))
            }
        }
    }

    pub(super) async fn answer(
        &self,
        route: Route,
        request: Request<Incoming>,
        id: &HeaderValue,
    ) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let query = Arguments::of_form(parts.uri.query().unwrap_or_default());
        if let Err(rejected) = self.admits(&route, &parts, &query) {
            return refused(rejected);
        }
        let wanted = match route {
            Route::Confirm | Route::Logins | Route::Logout | Route::Refresh => Method::POST,
            Route::Login | Route::Callback | Route::Outcome(_) | Route::TokenStatus => Method::GET,
        };
        if parts.method != wanted {
            return method_not_allowed(if wanted == Method::POST { "POST" } else { "GET" });
        }
        let html = wants_html(&parts.headers);
        let logins = &self.logins.for_request(id.to_str().unwrap_or_default());
        let done = match route {
            Route::Login => self.login(logins, &parts, &query, html).await,
            Route::Callback => callback(logins, &parts, &query, html).await,
            Route::Confirm => confirm(logins, &parts, body, html).await,
            Route::Logins => start(logins, &parts, body).await,
            Route::Outcome(handle) => outcome(logins, &handle).await,
            Route::Logout => logout(logins, &parts, body).await,
            Route::Refresh => tokens::refresh(logins, &query, &parts, body).await,
            Route::TokenStatus => tokens::status(self.logins.engine(), &query),
        };
        done.unwrap_or_else(|problem| refuse(&problem, html))
    }

    /// Amazon's answer and links in mails come from another site; everything else must not.
    fn admits(
        &self,
        route: &Route,
        parts: &Parts,
        query: &Arguments,
    ) -> Result<(), GuardRejection> {
        let (version, uri, headers) = (parts.version, &parts.uri, &parts.headers);
        match route {
            // An empty one is none: `Oauth::login` does not take it for a link either.
            Route::Login if query.all("reconnect").iter().all(String::is_empty) => {
                self.guard.check(version, uri, &Fields::of(headers))
            }
            // An answer to a page of ours is one of a program.
            Route::Login | Route::Callback => {
                let own = self.guard.check(version, uri, &Fields::of(headers));
                own.or_else(|_| self.guard.check_link(version, uri, headers))
            }
            Route::Confirm => self.guard.check_form(version, uri, headers),
            _ => self.guard.check(version, uri, &Fields::of(headers)),
        }
    }

    /// Sends a browser to Amazon; tells a program where to send one.
    async fn login(
        &self,
        logins: &Logins,
        parts: &Parts,
        query: &Arguments,
        html: bool,
    ) -> Result<Response<Full<Bytes>>, Problem> {
        let wish = wish(query, "admin")?;
        let started = match query.one("reconnect")? {
            Some(link) => logins.begin_by_link(&wish.account, &link).await?,
            None if html && !self.is_own_host(&parts.headers, &wish).await? => {
                // The cookie must be one of the host that the browser comes back to.
                let (url, _) = logins.start_link(&wish).await?;
                return Ok(redirect(url.expose()));
            }
            None => logins.begin(&wish).await?,
        };
        let mut response = if html {
            redirect(&started.auth_url)
        } else {
            let body = json!({
                "auth_url": started.auth_url,
                "state": started.state.expose(),
                "account": wish.account.as_str(),
                "expires_in": started.expires_in.as_secs(),
            });
            respond(StatusCode::OK, JSON, body.to_string())
        };
        response.headers_mut().append(SET_COOKIE, cookie(&started)?);
        Ok(response)
    }

    /// Whether the browser asks by the host name that Amazon sends it back to.
    async fn is_own_host(&self, headers: &HeaderMap, wish: &Wish) -> Result<bool, Problem> {
        let returns = self.logins.redirect_host(wish).await?;
        let asked: Option<Uri> =
            headers.get(HOST).and_then(|host| host.to_str().ok()?.parse().ok());
        let asked = asked.as_ref().and_then(Uri::host);
        // Where the return address is none of ours, there is no better name.
        Ok(asked.is_none_or(|asked| asked.eq_ignore_ascii_case(&returns))
            || !self.guard.answers_host(&returns))
    }
}

async fn callback(
    logins: &Logins,
    parts: &Parts,
    query: &Arguments,
    html: bool,
) -> Result<Response<Full<Bytes>>, Problem> {
    let callback = Callback {
        states: query.all("state"),
        codes: query.all("code").into_iter().map(Secret::new).collect(),
        errors: query.all("error"),
        descriptions: query.all("error_description"),
        scopes: query.all("scope"),
        cookies: cookies(&parts.headers),
    };
    let spent: Vec<_> =
        callback.cookies.iter().map(|(name, _)| name.clone()).filter(|n| is_ours(n)).collect();
    let is_bound_to_one = spent.len() == 1;
    let finished = logins.finish(callback).await?;
    let mut response = match (&finished, html) {
        (Finished::Connected(connected), true) => page::connected(connected),
        (Finished::Question(question), true) => page::question(question),
        (finished, false) => respond(StatusCode::OK, JSON, as_json(finished).to_string()),
    };
    // With several logins in one browser, each cookie dies by its age.
    if let Some(name) = spent.first().filter(|_| is_bound_to_one) {
        // What it was set with, or the browser keeps it.
        let secure = if name.starts_with("__Secure-") { "; Secure" } else { "" };
        let path = cookie_path(parts.uri.path());
        let gone = format!("{name}=; Path={path}; Max-Age=0; HttpOnly; SameSite=Lax{secure}");
        let gone = HeaderValue::try_from(gone).map_err(|_| Problem::Internal)?;
        response.headers_mut().append(SET_COOKIE, gone);
    }
    Ok(response)
}

async fn confirm(
    logins: &Logins,
    parts: &Parts,
    body: Incoming,
    html: bool,
) -> Result<Response<Full<Bytes>>, Problem> {
    let form = Arguments::of_body(&parts.headers, body).await?;
    let yes = match form.one("answer")?.as_deref() {
        Some("yes") => true,
        Some("no") => false,
        _ => return Err(Problem::BadRequest("answer is yes or no".to_owned())),
    };
    let token = form.one("token")?.unwrap_or_default();
    let connected = logins.answer(&token, yes).await?;
    Ok(match (connected, html) {
        (Some(connected), true) => page::connected(&connected),
        (None, true) => page::discarded(),
        (Some(connected), false) => {
            let body = as_json(&Finished::Connected(connected));
            respond(StatusCode::OK, JSON, body.to_string())
        }
        (None, false) => respond(StatusCode::OK, JSON, r#"{"state":"discarded"}"#),
    })
}

/// Makes a link for a program that opens a browser by itself, and waits.
async fn start(
    logins: &Logins,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Full<Bytes>>, Problem> {
    let form = Arguments::of_body(&parts.headers, body).await?;
    let is_ours = form.one("origin")?.as_deref() == Some("terminal");
    let mut wish = wish(&form, if is_ours { "terminal" } else { "admin" })?;
    wish.replace = form.one("replace")?.as_deref() == Some("true");
    let (url, handle) = logins.start_link(&wish).await?;
    let expires_in = logins.engine().config().login.timeout.as_secs();
    let body = json!({
        "url": url.expose(), "login": handle.expose(), "expires_in": expires_in,
    });
    Ok(respond(StatusCode::CREATED, JSON, body.to_string()))
}

async fn outcome(logins: &Logins, handle: &str) -> Result<Response<Full<Bytes>>, Problem> {
    let outcome = logins.outcome(handle).await?;
    let outcome = outcome.ok_or(Problem::LinkUsed)?;
    Ok(respond(StatusCode::OK, JSON, outcome.to_string()))
}

async fn logout(
    logins: &Logins,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Full<Bytes>>, Problem> {
    let form = Arguments::of_body(&parts.headers, body).await?;
    let done = logins.logout(&account(&form)?).await?;
    let body = serde_json::to_string(&done).expect("it is plain JSON");
    Ok(respond(StatusCode::OK, JSON, body))
}

/// The path that a cookie for the callback at `path` has: no wider than it must be.
fn cookie_path(path: &str) -> &'static str {
    if path.starts_with("/api/auth/amazon/") { "/api/auth/amazon" } else { "/" }
}

/// The account that is named.
pub(super) fn account(arguments: &Arguments) -> Result<AccountId, Problem> {
    let alias = arguments.one("account")?.ok_or(Problem::AccountRequired)?;
    alias.parse().map_err(|error| Problem::BadRequest(format!("{error}")))
}

fn wish(arguments: &Arguments, origin: &'static str) -> Result<Wish, Problem> {
    let mut wish = Wish::new(account(arguments)?, origin);
    if let Some(region) = arguments.one("region")? {
        let region = region.parse().map_err(|error| Problem::BadRequest(format!("{error}")))?;
        wish.region = Some(region);
    }
    wish.application = arguments.one("application")?;
    Ok(wish)
}

fn is_ours(cookie: &str) -> bool {
    cookie.strip_prefix("__Secure-").unwrap_or(cookie).starts_with("adsproxy_login_")
}

fn cookie(started: &Started) -> Result<HeaderValue, Problem> {
    let (name, value) = &started.cookie;
    let secure = if started.is_https { "; Secure" } else { "" };
    let text = format!(
        "{name}={}; Path={}; Max-Age={}; HttpOnly; SameSite=Lax{secure}",
        value.expose(),
        cookie_path(&started.callback_path),
        started.expires_in.as_secs().max(1),
    );
    let mut cookie = HeaderValue::try_from(text).map_err(|_| Problem::Internal)?;
    cookie.set_sensitive(true);
    Ok(cookie)
}

fn redirect(to: &str) -> Response<Full<Bytes>> {
    let mut response = respond(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", "");
    let headers = response.headers_mut();
    if let Ok(to) = HeaderValue::try_from(to) {
        headers.insert(LOCATION, to);
    }
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

fn as_json(finished: &Finished) -> Value {
    match finished {
        Finished::Connected(connected) => {
            let mut value = serde_json::to_value(connected).expect("it is plain JSON");
            value["state"] = "connected".into();
            value
        }
        Finished::Question(question) => json!({
            "state": "question",
            "account": question.account.as_str(),
            "token": question.token.expose(),
            "before": question.before,
            "now": question.now,
        }),
    }
}

fn refuse(problem: &Problem, html: bool) -> Response<Full<Bytes>> {
    let mut response = if html {
        page::problem(problem)
    } else {
        let status = StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::BAD_REQUEST);
        let body = json!({
            "type": "about:blank", "title": problem.title(), "status": problem.status(),
            "code": problem.code(), "detail": problem.to_string(), "advice": problem.advice(),
        });
        respond(status, super::PROBLEM, body.to_string())
    };
    if problem.status() == 503 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("60"));
    }
    response
}
