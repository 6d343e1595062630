//! `GET /ap/oa`: a small consent page. Picking an account sends the browser back with a code.

use super::{
    EmulatorState,
    response::{EmulatorResponse, With, whole},
    text::{FormPairs, encode, escape},
};
use http::Uri;

const SCOPES: [&str; 5] = [
    "advertising::campaign_management",
    "cpc_advertising:campaign_management",
    "advertising::audiences",
    "advertising::test:create_account",
    "profile",
];

/// Shows the page, or acts on its buttons (`account=<name>` allows, `deny=1` refuses).
pub(super) fn page(state: &EmulatorState, uri: &Uri) -> EmulatorResponse {
    let form = FormPairs::of_query(uri);
    let settings = state.lwa.settings();
    let redirect_uri = form.get("redirect_uri").unwrap_or_default();
    let is_registered = |urls: &Vec<String>| urls.iter().any(|url| url == redirect_uri);
    if !form.get("client_id").is_some_and(|id| state.lwa.is_client(id, None))
        || form.get("response_type") != Some("code")
        || !is_loopback(redirect_uri)
        || !settings.return_urls.as_ref().is_none_or(is_registered)
    {
        // Amazon responds to a wrong return address with a page of its own and never redirects there.
        let text = "lwa-invalid-parameter-bad-redirect-uri-vendor";
        return whole(400, "text/html; charset=utf-8", text);
    }
    let asked = form.get("scope").unwrap_or_default();
    let result = if !settings.is_approved {
        "error=unauthorized_client&error_description=The+client+is+not+authorized".to_owned()
    } else if asked.split(' ').any(|scope| !SCOPES.contains(&scope)) {
        "error=invalid_scope&error_description=An+unknown+scope+was+requested".to_owned()
    } else if form.get("deny").is_some() {
        "error=access_denied&error_description=Access+not+permitted.".to_owned()
    } else if let Some(account) = form.get("account").filter(|a| state.lwa.grant(a).is_some()) {
        let challenge = form.get("code_challenge").map(str::to_owned);
        let code = state.lwa.new_code(account, redirect_uri, challenge);
        let scope = encode(settings.granted_scope.as_deref().unwrap_or(asked));
        format!("code={code}&scope={scope}")
    } else {
        return choice(state, uri.query().unwrap_or_default());
    };
    back(&form, redirect_uri, &result)
}

fn back(form: &FormPairs, redirect_uri: &str, result: &str) -> EmulatorResponse {
    let separator = if redirect_uri.contains('?') { '&' } else { '?' };
    let state = form.get("state").map_or_else(String::new, |s| format!("&state={}", encode(s)));
    whole(302, "", "").with("location", &format!("{redirect_uri}{separator}{result}{state}"))
}

fn choice(state: &EmulatorState, query: &str) -> EmulatorResponse {
    let query = escape(query);
    let mut page = String::from(
        "<!doctype html><meta charset=\"utf-8\"><title>Sandbox consent</title>\
         <h1>Allow access?</h1><p>You are at the sandbox's stand-in for Amazon's consent page. \
         Which Amazon user are you?</p>",
    );
    for (account, grant) in state.lwa.grants() {
        let (link, name) = (encode(&account), escape(&account));
        let profiles: Vec<_> = grant.profiles.iter().map(|p| p.id.to_string()).collect();
        page += &format!(
            "<p><a href=\"/ap/oa?{query}&amp;account={link}\">Allow as {name}</a> \
             (profiles {})</p>",
            profiles.join(", ")
        );
    }
    page += &format!("<p><a href=\"/ap/oa?{query}&amp;deny=1\">Deny</a></p>");
    whole(200, "text/html; charset=utf-8", page)
}

/// Only loopback return addresses are registered here, so the page is no open redirect.
fn is_loopback(redirect_uri: &str) -> bool {
    redirect_uri.parse::<Uri>().is_ok_and(|uri| {
        let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
        is_web && matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"))
    })
}
