//! Puts a new grant in the place of the old one, and remembers its profiles.

use super::{
    Connected, LoginError, LoginOutcome, Logins,
    finish::{NewGrant, Replaces},
};
use crate::{
    audit::Action,
    error_chain::chain,
    grants::Consent,
    id::{AccountId, Region},
    problem::Code,
    store::{self, ConsentId, Credential, Space},
};
use std::time::Duration;
use tracing::{info, warn};

/// Between attempts to save a new grant: Amazon issues it once, and a disk may be busy or full for a
/// moment.
const SAVE_PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(600), Duration::from_millis(1200)];

impl Replaces {
    /// Whether `record` is what the new grant was compared with.
    fn fits(&self, record: Option<&Credential>) -> bool {
        let record = record.filter(|record| !record.refresh_token.is_empty());
        match (self, record) {
            (Self::Anything, _) | (Self::Nothing, None) => true,
            (Self::Nothing, Some(_)) | (Self::Grant { .. }, None) => false,
            (Self::Grant { consented_at: Some(at), .. }, Some(record)) => {
                record.consented_at == Some(*at)
            }
            // A refresh may have replaced the token meanwhile.
            (Self::Grant { consented_at: None, fingerprint }, Some(record)) => {
                let tokens = [Some(&record.refresh_token), record.previous_refresh_token.as_ref()];
                let mut tokens = tokens.into_iter().flatten();
                record.consented_at.is_none()
                    && tokens.any(|token| store::fingerprint(token) == *fingerprint)
            }
        }
    }
}

impl Logins {
    /// Saves the grant: at once in use here, within two seconds in every other process.
    pub(super) async fn keep(
        &self,
        account: &AccountId,
        grant: &NewGrant,
    ) -> Result<Connected, LoginError> {
        let (connected, record) = self.write(account, grant).await?;
        if let Some(link) = &grant.link {
            // Before the link is gone: a program that waits by it must find one of them.
            let outcome = Ok(LoginOutcome::Connected(connected.clone()));
            self.remember_outcome(account, Some(link), &outcome).await;
            // The one success that a link is good for.
            if let Err(error) = self.engine.store().entries(Space::Ticket).delete(link).await {
                // The grant is in place; the date of its consent shows that the link is spent.
                warn!(account = account.as_str(), error = %chain(&error), "cannot remove a used link");
            }
        }
        self.engine.enroller.follow_now().await;
        info!(account = account.as_str(), region = connected.region, "account connected");
        // The grant is safe; without this the next login asks more than it must.
        if let Err(error) = self.remember(account, record, grant.profiles.clone()).await {
            warn!(account = account.as_str(), error = %chain(&error), "cannot remember the profiles");
        }
        Ok(connected)
    }

    /// Also returns which consent it is.
    async fn write(
        &self,
        account: &AccountId,
        grant: &NewGrant,
    ) -> Result<(Connected, ConsentId), LoginError> {
        let config = self.engine.config();
        let config = config.accounts.get(account);
        let _adding = match account.tenant() {
            Some(_) => Some(self.adding.lock().await),
            None => None,
        };
        self.check_accounts_max(account).await?;
        let link = match &grant.link {
            Some(link) => Some(self.known_link(link).await?.1),
            None => None,
        };
        let (mut connected, mut id) = (None, None);
        let decide = |record: Option<&Credential>| {
            if !grant.replaces.fits(record) {
                return Err(Code::AccountChanged.into());
            }
            // The date of a consent shows that the link has brought it.
            if link.as_ref().is_some_and(|link| link.is_spent(record)) {
                return Err(Code::LinkUsed.into());
            }
            let known = config.map(|config| config.region).or(grant.request.region);
            let known = known.or(record.map(|record| record.region)).or(grant.profiles.home());
            let region = known.unwrap_or(Region::Na);
            connected = Some(Connected {
                account: account.to_string(),
                region: region.to_string(),
                application: grant.application.clone(),
                region_is_guess: known.is_none(),
                replaced: record.is_some(),
                profiles: grant.profiles.clone(),
            });
            let consent = Consent {
                application: grant.application.clone(),
                region,
                refresh_token: grant.refresh_token.clone(),
                access_token: None,
                consented_at: Some(grant.consented_at),
                // Without this, the server would seed the record again from the configuration.
                seed: config.and_then(|config| config.refresh_token.clone()),
                is_copied: false,
            };
            let record = consent.replacing(account, record, self.engine.clock().now().unix());
            id = Some(ConsentId::of(&record));
            Ok(Some(record))
        };
        let entry = |_| self.entry(Action::Login, account).about(&grant.request.origin);
        let put = self.engine.with.grants.put(account, &SAVE_PAUSES, entry, decide).await;
        match put {
            Ok(()) => Ok(connected.zip(id).expect("what was put was decided on")),
            Err(LoginError { code: Code::StoreFailed, source, .. }) if connected.is_some() => {
                Err(LoginError { source, ..Code::NotSaved.into() })
            }
            Err(error) => Err(error),
        }
    }
}
