//! `POST /auth/o2/token`: Login with Amazon's token endpoint, its errors and its faults.
//!
//! Source: Amazon's LWA documentation (access token and authorization code grant pages) and
//! responses quoted in public issues.

use super::{
    EmulatorState,
    fault::{LwaFault, Scripted},
    form::{Form, random_uuid},
    grants::{IssuedTokens, PkceChallenge, TokenRefusal},
    response::{Emulated, Stop, With, empty, feed, json, send, send_bytes, whole},
};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::request::Parts;
use serde_json::Value;
use std::future::pending;

const OVERSIZED_BYTES: u64 = 64 * 1024 * 1024;
const INVALID_REFRESH_TOKEN: &str = "The request has an invalid grant parameter : refresh_token. \
     User may have revoked or didn't grant the permission.";

/// Responds to a token request.
pub(super) async fn token(
    state: &EmulatorState,
    parts: &Parts,
    body: &Bytes,
) -> Result<Emulated, Stop> {
    state.lwa.gate.pass().await;
    let form = read(parts, body).ok_or_else(unsupported_grant_type)?;
    let fault = state.lwa.faults.take();
    match &fault {
        Some(LwaFault::Hang) => pending::<()>().await,
        Some(LwaFault::Slow(delay)) => tokio::time::sleep(*delay).await,
        Some(LwaFault::Drop) => return Err(Stop::Hangup),
        Some(fault) => instead(fault, &form).map_or(Ok(()), |reply| Err(Stop::from(reply)))?,
        None => {}
    }
    let mut tokens = issue(state, &form)?;
    state.record.issued();
    state.lwa.answers.pass().await;
    match fault {
        Some(LwaFault::LoseAnswer) => return Err(Stop::Hangup),
        Some(LwaFault::CrlfInToken) => tokens.access.push_str("\r\nX-Injected: 1"),
        Some(LwaFault::NoToken) => tokens.access.clear(),
        _ => {}
    }
    Ok(issued(&tokens))
}

/// Responds to a revocation (RFC 7009): 200 also for a token that is not known.
pub(super) fn revoke(state: &EmulatorState, parts: &Parts, body: &Bytes) -> Emulated {
    let Some(form) = read(parts, body) else { return unsupported_grant_type() };
    let said = |name| form.get(name).unwrap_or_default();
    if !state.lwa.is_client(said("client_id"), said("client_secret")) {
        return invalid_client();
    }
    state.lwa.give_back(said("client_id"), said("token"));
    with_lwa_headers(empty(200))
}

/// Reads the parameters from a form, from JSON, and the application also from HTTP Basic.
fn read(parts: &Parts, body: &Bytes) -> Option<Form> {
    let content_type = parts.headers.get("content-type")?.to_str().ok()?;
    let mut form = match content_type.split(';').next().unwrap_or_default().trim() {
        "application/x-www-form-urlencoded" => Form::parse(std::str::from_utf8(body).ok()?),
        "application/json" => Form::parse_json(body),
        _ => return None,
    };
    let basic = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
    if let Some((id, secret)) = basic.and_then(basic_credentials) {
        form.add_missing("client_id", &id);
        form.add_missing("client_secret", &secret);
    }
    Some(form)
}

fn basic_credentials(value: &str) -> Option<(String, String)> {
    let encoded = value.strip_prefix("Basic ")?;
    let text = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    text.split_once(':').map(|(id, secret)| (id.to_owned(), secret.to_owned()))
}

fn issue(state: &EmulatorState, form: &Form) -> Result<IssuedTokens, Stop> {
    let required = |name: &str| {
        let text = format!("The request is missing a required parameter : {name}");
        form.get(name).ok_or_else(|| Stop::from(error(400, "invalid_request", &text)))
    };
    let (grant_type, client_id) = (required("grant_type")?, required("client_id")?);
    let secret = form.get("client_secret");
    // Only a code proved by PKCE can do without a secret.
    let is_public = secret.is_none() && grant_type == "authorization_code";
    let is_known = match secret {
        Some(secret) => state.lwa.is_client(client_id, secret),
        None => is_public && state.lwa.is_application(client_id),
    };
    if !is_known {
        return Err(invalid_client().into());
    }
    let outcome = match grant_type {
        "refresh_token" => state.lwa.refresh(client_id, required("refresh_token")?),
        "authorization_code" => {
            let proves = |challenge: &PkceChallenge| {
                form.get("code_verifier").is_some_and(|verifier| is_proof(verifier, challenge))
            };
            state.lwa.redeem(required("code")?, required("redirect_uri")?, proves, is_public)
        }
        _ => return Err(unsupported_grant_type().into()),
    };
    let refused = |refusal| match refusal {
        TokenRefusal::RefreshToken => invalid_grant(INVALID_REFRESH_TOKEN),
        TokenRefusal::Code => invalid_grant("The request has an invalid grant parameter : code"),
        TokenRefusal::LateCode => {
            error(400, "invalid_request", "The request has an invalid parameter : code")
        }
    };
    Ok(outcome.map_err(refused)?)
}

