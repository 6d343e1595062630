//! Which accounts there are: those of the configuration and those of the store.
//!
//! A refresh token in the configuration seeds its account's record. From then on the store's
//! (rotated) value wins until the configured value itself changes, which a fingerprint
//! sealed in the record shows.

use super::{Account, Directory, Table, consent::Reminders};
use crate::{
    config::{self, Config},
    error_chain::chain,
    id::{AccountId, Region},
    lwa::Application,
    store::{self, Store, Version},
    token::{Authority, Dependencies, KnownGrant, StateTable, TokenManager, TokenState},
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
struct SeenRecords {
    /// Of each account its record's version, and whether it waited for a person or a key.
    accounts: HashMap<AccountId, (Version, bool)>,
    /// Accounts whose record could not be looked at, which was logged.
    unreadable: HashSet<AccountId>,
    /// The store could not be listed, which was logged.
    is_unlistable: bool,
}

/// What a look at an account's record has shown.
enum Looked {
    /// Nothing more, until the record changes.
    Seen,
    /// The account must be loaded anew.
    Replaced,
    /// The account has moved, and is loaded anew once its own record is saved: another state would
    /// not have that.
    Unsaved,
}

/// Keeps the directory in step with the configuration and the store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Enroller {
    config: Arc<Config>,
    with: Dependencies,
    tokens: TokenManager,
    pub directory: Directory,
    /// The one account that is enrolled and followed; none: all of them.
    pub only: Option<AccountId>,
    applications: Arc<BTreeMap<String, Arc<Application>>>,
    reminders: Arc<Reminders>,
    /// Held while the accounts are replaced: two changes at once would lose one.
    changing: Arc<Mutex<()>>,
    /// Present once the store is followed.
    seen: Arc<Mutex<Option<SeenRecords>>>,
}

impl Enroller {
    /// An enroller for the accounts of `config` and `store`; it knows none until
    /// [`Enroller::enroll`].
    pub fn new(config: Arc<Config>, with: Dependencies, tokens: TokenManager) -> Self {
        let applications = config.applications.iter().map(|(name, application)| {
            (name.clone(), Arc::new(Application::new(name, application)))
        });
        Self {
            applications: Arc::new(applications.collect()),
            config,
            with,
            tokens,
            directory: Directory::default(),
            only: None,
            reminders: Arc::default(),
            changing: Arc::default(),
            seen: Arc::default(),
        }
    }

    /// The application `name` as configured; its client secrets may change.
    pub fn application(&self, name: &str) -> Option<Arc<Application>> {
        self.applications.get(name).cloned()
    }

    /// Replaces the client secrets of the applications that `config` has too, and says of which.
    ///
    /// A secret belongs to its client id and goes to its endpoint: where `config` has another one,
    /// all of the application waits for a restart.
    pub fn set_client_secrets(&self, config: &Config) -> Vec<&str> {
        let mut replaced = Vec::new();
        for (name, application) in &*self.applications {
            if let (Some(configured), Some(running)) =
                (config.applications.get(name), self.config.applications.get(name))
                && configured.client_id == running.client_id
                && configured.token_url == running.token_url
            {
                application.set_secrets(&configured.client_secrets);
                replaced.push(name.as_str());
            }
        }
        replaced
    }

    /// Seeds and loads every account once, before the first request.
    ///
    /// # Errors
    /// When the store cannot even be listed. An account whose record cannot be read is enrolled
    /// all the same, and says so when it is used.
    pub async fn enroll(&self) -> Result<(), store::Error> {
        self.reconcile(&self.store().versions().await?, &HashSet::new()).await;
        Ok(())
    }

    /// Seeds and loads one account alone. None if neither the configuration nor the store knows
    /// it, or neither says enough now, which is logged.
    pub async fn enroll_one(&self, id: &AccountId) -> Result<Option<Arc<Account>>, store::Error> {
        let known =
            self.config.accounts.contains_key(id) || self.store().grants().await?.contains(id);
        let _changing = self.changing.lock().await;
        let Some((account, state)) = (if known { self.load(id).await } else { None }) else {
            return Ok(None);
        };
        let account = Arc::new(account);
        let mut states = StateTable::clone(&self.tokens.states());
        states.insert(id.clone(), state);
        self.tokens.set_states(states);
        let mut table = Table::clone(&self.directory.load());
        table.insert(id.clone(), account.clone());
        self.directory.store(Arc::new(table));
        Ok(Some(account))
    }

