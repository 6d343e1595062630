//! Grants: read, written where nothing else came between, leased while they are refreshed.

use super::{
    Credential, Epoch, Error, Expected, Inner, Space, Store, Version, Versioned,
    backend::{Granted, LeaseClaim, RawEntry, SeenEntries, VersionTable, Write},
    record::to_json,
};
use crate::{backoff::Backoff, id::AccountId};
use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

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
    /// Whether a write under it has ended it already.
    is_ended: AtomicBool,
}

/// A grant that was leased.
#[derive(Debug)]
pub struct ClaimedGrant {
    pub lease: Lease,
    /// As it was then, where that was read at once.
    pub found: Option<Result<Versioned<Credential>, Error>>,
    /// When that was.
    pub at: Instant,
}

impl Lease {
    /// Its number: greater than that of every lease of the account before.
    pub fn fence(&self) -> u64 {
        self.fence
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_ended.load(Relaxed) {
            return;
        }
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
        let account = account.clone();
        self.run(move |inner| {
            let entry = inner.backend.get(ACCOUNTS.as_str(), account.as_str())?;
            entry.map(|entry| inner.open_grant(&account, &entry)).transpose()
        })
        .await
    }

    /// As [`Store::load`], of an entry that was read before.
    pub async fn open_grant(
        &self,
        account: &AccountId,
        entry: RawEntry,
    ) -> Result<Credential, Error> {
        let account = account.clone();
        self.run(move |inner| Ok(inner.open_grant(&account, &entry)?.value)).await
    }

    /// As [`Store::grant`], without its version.
    pub async fn load(&self, account: &AccountId) -> Result<Option<Credential>, Error> {
        Ok(self.grant(account).await?.map(|found| found.value))
    }

    /// The grants of those of `accounts` that have one, as [`Store::load`] returns each: in one
    /// statement where the store is a database.
    ///
    /// # Errors
    /// When some cannot be read, and it cannot be said which.
    pub async fn load_all(
        &self,
        accounts: &[AccountId],
    ) -> Result<HashMap<AccountId, Result<Credential, Error>>, Error> {
        let accounts = accounts.to_vec();
        self.run(move |inner| {
            let keys: Vec<&str> = accounts.iter().map(AccountId::as_str).collect();
            let found = inner.backend.get_all(ACCOUNTS.as_str(), &keys)?.into_iter();
            let opened = found.filter_map(|(key, entry)| {
                let account: AccountId = key.parse().ok()?;
                let opened = inner.open::<Credential>(ACCOUNTS, &key, &entry);
                let of_account = account.clone();
                let opened = opened.map(|(found, _)| Credential { account: of_account, ..found });
                Some((account, opened))
            });
            Ok(opened.collect())
        })
        .await
    }

    /// Says whether it is a database that servers on several machines share.
    pub fn is_shared(&self) -> bool {
        self.0.backend.has_own_clock()
    }

    /// Says whether the account has a grant, readable or not.
    pub async fn has_grant(&self, account: &AccountId) -> Result<bool, Error> {
        let find = |inner: &Inner, key: &str| inner.backend.get(ACCOUNTS.as_str(), key);
        match self.at(account.as_str(), find).await {
            Err(error) if error.is_lasting() => Ok(true),
            found => Ok(found?.is_some()),
        }
    }

    /// Lists the accounts that have a grant, sorted, without opening any.
    pub async fn grants(&self) -> Result<Vec<AccountId>, Error> {
        let versions = self.versions().await?;
        Ok(versions.keys().filter_map(|key| key.parse().ok()).collect())
    }

    /// Lists the ids of the accounts that have a grant with the versions of their records, without
    /// opening any.
    pub async fn versions(&self) -> Result<VersionTable, Error> {
        self.run(|inner| {
            let all = inner.backend.list(ACCOUNTS.as_str())?.into_iter();
            Ok(all.map(|one| (one.key, one.version)).collect())
        })
        .await
    }

