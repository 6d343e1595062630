//! One account's token states and transitions: pure, no IO, reads no clock.
//!
//! The secret itself is not here, only its generation and its life. A caller that is given the
//! refresh must report `succeeded` or `failed`; until then all others wait, or go on with the token
//! there is.

use super::{Error, Obstacle};
use crate::{account::State, clock::Now, config, lwa::RETRY_AFTER_MAX};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a rejected application is not tried again.
const APPLICATION_REJECTED_FOR: Duration = Duration::from_secs(60);
/// How long a record that cannot be read is not read again.
const RECORD_MEMORY: Duration = Duration::from_secs(10);
/// The longest memory of a transient failure: recovery is noticed within this time.
const FAILURE_MEMORY_MAX: Duration = Duration::from_secs(8);
/// How long a permanent rejection is remembered, once it has been repeated.
const REJECTION_MEMORY: Duration = Duration::from_secs(60);
/// So many rejections may be a response that was lost or mangled once.
const REJECTIONS_FORGIVEN: u32 = 4;
/// No record makes a token live longer than LWA does.
const LIFETIME_MAX: Duration = Duration::from_secs(86_400);

/// From when to when a token is good, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Milliseconds since 1970.
    expires_wall: u64,
    expires: Instant,
    lifetime: Millis,
}

/// Up to some weeks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Millis(u32);

impl Millis {
    pub(super) fn of(time: Duration) -> Self {
        Self(time.as_millis().try_into().unwrap_or(u32::MAX))
    }

    pub(super) fn time(self) -> Duration {
        Duration::from_millis(self.0.into())
    }
}

impl Life {
    pub fn new(issued: Now, lifetime: Duration) -> Self {
        Self::ending(issued.plus(lifetime), Millis::of(lifetime))
    }

    fn ending(at: Now, lifetime: Millis) -> Self {
        let expires_wall = at.wall.as_millis().try_into().unwrap_or(u64::MAX);
        Self { expires_wall, expires: at.mono, lifetime }
    }

    /// What it is made of: when it ends, and how long it is.
    pub(super) fn parts(self) -> (u64, Instant, Millis) {
        (self.expires_wall, self.expires, self.lifetime)
    }

    pub(super) fn of_parts((expires_wall, expires, lifetime): (u64, Instant, Millis)) -> Self {
        Self { expires_wall, expires, lifetime }
    }

    fn end(&self) -> Now {
        Now { wall: Duration::from_millis(self.expires_wall), mono: self.expires }
    }

    /// The life of a token read from a store at `now`. Its age is known by the wall clock only.
    pub fn stored(issued_at: u64, expires_at: u64, now: Now) -> Self {
        let left = Duration::from_secs(expires_at).saturating_sub(now.wall);
        let lifetime = Duration::from_secs(expires_at.saturating_sub(issued_at)).min(LIFETIME_MAX);
        // A wall clock set back must not give a stored token a longer life than it was born with.
        let left = left.min(lifetime);
        let wall = Duration::from_secs(expires_at);
        Self::ending(Now { wall, mono: now.mono + left }, Millis::of(lifetime))
    }

    /// Whether either clock says that it is over.
    pub fn is_expired(&self, now: Now) -> bool {
        passed(self.end(), now)
    }

    /// What is left by the clock that leaves less.
    pub fn remaining(&self, now: Now) -> Duration {
        self.end().wall.saturating_sub(now.wall).min(left(self.end(), now))
    }

    /// From when on a request starts a refresh.
    ///
    /// A token that lives shorter than the buffer is due at birth; a second of its life is always
    /// used, so that requests cannot refresh without end.
    pub fn due(&self, buffer: Duration) -> Now {
        let by = buffer.min(self.lifetime.time().saturating_sub(Duration::from_secs(1)));
        Now {
            wall: self.end().wall.saturating_sub(by),
            mono: self.expires.checked_sub(by).unwrap_or(self.expires),
        }
    }
}

/// Whether either clock has reached `at`.
pub fn passed(at: Now, now: Now) -> bool {
    now.wall >= at.wall || now.mono >= at.mono
}

/// Time until `at` by the monotonic clock, which no administrator moves.
fn left(at: Now, now: Now) -> Duration {
    at.mono.saturating_duration_since(now.mono)
}

