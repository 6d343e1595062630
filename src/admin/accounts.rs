//! The accounts and their tokens, never a token itself.

use super::{
    AdminCall,
    respond::{Handled, Reply},
    throttling::cooling,
};
use crate::{
    account::AccountView,
    audit::Action,
    engine::Engine,
    hooks::rfc3339,
    problem::Problem,
    proxy,
    sync::Account,
    token::{self, AccessToken, Cause},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// All accounts and whether the store works.
pub(super) async fn overview(call: AdminCall) -> Handled {
    let accounts = accounts(&call);
    let is_degraded = accounts.iter().any(|account| account.is_unsaved);
    Ok(call.json(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "store": if is_degraded { "degraded" } else { "ok" },
        "accounts": accounts,
        "throttled": cooling(&call),
    })))
}

pub(super) async fn list(call: AdminCall) -> Handled {
    let engine = &call.logins.engine;
    let accounts = accounts(&call);
    let accounts: Vec<_> = accounts.iter().map(|account| details(engine, account)).collect();
    Ok(call.json(&json!({ "accounts": accounts })))
}

/// All that the caller may see.
fn accounts(call: &AdminCall) -> Vec<AccountView> {
    let mut accounts = call.logins.engine.accounts();
    accounts.retain(|account| call.sees(&account.account));
    accounts
}

pub(super) async fn show(call: AdminCall) -> Handled {
    let account = call.account(&call.id_in_path()?)?;
    Ok(call.json(&describe(&call.logins.engine, &account)))
}

/// The same as a logout.
pub(super) async fn delete(call: AdminCall) -> Handled {
    Ok(call.json(&call.logins.logout(&call.id_in_path()?).await?))
}

/// How long the token of one account, or of each, lives.
pub(super) async fn token_status(call: AdminCall) -> Handled {
    if call.query.all("account").is_empty() {
        return list(call).await;
    }
    let account = call.account(&call.id_in(&call.query)?)?;
    Ok(call.json(&describe(&call.logins.engine, &account)))
}

/// Fetches a new access token, at most one per `token.forced_refresh_min_interval_secs`.
pub(super) async fn refresh(call: AdminCall) -> Handled {
    let named = if call.form.one("account")?.is_some() { &call.form } else { &call.query };
    let (logins, engine) = (&call.logins, &call.logins.engine);
    let account = call.account(&call.id_in(named)?)?;
    let cause = Cause::Request(logins.request_id.as_bytes());
    // The refresh itself is the server's entry, with the same id; this one names who asked for it.
    // A refresh goes on without the audit log: a metric counts entries that are missing.
    let entry = logins.entry(Action::TokenRefresh, &account.id).attempt();
    let _ = engine.audit().count(entry).await;
    let generation = || engine.tokens().status(&account.id).map_or(0, |status| status.generation);
    let before = generation();
    let done = exchange(engine, &account, Some(before), cause).await;
    let mut body = describe(engine, &account);
    body["refreshed"] = (generation() > before).into();
    body["success"] = done.is_ok().into();
    Ok(match done {
        Ok(_) => call.json(&body),
        Err(error) => failed(error, call.named(&body), &call.request_id),
    })
}

/// A token of another generation than the `rejected` one, which is replaced.
pub(super) async fn exchange(
    engine: &Engine,
    account: &Account,
    rejected: Option<u64>,
    cause: Cause<'_>,
) -> Result<Arc<AccessToken>, token::Error> {
    let (tokens, id) = (engine.tokens(), &account.id);
    let token = tokens.token_at(id, engine.clock().now(), cause).await?;
    if rejected != Some(token.generation()) {
        return Ok(token);
    }
    let replacement = tokens.replace(id, &token, cause).await?;
    replacement.failed.map_or(Ok(replacement.token), Err)
}

pub(super) fn describe(engine: &Engine, account: &Account) -> Value {
    let status = engine.tokens().status(&account.id);
    status.map_or_else(Value::default, |status| details(engine, &status))
}

fn details(engine: &Engine, account: &AccountView) -> Value {
    let left = account.expires_in.filter(|left| !left.is_zero());
    let mut body = json!(account);
    body["token_type"] = "bearer".into();
    body["valid"] = left.is_some().into();
    body["expires_at"] = left.map(|left| rfc3339(engine.clock().now().plus(left).unix())).into();
    body["expires_in"] = left.map(|left| left.as_secs()).into();
    body["needs_refresh"] =
        left.is_none_or(|left| left <= engine.config().token.refresh_buffer).into();
    body
}

/// What the data plane says of an account without a token, and `more`.
pub(super) fn failed(error: token::Error, more: Value, request_id: &http::HeaderValue) -> Reply {
    let error = proxy::Error::Token(error);
    Problem { more: Some(more), ..error.problem() }.respond(request_id)
}
