//! Which accounts there are: those of the configuration and those of the store.
//!
//! A refresh token in the configuration seeds its account's record. From then on the store's
//! (rotated) value wins until the configured value itself changes, which a fingerprint
//! sealed in the record tells.

use super::{Account, Directory, Table, consent::Reminders};
use crate::{
    clock::Clock,
    config::{self, Config},
    error_chain::chain,
    grants::{Grants, Unwritten},
    id::{AccountId, Region},
    lwa::Application,
    reports::Reports,
    store::{self, Credential, Version},
    token::{Authority, Holder, TokenManager},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Mutex, task::JoinSet, time::sleep};
use tracing::{error, info, warn};

/// How often the store is asked for accounts that other processes added, changed or removed.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(1500);

/// How many accounts are looked at at a time.
const CONCURRENCY: usize = 16;

type Versions = BTreeMap<AccountId, Version>;

/// What was seen when the store was last looked at.
#[derive(Debug, Default)]
struct Seen {
    /// Of each account its record's version, and whether it waited for a person or a key.
    accounts: HashMap<AccountId, (Version, bool)>,
    /// Accounts whose record could not be looked at, which was logged.
    unreadable: HashSet<AccountId>,
    /// The store could not be listed, which was logged.
    is_unlistable: bool,
}

/// Keeps the directory in step with the configuration and the store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Enroller {
    pub(super) config: Arc<Config>,
    grants: Grants,
    tokens: TokenManager,
    clock: Arc<dyn Clock>,
    reports: Reports,
    directory: Directory,
    only: Option<AccountId>,
    pub(super) applications: Arc<BTreeMap<String, Arc<Application>>>,
    reminders: Arc<Reminders>,
    /// Present once the store is followed.
    seen: Arc<Mutex<Option<Seen>>>,
}

impl Enroller {
    /// An enroller for the accounts of `config` and `store`; it knows none until
    /// [`Enroller::enroll`].
    pub fn new(
        config: Arc<Config>,
        grants: Grants,
        tokens: TokenManager,
        clock: Arc<dyn Clock>,
        reports: Reports,
    ) -> Self {
        let applications = config.applications.iter().map(|(name, application)| {
            (name.clone(), Arc::new(Application::new(name, application)))
        });
        let applications = Arc::new(applications.collect());
        let (directory, reminders, seen) = (Directory::default(), Arc::default(), Arc::default());
        Self {
            config,
            grants,
            tokens,
            clock,
            reports,
            directory,
            only: None,
            applications,
            reminders,
            seen,
        }
    }

