//! Seals every entry anew with the first key, one at a time, while others work on the store.
//!
//! Each entry is replaced as a whole, and only if it is still as it was read, so at every moment it
//! opens with one of the keys. A marker in the store says that a rotation is under way; as long as
//! it is there, the next start of a server, or the next `key rotate`, goes on with it.

use super::{Credential, Error, Expected, Inner, InstanceInfo, Space, Store};
use crate::{error_chain::chain, id::AccountId};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// Why a rotation does not begin.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error(
        "key {key:?} is not known to running server(s) {}: give every server on this store the new \
         list of keys and restart it, then rotate; nothing was changed",
        pids(.instances)
    )]
    NotKnown { key: String, instances: Vec<InstanceInfo> },
    #[error("another rotation is under way on this store")]
    Busy,
    #[error(transparent)]
    Store(#[from] Error),
}

fn pids(instances: &[InstanceInfo]) -> String {
    let pids: Vec<String> = instances.iter().map(|instance| instance.pid.to_string()).collect();
    format!("with process id {}", pids.join(", "))
}

/// What a rotation did.
#[derive(Debug, Default)]
pub struct RotationReport {
    pub records: usize,
    pub resealed: usize,
    /// Records that are as they were, and why.
    pub failed: Vec<(AccountId, Error)>,
    /// How many other entries and marks are still sealed with an old key, which a server has put
    /// first that has just started.
    pub entries_left: usize,
}

impl RotationReport {
    /// Says whether a later rotation could do more: what does not open is no work left over.
    pub(crate) fn is_done(&self) -> bool {
        self.entries_left == 0 && self.failed.iter().all(|(_, error)| error.is_lasting())
    }
}

/// What is sealed with one key.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// Accounts whose grants it sealed.
    pub accounts: Vec<AccountId>,
    /// How many other entries, and marks of grants, it sealed.
    pub entries: usize,
}

#[derive(Debug, Default)]
pub struct KeyUses {
    pub keys: BTreeMap<String, KeyUse>,
    /// Accounts whose records do not open, and why.
    pub unreadable: Vec<(AccountId, String)>,
    /// The key of a rotation that was begun and not finished.
    pub unfinished_rotation: Option<String>,
}

/// What is kept while a rotation is under way.
#[derive(Serialize, Deserialize)]
struct Marker {
    to: String,
}

/// The right to rotate, checked and not begun yet.
#[derive(Debug)]
pub struct Rotation {
    store: Store,
    fence: u64,
}

impl Drop for Rotation {
    fn drop(&mut self) {
        let _ = self.store.0.backend.release(Space::Meta.as_str(), super::IDENTITY, self.fence);
    }
}

impl Rotation {
    /// Checks that a rotation may begin; changes nothing yet.
    pub async fn prepare(store: &Store) -> Result<Self, RotationError> {
        let key = store.ring().first();
        let mut instances = store.instances().await?;
        instances.retain(|instance| !instance.has(key));
        if !instances.is_empty() {
            return Err(RotationError::NotKnown { key: key.id.clone(), instances });
        }
        let lease = |inner: &Inner| {
            inner.id()?;
            let now_ms = Inner::now_ms();
            match inner.backend.lease(Space::Meta.as_str(), super::IDENTITY, now_ms, LEASE) {
                Err(Error::Held { .. }) => Ok(None),
                granted => Ok(Some(granted?.fence)),
            }
        };
        let fence = store.run(lease).await?.ok_or(RotationError::Busy)?;
        Ok(Self { store: store.clone(), fence })
    }

