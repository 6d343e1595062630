//! `POST /api/auth/refresh` and `GET /api/auth/token-status`: never the token itself.

use super::{JSON, PROBLEM, arguments::Arguments, oauth::account, respond};
use crate::{
    account::Account,
    engine::Engine,
    login::{Logins, Problem},
    token::Error,
};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::RETRY_AFTER, request::Parts};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Fetches a new access token, at most one per `token.forced_refresh_min_interval_secs`.
pub(super) async fn refresh(
    logins: &Logins,
    query: &Arguments,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Full<Bytes>>, Problem> {
    let form = Arguments::of_body(&parts.headers, body).await?;
    let named = if form.one("account")?.is_some() { &form } else { query };
    let engine = logins.engine();
    let account = find(engine, named)?;
    let id = logins.request_id().as_bytes();
    // The refresh itself is the server's entry, with the same id: here is who wanted it.
    logins.record_refresh(&account.id).await;
    let (tokens, holder) = (engine.tokens(), &account.holder);
    let before = tokens.status(holder).generation;
    let done = match tokens.token_at(holder, engine.clock().now(), id).await {
        // One that was fetched just now need not be fetched again.
        Ok(token) if token.generation() > before => Ok(()),
        Ok(token) => tokens
            .replace(holder, &token, id)
            .await
            .and_then(|replacement| replacement.failed.map_or(Ok(()), Err)),
        Err(error) => Err(error),
    };
    let mut answer = describe(engine, &account);
    let refreshed = tokens.status(holder).generation > before;
    answer["refreshed"] = refreshed.into();
    answer["success"] = done.is_ok().into();
    Ok(match done {
        Ok(()) => respond(StatusCode::OK, JSON, answer.to_string()),
        Err(error) => failed(error, answer),
    })
}

/// Tells how long the token of one account, or of each, lives.
pub(super) fn status(engine: &Engine, query: &Arguments) -> Result<Response<Full<Bytes>>, Problem> {
    let answer = if query.all("account").is_empty() {
        let table = engine.directory().snapshot();
        let accounts: Vec<_> = table.values().map(|account| describe(engine, account)).collect();
        json!({ "accounts": accounts })
    } else {
        describe(engine, &*find(engine, query)?)
    };
    Ok(respond(StatusCode::OK, JSON, answer.to_string()))
}

fn find(engine: &Engine, arguments: &Arguments) -> Result<Arc<Account>, Problem> {
    let id = account(arguments)?;
    let known = engine.directory().snapshot().get(&id).cloned();
    known.ok_or_else(|| Problem::UnknownAccount(id.to_string()))
}

fn describe(engine: &Engine, account: &Account) -> Value {
    let status = engine.tokens().status(&account.holder);
    let left = status.expires_in.filter(|left| !left.is_zero());
    let expires_at = left.and_then(|left| {
        let at = engine.clock().now().wall + left;
        Some(jiff::Timestamp::from_second(i64::try_from(at.as_secs()).ok()?).ok()?.to_string())
    });
    json!({
        "account": status.account.as_str(),
        "state": status.state,
        "token_type": "bearer",
        "valid": left.is_some(),
        "expires_at": expires_at,
        "expires_in": left.map(|left| left.as_secs()),
        "needs_refresh": left.is_none_or(|left| left <= engine.config().token.refresh_buffer),
        "generation": status.generation,
        "region": status.region.as_str(),
        "application": status.application,
        "reauthorization_required": status.reauthorization_required,
        "consent_days_left": status.consent_days_left,
        "last_error": status.last_error,
    })
}

fn failed(error: Error, mut answer: Value) -> Response<Full<Bytes>> {
    let (status, code, retry_after) = match error {
        Error::ReauthorizationRequired => (StatusCode::FORBIDDEN, "reauthorization_required", None),
        Error::ApplicationRejected { retry_after } => {
            (StatusCode::BAD_GATEWAY, "application_rejected", Some(retry_after))
        }
        Error::Unavailable { retry_after } => {
            (StatusCode::SERVICE_UNAVAILABLE, "token_unavailable", Some(retry_after))
        }
        Error::TooManyWaiters => {
            (StatusCode::SERVICE_UNAVAILABLE, "overloaded", Some(Duration::from_secs(1)))
        }
    };
    for (name, value) in [
        ("type", "about:blank".into()),
        ("title", status.canonical_reason().unwrap_or_default().into()),
        ("status", Value::from(status.as_u16())),
        ("code", code.into()),
        ("detail", error.to_string().into()),
    ] {
        answer[name] = value;
    }
    let mut response = respond(status, PROBLEM, answer.to_string());
    if let Some(seconds) = retry_after {
        let seconds = HeaderValue::from(seconds.as_secs().max(1));
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
    response
}
