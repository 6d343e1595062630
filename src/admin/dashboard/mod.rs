//! The dashboard: pages for operators and for tenants' users, rendered here, which work without script.
//!
//! A page is a file with its template beside it. Reading is a GET that changes nothing; each change is
//! a form with the token of its session, and ends in a redirect. A tenant's user gets the same pages
//! with its own accounts only: what is in sight is decided in `scope`, not here.

pub(super) mod account;
mod account_list;
pub(super) mod accounts;
pub(super) mod act;
pub(super) mod api;
pub(super) mod assets;
mod attempt;
pub(super) mod audit;
mod audit_tail;
pub(super) mod browsers;
pub(super) mod callers;
pub(super) mod check;
pub(super) mod connect;
mod cookie;
#[cfg(any(test, feature = "fuzz"))]
pub(super) mod fuzz;
pub(super) mod health;
mod history;
mod identity;
pub(super) mod live;
mod members;
pub(super) mod oidc;
mod plot;
mod profile_counts;
pub(super) mod requests;
mod rules;
mod session;
pub(super) mod sign_in;
mod tenant_audit;
mod verified;
mod visitor;
mod words;

pub(super) use live::LiveStreams;
pub(super) use visitor::Visitor;

use super::{
    AdminCall,
    arguments::Arguments,
    page::{Escaped, sentence},
    respond::{Handled, Reply, reply},
    routes::{Audience, Route},
};
use crate::{
    login::LoginError,
    problem::{Code, Problem},
    secret::Secret,
};
use askama::{Template, filters::Escaper};
use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, X_FRAME_OPTIONS},
    request::Parts,
};
use std::fmt::{self, Write};

const HOME: &str = "/dashboard";
const HTML: &str = "text/html; charset=utf-8";
/// The field of each form that holds the token of its session.
const CSRF: &str = "csrf";

/// Escapes what templates show; what could make a text look like another one is replaced.
#[derive(Debug, Clone, Copy)]
pub(super) struct Html;

impl Escaper for Html {
    fn write_escaped_str<W: Write>(&self, mut dest: W, string: &str) -> fmt::Result {
        write!(dest, "{}", Escaped(string))
    }
}

/// What surrounds each page.
struct Frame {
    title: String,
    style: &'static str,
    script: &'static str,
    icon: &'static str,
    /// None on pages for those who have not signed in.
    visitor: Option<FrameVisitor>,
    /// The page that the navigation shows as the current one.
    place: &'static str,
}

struct FrameVisitor {
    name: String,
    csrf: Secret,
}

impl FrameVisitor {
    fn csrf(&self) -> &str {
        self.csrf.expose()
    }
}

impl Frame {
    /// Of a page for those who have not signed in.
    fn bare(title: &str) -> Self {
        let assets = &*assets::ASSETS;
        Self {
            title: title.to_owned(),
            style: &assets.style.path,
            script: &assets.script.path,
            icon: &assets.icon.path,
            visitor: None,
            place: "",
        }
    }

    /// The token that a form holds.
    fn csrf(&self) -> &str {
        self.visitor.as_ref().map_or("", FrameVisitor::csrf)
    }
}

impl AdminCall {
    fn frame(&self, title: &str, place: &'static str) -> Frame {
        let visitor = self
            .visitor
            .as_ref()
            .map(|visitor| FrameVisitor { name: visitor.name(), csrf: visitor.csrf.clone() });
        Frame { visitor, place, ..Frame::bare(title) }
    }

    /// Asks for a fresh sign-in before what cannot be taken back; `next` is where to go after it.
    fn demand_fresh(&self, next: &str) -> Option<Reply> {
        let is_fresh = self.visitor.as_ref().is_some_and(|visitor| visitor.is_fresh);
        (!is_fresh).then(|| redirect(&sign_in::address(next, true)))
    }
}

/// A page.
fn page(status: StatusCode, template: &impl Template) -> Handled {
    page_with(status, template, "")
}

/// A page whose forms lead on to `origins`, too.
fn page_with(status: StatusCode, template: &impl Template, origins: &str) -> Handled {
    let body = template.render().map_err(|error| LoginError::of(Code::Internal, error))?;
    let mut response = reply(status, HTML, body);
    let policy = format!(
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
         form-action 'self'{origins}; frame-ancestors 'none'; base-uri 'none'"
    );
    let headers = response.headers_mut();
    let policy = HeaderValue::try_from(policy).map_err(|_| Code::Internal)?;
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // Not `no-referrer`: browsers then call the origin of a form `null`, and it must be ours.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    let opener = HeaderName::from_static("cross-origin-opener-policy");
    headers.insert(opener, HeaderValue::from_static("same-origin"));
    Ok(response)
}

fn redirect(to: &str) -> Reply {
    let mut response = reply(StatusCode::SEE_OTHER, HTML, String::new());
    if let Ok(to) = HeaderValue::try_from(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    frame: Frame,
    what: String,
    advice: &'static str,
    code: &'static str,
    request_id: String,
}

/// The page of a request that failed, in place of the problem document for programs.
pub(super) fn failed(error: &LoginError, request_id: &HeaderValue) -> Reply {
    let row = error.code.row();
    let title = if row.title.is_empty() { "This did not work" } else { row.title };
    let template = ErrorPage {
        frame: Frame::bare(title),
        what: sentence(&error.to_string()),
        advice: row.advice,
        code: row.code,
        request_id: request_id.to_str().unwrap_or_default().to_owned(),
    };
    let mut response = Problem { title, ..error.code.problem() }.respond(request_id);
    if let Ok(page) = page(row.status, &template) {
        *response.body_mut() = page.body().clone();
        response.headers_mut().extend(page.headers().clone());
    }
    response
}

/// The form of a request, without the token of its session, which must be right.
pub(super) fn checked_form(
    route: &Route,
    visitor: Option<&Visitor>,
    parts: &Parts,
    form: Arguments,
) -> Result<Arguments, LoginError> {
    if !route.is_of_dashboard() || parts.method != Method::POST {
        return Ok(form);
    }
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(LoginError::bad_request("this takes the form of a page only"));
    }
    if route.audience != Audience::Dashboard {
        return Ok(form);
    }
    let (form, tokens) = form.without(CSRF);
    let is_right = |visitor: &Visitor| tokens.len() == 1 && tokens[0] == visitor.csrf;
    match visitor.is_some_and(is_right) {
        true => Ok(form),
        false => Err(LoginError::new(
            Code::CallerRejected,
            "this form is none of your session: load the page again",
        )),
    }
}

/// A page that asks once before a change.
#[derive(Template)]
#[template(path = "ask.html")]
struct AskPage {
    frame: Frame,
    /// What will happen.
    what: Vec<String>,
    /// Where the form leads.
    action: String,
    /// Names and values that it holds besides.
    fields: Vec<(&'static str, String)>,
    button: &'static str,
    is_dangerous: bool,
    back: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_comes_from_elsewhere_is_escaped() {
        let error = LoginError::bad_request("<script>alert(1)</script>\"'\u{202e}");
        let page = failed(&error, &HeaderValue::from_static("id-1"));
        let text = String::from_utf8_lossy(page.body());
        assert!(
            text.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;\u{fffd}"),
            "{text}"
        );
        assert!(!text.contains("<script>"), "{text}");
    }
}
