//! A hasher for keys that are random themselves: ids that we made, and digests.
//!
//! No caller can choose many such keys that share eight bytes, which is what the default hasher is
//! slower for; this one runs for each request with a credential.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A map whose keys are arrays of random bytes, eight at least.
pub type RandomKeyMap<K, V> = HashMap<K, V, BuildHasherDefault<RandomHasher>>;

/// Takes the first eight bytes of the last array.
#[derive(Default)]
pub struct RandomHasher(u64);

impl Hasher for RandomHasher {
    fn write(&mut self, bytes: &[u8]) {
        // The table looks at the highest and lowest bits, which text has few of.
        let first = bytes.first_chunk().map_or(0, |chunk| u64::from_ne_bytes(*chunk));
        self.0 = first.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }

    /// The length of the array, which says nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callers::key::{KeyKind, NewKey};
    use std::collections::HashSet;

    #[test]
    fn ids_are_spread_over_the_highest_and_the_lowest_bits() {
        let mut map = RandomKeyMap::default();
        let (mut highest, mut lowest) = (HashSet::new(), HashSet::new());
        for number in 0..2_000 {
            let key = NewKey::generate(KeyKind::Caller).unwrap();
            let id = key.presented().id;
            map.insert(id, number);
            assert_eq!(map.get(&id), Some(&number));
            let hash = std::hash::BuildHasher::hash_one(map.hasher(), id);
            highest.insert(hash >> 57);
            lowest.insert(hash & 0x7ff);
        }
        assert_eq!(map.len(), 2_000);
        assert_eq!(highest.len(), 128);
        // Of 2,048 values, 2,000 random draws hit about 1,276.
        assert!(lowest.len() > 1_150, "{}", lowest.len());
    }
}
