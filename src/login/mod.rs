//! Connects accounts: from the consent of an advertiser to a grant in the store, and back out.
//!
//! From its start to Amazon's response a login is a one-time entry in the store: sealed, good for ten
//! minutes, taken once, by the process that the response reaches. It is bound to the account, to
//! the application with its token endpoint, and to the browser it was begun in. A response that does
//! not fit costs no request to Amazon. A grant with other profiles replaces an account only after a
//! person has confirmed it. This module knows neither pages nor terminals.

mod begin;
mod confirm;
mod error;
mod finish;
mod given;
mod keep;
mod known_profiles;
mod limits;
mod logout;
pub(crate) mod profiles;

pub use self::error::LoginError;
pub(crate) use self::{
    begin::{LoginRequest, ReconnectRequest, is_login_cookie, returns_to_localhost},
    confirm::{Confirmation, LoginOutcome},
    finish::{Callback, Connected},
    logout::LoggedOut,
    profiles::{GrantProfiles, is_deceptive},
};

use crate::{
    audit::{Action, Actor, Entry},
    engine::Engine,
    error_chain::chain,
    id::AccountId,
    problem::Code,
    secret::Secret,
    store::{Item, Limit, Space},
};
use aws_lc_rs::digest::{SHA256, digest};
use limits::Shares;
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::RwLock;

/// Where a login begins.
pub(crate) const LOGIN_PATH: &str = "/api/auth/amazon/login";

/// Between two purges of expired entries.
const PURGE_INTERVAL: Duration = Duration::from_secs(30);
/// Links and remembered profiles: an account or two each.
const ENTRIES_MAX: usize = 100_000;
/// A remembered outcome or code is of no use after this.
const MEMORY: Duration = Duration::from_secs(1200);

/// Connects accounts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Logins {
    pub(crate) engine: Engine,
    /// For the audit log.
    pub(crate) actor: Actor,
    /// Empty outside a request.
    pub(crate) request_id: String,
    /// The server's own, where `request_id` is the caller's.
    pub(crate) server_request_id: Option<String>,
    /// Held by everything that must not be cut off, shared by all of one server.
    under_way: Arc<RwLock<()>>,
    /// The logins that each tenant has begun.
    shares: Arc<Shares>,
    /// Held while the accounts of a tenant are counted and one is added.
    adding: Arc<tokio::sync::Mutex<()>>,
    /// Where another program may get Amazon's responses to `http://localhost`: no login begins.
    pub(crate) foreign_listener: Arc<Mutex<Option<SocketAddr>>>,
}

impl Logins {
    /// Logins into the accounts of `engine`; the audit log names `actor`.
    #[must_use]
    pub fn new(engine: Engine, actor: Actor) -> Self {
        let (request_id, server_request_id) = Default::default();
        let (under_way, shares, adding, foreign_listener) = Default::default();
        Self {
            engine,
            actor,
            request_id,
            server_request_id,
            under_way,
            shares,
            adding,
            foreign_listener,
        }
    }

    /// The same for what `actor` does in the request `id`; `own` is the server's own id, where
    /// `id` is the caller's.
    pub(crate) fn for_request(&self, id: &str, own: Option<String>, actor: Actor) -> Self {
        Self { request_id: id.to_owned(), server_request_id: own, actor, ..self.clone() }
    }

    /// Waits until every login that Amazon has responded to is at its end; none begins any more
    /// while this waits.
    pub(crate) async fn finish_all(&self) {
        drop(self.under_way.write().await);
    }

