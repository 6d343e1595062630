//! What Amazon says of its limits: everything heard, page by page, and what is cooling down now.

use super::{
    AdminCall,
    bodies::{ThrottledCalls, ThrottlingPage},
    paging::Paging,
    respond::Handled,
};
use crate::{
    hooks::rfc3339,
    id::AccountId,
    throttling::{ScopePlace, ThrottledScope},
};

/// Entries on a page, unless the request says otherwise.
const LIST_LIMIT: usize = 100;
/// Entries in an overview.
const COOLING_MAX: usize = 1000;

/// What was heard since the start, the latest first.
pub(super) async fn list(call: AdminCall) -> Handled {
    let paging = Paging::<ScopePlace>::of(&call.query, LIST_LIMIT)?;
    let heard = heard(&call);
    let total = heard.len();
    let rest = heard.into_iter().filter(|one| paging.after.is_none_or(|after| one.place < after));
    let (page, next_cursor) = paging.take(rest, |one| one.place.to_string());
    Ok(call.json(&ThrottlingPage {
        enforced: call.logins.engine.throttling.is_enforced(),
        throttling: page.iter().map(|one| describe(&call, one)).collect(),
        total,
        next_cursor,
    }))
}

/// All that was heard.
#[cfg(feature = "dashboard")]
pub(super) fn known(call: &AdminCall) -> Vec<ThrottledCalls> {
    heard(call).iter().map(|one| describe(call, one)).collect()
}

/// What is cooling down now.
pub(super) fn cooling(call: &AdminCall) -> Vec<ThrottledCalls> {
    let heard = heard(call);
    let cooling = heard.iter().filter(|one| one.left.is_some()).take(COOLING_MAX);
    cooling.map(|one| describe(call, one)).collect()
}

fn heard(call: &AdminCall) -> Vec<ThrottledScope> {
    let engine = &call.logins.engine;
    engine.throttling.list(engine.clock().now(), |id| call.sees(id))
}

fn describe(call: &AdminCall, heard: &ThrottledScope) -> ThrottledCalls {
    let scope = &heard.scope;
    let config = call.logins.engine.config();
    let mut applications = config.applications.iter();
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