    /// Seals what is not sealed with the first key. `progress` is called with how many records of
    /// how many were looked at.
    ///
    /// # Errors
    /// `Io` if the store cannot be listed or the marker not be written. A record that cannot be
    /// sealed anew is part of the report.
    ///
    /// # Cancel safety
    /// Safe: what was sealed stays so, and the marker stays for the next rotation.
    pub async fn run(
        &self,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<RotationReport, Error> {
        let store = &self.store;
        store.run(Inner::mark_rotation).await?;
        let mut report = RotationReport::default();
        for pass in 0..PASSES_MAX {
            let all = store.grants().await?;
            let before = report.resealed;
            (report.records, report.failed) = (all.len(), Vec::new());
            for (place, account) in all.iter().enumerate() {
                let reseal = |inner: &Inner, key: &str| inner.reseal(Space::Accounts, key);
                match store.at(account.as_str(), reseal).await {
                    Ok(resealed) => report.resealed += usize::from(resealed),
                    Err(error) => report.failed.push((account.clone(), error)),
                }
                if pass == 0 {
                    progress(place + 1, all.len());
                }
            }
            // A command with an older list of keys may have written meanwhile.
            let (entries, left) = store.run(Inner::reseal_entries).await?;
            report.entries_left = left;
            if report.resealed == before && entries == 0 && report.is_done() {
                break;
            }
        }
        if report.is_done() {
            store
                .run(|inner| inner.backend.delete(Space::Meta.as_str(), MARKER, Expected::Any))
                .await?;
        }
        Ok(report)
    }
}

impl Store {
    /// The key of a rotation that was begun and not finished.
    pub async fn unfinished_rotation(&self) -> Result<Option<String>, Error> {
        self.run(Inner::unfinished_rotation).await
    }

    /// What is sealed with which key.
    pub async fn key_uses(&self) -> Result<KeyUses, Error> {
        self.run(Inner::key_uses).await
    }
}

impl Inner {
    fn key_uses(&self) -> Result<KeyUses, Error> {
        let mut found = KeyUses::default();
        for name in self.names(Space::Accounts)? {
            let Ok(account) = name.parse::<AccountId>() else { continue };
            match self.envelope(Space::Accounts, &name) {
                Ok(None) => continue,
                Ok(Some(envelope)) => {
                    found.keys.entry(envelope.key_id).or_default().accounts.push(account.clone());
                }
                // Below, it does not open either.
                Err(error) if error.is_lasting() => {}
                Err(error) => return Err(error),
            }
            if let Err(error) = self.get::<Credential>(Space::Accounts, &name) {
                found.unreadable.push((account, chain(&error)));
            }
        }
        for space in Space::of_entries() {
            for name in self.names(space)? {
                match self.envelope(space, &name) {
                    Ok(None) => {}
                    Ok(Some(it)) => found.keys.entry(it.key_id).or_default().entries += 1,
                    Err(error) if error.is_unopened() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        for key_id in self.keys_of_marks()? {
            found.keys.entry(key_id).or_default().entries += 1;
        }
        found.unfinished_rotation = self.unfinished_rotation()?;
        Ok(found)
    }

    /// Seals the entries and marks anew that open; says how many needed it, and how many still do.
    fn reseal_entries(&self) -> Result<(usize, usize), Error> {
        let (mut count, mut left) = self.reseal_marks()?;
        for space in Space::of_entries() {
            for name in self.names(space)? {
                match self.reseal(space, &name) {
                    Err(error) if error.is_unopened() => {}
                    Err(Error::OldKey { .. }) => left += 1,
                    resealed => count += usize::from(resealed?),
                }
            }
        }
        Ok((count, left))
    }

    fn unfinished_rotation(&self) -> Result<Option<String>, Error> {
        match self.backend.read_clear::<Marker>(Space::Meta, MARKER) {
            // Whatever it says, something was begun.
            Err(Error::Damaged { .. }) => Ok(Some(String::new())),
            marker => Ok(marker?.map(|marker| marker.to)),
        }
    }

    fn mark_rotation(&self) -> Result<(), Error> {
        let marker = Marker { to: self.ring.sealing_key_id().to_owned() };
        self.backend.put_clear(Space::Meta, MARKER, &marker, Expected::Any)
    }
}

const MARKER: &str = "rotation";
/// Longer than any rotation takes; one that was killed ends with its process.
const LEASE: Duration = Duration::from_secs(3600);
/// The second pass finds what changed in the first, or came meanwhile.
const PASSES_MAX: usize = 3;

#[cfg(test)]
#[path = "rotate_tests.rs"]
mod tests;
