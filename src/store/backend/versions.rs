//! The versions of many entries by their keys, in little memory.

use super::Version;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// The version of each entry of a space, in the order of the keys.
///
/// A follower keeps one for as long as it runs, and a space may have a hundred thousand entries: the
/// keys are one text. A lookup is a binary search; a key that comes or goes makes all anew.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct VersionTable {
    keys: String,
    /// Where each key ends in `keys`, and its version.
    ends: Vec<u32>,
    versions: Vec<Version>,
}

impl VersionTable {
    fn key(&self, at: usize) -> &str {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.keys[start as usize..self.ends[at] as usize]
    }

    fn position(&self, key: &str) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle) < key { low = middle + 1 } else { high = middle }
        }
        (low < self.len() && self.key(low) == key).then_some(low)
    }

    /// The version of the entry with this key.
    pub fn get(&self, key: &str) -> Option<Version> {
        self.position(key).map(|at| self.versions[at])
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.position(key).is_some()
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|at| self.key(at))
    }

    fn iter(&self) -> impl Iterator<Item = (&str, Version)> {
        self.keys().zip(self.versions.iter().copied())
    }

    pub fn remove(&mut self, key: &str) {
        self.apply(&BTreeMap::from([(key.to_owned(), None)]));
    }

    /// Sets the version of each key, or removes a key that has none; returns the keys for which that
    /// made a difference.
    pub(super) fn apply(
        &mut self,
        changes: &BTreeMap<String, Option<Version>>,
    ) -> BTreeSet<String> {
        let (mut changed, mut is_same_keys) = (BTreeSet::new(), true);
        for (key, now) in changes {
            let before = self.position(key).map(|at| &mut self.versions[at]);
            let is_changed = match (before, *now) {
                (Some(version), Some(now)) => std::mem::replace(version, now) != now,
                (None, None) => false,
                (Some(_), None) | (None, Some(_)) => {
                    is_same_keys = false;
                    true
                }
            };
            if is_changed {
                changed.insert(key.clone());
            }
        }
        if !is_same_keys {
            let kept = self.iter().filter(|(key, _)| !changes.contains_key(*key));
            let set = changes.iter().filter_map(|(key, now)| Some((key.as_str(), (*now)?)));
            *self = kept.chain(set).collect();
        }
        changed
    }

    /// The keys whose versions differ, those that only one of the two has among them.
    pub(super) fn differences(&self, other: &Self) -> BTreeSet<String> {
        let keys = self.keys().chain(other.keys());
        keys.filter(|key| self.get(key) != other.get(key)).map(str::to_owned).collect()
    }
}

impl<K: AsRef<str> + Ord> FromIterator<(K, Version)> for VersionTable {
    fn from_iter<I: IntoIterator<Item = (K, Version)>>(entries: I) -> Self {
        let mut sorted: Vec<_> = entries.into_iter().collect();
        // One that is stable: it takes but one pass where two orders follow each other.
        sorted.sort_by(|one, other| one.0.cmp(&other.0));
        let length = sorted.iter().map(|(key, _)| key.as_ref().len()).sum();
        let mut table = Self {
            keys: String::with_capacity(length),
            ends: Vec::with_capacity(sorted.len()),
            versions: Vec::with_capacity(sorted.len()),
        };
        for (key, version) in sorted {
            table.keys.push_str(key.as_ref());
            let end = table.keys.len().try_into();
            table.ends.push(end.expect("fewer keys than fill 4 GiB"));
            table.versions.push(version);
        }
        table
    }
}

impl fmt::Debug for VersionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that are the same each time.
    fn numbers() -> impl FnMut(u64) -> u64 {
        let mut state = 1_u64;
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        }
    }

    #[test]
    fn it_is_a_map_of_its_entries_whatever_changes() {
        let (mut table, mut map, mut next) = (VersionTable::default(), BTreeMap::new(), numbers());
        let keys = ["", "a", "aa", "ab", "a~b", "b", "é", "éa", "shop-1", "shop-10", "shop-2"];
        for _ in 0..2_000 {
            let mut changes = BTreeMap::new();
            for _ in 0..next(4) {
                let key = keys[next(keys.len() as u64) as usize].to_owned();
                changes.insert(key, (next(3) > 0).then(|| Version(next(4))));
            }
            let (before, mut differ) = (table.clone(), BTreeSet::new());
            for (key, version) in changes.clone() {
                let old = match version {
                    Some(version) => map.insert(key.clone(), version),
                    None => map.remove(&key),
                };
                if old != version {
                    differ.insert(key);
                }
            }
            assert_eq!(table.apply(&changes), differ);
            assert_eq!(before.differences(&table), differ);
            assert!(table.iter().eq(map.iter().map(|(key, version)| (key.as_str(), *version))));
            assert_eq!(map.clone().into_iter().collect::<VersionTable>(), table);
            assert_eq!((table.len(), table.is_empty()), (map.len(), map.is_empty()));
            for key in keys {
                assert_eq!(table.get(key), map.get(key).copied());
                assert_eq!(table.contains_key(key), map.contains_key(key));
            }
        }
        table.remove("a");
        assert_eq!(table.get("a"), None);
    }
}
