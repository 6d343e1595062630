//! Sessions and revocations: kept in the store, and published to the workers of every server.
//!
//! The store has the hash of a session's key, never the key. The server that issues or revokes knows
//! at once, the others when they look at the store next. While the store cannot be read, what is
//! known goes on to its end. A revocation of a configured key is kept as long as the key could be
//! used: the configuration is a person's, and is not written here.

mod followed;

use super::{
    Callers, KnownSession,
    key::{KeyDigest, KeyId, KeyKind, NewKey, NoRandomKey},
};
use crate::{
    clock::Clock,
    error_chain::chain,
    id::Tenant,
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
use tokio::{sync::Mutex, time::sleep};
use tracing::warn;

/// How often the store is asked for what other servers issued and revoked.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);
/// How often it is kept when a key was last used.
const USES_INTERVAL: Duration = Duration::from_secs(60);
/// How long that is remembered.
const USES_LIFETIME: Duration = Duration::from_secs(400 * 86_400);
/// The longest that a session lives.
pub const TTL_MAX: Duration = Duration::from_secs(86_400);
/// Sessions at a time.
pub const SESSIONS_MAX: usize = 10_000;
/// A clock may go back by this much before a revoked key that has expired is accepted again.
const REVOCATION_MARGIN_SECS: u64 = 7 * 86_400;

/// A session as the store keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    pub id: KeyId,
    digest: KeyDigest,
    /// The caller that it may do at most as much as.
    pub caller: String,
    /// The tenant it is for, where the caller has none of its own.
    pub tenant: Option<Tenant>,
    /// The configured key that it was issued with: it ends with that.
    pub issued_with: Option<KeyId>,
    /// Globs, as in the configuration; none: those of the caller.
    pub accounts: Option<Vec<String>>,
    pub read_only: bool,
    /// Seconds since 1970, as the next one.
    pub created: u64,
    pub expires: u64,
    pub note: Option<String>,
}

/// What a new session is to be.
#[derive(Debug, Clone, Default)]
pub struct SessionRequest {
    pub caller: String,
    pub tenant: Option<Tenant>,
    pub issued_with: Option<KeyId>,
    pub ttl: Duration,
    pub accounts: Option<Vec<String>>,
    pub read_only: bool,
    pub note: Option<String>,
}

/// That a configured key is accepted no more.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Revocation {
    /// Until when the key could have been used, seconds since 1970; none: for ever.
    expires: Option<u64>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("a session lives from 1 second to 24 hours (86400 seconds)")]
    Ttl,
    #[error("the note is longer than {NOTE_MAX_LEN} bytes, or has control characters")]
    Note,
    #[error("name 1 to {ACCOUNTS_MAX} accounts, each up to 200 bytes long, or none at all")]
    Accounts,
    #[error("there are {SESSIONS_MAX} sessions, as many as there may be: revoke some, or wait")]
    Full,
    #[error(transparent)]
    Random(#[from] NoRandomKey),
    #[error(transparent)]
    Store(store::Error),
}

const NOTE_MAX_LEN: usize = 200;
const ACCOUNTS_MAX: usize = 100;

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
            loop {
                sleep(FOLLOW_INTERVAL).await;
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

    fn publish(&self, followed: &FollowedSpaces) {
        let revoked = followed.revoked();
        let is_live =
            |session: &&Session| !session.issued_with.is_some_and(|id| revoked.contains(&id));
        let sessions =
            followed.sessions.known.values().filter(is_live).map(|session| KnownSession {
                id: session.id,
                digest: session.digest,
                caller: session.caller.clone(),
                tenant: session.tenant.clone(),
                accounts: session.accounts.clone(),
                read_only: session.read_only,
                expires: Duration::from_secs(session.expires),
            });
        self.callers.publish(&sessions.collect::<Vec<_>>(), &revoked);
    }

    /// Makes a session and its key; it begins once it is kept.
    ///
    /// # Errors
    /// `Ttl`, `Note`, `Accounts`: what is wrong with the request. `Random`.
    pub fn prepare(&self, request: SessionRequest) -> Result<(NewKey, Session), SessionError> {
        request.validate()?;
        let key = NewKey::generate(KeyKind::Session)?;
        let created = self.clock.now().unix();
        let session = Session {
            id: key.presented().id,
            digest: key.presented().digest(),
            caller: request.caller,
            tenant: request.tenant,
            issued_with: request.issued_with,
            accounts: request.accounts,
            read_only: request.read_only,
            created,
            expires: created + request.ttl.as_secs(),
            note: request.note,
        };
        Ok((key, session))
    }

    /// Keeps a session, and publishes it. What its caller may do is looked at when it is used.
    ///
    /// # Errors
    /// `Full` and `Store`.
    ///
    /// # Cancel safety
    /// A session whose key nobody got ends by itself.
    pub async fn keep(&self, session: &Session) -> Result<(), SessionError> {
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

    /// The sessions that have not expired, and which keys are revoked.
    pub async fn list(&self) -> Result<(Vec<Session>, HashSet<KeyId>), store::Error> {
        let (now, mut followed) = (self.clock.now().unix(), self.followed.lock().await);
        self.read(&mut followed).await?;
        let sessions = followed.sessions.known.values().filter(|session| session.expires > now);
        let revoked = followed.revoked();
        let is_live =
            |session: &&Session| !session.issued_with.is_some_and(|id| revoked.contains(&id));
        Ok((sessions.filter(is_live).cloned().collect(), revoked))
    }

    /// Keeps in the store when each key was last used, and forgets revocations of keys that have
    /// expired.
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
        let is_over = |revocation: &Revocation| {
            revocation.expires.is_some_and(|expires| expires + REVOCATION_MARGIN_SECS < now)
        };
        let over = followed.revocations.known.iter().filter(|(_, revocation)| is_over(revocation));
        let over: Vec<String> = over.map(|(name, _)| name.clone()).collect();
        drop(followed);
        for name in over {
            self.store.entries(Space::Revocations).delete(&name).await?;
        }
        Ok(())
    }

    /// When each key was last used, as far as this server and the store know.
    pub async fn uses(&self) -> Result<HashMap<KeyId, u64>, store::Error> {
        let mut uses = HashMap::new();
        let entries = self.store.entries(Space::KeyUses);
        for name in entries.names().await? {
            let Ok(id) = name.parse() else { continue };
            let kept = entries.get(&name).await?.and_then(|item| item.text.expose().parse().ok());
            uses.extend(kept.map(|at: u64| (id, at)));
        }
        for (id, at) in self.callers.uses() {
            let known = uses.entry(id).or_insert(at);
            *known = at.max(*known);
        }
        Ok(uses)
    }
}

impl SessionRequest {
    fn validate(&self) -> Result<(), SessionError> {
        if self.ttl < Duration::from_secs(1) || self.ttl > TTL_MAX {
            return Err(SessionError::Ttl);
        }
        let is_note =
            |note: &String| note.len() <= NOTE_MAX_LEN && !note.contains(char::is_control);
        if !self.note.as_ref().is_none_or(is_note) {
            return Err(SessionError::Note);
        }
        let is_glob = |glob: &String| (1..=200).contains(&glob.len());
        let are_accounts = |globs: &Vec<String>| {
            (1..=ACCOUNTS_MAX).contains(&globs.len()) && globs.iter().all(is_glob)
        };
        if !self.accounts.as_ref().is_none_or(are_accounts) {
            return Err(SessionError::Accounts);
        }
        Ok(())
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
