//! The callers of the configuration and their keys: listed, and revoked. Never a key, nor its digest.

use super::{
    AdminCall,
    arguments::Arguments,
    caller_bodies::{CallerDetails, CallerPage, EndedKey, KeyDetails},
    paging::Paging,
    respond::Handled,
    scope::Scope,
};
use crate::{
    audit::Action,
    callers::key::KeyId,
    config::{CallerConfig, CallerKeyConfig},
    hooks::rfc3339,
    id::Tenant,
    login::LoginError,
    problem::{Code, Problem},
};
use std::collections::{HashMap, HashSet};

/// Callers on a page, unless the request says otherwise.
const LIST_LIMIT: usize = 1000;

/// In the order of their names, so that a page follows the one before, whatever a reload brings in
/// between. A tenant sees its own.
pub(super) async fn list(call: AdminCall) -> Handled {
    Ok(call.json(&page(&call, &call.query).await?))
}

/// The page that `query` asks for.
pub(super) async fn page(call: &AdminCall, query: &Arguments) -> Result<CallerPage, LoginError> {
    let paging = Paging::<String>::of(query, LIST_LIMIT)?;
    let (sessions, engine) = (&call.admin.0.sessions, &call.logins.engine);
    let config = engine.config();
    let is_in_sight = |caller: &&CallerConfig| match &call.scope {
        Scope::Every => true,
        Scope::Tenant(tenant) => caller.tenant.as_ref() == Some(tenant),
        Scope::None => false,
    };
    let mut callers: Vec<&CallerConfig> = config.callers.iter().filter(is_in_sight).collect();
    callers.retain(|caller| paging.after.as_ref().is_none_or(|after| caller.name > *after));
    callers.sort_by(|one, other| one.name.cmp(&other.name));
    let (page, next_cursor) = paging.take(callers.into_iter(), |caller| caller.name.clone());
    let keys = page.iter().flat_map(|caller| &caller.keys).filter_map(|key| key.id.parse().ok());
    let (uses, (_, revoked)) = (sessions.uses_of(keys).await?, sessions.list().await?);
    let state = KeyStates { now: engine.clock().now().unix(), uses, revoked };
    let callers = page.iter().map(|caller| state.caller(caller)).collect();
    Ok(CallerPage { callers, next_cursor })
}

/// What is known of keys besides the configuration.
struct KeyStates {
    now: u64,
    uses: HashMap<KeyId, u64>,
    revoked: HashSet<KeyId>,
}

impl KeyStates {
    fn caller(&self, caller: &CallerConfig) -> CallerDetails {
        CallerDetails {
            name: caller.name.clone(),
            tenant: caller.tenant.as_ref().map(Tenant::to_string),
            operator: caller.rules.operator,
            read_only: caller.rules.read_only,
            accounts: caller.rules.accounts.clone(),
            unix_uids: caller.unix_uids.clone(),
            unix_gids: caller.unix_gids.clone(),
            mtls_san: caller.mtls_san.clone(),
            keys: caller.keys.iter().map(|key| self.key(key)).collect(),
        }
    }

    fn key(&self, key: &CallerKeyConfig) -> KeyDetails {
        let id: Option<KeyId> = key.id.parse().ok();
        let is_revoked = id.is_some_and(|id| self.revoked.contains(&id));
        let expires = key.expires.map(seconds);
        let state = match expires {
            _ if is_revoked => "revoked",
            Some(at) if at <= self.now => "expired",
            _ => "active",
        };
        let last_used = id.and_then(|id| self.uses.get(&id).copied());
        KeyDetails {
            id: key.id.clone(),
            state,
            created: key.created.map(seconds).map(rfc3339),
            expires: expires.map(rfc3339),
            last_used: last_used.map(rfc3339),
        }
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
    match revoke_key(&call).await? {
        Some(ended) => Ok(call.json(&ended)),
        None => {
            let detail =
                "There is no such key in the configuration; GET /api/v1/callers lists them.";
            Ok(Problem { detail, ..Code::NotFound.problem() }.respond(&call.request_id))
        }
    }
}

/// The key that the path names, which is revoked now; none if there is no such key.
pub(super) async fn revoke_key(call: &AdminCall) -> Result<Option<EndedKey>, LoginError> {
    let (sessions, logins) = (&call.admin.0.sessions, &call.logins);
    let config = logins.engine.config();
    let found = key_of(&config.callers, &call.segment);
    let Some(((caller, key), Ok(id))) = found.map(|found| (found, call.segment.parse())) else {
        return Ok(None);
    };
    let entry = logins.entry_of(Action::KeyRevoke).about(&key.id);
    let entry = entry.caller(&caller.name);
    let expires = key.expires.map(seconds);
    let revoke = async { sessions.revoke(id, expires).await.map_err(LoginError::from) };
    logins.engine.audit().around(entry, "store_failed", revoke).await?;
    Ok(Some(EndedKey::new("key", id, &caller.name)))
}