/// What a request that needs a token does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Use,
    /// Use the current token and start a refresh beside it.
    UseAndRefresh,
    /// Start a refresh and wait for it.
    Refresh,
    /// Wait for the refresh that is under way.
    Wait,
    /// Give up at once.
    Refuse(Error),
}

/// What keeps refreshes from beginning.
#[derive(Debug, Default)]
struct Restraint {
    /// Why the last refresh failed, and until when none begins; until a new record if only that
    /// can help.
    block: Option<(Error, Now)>,
    last_forced: Option<Now>,
}

/// One account's machine.
#[derive(Debug, Default)]
pub struct Slot {
    config: Arc<config::Token>,
    /// Of the newest token there ever was, 0 before the first: it outlives a discarded token.
    pub generation: u64,
    life: Option<Life>,
    refreshing: bool,
    /// Few accounts have one.
    restraint: Option<Box<Restraint>>,
    /// Refreshes that failed since the last that succeeded.
    pub failures: u32,
    /// The number of the newest plan of the background refresher: older ones are void.
    pub plan: u64,
}

impl Slot {
    /// An account without a token, and with a live grant as far as is known.
    pub fn new(config: Arc<config::Token>) -> Self {
        Self { config, ..Self::default() }
    }

    fn block(&self) -> Option<&(Error, Now)> {
        self.restraint.as_ref()?.block.as_ref()
    }

    fn last_forced(&self) -> Option<Now> {
        self.restraint.as_ref()?.last_forced
    }

    fn restrain(&mut self, change: impl FnOnce(&mut Restraint)) {
        let mut restraint = self.restraint.take().unwrap_or_default();
        change(&mut restraint);
        let is_none = restraint.block.is_none() && restraint.last_forced.is_none();
        self.restraint = (!is_none).then_some(restraint);
    }

    fn is_alive(&self, now: Now) -> bool {
        self.life.is_some_and(|life| !life.is_expired(now))
    }

    fn is_due(&self, now: Now) -> bool {
        self.life.is_none_or(|life| passed(life.due(self.config.refresh_buffer), now))
    }

    pub fn state(&self, now: Now) -> State {
        match self.block() {
            Some((Error::NotConnected, _)) => State::NotConnected,
            Some((Error::ReauthorizationRequired, _)) => State::ReauthorizationRequired,
            Some((Error::ApplicationRejected { .. }, _)) => State::ApplicationRejected,
            Some((Error::Unavailable { reason: Obstacle::Sealed, .. }, _)) => State::Sealed,
            Some((Error::Unavailable { reason: Obstacle::Unreadable, .. }, _)) => State::Unreadable,
            _ if self.is_alive(now) && self.is_due(now) => State::Due,
            _ if self.is_alive(now) => State::Fresh,
            _ if self.refreshing => State::Refreshing,
            _ if self.life.is_none() => State::Idle,
            _ => State::Expired,
        }
    }

    /// A request wants a token. A valid token always wins over everything else that is known.
    pub fn want(&mut self, now: Now) -> Decision {
        let alive = self.is_alive(now);
        if alive && (!self.is_due(now) || self.refreshing || self.rejection(now).is_some()) {
            return Decision::Use;
        }
        match self.refresh(now) {
            Decision::Refresh if alive => Decision::UseAndRefresh,
            decision => decision,
        }
    }

    /// Amazon responded with 401 to the token of `generation`.
    pub fn rejected(&mut self, generation: u64, now: Now) -> Decision {
        let alive = self.is_alive(now);
        let interval = self.config.forced_refresh_min_interval;
        let lately = self.last_forced().is_some_and(|last| !passed(last.plus(interval), now));
        if alive && (self.generation > generation || lately && !self.refreshing) {
            return Decision::Use;
        }
        let decision = self.refresh(now);
        if decision == Decision::Refresh {
            self.restrain(|restraint| restraint.last_forced = Some(now));
        }
        decision
    }

    /// A caller wants a newer token than that of `generation`, however long that one lives.
    pub fn renew(&mut self, generation: u64, now: Now) -> Decision {
        if self.generation > generation { Decision::Use } else { self.refresh(now) }
    }

    /// Whether [`Slot::refresh`] would hand out the refresh.
    pub fn may_refresh(&self, now: Now) -> bool {
        !self.refreshing && self.rejection(now).is_none()
    }

