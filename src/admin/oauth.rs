//! Logins over HTTP: for browsers in pages and redirects, for programs in JSON.

use super::{
    AdminCall,
    arguments::{Arguments, cookies},
    bodies::{LinkBody, LoginBegun},
    languages::Words,
    page,
    respond::{Handled, Reply, text},
    shape::Shape,
};
use crate::{
    id::AccountId,
    login::{Callback, LoginError, LoginOutcome, LoginRequest, ReconnectRequest, is_login_cookie},
    problem::{Code, Problem},
};
use http::{
    HeaderMap, HeaderValue, StatusCode, Uri,
    header::{ACCEPT, HOST, LOCATION, REFERRER_POLICY, SET_COOKIE},
};
use serde_json::json;

/// A login begins, for an account that need not exist yet.
pub(super) fn begins(shape: Shape) -> Shape {
    let codes = [
        Code::AccountRequired,
        Code::LinkUsed,
        Code::RedirectPortTaken,
        Code::TooManyLogins,
        Code::ConfigurationChanged,
    ];
    shape.fails(&codes).of_account().writes()
}

/// A login ends, as Amazon or a person decided.
pub(super) fn ends(shape: Shape) -> Shape {
    let codes = [
        Code::StateMissing,
        Code::ParameterDoubled,
        Code::StateUnknown,
        Code::StateExpired,
        Code::OtherBrowser,
        Code::ConfigurationChanged,
        Code::AccessDenied,
        Code::RedirectUriMismatch,
        Code::ScopeUnknown,
        Code::ScopeMissing,
        Code::NotApproved,
        Code::NothingCameBack,
        Code::TooLate,
        Code::UsedAlready,
        Code::AmazonFailed,
        Code::LwaTimeout,
        Code::LwaUnavailable,
        Code::LwaInvalidResponse,
        Code::QuestionGone,
        Code::AccountChanged,
    ];
    shape.fails(&codes).writes()
}

/// Sends a browser to Amazon; gives a program the address to open.
pub(super) async fn login(call: AdminCall) -> Handled {
    let (logins, html) = (&call.logins, call.html);
    let (account, request) = login_request(&call, &call.query, "admin")?;
    let started = match call.query.one("reconnect")? {
        // A browser that only follows the link begins nothing yet.
        Some(link) if html && !call.query.flag("continue")?.unwrap_or(false) => {
            match logins.reconnect_request(&account, &link).await? {
                Some(request) => return Ok(ask_to_reconnect(&call, &request)),
                None => logins.begin_by_link(&account, &link).await?,
            }
        }
        Some(link) => logins.begin_by_link(&account, &link).await?,
        None if html && !is_own_host(&call, &account, &request).await? => {
            // The cookie must be one of the host that the browser comes back to.
            let (url, _) =
                logins.link(&account, &request, logins.engine.config().login.timeout).await?;
            return Ok(redirect(url.expose()));
        }
        None => logins.begin(&account, &request, None).await?,
    };
    let mut response = if html {
        redirect(&started.auth_url)
    } else {
        call.json(&LoginBegun {
            auth_url: started.auth_url,
            state: started.state.expose().to_owned(),
            account: account.to_string(),
            expires_in: started.expires_in.as_secs(),
        })
    };
    let (name, value) = &started.cookie;
    let max_age = started.expires_in.as_secs().max(1);
    let cookie = set_cookie(name, value.expose(), started.redirect_uri.path(), max_age)?;
    response.headers_mut().append(SET_COOKIE, cookie);
    Ok(response)
}

/// The page whose button begins the login of a reconnect link.
fn ask_to_reconnect(call: &AdminCall, request: &ReconnectRequest) -> Reply {
    let query = call.parts.uri.query().unwrap_or_default();
    let go_on = format!("{}?{query}&continue=true", call.parts.uri.path());
    page::reconnect(request, &go_on, Words::of(&call.parts.headers))
}

/// Whether the browser uses the host name that Amazon sends it back to.
async fn is_own_host(
    call: &AdminCall,
    account: &AccountId,
    request: &LoginRequest,
) -> Result<bool, LoginError> {
    let returns = call.logins.redirect_host(account, request).await?;
    let host = call.parts.headers.get(HOST);
    let used: Option<Uri> = host.and_then(|host| host.to_str().ok()?.parse().ok());
    let used = used.as_ref().and_then(Uri::host);
    // Where the return address is none of ours, there is no better name.
    Ok(used.is_none_or(|used| used.eq_ignore_ascii_case(&returns))
        || !call.admin.0.guard.answers_host(&returns))
}

pub(super) async fn callback(call: AdminCall) -> Handled {
    let cookies = cookies(&call.parts.headers);
    let names = cookies.iter().map(|(name, _)| name.clone());
    let spent: Vec<String> = names.filter(|name| is_login_cookie(name)).collect();
    let callback = Callback { arguments: call.query.pairs(), cookies };
    let mut response = show(&call, &call.logins.finish(callback).await?).await;
    // With several logins in one browser, each cookie dies by its age.
    if let [name] = spent.as_slice() {
        // With the attributes it was set with, or the browser keeps it.
        response.headers_mut().append(SET_COOKIE, set_cookie(name, "", call.parts.uri.path(), 0)?);
    }
    Ok(response)
}

