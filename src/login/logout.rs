//! Forgets an account: its record, what is under way for it, its token; and gives the grant back
//! where that is possible.

use super::{LoginCause, LoginError, Logins};
use crate::{audit::Action, error_chain::chain, id::AccountId, secret::Secret, store::Credential};
use serde::Serialize;

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoggedOut {
    /// The account.
    pub account: String,
    /// The configured endpoint took the refresh token back.
    pub revoked: bool,
    /// Why it did not, where one is configured.
    pub revocation_error: Option<String>,
    /// The configuration names a refresh token, which is not used again unless it changes.
    pub in_config: bool,
}

impl Logins {
    /// Forgets `account`.
    ///
    /// An account whose refresh token is in the configuration keeps a record without any token:
    /// it tells that the configured one was used up, so that no start seeds it again.
    ///
    /// # Errors
    /// `UnknownAccount`; `Store` if it cannot be forgotten. A revocation that fails is no error:
    /// what is forgotten here stays forgotten.
    pub async fn logout(&self, account: &AccountId) -> Result<LoggedOut, LoginError> {
        let store = self.engine.store();
        let configured = self.engine.config().accounts.get(account);
        // Before the lock: an unknown alias must leave no file.
        if configured.is_none() && !store.grants().await?.contains(account) {
            return Err(LoginError::new(
                LoginCause::UnknownAccount,
                format!("there is no account {account}"),
            ));
        }
        let lock = store.lock(account).await?;
        let record = match store.load(account).await {
            Ok(record) => record,
            // What does not open can be forgotten all the same.
            Err(error) if error.is_lasting() => None,
            Err(error) => return Err(error.into()),
        };
        let entry = self.entry(Action::Logout, account).about("logout");
        let forgotten = self.forget(account, record.as_ref());
        let done = self.engine.audit().around(entry, "store_failed", forgotten).await?;
        drop(lock);
        self.engine.follow_now().await;
        tracing::info!(account = account.as_str(), "account logged out");
        Ok(done)
    }

    /// Gives the grant back and removes what is here, under the account's lock.
    async fn forget(
        &self,
        account: &AccountId,
        record: Option<&Credential>,
    ) -> Result<LoggedOut, LoginError> {
        let store = self.engine.store();
        let configured = self.engine.config().accounts.get(account);
        // First: what is left of them after a failure could connect the account again.
        store.delete_entries_of(account).await?;
        let revocation = self.revoke(record).await;
        let seed = configured.and_then(|config| config.refresh_token.as_ref());
        match (configured, seed) {
            (Some(config), Some(seed)) => {
                let spent = Credential {
                    epoch: crate::store::Epoch::random(),
                    account: account.clone(),
                    application: config.application.clone(),
                    region: config.region,
                    refresh_token: Secret::from(""),
                    previous_refresh_token: None,
                    access_token: None,
                    generation: record.map_or(0, |record| record.generation),
                    consented_at: None,
                    updated_at: self.engine.clock().now().unix(),
                    reauthorization_required: true,
                    seed: Some(store.fingerprint(seed)),
                };
                store.save(&spent).await?;
            }
            _ => drop(store.remove(account).await?),
        }
        Ok(LoggedOut {
            account: account.to_string(),
            revoked: revocation == Ok(true),
            revocation_error: revocation.err(),
            in_config: seed.is_some(),
        })
    }

    async fn revoke(&self, record: Option<&Credential>) -> Result<bool, String> {
        let Some(record) = record.filter(|record| !record.refresh_token.is_empty()) else {
            return Ok(false);
        };
        let Some(application) = self.engine.application(&record.application) else {
            return Ok(false);
        };
        let revoked = self.engine.lwa().revoke(&application, &record.refresh_token).await;
        revoked.map_err(|error| chain(&error))
    }
}
