//! Why the store, or a backend below it, could not do it.

use super::{
    Space,
    ring::{KeyError, NotOpened},
};
use crate::{id::AccountId, trusted_path::UntrustedPath};
use std::{
    io::{self, ErrorKind},
    path::PathBuf,
};

/// Why something could not be read or kept. A record is named by its space and key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The entry is not as expected, or its lease has another fence.
    #[error("the record was removed, connected anew or refreshed elsewhere meanwhile")]
    Conflict,
    /// Another lease of the entry ends then at the latest, in milliseconds since 1970.
    #[error(
        "the record is being refreshed elsewhere: try again, and look for another process that \
         works on this store"
    )]
    Held { until_ms: u64 },
    #[error(
        "the stored record {record}, sealed with key {key_id:?}, cannot be opened and was left as \
         it is: put the right key back under that id in encryption.keys, or restore the record"
    )]
    Sealed {
        record: String,
        key_id: String,
        #[source]
        cause: NotOpened,
    },
    #[error(
        "the stored record {record} is damaged and was left as it is: restore it from a backup, or \
         remove it and connect the account again"
    )]
    Damaged {
        record: String,
        #[source]
        cause: Damage,
    },
    #[error(
        "the stored record {record} was sealed in a store whose id is {store:?}, unlike this one's, \
         and was left as it is: restore meta/store.json (in a database: the row meta/store) from a \
         backup of the store; if the record was copied here from another store, delete its file or row"
    )]
    OtherStore { record: String, store: String },
    #[error(
        "meta/store.json in the store (in a database: the row meta/store), without which no record \
         opens, is damaged or lost: restore it from a backup of the store, or begin with an empty \
         store"
    )]
    Identity(#[source] Damage),
    #[error(
        "the stored record {record} is older than one that was there, and was not used: the store \
         was restored from a backup, or the record was changed by another hand; connect the account \
         again, or use the record as it is by `adsproxy store accept`"
    )]
    SetBack { record: String },
    #[error("{path} cannot be read by this user: `chown` it to the owner of its directory")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The system refused, or the store cannot be reached. `action` is a verb.
    #[error("cannot {action} {path}: check that it is writable for this user and has free space")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The database rejects it, or cannot be reached.
    #[error("the database of the store cannot be used: check store.url and the database")]
    Database {
        #[source]
        source: io::Error,
    },
    #[error("the database of the store cannot be used as configured: {0}")]
    DatabaseSettings(String),
    #[error(
        "the schema {name:?} in the database {state}, and this role may not change that: run \
         `adsproxy migrate` with the URL of a role that may (docs/postgres.md)"
    )]
    SchemaMissing {
        name: String,
        state: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "the schema {name:?} in the database is of version {version} and not for programs that \
         know version {known} at most: update this adsproxy; nothing was changed"
    )]
    SchemaTooNew { name: String, version: i64, known: i64 },
    #[error("the store cannot be trusted")]
    Untrusted(#[from] UntrustedPath),
    #[error(
        "the record {record} was not sealed with key {key_id:?}, which a server lacks that has \
         just started: restart that server with the new list of keys, then rotate again"
    )]
    OldKey { record: String, key_id: String },
    #[error("encryption.keys cannot be used")]
    Key(#[from] KeyError),
    #[error("the system's random generator failed: nothing was written")]
    Random,
    #[error("there are as many of these as there may be: try again later")]
    Full,
}

impl Error {
    /// That the record of `account` is older than one that was seen.
    pub(crate) fn set_back(account: &AccountId) -> Self {
        Self::SetBack { record: Space::Accounts.name_of(account.as_str()) }
    }

    /// That the store did not respond in the time that the caller has.
    #[cfg(feature = "dashboard")]
    pub(crate) fn unresponsive() -> Self {
        Self::Database { source: ErrorKind::TimedOut.into() }
    }

    /// Says whether a record is there that will open again once its key is back.
    pub fn is_sealed(&self) -> bool {
        matches!(self, Self::Sealed { .. })
    }

    /// Says whether a record is there that was read and does not open.
    pub(super) fn is_unopened(&self) -> bool {
        matches!(self, Self::Sealed { .. } | Self::Damaged { .. } | Self::OtherStore { .. })
    }

    /// Says whether the record itself is at fault, so that to try again brings the same.
    pub fn is_lasting(&self) -> bool {
        self.is_unopened() || matches!(self, Self::Unreadable { .. } | Self::SetBack { .. })
    }

    /// Says whether the database cannot be reached, or is not ready yet: it may be without anything
    /// being changed here.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Database { .. } | Self::SchemaMissing { .. })
    }

    /// Says whether only another configuration, or another program, helps.
    pub(crate) fn is_configuration(&self) -> bool {
        matches!(self, Self::DatabaseSettings(_) | Self::SchemaTooNew { .. })
    }

    /// Says whether the disk is full, or was remounted read-only, as ext4 is after an error.
    pub(crate) fn is_unwritable(&self) -> bool {
        use ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let kinds = [QuotaExceeded, ReadOnlyFilesystem, StorageFull];
        matches!(self, Self::Io { source, .. } if kinds.contains(&source.kind()))
    }
}

/// What is wrong with a damaged record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("not a record: line {line}, column {column}")]
    Syntax { line: usize, column: usize },
    #[error("not a record")]
    NoEntry,
    #[error("format version {0} is not known to this version of adsproxy")]
    Version(u64),
}

/// The text of the parser's error may show a secret.
impl From<serde_json::Error> for Damage {
    fn from(error: serde_json::Error) -> Self {
        Self::Syntax { line: error.line(), column: error.column() }
    }
}
