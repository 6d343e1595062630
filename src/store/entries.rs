//! Small sealed texts: logins under way, links that work once, reminders, the outbox.
//!
//! An entry is bound to its space and key, and to its account if it has one. What does not open is
//! as good as absent: unlike a grant, an entry can be made anew.

use super::{
    Error, Expected, Inner, Store, Version,
    backend::{RawEntry, SeenEntries, Write},
    credential::expose,
    record::to_json,
};
use crate::{id::AccountId, named::named, secret::Secret};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
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
    /// Browsers that have signed in to the dashboard, without their cookies.
    Browsers = "browsers",
    /// Links that sign a browser in to the dashboard.
    SignInLinks = "signins",
    /// Browsers that are on their way to an OpenID provider, and back to the dashboard.
    SignInAttempts = "attempts",
    /// Keys of the configuration that are accepted no more.
    Revocations = "revocations",
    /// When a caller's key was last used.
    KeyUses = "uses",
    /// Calls that Amazon throttles, and until when they are of no use.
    Throttled = "throttled",
    /// The keys of the audit log.
    AuditKeys = "audit",
    /// How far each chain of the audit log has come, where servers share the log.
    AuditHeads = "heads",
    /// From where on a chain is there, whose older lines were removed.
    AuditStarts = "starts",
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
        let others = [
            Self::Accounts,
            Self::AuditHeads,
            Self::AuditStarts,
            Self::Keys,
            Self::Instances,
            Self::Meta,
        ];
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
                let deleted = inner.backend.purge(space.as_str(), now_ms)?;
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
    pub async fn changed(&self, seen: &mut SeenEntries) -> Result<Vec<String>, Error> {
        self.store.changes(self.space, seen).await
    }

    /// As [`Entries::changed`], with the entries themselves; none for one that is gone.
    pub async fn changed_items(
        &self,
        seen: &mut SeenEntries,
    ) -> Result<Vec<(String, Option<Item>)>, Error> {
        seen.wants_entries = true;
        let (space, names) = (self.space, self.changed(seen).await?);
        let (mut found, wanted) = (std::mem::take(&mut seen.brought), names.clone());
        let read = self.store.run(move |inner| {
            let is_missing = |name: &&str| !found.contains_key(*name);
            let missing: Vec<&str> = wanted.iter().map(String::as_str).filter(is_missing).collect();
            let read = match missing.is_empty() {
                true => Vec::new(),
                false => inner.backend.get_all(space.as_str(), &missing)?,
            };
            found.extend(read);
            let open = |name: String| {
                let item = match found.get(&name) {
                    Some(entry) => inner.open_entry(space, &name, entry)?,
                    None => None,
                };
                Ok((name, item))
            };
            wanted.into_iter().map(open).collect()
        });
        let read = read.await;
        if read.is_err() {
            names.iter().for_each(|name| seen.repeat(name));
        }
        read
    }

    /// Those of `names` that are there and open, in one statement where the store is a database.
    #[cfg(feature = "dashboard")]
    pub async fn get_all(&self, names: Vec<String>) -> Result<Vec<(String, Item)>, Error> {
        let space = self.space;
        let read = self.store.run(move |inner| {
            let keys: Vec<&str> = names.iter().map(String::as_str).collect();
            let found = match inner.backend.get_all(space.as_str(), &keys) {
                // One of them is damaged, which hides no other.
                Err(error) if error.is_unopened() => {
                    let read = |name: &String| {
                        let found = inner.entry(space, name).transpose()?;
                        Some(found.map(|(item, _)| (name.clone(), item)))
                    };
                    return names.iter().filter_map(read).collect();
                }
                found => found?.into_iter(),
            };
            let opened = found.map(|(name, entry)| {
                let item = inner.open_entry(space, &name, &entry)?;
                Ok(item.map(|item| (name, item)))
            });
            opened.filter_map(Result::transpose).collect()
        });
        read.await
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
            count -= self.backend.purge(space.as_str(), limit.now_ms)?.min(count);
        }
        let is_full = count >= limit.max;
        counts.insert(space, (count + usize::from(!is_full), at));
        drop(counts);
        match is_full && self.backend.get(space.as_str(), name)?.is_none() {
            true => Err(Error::Full),
            false => Ok(()),
        }
    }
}
