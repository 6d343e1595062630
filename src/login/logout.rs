//! Forgets an account: its record, what is under way for it, its token; and gives the grant back
//! where that is possible.

use super::{LoginError, Logins};
use crate::{audit::Action, error_chain::chain, id::AccountId, store::Credential};
use schemars::JsonSchema;
use serde::Serialize;

/// What a logout did.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LoggedOut {
    pub account: String,
    /// The configured endpoint took the refresh token back.
    pub revoked: bool,
    /// Why it did not, where one is configured.
    pub revocation_error: Option<String>,
    /// The configuration names a refresh token, which is not used again unless it changes.
    pub in_config: bool,
}

impl Logins {
    /// Forgets `account`. A revocation that fails is no error: what is forgotten stays forgotten.
    pub async fn logout(&self, account: &AccountId) -> Result<LoggedOut, LoginError> {
        let config = self.engine.config();
        let configured = config.accounts.get(account);
        // Nothing is recorded of an unknown alias.
        if configured.is_none() && !self.engine.store().has_grant(account).await? {
            return Err(LoginError::unknown_account(account));
        }
        let entry = self.entry(Action::Logout, account).about("logout");
        let now_unix = self.engine.clock().now().unix();
        let forget =
            self.engine.with.grants.forget::<LoginError>(account, entry, configured, now_unix);
        let revocation = self.revoke(forget.await?.as_ref()).await;
        self.engine.enroller.follow_now().await;
        tracing::info!(account = account.as_str(), "account logged out");
        Ok(LoggedOut {
            account: account.to_string(),
            revoked: revocation == Ok(true),
            revocation_error: revocation.err(),
            in_config: configured.is_some_and(|config| config.refresh_token.is_some()),
        })
    }

    async fn revoke(&self, record: Option<&Credential>) -> Result<bool, String> {
        let record = record.filter(|record| !record.refresh_token.is_empty());
        let application =
            record.and_then(|record| self.engine.enroller.application(&record.application));
        let (Some(record), Some(application)) = (record, application) else { return Ok(false) };
        let revoked = self.engine.with.lwa.revoke(&application, &record.refresh_token).await;
        revoked.map_err(|error| chain(&error))
    }
}
