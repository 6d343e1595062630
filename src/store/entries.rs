//! Small sealed texts: logins under way, links that work once, reminders, the outbox.
//!
//! An entry is bound to its space and key, and to its account if it has one. What does not open is
//! as good as absent: unlike a grant, an entry can be made anew.

use super::{
    Error, Expected, Inner, Store, Version,
    backend::{Listed, RawEntry, Write},
    credential::expose,
    record::to_json,
};
use crate::{id::AccountId, named::named, secret::Secret};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

named! {
    /// A kind of durable thing.
    pub enum Space {
    /// The grant of an account.
    Accounts = "accounts",
    /// A login that waits for Amazon's response.
    Login = "logins",
    /// A link that starts a login.
    Ticket = "tickets",
    /// How a login went.
    Outcome = "outcomes",
    /// A new grant that waits for a person's confirmation.
    Grant = "pending",
    /// An authorization code that was used.
    Code = "codes",
    /// The profiles that an account had when it was connected.
    Profiles = "profiles",
    /// The day on which it was last logged that an account's grant ends soon.
    Reminder = "reminders",
    /// Messages to hooks that were not taken yet.
    Outbox = "outbox",
    /// Sessions of callers, without their keys.
    Sessions = "sessions",
    /// Keys of the configuration that are accepted no more.
    Revocations = "revocations",
    /// When a caller's key was last used.
    KeyUses = "uses",
    /// The keys of the audit log.
    AuditKeys = "audit",
    /// The check value of each key, and how it is made of a passphrase.
    Keys = "keys",
    /// Running servers, and which keys each has.
    Instances = "instances",
    /// The store's id; a rotation under way.
    Meta = "meta",
    }
}

impl Space {
    /// The sealed ones but for the grants. What must be read without the right keys is not sealed.
    pub(super) fn of_entries() -> impl Iterator<Item = Self> {
        let others = [Self::Accounts, Self::Keys, Self::Instances, Self::Meta];
        Self::ALL.into_iter().filter(move |space| !others.contains(space))
    }

    /// What a record is called in errors.
    pub(super) fn name_of(self, key: &str) -> String {
        format!("{self}/{key}")
    }
}

/// One entry. Serialized to be sealed only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Whose it is, if it is an account's.
    pub account: Option<AccountId>,
    /// Until when it is good, in milliseconds since 1970. An entry that expires need not survive a
    /// loss of power.
    pub expires_at_ms: Option<u64>,
    #[serde(serialize_with = "expose")]
    pub text: Secret,
}

#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub max: usize,
    /// The time, in milliseconds since 1970: what has expired does not count.
    pub now_ms: u64,
}

#[derive(Debug)]
pub struct Entries<'a> {
    store: &'a Store,
    space: Space,
}

/// How many entries a space has, and when they were counted.
pub(super) type Counts = HashMap<Space, (usize, Instant)>;

/// How long a count is trusted: other processes write, too.
const COUNT_LIFETIME: Duration = Duration::from_secs(60);
/// A full space is counted again after this.
const FULL_LIFETIME: Duration = Duration::from_secs(1);

