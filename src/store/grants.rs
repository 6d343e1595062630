//! Grants: read, written where nothing else came between, leased while they are refreshed.

use super::{
    Credential, Damage, Epoch, Error, Expected, Inner, Space, Store, Version,
    backend::Write,
    envelope::{Closed, Envelope},
    ring::KeyRing,
    seal::Place,
};
use crate::{backoff::Backoff, id::AccountId};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};

/// Something that was read, and from which write it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<T> {
    pub value: T,
    pub version: Version,
}

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
        let release = move || drop(store.0.release(&account, fence));
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
    /// `Sealed`, `Corrupt`, `Unreadable` or `Io`; the record is untouched in each case.
    pub async fn grant(&self, account: &AccountId) -> Result<Option<Versioned<Credential>>, Error> {
        let account = account.clone();
        self.run(move |inner| inner.grant(&account)).await
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
            let all = inner.backend.list(Space::Accounts.as_str())?;
            let versions =
                all.into_iter().filter_map(|one| Some((one.key.parse().ok()?, one.version)));
            Ok(versions.collect())
        })
        .await
    }

    /// Keeps a new grant; durable when it returns `Ok`.
    ///
    /// # Errors
    /// `Superseded` if the record is not as expected; `Io` above all: what was kept before is then
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
    /// With a lease, a write in between that changed neither consent nor lease, such as that of a
    /// key rotation, is no obstacle. Without one (a store that takes no leases) any write is.
    ///
    /// # Errors
    /// `Superseded` if the grant was removed or replaced, or the lease is another's by now; else as
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
        self.run(move |inner| inner.update_grant(&credential, began, fence)).await
    }

    /// Removes the account's grant, readable or not; false if there was none.
    ///
    /// # Errors
    /// `Superseded` if it is not as expected, `Io`.
    pub async fn remove_grant(
        &self,
        account: &AccountId,
        expected: Expected,
    ) -> Result<bool, Error> {
        let account = account.clone();
        self.run(move |inner| {
            let removed =
                inner.backend.delete(Space::Accounts.as_str(), account.as_str(), expected);
            removed.map_err(Error::of_account(&account))
        })
        .await
    }

    /// Leases the account's grant for `ttl`; waits for another lease for at most `wait`.
    ///
    /// # Errors
    /// `LeaseHeld` after that, `Superseded` if there is no such grant, `Io` if the store cannot be
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
            let (store, name) = (self.clone(), account.clone());
            let attempt = self.run(move |inner| {
                let now_ms = Inner::now_ms();
                let space = Space::Accounts.as_str();
                let granted = inner.backend.lease(space, name.as_str(), now_ms, ttl);
                let fence = granted.map_err(Error::of_account(&name))?.fence;
                Ok(Lease { store, account: name, fence })
            });
            let next = Instant::now() + pause.next();
            match attempt.await {
                Err(Error::LeaseHeld { .. }) if next < deadline => {
                    sleep(next - Instant::now()).await
                }
                done => return done,
            }
        }
    }
}

impl Inner {
    pub(super) fn grant(
        &self,
        account: &AccountId,
    ) -> Result<Option<Versioned<Credential>>, Error> {
        let entry = self.backend.get(Space::Accounts.as_str(), account.as_str());
        let Some(entry) = entry.map_err(Error::of_account(account))? else { return Ok(None) };
        let corrupt = |cause| Error::Corrupt { account: account.clone(), cause };
        let envelope = Envelope::from_bytes(&entry.bytes).map_err(corrupt)?;
        let store = self.known_id()?.unwrap_or_default();
        let plain =
            envelope.open(place(&store, account), &self.ring).map_err(|closed| match closed {
                Closed::Damaged(cause) => corrupt(cause),
                Closed::NotOpened { key_id, cause } => {
                    Error::Sealed { account: account.clone(), key_id, cause }
                }
            })?;
        let value = Credential::from_plain(account, &plain).map_err(corrupt)?;
        Ok(Some(Versioned { value, version: entry.version }))
    }

    fn put_grant(
        &self,
        credential: &Credential,
        expected: Expected,
        fence: Option<u64>,
    ) -> Result<Version, Error> {
        let account = &credential.account;
        let (store, ring): (_, KeyRing) = (self.id()?, self.sealing_ring()?);
        let plain = credential.to_plain();
        let bytes = Envelope::seal(place(&store, account), None, &plain, &ring)?.to_bytes();
        let write = Write { bytes: &bytes, expires_at_ms: None, expected, fence };
        let put = self.backend.put(Space::Accounts.as_str(), account.as_str(), &write);
        put.map_err(Error::of_account(account))
    }

    fn update_grant(
        &self,
        credential: &Credential,
        began: Began,
        fence: Option<u64>,
    ) -> Result<Version, Error> {
        let account = &credential.account;
        let superseded = || Error::Superseded { account: account.clone() };
        let mut version = began.version;
        loop {
            match self.put_grant(credential, Expected::Version(version), fence) {
                Err(Error::Superseded { .. }) if fence.is_some() => {}
                done => return done,
            }
            // The record is another one, or the lease was lost, which is final.
            let found = self.grant(account)?.ok_or_else(superseded)?;
            if found.version == version || found.value.epoch != began.epoch {
                return Err(superseded());
            }
            version = found.version;
        }
    }

    fn release(&self, account: &AccountId, fence: u64) -> Result<(), Error> {
        Ok(self.backend.release(Space::Accounts.as_str(), account.as_str(), fence)?)
    }

    /// Which key sealed the account's record; none if there is none.
    pub(super) fn grant_key(&self, account: &AccountId) -> Result<Option<String>, Error> {
        let entry = self.backend.get(Space::Accounts.as_str(), account.as_str());
        let corrupt = |cause: Damage| Error::Corrupt { account: account.clone(), cause };
        let entry = entry.map_err(Error::of_account(account))?;
        let envelope = entry.map(|entry| Envelope::from_bytes(&entry.bytes).map_err(corrupt));
        Ok(envelope.transpose()?.map(|envelope| envelope.key_id))
    }

    /// Seals the account's record anew if it is not sealed with the first key; says whether it
    /// was.
    pub(super) fn reseal_grant(&self, account: &AccountId) -> Result<bool, Error> {
        let ours = self.ring.sealing_key_id();
        loop {
            if self.grant_key(account)?.is_none_or(|key| key == ours) {
                return Ok(false);
            }
            let Some(found) = self.grant(account)? else { return Ok(false) };
            match self.put_grant(&found.value, Expected::Version(found.version), None) {
                // Refreshed or replaced meanwhile: look again.
                Err(Error::Superseded { .. }) => continue,
                written => written?,
            };
            return match self.grant_key(account)?.is_some_and(|key| key != ours) {
                true => Err(Error::OldKey { account: account.clone(), key_id: ours.to_owned() }),
                false => Ok(true),
            };
        }
    }
}

fn place<'a>(store: &'a str, account: &'a AccountId) -> Place<'a> {
    Place { store, space: Space::Accounts, key: account.as_str(), field: "grant" }
}
