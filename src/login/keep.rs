//! Puts a new grant in the place of the old one, and remembers whose it is.

use super::{
    Connected, GrantProfiles, LoginCause, LoginError, LoginOutcome, Logins,
    begin::LoginLink,
    finish::{NewGrant, Replaces},
    profiles,
};
use crate::{
    audit::Action,
    error_chain::chain,
    id::{AccountId, Region},
    store::{Credential, Space, Store},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// How long the old grant may take to tell its profiles before the remembered ones count.
const LIVE_PATIENCE: Duration = Duration::from_secs(10);
/// Profiles are remembered for longer than a grant lives.
const REMEMBERED: Duration = Duration::from_secs(400 * 86_400);

/// Between attempts to save a new grant.
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
    fn fits(&self, record: Option<&Credential>, store: &Store) -> bool {
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
                    && tokens.any(|token| store.fingerprint(token) == *fingerprint)
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
        let store = self.engine.store();
        let config = self.engine.config().accounts.get(account);
        let lock = store.lock(account).await?;
        let record = store.load(account).await?;
        if !grant.replaces.fits(record.as_ref(), store) {
            return Err(LoginCause::AccountChanged.into());
        }
        let region = config.map(|config| config.region).or(grant.region);
        let region = region.or(record.as_ref().map(|record| record.region));
        let home = grant.profiles.home();
        let region_is_guess = region.is_none() && home.is_none();
        let region = region.or(home).unwrap_or(Region::Na);
        // Without this, the server would seed the record anew from the configuration.
        let seed = config.and_then(|config| config.refresh_token.as_ref());
        let credential = Credential {
            epoch: crate::store::Epoch::random(),
            account: account.clone(),
            application: grant.application.clone(),
            region,
            refresh_token: grant.refresh_token.clone(),
            previous_refresh_token: None,
            // Its absence tells every process that a person put this grant here.
            access_token: None,
            generation: record.as_ref().map_or(0, |record| record.generation),
            consented_at: Some(grant.consented_at),
            updated_at: self.engine.clock().now().unix(),
            reauthorization_required: false,
            seed: seed.map(|seed| store.fingerprint(seed)),
        };
        if let Some(link) = &grant.link {
            let known = self.get::<LoginLink>((Space::Ticket, link)).await?;
            let (_, known) = known.ok_or(LoginCause::LinkUsed)?;
            if known.is_spent(record.as_ref()) {
                return Err(LoginCause::LinkUsed.into());
            }
        }
        let entry = self.entry(Action::Login, account).about(&grant.origin);
        let saved = self.save(&credential);
        self.engine.audit().around(entry, "store_failed", saved).await?;
        let connected = Connected {
            account: account.to_string(),
            region: region.to_string(),
            application: grant.application.clone(),
            region_is_guess,
            replaced: record.is_some(),
            profiles: grant.profiles.clone(),
        };
        if let Some(link) = &grant.link {
            // Before the link is gone: who waits by it must not find neither.
            let outcome = Ok(LoginOutcome::Connected(connected.clone()));
            self.remember_outcome(account, Some(link), &outcome).await;
            // The one success that a link is good for; the account's lock keeps others out.
            if let Err(error) = store.entries(Space::Ticket).delete(link).await {
                // The grant is in place; the date of its consent tells that the link is spent.
                warn!(account = account.as_str(), error = %chain(&error), "cannot remove a used link");
            }
        }
        drop(lock);
        self.engine.follow_now().await;
        info!(account = account.as_str(), region = region.as_str(), "account connected");
        let name = (Space::Profiles, account.as_str());
        let remembered =
            Remembered { consented_at: grant.consented_at, profiles: grant.profiles.clone() };
        // The grant is safe; what is lost here is that the next login asks more than it must.
        if let Err(error) = self.put(name, account, &remembered, REMEMBERED).await {
            warn!(account = account.as_str(), error = %chain(&error), "cannot remember the profiles");
        }
        Ok(connected)
    }

    /// Amazon gives this refresh token once, so a disk that is busy or full for a moment is asked
    /// again.
    async fn save(&self, credential: &Credential) -> Result<(), LoginError> {
        let store = self.engine.store();
        for pause in SAVE_PAUSES {
            if store.save(credential).await.is_ok() {
                return Ok(());
            }
            sleep(pause).await;
        }
        store.save(credential).await.map_err(|error| LoginError::of(LoginCause::NotSaved, error))
    }

    /// The grant that is in place, and its profiles: what it says now if it lives, else what it
    /// said when it was connected; an empty answer if nobody knows, none if there is no grant.
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
            fingerprint: store.fingerprint(&record.refresh_token),
        };
        let alive = !record.reauthorization_required;
        if alive && let Ok(Some(found)) = timeout(LIVE_PATIENCE, self.live(account)).await {
            return (replaces, Some(found));
        }
        let remembered = self.get::<Remembered>((Space::Profiles, account.as_str())).await;
        let remembered = remembered.ok().flatten().map(|(_, remembered)| remembered);
        let its = remembered.filter(|one| record.consented_at == Some(one.consented_at));
        (replaces, Some(its.map(|one| one.profiles).unwrap_or_default()))
    }

    async fn live(&self, account: &AccountId) -> Option<GrantProfiles> {
        let known = self.engine.account(account).await.ok()??;
        let token = self.engine.tokens().token(&known.holder).await.ok()?;
        let client_id = known.holder.application().client_id();
        let upstream = &self.engine.config().upstream;
        let http = self.engine.http();
        let found = profiles::of_grant(http, upstream, token.header(), client_id).await;
        (found != GrantProfiles::default()).then_some(found)
    }
}
