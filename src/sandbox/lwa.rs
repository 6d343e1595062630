//! `POST /auth/o2/token` and `/auth/o2/revoke`: Login with Amazon's endpoints, errors and faults.
//!
//! Source: Amazon's LWA documentation (access token and authorization code grant pages) and
//! responses quoted in public issues.

use super::{
    EmulatorState,
    fault::LwaFault,
    grants::{INVALID_REFRESH_TOKEN, IssuedTokens, LwaError},
    response::{
        EmulatorResponse, HandlerResult, Stop, With, after, json, repeated, retry_after, scripted,
        stream, whole,
    },
    text::{FormPairs, random_uuid},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{header, request::Parts};
use std::time::Duration;

const OVERSIZED_BYTES: usize = 64 * 1024 * 1024;

const INVALID_CLIENT: LwaError = (401, "invalid_client", "Client authentication failed");
const UNSUPPORTED_GRANT_TYPE: LwaError = (
    400,
    "unsupported_grant_type",
    "The authorization grant type is not supported by the authorization server",
);

pub(super) async fn token(state: &EmulatorState, parts: &Parts, body: &Bytes) -> HandlerResult {
    state.lwa.gate.pass().await;
    let form = read(parts, body).ok_or_else(|| error(UNSUPPORTED_GRANT_TYPE))?;
    let fault = state.lwa.faults.take();
    match &fault {
        None | Some(LwaFault::LoseResponse | LwaFault::CrlfInToken | LwaFault::NoToken) => {}
        Some(LwaFault::Hang) => std::future::pending::<()>().await,
        Some(LwaFault::Slow(delay)) => tokio::time::sleep(*delay).await,
        Some(LwaFault::Drop) => return Err(Stop::HangUp),
        Some(fault) => return Ok(instead(fault, &form)),
    }
    let mut tokens = issue(state, &form)?;
    state.record.issued();
    state.lwa.responses.pass().await;
    match fault {
        Some(LwaFault::LoseResponse) => return Err(Stop::HangUp),
        Some(LwaFault::CrlfInToken) => tokens.access_token.push_str("\r\nX-Injected: 1"),
        Some(LwaFault::NoToken) => tokens.access_token.clear(),
        _ => {}
    }
    let body = serde_json::to_string(&tokens).expect("texts and raw JSON can be written");
    Ok(with_lwa_headers(whole(200, "application/json;charset UTF-8", body)))
}

/// Responds to a revocation (RFC 7009): 200 also for a token that is not known.
pub(super) fn revoke(state: &EmulatorState, parts: &Parts, body: &Bytes) -> HandlerResult {
    let form = read(parts, body).ok_or_else(|| error(UNSUPPORTED_GRANT_TYPE))?;
    let sent = |name| form.get(name).unwrap_or_default();
    if !state.lwa.is_client(sent("client_id"), Some(sent("client_secret"))) {
        return Ok(error(INVALID_CLIENT));
    }
    state.lwa.give_back(sent("client_id"), sent("token"));
    Ok(with_lwa_headers(whole(200, "", "")))
}

/// Reads the parameters from a form, from JSON, and the application also from HTTP Basic.
fn read(parts: &Parts, body: &Bytes) -> Option<FormPairs> {
    let content_type = parts.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let mut form = match content_type.split(';').next().unwrap_or_default().trim() {
        "application/x-www-form-urlencoded" => FormPairs::parse(body),
        "application/json" => FormPairs::parse_json(body),
        _ => return None,
    };
    let basic = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
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

fn issue(state: &EmulatorState, form: &FormPairs) -> Result<IssuedTokens, Stop> {
    let required = |name| {
        let text = format!("The request is missing a required parameter : {name}");
        form.get(name).ok_or_else(|| Stop::from(error((400, "invalid_request", &text))))
    };
    let (grant_type, client_id) = (required("grant_type")?, required("client_id")?);
    let secret = form.get("client_secret").unwrap_or_default();
    if !state.lwa.is_client(client_id, Some(secret)) {
        return Err(error(INVALID_CLIENT).into());
    }
    let issued = match grant_type {
        "refresh_token" => state.lwa.refresh(client_id, required("refresh_token")?),
        "authorization_code" => {
            let (code, redirect_uri) = (required("code")?, required("redirect_uri")?);
            state.lwa.redeem(code, redirect_uri, form.get("code_verifier"))
        }
        _ => Err(UNSUPPORTED_GRANT_TYPE),
    };
    Ok(issued.map_err(error)?)
}

fn instead(fault: &LwaFault, form: &FormPairs) -> EmulatorResponse {
    match fault {
        LwaFault::InvalidGrant => error(INVALID_REFRESH_TOKEN),
        LwaFault::InvalidClient => error(INVALID_CLIENT),
        LwaFault::UnsupportedGrantType => error(UNSUPPORTED_GRANT_TYPE),
        LwaFault::UnauthorizedClient => {
            let text = "client is not authorized to use authorization codes";
            error((400, "unauthorized_client", text))
        }
        LwaFault::Unavailable { retry_after: secs } => {
            let page = "<html><body><h1>503 Service Unavailable</h1></body></html>";
            retry_after(whole(503, "text/html", page), *secs)
        }
        LwaFault::Throttled { retry_after: secs } => {
            retry_after(error((429, "ThrottlingException", "Rate exceeded")), *secs)
        }
        LwaFault::Echo => {
            let sent = ["refresh_token", "code", "code_verifier", "client_secret"];
            let [refresh, code, verifier, secret] =
                sent.map(|name| form.get(name).unwrap_or_default());
            error((400, "invalid_request", &format!("bad: {refresh}{code}{verifier} {secret}")))
        }
        LwaFault::Redirect(to) => whole(307, "", "").with("location", to),
        LwaFault::Oversized => {
            let start = after(Duration::ZERO, "{\"expires_in\":3600,\"access_token\":\"Atza|");
            let end = after(Duration::ZERO, "\"}");
            let frames = [start].into_iter().chain(repeated(b'A', OVERSIZED_BYTES)).chain([end]);
            stream("application/json", frames)
        }
        LwaFault::Respond(script) => scripted(script),
        // The others do not come here.
        _ => error((500, "ServerError", "The server encountered a runtime error")),
    }
}

fn error((status, code, description): LwaError) -> EmulatorResponse {
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

fn with_lwa_headers(reply: EmulatorResponse) -> EmulatorResponse {
    let reply = reply.with("cache-control", "no-store").with("pragma", "no-cache");
    reply.with("x-amzn-requestid", &random_uuid())
}
