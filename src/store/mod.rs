//! Keeps grants: what an account was granted outlives the process, sealed and bound to its owner.
//!
//! Only this module sees ciphertext. A record that cannot be opened is an error and stays where
//! it is: nothing here ever clears what it cannot read. It knows neither Login with Amazon nor
//! when a token is due; who changes a record holds its lock and decides what goes into it.

mod file;
pub mod keyring;
mod lock;
mod master;
mod memory;
pub mod notes;
mod passphrase;
mod processes;
mod record;
pub mod rotate;
pub mod seal;

pub use self::{
    file::FileStore,
    lock::Lock,
    master::generate as generate_key,
    memory::MemoryStore,
    passphrase::prepare as prepare_passphrase,
    processes::{Presence, Process},
    record::KeyUse,
};

use crate::{
    config,
    id::{AccountId, Region},
    secret::Secret,
};
use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

/// One account's grant and the newest access token made from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Whose it is.
    pub account: AccountId,
    /// Which LWA application it was granted to.
    pub application: String,
    /// The account's API region.
    pub region: Region,
    /// The grant itself.
    pub refresh_token: Secret,
    /// The grant before the last rotation.
    pub previous_refresh_token: Option<Secret>,
    /// The newest access token, so that a restart needs no refresh.
    pub access_token: Option<StoredAccessToken>,
    /// The number of the access token in the account's history.
    pub generation: u64,
    /// When the advertiser consented, in seconds since 1970, if known.
    pub consented_at: Option<u64>,
    /// When this record was last changed, in seconds since 1970.
    pub updated_at: u64,
    /// The grant is dead; a person must consent again.
    pub reauthorization_required: bool,
    /// Fingerprint of the configured refresh token that this record began with.
    pub seed: Option<String>,
}

/// An access token as it is kept, with times in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAccessToken {
    /// The token.
    pub token: Secret,
    /// When it was issued.
    pub issued_at: u64,
    /// When it stops being accepted.
    pub expires_at: u64,
}

/// A boxed future, so that the store can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A place that keeps credentials.
pub trait CredentialStore: Send + Sync + Debug {
    /// Returns the account's credential, or none if nothing is kept for it.
    ///
    /// # Errors
    /// `Sealed`, `Corrupt` or `Io`; the record is untouched in each case.
    fn load<'a>(
        &'a self,
        account: &'a AccountId,
    ) -> BoxFuture<'a, Result<Option<Credential>, Error>>;

    /// Replaces the account's record as a whole; durable when it returns `Ok`.
    ///
    /// Hold the account's lock from the load to the save, or the last writer wins.
    ///
    /// # Errors
    /// `Io` above all; what was kept before is then still there.
    ///
    /// # Cancel safety
    /// Never leaves half a record, but a dropped future does not stop a write that has begun.
    fn save<'a>(&'a self, credential: &'a Credential) -> BoxFuture<'a, Result<(), Error>>;

    /// Forgets the account; `false` if nothing was kept for it. Works on a record that cannot be
    /// opened, too.
    ///
    /// # Errors
    /// `Io`.
    fn remove<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<bool, Error>>;

    /// Lists the accounts that have a record, sorted, without opening any.
    ///
    /// # Errors
    /// `Io`.
    fn list(&self) -> BoxFuture<'_, Result<Vec<AccountId>, Error>>;

    /// Lists the accounts that have a record with a number that changes when the record does,
    /// without opening any: cheap enough to look for changes all the time.
    ///
    /// # Errors
    /// `Io`.
    fn versions(&self) -> BoxFuture<'_, Result<BTreeMap<AccountId, u64>, Error>>;

    /// Waits until nobody else, in this process or another, holds the account's lock.
    ///
    /// # Errors
    /// `Locked` after the deadline, `Io`.
    ///
    /// # Cancel safety
    /// Safe: a waiter that leaves gives up its place.
    fn lock<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<Lock, Error>>;

    /// Returns a fingerprint, to be kept in a record: tells whether two secrets are the same.
    fn fingerprint(&self, secret: &Secret) -> String;

    /// Says whether `stored` is a fingerprint of `secret`.
    fn fingerprint_matches(&self, stored: &str, secret: &Secret) -> bool;

    /// The store behind it if it seals what it keeps.
    fn sealed(&self) -> Option<&FileStore> {
        None
    }

    /// The notes beside the records.
    fn notes(&self) -> &dyn notes::Notes;
}

/// Opens the configured store; makes its directory if there is none.
///
/// # Errors
/// `Key` if the key ring cannot be used (the memory store needs none), `Io` if the directory
/// cannot be made.
pub fn open(
    store: &config::Store,
    encryption: &config::Encryption,
) -> Result<Arc<dyn CredentialStore>, Error> {
    Ok(match open_sealed(store, encryption)? {
        Some(sealed) => Arc::new(sealed),
        None => Arc::new(MemoryStore::new()),
    })
}

/// Opens the configured store if it is one that seals.
///
/// # Errors
/// As [`open`].
pub fn open_sealed(
    store: &config::Store,
    encryption: &config::Encryption,
) -> Result<Option<FileStore>, Error> {
    if !store.kind.seals() {
        return Ok(None);
    }
    let ring = seal::KeyRing::fetch(encryption, &store.path)?;
    FileStore::open(&store.path, ring).map(Some)
}

