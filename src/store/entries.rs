//! Small sealed texts: logins under way, links that work once, reminders, the outbox.
//!
//! An entry is bound to its space and key, and to its account if it has one. What does not open is
//! as good as absent: unlike a grant, an entry can be made anew.

use super::{
    Error, Expected, Inner, Store, Version,
    backend::{self, Listed, Write},
    envelope::{Closed, Envelope, Plain, to_plain},
    ring::KeyRing,
    seal::Place,
};
use crate::{id::AccountId, secret::Secret};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

/// Defines `Space` with the name of each in a backend and whether the store seals it.
macro_rules! spaces {
    ($($(#[$doc:meta])+ $name:ident = $text:literal, $sealed:literal;)+) => {
        /// A kind of durable thing.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Space { $($(#[$doc])+ $name,)+ }

        impl Space {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name in a backend.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// Whether it is sealed; what must be read without the right keys is not.
            pub fn is_sealed(self) -> bool {
                match self { $(Self::$name => $sealed,)+ }
            }
        }
    };
}

spaces! {
    /// The grant of an account.
    Accounts = "accounts", true;
    /// A login that waits for Amazon's response.
    Login = "logins", true;
    /// A link that starts a login.
    Ticket = "tickets", true;
    /// How a login went.
    Outcome = "outcomes", true;
    /// A new grant that waits for a person's confirmation.
    Grant = "pending", true;
    /// An authorization code that was used.
    Code = "codes", true;
    /// The profiles that an account had when it was connected.
    Profiles = "profiles", true;
    /// The day on which it was last logged that an account's grant ends soon.
    Reminder = "reminders", true;
    /// Messages to hooks that were not taken yet.
    Outbox = "outbox", true;
    /// The keys of the audit log.
    AuditKeys = "audit", true;
    /// The check value of each key, and how it is made of a passphrase.
    Keys = "keys", false;
    /// Running servers, and which keys each has.
    Instances = "instances", false;
    /// The store's id; a rotation under way.
    Meta = "meta", false;
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Whose it is, if it is an account's.
    pub account: Option<AccountId>,
    /// Until when it is good, in milliseconds since 1970. An entry that expires need not survive a
    /// loss of power.
    pub expires_at_ms: Option<u64>,
    /// What it says.
    pub text: Secret,
}

/// How many entries of a space there may be.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// So many.
    pub max: usize,
    /// The time, in milliseconds since 1970: what has expired does not count.
    pub now_ms: u64,
}

/// The entries of one space.
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

/// What is sealed: whose it is, until when it is good, what it says.
#[derive(Serialize, Deserialize)]
struct Inside<T> {
    account: Option<T>,
    expires_at_ms: Option<u64>,
    text: T,
}

impl Store {
    /// The entries of `space`.
    pub fn entries(&self, space: Space) -> Entries<'_> {
        Entries { store: self, space }
    }

    /// Deletes every entry of `account`, its grant excepted.
    pub async fn delete_entries_of(&self, account: &AccountId) -> Result<(), Error> {
        let account = account.clone();
        self.run(move |inner| {
            for space in sealed_entries() {
                for name in inner.names(space)? {
                    let envelope = inner.envelope(space, &name)?;
                    if envelope.and_then(|it| it.account).is_some_and(|it| it == account.as_str()) {
                        inner.backend.delete(space.as_str(), &name, Expected::Any)?;
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
            for space in sealed_entries().filter(|space| !lasting.contains(space)) {
                let count = (inner.purge(space, now_ms)?, Instant::now());
                inner.counts.lock().insert(space, count);
            }
            Ok(())
        })
        .await
    }
}

impl Entries<'_> {
    /// Keeps `item` in place of one of the same name, unless there are too many. A name is up to
    /// 64 letters, digits and signs.
    ///
    /// # Errors
    /// `Full` at the limit, after those that have expired were deleted; `Io`.
    pub async fn put(&self, name: &str, item: &Item, limit: Limit) -> Result<(), Error> {
        let (space, name, item) = (self.space, name.to_owned(), item.clone());
        let put = move |inner: &Inner| {
            inner.count(space, &name, limit)?;
            inner.put_entry(space, &name, &item, Expected::Any).map(|_| ())
        };
        self.store.run(put).await
    }

    /// Reads an entry, good or not.
    pub async fn get(&self, name: &str) -> Result<Option<Item>, Error> {
        let (space, name) = (self.space, name.to_owned());
        self.store.run(move |inner| inner.entry(space, &name)).await
    }

    /// Reads and deletes an entry at once: of all callers, in whatever process, one gets it.
    pub async fn take(&self, name: &str) -> Result<Option<Item>, Error> {
        let (space, name) = (self.space, name.to_owned());
        let take = move |inner: &Inner| {
            let Some(entry) = inner.backend.take(space.as_str(), &name)? else { return Ok(None) };
            inner
                .counts
                .lock()
                .entry(space)
                .and_modify(|count| count.0 = count.0.saturating_sub(1));
            let envelope = Envelope::from_bytes(&entry.bytes).ok();
            Ok(envelope.and_then(|envelope| inner.open_entry(space, &name, &envelope, &inner.ring)))
        };
        self.store.run(take).await
    }

    /// Deletes an entry; false if there was none.
    pub async fn delete(&self, name: &str) -> Result<bool, Error> {
        let (space, name) = (self.space, name.to_owned());
        let delete =
            move |inner: &Inner| Ok(inner.backend.delete(space.as_str(), &name, Expected::Any)?);
        self.store.run(delete).await
    }

    /// Reads an entry and its version.
    pub async fn read(&self, name: &str) -> Result<Option<(Item, Version)>, Error> {
        let (space, name) = (self.space, name.to_owned());
        let read = move |inner: &Inner| {
            let entry = match inner.backend.get(space.as_str(), &name) {
                Err(backend::Error::Damaged { .. }) => None,
                entry => entry?,
            };
            Ok(entry.and_then(|entry| {
                let envelope = Envelope::from_bytes(&entry.bytes).ok()?;
                let item = inner.open_entry(space, &name, &envelope, &inner.ring)?;
                Some((item, entry.version))
            }))
        };
        self.store.run(read).await
    }

    /// Keeps `item` if what is there is as `expected`, and says whether it was. No limit applies.
    pub async fn replace(
        &self,
        name: &str,
        item: &Item,
        expected: Expected,
    ) -> Result<bool, Error> {
        let (space, name, item) = (self.space, name.to_owned(), item.clone());
        let replace = move |inner: &Inner| match inner.put_entry(space, &name, &item, expected) {
            Ok(_) => Ok(true),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::ResourceBusy => {
                Ok(false)
            }
            Err(error) => Err(error),
        };
        self.store.run(replace).await
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

    /// The names of all entries, sorted.
    pub async fn names(&self) -> Result<Vec<String>, Error> {
        let space = self.space;
        self.store.run(move |inner| inner.names(space)).await
    }
}

impl Inner {
    pub(super) fn names(&self, space: Space) -> Result<Vec<String>, Error> {
        Ok(self.backend.list(space.as_str())?.into_iter().map(|listed| listed.key).collect())
    }

    /// What lies under a name, if it is an envelope.
    pub(super) fn envelope(&self, space: Space, name: &str) -> Result<Option<Envelope>, Error> {
        let entry = match self.backend.get(space.as_str(), name) {
            Err(backend::Error::Damaged { .. }) => None,
            entry => entry?,
        };
        Ok(entry.and_then(|entry| Envelope::from_bytes(&entry.bytes).ok()))
    }

    pub(super) fn entry(&self, space: Space, name: &str) -> Result<Option<Item>, Error> {
        let envelope = self.envelope(space, name)?;
        Ok(envelope.and_then(|envelope| self.open_entry(space, name, &envelope, &self.ring)))
    }

    pub(super) fn put_entry(
        &self,
        space: Space,
        name: &str,
        item: &Item,
        expected: Expected,
    ) -> Result<Version, Error> {
        let inside = Inside {
            account: item.account.as_ref().map(AccountId::as_str),
            expires_at_ms: item.expires_at_ms,
            text: item.text.expose(),
        };
        let (plain, ring) = (to_plain(&inside), self.sealing_ring()?);
        let store = self.id()?;
        let place = Place { store: &store, space, key: name, field: "entry" };
        let bytes = Envelope::seal(place, inside.account, &plain, &ring)?.to_bytes();
        let write =
            Write { bytes: &bytes, expires_at_ms: item.expires_at_ms, expected, fence: None };
        Ok(self.backend.put(space.as_str(), name, &write)?)
    }

    /// What an envelope says, if it is that of this name and opens.
    fn open_entry(
        &self,
        space: Space,
        name: &str,
        envelope: &Envelope,
        ring: &KeyRing,
    ) -> Option<Item> {
        let store = self.known_id().ok()??;
        let place = Place { store: &store, space, key: name, field: "entry" };
        let plain: Result<Plain, Closed> = envelope.open(place, ring);
        let inside: Inside<String> = serde_json::from_slice(&plain.ok()?).ok()?;
        let text = Secret::new(inside.text);
        if inside.account != envelope.account {
            return None;
        }
        let account = inside.account.map(|account| account.parse()).transpose().ok()?;
        Some(Item { account, expires_at_ms: inside.expires_at_ms, text })
    }

    /// Makes room for one more under `name`. The space is counted now and then, not every time.
    fn count(&self, space: Space, name: &str, limit: Limit) -> Result<(), Error> {
        let mut counts = self.counts.lock();
        let fresh = counts.get(&space).filter(|(count, at)| {
            let lifetime = if *count < limit.max { COUNT_LIFETIME } else { FULL_LIFETIME };
            at.elapsed() < lifetime
        });
        let (mut count, mut at) = fresh.copied().map_or_else(
            || Ok::<_, Error>((self.backend.list(space.as_str())?.len(), Instant::now())),
            Ok,
        )?;
        if count >= limit.max && fresh.is_none() {
            (count, at) = (self.purge(space, limit.now_ms)?, Instant::now());
        }
        let is_full = count >= limit.max;
        counts.insert(space, (count + usize::from(!is_full), at));
        drop(counts);
        match is_full && self.backend.get(space.as_str(), name)?.is_none() {
            true => Err(Error::Full),
            false => Ok(()),
        }
    }

    /// Deletes what has expired; says how many entries remain.
    fn purge(&self, space: Space, now_ms: u64) -> Result<usize, Error> {
        let all = self.backend.list(space.as_str())?;
        let expired = |listed: &Listed| listed.expires_at_ms.is_some_and(|until| until <= now_ms);
        let mut remaining = all.len();
        for listed in all.iter().filter(|listed| expired(listed)) {
            let expected = Expected::Version(listed.version);
            match self.backend.delete(space.as_str(), &listed.key, expected) {
                Ok(_) => remaining -= 1,
                // Extended meanwhile.
                Err(backend::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(remaining)
    }

    /// Seals the entries anew that open and are not sealed with the first key of `ring`; says how
    /// many those were. What is taken or replaced meanwhile stays so.
    pub(super) fn reseal_entries(&self) -> Result<usize, Error> {
        let mut count = 0;
        for space in sealed_entries() {
            for name in self.names(space)? {
                let ring = self.sealing_ring()?;
                let found = match self.backend.get(space.as_str(), &name) {
                    Err(backend::Error::Damaged { .. }) => continue,
                    found => found?,
                };
                let Some(entry) = found else { continue };
                let Ok(envelope) = Envelope::from_bytes(&entry.bytes) else { continue };
                if envelope.key_id == ring.sealing_key_id() {
                    continue;
                }
                let item = self.open_entry(space, &name, &envelope, &self.ring);
                let Some(item) = item else { continue };
                match self.put_entry(space, &name, &item, Expected::Version(entry.version)) {
                    Ok(_) => count += 1,
                    Err(Error::Io { source, .. })
                        if source.kind() == std::io::ErrorKind::ResourceBusy => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(count)
    }
}

/// Every sealed space but that of the grants.
pub(super) fn sealed_entries() -> impl Iterator<Item = Space> {
    Space::ALL.iter().copied().filter(|space| space.is_sealed() && *space != Space::Accounts)
}