    /// The same for `account` alone: others are neither enrolled nor followed.
    pub fn only(self, account: AccountId) -> Self {
        Self { only: Some(account), ..self }
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Seeds and recalls every account once, before the first request.
    ///
    /// # Errors
    /// When the store cannot even be listed. An account whose record cannot be read is enrolled
    /// all the same, and says so when it is used.
    pub async fn enroll(&self) -> Result<(), store::Error> {
        self.reconcile(&self.grants.store().versions().await?, &HashSet::new()).await;
        Ok(())
    }

    /// Seeds and recalls one account alone. None if neither the configuration nor the store knows
    /// it, or nothing sensible can be said of it now, which the log tells.
    pub async fn enroll_one(&self, id: &AccountId) -> Result<Option<Arc<Account>>, store::Error> {
        let known = self.config.accounts.contains_key(id)
            || self.grants.store().grants().await?.contains(id);
        let account = if known { self.admit(id).await.map(Arc::new) } else { None };
        if let Some(account) = &account {
            let mut table = Table::clone(&self.directory.snapshot());
            table.insert(id.clone(), account.clone());
            self.directory.replace(table);
        }
        Ok(account)
    }

    /// Looks at the store now, if it is followed: this very process has changed it.
    pub async fn follow_now(&self) {
        if let Some(seen) = &mut *self.seen.lock().await {
            self.look_at_all(seen).await;
        }
    }

    /// Follows the store, and tells of grants that end soon, until dropped.
    pub async fn follow(&self) {
        *self.seen.lock().await = Some(Seen::default());
        let follow = async {
            loop {
                sleep(FOLLOW_INTERVAL).await;
                self.follow_now().await;
            }
        };
        // Beside it: a thousand reminders at once are no reason to overlook a new account.
        let remind = async {
            loop {
                sleep(FOLLOW_INTERVAL).await;
                let (now, store) = (self.clock.now().unix(), self.grants.store());
                let (directory, reports) = (&self.directory, &self.reports);
                self.reminders.warn_of_expiring(directory, reports, store, now).await;
            }
        };
        tokio::join!(follow, remind);
    }

    async fn look_at_all(&self, seen: &mut Seen) {
        match self.grants.store().versions().await {
            Ok(versions) => {
                seen.is_unlistable = false;
                let replaced = self.heal(&versions, seen).await;
                self.reconcile(&versions, &replaced).await;
            }
            Err(error) if !seen.is_unlistable => {
                seen.is_unlistable = true;
                warn!(error = %chain(&error), "cannot list the store: trying on");
            }
            Err(_) => {}
        }
    }

    /// Fills the table anew if accounts came, went, were `replaced` or could not be read before.
    async fn reconcile(&self, stored: &Versions, replaced: &HashSet<AccountId>) {
        let known = self.directory.snapshot();
        let mut table = Table::new();
        let mut admissions = JoinSet::new();
        let mut changed = false;
        let mut place = |id: AccountId, admitted: Option<Account>| {
            // Who cannot be admitted again now stays as it was, and is tried again.
            let account = admitted.map(Arc::new).or_else(|| known.get(&id).cloned());
            changed |= account.as_ref().map(Arc::as_ptr) != known.get(&id).map(Arc::as_ptr);
            table.extend(account.map(|account| (id, account)));
        };
        for id in self.wanted(stored) {
            if known.get(&id).is_some_and(|a| !a.holder.is_pending() && !replaced.contains(&id)) {
                place(id, None);
                continue;
            }
            if admissions.len() >= CONCURRENCY
                && let Some(Ok((id, account))) = admissions.join_next().await
            {
                place(id, account);
            }
            let this = self.clone();
            admissions.spawn(async move {
                let account = this.admit(&id).await;
                (id, account)
            });
        }
        while let Some(admitted) = admissions.join_next().await {
            if let Ok((id, account)) = admitted {
                place(id, account);
            }
        }
        if changed || table.len() != known.len() {
            info!(accounts = table.len(), "accounts enrolled");
            let now = table.clone();
            self.directory.replace(table);
            for (id, account) in known.iter() {
                let is_kept = now.get(id).is_some_and(|kept| Arc::ptr_eq(kept, account));
                if !is_kept {
                    self.tokens.wipe(&account.holder);
                }
            }
        }
    }

    /// Every account of the configuration and of the store.
    fn wanted(&self, stored: &Versions) -> HashSet<AccountId> {
        let all = self.config.accounts.keys().chain(stored.keys());
        all.filter(|id| self.only.as_ref().is_none_or(|only| only == *id)).cloned().collect()
    }

    /// Makes an account of what the configuration and the store say. None for one that nothing
    /// sensible can be said of: it is tried again.
    async fn admit(&self, id: &AccountId) -> Option<Account> {
        let config = self.config.accounts.get(id);
        let (record, refused) = match self.find(id, config).await {
            Ok(Ok(record)) => (Ok(record), None),
            Ok(Err(unwritten)) => (Ok(None), Some(unwritten)),
            Err(error) => (Err(error), None),
        };
        let lasting = record.as_ref().err().is_none_or(store::Error::is_lasting);
        let (region, name, authority) = match (config, &record) {
            (Some(config), _) => {
                let authority = if lasting { Authority::Configuration } else { Authority::Nobody };
                (config.region, config.application.as_str(), authority)
            }
            (None, Ok(Some(record))) => {
                (record.region, record.application.as_str(), Authority::Record)
            }
            // Shown for what it is; once the record opens, it says where the account belongs.
            (None, Err(_)) if lasting => {
                (Region::Na, config::DEFAULT_APPLICATION, Authority::Record)
            }
            (None, _) => return None,
        };
        let Some(application) = self.applications.get(name) else {
            error!(account = id.as_str(), application = name, "no such application is configured");
            return None;
        };
        if authority == Authority::Nobody && self.directory.snapshot().contains_key(id) {
            return None;
        }
        let holder = self.tokens.adopt(id, region, application.clone(), authority);
        match refused {
            Some(refused) => self.tokens.recall_refused(&holder, *refused),
            None => self.recall(&holder, &record),
        }
        Some(Account::new(holder, region, config))
    }

    fn recall(&self, holder: &Arc<Holder>, record: &Result<Option<Credential>, store::Error>) {
        let account = holder.id().as_str();
        match record {
            Ok(Some(record)) => self.tokens.recall(holder, record),
            Ok(None) => {
                warn!(account, "not connected: it has no refresh token");
                self.tokens.not_connected(holder);
            }
            Err(error) => {
                error!(account, error = %chain(error), "cannot read the account's record");
                self.tokens.unreadable(holder, error);
            }
        }
    }

    /// The account's record, seeded from the configuration if that is called for.
    ///
    /// The configured refresh token of an account that this process knows was seen at the first
    /// time. What has come since is newer, also if another server on this store has another one
    /// configured.
    async fn find(
        &self,
        id: &AccountId,
        config: Option<&config::Account>,
    ) -> Result<Result<Option<Credential>, Box<Unwritten>>, store::Error> {
        let is_known =
            self.directory.snapshot().get(id).is_some_and(|one| !one.holder.is_pending());
        let seed = config.and_then(|config| Some((config, config.refresh_token.as_ref()?)));
        let stored = match seed {
            Some(_) if !is_known => None,
            _ => self.grants.store().load(id).await?,
        };
        match seed {
            Some((config, seed)) if stored.is_none() => {
                let now = self.clock.now().unix();
                Ok(self.grants.seed(id, config, seed, now).await?.map(Some))
            }
            _ => Ok(Ok(stored)),
        }
    }

    /// Looks again at every account whose record changed: for those that wait for a person, a key
    /// or a disk, and for those that another process has connected anew, which are returned.
    async fn heal(&self, versions: &Versions, seen: &mut Seen) -> HashSet<AccountId> {
        seen.accounts.retain(|id, _| versions.contains_key(id));
        let mut replaced = HashSet::new();
        for (id, account) in &*self.directory.snapshot() {
            let holder = &account.holder;
            // That it was not saved is logged already, and shown in /status.
            let _ = self.tokens.settle(holder).await;
            let Some(&version) = versions.get(id) else {
                if holder.has_record() && !self.is_seeded(id) {
                    info!(account = id.as_str(), "account was logged out");
                    replaced.insert(id.clone());
                }
                continue;
            };
            let now = (version, self.tokens.is_stuck(holder));
            if seen.accounts.get(id) == Some(&now) {
                continue;
            }
            let looked = self.look(holder).await;
            if looked.is_ok() {
                seen.unreadable.remove(id);
            }
            match looked {
                Ok(true) => drop(replaced.insert(id.clone())),
                Ok(false) => drop(seen.accounts.insert(id.clone(), now)),
                Err(error) => {
                    if seen.unreadable.insert(id.clone()) {
                        let (account, error) = (id.as_str(), chain(&error));
                        warn!(account, error, "cannot look at the record: trying on");
                    }
                    // Only another record, or another moment, can say something else. A change of
                    // permissions changes no version.
                    if error.is_lasting() {
                        seen.accounts.insert(id.clone(), now);
                    }
                }
            }
        }
        replaced
    }

    /// Whether the configuration has a refresh token for the account.
    fn is_seeded(&self, id: &AccountId) -> bool {
        self.config.accounts.get(id).is_some_and(|config| config.refresh_token.is_some())
    }

    /// Reads `holder`'s record and says whether the account must be admitted anew because of it.
    async fn look(&self, holder: &Arc<Holder>) -> Result<bool, store::Error> {
        let (id, account) = (holder.id(), holder.id().as_str());
        let Some(record) = self.grants.store().load(id).await? else { return Ok(false) };
        if holder.has_moved(&record) || holder.is_replaced(&record) {
            match record.refresh_token.is_empty() {
                true => info!(account, "account was logged out"),
                false => info!(account, "the account was connected anew by another process"),
            }
            return Ok(true);
        }
        holder.remember_consent(&record);
        if self.tokens.is_stuck(holder) && self.tokens.reconnected(holder, &record) {
            info!(account, "account can be used again");
        }
        Ok(false)
    }
}
