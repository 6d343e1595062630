//! Where entries are kept: opaque bytes under `space/key`, each with a version and maybe an expiry.
//!
//! A backend opens nothing and does not know what an entry is for; the store above knows no
//! backend. Every method blocks: the store calls it off the async threads.

mod files;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod hints;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod seen;
mod shared_log;
mod versions;

#[cfg(feature = "postgres")]
pub use self::postgres::Postgres;
pub use self::{
    files::Files, hints::Hints, memory::Memory, seen::SeenEntries, versions::VersionTable,
};

pub use super::Error;
pub use shared_log::{LINES_PAGE, LoggedLine, SharedLog};

use super::{
    Space, random,
    record::{damaged, to_json},
};
use crate::config;
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Debug, time::Duration};

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
    /// The fence of the entry's lease must be this one, else `Conflict`. It is the last write under
    /// that lease: see [`Backend::ends_leases`].
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

/// What became of the wish to lease an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseClaim {
    /// It is leased. With the entry as it was then, where one statement could do both.
    Granted(Granted, Option<RawEntry>),
    /// As [`Error::Held`].
    Held { until_ms: u64 },
}

/// A mark that is sealed anew.
#[derive(Debug)]
pub struct ReplacedMark {
    pub key: String,
    pub before: Vec<u8>,
    pub bytes: Vec<u8>,
}

