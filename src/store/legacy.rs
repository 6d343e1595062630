//! The store as its callers know it until they use [`Store`] itself.

use super::{Credential, Error, Expected, Item, Lock, Space, Store, Version, seal};
use crate::{config, id::AccountId, secret::Secret};
use std::{collections::BTreeMap, fmt::Debug, pin::Pin, sync::Arc, time::Duration};

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A place that keeps credentials.
pub trait CredentialStore: Send + Sync + Debug {
    /// The store itself.
    fn store(&self) -> &Store;

    /// As [`Store::grant`].
    ///
    /// # Errors
    /// As there.
    fn load<'a>(
        &'a self,
        account: &'a AccountId,
    ) -> BoxFuture<'a, Result<Option<Credential>, Error>> {
        Box::pin(async { Ok(self.store().grant(account).await?.map(|found| found.value)) })
    }

    /// As [`Store::put_grant`].
    ///
    /// # Errors
    /// As there.
    fn save<'a>(&'a self, credential: &'a Credential) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { self.store().put_grant(credential, Expected::Any).await.map(|_| ()) })
    }

    /// As [`Store::remove_grant`].
    ///
    /// # Errors
    /// As there.
    fn remove<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async { self.store().remove_grant(account, Expected::Any).await })
    }

    /// As [`Store::grants`].
    ///
    /// # Errors
    /// As there.
    fn list(&self) -> BoxFuture<'_, Result<Vec<AccountId>, Error>> {
        Box::pin(async { self.store().grants().await })
    }

    /// As [`Store::versions`].
    ///
    /// # Errors
    /// As there.
    fn versions(&self) -> BoxFuture<'_, Result<BTreeMap<AccountId, u64>, Error>> {
        Box::pin(async {
            let versions = self.store().versions().await?;
            Ok(versions.into_iter().map(|(account, Version(version))| (account, version)).collect())
        })
    }

    /// Waits for the account's lock.
    ///
    /// # Errors
    /// `LeaseHeld` after the deadline, `Io`.
    fn lock<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<Lock, Error>> {
        Box::pin(async move {
            let inner = &self.store().0;
            match &inner.locks {
                Some(locks) => {
                    let path = locks.join(format!("{account}.lock"));
                    inner.turns.lock_with_file(account, &path, LOCK_TIMEOUT).await
                }
                None => inner.turns.lock(account, LOCK_TIMEOUT).await,
            }
        })
    }

    /// As [`Store::fingerprint`].
    fn fingerprint(&self, secret: &Secret) -> String {
        seal::fingerprint(secret)
    }

    /// Says whether `stored` is a fingerprint of `secret`.
    fn fingerprint_matches(&self, stored: &str, secret: &Secret) -> bool {
        stored == seal::fingerprint(secret)
    }

    /// The notes beside the records.
    fn notes(&self) -> &dyn notes::Notes;
}

impl CredentialStore for Store {
    fn store(&self) -> &Store {
        self
    }

    fn notes(&self) -> &dyn notes::Notes {
        self
    }
}

/// Opens the configured store.
///
/// # Errors
/// As [`Store::open`].
pub fn open(
    store: &config::Store,
    encryption: &config::Encryption,
) -> Result<Arc<dyn CredentialStore>, Error> {
    Ok(Arc::new(Store::open(store, encryption)?))
}

/// How long `lock` waits.
const LOCK_TIMEOUT: Duration = Duration::from_secs(15);

/// Small sealed texts.
pub mod notes {
    use super::{AccountId, BoxFuture, Debug, Error, Item, Secret, Space, Store};

    pub use super::super::{Limit, Space as NoteKind};

    /// One note.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Note {
        /// Whose it is.
        pub account: AccountId,
        /// Until when it is good, in milliseconds since 1970.
        pub expires_at_ms: u64,
        /// What it says.
        pub text: Secret,
    }

    fn note(item: Item) -> Option<Note> {
        let Item { account, expires_at_ms, text } = item;
        Some(Note { account: account?, expires_at_ms: expires_at_ms?, text })
    }

    /// A place that keeps notes.
    pub trait Notes: Send + Sync + Debug {
        /// As [`super::super::Entries::put`].
        ///
        /// # Errors
        /// As there.
        fn put<'a>(
            &'a self,
            kind: NoteKind,
            name: &'a str,
            note: &'a Note,
            limit: Limit,
        ) -> BoxFuture<'a, Result<(), Error>>;

        /// As [`super::super::Entries::get`].
        ///
        /// # Errors
        /// As there.
        fn look<'a>(
            &'a self,
            kind: NoteKind,
            name: &'a str,
        ) -> BoxFuture<'a, Result<Option<Note>, Error>>;

        /// As [`super::super::Entries::take`].
        ///
        /// # Errors
        /// As there.
        fn take<'a>(
            &'a self,
            kind: NoteKind,
            name: &'a str,
        ) -> BoxFuture<'a, Result<Option<Note>, Error>>;

        /// As [`Store::delete_entries_of`].
        ///
        /// # Errors
        /// As there.
        fn forget<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<(), Error>>;

        /// As [`Store::purge_expired`].
        ///
        /// # Errors
        /// As there.
        fn sweep(&self, now_ms: u64) -> BoxFuture<'_, Result<(), Error>>;
    }

    impl Notes for Store {
        fn put<'a>(
            &'a self,
            kind: Space,
            name: &'a str,
            note: &'a Note,
            limit: Limit,
        ) -> BoxFuture<'a, Result<(), Error>> {
            let Note { account, expires_at_ms, text } = note.clone();
            let expires_at_ms = Some(expires_at_ms);
            let item = Item { account: Some(account), expires_at_ms, text };
            Box::pin(async move { self.entries(kind).put(name, &item, limit).await })
        }

        fn look<'a>(
            &'a self,
            kind: Space,
            name: &'a str,
        ) -> BoxFuture<'a, Result<Option<Note>, Error>> {
            Box::pin(async move { Ok(self.entries(kind).get(name).await?.and_then(note)) })
        }

        fn take<'a>(
            &'a self,
            kind: Space,
            name: &'a str,
        ) -> BoxFuture<'a, Result<Option<Note>, Error>> {
            Box::pin(async move { Ok(self.entries(kind).take(name).await?.and_then(note)) })
        }

        fn forget<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<(), Error>> {
            Box::pin(self.delete_entries_of(account))
        }

        fn sweep(&self, now_ms: u64) -> BoxFuture<'_, Result<(), Error>> {
            Box::pin(self.purge_expired(now_ms))
        }
    }
}
