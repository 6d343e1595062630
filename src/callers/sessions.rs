//! Sessions and revocations: kept in the store, and published to the workers of every server.
//!
//! The store has the hash of a session's key, never the key. The server that issues or revokes knows
//! at once, the others when they look at the store next. While the store cannot be read, what is
//! known goes on to its end. A revocation of a configured key is kept as long as the key could be
//! used: the configuration is a person's, and is not written here.

mod followed;
mod session;

pub use session::{Session, SessionError, SessionMaker, SessionPlace, SessionRequest, SessionUser};

use super::{
    Callers, Configured, KnownSession,
    key::{KeyId, KeyKind, NewKey},
};
use crate::{
    clock::Clock,
    error_chain::chain,
    secret::Secret,
    store::{self, Expected, Item, Limit, Space, Store},
};
use followed::FollowedSpaces;
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Mutex,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::warn;

/// How often the store is asked for what other servers issued and revoked.
pub const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);
/// How often it is kept when a key was last used.
const USES_INTERVAL: Duration = Duration::from_secs(60);
/// How long that is remembered.
const USES_LIFETIME: Duration = Duration::from_secs(400 * 86_400);
/// Sessions at a time.
const SESSIONS_MAX: usize = 10_000;
/// A clock may go back by this much before a revoked key that has expired is accepted again.
const REVOCATION_MARGIN_SECS: u64 = 7 * 86_400;

/// That a configured key is accepted no more.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Revocation {
    /// Until when the key could have been used, seconds since 1970; none: for ever.
    expires: Option<u64>,
}

/// The sessions and revocations of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sessions {
    store: Store,
    callers: Arc<Callers>,
    clock: Arc<dyn Clock>,
    followed: Arc<Mutex<FollowedSpaces>>,
}

impl Sessions {
    /// Sessions in `store` of `callers`, who know none of them until [`Sessions::update`].
    pub fn new(store: Store, callers: Arc<Callers>, clock: Arc<dyn Clock>) -> Self {
        Self { store, callers, clock, followed: Arc::default() }
    }

    /// Who they are published to.
    pub fn callers(&self) -> &Arc<Callers> {
        &self.callers
    }

