//! Where entries are kept: opaque bytes under `space/key`, each with a version and maybe an expiry.
//!
//! A backend opens nothing and does not know what an entry is for; the store above knows no
//! backend. Every method blocks: the store calls it off the async threads.

mod files;
mod memory;

pub use self::{files::Files, memory::Memory};

pub use super::Error;

use super::{
    Space, random,
    record::{damaged, to_json},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt::Debug, time::Duration};

/// A number that is another one after each write of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// What is kept under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEntry {
    pub bytes: Vec<u8>,
    /// The write that it comes from.
    pub version: Version,
    /// When it may be purged, in milliseconds since 1970. It is returned until then and after.
    pub expires_at_ms: Option<u64>,
}

/// An entry without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub version: Version,
    /// As in [`RawEntry`]; 0 for an entry that is damaged, so that it is purged where entries
    /// expire.
    pub expires_at_ms: Option<u64>,
}

/// What must be there for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Anything, or nothing.
    Any,
    /// Nothing.
    Absent,
    /// The entry as it was read.
    Version(Version),
}

impl Expected {
    /// Says whether `found` is what was expected.
    pub fn is_met_by(self, found: Option<Version>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => found.is_none(),
            Self::Version(version) => found == Some(version),
        }
    }
}

/// A write.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    pub bytes: &'a [u8],
    /// As in [`RawEntry`]. An entry that expires need not survive a loss of power.
    pub expires_at_ms: Option<u64>,
    /// Else `Conflict`.
    pub expected: Expected,
    /// The fence of the entry's lease must be this one, else `Conflict`.
    pub fence: Option<u64>,
}

/// A lease that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Greater than that of any lease of the entry before.
    pub fence: u64,
    /// When others may take it, in milliseconds since 1970.
    pub until_ms: u64,
}

/// A place that keeps entries. A space is a short lower-case word; a key is any text up to 200 bytes.
pub trait Backend: Send + Sync + Debug {
    /// Makes what is missing to keep entries, where that can fail.
    fn prepare(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Reads an entry.
    fn get(&self, space: &str, key: &str) -> Result<Option<RawEntry>, Error>;

    /// Writes an entry as a whole, if it is as `write` expects. Durable on `Ok`.
    fn put(&self, space: &str, key: &str, write: &Write<'_>) -> Result<Version, Error>;

    /// Reads and deletes an entry at once: of all callers, in whatever process, one gets it.
    fn take(&self, space: &str, key: &str) -> Result<Option<RawEntry>, Error>;

    /// Deletes an entry, readable or not; false if there was none.
    fn delete(&self, space: &str, key: &str, expected: Expected) -> Result<bool, Error>;

    /// Lists a space, sorted by key. Cheap enough for every second.
    fn list(&self, space: &str) -> Result<Vec<Listed>, Error>;

    /// Leases an entry to [`Backend::owner`] for `ttl`.
    ///
    /// # Errors
    /// `Held` by another lease that has not expired and whose owner lives, `Conflict` if there is
    /// no such entry, `Io` if it cannot be said.
    fn lease(&self, space: &str, key: &str, now_ms: u64, ttl: Duration) -> Result<Granted, Error>;

    /// Ends a lease, if it is still the one with this fence.
    fn release(&self, space: &str, key: &str, fence: u64) -> Result<(), Error>;

    /// The owner of leases: a name of this backend alone, which [`Backend::is_alive`] knows in every
    /// process as long as the backend is open.
    fn owner(&self) -> Result<String, Error>;

    /// Says whether `owner` may be alive; true where only an expiry can tell.
    fn is_alive(&self, owner: &str) -> Result<bool, Error>;

    /// The keys of a space that were written or deleted since `seen`, which is brought up to date.
    fn changes(
        &self,
        space: &str,
        seen: &mut BTreeMap<String, Version>,
    ) -> Result<Vec<String>, Error> {
        let now: BTreeMap<_, _> =
            self.list(space)?.into_iter().map(|listed| (listed.key, listed.version)).collect();
        let before = std::mem::replace(seen, now);
        let keys = before.keys().chain(seen.keys().filter(|key| !before.contains_key(*key)));
        Ok(keys.filter(|key| before.get(*key) != seen.get(*key)).cloned().collect())
    }
}

impl dyn Backend + '_ {
    /// Reads what `put_clear` kept.
    pub(super) fn read_clear<T: DeserializeOwned>(
        &self,
        space: Space,
        key: &str,
    ) -> Result<Option<T>, Error> {
        let Some(entry) = self.get(space.as_str(), key)? else { return Ok(None) };
        let value = serde_json::from_slice(&entry.bytes);
        value.map(Some).map_err(|error| damaged(space, key, error.into()))
    }

    /// Keeps `value` unsealed.
    pub(super) fn put_clear(
        &self,
        space: Space,
        key: &str,
        value: &impl Serialize,
        expected: Expected,
    ) -> Result<(), Error> {
        let write = Write { bytes: &to_json(value), expires_at_ms: None, expected, fence: None };
        self.put(space.as_str(), key, &write).map(drop)
    }
}
