//! The store as its callers know it until they use [`Store`] itself.

use super::{Credential, Error, Expected, Item, Lock, Space, Store};
use crate::{id::AccountId, secret::Secret};
use std::{fmt::Debug, pin::Pin, time::Duration};

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Store {
    /// As [`Store::put_grant`], whatever is there.
    ///
    /// # Errors
    /// As there.
    pub async fn save(&self, credential: &Credential) -> Result<(), Error> {
        self.put_grant(credential, Expected::Any).await.map(|_| ())
    }

    /// As [`Store::remove_grant`], whatever is there.
    ///
    /// # Errors
    /// As there.
    pub async fn remove(&self, account: &AccountId) -> Result<bool, Error> {
        self.remove_grant(account, Expected::Any).await
    }

    /// Waits for the account's lock.
    ///
    /// # Errors
    /// `Locked` after the deadline, `Io`.
    pub async fn lock(&self, account: &AccountId) -> Result<Lock, Error> {
        let inner = &self.0;
        match &inner.locks {
            Some(locks) => {
                let path = locks.join(format!("{account}.lock"));
                inner.turns.lock_with_file(account, &path, LOCK_TIMEOUT).await
            }
            None => inner.turns.lock(account, LOCK_TIMEOUT).await,
        }
    }

    /// The notes beside the records.
    #[must_use]
    pub fn notes(&self) -> &dyn notes::Notes {
        self
    }
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
