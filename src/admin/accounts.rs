//! The accounts: `GET /status`, `GET /api/v1/accounts`, `GET` and `DELETE /api/v1/accounts/{id}`.

use super::{
    Call, Sources,
    respond::{Reply, json as respond_json, json_of},
    tokens,
};
use crate::{id::AccountId, login::LoginError};
use serde_json::{Value, json};

/// All accounts and whether the store works.
pub(super) fn status(sources: &Sources, _query: &str) -> Reply {
    let accounts: Vec<Value> = sources
        .accounts
        .accounts()
        .iter()
        .map(|status| {
            json!({
                "account": status.account.as_str(),
                "state": status.state.as_str(),
                "region": status.region.as_str(),
                "application": status.application,
                "expires_in_secs": status.expires_in.map(|left| left.as_secs()),
                "generation": status.generation,
                "last_error": status.last_error,
                "reauthorization_required": status.reauthorization_required,
                "consent_days_left": status.consent_days_left,
                "unsaved": status.is_unsaved,
            })
        })
        .collect();
    let degraded = accounts.iter().any(|account| account["unsaved"] == true);
    let store = if degraded { "degraded" } else { "ok" };
    respond_json(
        &json!({ "version": env!("CARGO_PKG_VERSION"), "store": store, "accounts": accounts }),
    )
}

pub(super) async fn list(call: Call) -> Result<Reply, LoginError> {
    Ok(respond_json(&tokens::all(&call.logins.engine)))
}

pub(super) async fn show(call: Call) -> Result<Reply, LoginError> {
    let engine = &call.logins.engine;
    let account = tokens::find(engine, &id(&call)?)?;
    Ok(respond_json(&tokens::describe(engine, &account)))
}

/// The same as a logout.
pub(super) async fn delete(call: Call) -> Result<Reply, LoginError> {
    Ok(json_of(&call.logins.logout(&id(&call)?).await?))
}

pub(super) fn id(call: &Call) -> Result<AccountId, LoginError> {
    call.id.parse().map_err(LoginError::bad_request)
}
