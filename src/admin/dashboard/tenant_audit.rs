//! The audit log as a tenant sees it: the entries about its own accounts and by its own callers, without
//! who else acted and without the numbers that tell how much others do.

use super::account::AuditLine;
use crate::{
    admin::{AdminCall, scope::Scope},
    audit::tail::{Filter, Shown},
    id::{AccountId, Tenant},
    login::LoginError,
    problem::Code,
};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Entries that are shown, and of how many, the newest, they are: a tenant must not have the whole log
/// read.
const SHOWN_MAX: usize = 100;
const READ_MAX: usize = 20_000;
const READ_FOR: Duration = Duration::from_millis(300);

/// What to show.
#[derive(Default)]
pub(super) struct OwnEntries {
    pub(super) account: Option<AccountId>,
    /// As the filter of the log has it.
    pub(super) action: String,
}

impl OwnEntries {
    /// The newest entries of the visitor's tenant, the newest first; none where no log is kept.
    pub(super) async fn read(self, call: &AdminCall) -> Result<Vec<AuditLine>, LoginError> {
        let Scope::Tenant(tenant) = &call.scope else { return Ok(Vec::new()) };
        let Some(mut reader) = call.logins.engine.audit().reader(Filter::default()) else {
            return Ok(Vec::new());
        };
        // Not the lock of the operators' reader.
        let _turn = call.admin.0.live.tenant_reader.lock().await;
        let owner = tenant.clone();
        let read = tokio::task::spawn_blocking(move || {
            let (mut found, mut count, began) = (Vec::new(), 0, Instant::now());
            let mut is_more = true;
            while is_more
                && found.len() < SHOWN_MAX
                && count < READ_MAX
                && began.elapsed() < READ_FOR
            {
                is_more = reader.older(&mut |entry| {
                    count += 1;
                    if found.len() < SHOWN_MAX && self.wants(&entry, &owner) {
                        found.push(entry.members);
                    }
                })?;
            }
            Ok::<_, crate::audit::Error>(found)
        });
        let found = read.await.map_err(|_| LoginError::from(Code::Internal))??;
        let is_in_sight = |entry: &Value| account(entry).is_none_or(|id| call.sees(&id));
        let found = found.into_iter().filter(is_in_sight);
        Ok(found.map(|entry| line(call, tenant, &entry)).collect())
    }

    fn wants(&self, entry: &Shown, tenant: &Tenant) -> bool {
        let entry = &entry.members;
        let action = entry["action"].as_str().unwrap_or_default();
        let is_kind = action
            .strip_prefix(&self.action)
            .is_some_and(|rest| self.action.is_empty() || rest.is_empty() || rest.starts_with('.'));
        let is_own = match account(entry) {
            Some(id) => tenant.owns(&id) && self.account.as_ref().is_none_or(|one| *one == id),
            None => self.account.is_none() && is_by(entry, tenant),
        };
        is_kind && is_own
    }
}

fn account(entry: &Value) -> Option<AccountId> {
    entry["account"].as_str()?.parse().ok()
}

/// Whether a caller of the tenant did it.
fn is_by(entry: &Value, tenant: &Tenant) -> bool {
    entry["tenant"].as_str() == Some(tenant.as_str())
}

fn line(call: &AdminCall, tenant: &Tenant, entry: &Value) -> AuditLine {
    let mut members = entry.as_object().cloned().unwrap_or_default();
    if !is_by(entry, tenant) {
        // Of the operators and their servers only that it was one.
        members.retain(|name, _| {
            ["time", "actor", "action", "account", "outcome", "reason"].contains(&&**name)
        });
    }
    members.remove("tenant");
    if let Some(id) = account(entry) {
        members.insert("account".to_owned(), call.name_of(&id).into());
    }
    AuditLine::of(&members)
}
