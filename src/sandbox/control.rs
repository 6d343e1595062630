//! `/_sandbox`: the switches, over HTTP, for people and for CI. Everything else is in-process.

use super::{
    EmulatorState,
    fault::{self, API_FAULTS, LWA_FAULTS},
    form::Form,
    gate::Gate,
    response::{Emulated, json},
    settings::Rotation,
};
use http::{HeaderMap, request::Parts};
use serde_json::{Value, json};
use std::time::Duration;

/// What there is, for `GET /_sandbox` and for the printed help.
pub const HELP: &[(&str, &str)] = &[
    ("GET  /_sandbox", "the state as JSON"),
    ("POST /_sandbox/expire[?account=acme]", "access tokens are dead from now on"),
    ("POST /_sandbox/revoke?account=acme", "the advertiser takes the grant back"),
    (
        "POST /_sandbox/reconnect?account=acme",
        "the grant lives again, for a proxy that starts anew",
    ),
    ("POST /_sandbox/api?fault=spurious-401&times=2", "API faults; times=forever is possible"),
    ("POST /_sandbox/lwa?fault=down&times=forever", "LWA faults (retry_after=, ms=, to=)"),
    ("POST /_sandbox/clear", "no more faults, gates open"),
    (
        "POST /_sandbox/rotation?mode=old-dies",
        "or off, old-lives, old-dies-once-used, old-dies-after",
    ),
    ("POST /_sandbox/lifetime?secs=60", "how long new access tokens live"),
    ("POST /_sandbox/hold?gate=lwa", "parks requests: gate=lwa or gate=api"),
    ("POST /_sandbox/release?gate=lwa", "lets them go on"),
];

/// Responds to a control request.
pub(super) fn respond(state: &EmulatorState, parts: &Parts) -> Emulated {
    if !is_local(&parts.headers) {
        let text = "only programs on this machine may turn the switches";
        return json(403, json!({ "error": text }));
    }
    let path: Vec<_> = parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let query = Form::parse(parts.uri.query().unwrap_or_default());
    let done = match (parts.method.as_str(), path.as_slice()) {
        ("GET", ["_sandbox"]) => Ok(()),
        ("POST", ["_sandbox", switch]) => turn(state, switch, &query),
        _ => Err("no such switch: GET /_sandbox lists them".to_owned()),
    };
    match done {
        Ok(()) => json(200, show(state)),
        Err(text) => json(400, json!({ "error": text })),
    }
}

/// A web page the developer looks at must not reach the switches, nor a name that was pointed at
/// this machine.
fn is_local(headers: &HeaderMap) -> bool {
    let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_loopback = matches!(name, "" | "localhost" | "127.0.0.1" | "[::1]");
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let is_own_site = site.is_none_or(|site| site == b"none" || site == b"same-origin");
    is_loopback && is_own_site && !headers.contains_key("origin")
}

fn turn(state: &EmulatorState, switch: &str, query: &Form) -> Result<(), String> {
    let account = query.get("account");
    let named = || account.ok_or_else(|| "account is missing".to_owned());
    match switch {
        "expire" => state.lwa.expire_access_tokens(account),
        "revoke" => known(state.lwa.revoke(named()?))?,
        "reconnect" => known(state.lwa.reconnect(named()?))?,
        "api" => fault::add(&state.api.faults, API_FAULTS, query)?,
        "lwa" => fault::add(&state.lwa.faults, LWA_FAULTS, query)?,
        "clear" => {
            state.api.faults.clear();
            state.lwa.faults.clear();
            state.api.gate.release();
            state.lwa.gate.release();
        }
        "rotation" => {
            let rotation = rotation(query)?;
            state.lwa.configure(|settings| settings.rotation = rotation);
        }
        "lifetime" => {
            let secs = query.get("secs").and_then(|secs| secs.parse().ok());
            let lifetime = Duration::from_secs(secs.ok_or("secs is a number of seconds")?);
            state.lwa.configure(|settings| settings.token_lifetime = lifetime);
        }
        "hold" => gate(state, query)?.hold(),
        "release" => gate(state, query)?.release(),
        _ => return Err("no such switch: GET /_sandbox lists them".to_owned()),
    }
    Ok(())
}

fn known(is_known: bool) -> Result<(), String> {
    if is_known { Ok(()) } else { Err("no such account".to_owned()) }
}

fn rotation(query: &Form) -> Result<Rotation, String> {
    Ok(match query.get("mode") {
        Some("off") => Rotation::Off,
        Some("old-lives") => Rotation::OldLives,
        Some("old-dies-once-used") => Rotation::OldDiesOnceUsed,
        Some("old-dies") => Rotation::OldDies,
        Some("old-dies-after") => {
            Rotation::OldDiesAfter(Duration::from_secs(query.number("secs", 60)))
        }
        _ => {
            let modes = "off, old-lives, old-dies, old-dies-once-used, old-dies-after (secs=60)";
            return Err(format!("mode is one of {modes}"));
        }
    })
}

fn gate<'a>(state: &'a EmulatorState, query: &Form) -> Result<&'a Gate, String> {
    match query.get("gate") {
        Some("lwa") => Ok(&state.lwa.gate),
        Some("api") => Ok(&state.api.gate),
        _ => Err("gate is one of lwa, api".to_owned()),
    }
}

fn show(state: &EmulatorState) -> Value {
    let lwa = state.lwa.settings();
    let accounts = state.lwa.grants().into_iter().map(|(account, grant)| {
        let profiles: Vec<_> = grant.profiles.iter().map(|profile| profile.id).collect();
        let shown = json!({
            "revoked": grant.is_revoked,
            "access_tokens_issued": grant.generation,
            "profiles": profiles,
        });
        (account, shown)
    });
    let help: Vec<_> = HELP.iter().map(|(what, why)| format!("{what}  {why}")).collect();
    json!({
        "accounts": accounts.collect::<serde_json::Map<_, _>>(),
        "live_access_tokens": state.lwa.live_access_tokens(),
        "token_lifetime_secs": lwa.token_lifetime.as_secs(),
        "rotation": format!("{:?}", lwa.rotation),
        "lwa": { "faults": state.lwa.faults.describe(), "waiting": state.lwa.gate.waiting() },
        "api": { "faults": state.api.faults.describe(), "waiting": state.api.gate.waiting() },
        "counts": state.record.counts(),
        "switches": help,
        "api_faults": fault::names(API_FAULTS),
        "lwa_faults": fault::names(LWA_FAULTS),
    })
}
