//! Puts a new grant in the place of the old one, and remembers its profiles.

use super::{
    Connected, GrantProfiles, LoginError, LoginOutcome, Logins,
    finish::{NewGrant, Replaces},
    profiles,
};
use crate::{
    audit::Action,
    error_chain::chain,
    grants::Consent,
    id::{AccountId, Region},
    problem::Code,
    store::{self, Credential, Space},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::timeout;
use tracing::{info, warn};

/// How long the profiles of the old grant may take before the remembered ones count.
const LIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Profiles are remembered for longer than a grant lives.
const REMEMBERED: Duration = Duration::from_secs(400 * 86_400);

/// Between attempts to save a new grant: Amazon issues it once, and a disk may be busy or full for a
/// moment.
const SAVE_PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(600), Duration::from_millis(1200)];

/// The profiles of the grant that was consented to at that moment, and of no other.
#[derive(Serialize, Deserialize)]
struct Remembered {
    consented_at: u64,
    profiles: GrantProfiles,
}

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
        let connected = self.write(account, grant).await?;
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
        let key = (Space::Profiles, account.as_str());
        let profiles = grant.profiles.clone();
        let remembered = Remembered { consented_at: grant.consented_at, profiles };
        // The grant is safe; without this the next login asks more than it must.
        if let Err(error) = self.put(key, account, &remembered, REMEMBERED).await {
            warn!(account = account.as_str(), error = %chain(&error), "cannot remember the profiles");
        }
        Ok(connected)
    }

    async fn write(&self, account: &AccountId, grant: &NewGrant) -> Result<Connected, LoginError> {
        let config = self.engine.config().accounts.get(account);
        let _adding = match account.tenant() {
            Some(_) => Some(self.adding.lock().await),
            None => None,
        };
        self.check_accounts_max(account).await?;
        let link = match &grant.link {
            Some(link) => Some(self.known_link(link).await?.1),
            None => None,
        };
        let mut connected = None;
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
            Ok(Some(consent.replacing(account, record, self.engine.clock().now().unix())))
        };
        let entry = |_| self.entry(Action::Login, account).about(&grant.request.origin);
        let put = self.engine.with.grants.put(account, &SAVE_PAUSES, entry, decide).await;
        match put {
            Ok(()) => Ok(connected.expect("what was put was decided on")),
            Err(LoginError { code: Code::StoreFailed, source, .. }) if connected.is_some() => {
                Err(LoginError { source, ..Code::NotSaved.into() })
            }
            Err(error) => Err(error),
        }
    }

    /// The grant that is in place, and its profiles: of now if it is alive, else of when it was
    /// connected; empty if not known, none if there is no grant.
    pub(super) async fn known(&self, account: &AccountId) -> (Replaces, Option<GrantProfiles>) {
        let store = self.engine.store();
        let record = match store.load(account).await {
            Ok(record) => record.filter(|record| !record.refresh_token.is_empty()),
            // What cannot be read cannot be compared, and is not replaced either.
            Err(_) => return (Replaces::Nothing, Some(GrantProfiles::default())),
        };
        let Some(record) = record else { return (Replaces::Nothing, None) };
        let replaces = Replaces::Grant {
            consented_at: record.consented_at,
            fingerprint: store::fingerprint(&record.refresh_token),
        };
        let alive = !record.reauthorization_required;
        if alive && let Ok(Some(found)) = timeout(LIVE_TIMEOUT, self.live(account)).await {
            return (replaces, Some(found));
        }
        let remembered = self.get::<Remembered>((Space::Profiles, account.as_str())).await;
        let remembered = remembered.ok().flatten().map(|(_, remembered)| remembered);
        let its = remembered.filter(|one| record.consented_at == Some(one.consented_at));
        (replaces, Some(its.map(|one| one.profiles).unwrap_or_default()))
    }

    async fn live(&self, account: &AccountId) -> Option<GrantProfiles> {
        let known = self.engine.account(account).await.ok()??;
        let token = self.engine.tokens().token(account).await.ok()?;
        let client_id = known.client_id();
        let upstream = &self.engine.config().upstream;
        let http = &self.engine.http;
        let found = profiles::of_grant(http, upstream, token.header(), client_id).await;
        (found != GrantProfiles::default()).then_some(found)
    }
}
