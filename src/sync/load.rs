//! Makes accounts of what the configuration and the store say.

use super::{Account, enroll::Enroller};
use crate::{
    config,
    error_chain::chain,
    id::{AccountId, Region},
    store::{self, Credential},
    token::{Authority, KnownGrant, Place},
};
use std::sync::atomic::Ordering::Relaxed;
use tracing::{error, warn};

/// An account that was loaded; none where neither says enough of it.
pub(super) type Loaded = Option<Account>;

impl Enroller {
    /// Loads accounts, each with whether it is seeded anew, whose records are read at once.
    pub(super) async fn load_batch(
        &self,
        batch: Vec<(AccountId, bool)>,
    ) -> Vec<(AccountId, Loaded)> {
        let ids: Vec<AccountId> = batch.iter().map(|(id, _)| id.clone()).collect();
        // One that cannot be read must not keep the others: then each is read by itself.
        let mut read = self.store().load_all(&ids).await.ok();
        let mut loaded = Vec::with_capacity(batch.len());
        for (id, is_seeded) in batch {
            let record = read.as_mut().map(|read| read.remove(&id).transpose());
            let account = self.load(&id, is_seeded, record).await;
            loaded.push((id, account));
        }
        loaded
    }

    /// Makes an account of what the configuration and the store say; `record` is its record, if that
    /// was read. None where neither says enough: it is tried again.
    pub(super) async fn load(
        &self,
        id: &AccountId,
        is_seeded: bool,
        record: Option<Result<Option<Credential>, store::Error>>,
    ) -> Loaded {
        let configured = self.configured.load_full();
        let (config, account) = (configured.config.accounts.get(id), id.as_str());
        let grant = self.find(id, config, is_seeded, record).await;
        let grant = self.judge(id, grant.unwrap_or_else(KnownGrant::Unreadable));
        if matches!(&grant, KnownGrant::Unreadable(error) if error.is_away()) {
            self.met_outage.store(true, Relaxed);
        }
        let lasting = !matches!(&grant, KnownGrant::Unreadable(error) if !error.is_lasting());
        let (region, name, authority) = match (config, &grant) {
            (Some(config), _) => {
                let authority =
                    if lasting { Authority::Configuration } else { Authority::Undecided };
                (config.region, config.application.as_str(), authority)
            }
            (None, KnownGrant::Record(record) | KnownGrant::SetBack(record, _)) => {
                (record.region, record.application.as_str(), Authority::Record)
            }
            // Shown for what it is; once the record opens, it says where the account belongs.
            (None, KnownGrant::Unreadable(_)) if lasting => {
                (Region::Na, config::DEFAULT_APPLICATION, Authority::Record)
            }
            (None, _) => return None,
        };
        let Some(application) = configured.applications.get(name) else {
            error!(account, application = name, "no such application is configured");
            return None;
        };
        if authority == Authority::Undecided && self.directory.load().contains(id.as_str()) {
            return None;
        }
        match &grant {
            KnownGrant::Absent => warn!(account, "not connected: it has no refresh token"),
            KnownGrant::Unreadable(error) => {
                error!(account, error = %chain(error), "cannot read the account's record");
            }
            KnownGrant::Record(_) | KnownGrant::SetBack(..) | KnownGrant::Unwritten(_) => {}
        }
        let place = Place { region, application: application.clone(), authority };
        let state = self.tokens.new_state(id, place, grant);
        Some(Account::new(state, region, application.clone(), config))
    }

    /// The account's grant, seeded from the configuration if that is called for.
    ///
    /// The configured refresh token of an account that this process knows was seen at the first
    /// time. What has come since is newer, also if another server on this store has another one
    /// configured. It is looked at again where it `is_seeded` now: it changed.
    async fn find(
        &self,
        id: &AccountId,
        config: Option<&config::AccountConfig>,
        is_seeded: bool,
        record: Option<Result<Option<Credential>, store::Error>>,
    ) -> Result<KnownGrant, store::Error> {
        let is_known = !is_seeded && self.tokens.state(id).is_some_and(|state| !state.is_pending());
        let seed = config.and_then(|config| Some((config, config.refresh_token.as_ref()?)));
        let stored = match seed {
            Some(_) if !is_known => None,
            _ => match record {
                Some(record) => record?,
                None => self.store().load(id).await?,
            },
        };
        Ok(match (stored, seed) {
            (Some(record), _) => KnownGrant::Record(record),
            (None, None) => KnownGrant::Absent,
            (None, Some((config, seed))) => {
                let now = self.with.clock.now().unix();
                match self.with.grants.seed(id, config, seed, now).await? {
                    Ok(record) => KnownGrant::Record(record),
                    Err(unwritten) => KnownGrant::Unwritten(unwritten),
                }
            }
        })
    }
}