impl Store {
    pub fn entries(&self, space: Space) -> Entries<'_> {
        Entries { store: self, space }
    }

    /// Deletes every entry of `account`, its grant excepted.
    pub async fn delete_entries_of(&self, account: &AccountId) -> Result<(), Error> {
        self.at(account.as_str(), |inner, account| {
            for space in Space::of_entries() {
                for name in inner.names(space)? {
                    match inner.envelope(space, &name) {
                        Ok(Some(envelope)) if envelope.account.as_deref() == Some(account) => {
                            inner.backend.delete(space.as_str(), &name, Expected::Any)?;
                        }
                        Err(error) if !error.is_unopened() => return Err(error),
                        _ => {}
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// Deletes every entry that is no longer good at `now_ms`.
    pub async fn purge_expired(&self, now_ms: u64) -> Result<(), Error> {
        self.run(move |inner| {
            // What is in these does not expire.
            let lasting = [Space::AuditKeys, Space::Outbox];
            for space in Space::of_entries().filter(|space| !lasting.contains(space)) {
                let began = Instant::now();
                let deleted = inner.purge(space, now_ms)?;
                // Not counted anew: an entry may be put at this very moment.
                match inner.counts.lock().get_mut(&space) {
                    Some((count, at)) if *at < began => *count = count.saturating_sub(deleted),
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }
}

impl Entries<'_> {
    async fn at<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(&Inner, Space, &str) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let space = self.space;
        self.store.at(name, move |inner, name| work(inner, space, name)).await
    }

    /// Keeps `item` in place of one of the same name, unless there are too many. A name is up to
    /// 64 letters, digits and signs.
    pub async fn put(&self, name: &str, item: &Item, limit: Limit) -> Result<(), Error> {
        let item = item.clone();
        self.at(name, move |inner, space, name| {
            inner.count(space, name, limit)?;
            inner.put_entry(space, name, &item, Expected::Any)
        })
        .await
    }

    /// Reads an entry, good or not.
    pub async fn get(&self, name: &str) -> Result<Option<Item>, Error> {
        Ok(self.read(name).await?.map(|found| found.0))
    }

    pub async fn read(&self, name: &str) -> Result<Option<(Item, Version)>, Error> {
        self.at(name, Inner::entry).await
    }

    /// Reads and deletes an entry at once: of all callers, in whatever process, one gets it.
    pub async fn take(&self, name: &str) -> Result<Option<Item>, Error> {
        self.at(name, |inner, space, name| {
            let Some(entry) = inner.backend.take(space.as_str(), name)? else { return Ok(None) };
            let mut counts = inner.counts.lock();
            counts.entry(space).and_modify(|count| count.0 = count.0.saturating_sub(1));
            drop(counts);
            inner.open_entry(space, name, &entry)
        })
        .await
    }

    /// Deletes an entry; false if there was none.
    pub async fn delete(&self, name: &str) -> Result<bool, Error> {
        self.at(name, |inner, space, name| {
            inner.backend.delete(space.as_str(), name, Expected::Any)
        })
        .await
    }

    /// Keeps `item` if what is there is as `expected`, and says whether it was. No limit applies.
    pub async fn replace(
        &self,
        name: &str,
        item: &Item,
        expected: Expected,
    ) -> Result<bool, Error> {
        let item = item.clone();
        self.at(name, move |inner, space, name| {
            match inner.put_entry(space, name, &item, expected) {
                Err(Error::Conflict) => Ok(false),
                written => written.map(|()| true),
            }
        })
        .await
    }

    /// The names of the entries that were written or deleted since `seen`, which is brought up to
    /// date.
    pub async fn changed(
        &self,
        seen: &mut BTreeMap<String, Version>,
    ) -> Result<Vec<String>, Error> {
        let (space, mut before) = (self.space, std::mem::take(seen));
        let changes = move |inner: &Inner| {
            let changed = inner.backend.changes(space.as_str(), &mut before)?;
            Ok((changed, before))
        };
        let (changed, now) = self.store.run(changes).await?;
        *seen = now;
        Ok(changed)
    }

    pub async fn names(&self) -> Result<Vec<String>, Error> {
        let space = self.space;
        self.store.run(move |inner| inner.names(space)).await
    }
}

impl Inner {
    pub(super) fn names(&self, space: Space) -> Result<Vec<String>, Error> {
        Ok(self.backend.list(space.as_str())?.into_iter().map(|listed| listed.key).collect())
    }

    pub(super) fn entry(&self, space: Space, name: &str) -> Result<Option<(Item, Version)>, Error> {
        let entry = match self.backend.get(space.as_str(), name) {
            Err(error) if error.is_unopened() => None,
            entry => entry?,
        };
        let Some(entry) = entry else { return Ok(None) };
        Ok(self.open_entry(space, name, &entry)?.map(|item| (item, entry.version)))
    }

    /// None if it does not open, or was given to another account.
    fn open_entry(
        &self,
        space: Space,
        name: &str,
        entry: &RawEntry,
    ) -> Result<Option<Item>, Error> {
        match self.open::<Item>(space, name, entry) {
            Ok((item, account)) => {
                let is_right = item.account.as_ref().map(AccountId::as_str) == account.as_deref();
                Ok(is_right.then_some(item))
            }
            Err(error) if error.is_unopened() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn put_entry(
        &self,
        space: Space,
        name: &str,
        item: &Item,
        expected: Expected,
    ) -> Result<(), Error> {
        let (bytes, expires_at_ms) = (&to_json(item), item.expires_at_ms);
        let account = item.account.as_ref().map(ToString::to_string);
        let write = Write { bytes, expires_at_ms, expected, fence: None };
        self.put(space, name, account, write).map(drop)
    }

    /// Makes room for one more under `name`. The space is counted now and then, not every time.
    fn count(&self, space: Space, name: &str, limit: Limit) -> Result<(), Error> {
        let mut counts = self.counts.lock();
        let fresh = counts.get(&space).copied().filter(|(count, at)| {
            let lifetime = if *count < limit.max { COUNT_LIFETIME } else { FULL_LIFETIME };
            at.elapsed() < lifetime
        });
        let (mut count, at) = match fresh {
            Some(fresh) => fresh,
            None => (self.backend.list(space.as_str())?.len(), Instant::now()),
        };
        if count >= limit.max && fresh.is_none() {
            count -= self.purge(space, limit.now_ms)?.min(count);
        }
        let is_full = count >= limit.max;
        counts.insert(space, (count + usize::from(!is_full), at));
        drop(counts);
        match is_full && self.backend.get(space.as_str(), name)?.is_none() {
            true => Err(Error::Full),
            false => Ok(()),
        }
    }

    /// Deletes what has expired; says how many entries it were.
    fn purge(&self, space: Space, now_ms: u64) -> Result<usize, Error> {
        let all = self.backend.list(space.as_str())?;
        let expired = |listed: &Listed| listed.expires_at_ms.is_some_and(|until| until <= now_ms);
        let mut deleted = 0;
        for listed in all.iter().filter(|listed| expired(listed)) {
            let expected = Expected::Version(listed.version);
            match self.backend.delete(space.as_str(), &listed.key, expected) {
                Ok(_) => deleted += 1,
                // Extended meanwhile.
                Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }
}
