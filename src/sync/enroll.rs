//! Which accounts there are: those of the configuration and those of the store.
//!
//! A refresh token in the configuration seeds its account's record. From then on the store's
//! (rotated) value wins until the configured value itself changes, which a fingerprint
//! sealed in the record shows.

use super::{Account, Directory, Table, consent::Reminders, load::Loaded, running::RunningConfig};
use crate::{
    config::Config,
    error_chain::chain,
    id::AccountId,
    lwa::Application,
    store::{
        self, Marks, Store,
        backend::{SeenEntries, VersionTable},
    },
    token::{Dependencies, TokenManager},
};
use arc_swap::ArcSwap;
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{info, warn};

/// How often the store is asked for accounts that other processes added, changed or removed.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(1500);

/// How often all accounts are looked at for grants that end soon, by their number: it is about days.
const REMIND_INTERVAL_EACH: Duration = Duration::from_micros(500);

/// How often a start reads the records of a database that comes and goes, before it serves with what it
/// has.
const ENROLL_TRIES: usize = 20;

/// The pause between two looks at the store, whatever it hints at.
const FOLLOW_PAUSE: Duration = Duration::from_millis(250);

/// How many batches of accounts are loaded at a time, and how many accounts a batch has: a database
/// needs one statement for it.
const CONCURRENCY: usize = 16;
const BATCH: usize = 100;

/// What was seen when the store was last looked at.
#[derive(Debug, Default)]
pub(super) struct SeenRecords {
    /// Which records the store has.
    pub(super) listed: SeenEntries,
    /// Every account is in the table, and nothing is left to try again.
    is_settled: bool,
    /// Accounts whose record could not be looked at, which was logged.
    pub(super) unreadable: HashSet<AccountId>,
    /// The store could not be listed, which was logged.
    is_unlistable: bool,
    /// When every account was last looked at.
    pub(super) all_looked_at: Option<Instant>,
}

/// Keeps the directory in step with the configuration and the store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Enroller {
    pub(super) configured: Arc<ArcSwap<RunningConfig>>,
    pub(super) with: Dependencies,
    pub(super) tokens: TokenManager,
    pub directory: Directory,
    /// The one account that is enrolled and followed; none: all of them.
    pub only: Option<AccountId>,
    reminders: Arc<Reminders>,
    /// How far records had come before the start, until they are loaded.
    pub(super) marks: Arc<parking_lot::Mutex<Marks>>,
    /// Held while the accounts are replaced: two changes at once would lose one.
    pub(super) changing: Arc<Mutex<()>>,
    /// A record could not be read because the database was away.
    pub(super) met_outage: Arc<AtomicBool>,
    /// Present once the store is followed.
    seen: Arc<Mutex<Option<SeenRecords>>>,
}

impl Enroller {
    /// An enroller for the accounts of `config` and `store`; it knows none until
    /// [`Enroller::enroll`].
    pub fn new(config: Arc<Config>, with: Dependencies, tokens: TokenManager) -> Self {
        Self {
            configured: Arc::new(ArcSwap::from_pointee(RunningConfig::new(config))),
            with,
            tokens,
            directory: Directory::default(),
            only: None,
            reminders: Arc::default(),
            marks: Arc::default(),
            changing: Arc::default(),
            met_outage: Arc::default(),
            seen: Arc::default(),
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.configured.load().config.clone()
    }

    /// The application `name` as configured.
    pub fn application(&self, name: &str) -> Option<Arc<Application>> {
        self.configured.load().applications.get(name).cloned()
    }

    /// Seeds and loads every account once, before the first request.
    ///
    /// # Errors
    /// When the store cannot be listed, or its database goes away before the records are read. An account whose record cannot be read is enrolled
    /// all the same, and says so when it is used.
    pub async fn enroll(&self) -> Result<(), store::Error> {
        let marks = self.store().marks(self.only.as_ref()).await?;
        *self.marks.lock() = marks;
        let mut stored = self.store().versions().await?;
        for _ in 0..ENROLL_TRIES {
            self.met_outage.store(false, Relaxed);
            self.reconcile(&stored, &HashSet::new()).await;
            if !self.met_outage.load(Relaxed) {
                break;
            }
            // The database went away between the list and the records. A server that started now would
            // know its accounts, and refuse every request for them.
            sleep(FOLLOW_PAUSE).await;
            stored = self.store().versions().await?;
        }
        // Whatever was written since then has another version.
        let states = self.tokens.states();
        for state in states.iter() {
            let version = stored.get(state.id.as_str());
            state.remember_look(version.map(|version| (version, self.tokens.is_stuck(state))));
        }
        // What is loaded later was written while this process ran.
        let mut marks = self.marks.lock();
        marks.retain(|id, _| states.contains(id));
        marks.shrink_to_fit();
        Ok(())
    }

    /// Seeds and loads one account alone. None if neither the configuration nor the store knows
    /// it, or neither says enough now, which is logged.
    pub async fn enroll_one(&self, id: &AccountId) -> Result<Option<Arc<Account>>, store::Error> {
        let known = self.config().accounts.contains_key(id) || self.store().has_grant(id).await?;
        let marks = self.store().marks(Some(id)).await?;
        self.marks.lock().extend(marks);
        let _changing = self.changing.lock().await;
        let loaded = if known { self.load(id, false, None).await } else { None };
        let Some(account) = loaded else {
            return Ok(None);
        };
        let account = Arc::new(account);
        let states = self.tokens.states();
        let others = states.iter().cloned();
        self.tokens.set_states(std::iter::once(account.token.clone()).chain(others));
        let mut table = Table::clone(&self.directory.load());
        table.insert(account.clone());
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
            let mut hints = self.store().hints();
            loop {
                sleep(FOLLOW_PAUSE).await;
                let _ = timeout(FOLLOW_INTERVAL - FOLLOW_PAUSE, hints.any()).await;
                self.follow_now().await;
            }
        };
        // Beside it: a thousand reminders at once are no reason to overlook a new account.
        let remind = async {
            loop {
                let all = u32::try_from(self.tokens.states().len()).unwrap_or(u32::MAX);
                sleep(FOLLOW_INTERVAL.max(REMIND_INTERVAL_EACH * all)).await;
                let (now, store) = (self.with.clock.now().unix(), self.store());
                let (tokens, reports) = (&self.tokens, &self.with.reports);
                self.reminders.warn_of_expiring(tokens, reports, store, now).await;
            }
        };
        tokio::join!(follow, remind);
    }

