//! Logins over HTTP: for browsers in pages and redirects, for programs in JSON.

use super::{
    Call,
    arguments::{Arguments, cookies},
    page,
    respond::{Document, Reply, json as json_response, text},
};
use crate::{
    id::AccountId,
    login::{Callback, Finished, Problem, Started, Wish},
    secret::Secret,
};
use http::{
    HeaderMap, HeaderValue, StatusCode, Uri,
    header::{ACCEPT, HOST, LOCATION, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE},
};
use serde_json::{Value, json};

/// Sends a browser to Amazon; gives a program the address to open.
pub(super) async fn login(call: Call) -> Result<Reply, Problem> {
    let (logins, html) = (&call.logins, wants_html(&call.parts.headers));
    let wish = wish(&call.query, "admin")?;
    let started = match call.query.one("reconnect")? {
        Some(link) => logins.begin_by_link(&wish.account, &link).await?,
        None if html && !is_own_host(&call, &wish).await? => {
            // The cookie must be one of the host that the browser comes back to.
            let (url, _) = logins.start_link(&wish).await?;
            return Ok(redirect(url.expose()));
        }
        None => logins.begin(&wish).await?,
    };
    let mut response = if html {
        redirect(&started.auth_url)
    } else {
        json_response(&json!({
            "auth_url": started.auth_url,
            "state": started.state.expose(),
            "account": wish.account.as_str(),
            "expires_in": started.expires_in.as_secs(),
        }))
    };
    response.headers_mut().append(SET_COOKIE, cookie(&started)?);
    Ok(response)
}

/// Whether the browser uses the host name that Amazon sends it back to.
async fn is_own_host(call: &Call, wish: &Wish) -> Result<bool, Problem> {
    let returns = call.logins.redirect_host(wish).await?;
    let host = call.parts.headers.get(HOST);
    let used: Option<Uri> = host.and_then(|host| host.to_str().ok()?.parse().ok());
    let used = used.as_ref().and_then(Uri::host);
    // Where the return address is none of ours, there is no better name.
    Ok(used.is_none_or(|used| used.eq_ignore_ascii_case(&returns))
        || !call.admin.0.guard.answers_host(&returns))
}

pub(super) async fn callback(call: Call) -> Result<Reply, Problem> {
    let Call { logins, parts, query, .. } = call;
    let html = wants_html(&parts.headers);
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
        (finished, false) => json_response(&as_json(finished)),
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

pub(super) async fn confirm(call: Call) -> Result<Reply, Problem> {
    let Call { logins, parts, body, .. } = call;
    let html = wants_html(&parts.headers);
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
        (Some(connected), false) => json_response(&as_json(&Finished::Connected(connected))),
        (None, false) => json_response(&json!({ "state": "discarded" })),
    })
}

/// Makes a link for a program that opens a browser by itself, and waits.
pub(super) async fn start(call: Call) -> Result<Reply, Problem> {
    let Call { logins, parts, body, .. } = call;
    let form = Arguments::of_body(&parts.headers, body).await?;
    let is_ours = form.one("origin")?.as_deref() == Some("terminal");
    let mut wish = wish(&form, if is_ours { "terminal" } else { "admin" })?;
    wish.replace = form.one("replace")?.as_deref() == Some("true");
    let (url, handle) = logins.start_link(&wish).await?;
    let expires_in = logins.engine().config().login.timeout.as_secs();
    let mut response = json_response(&json!({
        "url": url.expose(), "login": handle.expose(), "expires_in": expires_in,
    }));
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

pub(super) async fn outcome(call: Call) -> Result<Reply, Problem> {
    let outcome = call.logins.outcome(&call.id).await?;
    Ok(json_response(&outcome.ok_or(Problem::LinkUsed)?))
}

pub(super) async fn logout(call: Call) -> Result<Reply, Problem> {
    let form = Arguments::of_body(&call.parts.headers, call.body).await?;
    let done = call.logins.logout(&account(&form)?).await?;
    Ok(json_response(&serde_json::to_value(done).expect("it is plain JSON")))
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

fn redirect(to: &str) -> Reply {
    let mut response = text("");
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    if let Ok(to) = HeaderValue::try_from(to) {
        headers.insert(LOCATION, to);
    }
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

pub(super) fn wants_html(headers: &HeaderMap) -> bool {
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

pub(super) fn refuse(problem: &Problem, html: bool) -> Reply {
    let retry_after_secs = (problem.status() == 503).then_some(60);
    if html {
        let mut response = page::problem(problem);
        if let Some(seconds) = retry_after_secs {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        return response;
    }
    let document = Document {
        status: StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::BAD_REQUEST),
        code: problem.code(),
        title: problem.title(),
        detail: &problem.to_string(),
        more: Some(json!({ "advice": problem.advice() })),
        retry_after_secs,
    };
    document.respond()
}
