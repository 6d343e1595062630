//! What Amazon says of its limits: everything heard, and what is cooling down now.

use super::{AdminCall, respond::Handled};
use crate::{hooks::rfc3339, id::AccountId, throttling::ThrottledScope};
use serde_json::{Map, Value, json};

/// All that was heard since the start, the latest first.
pub(super) async fn list(call: AdminCall) -> Handled {
    let heard: Vec<_> = heard(&call).iter().map(|one| describe(&call, one)).collect();
    let enforced = call.logins.engine.throttling.is_enforced();
    Ok(call.json(&json!({ "enforced": enforced, "throttling": heard })))
}

/// What is cooling down now.
pub(super) fn cooling(call: &AdminCall) -> Vec<Value> {
    let heard = heard(call);
    let cooling = heard.iter().filter(|one| one.left.is_some());
    cooling.map(|one| describe(call, one)).collect()
}

fn heard(call: &AdminCall) -> Vec<ThrottledScope> {
    let engine = &call.logins.engine;
    engine.throttling.list(engine.clock().now(), |id| call.sees(id))
}

fn describe(call: &AdminCall, heard: &ThrottledScope) -> Value {
    let scope = &heard.scope;
    let mut applications = call.logins.engine.config().applications.iter();
    let application = applications.find(|(_, it)| *it.client_id == *scope.client_id);
    let name = |id: &AccountId| if call.sees_all() { id.to_string() } else { id.alias().into() };
    let counts = heard.counts().map(|(kind, count)| (kind.to_string(), count.into()));
    json!({
        "region": scope.region,
        "application": application.map(|(name, _)| name),
        "profile": scope.profile,
        "api": scope.api,
        "class": scope.class.as_str(),
        "accounts": heard.accounts.iter().map(name).collect::<Vec<_>>(),
        "counts": Map::from_iter(counts),
        "last_seen": rfc3339(heard.last_unix),
        "last_kind": heard.last_kind.as_str(),
        "last_retry_after_secs": heard.last_retry_after.map(|after| after.as_secs()),
        "cooldown_left_secs": heard.left.map(|left| left.as_secs_f64().ceil() as u64),
    })
}
