//! The accounts and their tokens, never a token itself.

use super::{
    AdminCall,
    bodies::{AccountDetails, AccountPage, Overview},
    paging::Paging,
    respond::{Handled, Reply},
    scope::Scope,
    shape::Shape,
    throttling::cooling,
};
use crate::{
    account::{AccountView, State},
    audit::Action,
    engine::Engine,
    hooks::rfc3339,
    login::{LoginError, Logins},
    problem::{Code, Problem},
    proxy,
    sync::Account,
    token::{self, AccessToken, Cause},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Accounts on a page, unless the request says otherwise: front ends read all of a usual number.
const LIST_LIMIT: usize = 1000;

/// A token is fetched, which Login with Amazon may not give.
pub(super) fn fetches(shape: Shape) -> Shape {
    let shape = shape.of_account().writes();
    shape.fails(&[
        Code::ReauthorizationRequired,
        Code::ApplicationRejected,
        Code::TokenUnavailable,
        Code::Overloaded,
    ])
}

/// All accounts and whether the store works.
pub(super) async fn overview(call: AdminCall) -> Handled {
    let accounts = accounts(&call);
    let is_degraded = accounts.iter().any(|account| account.is_unsaved);
    let store = if is_degraded { "degraded" } else { "ok" };
    let reload = call.admin.0.health.reload.get().filter(|_| call.scope == Scope::Every);
    Ok(call.json(&Overview {
        version: env!("CARGO_PKG_VERSION"),
        store,
        accounts,
        restart_required: reload.map(|it| it.restart_required()).unwrap_or_default(),
        throttled: cooling(&call),
    }))
}

/// In the order of their ids, so that a page follows the one before whatever came in between.
pub(super) async fn list(call: AdminCall) -> Handled {
    let (engine, paging) = (&call.logins.engine, Paging::<String>::of(&call.query, LIST_LIMIT)?);
    let state = call.query.one("state")?.map(|name| {
        let unknown = || LoginError::bad_request("state is the name of no state of an account");
        State::from_name(&name).ok_or_else(unknown)
    });
    let state = state.transpose()?;
    let wanted = accounts(&call).into_iter().filter(|account| {
        state.is_none_or(|state| account.state == state)
            && paging.after.as_ref().is_none_or(|after| call.name_of(&account.account) > *after)
    });
    let (page, next_cursor) = paging.take(wanted, |account| call.name_of(&account.account));
    let accounts = page.into_iter().map(|account| details(engine, account)).collect();
    Ok(call.json(&AccountPage { accounts, next_cursor }))
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
    let engine = &call.logins.engine;
    let account = call.account(&call.id_in(named)?)?;
    let before = generation(engine, &account);
    let done = refresh_now(&call.logins, &account).await;
    let mut body = describe(engine, &account);
    body["refreshed"] = (generation(engine, &account) > before).into();
    body["success"] = done.is_ok().into();
    Ok(match done {
        Ok(_) => call.json(&body),
        Err(error) => failed(error, call.named(&body), &call.request_id),
    })
}

/// Fetches a new access token because a request to this listener asks for one.
pub(super) async fn refresh_now(
    logins: &Logins,
    account: &Account,
) -> Result<Arc<AccessToken>, token::Error> {
    let engine = &logins.engine;
    // The refresh itself is the server's entry, with the same id; this one names who asked for it.
    // A refresh goes on without the audit log: a metric counts entries that are missing.
    let entry = logins.entry(Action::TokenRefresh, account.id()).attempt();
    let _ = engine.audit().count(entry).await;
    exchange(engine, account, Some(generation(engine, account)), cause(logins)).await
}

fn generation(engine: &Engine, account: &Account) -> u64 {
    engine.tokens().status(account.id()).map_or(0, |status| status.generation)
}

/// What a refresh names that begins for a request to this API.
pub(super) fn cause(logins: &Logins) -> Cause<'_> {
    Cause::Request {
        id: logins.request_id.as_bytes(),
        server_id: logins.server_request_id.as_deref(),
        span: None,
    }
}

/// A token of another generation than the `rejected` one, which is replaced.
pub(super) async fn exchange(
    engine: &Engine,
    account: &Account,
    rejected: Option<u64>,
    cause: Cause<'_>,
) -> Result<Arc<AccessToken>, token::Error> {
    let (tokens, id) = (engine.tokens(), account.id());
    let token = tokens.token_at(&account.token, engine.clock().now(), cause).await?;
    if rejected != Some(token.generation()) {
        return Ok(token);
    }
    let replacement = tokens.replace(id, &token, cause).await?;
    replacement.failed.map_or(Ok(replacement.token), Err)
}

pub(super) fn describe(engine: &Engine, account: &Account) -> Value {
    let status = engine.tokens().status(account.id());
    status.map_or_else(Value::default, |status| json!(details(engine, status)))
}

fn details(engine: &Engine, view: AccountView) -> AccountDetails {
    let left = view.expires_in.filter(|left| !left.is_zero());
    AccountDetails {
        token_type: "bearer",
        valid: left.is_some(),
        expires_at: left.map(|left| rfc3339(engine.clock().now().plus(left).unix())),
        expires_in: left.map(|left| left.as_secs()),
        needs_refresh: left.is_none_or(|left| left <= engine.config().token.refresh_buffer),
        view,
    }
}

/// What the data plane says of an account without a token, and `more`.
pub(super) fn failed(error: token::Error, more: Value, request_id: &http::HeaderValue) -> Reply {
    let error = proxy::Error::Token(error);
    Problem { more: Some(more), ..error.problem() }.respond(request_id)
}
