//! The profiles of a grant: read with its token, and remembered for when it is dead.

use super::{
    Logins,
    finish::Replaces,
    profiles::{self, GrantProfiles},
};
use crate::{
    id::AccountId,
    login::LoginError,
    store::{self, ConsentId, Credential, Epoch, Space},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::timeout;

/// How long the profiles of the old grant may take before the remembered ones count.
const LIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Profiles are remembered for longer than a grant lives.
const REMEMBERED: Duration = Duration::from_secs(400 * 86_400);

/// The profiles of one consent, and of no other.
#[derive(Serialize, Deserialize)]
struct Remembered {
    /// None in what older versions have written.
    #[serde(default)]
    epoch: Option<Epoch>,
    consented_at: Option<u64>,
    profiles: GrantProfiles,
}

impl Remembered {
    fn is_of(&self, consent: ConsentId) -> bool {
        let is_same = match self.epoch {
            Some(epoch) => epoch == consent.epoch,
            None => self.consented_at.is_some(),
        };
        is_same && self.consented_at == consent.consented_at
    }
}

impl Logins {
    pub(super) async fn remember(
        &self,
        account: &AccountId,
        ConsentId { epoch, consented_at }: ConsentId,
        profiles: GrantProfiles,
    ) -> Result<(), LoginError> {
        let key = (Space::Profiles, account.as_str());
        let remembered = Remembered { epoch: Some(epoch), consented_at, profiles };
        self.put(key, account, &remembered, REMEMBERED).await
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
        (replaces, Some(self.remembered(account, &record).await))
    }

    /// The profiles of the consent that `record` is of; empty if not known.
    pub(super) async fn remembered(
        &self,
        account: &AccountId,
        record: &Credential,
    ) -> GrantProfiles {
        let remembered = self.get::<Remembered>((Space::Profiles, account.as_str())).await;
        let remembered = remembered.ok().flatten().map(|(_, remembered)| remembered);
        let its = remembered.filter(|one| one.is_of(ConsentId::of(record)));
        its.map(|one| one.profiles).unwrap_or_default()
    }

    /// The profiles that are remembered of `accounts`; those of which none are known are left out.
    #[cfg(feature = "dashboard")]
    pub(crate) async fn remembered_profiles(
        &self,
        accounts: &[AccountId],
    ) -> Result<std::collections::HashMap<AccountId, GrantProfiles>, store::Error> {
        let names = accounts.iter().map(ToString::to_string).collect();
        let mut found = self.engine.store().entries(Space::Profiles).get_all(names).await?;
        found.retain(|(_, item)| !self.is_expired(item));
        let tokens = self.engine.tokens().clone();
        // Some have thousands.
        let parsed = tokio::task::spawn_blocking(move || {
            let items = found.into_iter().map(|(_, item)| item);
            let parsed = items.filter_map(super::parse::<Remembered>);
            let its = parsed.filter(|(account, one)| {
                tokens.consent(account).is_some_and(|consent| one.is_of(consent))
            });
            its.map(|(account, one)| (account, one.profiles)).collect()
        });
        Ok(parsed.await.unwrap_or_default())
    }

    /// Reads the profiles of an account's grant at Amazon, and remembers them.
    #[cfg(feature = "dashboard")]
    pub(crate) async fn read_profiles(&self, account: &AccountId) -> Result<(), LoginError> {
        use crate::problem::Code;
        let tokens = self.engine.tokens();
        let is_alive = tokens.status(account).is_some_and(|view| !view.state.needs_login());
        let consent = tokens.consent(account).filter(|_| is_alive);
        let consent = consent.ok_or(Code::ReauthorizationRequired)?;
        let found = timeout(LIVE_TIMEOUT, self.live(account)).await.ok().flatten();
        let why = "no region of Amazon's lists the profiles now; try again later";
        let found = found.ok_or_else(|| LoginError::new(Code::UpstreamUnreachable, why))?;
        self.remember(account, consent, found).await
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
