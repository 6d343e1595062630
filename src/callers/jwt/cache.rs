//! What one worker knows of tokens that were verified, by the hash of the whole token.

use crate::{callers::random_hash::RandomKeyMap, clock::Now};
use aws_lc_rs::digest::{SHA256, digest};
use std::{cell::RefCell, mem, time::Duration};

/// Entries in each of the two halves.
const HALF_MAX: usize = 5_000;

/// A token is verified anew at least this often.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);

type Hash = [u8; 32];

/// A cache of one worker's. When the young half is full it becomes the old one, whose entries are
/// dropped at once: what is in use comes back from there.
#[derive(Debug)]
pub struct TokenCache<T>(RefCell<Halves<T>>);

#[derive(Debug)]
struct Halves<T> {
    /// Of the keys that the entries were verified by.
    epoch: u64,
    young: RandomKeyMap<Hash, RememberedToken<T>>,
    old: RandomKeyMap<Hash, RememberedToken<T>>,
}

#[derive(Debug, Clone)]
struct RememberedToken<T> {
    value: T,
    /// By both clocks: a suspended machine stops one, an administrator moves the other.
    until: Now,
}

impl<T> Default for TokenCache<T> {
    fn default() -> Self {
        Self(RefCell::new(Halves {
            epoch: 0,
            young: RandomKeyMap::default(),
            old: RandomKeyMap::default(),
        }))
    }
}

impl<T: Clone> TokenCache<T> {
    /// What `token` was found to be under the keys of `epoch`.
    pub fn get(&self, token: &str, epoch: u64, now: Now) -> Option<T> {
        let (halves, hash) = (&mut *self.0.borrow_mut(), hash(token));
        halves.forget_others(epoch);
        let is_valid =
            |one: &RememberedToken<T>| now.wall < one.until.wall && now.mono < one.until.mono;
        if let Some(found) = halves.young.get(&hash) {
            return is_valid(found).then(|| found.value.clone());
        }
        let found = halves.old.remove(&hash).filter(is_valid)?;
        halves.insert(hash, found.clone());
        Some(found.value)
    }

    /// Remembers what `token` was found to be under keys no older than those of `epoch`, until it
    /// ends (since 1970) or for five minutes.
    pub fn insert(&self, token: &str, epoch: u64, now: Now, ends: Duration, value: T) {
        let halves = &mut *self.0.borrow_mut();
        // Meanwhile another request may have seen newer keys.
        if epoch == halves.epoch {
            let until = now.plus(ends.saturating_sub(now.wall).min(REMEMBERED_FOR));
            halves.insert(hash(token), RememberedToken { value, until });
        }
    }
}

impl<T> Halves<T> {
    fn forget_others(&mut self, epoch: u64) {
        if self.epoch != epoch {
            *self = Self { epoch, young: RandomKeyMap::default(), old: RandomKeyMap::default() };
        }
    }

    fn insert(&mut self, hash: Hash, one: RememberedToken<T>) {
        if self.young.len() >= HALF_MAX {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(hash, one);
    }
}

fn hash(token: &str) -> Hash {
    digest(&SHA256, token.as_bytes()).as_ref().try_into().expect("32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    struct Scene {
        cache: TokenCache<String>,
        clock: ManualClock,
    }

    impl Scene {
        fn new() -> Self {
            Self { cache: TokenCache::default(), clock: ManualClock::new() }
        }

        fn get(&self, token: &str, epoch: u64) -> Option<String> {
            self.cache.get(token, epoch, self.clock.now())
        }

        /// The token lives for `seconds`.
        fn insert(&self, token: &str, epoch: u64, seconds: u64) {
            let now = self.clock.now();
            let ends = now.wall + Duration::from_secs(seconds);
            self.cache.insert(token, epoch, now, ends, token.to_owned());
        }

        fn pass(&self, seconds: u64) {
            self.clock.advance(Duration::from_secs(seconds));
        }
    }

    #[test]
    fn each_token_is_remembered_as_itself() {
        let scene = Scene::new();
        scene.insert("a", 0, 60);
        scene.insert("b", 0, 60);
        assert_eq!(scene.get("a", 0).as_deref(), Some("a"));
        assert_eq!(scene.get("b", 0).as_deref(), Some("b"));
        assert_eq!(scene.get("c", 0), None);
    }

    #[test]
    fn a_token_is_forgotten_at_its_end_and_after_five_minutes() {
        for (life, remembered) in [(60, 60), (86_400, 300), (u64::MAX / 4, 300)] {
            let scene = Scene::new();
            scene.insert("a", 0, life);
            scene.pass(remembered - 1);
            assert!(scene.get("a", 0).is_some());
            scene.pass(1);
            assert_eq!(scene.get("a", 0), None, "{life}");
        }
    }

    #[test]
    fn a_wall_clock_that_goes_back_keeps_no_token_longer() {
        let scene = Scene::new();
        scene.insert("a", 0, 60);
        scene.pass(61);
        scene.clock.set_wall(scene.clock.now().wall - Duration::from_secs(3600));
        assert_eq!(scene.get("a", 0), None);
    }

    #[test]
    fn other_keys_clear_the_cache() {
        let scene = Scene::new();
        scene.insert("a", 0, 60);
        assert_eq!(scene.get("a", 1), None);
        assert_eq!(scene.get("a", 0), None);
    }

    #[test]
    fn what_was_verified_while_the_keys_changed_is_not_remembered() {
        let scene = Scene::new();
        scene.get("b", 1);
        scene.insert("a", 0, 60);
        assert_eq!(scene.get("a", 1), None);
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_in_use() {
        let scene = Scene::new();
        scene.insert("in use", 0, 60);
        for number in 0..30_000 {
            assert!(scene.get("in use", 0).is_some());
            scene.insert(&number.to_string(), 0, 60);
        }
        let halves = scene.cache.0.borrow();
        assert!(halves.young.len() <= HALF_MAX && halves.old.len() <= HALF_MAX);
    }
}