    /// The ids of the accounts whose records were written or deleted since `seen`, which is brought
    /// up to date: cheap enough to look all the time. Those that a look brings at once are in
    /// [`SeenEntries::brought`].
    pub async fn changed_grants(&self, seen: &mut SeenEntries) -> Result<Vec<String>, Error> {
        seen.wants_entries = true;
        self.changes(ACCOUNTS, seen).await
    }

    /// What has changed in a space.
    pub(super) async fn changes(
        &self,
        space: Space,
        seen: &mut SeenEntries,
    ) -> Result<Vec<String>, Error> {
        let mut moved = std::mem::take(seen);
        let changes = self.run(move |inner| {
            let changed = inner.backend.changes(space.as_str(), &mut moved);
            Ok((changed, moved))
        });
        let (changed, now) = changes.await?;
        *seen = now;
        changed
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
        let version = self.run(move |inner| inner.update_grant(credential, began, fence)).await?;
        if let Some(lease) = lease {
            lease.is_ended.store(self.0.backend.ends_leases(), Relaxed);
        }
        Ok(version)
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
        Ok(self.claim_grant(account, ttl, wait).await?.lease)
    }

    /// As [`Store::lease_grant`], and reads the grant where a backend can do both at once.
    pub async fn claim_grant(
        &self,
        account: &AccountId,
        ttl: Duration,
        wait: Duration,
    ) -> Result<ClaimedGrant, Error> {
        let deadline = Instant::now() + wait;
        let (first, last) = if self.is_shared() { SHARED_PAUSE } else { PAUSE };
        let mut pause = Backoff::new(first, last);
        let mut hints = self.hints();
        loop {
            let next = Instant::now() + pause.next();
            let claimed = self.claim_grants(std::slice::from_ref(account), ttl).await?.pop();
            match claimed.ok_or(Error::Conflict)?.1 {
                Err(Error::Held { .. }) if next < deadline => tokio::select! {
                    () = sleep_until(next) => {}
                    () = hints.of(ACCOUNTS.as_str(), account.as_str()) => {}
                },
                done => return done,
            }
        }
    }

    /// Leases those of `accounts` whose grants are free, in one statement where the store is a
    /// database. `Held` for the others; those that have no grant are left out.
    ///
    /// # Errors
    /// As [`Store::lease_grant`], if it cannot be said of any.
    pub async fn claim_grants(
        &self,
        accounts: &[AccountId],
        ttl: Duration,
    ) -> Result<Vec<(AccountId, Result<ClaimedGrant, Error>)>, Error> {
        let (store, accounts) = (self.clone(), accounts.to_vec());
        self.run(move |inner| {
            let (at, now_ms) = (Instant::now(), Inner::now_ms());
            let keys: Vec<&str> = accounts.iter().map(AccountId::as_str).collect();
            let claims = inner.backend.claim(ACCOUNTS.as_str(), &keys, now_ms, ttl)?;
            let claimed = |(key, claim): (String, LeaseClaim)| {
                let account = accounts.iter().find(|account| account.as_str() == key)?.clone();
                let (Granted { fence, .. }, entry) = match claim {
                    LeaseClaim::Granted(granted, entry) => (granted, entry),
                    LeaseClaim::Held { until_ms } => {
                        return Some((account, Err(Error::Held { until_ms })));
                    }
                };
                let found = entry.map(|entry| inner.open_grant(&account, &entry));
                let (store, is_ended) = (store.clone(), AtomicBool::new(false));
                let lease = Lease { store, account: account.clone(), fence, is_ended };
                Some((account, Ok(ClaimedGrant { lease, found, at })))
            };
            Ok(claims.into_iter().filter_map(claimed).collect())
        })
        .await
    }
}

impl Inner {
    fn open_grant(
        &self,
        account: &AccountId,
        entry: &RawEntry,
    ) -> Result<Versioned<Credential>, Error> {
        let (mut value, _) = self.open::<Credential>(ACCOUNTS, account.as_str(), entry)?;
        value.account = account.clone();
        Ok(Versioned { value, version: entry.version })
    }

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

/// Between looks at a lease that another process has: a file is quickly read.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// The same where each look is a statement: 50, 100, 200 ms and their jitter.
const SHARED_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(300));
const ACCOUNTS: Space = Space::Accounts;
