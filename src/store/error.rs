//! Why the store could not do it.

use super::{
    backend,
    ring::{KeyError, NotOpened},
};
use crate::{id::AccountId, trusted_path::UntrustedPath};
use std::{io, path::PathBuf};

/// Why something could not be read or kept.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts of its variants are their documentation")]
pub enum Error {
    #[error(
        "the stored record of account {account}, sealed with key {key_id:?}, cannot be opened \
         and was left as it is: put the right key back under that id in encryption.keys, or \
         restore the record"
    )]
    Sealed {
        /// Whose record.
        account: AccountId,
        /// The key that the record names.
        key_id: String,
        /// Whether the key is missing or refused.
        #[source]
        cause: NotOpened,
    },
    #[error(
        "the stored record of account {account} is damaged and was left as it is: restore it \
         from a backup, or remove the account and connect it again"
    )]
    Corrupt {
        /// Whose record.
        account: AccountId,
        /// What is wrong with it.
        #[source]
        cause: Damage,
    },
    #[error(
        "the stored record of account {account} cannot be read by this user: `chown` {path} to \
         the owner of its directory"
    )]
    Unreadable {
        /// Whose record.
        account: AccountId,
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    #[error("account {account} was removed, connected anew or refreshed elsewhere meanwhile")]
    Superseded { account: AccountId },
    #[error(
        "account {account} is being refreshed elsewhere: try again, and look for another process \
         that works on this store"
    )]
    LeaseHeld {
        /// Whose record.
        account: AccountId,
        /// Until then at most, in milliseconds since 1970.
        until_ms: u64,
    },
    /// The system refused, or the store cannot be reached.
    #[error("cannot {action} {path}: check that it is writable for this user and has free space")]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    #[error("{path} is no entry of the store: restore it from a backup, or remove it")]
    Damaged { path: PathBuf },
    /// Other users can change what is in the store.
    #[error("the store cannot be trusted")]
    Untrusted(#[from] UntrustedPath),
    #[error(
        "account {account} was not sealed with key {key_id:?}, which a server lacks that has just \
         started: restart that server with the new list of keys, then rotate again"
    )]
    OldKey {
        /// Whose record.
        account: AccountId,
        /// The key that should have sealed it.
        key_id: String,
    },
    /// The key ring cannot be used.
    #[error("encryption.keys cannot be used")]
    Key(#[from] KeyError),
    /// The system gave no random bytes.
    #[error("the system's random generator failed: nothing was written")]
    Random,
    /// As many entries as there may be.
    #[error("there are as many of these as there may be: try again later")]
    Full,
}

impl Error {
    /// Says whether a record is there that will open again once its key is back.
    pub fn is_sealed(&self) -> bool {
        matches!(self, Self::Sealed { .. })
    }

    /// Says whether a record is there that this user may not read.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable { .. })
    }

    /// Says whether the record itself is at fault, so that to try again brings the same.
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Sealed { .. } | Self::Corrupt { .. } | Self::Unreadable { .. })
    }

    /// Says whether the disk is full, or was remounted read-only, as ext4 is after an error.
    pub(crate) fn takes_nothing(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let kinds = [QuotaExceeded, ReadOnlyFilesystem, StorageFull];
        matches!(self, Self::Io { source, .. } if kinds.contains(&source.kind()))
    }

    /// What a backend said of the entry of `account`.
    pub(super) fn of_account(account: &AccountId) -> impl FnOnce(backend::Error) -> Self + '_ {
        let account = || account.clone();
        move |error| match error {
            backend::Error::Conflict => Self::Superseded { account: account() },
            backend::Error::Held { until_ms } => Self::LeaseHeld { account: account(), until_ms },
            backend::Error::Unreadable { path, source } => {
                Self::Unreadable { account: account(), path, source }
            }
            backend::Error::Damaged { .. } => {
                Self::Corrupt { account: account(), cause: Damage::NoEntry }
            }
            error => error.into(),
        }
    }
}

/// What a backend said of an entry that is no account's.
impl From<backend::Error> for Error {
    fn from(error: backend::Error) -> Self {
        let io = |action, source: io::Error| Self::Io { action, path: PathBuf::new(), source };
        match error {
            backend::Error::Io { action, path, source } => Self::Io { action, path, source },
            backend::Error::Unreadable { path, source } => {
                Self::Io { action: "read", path, source }
            }
            backend::Error::Damaged { path } => Self::Damaged { path },
            backend::Error::Untrusted(untrusted) => Self::Untrusted(untrusted),
            backend::Error::Conflict | backend::Error::Held { .. } => {
                io("change an entry of the store", io::ErrorKind::ResourceBusy.into())
            }
        }
    }
}

/// What is wrong with a damaged record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("not a record: line {line}, column {column}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    #[error("not a record")]
    NoEntry,
    #[error("format version {0} is not known to this version of adsproxy")]
    Version(u64),
    #[error("it belongs to another store, whose id is {0}")]
    OtherStore(String),
    #[error("its field {0} cannot be right")]
    Field(&'static str),
}

impl Damage {
    pub(super) fn syntax(error: serde_json::Error) -> Self {
        Self::Syntax { line: error.line(), column: error.column() }
    }
}
