//! Seals every record anew with the first key, one at a time, while others work on the store.
//!
//! Each record is replaced as a whole under its account's lock, so at every moment it opens with
//! one of the keys. A marker in the store says that a rotation is under way; as long as it is
//! there, the next start of a server, or the next `key rotate`, goes on with it.

use super::{
    CredentialStore as _, Error, FileStore, Process, file,
    lock::{blocking, open_private, try_lock},
};
use crate::{config, id::AccountId};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::ErrorKind,
};

/// Why a rotation does not begin.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Running servers would take what it seals for unreadable.
    #[error(
        "key {key:?} is not known to running server(s) {}: give every server on this store the new \
         list of keys and restart it, then rotate; nothing was changed",
        pids(.processes)
    )]
    NotKnown {
        /// The key that would seal.
        key: String,
        /// Who lacks it.
        processes: Vec<Process>,
    },
    /// One at a time.
    #[error("another rotation is under way on this store")]
    Busy,
    /// The store.
    #[error(transparent)]
    Store(#[from] Error),
}

fn pids(processes: &[Process]) -> String {
    let pids: Vec<String> = processes.iter().map(|process| process.pid.to_string()).collect();
    format!("with process id {}", pids.join(", "))
}

/// What a rotation did.
#[derive(Debug, Default)]
pub struct Report {
    /// Records there are.
    pub records: usize,
    /// Records sealed anew.
    pub resealed: usize,
    /// Records that are as they were, and why.
    pub failed: Vec<(AccountId, Error)>,
}

/// What is written down while a rotation is under way.
#[derive(Serialize, Deserialize)]
struct Marker {
    to: String,
}

/// The right to rotate, checked and not begun yet.
#[derive(Debug)]
pub struct Rotation<'a> {
    store: &'a FileStore,
    _lock: File,
}

impl<'a> Rotation<'a> {
    /// Checks that a rotation may begin; changes nothing yet.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn prepare(store: &'a FileStore) -> Result<Self, Refusal> {
        let path = store.directory().join("rotation.lock");
        let lock = blocking(&path, |path| {
            let file = open_private(path)?;
            Ok(try_lock(&file, path)?.then_some(file))
        })
        .await?
        .ok_or(Refusal::Busy)?;
        let (key, check) = store.ring().sealing_check();
        let mut processes = store.processes().await?;
        processes.retain(|process| !process.has(key, check));
        if !processes.is_empty() {
            return Err(Refusal::NotKnown { key: key.to_owned(), processes });
        }
        Ok(Self { store, _lock: lock })
    }

    /// Seals what is not sealed with the first key. `accounts` are those of the configuration;
    /// `progress` hears how many records of how many were looked at.
    ///
    /// # Errors
    /// `Io` if the store cannot be listed or the marker not be written. A record that cannot be
    /// sealed anew is part of the report.
    ///
    /// # Cancel safety
    /// Safe: what was sealed stays so, and the marker stays for whoever goes on.
    pub async fn run(
        &self,
        accounts: &BTreeMap<AccountId, config::Account>,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Report, Error> {
        self.store.mark_rotation().await?;
        let mut report = Report::default();
        for pass in 0..PASSES_MAX {
            let all = self.store.list().await?;
            let before = report.resealed;
            (report.records, report.failed) = (all.len(), Vec::new());
            for (place, account) in all.iter().enumerate() {
                match self.store.reseal(account, accounts.get(account)).await {
                    Ok(resealed) => report.resealed += usize::from(resealed),
                    Err(error) => report.failed.push((account.clone(), error)),
                }
                if pass == 0 {
                    progress(place + 1, all.len());
                }
            }
            // A command with an older list of keys may have written meanwhile.
            let again = report.failed.iter().any(|(_, error)| !error.is_lasting());
            let notes = self.store.reseal_notes().await?;
            if report.resealed == before && notes == 0 && !again {
                break;
            }
        }
        // What does not open is no work left over: no later start could do it either.
        if report.failed.iter().all(|(_, error)| error.is_lasting()) {
            self.store.unmark_rotation().await?;
        }
        Ok(report)
    }
}

impl FileStore {
    /// Seals the account's record anew, if it is not sealed with the first key; says whether it
    /// was.
    async fn reseal(
        &self,
        account: &AccountId,
        config: Option<&config::Account>,
    ) -> Result<bool, Error> {
        if self.is_settled(account).await? {
            return Ok(false);
        }
        let _lock = self.lock(account).await?;
        let Some(mut record) = self.load(account).await? else { return Ok(false) };
        let configured = config.and_then(|config| config.refresh_token.as_ref());
        if let (Some(seed), Some(secret)) = (record.seed.as_mut(), configured)
            && self.fingerprint_matches(seed, secret)
        {
            *seed = self.fingerprint(secret);
        }
        self.save(&record).await?;
        let key_id = self.key_use(account).await?.map(|found| found.key_id);
        let ours = self.ring().sealing_key_id();
        if key_id.as_deref().is_some_and(|id| id != ours) {
            return Err(Error::OldKey { account: account.clone(), key_id: ours.to_owned() });
        }
        Ok(true)
    }

    /// Says whether there is nothing to seal anew.
    async fn is_settled(&self, account: &AccountId) -> Result<bool, Error> {
        let found = self.key_use(account).await?;
        Ok(found.is_none_or(|found| found.key_id == self.ring().sealing_key_id()))
    }

    /// The key of a rotation that was begun and not finished.
    ///
    /// # Errors
    /// `Io`.
    pub async fn unfinished_rotation(&self) -> Result<Option<String>, Error> {
        blocking(&self.directory().join(MARKER), |path| match fs::read(path) {
            // Whatever it says, something was begun.
            Ok(text) => Ok(Some(
                serde_json::from_slice(&text).map_or_else(|_| String::new(), |m: Marker| m.to),
            )),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path)(error)),
        })
        .await
    }

    /// Says whether a rotation to this ring's first key was begun and not finished.
    ///
    /// # Errors
    /// `Io`.
    pub async fn must_finish_rotation(&self) -> Result<bool, Error> {
        let to = self.unfinished_rotation().await?;
        Ok(to.is_some_and(|to| to == self.ring().sealing_key_id()))
    }

    async fn mark_rotation(&self) -> Result<(), Error> {
        let marker = Marker { to: self.ring().sealing_key_id().to_owned() };
        let text = serde_json::to_vec(&marker).expect("plain JSON");
        blocking(&self.directory().join(MARKER), move |path| file::write_over(path, &text)).await
    }

    async fn unmark_rotation(&self) -> Result<(), Error> {
        blocking(&self.directory().join(MARKER), |path| match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::io("remove", path)(error))
            }
            _ => file::sync_directory(file::parent(path)),
        })
        .await
    }
}

const MARKER: &str = "rotation.json";

/// The second pass finds what was locked in the first, or came meanwhile.
const PASSES_MAX: usize = 3;

#[cfg(test)]
#[path = "rotate_tests.rs"]
mod tests;
