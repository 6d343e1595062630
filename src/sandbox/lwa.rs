//! `POST /auth/o2/token`: Login with Amazon's token endpoint, its errors and its faults.
//!
//! Source: Amazon's LWA documentation (access token and authorization code grant pages) and
//! responses quoted in public issues.

use super::{
    State,
    fault::{LwaFault, Scripted},
    form::{Form, random_uuid},
    grants::{Challenge, TokenRejection, Tokens},
    response::{Body, HandlerResult, Hangup, json, send_bytes, set, whole},
};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{HeaderName, Response, StatusCode, header, request::Parts};
use http_body::Frame;
use serde_json::Value;

const OVERSIZED_BYTES: u64 = 64 * 1024 * 1024;
const INVALID_REFRESH_TOKEN: &str = "The request has an invalid grant parameter : refresh_token. \
     User may have revoked or didn't grant the permission.";

/// Responds to a token request.
pub(super) async fn token(state: &State, parts: &Parts, body: &Bytes) -> HandlerResult {
    state.lwa.gate.pass().await;
    let Some(form) = read(parts, body) else { return Ok(unsupported_grant_type()) };
    let fault = state.lwa.faults.take();
    match &fault {
        Some(LwaFault::Hang) => std::future::pending::<()>().await,
        Some(LwaFault::Slow(delay)) => tokio::time::sleep(*delay).await,
        Some(LwaFault::Drop) => return Err(Hangup),
        Some(fault) => {
            if let Some(response) = instead(fault, &form) {
                return Ok(response);
            }
        }
        None => {}
    }
    let mut tokens = match issue(state, &form) {
        Ok(tokens) => tokens,
        Err(response) => return Ok(*response),
    };
    state.record.issued();
    state.lwa.answers.pass().await;
    match fault {
        Some(LwaFault::LoseAnswer) => return Err(Hangup),
        Some(LwaFault::CrlfInToken) => tokens.access.push_str("\r\nX-Injected: 1"),
        Some(LwaFault::NoToken) => tokens.access.clear(),
        _ => {}
    }
    Ok(issued(&tokens))
}

/// Responds to a revocation (RFC 7009): 200 also for a token that is not known.
pub(super) fn revoke(state: &State, parts: &Parts, body: &Bytes) -> Response<Body> {
    let Some(form) = read(parts, body) else { return unsupported_grant_type() };
    let said = |name| form.get(name).unwrap_or_default();
    if !state.lwa.is_client(said("client_id"), said("client_secret")) {
        return invalid_client();
    }
    state.lwa.give_back(said("client_id"), said("token"));
    with_lwa_headers(whole(StatusCode::OK, "", Bytes::new()))
}

