//! `/_sandbox`: the switches, over HTTP, for the terminal and for CI. Everything else is in-process.

use super::{
    EmulatorState,
    fault::{self, API_FAULTS, LWA_FAULTS},
    response::{EmulatorResponse, json},
    settings::RefreshRotation,
    text::FormPairs,
};
use http::{HeaderMap, Method, header, request::Parts};
use serde_json::{Value, json};
use std::time::Duration;

/// What there is, for `GET /_sandbox` and for the banner.
pub(super) const HELP: &[(&str, &str)] = &[
    ("GET  /_sandbox", "the state as JSON"),
    ("POST /_sandbox/expire[?account=acme]", "access tokens are dead from now on"),
    ("POST /_sandbox/revoke?account=acme", "the advertiser takes the grant back"),
    (
        "POST /_sandbox/reconnect?account=acme",
        "the grant lives again, for a proxy that starts anew",
    ),
    ("POST /_sandbox/api?fault=spurious-401&times=2", "API faults; times=forever is possible"),
    ("POST /_sandbox/lwa?fault=down&times=forever", "LWA faults (retry_after=, ms=, to=)"),
    ("POST /_sandbox/clear", "no more faults"),
    ("POST /_sandbox/rotation?mode=old-dies", "or off, old-lives, old-dies-once-used"),
    ("POST /_sandbox/lifetime?secs=60", "how long new access tokens live"),
];

const NO_SWITCH: &str = "no such switch: GET /_sandbox lists them";
const NO_MODE: &str = "mode is one of off, old-lives, old-dies, old-dies-once-used";

pub(super) fn respond(state: &EmulatorState, parts: &Parts) -> EmulatorResponse {
    if !is_local(&parts.headers) {
        let body = json!({ "error": "only programs on this machine may turn the switches" });
        return json(403, body);
    }
    let switch = parts.uri.path().strip_prefix("/_sandbox").unwrap_or_default().trim_matches('/');
    let done = match (&parts.method, switch) {
        (&Method::GET, "") => Ok(()),
        (&Method::POST, _) => turn(state, switch, &FormPairs::of_query(&parts.uri)),
        _ => Err(NO_SWITCH.to_owned()),
    };
    match done {
        Ok(()) => json(200, show(state)),
        Err(text) => json(400, json!({ "error": text })),
    }
}

/// A web page that the developer looks at must not reach the switches, nor a name that was pointed
/// at this machine.
fn is_local(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_loopback = matches!(name, "" | "localhost" | "127.0.0.1" | "[::1]");
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let is_own_site = site.is_none_or(|site| site == b"none" || site == b"same-origin");
    is_loopback && is_own_site && !headers.contains_key(header::ORIGIN)
}

fn turn(state: &EmulatorState, switch: &str, query: &FormPairs) -> Result<(), String> {
    let account = query.get("account");
    let named = || account.ok_or("account is missing");
    let known = |is_known: bool| is_known.then_some(()).ok_or("no such account");
    match switch {
        "expire" => state.lwa.expire_access_tokens(account),
        "revoke" => known(state.lwa.revoke(named()?))?,
        "reconnect" => known(state.lwa.reconnect(named()?))?,
        "api" => fault::add(&state.api.faults, API_FAULTS, query)?,
        "lwa" => fault::add(&state.lwa.faults, LWA_FAULTS, query)?,
        "clear" => {
            state.api.faults.clear();
            state.lwa.faults.clear();
        }
        "rotation" => {
            let rotation = match query.get("mode") {
                Some("off") => RefreshRotation::Off,
                Some("old-lives") => RefreshRotation::OldLives,
                Some("old-dies-once-used") => RefreshRotation::OldDiesOnceUsed,
                Some("old-dies") => RefreshRotation::OldDies,
                _ => return Err(NO_MODE.to_owned()),
            };
            state.lwa.configure(|settings| settings.rotation = rotation);
        }
        "lifetime" => {
            let secs = query.number("secs").ok_or("secs is a number of seconds")?;
            state.lwa.configure(|settings| settings.token_lifetime = Duration::from_secs(secs));
        }
        _ => return Err(NO_SWITCH.to_owned()),
    }
    Ok(())
}

fn show(state: &EmulatorState) -> Value {
    let lwa = state.lwa.settings();
    let accounts = state.lwa.grants().into_iter().map(|(account, grant)| {
        let shown = json!({
            "revoked": grant.is_revoked,
            "access_tokens_issued": grant.generation,
            "profiles": grant.profiles.iter().map(|profile| profile.id).collect::<Vec<_>>(),
        });
        (account, shown)
    });
    let help: Vec<_> = HELP.iter().map(|(what, why)| format!("{what}  {why}")).collect();
    json!({
        "accounts": accounts.collect::<Value>(),
        "live_access_tokens": state.lwa.live_access_tokens(),
        "token_lifetime_secs": lwa.token_lifetime.as_secs(),
        "rotation": format!("{:?}", lwa.rotation),
        "lwa": { "faults": state.lwa.faults.describe() },
        "api": { "faults": state.api.faults.describe() },
        "counts": state.record.counts(),
        "switches": help,
        "api_faults": fault::names(API_FAULTS),
        "lwa_faults": fault::names(LWA_FAULTS),
    })
}
