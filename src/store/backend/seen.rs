//! What a follower has seen of a space, so that it can ask what has changed since.

use super::{RawEntry, VersionTable};
use std::collections::{BTreeSet, HashMap};
#[cfg(feature = "postgres")]
use {super::Version, std::collections::BTreeMap};

/// The entries of a space as a follower has seen them: nothing at first.
#[derive(Debug, Default)]
pub struct SeenEntries {
    /// The version of each entry.
    pub versions: VersionTable,
    /// Whether changed entries are wanted themselves, where a look can bring them at once.
    pub wants_entries: bool,
    /// Those that the last look has brought.
    pub brought: HashMap<String, RawEntry>,
    /// Keys that are named again with the next look.
    again: BTreeSet<String>,
    #[cfg(feature = "postgres")]
    pub(super) end: Option<LookEnd>,
}

/// From where a backend goes on that keeps its changes in order.
#[cfg(feature = "postgres")]
#[derive(Debug, Clone, Copy)]
pub(super) struct LookEnd {
    pub(super) at: u64,
    /// How many connections had been lost by then.
    pub(super) losses: u64,
    /// When the whole space was listed last.
    pub(super) listed: std::time::Instant,
}

impl SeenEntries {
    /// Has `key` named again with the next look: what was done about its change has failed.
    pub fn repeat(&mut self, key: &str) {
        self.again.insert(key.to_owned());
    }

    /// The keys that differ where the space is `now` as listed.
    pub(super) fn replace(&mut self, now: VersionTable) -> Vec<String> {
        let changed = self.versions.differences(&now);
        self.versions = now;
        self.with_repeated(changed)
    }

    /// The keys that differ where `changes` may have happened: each with its version, or none for an
    /// entry that is gone.
    #[cfg(feature = "postgres")]
    pub(super) fn apply(&mut self, changes: &BTreeMap<String, Option<Version>>) -> Vec<String> {
        let changed = self.versions.apply(changes);
        self.with_repeated(changed)
    }

    fn with_repeated(&mut self, mut changed: BTreeSet<String>) -> Vec<String> {
        changed.append(&mut self.again);
        changed.into_iter().collect()
    }
}
