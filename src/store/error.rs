//! Why the store, or a backend below it, could not do it.

use super::ring::{KeyError, NotOpened};
use crate::trusted_path::UntrustedPath;
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
         and was left as it is: restore meta/store.json from a backup of the store; if the record \
         was copied here from another store, delete its file"
    )]
    OtherStore { record: String, store: String },
    #[error(
        "meta/store.json in the store, without which no record opens, is damaged or lost: restore it \
         from a backup of the store, or begin with an empty store"
    )]
    Identity(#[source] Damage),
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
        self.is_unopened() || matches!(self, Self::Unreadable { .. })
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