    /// Follows the store until dropped.
    pub async fn follow(self) {
        let follow = async {
            // From the beginning of one look to that of the next, however long one takes.
            let mut looks = interval(FOLLOW_INTERVAL);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                self.update().await;
            }
        };
        let uses = async {
            loop {
                sleep(USES_INTERVAL).await;
                if let Err(error) = self.keep_uses().await {
                    warn!(error = %chain(&error), "cannot keep when keys were last used");
                }
            }
        };
        tokio::join!(follow, uses);
    }

    /// Reads the store for the first time.
    ///
    /// # Errors
    /// If it cannot be read: a key that is revoked must not be accepted.
    pub async fn load(&self) -> Result<(), store::Error> {
        self.read(&mut *self.followed.lock().await).await
    }

    /// Looks at the store, and publishes what has changed. If it cannot, what is known goes on.
    pub async fn update(&self) {
        let mut followed = self.followed.lock().await;
        match self.read(&mut followed).await {
            Ok(()) => followed.is_failing = false,
            Err(error) if !followed.is_failing => {
                followed.is_failing = true;
                let error = chain(&error);
                warn!(error, "cannot read sessions and revocations: what is known goes on");
            }
            Err(_) => {}
        }
    }

    async fn read(&self, followed: &mut FollowedSpaces) -> Result<(), store::Error> {
        let sessions = followed.sessions.update(self.store.entries(Space::Sessions)).await;
        let revocations = followed.revocations.update(self.store.entries(Space::Revocations)).await;
        // What could be read counts, whatever else could not.
        if !matches!((&sessions, &revocations), (Ok(false), Ok(false))) {
            self.publish(followed);
        }
        sessions.and(revocations).map(drop)
    }

    /// Publishes other callers of the configuration.
    pub async fn reconfigure(&self, configured: Arc<Configured>) {
        self.publish_for(configured, &*self.followed.lock().await);
    }

    fn publish(&self, followed: &FollowedSpaces) {
        self.publish_for(self.callers.configured(), followed);
    }

    fn publish_for(&self, configured: Arc<Configured>, followed: &FollowedSpaces) {
        let revoked = followed.revoked();
        let is_live = |session: &&Session| !session.is_revoked_by(&revoked);
        let sessions = followed.sessions.known.values().filter(is_live).map(Session::known);
        self.callers.replace(configured, &sessions.collect::<Vec<_>>(), &revoked);
    }

    /// Makes a session and its key; it begins once it is kept.
    ///
    /// # Errors
    /// `Ttl`, `Note`, `Accounts`: what is wrong with the request. `Random`.
    pub fn prepare(&self, request: SessionRequest) -> Result<(NewKey, Session), SessionError> {
        let key = NewKey::generate(KeyKind::Session)?;
        let mut session = request.session(&key, self.clock.now().unix())?;
        // No session outlives the key that it is made with.
        let end = session.issued_with.and_then(|id| self.callers.key_end(id));
        session.expires = end.map_or(session.expires, |end| end.min(session.expires));
        Ok((key, session))
    }

    /// Keeps a session, and publishes it. What its caller may do is looked at when it is used.
    ///
    /// # Errors
    /// `Full`, `OfUser` and `Store`.
    ///
    /// # Cancel safety
    /// A session whose key nobody got ends by itself.
    pub async fn keep(&self, session: &Session) -> Result<(), SessionError> {
        if session.user.is_some() {
            let (known, _) = self.list().await.map_err(SessionError::Store)?;
            session.is_within_share(&known)?;
        }
        let now_ms = u64::try_from(self.clock.now().wall.as_millis()).unwrap_or(u64::MAX);
        let limit = Limit { max: SESSIONS_MAX, now_ms };
        let item = item(session, Some(session.expires));
        let entries = self.store.entries(Space::Sessions);
        entries.put(session.id.as_str(), &item, limit).await.map_err(|error| match error {
            store::Error::Full => SessionError::Full,
            error => SessionError::Store(error),
        })?;
        self.update().await;
        Ok(())
    }

    /// Ends a session; false if there is none.
    pub async fn end(&self, id: KeyId) -> Result<bool, store::Error> {
        let ended = self.store.entries(Space::Sessions).delete(id.as_str()).await?;
        self.update().await;
        Ok(ended)
    }

    /// Ends a configured key, which is of use until `expires`, and the sessions issued with it.
    pub async fn revoke(&self, id: KeyId, expires: Option<u64>) -> Result<(), store::Error> {
        // Without an expiry of the entry: it must survive a loss of power.
        let item = item(&Revocation { expires }, None);
        let entries = self.store.entries(Space::Revocations);
        entries.replace(id.as_str(), &item, Expected::Any).await?;
        self.update().await;
        Ok(())
    }

    /// The sessions that have not ended, and which keys are revoked.
    pub async fn list(&self) -> Result<(Vec<Session>, HashSet<KeyId>), store::Error> {
        let (now, mut followed) = (self.clock.now().unix(), self.followed.lock().await);
        self.read(&mut followed).await?;
        let sessions = followed.sessions.known.values().filter(|session| session.expires > now);
        let revoked = followed.revoked();
        let is_live = |session: &&Session| !session.is_revoked_by(&revoked);
        Ok((sessions.filter(is_live).cloned().collect(), revoked))
    }

    /// The session `id`, with its state in the words of the admin API: also one that has expired,
    /// as long as the store has it.
    pub async fn get(&self, id: KeyId) -> Result<Option<(Session, &'static str)>, store::Error> {
        let (now, mut followed) = (self.clock.now().unix(), self.followed.lock().await);
        self.read(&mut followed).await?;
        let Some(session) = followed.sessions.known.get(id.as_str()) else { return Ok(None) };
        let state = match session {
            it if it.expires <= now => "expired",
            it if it.is_revoked_by(&followed.revoked()) => "revoked",
            it => self.state(it),
        };
        Ok(Some((session.clone(), state)))
    }

    /// The state of a session that has not ended.
    pub fn state(&self, session: &Session) -> &'static str {
        if self.callers.has_session(session.id, self.clock.now()) { "active" } else { "orphaned" }
    }

    /// Keeps in the store when each key was last used, and forgets revocations that end nothing any
    /// more.
    async fn keep_uses(&self) -> Result<(), store::Error> {
        let now = self.clock.now().unix();
        let used = self.callers.uses();
        let live: HashSet<KeyId> = used.iter().map(|(id, _)| *id).collect();
        // Nobody waits for the writes: what ends a session must not.
        let unkept = self.followed.lock().await.unkept(used, now);
        let mut kept = Vec::new();
        for (id, at, end) in unkept {
            let entries = self.store.entries(Space::KeyUses);
            entries.replace(id.as_str(), &item(&at, Some(end)), Expected::Any).await?;
            kept.push((id, at));
        }
        let mut followed = self.followed.lock().await;
        followed.uses.extend(kept);
        followed.uses.retain(|id, _| live.contains(id));
        let over = followed.over(now, |id| self.callers.key_end(id));
        drop(followed);
        for name in over {
            self.store.entries(Space::Revocations).delete(&name).await?;
        }
        Ok(())
    }

    /// When each key was last used, as far as this server and the store know.
    pub async fn uses(&self) -> Result<HashMap<KeyId, u64>, store::Error> {
        let names = self.store.entries(Space::KeyUses).names().await?;
        self.uses_of(names.iter().filter_map(|name| name.parse().ok())).await
    }

    /// As [`Self::uses`], of the keys `ids`.
    pub async fn uses_of(
        &self,
        ids: impl Iterator<Item = KeyId>,
    ) -> Result<HashMap<KeyId, u64>, store::Error> {
        let mut uses: HashMap<KeyId, u64> = self.callers.uses().into_iter().collect();
        let entries = self.store.entries(Space::KeyUses);
        for id in ids {
            let kept = entries.get(id.as_str()).await?;
            if let Some(at) = kept.and_then(|item| item.text.expose().parse().ok()) {
                let known = uses.entry(id).or_insert(at);
                *known = at.max(*known);
            }
        }
        Ok(uses)
    }
}

/// An entry of no account, which expires at `expires`, in seconds since 1970.
fn item(what: &impl Serialize, expires: Option<u64>) -> Item {
    Item {
        account: None,
        expires_at_ms: expires.map(|at| at.saturating_mul(1000)),
        text: Secret::new(serde_json::to_string(what).expect("an entry is plain JSON")),
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
