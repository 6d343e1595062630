//! `POST /api/auth/refresh` and `GET /api/auth/token-status`: never the token itself.

use super::{
    Call,
    arguments::Arguments,
    oauth::account,
    respond::{Document, Reply, json as respond_json},
};
use crate::{
    audit::Action,
    engine::Engine,
    id::AccountId,
    login::{LoginCause, LoginError},
    sync::Account,
    token::Error,
};
use http::StatusCode;
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Fetches a new access token, at most one per `token.forced_refresh_min_interval_secs`.
pub(super) async fn refresh(call: Call) -> Result<Reply, LoginError> {
    let form = Arguments::of_body(&call.parts.headers, call.body).await?;
    let named = if form.one("account")?.is_some() { &form } else { &call.query };
    let (logins, engine) = (&call.logins, &call.logins.engine);
    let account = find(engine, &account(named)?)?;
    let id = logins.request_id.as_bytes();
    let interval = engine.config().token.forced_refresh_min_interval;
    if call.admin.0.throttle.is_refresh_due(&account.id, interval, Instant::now()) {
        // The refresh itself is the server's entry, with the same id; this one names who asked for it.
        // A refresh goes on without the audit log: a metric counts entries that are missing.
        let entry = logins.entry(Action::TokenRefresh, &account.id).attempt();
        let _ = engine.audit().count(entry).await;
    }
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
    let mut body = describe(engine, &account);
    let refreshed = tokens.status(holder).generation > before;
    body["refreshed"] = refreshed.into();
    body["success"] = done.is_ok().into();
    Ok(match done {
        Ok(()) => respond_json(&body),
        Err(error) => failed(error, body),
    })
}

/// Shows how long the token of one account, or of each, lives.
pub(super) async fn status(call: Call) -> Result<Reply, LoginError> {
    let engine = &call.logins.engine;
    if call.query.all("account").is_empty() {
        return Ok(respond_json(&all(engine)));
    }
    Ok(respond_json(&describe(engine, &*find(engine, &account(&call.query)?)?)))
}

/// Every account.
pub(super) fn all(engine: &Engine) -> Value {
    let table = engine.directory().snapshot();
    let accounts: Vec<_> = table.values().map(|account| describe(engine, account)).collect();
    json!({ "accounts": accounts })
}

pub(super) fn find(engine: &Engine, id: &AccountId) -> Result<Arc<Account>, LoginError> {
    let known = engine.directory().snapshot().get(id).cloned();
    known.ok_or_else(|| {
        LoginError::new(LoginCause::UnknownAccount, format!("there is no account {id}"))
    })
}

pub(super) fn describe(engine: &Engine, account: &Account) -> Value {
    let status = engine.tokens().status(&account.holder);
    let left = status.expires_in.filter(|left| !left.is_zero());
    let expires_at = left.and_then(|left| {
        let at = engine.clock().now().wall + left;
        Some(jiff::Timestamp::from_second(i64::try_from(at.as_secs()).ok()?).ok()?.to_string())
    });
    json!({
        "account": status.account.as_str(),
        "state": status.state.as_str(),
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

pub(super) fn failed(error: Error, body: Value) -> Reply {
    let (status, code, retry_after) = match error {
        Error::NotConnected | Error::ReauthorizationRequired => {
            (StatusCode::FORBIDDEN, "reauthorization_required", None)
        }
        Error::ApplicationRejected { retry_after, .. } => {
            (StatusCode::BAD_GATEWAY, "application_rejected", Some(retry_after))
        }
        Error::Unavailable { retry_after, .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "token_unavailable", Some(retry_after))
        }
        Error::TooManyWaiters => {
            (StatusCode::SERVICE_UNAVAILABLE, "overloaded", Some(Duration::from_secs(1)))
        }
    };
    let document = Document {
        status,
        code,
        title: "",
        detail: &error.to_string(),
        more: Some(body),
        retry_after_secs: retry_after.map(|after| after.as_secs()),
    };
    document.respond()
}