fn is_proof(verifier: &str, challenge: &PkceChallenge) -> bool {
    if !challenge.is_s256 {
        return verifier == challenge.value;
    }
    let hash = digest(&SHA256, verifier.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(hash.as_ref()) == challenge.value
}

/// The response that takes the place of the real one; none for faults that act elsewhere.
fn instead(fault: &LwaFault, form: &Form) -> Option<Emulated> {
    Some(match fault {
        LwaFault::InvalidGrant => invalid_grant(INVALID_REFRESH_TOKEN),
        LwaFault::InvalidClient => invalid_client(),
        LwaFault::UnsupportedGrantType => unsupported_grant_type(),
        LwaFault::UnauthorizedClient => {
            let text = "client is not authorized to use authorization codes";
            error(400, "unauthorized_client", text)
        }
        LwaFault::ServerError => {
            error(500, "ServerError", "The server encountered a runtime error")
        }
        LwaFault::Unavailable { retry_after } => {
            let page = "<html><body><h1>503 Service Unavailable</h1></body></html>";
            with_retry_after(whole(503, "text/html", page), *retry_after)
        }
        LwaFault::Throttled { retry_after } => {
            with_retry_after(error(429, "ThrottlingException", "Rate exceeded"), *retry_after)
        }
        LwaFault::Echo => {
            let said = |name| form.get(name).unwrap_or_default();
            let grant = ["refresh_token", "code", "code_verifier"].map(said).concat();
            error(400, "invalid_request", &format!("bad: {grant} {}", said("client_secret")))
        }
        LwaFault::Redirect(to) => empty(307).with("location", to),
        LwaFault::Oversized => oversized(),
        LwaFault::Answer(scripted) => self::scripted(scripted.clone()),
        LwaFault::Hang
        | LwaFault::Slow(_)
        | LwaFault::Drop
        | LwaFault::LoseAnswer
        | LwaFault::CrlfInToken
        | LwaFault::NoToken => return None,
    })
}

/// The response a test spelled out.
pub(super) fn scripted(Scripted { status, headers, body }: Scripted) -> Emulated {
    let reply = whole(status.as_u16(), "", body);
    headers.iter().fold(reply, |reply, (name, value)| reply.with(name, value))
}

pub(super) fn with_retry_after(reply: Emulated, secs: Option<u64>) -> Emulated {
    match secs {
        Some(secs) => reply.with("retry-after", &secs.to_string()),
        None => reply,
    }
}

fn issued(tokens: &IssuedTokens) -> Emulated {
    let text = |value: &str| Value::from(value).to_string();
    let fields = [
        ("access_token", Some(&tokens.access).filter(|access| !access.is_empty()).map(|a| text(a))),
        ("token_type", Some(text("bearer"))),
        ("refresh_token", tokens.refresh.as_deref().map(text)),
        // Spliced in as text: it may be a number no JSON library would write.
        ("expires_in", tokens.expires_in.clone()),
    ];
    let fields = fields.into_iter().filter_map(|(name, raw)| Some(format!("\"{name}\":{}", raw?)));
    let body = format!("{{{}}}", fields.collect::<Vec<_>>().join(","));
    with_lwa_headers(whole(200, "application/json;charset UTF-8", body))
}

fn error(status: u16, code: &str, description: &str) -> Emulated {
    let mut body = serde_json::json!({ "error_description": description, "error": code });
    if code == "invalid_grant" {
        body["request_id"] = random_uuid().into();
        body["error_index"] = "BQAAAAEAAAAgDoIA".into();
    }
    let reply = with_lwa_headers(json(status, body));
    if !code.starts_with("invalid") {
        return reply;
    }
    let kind = "OA2InvalidRequestException:http://internal.amazon.com/coral/com.amazon.panda/";
    reply.with("x-amzn-errortype", kind)
}

fn invalid_grant(description: &str) -> Emulated {
    error(400, "invalid_grant", description)
}

fn invalid_client() -> Emulated {
    error(401, "invalid_client", "Client authentication failed")
}

fn unsupported_grant_type() -> Emulated {
    let text = "The authorization grant type is not supported by the authorization server";
    error(400, "unsupported_grant_type", text)
}

fn oversized() -> Emulated {
    feed("application/json", |sender| async move {
        if send(&sender, "{\"expires_in\":3600,\"access_token\":\"Atza|").await {
            send_bytes(&sender, b'A', OVERSIZED_BYTES).await;
            send(&sender, "\"}").await;
        }
    })
}

fn with_lwa_headers(reply: Emulated) -> Emulated {
    reply
        .with("cache-control", "no-store")
        .with("pragma", "no-cache")
        .with("x-amzn-requestid", &random_uuid())
}
