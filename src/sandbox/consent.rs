//! `GET /ap/oa`: a small consent page. Picking an account sends the browser back with a code.

use super::{
    State,
    answer::{Body, set, whole},
    form::{Form, encode},
    grants::Challenge,
};
use bytes::Bytes;
use http::{Response, StatusCode, Uri, header};
use std::fmt::Write;

/// Shows the page, or acts on its buttons (`account=<name>` allows, `deny=1` refuses).
pub(super) fn page(state: &State, query: &str) -> Response<Body> {
    let form = Form::parse(query);
    let redirect_uri = form.get("redirect_uri").unwrap_or_default();
    if !form.get("client_id").is_some_and(|id| state.lwa.is_application(id))
        || form.get("response_type") != Some("code")
        || !is_loopback(redirect_uri)
    {
        // Amazon answers a wrong return address with a page of its own and never redirects there.
        let text = "lwa-invalid-parameter-bad-redirect-uri-vendor";
        return whole(StatusCode::BAD_REQUEST, "text/html; charset=utf-8", text);
    }
    if form.get("deny").is_some() {
        let denied = "error=access_denied&error_description=Access+not+permitted.";
        return back(&form, redirect_uri, denied);
    }
    match form.get("account").filter(|account| state.lwa.grant(account).is_some()) {
        Some(account) => {
            let code = state.lwa.new_code(account, redirect_uri, challenge(&form));
            let scope = encode(form.get("scope").unwrap_or_default());
            back(&form, redirect_uri, &format!("code={code}&scope={scope}"))
        }
        None => choice(state, query),
    }
}

fn challenge(form: &Form) -> Option<Challenge> {
    let value = form.get("code_challenge")?.to_owned();
    // Amazon takes a challenge without a method for a plain one.
    Some(Challenge { value, is_s256: form.get("code_challenge_method") == Some("S256") })
}

fn back(form: &Form, redirect_uri: &str, what: &str) -> Response<Body> {
    let separator = if redirect_uri.contains('?') { '&' } else { '?' };
    let mut place = format!("{redirect_uri}{separator}{what}");
    if let Some(state) = form.get("state") {
        write!(place, "&state={}", encode(state)).expect("writing to a String cannot fail");
    }
    let mut response = whole(StatusCode::FOUND, "", Bytes::new());
    set(&mut response, header::LOCATION, &place);
    response
}

fn choice(state: &State, query: &str) -> Response<Body> {
    let query = query.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let mut page =
        String::from("<!doctype html><title>Sandbox consent</title><h1>Allow access?</h1>");
    for account in state.lwa.grants().keys() {
        let link = encode(account);
        write!(page, "<p><a href=\"/ap/oa?{query}&amp;account={link}\">Allow as {link}</a></p>")
            .expect("writing to a String cannot fail");
    }
    write!(page, "<p><a href=\"/ap/oa?{query}&amp;deny=1\">Deny</a></p>")
        .expect("writing to a String cannot fail");
    whole(StatusCode::OK, "text/html; charset=utf-8", page)
}

/// Only loopback return addresses are registered here, so the page is no open redirect.
fn is_loopback(redirect_uri: &str) -> bool {
    redirect_uri.parse::<Uri>().is_ok_and(|uri| {
        let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
        is_web && matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"))
    })
}
