//! What Amazon says of its limits: everything heard, and what is cooling down now.

use super::{
    AdminCall,
    bodies::{ThrottledCalls, ThrottlingList},
    respond::Handled,
};
use crate::{hooks::rfc3339, id::AccountId, throttling::ThrottledScope};

/// Entries in one response.
const ENTRIES_MAX: usize = 1000;

/// What was heard since the start, the latest first.
pub(super) async fn list(call: AdminCall) -> Handled {
    let heard = heard(&call);
    let latest = heard.iter().take(ENTRIES_MAX);
    Ok(call.json(&ThrottlingList {
        enforced: call.logins.engine.throttling.is_enforced(),
        throttling: latest.map(|one| describe(&call, one)).collect(),
        total: heard.len(),
    }))
}

/// What is cooling down now.
pub(super) fn cooling(call: &AdminCall) -> Vec<ThrottledCalls> {
    let heard = heard(call);
    let cooling = heard.iter().filter(|one| one.left.is_some()).take(ENTRIES_MAX);
    cooling.map(|one| describe(call, one)).collect()
}

fn heard(call: &AdminCall) -> Vec<ThrottledScope> {
    let engine = &call.logins.engine;
    engine.throttling.list(engine.clock().now(), |id| call.sees(id))
}

fn describe(call: &AdminCall, heard: &ThrottledScope) -> ThrottledCalls {
    let scope = &heard.scope;
    let mut applications = call.logins.engine.config().applications.iter();
    let application = applications.find(|(_, it)| *it.client_id == *scope.client_id);
    let name = |id: &AccountId| if call.sees_all() { id.as_str() } else { id.alias() }.to_owned();
    ThrottledCalls {
        region: scope.region,
        application: application.map(|(name, _)| name.clone()),
        profile: scope.profile.as_deref().map(str::to_owned),
        api: scope.api.to_string(),
        class: scope.class.as_str(),
        accounts: heard.accounts.iter().map(name).collect(),
        counts: heard.counts().map(|(kind, count)| (kind.as_str(), count)).collect(),
        last_seen: rfc3339(heard.last_unix),
        last_kind: heard.last_kind.as_str(),
        last_retry_after_secs: heard.last_retry_after.map(|after| after.as_secs()),
        cooldown_left_secs: heard.left.map(|left| left.as_secs_f64().ceil() as u64),
    }
}
