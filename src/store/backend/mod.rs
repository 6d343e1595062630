//! Where entries are kept: opaque bytes under `space/key`, each with a version and maybe an expiry.
//!
//! A backend opens nothing and does not know what an entry is for; the store above knows no
//! backend. Every method blocks: the store calls it off the async threads.

mod files;
mod memory;

pub use self::{files::Files, memory::Memory};

use crate::trusted_path::UntrustedPath;
use std::{collections::BTreeMap, fmt::Debug, io, path::PathBuf, time::Duration};

/// A number that is another one after each write of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// What is kept under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEntry {
    /// Opaque.
    pub bytes: Vec<u8>,
    /// The write that it comes from.
    pub version: Version,
    /// When it may be purged, in milliseconds since 1970. It is returned until then and after.
    pub expires_at_ms: Option<u64>,
}

/// An entry without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// As in [`RawEntry`].
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
    /// What is to be kept.
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
    ///
    /// # Errors
    /// `Unreadable`, `Damaged`, `Io`.
    fn get(&self, space: &str, key: &str) -> Result<Option<RawEntry>, Error>;

    /// Writes an entry as a whole, if it is as `write` expects. Durable on `Ok`.
    ///
    /// # Errors
    /// `Conflict` if it is not, `Io`.
    fn put(&self, space: &str, key: &str, write: &Write<'_>) -> Result<Version, Error>;

    /// Reads and deletes an entry at once: of all callers, in whatever process, one gets it.
    fn take(&self, space: &str, key: &str) -> Result<Option<RawEntry>, Error>;

    /// Deletes an entry, readable or not; false if there was none.
    ///
    /// # Errors
    /// `Conflict` if it is not as expected, `Io`.
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

    /// Who leases: a name of this backend's alone, which [`Backend::is_alive`] knows in every
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

/// Why a backend did not do it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts of its variants are their documentation")]
pub enum Error {
    /// The entry is not what the write expected, or the lease is another's by now.
    #[error("another write came first")]
    Conflict,
    /// Another lease is in force.
    #[error("leased to another task or process")]
    Held {
        /// Until then at most, in milliseconds since 1970.
        until_ms: u64,
    },
    /// The entry is there, and this process may not read it.
    #[error("{path} cannot be read by this user: `chown` it to the owner of its directory")]
    Unreadable {
        /// What cannot be read.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Other users can change what is kept.
    #[error(transparent)]
    Untrusted(#[from] UntrustedPath),
    #[error("{path} is no entry of the store: restore it from a backup, or remove it")]
    Damaged { path: PathBuf },
    /// The system refused, or the backend cannot be reached.
    #[error("cannot {action} {path}: check that it is writable for this user and has free space")]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// What is damaged.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