    async fn check_store(&self, seen: &mut SeenRecords) {
        match self.store().changed_grants(&mut seen.listed).await {
            Ok(changed) => {
                seen.is_unlistable = false;
                let replaced = self.recover(seen, &changed).await;
                let (stored, known) = (&seen.listed.versions, self.directory.load_full());
                // As a rule accounts are refreshed only: the table is not made anew for that.
                let is_same =
                    |key: &String| stored.contains_key(key.as_str()) && known.contains(key);
                if !changed.iter().all(is_same) || !replaced.is_empty() || !seen.is_settled {
                    seen.is_settled = self.reconcile(stored, &replaced).await;
                }
            }
            Err(error) if !seen.is_unlistable => {
                seen.is_unlistable = true;
                warn!(error = %chain(&error), "cannot list the store: trying on");
            }
            Err(_) => {}
        }
    }

    /// Fills the table anew if accounts came, went, were `replaced` or could not be read before.
    async fn reconcile(&self, stored: &VersionTable, replaced: &HashSet<AccountId>) -> bool {
        let _changing = self.changing.lock().await;
        self.fill(stored, replaced, &HashSet::new()).await
    }

    /// Fills the table anew, while `changing` is held; `seeded` accounts are loaded anew too, with
    /// their configured refresh tokens. False if some could not be loaded, and are to be tried again.
    pub(super) async fn fill(
        &self,
        stored: &VersionTable,
        replaced: &HashSet<AccountId>,
        seeded: &HashSet<AccountId>,
    ) -> bool {
        let (known, mut table) = (self.directory.load_full(), Vec::new());
        let (mut wanted, mut loads) = (Vec::new(), JoinSet::<Vec<(AccountId, Loaded)>>::new());
        let (mut changed, mut is_settled) = (false, true);
        let mut place = |id: AccountId, loaded: Loaded| {
            changed |= loaded.is_some();
            // What cannot be loaded again now stays as it was, and is tried again.
            let kept = || known.get(id.as_str()).cloned();
            let Some(account) = loaded.map(Arc::new).or_else(kept) else {
                is_settled = false;
                return;
            };
            is_settled &= !account.token.is_pending();
            table.push(account);
        };
        for id in self.wanted(stored) {
            let is_known = known.get(id.as_str()).is_some_and(|it| !it.token.is_pending());
            let is_seeded = seeded.contains(&id);
            if is_known && !is_seeded && !replaced.contains(&id) {
                place(id, None);
            } else {
                wanted.push((id, is_seeded));
            }
        }
        for batch in wanted.chunks(BATCH) {
            if loads.len() >= CONCURRENCY
                && let Some(Ok(loaded)) = loads.join_next().await
            {
                loaded.into_iter().for_each(|(id, loaded)| place(id, loaded));
            }
            let (this, batch) = (self.clone(), batch.to_vec());
            loads.spawn(async move { this.load_batch(batch).await });
        }
        while let Some(loaded) = loads.join_next().await {
            loaded.into_iter().flatten().for_each(|(id, loaded)| place(id, loaded));
        }
        if changed || table.len() != known.len() {
            info!(accounts = table.len(), "accounts enrolled");
            let table = table.into_iter().collect::<Table>();
            self.tokens.set_states(table.states());
            self.directory.store(Arc::new(table));
        }
        is_settled
    }

    /// Every account of the configuration and of the store.
    fn wanted(&self, stored: &VersionTable) -> HashSet<AccountId> {
        let config = self.config();
        let stored = stored.keys().filter_map(|key| key.parse().ok());
        let all = config.accounts.keys().cloned().chain(stored);
        all.filter(|id| self.only.as_ref().is_none_or(|only| only == id)).collect()
    }

    pub(super) fn store(&self) -> &Store {
        self.with.grants.store()
    }

    /// Whether the configuration has a refresh token for the account.
    pub(super) fn is_seeded(&self, id: &AccountId) -> bool {
        self.config().accounts.get(id).is_some_and(|config| config.refresh_token.is_some())
    }
}