pub(super) async fn confirm(call: AdminCall) -> Handled {
    let form = &call.form;
    let yes = match form.one("answer")?.as_deref() {
        Some("yes") => true,
        Some("no") => false,
        _ => return Err(LoginError::bad_request("answer is yes or no")),
    };
    let token = form.one("token")?.unwrap_or_default();
    let outcome = call.logins.answer(&token, yes, |account| call.may_finish(account)).await?;
    Ok(show(&call, &outcome).await)
}

async fn show(call: &AdminCall, outcome: &LoginOutcome) -> Reply {
    if !call.html {
        return call.json(outcome);
    }
    #[cfg(feature = "dashboard")]
    let visitor = call.admin.visitor(&call.parts.headers).await;
    #[cfg(feature = "dashboard")]
    let has_dashboard = visitor.is_ok_and(|visitor| visitor.is_some());
    #[cfg(not(feature = "dashboard"))]
    let has_dashboard = false;
    page::outcome(outcome, Words::of(&call.parts.headers), has_dashboard)
}

/// Makes a link for a program that opens a browser by itself, and waits.
pub(super) async fn start(call: AdminCall) -> Handled {
    let form = &call.form;
    let is_terminal = form.one("origin")?.as_deref() == Some("terminal");
    let origin = if is_terminal { "terminal" } else { "admin" };
    let (account, mut request) = login_request(&call, form, origin)?;
    request.replace = form.flag("replace")?.unwrap_or(false);
    let lifetime = call.logins.engine.config().login.timeout;
    let (url, handle) = call.logins.link(&account, &request, lifetime).await?;
    let body = LinkBody {
        url: url.expose().to_owned(),
        login: handle.expose().to_owned(),
        expires_in: lifetime.as_secs(),
    };
    Ok(call.json_with(StatusCode::CREATED, &body))
}

pub(super) async fn outcome(call: AdminCall) -> Handled {
    let outcome = call.logins.outcome(&call.segment).await?;
    let outcome = outcome.filter(|(account, _)| call.may_finish(account));
    Ok(call.json(&outcome.ok_or(Code::LinkUsed)?.1))
}

pub(super) async fn logout(call: AdminCall) -> Handled {
    Ok(call.json(&call.logins.logout(&call.id_in(&call.form)?).await?))
}

pub(super) fn login_request(
    call: &AdminCall,
    arguments: &Arguments,
    origin: &str,
) -> Result<(AccountId, LoginRequest), LoginError> {
    let (account, application) = (call.id_in(arguments)?, arguments.one("application")?);
    if call.is_of_tenant() && application.is_some() {
        // The others are the operator's, each with rights and limits of its own at Amazon.
        return Err(LoginError::bad_request("the operator chooses the application: name none"));
    }
    let region = arguments.one("region")?.map(|region| region.parse()).transpose();
    let request = LoginRequest {
        region: region.map_err(LoginError::bad_request)?,
        application,
        replace: false,
        origin: origin.to_owned(),
    };
    Ok((account, request))
}

/// A cookie for the callback at `path`, no wider than it must be.
fn set_cookie(
    name: &str,
    value: &str,
    path: &str,
    max_age_secs: u64,
) -> Result<HeaderValue, LoginError> {
    let path = if path.starts_with("/api/auth/amazon/") { "/api/auth/amazon" } else { "/" };
    let secure = if name.starts_with("__Secure-") { "; Secure" } else { "" };
    let cookie = format!(
        "{name}={value}; Path={path}; Max-Age={max_age_secs}; HttpOnly; SameSite=Lax{secure}"
    );
    let mut cookie = HeaderValue::try_from(cookie).map_err(|_| Code::Internal)?;
    cookie.set_sensitive(true);
    Ok(cookie)
}

fn redirect(to: &str) -> Reply {
    let mut response = text(StatusCode::SEE_OTHER, "");
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

/// The response to a request that failed; a page in the language of `words`, where there are any.
pub(super) fn refuse(error: &LoginError, words: Option<&Words>, request_id: &HeaderValue) -> Reply {
    let row = error.code.row();
    let problem = Problem {
        title: row.title,
        detail: &error.to_string(),
        retry_after_secs: (row.status == StatusCode::SERVICE_UNAVAILABLE).then_some(60),
        more: Some(json!({ "advice": row.advice })),
        ..error.code.problem()
    };
    let (status, mut response) = (problem.status, problem.respond(request_id));
    if let Some(words) = words {
        let page = page::error(error, status, words);
        *response.body_mut() = page.body().clone();
        response.headers_mut().extend(page.headers().clone());
    }
    response
}
