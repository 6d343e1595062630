//! Tokens that one worker has verified, by the hash of the whole token.

use super::VerifiedJwt;
use crate::clock::Now;
use aws_lc_rs::digest::{SHA256, digest};
use std::{cell::RefCell, collections::HashMap, mem, sync::Arc, time::Duration};

/// Entries in each of the two halves.
const HALF_MAX: usize = 5_000;

/// A token is verified anew at least this often.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);

type Hash = [u8; 32];

/// What one worker remembers. When the young half is full it becomes the old one, whose entries are
/// dropped at once: what is in use comes back from there.
#[derive(Debug, Default)]
pub struct TokenCache(RefCell<Halves>);

#[derive(Debug, Default)]
struct Halves {
    /// Of the keys that the entries were verified by.
    epoch: u64,
    young: HashMap<Hash, RememberedToken>,
    old: HashMap<Hash, RememberedToken>,
}

#[derive(Debug, Clone)]
struct RememberedToken {
    verified: Arc<VerifiedJwt>,
    /// By both clocks: a suspended machine stops one, an administrator moves the other.
    until: Now,
}

impl TokenCache {
    /// What `token` was found to be under the keys of `epoch`, else what `verify` says, which is
    /// remembered if it is good.
    pub(super) fn get_or<E>(
        &self,
        token: &str,
        epoch: u64,
        now: Now,
        verify: impl FnOnce() -> Result<Arc<VerifiedJwt>, E>,
    ) -> Result<Arc<VerifiedJwt>, E> {
        let hash: Hash = digest(&SHA256, token.as_bytes()).as_ref().try_into().expect("32 bytes");
        if let Some(verified) = self.0.borrow_mut().get(&hash, epoch, now) {
            return Ok(verified);
        }
        let verified = verify()?;
        let life = Duration::from_secs(verified.bearer.expires).saturating_sub(now.wall);
        let entry = RememberedToken {
            verified: Arc::clone(&verified),
            until: now.plus(life.min(REMEMBERED_FOR)),
        };
        self.0.borrow_mut().insert(hash, entry);
        Ok(verified)
    }
}

impl Halves {
    fn get(&mut self, hash: &Hash, epoch: u64, now: Now) -> Option<Arc<VerifiedJwt>> {
        if self.epoch != epoch {
            *self = Self { epoch, ..Self::default() };
            return None;
        }
        let is_valid =
            |entry: &RememberedToken| now.wall < entry.until.wall && now.mono < entry.until.mono;
        if let Some(entry) = self.young.get(hash) {
            return is_valid(entry).then(|| Arc::clone(&entry.verified));
        }
        let entry = self.old.remove(hash).filter(is_valid)?;
        self.insert(*hash, entry.clone());
        Some(entry.verified)
    }

    fn insert(&mut self, hash: Hash, entry: RememberedToken) {
        if self.young.len() >= HALF_MAX {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(hash, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        callers::jwt::claims::Bearer,
        clock::{Clock, ManualClock},
    };
    use std::cell::Cell;

    struct Scene {
        cache: TokenCache,
        clock: ManualClock,
        life: Duration,
        verified: Cell<usize>,
    }

    impl Scene {
        fn new(life: u64) -> Self {
            let (cache, clock) = (TokenCache::default(), ManualClock::new());
            Self { cache, clock, life: Duration::from_secs(life), verified: Cell::new(0) }
        }

        fn get(&self, token: &str, epoch: u64) -> Arc<VerifiedJwt> {
            let now = self.clock.now();
            let verify = || {
                self.verified.set(self.verified.get() + 1);
                let expires = (now.wall + self.life).as_secs();
                let (session, tenant) = (None, None);
                let bearer = Bearer { subject: token.to_owned(), session, tenant, expires };
                Ok::<_, ()>(Arc::new(VerifiedJwt { issuer: 0, bearer }))
            };
            self.cache.get_or(token, epoch, now, verify).unwrap()
        }
    }

    #[test]
    fn a_token_is_verified_once() {
        let scene = Scene::new(60);
        for _ in 0..3 {
            assert_eq!(scene.get("a", 0).bearer.subject, "a");
            assert_eq!(scene.get("b", 0).bearer.subject, "b");
        }
        assert_eq!(scene.verified.get(), 2);
    }

    #[test]
    fn a_token_is_forgotten_at_its_end_and_after_five_minutes() {
        for (life, remembered) in [(60, 60), (86_400, 300)] {
            let scene = Scene::new(life);
            scene.get("a", 0);
            scene.clock.advance(Duration::from_secs(remembered - 1));
            scene.get("a", 0);
            assert_eq!(scene.verified.get(), 1);
            scene.clock.advance(Duration::from_secs(1));
            scene.get("a", 0);
            assert_eq!(scene.verified.get(), 2, "{life}");
        }
    }

    #[test]
    fn a_wall_clock_that_goes_back_keeps_no_token_longer() {
        let scene = Scene::new(60);
        scene.get("a", 0);
        scene.clock.advance(Duration::from_secs(61));
        scene.clock.set_wall(scene.clock.now().wall - Duration::from_secs(3600));
        scene.get("a", 0);
        assert_eq!(scene.verified.get(), 2);
    }

    #[test]
    fn other_keys_clear_the_cache() {
        let scene = Scene::new(60);
        for epoch in [0, 1, 1, 0] {
            scene.get("a", epoch);
        }
        assert_eq!(scene.verified.get(), 3);
    }

    #[test]
    fn a_rejected_token_is_not_remembered() {
        let scene = Scene::new(60);
        let now = scene.clock.now();
        assert_eq!(scene.cache.get_or("a", 0, now, || Err("bad")), Err("bad"));
        scene.get("a", 0);
        assert_eq!(scene.verified.get(), 1);
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_in_use() {
        let scene = Scene::new(60);
        for number in 0..30_000 {
            scene.get("in use", 0);
            scene.get(&number.to_string(), 0);
        }
        assert_eq!(scene.verified.get(), 30_001);
        let halves = scene.cache.0.borrow();
        assert!(halves.young.len() <= HALF_MAX && halves.old.len() <= HALF_MAX);
    }
}