    /// Does `work` to its end, though its caller may leave.
    pub(crate) async fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, LoginError>> + Send + 'static,
    ) -> Result<T, LoginError> {
        let under_way = self.under_way.clone().read_owned().await;
        let task = tokio::spawn(async move {
            let done = work.await;
            drop(under_way);
            done
        });
        task.await.unwrap_or(Err(Code::Internal.into()))
    }

    /// An entry for the audit log.
    pub(crate) fn entry(&self, action: Action, account: &AccountId) -> Entry {
        self.entry_of(action).account(account)
    }

    /// As [`Logins::entry`], of what is about no account.
    pub(crate) fn entry_of(&self, action: Action) -> Entry {
        let mut entry = Entry::new(self.actor.clone(), action);
        if !self.request_id.is_empty() {
            entry = entry.request_id(&self.request_id);
        }
        let own = self.server_request_id.iter();
        own.fold(entry, |entry, id| entry.server_request_id(id))
    }

    /// Purges expired entries until dropped: a grant that was not confirmed must not stay.
    pub(crate) async fn run_purge(&self) {
        loop {
            if let Err(error) = self.engine.store().purge_expired(self.now_ms()).await {
                tracing::warn!(error = %chain(&error), "cannot purge expired logins");
            }
            tokio::time::sleep(PURGE_INTERVAL).await;
        }
    }

    fn now_ms(&self) -> u64 {
        milliseconds(self.engine.clock().now().wall)
    }

    /// Keeps `what` as `key` for `lifetime`.
    async fn put(
        &self,
        (space, key): (Space, &str),
        account: &AccountId,
        what: &impl Serialize,
        lifetime: Duration,
    ) -> Result<(), LoginError> {
        let now_ms = self.now_ms();
        let item = Item {
            account: Some(account.clone()),
            expires_at_ms: Some(now_ms.saturating_add(milliseconds(lifetime))),
            text: Secret::new(serde_json::to_string(what).expect("an entry is plain JSON")),
        };
        let max = match space {
            Space::Login | Space::Grant => self.engine.config().login.pending_max,
            _ => ENTRIES_MAX,
        };
        let entries = self.engine.store().entries(space);
        Ok(entries.put(key, &item, Limit { max, now_ms }).await?)
    }

    /// Keeps the link `key`, if it is still good, good for `least` at least.
    async fn extend_link(&self, key: &str, least: Duration) -> Result<(), LoginError> {
        let now_ms = self.now_ms();
        let until = now_ms.saturating_add(milliseconds(least));
        let links = self.engine.store().entries(Space::Ticket);
        if let Some(mut item) = links.get(key).await?
            && item.expires_at_ms.is_some_and(|at| (now_ms + 1..until).contains(&at))
        {
            item.expires_at_ms = Some(until);
            links.put(key, &item, Limit { max: ENTRIES_MAX, now_ms }).await?;
        }
        Ok(())
    }

    /// Reads an entry that is still good.
    async fn get<T: DeserializeOwned>(
        &self,
        (space, key): (Space, &str),
    ) -> Result<Option<(AccountId, T)>, LoginError> {
        Ok(self.parse_valid(self.engine.store().entries(space).get(key).await?))
    }

    fn parse_valid<T: DeserializeOwned>(&self, item: Option<Item>) -> Option<(AccountId, T)> {
        item.filter(|item| !self.is_expired(item)).and_then(parse)
    }

    fn is_expired(&self, item: &Item) -> bool {
        item.expires_at_ms.is_none_or(|until| until <= self.now_ms())
    }
}

fn parse<T: DeserializeOwned>(item: Item) -> Option<(AccountId, T)> {
    Some((item.account?, serde_json::from_str(item.text.expose()).ok()?))
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The key of the entry that belongs to `secret`, which does not reveal it.
pub(crate) fn key_of(secret: &str) -> String {
    let hash = digest(&SHA256, secret.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether `text` is spelled like the random texts of this program.
fn is_random_text(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Secrets inside of sealed entries, and of responses that must hold one.
pub(crate) mod exposed {
    use crate::secret::Secret;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(secret.expose())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
        String::deserialize(from).map(Secret::new)
    }
}

#[cfg(test)]
#[path = "login_tests.rs"]
pub(crate) mod tests;
