//! What one tenant may take: accounts, and places for logins.
//!
//! A tenant begins at most a tenth of `login.pending_max` logins and links within
//! `login.timeout_secs`, so that none takes the room of all.

use super::{LoginError, Logins, milliseconds};
use crate::{id::AccountId, problem::Code};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};

/// One tenant's part of the places is one of so many.
const PARTS: usize = 10;

impl Logins {
    /// Refuses an account that would be one more than its tenant may have: at the start of a login,
    /// and when its grant is saved, as there may be other logins under way.
    pub(super) async fn check_accounts_max(&self, account: &AccountId) -> Result<(), LoginError> {
        let Some(tenant) = account.tenant() else { return Ok(()) };
        let config = self.engine.config();
        let stored = self.engine.store().grants().await?;
        let all = config.accounts.keys().chain(&stored);
        let own: BTreeSet<_> = all.filter(|id| id.tenant() == Some(tenant)).collect();
        match own.contains(account) || own.len() < config.tenants.accounts_max {
            true => Ok(()),
            false => Err(Code::TooManyAccounts.into()),
        }
    }

    /// Refuses a login that would be one more than the tenant of `account` may have under way.
    pub(super) fn check_share(&self, account: &AccountId) -> Result<(), LoginError> {
        let Some(tenant) = account.tenant() else { return Ok(()) };
        let (login, now_ms) = (&self.engine.config().login, self.now_ms());
        let until_ms = now_ms.saturating_add(milliseconds(login.timeout));
        match self.shares.take(tenant, login.pending_max, now_ms, until_ms) {
            true => Ok(()),
            false => Err(Code::TooManyLogins.into()),
        }
    }
}

/// Until when each login of a tenant counts, in milliseconds since 1970, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<HashMap<String, Vec<u64>>>);

impl Shares {
    /// Counts one more login of `tenant` until `until_ms`; false if it has its share of `max`.
    pub(super) fn take(&self, tenant: &str, max: usize, now_ms: u64, until_ms: u64) -> bool {
        let begun = &mut *self.0.lock();
        begun.retain(|_, logins| {
            logins.retain(|until| *until > now_ms);
            !logins.is_empty()
        });
        let logins = begun.entry(tenant.to_owned()).or_default();
        let has_room = logins.len() < (max / PARTS).max(1);
        if has_room {
            logins.push(until_ms);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_takes_its_share_and_the_others_have_theirs() {
        let shares = Shares::default();
        let begin = |tenant, now_ms| shares.take(tenant, 3000, now_ms, now_ms + 1000);
        assert_eq!((0..3000).filter(|_| begin("t1", 0)).count(), 300);
        assert!(begin("t2", 0) && !begin("t1", 999));
        assert_eq!((0..3000).filter(|_| begin("t1", 1000)).count(), 300);
        assert!(shares.take("t1", 1, 5000, 6000) && !shares.take("t1", 1, 5000, 6000));
        assert_eq!(shares.0.lock().len(), 1, "what is over is forgotten");
    }
}