/// Reads the parameters from a form, from JSON, and the application also from HTTP Basic.
fn read(parts: &Parts, body: &Bytes) -> Option<Form> {
    let content_type = parts.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let mut form = match media_type {
        "application/x-www-form-urlencoded" => Form::parse(std::str::from_utf8(body).ok()?),
        "application/json" => Form::parse_json(body),
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

fn issue(state: &State, form: &Form) -> Result<Tokens, Box<Response<Body>>> {
    let required = |name| form.get(name).ok_or_else(|| Box::new(missing(name)));
    let refused = |refused| {
        Box::new(match refused {
            TokenRejection::Client => invalid_client(),
            TokenRejection::RefreshToken => invalid_grant(INVALID_REFRESH_TOKEN),
            TokenRejection::Code => {
                invalid_grant("The request has an invalid grant parameter : code")
            }
            TokenRejection::LateCode => {
                let text = "The request has an invalid parameter : code";
                error(StatusCode::BAD_REQUEST, "invalid_request", text)
            }
        })
    };
    let grant_type = required("grant_type")?;
    let client_id = required("client_id")?;
    let secret = form.get("client_secret");
    // Only a code proved by PKCE can do without a secret.
    let is_public = secret.is_none() && grant_type == "authorization_code";
    let is_known = match secret {
        Some(secret) => state.lwa.is_client(client_id, secret),
        None => is_public && state.lwa.is_application(client_id),
    };
    if !is_known {
        return Err(refused(TokenRejection::Client));
    }
    match grant_type {
        "refresh_token" => {
            state.lwa.refresh(client_id, required("refresh_token")?).map_err(refused)
        }
        "authorization_code" => {
            let (code, redirect_uri) = (required("code")?, required("redirect_uri")?);
            let proves = |challenge: &Challenge| is_proof(form.get("code_verifier"), challenge);
            state.lwa.redeem(code, redirect_uri, proves, is_public).map_err(refused)
        }
        _ => Err(Box::new(unsupported_grant_type())),
    }
}

fn is_proof(verifier: Option<&str>, challenge: &Challenge) -> bool {
    verifier.is_some_and(|verifier| {
        if challenge.is_s256 {
            let hash = digest(&SHA256, verifier.as_bytes());
            BASE64_URL_SAFE_NO_PAD.encode(hash.as_ref()) == challenge.value
        } else {
            verifier == challenge.value
        }
    })
}

/// The response that takes the place of the real one; none for faults that act elsewhere.
fn instead(fault: &LwaFault, form: &Form) -> Option<Response<Body>> {
    Some(match fault {
        LwaFault::InvalidGrant => invalid_grant(INVALID_REFRESH_TOKEN),
        LwaFault::InvalidClient => invalid_client(),
        LwaFault::UnsupportedGrantType => unsupported_grant_type(),
        LwaFault::UnauthorizedClient => error(
            StatusCode::BAD_REQUEST,
            "unauthorized_client",
            "client is not authorized to use authorization codes",
        ),
        LwaFault::ServerError => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "ServerError",
            "The server encountered a runtime error",
        ),
        LwaFault::Unavailable { retry_after } => unavailable(*retry_after),
        LwaFault::Throttled { retry_after } => {
            let status = StatusCode::TOO_MANY_REQUESTS;
            with_retry_after(error(status, "ThrottlingException", "Rate exceeded"), *retry_after)
        }
        LwaFault::Echo => {
            let said = |name| form.get(name).unwrap_or_default();
            let text = format!(
                "bad: {}{}{} {}",
                said("refresh_token"),
                said("code"),
                said("code_verifier"),
                said("client_secret")
            );
            error(StatusCode::BAD_REQUEST, "invalid_request", &text)
        }
        LwaFault::Redirect(to) => {
            let mut response = whole(StatusCode::TEMPORARY_REDIRECT, "", Bytes::new());
            set(&mut response, header::LOCATION, to);
            response
        }
        LwaFault::Oversized => oversized(),
        LwaFault::Answer(scripted) => self::scripted(scripted),
        LwaFault::Hang
        | LwaFault::Slow(_)
        | LwaFault::Drop
        | LwaFault::LoseAnswer
        | LwaFault::CrlfInToken
        | LwaFault::NoToken => return None,
    })
}

/// The response a test spelled out.
pub(super) fn scripted(scripted: &Scripted) -> Response<Body> {
    let mut response = whole(scripted.status, "", scripted.body.clone());
    for (name, value) in &scripted.headers {
        if let Ok(name) = HeaderName::try_from(name.as_str()) {
            set(&mut response, name, value);
        }
    }
    response
}

/// Adds `Retry-After`, if there is one.
pub(super) fn with_retry_after(mut response: Response<Body>, secs: Option<u64>) -> Response<Body> {
    if let Some(secs) = secs {
        set(&mut response, header::RETRY_AFTER, &secs.to_string());
    }
    response
}

fn issued(tokens: &Tokens) -> Response<Body> {
    let text = |value: &str| Value::from(value).to_string();
    let mut fields = vec![("token_type", text("bearer"))];
    if !tokens.access.is_empty() {
        fields.insert(0, ("access_token", text(&tokens.access)));
    }
    if let Some(refresh) = &tokens.refresh {
        fields.push(("refresh_token", text(refresh)));
    }
    // Spliced in as text: it may be a number no JSON library would write.
    if let Some(expires_in) = &tokens.expires_in {
        fields.push(("expires_in", expires_in.clone()));
    }
    let fields: Vec<_> = fields.iter().map(|(name, raw)| format!("\"{name}\":{raw}")).collect();
    let body = format!("{{{}}}", fields.join(","));
    with_lwa_headers(whole(StatusCode::OK, "application/json;charset UTF-8", body))
}

fn error(status: StatusCode, code: &str, description: &str) -> Response<Body> {
    let mut body = serde_json::json!({ "error_description": description, "error": code });
    if code == "invalid_grant" {
        body["request_id"] = random_uuid().into();
        body["error_index"] = "BQAAAAEAAAAgDoIA".into();
    }
    let mut response = with_lwa_headers(json(status, &body));
    if code.starts_with("invalid") {
        let kind = "OA2InvalidRequestException:http://internal.amazon.com/coral/com.amazon.panda/";
        set(&mut response, HeaderName::from_static("x-amzn-errortype"), kind);
    }
    response
}

fn invalid_grant(description: &str) -> Response<Body> {
    error(StatusCode::BAD_REQUEST, "invalid_grant", description)
}

fn invalid_client() -> Response<Body> {
    error(StatusCode::UNAUTHORIZED, "invalid_client", "Client authentication failed")
}

fn missing(name: &str) -> Response<Body> {
    let text = format!("The request is missing a required parameter : {name}");
    error(StatusCode::BAD_REQUEST, "invalid_request", &text)
}

fn unsupported_grant_type() -> Response<Body> {
    let text = "The authorization grant type is not supported by the authorization server";
    error(StatusCode::BAD_REQUEST, "unsupported_grant_type", text)
}

fn unavailable(retry_after: Option<u64>) -> Response<Body> {
    let page = "<html><body><h1>503 Service Unavailable</h1></body></html>";
    with_retry_after(whole(StatusCode::SERVICE_UNAVAILABLE, "text/html", page), retry_after)
}

fn oversized() -> Response<Body> {
    super::response::feed(StatusCode::OK, "application/json", |sender| async move {
        let start = Bytes::from_static(b"{\"expires_in\":3600,\"access_token\":\"Atza|");
        if sender.send(Ok(Frame::data(start))).await.is_ok() {
            send_bytes(&sender, b'A', OVERSIZED_BYTES).await;
            // A reader that gave up has dropped the body: there is nothing left to send.
            drop(sender.send(Ok(Frame::data(Bytes::from_static(b"\"}")))).await);
        }
    })
}

fn with_lwa_headers(mut response: Response<Body>) -> Response<Body> {
    set(&mut response, header::CACHE_CONTROL, "no-store");
    set(&mut response, header::PRAGMA, "no-cache");
    set(&mut response, HeaderName::from_static("x-amzn-requestid"), &random_uuid());
    response
}
