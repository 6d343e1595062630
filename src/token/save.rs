//! How the result of a refresh gets into the store, or waits in memory until the store takes it.

use super::{
    TokenManager, TokenState,
    refresh::{RefreshAttempt, STORE_RETRY},
};
use crate::store::{self, Began, Credential, Lease, Versioned};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::info;

/// How long a rotated refresh token waits for a database, before it is used although nothing else has
/// it.
const SAVE_WAIT: Duration = Duration::from_secs(10);

impl TokenManager {
    /// Saves `record`. When the disk refuses, the record stays in memory, serves on and is saved
    /// when it can be.
    pub(super) async fn save(
        &self,
        RefreshAttempt { state, began, lease }: &RefreshAttempt<'_>,
        record: Credential,
        tries: u32,
    ) -> Result<(), store::Error> {
        let began = match began {
            Ok(began) => *began,
            Err(error) => {
                self.put_off(state, record, error);
                return Ok(());
            }
        };
        let until = Instant::now() + SAVE_WAIT;
        for tried in 1.. {
            match self.try_save(state, &record, began, lease.as_ref()).await {
                // Its access token must not be used yet: that may be the end of the old refresh token.
                Err(store::Error::Database { .. }) if tries > 1 && Instant::now() < until => {
                    sleep(STORE_RETRY).await;
                }
                Err(error) if !matches!(error, store::Error::Conflict) => {
                    if tried >= tries {
                        self.put_off(state, record, &error);
                        break;
                    }
                    sleep(Duration::from_millis(100) * tried).await;
                }
                saved => return saved,
            }
        }
        Ok(())
    }

    pub(super) async fn try_save(
        &self,
        state: &TokenState,
        record: &Credential,
        began: Option<Began>,
        lease: Option<&Lease>,
    ) -> Result<(), store::Error> {
        let saved = self.0.with.grants.update(record, began, lease).await;
        if !matches!(saved, Err(store::Error::Conflict)) {
            self.0.with.metrics.store_write(saved.is_ok());
        }
        if saved.is_ok() {
            state.saw(record);
            state.lock().set_unsaved(None);
        }
        saved
    }

    /// Saves a record that the store would not take before, if there is one and the store has not
    /// gone on since.
    ///
    /// # Errors
    /// When it still does not take it.
    pub(crate) async fn save_unsaved(&self, state: &TokenState) -> Result<(), store::Error> {
        if state.lock().unsaved().is_none() {
            return Ok(());
        }
        // Not while a refresh is writing; tried again soon.
        let (lease, _) = self.lease(state, Duration::ZERO).await?;
        let saved = self.save_successor(state, lease.as_ref()).await;
        state.lock().keep_lease(lease);
        saved?;
        let still_unsaved = self.unsaved();
        info!(account = state.id.as_str(), still_unsaved, "the store takes records again");
        Ok(())
    }

    async fn save_successor(
        &self,
        state: &TokenState,
        lease: Option<&Lease>,
    ) -> Result<(), store::Error> {
        let stored = self.0.with.grants.store().grant(&state.id).await?;
        match state.successor(stored.as_ref().map(|stored| &stored.value)) {
            Some(record) => {
                let began = stored.as_ref().map(Versioned::began);
                self.try_save(state, &record, began, lease).await
            }
            None => Ok(()),
        }
    }
}
