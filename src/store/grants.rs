//! Grants: read, written where nothing else came between, leased while they are refreshed.

use super::{
    Credential, Epoch, Error, Expected, Inner, Space, Store, Version, Versioned, backend::Write,
    record::to_json,
};
use crate::{backoff::Backoff, id::AccountId};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Began {
    pub version: Version,
    pub epoch: Epoch,
}

impl Versioned<Credential> {
    /// What a refresh of it begins with.
    pub fn began(&self) -> Began {
        Began { version: self.version, epoch: self.value.epoch }
    }
}

/// The right to refresh one account's grant. It ends when it is dropped, at its
/// deadline, or with the process.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    account: AccountId,
    fence: u64,
}

impl Lease {
    /// Its number: greater than that of every lease of the account before.
    pub fn fence(&self) -> u64 {
        self.fence
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (store, account, fence) = (self.store.clone(), self.account.clone(), self.fence);
        let release =
            move || drop(store.0.backend.release(ACCOUNTS.as_str(), account.as_str(), fence));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(release)),
            Err(_) => release(),
        }
    }
}

impl Store {
    /// Returns the account's grant, or none if nothing is kept for it.
    ///
    /// # Errors
    /// `Sealed`, `Damaged`, `Unreadable` or `Io`; the record is untouched in each case.
    pub async fn grant(&self, account: &AccountId) -> Result<Option<Versioned<Credential>>, Error> {
        let found = self.at(account.as_str(), |inner, key| inner.get(ACCOUNTS, key)).await?;
        Ok(found.map(|mut found: Versioned<Credential>| {
            found.value.account = account.clone();
            found
        }))
    }

    /// As [`Store::grant`], without its version.
    pub async fn load(&self, account: &AccountId) -> Result<Option<Credential>, Error> {
        Ok(self.grant(account).await?.map(|found| found.value))
    }

    /// Lists the accounts that have a grant, sorted, without opening any.
    pub async fn grants(&self) -> Result<Vec<AccountId>, Error> {
        Ok(self.versions().await?.into_keys().collect())
    }

    /// Lists the accounts that have a grant with the versions of their records, without opening
    /// any: cheap enough to look for changes all the time.
    pub async fn versions(&self) -> Result<BTreeMap<AccountId, Version>, Error> {
        self.run(|inner| {
            let all = inner.backend.list(ACCOUNTS.as_str())?.into_iter();
            Ok(all.filter_map(|one| Some((one.key.parse().ok()?, one.version))).collect())
        })
        .await
    }

    /// Keeps a new grant; durable when it returns `Ok`.
    ///
    /// # Errors
    /// `Conflict` if the record is not as expected; `Io` above all: what was kept before is then
    /// still there.
    ///
    /// # Cancel safety
    /// Never leaves half a record, but a dropped future does not stop a write that has begun.
    pub async fn put_grant(
        &self,
        credential: &Credential,
        expected: Expected,
    ) -> Result<Version, Error> {
        let credential = credential.clone();
        self.run(move |inner| inner.put_grant(&credential, expected, None)).await
    }

    /// Keeps the result of a refresh that `began` with a grant: an update, never an insert.
    ///
    /// With a lease, a write in between that changed neither consent nor lease is no obstacle: that
    /// of a key rotation, or of a command that moved the grant to another region or application,
    /// where it stays then. Without one (a store that takes no leases) any write is.
    ///
    /// # Errors
    /// `Conflict` if the grant was removed or replaced, or the lease is another's by now; else as
    /// [`Store::put_grant`].
    ///
    /// # Cancel safety
    /// As [`Store::put_grant`].
    pub async fn update_grant(
        &self,
        credential: &Credential,
        began: Began,
        lease: Option<&Lease>,
    ) -> Result<Version, Error> {
        let (credential, fence) = (credential.clone(), lease.map(Lease::fence));
        self.run(move |inner| inner.update_grant(credential, began, fence)).await
    }

    /// Removes the account's grant, readable or not; false if there was none.
    pub async fn remove_grant(
        &self,
        account: &AccountId,
        expected: Expected,
    ) -> Result<bool, Error> {
        let remove =
            move |inner: &Inner, key: &str| inner.backend.delete(ACCOUNTS.as_str(), key, expected);
        self.at(account.as_str(), remove).await
    }

    /// Leases the account's grant for `ttl`; waits for another lease for at most `wait`.
    ///
    /// # Errors
    /// `Held` after that, `Conflict` if there is no such grant, `Io` if the store cannot be
    /// reached or takes no leases.
    ///
    /// # Cancel safety
    /// Safe: a lease that was granted to a caller that has left ends with its `ttl`.
    pub async fn lease_grant(
        &self,
        account: &AccountId,
        ttl: Duration,
        wait: Duration,
    ) -> Result<Lease, Error> {
        let deadline = Instant::now() + wait;
        let mut pause = Backoff::new(Duration::from_millis(2), Duration::from_millis(100));
        loop {
            let (store, account) = (self.clone(), account.clone());
            let attempt = self.run(move |inner| {
                let (space, key) = (ACCOUNTS.as_str(), account.as_str());
                let fence = inner.backend.lease(space, key, Inner::now_ms(), ttl)?.fence;
                Ok(Lease { store, account, fence })
            });
            let next = Instant::now() + pause.next();
            match attempt.await {
                Err(Error::Held { .. }) if next < deadline => sleep(next - Instant::now()).await,
                done => return done,
            }
        }
    }
}

impl Inner {
    fn put_grant(
        &self,
        credential: &Credential,
        expected: Expected,
        fence: Option<u64>,
    ) -> Result<Version, Error> {
        let write = Write { bytes: &to_json(credential), expires_at_ms: None, expected, fence };
        self.put(ACCOUNTS, credential.account.as_str(), None, write)
    }

    fn update_grant(
        &self,
        mut credential: Credential,
        began: Began,
        fence: Option<u64>,
    ) -> Result<Version, Error> {
        let mut version = began.version;
        loop {
            match self.put_grant(&credential, Expected::Version(version), fence) {
                Err(Error::Conflict) if fence.is_some() => {}
                done => return done,
            }
            // The record is another one, or the lease was lost, which is final.
            let found = self.get::<Credential>(ACCOUNTS, credential.account.as_str())?;
            let found = found.ok_or(Error::Conflict)?;
            if found.version == version || found.value.epoch != began.epoch {
                return Err(Error::Conflict);
            }
            version = found.version;
            credential = credential.moved_with(&found.value).ok_or(Error::Conflict)?;
        }
    }
}

const ACCOUNTS: Space = Space::Accounts;
