//! Puts a grant that a person brings into the store, or takes the store's out, for commands.

use super::{LoginError, Logins};
use crate::{
    audit::{Action, Entry},
    grants::given::{GivenGrant, GivenResult},
    id::AccountId,
};

impl Logins {
    /// Forgets what the store has of `account`: what the configuration says of it stays as it is.
    pub(crate) async fn remove(&self, account: &AccountId) -> Result<(), LoginError> {
        if !self.engine.store().has_grant(account).await? {
            return Err(LoginError::unknown_account(account));
        }
        let entry = self.entry(Action::AccountRemove, account);
        let now_unix = self.engine.clock().now().unix();
        self.engine.with.grants.forget::<LoginError>(account, entry, None, now_unix).await?;
        self.engine.enroller.follow_now().await;
        Ok(())
    }

    /// Puts a grant that a person brings, from `about`, into the store. When this returns, a running
    /// server uses it, unless `more` of them follow: the last one makes it use all.
    pub(crate) async fn give(
        &self,
        account: &AccountId,
        given: &GivenGrant,
        about: Option<&str>,
        more: bool,
    ) -> Result<GivenResult, LoginError> {
        let (grants, now_unix) = (&self.engine.with.grants, self.engine.clock().now().unix());
        let entry = |action| about.into_iter().fold(self.entry(action, account), Entry::about);
        let given = grants.give(&self.engine.config(), account, given, now_unix, entry).await;
        if !more {
            // A look reads the whole store: not once for each of thousands.
            self.engine.enroller.follow_now().await;
        }
        Ok(given?)
    }

    /// Says what would become of such a grant, and writes nothing.
    pub(crate) async fn check(
        &self,
        account: &AccountId,
        given: &GivenGrant,
    ) -> Result<GivenResult, LoginError> {
        let existing = self.engine.store().load(account).await?;
        let now_unix = self.engine.clock().now().unix();
        Ok(given.decide(&self.engine.config(), account, existing.as_ref(), now_unix)?)
    }
}
