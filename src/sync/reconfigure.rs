//! Another configuration while requests are under way: accounts and applications come, go and move.
//!
//! An account keeps the token it has, and the refresh under way, unless its configured refresh token
//! is another one. Afterwards everything is as after a restart: an account that only the store knows
//! is what its record says.

use super::{Account, Table, enroll::Enroller, running::RunningConfig};
use crate::{
    audit::{Action, Actor, Entry},
    config::{self, Config, StoreKind},
    error_chain::chain,
    id::AccountId,
    store::{self, backend::VersionTable},
    token::{Authority, Place, TokenState},
};
use std::{collections::HashSet, sync::Arc};
use tracing::{info, warn};

impl Enroller {
    /// Puts `config` in force, where the store has the records `stored`.
    pub async fn reconfigure(&self, config: Arc<Config>, mut stored: VersionTable) {
        let _changing = self.changing.lock().await;
        let before = self.configured.load_full();
        let next = Arc::new(before.next(config));
        self.configured.store(next.clone());
        let (old, new) = (&before.config.accounts, &next.config.accounts);
        let removed: Vec<_> = old.keys().filter(|id| !new.contains_key(*id)).collect();
        for id in removed {
            match next.config.store.kind {
                // All that the store has of it came from the configuration or goes with the process.
                StoreKind::Memory => {
                    self.forget(id).await;
                    stored.remove(id.as_str());
                }
                _ if stored.contains_key(id.as_str()) => info!(
                    account = id.as_str(),
                    "no longer configured, and still in the store: `adsproxy account remove` \
                     forgets it"
                ),
                _ => {}
            }
        }
        let token = |account: &config::AccountConfig| account.refresh_token.clone();
        let is_new = |id: &AccountId, account| {
            let old_token = old.get(id).and_then(token);
            token(account).is_some_and(|token| Some(token) != old_token)
        };
        let seeded = new.iter().filter(|(id, account)| is_new(id, account));
        let seeded: HashSet<_> = seeded.map(|(id, _)| id.clone()).collect();
        self.fill(&stored, &HashSet::new(), &seeded).await;
        self.move_all(&before, &next).await;
    }

    async fn forget(&self, id: &AccountId) {
        let entry = Entry::new(Actor::Server, Action::AccountRemove).account(id);
        let entry = entry.about("configuration");
        let now = self.with.clock.now().unix();
        let forgotten = self.with.grants.forget::<ForgetError>(id, entry, None, now).await;
        if let Err(error) = forgotten {
            let error = chain(&error);
            warn!(account = id.as_str(), error, "cannot forget an account");
        }
    }

    /// Moves every account that is known to where it belongs now; leaves those out that belong to no
    /// application.
    async fn move_all(&self, before: &RunningConfig, next: &RunningConfig) {
        let mut table = Table::clone(&self.directory.load());
        for state in self.tokens.states().iter() {
            let id = &state.id;
            let account = next.config.accounts.get(id);
            let application = state.application();
            let running = next.applications.get(application.name());
            let is_same = account == before.config.accounts.get(id)
                && running.is_some_and(|running| Arc::ptr_eq(running, &application));
            if !is_same && !state.is_pending() {
                match self.moved(state, account, next).await {
                    Some(account) => table.insert(Arc::new(account)),
                    None => table.remove(id.as_str()),
                }
            }
            // Its secret may be another one.
            self.tokens.forget_rejection(state);
        }
        self.directory.store(Arc::new(table));
    }

    async fn moved(
        &self,
        state: &Arc<TokenState>,
        account: Option<&config::AccountConfig>,
        next: &RunningConfig,
    ) -> Option<Account> {
        let (region, name, authority) = match account {
            Some(account) => {
                (account.region, account.application.clone(), Authority::Configuration)
            }
            // The next look at the store tries again.
            None => match self.store().load(&state.id).await.ok().flatten() {
                Some(record) => (record.region, record.application, Authority::Record),
                None => {
                    let name = state.application().name().to_owned();
                    (state.region(), name, Authority::Record)
                }
            },
        };
        let Some(application) = next.applications.get(&name) else {
            let account = state.id.as_str();
            tracing::error!(account, application = name, "no such application is configured");
            return None;
        };
        self.tokens
            .move_state(state, Place { region, application: application.clone(), authority });
        Some(Account::new(state.clone(), region, application.clone(), account))
    }
}

/// Why an account of the memory store stays.
#[derive(Debug, thiserror::Error)]
enum ForgetError {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Audit(#[from] crate::audit::Error),
}
