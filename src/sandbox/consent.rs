//! `GET /ap/oa`: a small consent page. Picking an account sends the browser back with a code.

use super::{
    EmulatorState,
    form::{Form, encode},
    grants::PkceChallenge,
    response::{Emulated, With, empty, whole},
};
use http::Uri;

/// Shows the page, or acts on its buttons (`account=<name>` allows, `deny=1` refuses).
pub(super) fn page(state: &EmulatorState, query: &str) -> Emulated {
    let form = Form::parse(query);
    let settings = state.lwa.settings();
    let redirect_uri = form.get("redirect_uri").unwrap_or_default();
    let urls = settings.return_urls.as_ref();
    if !form.get("client_id").is_some_and(|id| state.lwa.is_application(id))
        || form.get("response_type") != Some("code")
        || !is_loopback(redirect_uri)
        || !urls.is_none_or(|urls| urls.iter().any(|url| url == redirect_uri))
    {
        // Amazon responds to a wrong return address with a page of its own and never redirects there.
        let text = "lwa-invalid-parameter-bad-redirect-uri-vendor";
        return whole(400, "text/html; charset=utf-8", text);
    }
    let asked = form.get("scope").unwrap_or_default();
    let is_unknown = |scope| !settings.scopes.iter().any(|known| known == scope);
    let refusal = if !settings.is_approved {
        Some("error=unauthorized_client&error_description=The+client+is+not+authorized")
    } else if asked.is_empty() || asked.split(' ').any(is_unknown) {
        Some("error=invalid_scope&error_description=An+unknown+scope+was+requested")
    } else {
        let denied = "error=access_denied&error_description=Access+not+permitted.";
        form.get("deny").map(|_| denied)
    };
    if let Some(refusal) = refusal {
        return back(&form, redirect_uri, refusal);
    }
    match form.get("account").filter(|account| state.lwa.grant(account).is_some()) {
        Some(account) => {
            let code = state.lwa.new_code(account, redirect_uri, challenge(&form));
            let scope = encode(settings.granted_scope.as_deref().unwrap_or(asked));
            back(&form, redirect_uri, &format!("code={code}&scope={scope}"))
        }
        None => choice(state, query),
    }
}

fn challenge(form: &Form) -> Option<PkceChallenge> {
    let value = form.get("code_challenge")?.to_owned();
    // Amazon takes a challenge without a method for a plain one.
    Some(PkceChallenge { value, is_s256: form.get("code_challenge_method") == Some("S256") })
}

fn back(form: &Form, redirect_uri: &str, what: &str) -> Emulated {
    let separator = if redirect_uri.contains('?') { '&' } else { '?' };
    let state = form.get("state").map(|state| format!("&state={}", encode(state)));
    let state = state.unwrap_or_default();
    empty(302).with("location", &format!("{redirect_uri}{separator}{what}{state}"))
}

fn choice(state: &EmulatorState, query: &str) -> Emulated {
    let query = escape(query);
    let mut page = String::from(
        "<!doctype html><meta charset=\"utf-8\"><title>Sandbox consent</title>\
         <h1>Allow access?</h1><p>You are at the sandbox's stand-in for Amazon's consent page. \
         Which Amazon user are you?</p>",
    );
    for (account, grant) in state.lwa.grants() {
        let (link, name) = (encode(&account), escape(&account));
        let profiles: Vec<_> = grant.profiles.iter().map(|one| one.id.to_string()).collect();
        let profiles = profiles.join(", ");
        page += &format!(
            "<p><a href=\"/ap/oa?{query}&amp;account={link}\">Allow as {name}</a> \
             (profiles {profiles})</p>"
        );
    }
    page += &format!("<p><a href=\"/ap/oa?{query}&amp;deny=1\">Deny</a></p>");
    whole(200, "text/html; charset=utf-8", page)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// Only loopback return addresses are registered here, so the page is no open redirect.
fn is_loopback(redirect_uri: &str) -> bool {
    redirect_uri.parse::<Uri>().is_ok_and(|uri| {
        let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
        is_web && matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"))
    })
}