/// Why a credential could not be read, kept or locked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A record is there but no key opens it.
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
        cause: seal::NotOpened,
    },
    /// What is there is not a record of this account.
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
    /// The system refused.
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
    /// Somebody else holds the account's lock.
    #[error(
        "account {account} was in use elsewhere for more than {waited:?}: try again, and look \
         for another process that works on this store"
    )]
    Locked {
        /// Whose lock.
        account: AccountId,
        /// How long we waited.
        waited: Duration,
    },
    /// Another process wrote the record with a key of its own.
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
    Key(#[from] seal::KeyError),
    /// The system gave no random bytes.
    #[error("the system's random generator failed: nothing was written")]
    Random,
    /// As many notes as there may be.
    #[error("there are as many of these as there may be: try again later")]
    Full,
}

impl Error {
    /// Says whether a record is there that will open again once its key is back.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        matches!(self, Self::Sealed { .. })
    }

    /// Says whether the record itself is at fault, so that to try again brings the same.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Sealed { .. } | Self::Corrupt { .. })
    }

    /// Wraps what the system said about `action` on `path`.
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// What is wrong with a damaged record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not the JSON of a record. The parser's own words are left out: they quote the content.
    #[error("not a record: line {line}, column {column}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// Written by a newer adsproxy, or damaged.
    #[error("format version {0} is not known to this version of adsproxy")]
    Version(u64),
    /// A record moved here from another account.
    #[error("it belongs to another account")]
    OtherAccount,
    /// A field that cannot be right.
    #[error("its field {0} cannot be right")]
    Field(&'static str),
    /// Too long for a record.
    #[error("longer than a record can be")]
    TooLong,
}

/// How long `lock` waits.
const LOCK_TIMEOUT: Duration = Duration::from_secs(15);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A credential with every field set, its secrets marked as canaries.
    pub(crate) fn credential(alias: &str) -> Credential {
        Credential {
            account: alias.parse().expect("an alias"),
            application: "default".to_owned(),
            region: Region::Eu,
            refresh_token: Secret::new(format!("Atzr|CANARY-refresh-{alias}")),
            previous_refresh_token: Some(Secret::new(format!("Atzr|CANARY-previous-{alias}"))),
            access_token: Some(StoredAccessToken {
                token: Secret::new(format!("Atza|CANARY-access-{alias}")),
                issued_at: 1_795_132_800,
                expires_at: 1_795_136_400,
            }),
            generation: 7,
            consented_at: Some(1_790_000_000),
            updated_at: 1_795_132_801,
            reauthorization_required: false,
            seed: Some("k1:c2VlZA".to_owned()),
        }
    }

    /// Every mix of absent and present, empty and extreme.
    pub(crate) fn credentials() -> Vec<Credential> {
        let full = credential("acme");
        let bare = Credential {
            previous_refresh_token: None,
            access_token: None,
            consented_at: None,
            seed: None,
            ..full.clone()
        };
        let odd = Credential {
            account: "A".repeat(AccountId::MAX_LEN).parse().expect("an alias"),
            application: "ünïcode \"quoted\" \\ \n".to_owned(),
            region: Region::Fe,
            refresh_token: Secret::from(""),
            previous_refresh_token: Some(Secret::from("\u{0}\u{1f600}")),
            access_token: Some(StoredAccessToken {
                token: Secret::new("t".repeat(8192)),
                issued_at: 0,
                expires_at: u64::MAX,
            }),
            generation: u64::MAX,
            consented_at: Some(0),
            updated_at: u64::MAX,
            reauthorization_required: true,
            seed: Some(String::new()),
        };
        let dead = Credential { reauthorization_required: true, ..bare.clone() };
        vec![full, bare, odd, dead]
    }

    #[test]
    fn debug_shows_no_secret_of_a_credential() {
        let shown = format!("{:?} {:#?}", credential("acme"), credential("acme"));
        assert!(shown.contains("[redacted]") && shown.contains("acme"));
        assert!(!shown.contains("CANARY"), "{shown}");
    }

    #[test]
    fn only_a_sealed_record_is_called_sealed() {
        let account: AccountId = "acme".parse().expect("an alias");
        let cause = seal::NotOpened::KeyMissing;
        let sealed = Error::Sealed { account: account.clone(), key_id: "k1".to_owned(), cause };
        assert!(sealed.is_sealed());
        let text = sealed.to_string();
        assert!(text.contains("acme") && text.contains("k1") && text.contains("encryption.keys"));
        for other in [
            Error::Corrupt { account: account.clone(), cause: Damage::OtherAccount },
            Error::Locked { account, waited: LOCK_TIMEOUT },
            Error::Key(seal::KeyError::None),
            Error::Random,
        ] {
            assert!(!other.is_sealed(), "{other}");
        }
    }

    #[test]
    fn the_memory_store_needs_no_key_and_the_file_store_does() {
        let none = config::Encryption { keys: Vec::new() };
        let dir = tempfile::tempdir().expect("a directory");
        let at = |kind| config::Store { kind, path: dir.path().join("store") };
        open(&at(config::StoreKind::Memory), &none).expect("opens");
        let error = open(&at(config::StoreKind::File), &none).expect_err("no key");
        assert!(matches!(error, Error::Key(seal::KeyError::None)), "{error}");
        assert!(!dir.path().join("store").exists());
    }
}
