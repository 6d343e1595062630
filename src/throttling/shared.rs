//! Waits that the servers of one store share: what one was throttled for, the others do not try.
//!
//! On the way of a request there is only the note of a 429 that a wait has begun or grown. What another
//! server says lengthens a wait and never ends one; each server probes by itself when it is over.

use super::{Heard, HeardLog, ThrottleScope, Throttling, cooldown::ASKED_MAX};
use crate::{
    clock::Now,
    id::{AccountId, Region},
    metrics::ThrottleKind,
    provider::operations::OperationClass,
};
use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// A shorter wait is over before another server knows of it.
const SHARED_MIN: Duration = Duration::from_secs(2);
/// A wait that grows by less than this part of it is no news.
const GROWTH: u32 = 8;
/// Waits that other servers do not know yet. What comes beyond stays with this server.
const OUTGOING_MAX: usize = 256;

/// Scopes with waits that other servers do not know yet.
#[derive(Debug, Default)]
pub(super) struct OutgoingWaits {
    is_wanted: AtomicBool,
    waiting: Mutex<Vec<Arc<Heard>>>,
    added: Notify,
}

/// A wait as servers share it. It names profiles and accounts, and is to be sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedWait {
    #[serde(flatten)]
    scope: ScopeText,
    accounts: BTreeSet<AccountId>,
    kind: Box<str>,
    /// Its end, in milliseconds since 1970.
    pub until_ms: u64,
    /// How much of it was left, in milliseconds: where clocks differ, none waits longer.
    left_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ScopeText {
    region: Region,
    client_id: Box<str>,
    owner: Box<str>,
    profile: Option<Box<str>>,
    api: Box<str>,
    class: Box<str>,
}

impl SharedWait {
    /// What it is kept under, the same on every server: a hash, as names are not sealed.
    pub fn name(&self) -> String {
        let scope = serde_json::to_vec(&self.scope).expect("texts are JSON");
        let hash = digest(&SHA256, &scope);
        hash.as_ref()[..16].iter().fold(String::with_capacity(32), |mut name, byte| {
            write!(name, "{byte:02x}").expect("writing to a String cannot fail");
            name
        })
    }

    /// None for a class of operations that this version does not know.
    fn scope(&self) -> Option<ThrottleScope<&str>> {
        let ScopeText { region, client_id, owner, profile, api, class } = &self.scope;
        let (profile, class) = (profile.as_deref(), OperationClass::from_name(class)?);
        Some(ThrottleScope { region: *region, client_id, owner, profile, api, class })
    }

    fn left(&self, now: Now) -> Duration {
        let until = Duration::from_millis(self.until_ms);
        let left = Duration::from_millis(self.left_ms).min(ASKED_MAX);
        until.saturating_sub(now.wall).min(left)
    }
}

impl Throttling {
    /// Begins to note what other servers are to know.
    pub fn share(&self) {
        self.outgoing.is_wanted.store(true, Relaxed);
    }

    /// Waits until there is something that other servers do not know.
    ///
    /// # Cancel safety
    /// Safe: what there is stays.
    pub async fn until_outgoing(&self) {
        while self.outgoing.waiting.lock().is_empty() {
            self.outgoing.added.notified().await;
        }
    }

    /// Takes up to `max` waits that other servers do not know yet.
    pub fn take_outgoing(&self, max: usize, now: Now) -> Vec<SharedWait> {
        let mut waiting = self.outgoing.waiting.lock();
        let count = max.min(waiting.len());
        let taken: Vec<_> = waiting.drain(..count).collect();
        drop(waiting);
        taken.iter().filter_map(|heard| heard.to_share(now)).collect()
    }

    /// Waits as another server does.
    pub fn learn(&self, wait: &SharedWait, now: Now) {
        let (Some(scope), left) = (wait.scope(), wait.left(now)) else { return };
        let kind = ThrottleKind::from_name(&wait.kind).unwrap_or(ThrottleKind::NoRetryAfter);
        let mut is_learned = left.is_zero();
        while !is_learned {
            let heard = self.find(scope).unwrap_or_else(|| self.begin(scope, kind, now));
            is_learned = self.change(&heard, |log| {
                let is_kept = !log.is_gone;
                if is_kept {
                    log.learn(wait, now.mono, now.mono + left);
                }
                is_kept
            });
        }
    }

    /// Notes that the wait of `heard` has begun or grown, if other servers are to know.
    pub(super) fn offer(&self, heard: &Arc<Heard>, now: Instant) {
        if !self.outgoing.is_wanted.load(Relaxed) {
            return;
        }
        let mut log = heard.log.lock();
        let Some(until) = log.cooldown.until() else { return };
        let left = until.saturating_duration_since(now);
        let is_known = log.shared_until.is_some_and(|known| until <= known + left / GROWTH);
        let mut waiting = self.outgoing.waiting.lock();
        if left >= SHARED_MIN && !is_known && waiting.len() < OUTGOING_MAX {
            log.shared_until = Some(until);
            waiting.push(heard.clone());
            self.outgoing.added.notify_one();
        }
    }
}

impl Heard {
    /// None if the wait is over.
    fn to_share(&self, now: Now) -> Option<SharedWait> {
        let log = self.log.lock();
        let left = log.cooldown.until()?.checked_duration_since(now.mono)?;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let ThrottleScope { region, client_id, owner, profile, api, class } = self.scope.clone();
        let class = class.as_str().into();
        Some(SharedWait {
            scope: ScopeText { region, client_id, owner, profile, api, class },
            accounts: log.accounts.clone(),
            kind: log.last_kind.as_str().into(),
            until_ms: millis(now.wall + left),
            left_ms: millis(left),
        })
    }
}

impl HeardLog {
    fn learn(&mut self, wait: &SharedWait, now: Instant, until: Instant) {
        wait.accounts.iter().for_each(|account| self.name(account));
        self.cooldown.learned(now, until);
        self.shared_until = self.shared_until.max(Some(until));
    }
}
