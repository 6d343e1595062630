//! Connects accounts: from the consent of an advertiser to a grant in the store, and back out.
//!
//! A login is a note in the store from its start to Amazon's answer: sealed, good for ten minutes,
//! taken once, by whatever process the answer comes to. It is bound to the account, to the
//! application with its token endpoint, and to the browser it was begun in. Nothing is asked of
//! Amazon for an answer that does not fit. An account that somebody else's grant would replace is
//! replaced by a person's yes only. This module knows neither pages nor terminals.

mod begin;
mod confirm;
mod finish;
mod keep;
mod logout;
mod problem;
mod profiles;

pub use self::{
    begin::{Started, Wish},
    finish::{Callback, Connected, Finished, Question},
    problem::Problem,
    profiles::{Found, is_deceptive},
};

use crate::{
    audit::{Action, Actor, Entry},
    engine::Engine,
    id::AccountId,
    lwa::authorize,
    secret::Secret,
    store::notes::{Limit, Note, NoteKind},
};
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Write as _, sync::Arc, time::Duration};
use tokio::sync::RwLock;
use zeroize::Zeroizing;

/// Where a login begins.
pub const LOGIN_PATH: &str = "/api/auth/amazon/login";

/// How often what is over is thrown away.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Links and remembered profiles: an account or two each.
const NOTES_MAX: usize = 100_000;
/// A remembered outcome or code is of no use after this.
const MEMORY: Duration = Duration::from_secs(1200);

/// Connects accounts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Logins {
    engine: Engine,
    /// Who does what is done here, for the audit log.
    actor: Actor,
    /// In which request; empty outside one.
    request_id: String,
    /// Held by everything that must not be cut off, shared by all of one server.
    under_way: Arc<RwLock<()>>,
}

impl Logins {
    /// Logins into the accounts of `engine`; the audit log names `actor`.
    #[must_use]
    pub fn new(engine: Engine, actor: Actor) -> Self {
        Self { engine, actor, request_id: String::new(), under_way: Arc::default() }
    }

    /// The same for what is done in the request `id`.
    #[must_use]
    pub fn for_request(&self, id: &str) -> Self {
        Self { request_id: id.to_owned(), ..self.clone() }
    }

    /// The same for what `actor` does.
    #[must_use]
    pub fn by(self, actor: Actor) -> Self {
        Self { actor, ..self }
    }

    /// Who does what is done here, for the audit log.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The request it is done in; empty outside one.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Records who wants `account`'s token refreshed. A refresh goes on without the audit log: a
    /// metric tells that this could not be written.
    pub async fn record_refresh(&self, account: &AccountId) {
        let entry = Entry::new(self.actor.clone(), Action::TokenRefresh).account(account).attempt();
        let _ = self.engine.audit().count(self.asked(entry)).await;
    }

    /// Waits until every login that Amazon has answered is at its end; none begins any more while
    /// this waits.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn finish_all(&self) {
        drop(self.under_way.write().await);
    }

    /// Does `work` to its end, whoever still waits for it.
    async fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let under_way = self.under_way.clone().read_owned().await;
        let task = tokio::spawn(async move {
            let done = work.await;
            drop(under_way);
            done
        });
        task.await.unwrap_or(Err(Problem::Internal))
    }

    fn entry(&self, action: Action, account: &AccountId, origin: &str) -> Entry {
        self.asked(Entry::new(self.actor.clone(), action).account(account).about(origin))
    }

    fn asked(&self, entry: Entry) -> Entry {
        if self.request_id.is_empty() { entry } else { entry.request_id(&self.request_id) }
    }

    /// The accounts behind it.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Throws away what is over until dropped: a grant nobody said yes to must not stay.
    pub async fn run_sweeper(&self) {
        loop {
            if let Err(error) = self.engine.store().notes().sweep(self.now_ms()).await {
                tracing::warn!(error = %crate::error_chain::chain(&error), "cannot clear logins away");
            }
            tokio::time::sleep(SWEEP_INTERVAL).await;
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.engine.clock().now().wall.as_millis()).unwrap_or(u64::MAX)
    }

    /// Keeps `what` under `name` for `lifetime`.
    async fn note(
        &self,
        (kind, name): (NoteKind, &str),
        account: &AccountId,
        what: &impl Serialize,
        lifetime: Duration,
    ) -> Result<(), Problem> {
        let now_ms = self.now_ms();
        let lifetime = milliseconds(lifetime);
        let text = Secret::new(serde_json::to_string(what).expect("a note is plain JSON"));
        let expires_at_ms = now_ms.saturating_add(lifetime);
        let note = Note { account: account.clone(), expires_at_ms, text };
        let max = match kind {
            NoteKind::Login | NoteKind::Grant => self.engine.config().login.pending_max,
            _ => NOTES_MAX,
        };
        let limit = Limit { max, now_ms };
        Ok(self.engine.store().notes().put(kind, name, &note, limit).await?)
    }

    /// Keeps the link `ticket`, if it is still good, good for `least` at least.
    async fn extend(&self, ticket: &str, least: Duration) -> Result<(), Problem> {
        let now_ms = self.now_ms();
        let until = now_ms.saturating_add(milliseconds(least));
        let notes = self.engine.store().notes();
        match notes.look(NoteKind::Ticket, ticket).await? {
            Some(note) if (now_ms + 1..until).contains(&note.expires_at_ms) => {
                let (note, max) = (Note { expires_at_ms: until, ..note }, NOTES_MAX);
                Ok(notes.put(NoteKind::Ticket, ticket, &note, Limit { max, now_ms }).await?)
            }
            _ => Ok(()),
        }
    }

    /// Looks at a note that is still good.
    async fn look<T: DeserializeOwned>(
        &self,
        kind: NoteKind,
        name: &str,
    ) -> Result<Option<(AccountId, T)>, Problem> {
        let note = self.engine.store().notes().look(kind, name).await?;
        Ok(note.and_then(|note| self.read(note)))
    }

    /// Takes a note that is still good.
    async fn take<T: DeserializeOwned>(
        &self,
        kind: NoteKind,
        name: &str,
    ) -> Result<Option<(AccountId, T)>, Problem> {
        let note = self.engine.store().notes().take(kind, name).await?;
        Ok(note.and_then(|note| self.read(note)))
    }

    fn read<T: DeserializeOwned>(&self, note: Note) -> Option<(AccountId, T)> {
        let good = note.expires_at_ms > self.now_ms();
        let what = serde_json::from_str(note.text.expose()).ok()?;
        good.then_some((note.account, what))
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The name under which what belongs to `secret` is kept: it does not tell the secret.
fn name_of(secret: &str) -> String {
    let hash = digest(&SHA256, secret.as_bytes());
    hash.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
        hex
    })
}

/// Says whether `text` is spelled like the random texts of this program.
fn is_random_text(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// A secret as a note keeps it.
type Kept = Zeroizing<String>;

fn kept(secret: &Secret) -> Kept {
    Zeroizing::new(secret.expose().to_owned())
}

fn random() -> Result<Secret, Problem> {
    Ok(authorize::random_text()?)
}

#[cfg(test)]
pub use self::profiles::Profile;
#[cfg(test)]
#[path = "login_tests.rs"]
mod tests;
