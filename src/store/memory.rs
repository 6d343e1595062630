//! Keeps credentials in this process only; nothing is written anywhere.

use super::{
    BoxFuture, Credential, CredentialStore, Error, LOCK_TIMEOUT,
    lock::{Lock, Turns},
    notes::{MemoryNotes, Notes},
    seal,
};
use crate::{id::AccountId, secret::Secret};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A store that ends with the process.
#[derive(Debug)]
pub struct MemoryStore {
    credentials: Mutex<BTreeMap<AccountId, Credential>>,
    /// Counts the saves.
    version: AtomicU64,
    turns: Turns,
    notes: MemoryNotes,
    lock_timeout: Duration,
}

impl MemoryStore {
    /// Makes an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self {
            credentials: Mutex::default(),
            version: AtomicU64::new(0),
            turns: Turns::default(),
            notes: MemoryNotes::default(),
            lock_timeout: LOCK_TIMEOUT,
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl CredentialStore for MemoryStore {
    fn load<'a>(
        &'a self,
        account: &'a AccountId,
    ) -> BoxFuture<'a, Result<Option<Credential>, Error>> {
        Box::pin(async { Ok(self.credentials.lock().get(account).cloned()) })
    }

    fn save<'a>(&'a self, credential: &'a Credential) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async {
            self.credentials.lock().insert(credential.account.clone(), credential.clone());
            self.version.fetch_add(1, Ordering::Release);
            Ok(())
        })
    }

    fn remove<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async { Ok(self.credentials.lock().remove(account).is_some()) })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<AccountId>, Error>> {
        Box::pin(async { Ok(self.credentials.lock().keys().cloned().collect()) })
    }

    /// One number for all records: to look once more than needed costs nothing here.
    fn versions(&self) -> BoxFuture<'_, Result<BTreeMap<AccountId, u64>, Error>> {
        Box::pin(async {
            let version = self.version.load(Ordering::Acquire);
            Ok(self.credentials.lock().keys().map(|id| (id.clone(), version)).collect())
        })
    }

    fn lock<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<Lock, Error>> {
        self.turns.lock(account, self.lock_timeout)
    }

    fn fingerprint(&self, secret: &Secret) -> String {
        seal::fingerprint(secret)
    }

    fn fingerprint_matches(&self, stored: &str, secret: &Secret) -> bool {
        stored == seal::fingerprint(secret)
    }

    fn notes(&self) -> &dyn Notes {
        &self.notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{credential, credentials};

    #[tokio::test]
    async fn gives_back_what_it_was_given_and_forgets_on_request() {
        let store = MemoryStore::new();
        for kept in credentials() {
            store.save(&kept).await.expect("saves");
            assert_eq!(store.load(&kept.account).await.expect("loads"), Some(kept));
        }
        let acme = credential("acme").account;
        assert_eq!(store.list().await.expect("lists").len(), 2);
        assert!(store.remove(&acme).await.expect("removes"));
        assert!(!store.remove(&acme).await.expect("removes"));
        assert_eq!(store.load(&acme).await.expect("loads"), None);
    }

    #[tokio::test]
    async fn one_lock_per_account_waits_only_for_itself() {
        let mut store = MemoryStore::new();
        store.lock_timeout = Duration::from_millis(50);
        let (acme, other) = (credential("acme").account, credential("other").account);
        let held = store.lock(&acme).await.expect("locks");
        store.lock(&other).await.expect("another account is free");
        let error = store.lock(&acme).await.expect_err("held");
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        drop(held);
        store.lock(&acme).await.expect("free again");
    }

    #[tokio::test]
    async fn debug_shows_no_secret_of_what_it_keeps() {
        let store = MemoryStore::new();
        store.save(&credential("acme")).await.expect("saves");
        assert!(!format!("{store:?} {store:#?}").contains("CANARY"));
    }
}
