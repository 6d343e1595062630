//! What a server has seen of the sessions and revocations in the store.

use super::{KeyId, REVOCATION_MARGIN_SECS, Revocation, Session, USES_LIFETIME};
use crate::store::{self, Entries, backend::SeenEntries};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What was seen when the store was last looked at.
#[derive(Debug, Default)]
pub(super) struct FollowedSpaces {
    pub(super) sessions: FollowedSpace<Session>,
    pub(super) revocations: FollowedSpace<Revocation>,
    /// When each key was last used, as the store has it.
    pub(super) uses: HashMap<KeyId, u64>,
    /// The store could not be read, which was logged.
    pub(super) is_failing: bool,
}

impl FollowedSpaces {
    /// The ids of the keys that are revoked: also where the entry itself cannot be opened.
    pub(super) fn revoked(&self) -> HashSet<KeyId> {
        self.revocations.seen.versions.keys().filter_map(|name| name.parse().ok()).collect()
    }

    /// The names of the revocations that end nothing any more: the key has expired, as it was when it
    /// was revoked and as the configuration has it now (`key_end`), and so have its sessions.
    pub(super) fn over(&self, now: u64, key_end: impl Fn(KeyId) -> Option<u64>) -> Vec<String> {
        let is_over = |(name, revocation): &(&String, &Revocation)| {
            let Some(expires) = revocation.expires else { return false };
            let id = name.parse::<KeyId>().ok();
            let sessions = self.sessions.known.values().filter(|it| it.issued_with == id);
            let ends = sessions.map(|it| it.expires).chain(id.and_then(&key_end));
            let last = ends.fold(expires, u64::max);
            last.saturating_add(REVOCATION_MARGIN_SECS) < now
        };
        let over = self.revocations.known.iter().filter(is_over);
        over.map(|(name, _)| name.clone()).collect()
    }

    /// The uses that the store does not have yet, and when their entries may go.
    pub(super) fn unkept(&self, used: Vec<(KeyId, u64)>, now: u64) -> Vec<(KeyId, u64, u64)> {
        let new =
            used.into_iter().filter(|(id, at)| self.uses.get(id).is_none_or(|kept| kept < at));
        let end = |id: &KeyId| match self.sessions.known.get(id.as_str()) {
            Some(session) => session.expires,
            None => now + USES_LIFETIME.as_secs(),
        };
        new.map(|(id, at)| (id, at, end(&id))).collect()
    }
}

/// The entries of one space, by name.
#[derive(Debug)]
pub(super) struct FollowedSpace<T> {
    pub(super) seen: SeenEntries,
    pub(super) known: BTreeMap<String, T>,
}

impl<T> Default for FollowedSpace<T> {
    fn default() -> Self {
        Self { seen: SeenEntries::default(), known: BTreeMap::new() }
    }
}

impl<T: DeserializeOwned> FollowedSpace<T> {
    /// Reads what has changed; says whether anything has.
    pub(super) async fn update(&mut self, entries: Entries<'_>) -> Result<bool, store::Error> {
        let changed = entries.changed(&mut self.seen).await?;
        let mut failed = None;
        for name in &changed {
            match entries.get(name).await {
                Ok(item) => {
                    let parsed =
                        item.and_then(|item| serde_json::from_str(item.text.expose()).ok());
                    match parsed {
                        Some(value) => drop(self.known.insert(name.clone(), value)),
                        None => drop(self.known.remove(name)),
                    }
                }
                Err(error) => {
                    // Tried again.
                    self.seen.repeat(name);
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) => Err(error),
            None => {
                // Also what went while the store could not be listed.
                let before = self.known.len();
                self.known.retain(|name, _| self.seen.versions.contains_key(name));
                Ok(!changed.is_empty() || self.known.len() != before)
            }
        }
    }
}
