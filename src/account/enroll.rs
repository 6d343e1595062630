//! Which accounts there are: those of the configuration and those of the store.
//!
//! A refresh token in the configuration seeds its account's record. From then on the store's
//! (rotated) value wins until the configured value itself changes, which a keyed fingerprint
//! beside the record tells.

use super::{Account, Directory, Table, consent::Reminders};
use crate::{
    clock::Clock,
    config::{self, Config},
    error_chain::chain,
    id::{AccountId, Region},
    lwa::Application,
    secret::Secret,
    store::{self, Credential, CredentialStore},
    token::{Holder, TokenManager},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};
use tracing::{error, info, warn};

/// How often the store is asked for accounts that other processes added, changed or removed.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(1500);

/// Keeps the directory in step with the configuration and the store.
#[derive(Debug)]
pub struct Enroller {
    config: Arc<Config>,
    store: Arc<dyn CredentialStore>,
    tokens: TokenManager,
    clock: Arc<dyn Clock>,
    directory: Directory,
    applications: BTreeMap<String, Arc<Application>>,
    reminders: Reminders,
}

impl Enroller {
    /// An enroller for `directory`, which is empty until [`Enroller::enroll`].
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        store: Arc<dyn CredentialStore>,
        tokens: TokenManager,
        clock: Arc<dyn Clock>,
        directory: Directory,
    ) -> Self {
        let applications = config
            .applications
            .iter()
            .map(|(name, application)| {
                (name.clone(), Arc::new(Application::new(name, application)))
            })
            .collect();
        Self {
            config,
            store,
            tokens,
            clock,
            directory,
            applications,
            reminders: Reminders::default(),
        }
    }

    /// Seeds and recalls every account once, before the first request.
    ///
    /// # Errors
    /// When the store cannot even be listed. An account whose record cannot be read is enrolled
    /// all the same, and says so when it is used.
    pub async fn enroll(&self) -> Result<(), store::Error> {
        self.reconcile(&HashSet::new()).await
    }

    /// Follows the store until dropped.
    pub async fn follow(&self) {
        loop {
            tokio::time::sleep(FOLLOW_INTERVAL).await;
            let replaced = self.heal().await;
            if let Err(error) = self.reconcile(&replaced).await {
                warn!(error = %chain(&error), "cannot list the store");
            }
            self.reminders.warn_of_expiring(&self.directory, self.clock.now().unix());
        }
    }

    /// Fills the table anew if accounts came, went or were `replaced`.
    async fn reconcile(&self, replaced: &HashSet<AccountId>) -> Result<(), store::Error> {
        let stored: HashSet<AccountId> = self.store.list().await?.into_iter().collect();
        let wanted: BTreeSet<&AccountId> = self.config.accounts.keys().chain(&stored).collect();
        let known = self.directory.snapshot();
        let same = known.len() == wanted.len() && wanted.iter().all(|id| known.contains_key(*id));
        if same && replaced.is_empty() {
            return Ok(());
        }
        let mut table = Table::new();
        for id in wanted {
            if let Some(account) = known.get(id).filter(|_| !replaced.contains(id)) {
                table.insert(id.clone(), account.clone());
            } else if let Some(account) = self.admit(id).await {
                table.insert(id.clone(), Arc::new(account));
            }
        }
        info!(accounts = table.len(), "accounts enrolled");
        self.directory.replace(table);
        Ok(())
    }

    async fn admit(&self, id: &AccountId) -> Option<Account> {
        let config = self.config.accounts.get(id);
        let record = match config.and_then(|config| config.refresh_token.as_ref()) {
            Some(seed) => self.seed(id, config?, seed).await,
            None => self.store.load(id).await,
        };
        let region = match (config, &record) {
            (Some(config), _) => config.region,
            (None, Ok(Some(record))) => record.region,
            (None, _) => Region::Na,
        };
        let name = match (config, &record) {
            (Some(config), _) => config.application.as_str(),
            (None, Ok(Some(record))) => record.application.as_str(),
            (None, _) => config::DEFAULT_APPLICATION,
        };
        let Some(application) = self.applications.get(name) else {
            error!(account = id.as_str(), application = name, "no such application is configured");
            return None;
        };
        let holder = self.tokens.adopt(id, region, application.clone());
        self.recall(&holder, &record);
        Some(Account::new(holder, region, config))
    }

    fn recall(&self, holder: &Arc<Holder>, record: &Result<Option<Credential>, store::Error>) {
        let account = holder.id().as_str();
        match record {
            Ok(Some(record)) => self.tokens.recall(holder, record),
            Ok(None) => {
                warn!(account, "not connected: it has no refresh token");
                self.tokens.unusable(holder, false, "not connected");
            }
            Err(error) => {
                error!(account, error = %chain(error), "cannot read the account's record");
                if error.is_sealed() {
                    self.tokens.unusable(holder, true, &chain(error));
                }
            }
        }
    }

    /// Writes the configured refresh token into the record, unless it was written before.
    async fn seed(
        &self,
        id: &AccountId,
        config: &config::Account,
        seed: &Secret,
    ) -> Result<Option<Credential>, store::Error> {
        let _lock = self.store.lock(id).await?;
        let record = self.store.load(id).await?;
        let fingerprint = self.store.fingerprint(seed);
        if let Some(record) = &record
            && record
                .seed
                .as_deref()
                .is_some_and(|known| self.store.fingerprint_matches(known, seed))
        {
            return Ok(Some(self.refingerprint(record, fingerprint).await));
        }
        let seeded = Credential {
            account: id.clone(),
            application: config.application.clone(),
            region: config.region,
            refresh_token: seed.clone(),
            previous_refresh_token: None,
            access_token: None,
            generation: record.as_ref().map_or(0, |record| record.generation),
            consented_at: None,
            updated_at: self.clock.now().unix(),
            reauthorization_required: false,
            seed: Some(fingerprint),
        };
        self.store.save(&seeded).await?;
        info!(account = id.as_str(), "refresh token taken from the configuration");
        Ok(Some(seeded))
    }

    /// Makes the seed's fingerprint with the key that seals now, under the account's lock.
    ///
    /// A fingerprint names its key. Once that key is retired it matches nothing, and the
    /// configured token would replace the rotated one.
    async fn refingerprint(&self, record: &Credential, fingerprint: String) -> Credential {
        let mut record = record.clone();
        if record.seed.as_deref() != Some(fingerprint.as_str()) {
            record.seed = Some(fingerprint);
            if let Err(error) = self.store.save(&record).await {
                let account = record.account.as_str();
                warn!(account, error = %chain(&error), "cannot save the record under the new key");
            }
        }
        record
    }

    /// Looks at every account's record again: for those that wait for a person, a key or a disk,
    /// and for those that another process has connected to another grant, which are returned.
    async fn heal(&self) -> HashSet<AccountId> {
        let mut replaced = HashSet::new();
        for account in self.directory.snapshot().values() {
            let holder = &account.holder;
            if let Err(error) = self.tokens.settle(holder).await {
                warn!(account = account.id.as_str(), error = %chain(&error), "still not saved");
            }
            let Ok(Some(record)) = self.store.load(&account.id).await else { continue };
            holder.remember_consent(&record);
            if self.tokens.is_replaced(holder, &record) || self.has_moved(account, &record) {
                info!(account = account.id.as_str(), "account was connected anew");
                replaced.insert(account.id.clone());
            } else if self.tokens.is_stuck(holder) && self.tokens.reconnected(holder, &record) {
                info!(account = account.id.as_str(), "account can be used again");
            }
        }
        replaced
    }

    /// Whether the record says another region or application. The configuration's word is final.
    fn has_moved(&self, account: &Account, record: &Credential) -> bool {
        !self.config.accounts.contains_key(&account.id)
            && (account.region != record.region
                || account.holder.application().name() != record.application)
    }
}
