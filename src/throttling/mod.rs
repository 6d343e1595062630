//! What Amazon's 429s and 5xx say, per region, application, profile, API and class of operation, and
//! which calls are hopeless because of it.
//!
//! A response of any other status costs one branch and the look at one counter. Only a call in a
//! scope that is cooling down looks further: into a table that is replaced as a whole, without a
//! lock, but for the moment at which a probe is handed out.

mod cooldown;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod listed;
mod reply;
mod scope;
mod shared;

pub use self::{
    listed::{ScopePlace, ThrottledScope},
    scope::ThrottleScope,
    shared::SharedWait,
};

use crate::{
    clock::Now,
    id::AccountId,
    metrics::{ThrottleKind, WorkerMetrics},
    provider::ads::Service,
};
use arc_swap::ArcSwap;
use cooldown::{Admission, Cooldown};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use reply::ThrottleReply;
use shared::OutgoingWaits;
use std::{
    collections::{BTreeSet, HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// The most scopes that are remembered; the one that was heard of least recently goes.
const SCOPES_MAX: usize = 10_000;
/// Parts of the table, so that a new scope copies little.
const PARTS: usize = 16;
/// The most accounts that are named for one scope.
const ACCOUNTS_MAX: usize = 32;

/// What is known of Amazon's throttling.
#[derive(Debug)]
pub struct Throttling {
    /// Whether hopeless calls get a response of ours.
    enforce: bool,
    hasher: RandomState,
    /// Where times count from in atomics.
    epoch: Instant,
    parts: [Part; PARTS],
    /// Scopes that are cooling down.
    active: AtomicUsize,
    /// What other servers are to know.
    outgoing: OutgoingWaits,
}

/// Scopes by their hashes, read without a lock.
#[derive(Debug, Default)]
struct Part {
    table: ArcSwap<HashMap<u64, Arc<Heard>>>,
    writing: Mutex<()>,
}

/// What was heard of one scope.
#[derive(Debug)]
struct Heard {
    scope: ThrottleScope<Box<str>>,
    /// Until when no call goes out, and until when the wait lasts: nanoseconds from the epoch, 0 if
    /// there is no wait.
    closed_until: AtomicU64,
    waits_until: AtomicU64,
    /// Calls that got a response of ours in this wait, which spreads their return.
    turned_away: AtomicU64,
    log: Mutex<HeardLog>,
}

#[derive(Debug)]
struct HeardLog {
    cooldown: Cooldown,
    counts: [u64; ThrottleKind::ALL.len()],
    last: Now,
    last_kind: ThrottleKind,
    last_retry_after: Option<Duration>,
    accounts: BTreeSet<AccountId>,
    /// The end of the longest wait that other servers know of.
    shared_until: Option<Instant>,
    /// Whether it was taken out of the table.
    is_gone: bool,
}

/// A request that goes out as the only one, to see whether Amazon still throttles. Dropped without
/// a response that says so, it leaves its place to the next.
#[derive(Debug)]
#[must_use = "the next request becomes the probe when it is dropped"]
pub struct Probe {
    throttling: Arc<Throttling>,
    heard: Arc<Heard>,
    sent: Instant,
}

/// A response of Amazon's, as far as it is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    pub status: StatusCode,
    pub headers: &'a HeaderMap,
    pub service: Service,
    pub account: &'a AccountId,
    /// When the request came that it is for.
    pub sent: Instant,
}

impl Throttling {
    /// Nothing is known yet.
    pub fn new(enforce: bool, now: Now) -> Arc<Self> {
        Arc::new(Self {
            enforce,
            hasher: RandomState::new(),
            epoch: now.mono,
            parts: Default::default(),
            active: AtomicUsize::new(0),
            outgoing: OutgoingWaits::default(),
        })
    }

    pub fn is_enforced(&self) -> bool {
        self.enforce
    }

    /// Whether a call could be hopeless at all.
    pub fn may_turn_away(&self) -> bool {
        self.enforce && self.is_any_cooling()
    }

    /// Whether a response with `status` says something.
    pub fn concerns(&self, status: StatusCode) -> bool {
        status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() || self.is_any_cooling()
    }

    fn is_any_cooling(&self) -> bool {
        self.active.load(Relaxed) > 0
    }

    /// Lets a call in `scope` go out, as a probe or not; else says when to come back.
    pub fn admit(
        self: &Arc<Self>,
        scope: ThrottleScope<&str>,
        now: Instant,
    ) -> Result<Option<Probe>, Duration> {
        let Some(heard) = self.find(scope) else { return Ok(None) };
        if !heard.is_cooling() {
            return Ok(None);
        }
        let closed = heard.closed_until.load(Relaxed);
        if self.since_epoch(now) < closed {
            return Err(heard.turn_away(self.since_epoch(now)));
        }
        match self.change(&heard, |log| log.cooldown.admit(now)) {
            Admission::Free => Ok(None),
            Admission::Probe => Ok(Some(Probe { throttling: self.clone(), heard, sent: now })),
            Admission::Wait => Err(heard.turn_away(self.since_epoch(now))),
        }
    }

    /// Takes note of a response to a call in `scope` that [`Throttling::concerns`] something.
    pub fn observe(
        &self,
        scope: ThrottleScope<&str>,
        observed: &Observed<'_>,
        now: Now,
        metrics: &WorkerMetrics,
    ) {
        let Observed { status, headers, service, account, sent } = *observed;
        let Some(reply) = ThrottleReply::of(status, headers, service, now.wall) else {
            if let Some(heard) = self.find(scope).filter(|heard| heard.is_cooling()) {
                self.change(&heard, |log| log.cooldown.passed(sent));
            }
            return;
        };
        metrics.throttled(scope.region, scope.class, reply.kind);
        loop {
            let heard = self.find(scope).unwrap_or_else(|| self.begin(scope, reply.kind, now));
            let is_noted = self.change(&heard, |log| {
                let is_kept = !log.is_gone;
                if is_kept {
                    log.note(account, reply, now, sent);
                }
                is_kept
            });
            if is_noted {
                self.offer(&heard, now.mono);
                return;
            }
        }
    }

    /// What is known of the scopes of accounts that `is_visible`, the latest first.
    pub fn list(&self, now: Now, is_visible: impl Fn(&AccountId) -> bool) -> Vec<ThrottledScope> {
        let mut list = Vec::new();
        for part in &self.parts {
            for (hash, heard) in &**part.table.load() {
                self.change(heard, |log| log.cooldown.forget(now.mono));
                let mut one = heard.describe(*hash, now.mono);
                one.accounts.retain(&is_visible);
                if !one.accounts.is_empty() {
                    list.push(one);
                }
            }
        }
        list.sort_unstable_by_key(|one| std::cmp::Reverse(one.place));
        list
    }

    fn find(&self, scope: ThrottleScope<&str>) -> Option<Arc<Heard>> {
        let (part, hash) = self.place(scope);
        let table = part.table.load();
        table.get(&hash).filter(|heard| heard.scope.borrowed() == scope).cloned()
    }

    /// Begins to remember `scope`, which is not in the table, or whose hash another scope has there.
    fn begin(&self, scope: ThrottleScope<&str>, kind: ThrottleKind, now: Now) -> Arc<Heard> {
        let (part, hash) = self.place(scope);
        let _writing = part.writing.lock();
        if let Some(heard) = self.find(scope) {
            return heard;
        }
        let mut table = HashMap::clone(&part.table.load());
        let oldest = table.iter().min_by_key(|(_, heard)| heard.log.lock().last.mono);
        let oldest = oldest.filter(|_| table.len() >= SCOPES_MAX / PARTS).map(|(hash, _)| *hash);
        let heard = Arc::new(Heard::new(scope, kind, now));
        let replaced =
            [oldest.and_then(|oldest| table.remove(&oldest)), table.insert(hash, heard.clone())];
        part.table.store(Arc::new(table));
        for gone in replaced.into_iter().flatten() {
            self.change(&gone, |log| {
                log.cooldown = Cooldown::default();
                log.is_gone = true;
            });
        }
        heard
    }

    fn place(&self, scope: ThrottleScope<&str>) -> (&Part, u64) {
        let hash = self.hasher.hash_one(scope);
        (&self.parts[(hash % PARTS as u64) as usize], hash)
    }

    /// Changes what is known of a scope, and what is read of it without a lock.
    fn change<R>(&self, heard: &Heard, change: impl FnOnce(&mut HeardLog) -> R) -> R {
        let mut log = heard.log.lock();
        let was_active = log.cooldown.is_active();
        let changed = change(&mut log);
        let nanos = |at: Option<Instant>| at.map_or(0, |at| self.since_epoch(at).max(1));
        heard.waits_until.store(nanos(log.cooldown.until()), Relaxed);
        heard.closed_until.store(nanos(log.cooldown.closed_until()), Relaxed);
        match (was_active, log.cooldown.is_active()) {
            (false, true) => {
                heard.turned_away.store(0, Relaxed);
                self.active.fetch_add(1, Relaxed);
            }
            (true, false) => {
                self.active.fetch_sub(1, Relaxed);
            }
            _ => {}
        }
        changed
    }

    fn since_epoch(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

impl Heard {
    fn new(scope: ThrottleScope<&str>, last_kind: ThrottleKind, now: Now) -> Self {
        let log = HeardLog {
            cooldown: Cooldown::default(),
            counts: Default::default(),
            last: now,
            last_kind,
            last_retry_after: None,
            accounts: BTreeSet::new(),
            shared_until: None,
            is_gone: false,
        };
        Self {
            scope: scope.to_owned(),
            closed_until: AtomicU64::new(0),
            waits_until: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            log: Mutex::new(log),
        }
    }

    fn is_cooling(&self) -> bool {
        self.closed_until.load(Relaxed) != 0
    }

    /// When to come back, `now` in nanoseconds from the epoch: when the wait is over, or some seconds
    /// later, so that not all come at once.
    fn turn_away(&self, now: u64) -> Duration {
        let left = self.waits_until.load(Relaxed).saturating_sub(now).div_ceil(1_000_000_000);
        let left = left.max(1);
        let spread = (left / 4).max(2) + 1;
        Duration::from_secs(left + self.turned_away.fetch_add(1, Relaxed) % spread)
    }

    fn describe(&self, hash: u64, now: Instant) -> ThrottledScope {
        let log = self.log.lock();
        ThrottledScope {
            place: ScopePlace(log.last.unix(), hash),
            scope: self.scope.clone(),
            accounts: log.accounts.clone(),
            counts: log.counts,
            last_kind: log.last_kind,
            last_unix: log.last.unix(),
            last_retry_after: log.last_retry_after,
            left: log.cooldown.until().map(|until| until.saturating_duration_since(now)),
        }
    }
}

impl HeardLog {
    fn name(&mut self, account: &AccountId) {
        if self.accounts.len() < ACCOUNTS_MAX && !self.accounts.contains(account) {
            self.accounts.insert(account.clone());
        }
    }

    fn note(&mut self, account: &AccountId, reply: ThrottleReply, now: Now, sent: Instant) {
        self.counts[reply.kind as usize] += 1;
        (self.last, self.last_kind) = (now, reply.kind);
        self.last_retry_after = reply.retry_after.or(self.last_retry_after);
        self.name(account);
        match reply.kind {
            _ if reply.is_throttling() => self.cooldown.throttled(sent, now.mono, reply.asked()),
            // No limit of calls is behind it, and no wait for one goes on.
            ThrottleKind::AccessDenied | ThrottleKind::GatewayHtml => self.cooldown.passed(sent),
            _ => {}
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.throttling.change(&self.heard, |log| log.cooldown.abandoned(self.sent));
    }
}

#[cfg(test)]
#[path = "throttling_tests.rs"]
mod tests;