    /// Hands out the refresh, unless one is under way or must not start now.
    pub fn refresh(&mut self, now: Now) -> Decision {
        if self.refreshing {
            return Decision::Wait;
        }
        if let Some(error) = self.rejection(now) {
            return Decision::Refuse(error);
        }
        self.refreshing = true;
        Decision::Refresh
    }

    /// How long until the background refresher should act; `None` when it has nothing to do.
    ///
    /// `jitter` (0.9 to 1.1) spreads accounts that were connected together. A token that lives
    /// shorter than the lead is left to the requests: it would be refreshed without end. An
    /// account without a token is due at once.
    pub fn background_due(&self, now: Now, jitter: f64) -> Option<Duration> {
        let lead = self.config.background_lead;
        match (self.block(), self.life) {
            (Some((Error::NotConnected | Error::ReauthorizationRequired, _)), _) => None,
            (Some((_, until)), _) => Some(left(*until, now)),
            (None, _) if lead.is_zero() => None,
            (None, None) => Some(Duration::ZERO),
            (None, Some(life)) if life.lifetime.time() <= lead => None,
            (None, Some(life)) => Some(life.remaining(now).saturating_sub(lead.mul_f64(jitter))),
        }
    }

    /// The newest token there is; it may have expired.
    pub fn set_token(&mut self, generation: u64, life: Life) {
        self.generation = generation;
        self.life = Some(life);
    }

    /// The refresh brought a token, or another process had brought one.
    pub fn succeeded(&mut self, generation: u64, life: Life) {
        self.refreshing = false;
        self.reconnected();
        self.set_token(generation, life);
    }

    /// Another process has brought a token. False if it is no newer than ours, or a refresh is under
    /// way, which finds it.
    pub fn install(&mut self, generation: u64, life: Life) -> bool {
        let is_adopted = !self.refreshing && generation > self.generation;
        if is_adopted {
            self.reconnected();
            self.set_token(generation, life);
        }
        is_adopted
    }

    /// Amazon rejects the token of `generation` and its grant is dead: it is not tried again.
    /// Says whether that token was still the current one.
    pub fn discard(&mut self, generation: u64) -> bool {
        let is_dead = matches!(self.block(), Some((Error::ReauthorizationRequired, _)));
        let current = self.generation == generation && is_dead;
        self.life.take_if(|_| current);
        current
    }

    /// The refresh failed; remembered, so that late callers do not start the next storm. A
    /// `retry_after` in `why` is LWA's.
    pub fn failed(&mut self, why: Error, now: Now) {
        self.refreshing = false;
        // The memory of the failure spaces what follows; the interval is for refreshes that
        // brought a token, which is then replayed with. A failed one brought nothing to try.
        self.restrain(|restraint| restraint.last_forced = None);
        self.failures = self.failures.saturating_add(1);
        let memory = match why {
            Error::Unavailable { reason, retry_after } => {
                self.memory(reason).max(retry_after.min(RETRY_AFTER_MAX))
            }
            _ => APPLICATION_REJECTED_FOR,
        };
        self.restrain(|restraint| restraint.block = Some((why, now.plus(memory))));
    }

    /// The account was connected anew, or its key is back: forget what failed.
    pub fn reconnected(&mut self) {
        self.failures = 0;
        self.restrain(|restraint| restraint.block = None);
    }

    /// Why a refresh must not start now.
    pub fn rejection(&self, now: Now) -> Option<Error> {
        let (why, until) = *self.block()?;
        let retry_after = left(until, now);
        match why {
            Error::ApplicationRejected { .. } | Error::Unavailable { .. } if passed(until, now) => {
                None
            }
            Error::ApplicationRejected { why, .. } => {
                Some(Error::ApplicationRejected { why, retry_after })
            }
            Error::Unavailable { reason, .. } => Some(Error::Unavailable { reason, retry_after }),
            lasting => Some(lasting),
        }
    }

    /// How long the newest failure, for `reason`, keeps later callers from LWA.
    fn memory(&self, reason: Obstacle) -> Duration {
        match reason {
            Obstacle::Sealed | Obstacle::Unreadable => RECORD_MEMORY,
            reason if reason.is_passing() => {
                let doubled = Duration::from_secs(1 << self.failures.saturating_sub(1).min(8));
                doubled.min(FAILURE_MEMORY_MAX)
            }
            // The same request gets the same response.
            _ if self.failures > REJECTIONS_FORGIVEN => REJECTION_MEMORY,
            _ => FAILURE_MEMORY_MAX,
        }
    }
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
