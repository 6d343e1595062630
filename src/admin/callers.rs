//! The callers of the configuration and their keys: listed, and revoked. Never a key, nor its digest.

use super::{
    AdminCall,
    respond::{Handled, json},
};
use crate::{
    audit::Action,
    callers::key::KeyId,
    config::{CallerConfig, CallerKeyConfig},
    hooks::rfc3339,
    login::LoginError,
    problem::{Code, Problem},
};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

pub(super) async fn list(call: AdminCall) -> Handled {
    let (sessions, engine) = (&call.admin.0.sessions, &call.logins.engine);
    let (uses, (_, revoked)) = (sessions.uses().await?, sessions.list().await?);
    let state = KeyStates { now: engine.clock().now().unix(), uses, revoked };
    let callers = engine.config().callers.iter().map(|caller| state.caller(caller));
    Ok(json(&json!({ "callers": callers.collect::<Value>() })))
}

/// What is known of keys besides the configuration.
struct KeyStates {
    now: u64,
    uses: HashMap<KeyId, u64>,
    revoked: HashSet<KeyId>,
}

impl KeyStates {
    fn caller(&self, caller: &CallerConfig) -> Value {
        json!({
            "name": caller.name,
            "tenant": caller.tenant,
            "operator": caller.rules.operator,
            "read_only": caller.rules.read_only,
            "accounts": caller.rules.accounts,
            "unix_uids": caller.unix_uids,
            "unix_gids": caller.unix_gids,
            "mtls_san": caller.mtls_san,
            "keys": caller.keys.iter().map(|key| self.key(key)).collect::<Value>(),
        })
    }

    fn key(&self, key: &CallerKeyConfig) -> Value {
        let id: Option<KeyId> = key.id.parse().ok();
        let is_revoked = id.is_some_and(|id| self.revoked.contains(&id));
        let expires = key.expires.map(seconds);
        let state = match expires {
            _ if is_revoked => "revoked",
            Some(at) if at <= self.now => "expired",
            _ => "active",
        };
        let last_used = id.and_then(|id| self.uses.get(&id).copied());
        json!({
            "id": key.id,
            "state": state,
            "created": key.created.map(seconds).map(rfc3339),
            "expires": expires.map(rfc3339),
            "last_used": last_used.map(rfc3339),
        })
    }
}

fn seconds(at: jiff::Timestamp) -> u64 {
    u64::try_from(at.as_second()).unwrap_or(0)
}

/// The key `id`, and whose it is.
fn key_of<'c>(
    callers: &'c [CallerConfig],
    id: &str,
) -> Option<(&'c CallerConfig, &'c CallerKeyConfig)> {
    let mut keys =
        callers.iter().flat_map(|caller| caller.keys.iter().map(move |key| (caller, key)));
    keys.find(|(_, key)| key.id == id)
}

/// Revokes a key of the configuration, which stays as it is.
pub(super) async fn revoke(call: AdminCall) -> Handled {
    let (sessions, logins) = (&call.admin.0.sessions, &call.logins);
    let found = key_of(&logins.engine.config().callers, &call.segment);
    let Some(((caller, key), Ok(id))) = found.map(|found| (found, call.segment.parse())) else {
        let detail = "There is no such key in the configuration; GET /api/v1/callers lists them.";
        return Ok(Problem { detail, ..Code::NotFound.problem() }.respond(&call.request_id));
    };
    let entry = logins.entry_of(Action::KeyRevoke).about(&key.id);
    let entry = entry.caller(&caller.name);
    let expires = key.expires.map(seconds);
    let revoke = async { sessions.revoke(id, expires).await.map_err(LoginError::from) };
    logins.engine.audit().around(entry, "store_failed", revoke).await?;
    Ok(json(&json!({ "kind": "key", "id": key.id, "caller": caller.name })))
}