    /// Looks at the store now, if it is followed: this very process has changed it.
    pub async fn follow_now(&self) {
        if let Some(seen) = &mut *self.seen.lock().await {
            self.check_store(seen).await;
        }
    }

    /// Follows the store, and warns of grants that end soon, until dropped.
    pub async fn follow(&self) {
        *self.seen.lock().await = Some(SeenRecords::default());
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
                let (now, store) = (self.with.clock.now().unix(), self.store());
                let (tokens, reports) = (&self.tokens, &self.with.reports);
                self.reminders.warn_of_expiring(tokens, reports, store, now).await;
            }
        };
        tokio::join!(follow, remind);
    }

    async fn check_store(&self, seen: &mut SeenRecords) {
        match self.store().versions().await {
            Ok(versions) => {
                seen.is_unlistable = false;
                let replaced = self.recover(&versions, seen).await;
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
        let _changing = self.changing.lock().await;
        let (known, known_states) = (self.directory.load_full(), self.tokens.states());
        let (mut table, mut states) = (Table::new(), StateTable::new());
        let mut loads = JoinSet::new();
        let mut changed = false;
        let mut place = |id: AccountId, loaded: Option<(Account, Arc<TokenState>)>| {
            changed |= loaded.is_some();
            let loaded = loaded.map(|(account, state)| (Arc::new(account), state));
            // What cannot be loaded again now stays as it was, and is tried again.
            let kept = || Some((known.get(&id)?.clone(), known_states.get(&id)?.clone()));
            if let Some((account, state)) = loaded.or_else(kept) {
                table.insert(id.clone(), account);
                states.insert(id, state);
            }
        };
        for id in self.wanted(stored) {
            let is_known = known_states.get(&id).is_some_and(|state| !state.is_pending());
            if is_known && !replaced.contains(&id) {
                place(id, None);
                continue;
            }
            if loads.len() >= CONCURRENCY
                && let Some(Ok((id, loaded))) = loads.join_next().await
            {
                place(id, loaded);
            }
            let this = self.clone();
            loads.spawn(async move {
                let loaded = this.load(&id).await;
                (id, loaded)
            });
        }
        while let Some(loaded) = loads.join_next().await {
            if let Ok((id, loaded)) = loaded {
                place(id, loaded);
            }
        }
        if changed || table.len() != known.len() {
            info!(accounts = table.len(), "accounts enrolled");
            // An account that is found must have a state.
            self.tokens.set_states(states);
            self.directory.store(Arc::new(table));
        }
    }

    /// Every account of the configuration and of the store.
    fn wanted(&self, stored: &Versions) -> HashSet<AccountId> {
        let all = self.config.accounts.keys().chain(stored.keys());
        all.filter(|id| self.only.as_ref().is_none_or(|only| only == *id)).cloned().collect()
    }

    /// Makes an account of what the configuration and the store say. None where neither says
    /// enough: it is tried again.
    async fn load(&self, id: &AccountId) -> Option<(Account, Arc<TokenState>)> {
        let (config, account) = (self.config.accounts.get(id), id.as_str());
        let grant = self.find(id, config).await.unwrap_or_else(KnownGrant::Unreadable);
        let lasting = !matches!(&grant, KnownGrant::Unreadable(error) if !error.is_lasting());
        let (region, name, authority) = match (config, &grant) {
            (Some(config), _) => {
                let authority =
                    if lasting { Authority::Configuration } else { Authority::Undecided };
                (config.region, config.application.as_str(), authority)
            }
            (None, KnownGrant::Record(record)) => {
                (record.region, record.application.as_str(), Authority::Record)
            }
            // Shown for what it is; once the record opens, it says where the account belongs.
            (None, KnownGrant::Unreadable(_)) if lasting => {
                (Region::Na, config::DEFAULT_APPLICATION, Authority::Record)
            }
            (None, _) => return None,
        };
        let Some(application) = self.applications.get(name) else {
            error!(account, application = name, "no such application is configured");
            return None;
        };
        if authority == Authority::Undecided && self.directory.load().contains_key(id) {
            return None;
        }
        match &grant {
            KnownGrant::Absent => warn!(account, "not connected: it has no refresh token"),
            KnownGrant::Unreadable(error) => {
                error!(account, error = %chain(error), "cannot read the account's record");
            }
            KnownGrant::Record(_) | KnownGrant::Unwritten(_) => {}
        }
        let state = self.tokens.new_state(id, region, application.clone(), authority, grant);
        Some((Account::new(id, region, application, config), state))
    }

    /// The account's grant, seeded from the configuration if that is called for.
    ///
    /// The configured refresh token of an account that this process knows was seen at the first
    /// time. What has come since is newer, also if another server on this store has another one
    /// configured.
    async fn find(
        &self,
        id: &AccountId,
        config: Option<&config::AccountConfig>,
    ) -> Result<KnownGrant, store::Error> {
        let is_known = self.tokens.state(id).is_some_and(|state| !state.is_pending());
        let seed = config.and_then(|config| Some((config, config.refresh_token.as_ref()?)));
        let stored = match seed {
            Some(_) if !is_known => None,
            _ => self.store().load(id).await?,
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

    /// Looks again at every account whose record changed: for those that wait for a person, a key
    /// or a disk, and for those that another process has connected anew, which are returned.
    async fn recover(&self, versions: &Versions, seen: &mut SeenRecords) -> HashSet<AccountId> {
        seen.accounts.retain(|id, _| versions.contains_key(id));
        let mut replaced = HashSet::new();
        for (id, state) in &*self.tokens.states() {
            // That it was not saved is logged already, and shown in /status.
            let _ = self.tokens.save_unsaved(state).await;
            let Some(&version) = versions.get(id) else {
                if state.has_record() && !self.is_seeded(id) {
                    info!(account = id.as_str(), "account was logged out");
                    replaced.insert(id.clone());
                }
                continue;
            };
            let now = (version, self.tokens.is_stuck(state));
            if seen.accounts.get(id) == Some(&now) {
                continue;
            }
            let looked = self.check_record(state).await;
            if looked.is_ok() {
                seen.unreadable.remove(id);
            }
            match looked {
                Ok(Looked::Replaced) => drop(replaced.insert(id.clone())),
                Ok(Looked::Seen) => drop(seen.accounts.insert(id.clone(), now)),
                Ok(Looked::Unsaved) => {}
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

    fn store(&self) -> &Store {
        self.with.grants.store()
    }

    /// Whether the configuration has a refresh token for the account.
    fn is_seeded(&self, id: &AccountId) -> bool {
        self.config.accounts.get(id).is_some_and(|config| config.refresh_token.is_some())
    }

    /// Reads `state`'s record.
    async fn check_record(&self, state: &Arc<TokenState>) -> Result<Looked, store::Error> {
        let (id, account) = (&state.id, state.id.as_str());
        let Some(record) = self.store().load(id).await? else { return Ok(Looked::Seen) };
        let (has_moved, is_replaced) = (state.has_moved(&record), state.is_replaced(&record));
        let is_unsaved = self.tokens.status(id).is_some_and(|view| view.is_unsaved);
        if has_moved && !is_replaced && is_unsaved {
            return Ok(Looked::Unsaved);
        }
        if has_moved || is_replaced {
            match record.refresh_token.is_empty() {
                true => info!(account, "account was logged out"),
                false => info!(account, "the account was connected anew by another process"),
            }
            return Ok(Looked::Replaced);
        }
        state.remember_consent(&record);
        if self.tokens.is_stuck(state) && self.tokens.reconnected(state, &record) {
            info!(account, "account can be used again");
        }
        Ok(Looked::Seen)
    }
}