/// A place that keeps entries. A space is a short lower-case word; a key is any text up to 200 bytes.
pub trait Backend: Send + Sync + Debug {
    /// Makes what is missing to keep entries, where that can fail.
    fn prepare(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Reads an entry.
    fn get(&self, space: &str, key: &str) -> Result<Option<RawEntry>, Error>;

    /// Reads those of `keys` that are there.
    fn get_all(&self, space: &str, keys: &[&str]) -> Result<Vec<(String, RawEntry)>, Error> {
        let found = keys.iter().filter_map(|&key| {
            let found = self.get(space, key).transpose()?;
            Some(found.map(|entry| (key.to_owned(), entry)))
        });
        found.collect()
    }

    /// Writes an entry as a whole, if it is as `write` expects. Durable on `Ok`.
    fn put(&self, space: &str, key: &str, write: &Write<'_>) -> Result<Version, Error>;

    /// Reads and deletes an entry at once: of all callers, in whatever process, one gets it.
    fn take(&self, space: &str, key: &str) -> Result<Option<RawEntry>, Error>;

    /// Deletes an entry, readable or not; false if there was none.
    fn delete(&self, space: &str, key: &str, expected: Expected) -> Result<bool, Error>;

    /// Lists a space, sorted by key. Cheap enough for every second.
    fn list(&self, space: &str) -> Result<Vec<Listed>, Error>;

    /// Deletes what expires at `now_ms` or before; says how many entries it were.
    fn purge(&self, space: &str, now_ms: u64) -> Result<usize, Error> {
        let expired = |listed: &Listed| listed.expires_at_ms.is_some_and(|until| until <= now_ms);
        let mut deleted = 0;
        for listed in self.list(space)?.iter().filter(|listed| expired(listed)) {
            match self.delete(space, &listed.key, Expected::Version(listed.version)) {
                Ok(_) => deleted += 1,
                // Extended meanwhile.
                Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }

    /// Says whether leases end by a clock that several machines share, whatever `now_ms` is.
    fn has_own_clock(&self) -> bool {
        false
    }

    /// Leases an entry to [`Backend::owner`] for `ttl`.
    ///
    /// # Errors
    /// `Held` by another lease that has not expired and whose owner lives, `Conflict` if there is
    /// no such entry, `Io` if it cannot be said.
    fn lease(&self, space: &str, key: &str, now_ms: u64, ttl: Duration) -> Result<Granted, Error>;

    /// Leases those of `keys` that are free, as [`Backend::lease`] does each; one that is not there has
    /// no claim.
    fn claim(
        &self,
        space: &str,
        keys: &[&str],
        now_ms: u64,
        ttl: Duration,
    ) -> Result<Vec<(String, LeaseClaim)>, Error> {
        let mut claims = Vec::new();
        for &key in keys {
            let claim = match self.lease(space, key, now_ms, ttl) {
                Ok(granted) => LeaseClaim::Granted(granted, None),
                Err(Error::Held { until_ms }) => LeaseClaim::Held { until_ms },
                Err(Error::Conflict) => continue,
                Err(error) => return Err(error),
            };
            claims.push((key.to_owned(), claim));
        }
        Ok(claims)
    }

    /// Says whether a write with a fence ends the lease: it need not be released then.
    fn ends_leases(&self) -> bool {
        false
    }

    /// Ends a lease, if it is still the one with this fence.
    fn release(&self, space: &str, key: &str, fence: u64) -> Result<(), Error>;

    /// The owner of leases: a name of this backend alone, which [`Backend::is_alive`] knows in every
    /// process as long as the backend is open.
    fn owner(&self) -> Result<String, Error>;

    /// Says whether `owner` may be alive; true where only an expiry can tell.
    fn is_alive(&self, owner: &str) -> Result<bool, Error>;

    /// The entries whose keys are owners that live. Those of owners that have ended are removed.
    fn live(&self, space: &str) -> Result<Vec<RawEntry>, Error> {
        let mut live = Vec::new();
        for Listed { key, .. } in self.list(space)? {
            if self.is_alive(&key)? {
                live.extend(self.get(space, &key)?);
            } else {
                // A disk that takes nothing is no reason to count it.
                let _ = self.delete(space, &key, Expected::Any);
            }
        }
        Ok(live)
    }

    /// The log that servers share in it, where there is one.
    fn shared_log(&self) -> Option<&dyn SharedLog> {
        None
    }

    /// The keys of a space that were written or deleted since `seen`, which is brought up to date.
    /// After an error nothing is missed by asking again.
    fn changes(&self, space: &str, seen: &mut SeenEntries) -> Result<Vec<String>, Error> {
        let now = self.list(space)?.into_iter().map(|listed| (listed.key, listed.version));
        Ok(seen.replace(now.collect()))
    }

    /// Says whether it keeps a mark beside each entry that comes with one, apart from the entries.
    fn keeps_marks(&self) -> bool {
        false
    }

    /// As [`Backend::put`], and keeps `mark` at once with it.
    fn put_marked(
        &self,
        space: &str,
        key: &str,
        write: &Write<'_>,
        _mark: &[u8],
    ) -> Result<Version, Error> {
        self.put(space, key, write)
    }

    /// All marks by their keys, or that of one key.
    fn marks(&self, _only: Option<&str>) -> Result<Vec<(String, Vec<u8>)>, Error> {
        Ok(Vec::new())
    }

    /// Replaces those marks that still are what they were; says how many.
    fn replace_marks(&self, _changes: Vec<ReplacedMark>) -> Result<usize, Error> {
        Ok(0)
    }

    /// Hints of changes to come, where other servers give some.
    fn hints(&self) -> Hints {
        Hints::default()
    }

    /// Says whether hints arrive; none where there are not to be any.
    fn prove_hints(&self) -> Option<Result<(), Error>> {
        None
    }

    /// Makes its schema what this program wants, if it has one; returns it as it was before.
    fn migrate(&self) -> Result<Option<Schema>, Error> {
        Ok(None)
    }

    /// The schema as it is, if it has one.
    fn schema(&self) -> Result<Option<Schema>, Error> {
        Ok(None)
    }
}

/// The schema of a database, as it is and as this program wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// What it is called.
    pub name: String,
    /// 0: it has no tables of ours yet.
    pub version: i64,
    /// The newest that this program knows.
    pub known: i64,
}

/// The backend of the configuration, of a kind that seals; connects to nothing yet.
pub(super) fn open(store: &config::StoreConfig) -> Result<Box<dyn Backend>, Error> {
    #[cfg(feature = "postgres")]
    if store.kind == config::StoreKind::Postgres {
        return Ok(Box::new(Postgres::open(store)?));
    }
    Ok(Box::new(Files::open(&store.path)?))
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
