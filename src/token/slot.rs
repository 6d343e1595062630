//! One account's token states and transitions: pure, no IO, reads no clock.
//!
//! The secret itself is not here, only its generation and its life. Whoever is told to refresh
//! owns the refresh and must report `succeeded` or `failed`; until then everybody else waits or
//! goes on with the token there is.

use super::{Error, Obstacle};
use crate::{
    account::State,
    clock::Now,
    config,
    lwa::{LwaFailure, RETRY_AFTER_MAX},
};
use std::time::Duration;

/// The times of `[token]` that decide when to refresh.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// How long before expiry a request starts a refresh.
    pub refresh_buffer: Duration,
    /// How long before expiry the background refresher acts.
    pub background_lead: Duration,
    /// The least time between two forced refreshes.
    pub forced_min_interval: Duration,
}

impl Policy {
    pub fn new(config: &config::Token) -> Self {
        Self {
            refresh_buffer: config.refresh_buffer,
            background_lead: config.background_lead,
            forced_min_interval: config.forced_refresh_min_interval,
        }
    }
}

/// How long a rejected application is left alone.
const APPLICATION_REJECTED_FOR: Duration = Duration::from_secs(60);
/// How long a record that cannot be read is left alone.
const RECORD_MEMORY: Duration = Duration::from_secs(10);
/// The longest memory of a transient failure: recovery is noticed within this time.
const FAILURE_MEMORY_MAX: Duration = Duration::from_secs(8);
/// How long a permanent refusal is remembered, once it has been repeated.
const REFUSAL_MEMORY: Duration = Duration::from_secs(60);
/// So many refusals may be a response that was lost or mangled once.
const REFUSALS_FORGIVEN: u32 = 4;

/// No record makes a token live longer than LWA does.
const LIFETIME_MAX: Duration = Duration::from_secs(86_400);

/// From when to when a token is good, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    pub issued: Now,
    pub expires: Now,
}

impl Life {
    /// A life of `lifetime` from `issued` on.
    pub fn new(issued: Now, lifetime: Duration) -> Self {
        Self { issued, expires: issued.plus(lifetime) }
    }

    /// The life of a token read from a store at `now`. Its age is known by the wall clock only.
    pub fn stored(issued_at: u64, expires_at: u64, now: Now) -> Self {
        let left = Duration::from_secs(expires_at).saturating_sub(now.wall);
        let lifetime = Duration::from_secs(expires_at.saturating_sub(issued_at)).min(LIFETIME_MAX);
        // A wall clock set back must not give a stored token a longer life than it was born with.
        let left = left.min(lifetime);
        Self {
            issued: Now { wall: Duration::from_secs(issued_at), mono: now.mono },
            expires: Now { wall: Duration::from_secs(expires_at), mono: now.mono + left },
        }
    }

    /// Whether either clock says that it is over.
    pub fn is_expired(&self, now: Now) -> bool {
        passed(self.expires, now)
    }

    /// What is left by the clock that leaves less.
    pub fn remaining(&self, now: Now) -> Duration {
        let wall = self.expires.wall.saturating_sub(now.wall);
        wall.min(self.expires.mono.saturating_duration_since(now.mono))
    }

    fn lifetime(&self) -> Duration {
        self.expires.wall.saturating_sub(self.issued.wall)
    }

    /// From when on a request starts a refresh.
    ///
    /// A token that lives shorter than the buffer is due at birth; a second of its life is always
    /// used, so that requests cannot refresh without end.
    pub fn due(&self, buffer: Duration) -> Now {
        self.before_expiry(buffer.min(self.lifetime().saturating_sub(Duration::from_secs(1))))
    }

    fn before_expiry(&self, by: Duration) -> Now {
        Now {
            wall: self.expires.wall.saturating_sub(by),
            mono: self.expires.mono.checked_sub(by).unwrap_or(self.issued.mono),
        }
    }
}

/// Whether either clock has reached `at`.
pub fn passed(at: Now, now: Now) -> bool {
    now.wall >= at.wall || now.mono >= at.mono
}

/// What a request that wants a token does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
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

/// What a request does whose token Amazon answered with 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Replay with the current token: it is newer, or was refreshed a moment ago.
    Replay,
    /// Start a forced refresh and wait for it.
    Refresh,
    /// Wait for the refresh that is under way.
    Wait,
    /// Give up at once.
    Refuse(Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    NotConnected,
    GrantDead,
    /// LWA rejects the application, with every live secret.
    ApplicationRejected(LwaFailure),
    /// LWA or the store brought no token this time.
    Unavailable {
        reason: Obstacle,
        /// LWA's `Retry-After`.
        retry_after: Option<Duration>,
    },
}

impl Failure {
    /// What passes by itself, without a `Retry-After`.
    pub fn unavailable(reason: Obstacle) -> Self {
        Self::Unavailable { reason, retry_after: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    None,
    NotConnected,
    Dead,
    Rejected { until: Now, why: LwaFailure },
    Failed { until: Now, reason: Obstacle },
}

/// One account's machine.
#[derive(Debug)]
pub struct Slot {
    policy: Policy,
    /// Of the newest token there ever was: it outlives a discarded token.
    generation: u64,
    life: Option<Life>,
    refreshing: bool,
    block: Block,
    failures: u32,
    last_forced: Option<Now>,
    /// The number of the newest plan of the background refresher: older ones are void.
    plan: u64,
}

impl Slot {
    /// An account without a token, and with a live grant as far as is known.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            generation: 0,
            life: None,
            refreshing: false,
            block: Block::None,
            failures: 0,
            last_forced: None,
            plan: 0,
        }
    }

    /// The current token's generation; 0 before the first.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Refreshes that failed since the last that succeeded.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether a good token is there.
    pub fn is_alive(&self, now: Now) -> bool {
        self.life.is_some_and(|life| !life.is_expired(now))
    }

    pub fn state(&self, now: Now) -> State {
        match (self.block, self.life) {
            (Block::NotConnected, _) => State::NotConnected,
            (Block::Dead, _) => State::ReauthorizationRequired,
            (Block::Rejected { .. }, _) => State::ApplicationRejected,
            (Block::Failed { reason: Obstacle::Sealed, .. }, _) => State::Sealed,
            (Block::Failed { reason: Obstacle::Unreadable, .. }, _) => State::Unreadable,
            (_, Some(life)) if !life.is_expired(now) => {
                if passed(life.due(self.policy.refresh_buffer), now) {
                    State::Due
                } else {
                    State::Fresh
                }
            }
            _ if self.refreshing => State::Refreshing,
            (_, None) => State::Idle,
            _ => State::Expired,
        }
    }

    /// A request wants a token. A valid token always wins over everything else that is known.
    pub fn want(&mut self, now: Now) -> Want {
        let alive = self.is_alive(now);
        if alive && !self.is_due(now) {
            return Want::Use;
        }
        if self.refreshing {
            return if alive { Want::Use } else { Want::Wait };
        }
        match (self.refusal(now), alive) {
            (Some(_), true) => Want::Use,
            (Some(error), false) => Want::Refuse(error),
            (None, _) => {
                self.refreshing = true;
                if alive { Want::UseAndRefresh } else { Want::Refresh }
            }
        }
    }

    /// Amazon answered 401 to the token of `generation`.
    pub fn rejected(&mut self, generation: u64, now: Now) -> Rejected {
        let alive = self.is_alive(now);
        if alive && self.generation() > generation {
            return Rejected::Replay;
        }
        if self.refreshing {
            return Rejected::Wait;
        }
        let lately = self
            .last_forced
            .is_some_and(|last| !passed(last.plus(self.policy.forced_min_interval), now));
        if alive && lately {
            return Rejected::Replay;
        }
        if let Some(error) = self.refusal(now) {
            return Rejected::Refuse(error);
        }
        self.refreshing = true;
        self.last_forced = Some(now);
        Rejected::Refresh
    }

    /// Whether the background refresher shall refresh now. `true` hands it the refresh.
    pub fn background(&mut self, now: Now) -> bool {
        if self.refreshing || self.refusal(now).is_some() {
            return false;
        }
        self.refreshing = true;
        true
    }

    /// How long until the background refresher should act; `None` when it has nothing to do.
    ///
    /// `jitter` (0.9 to 1.1) spreads accounts that were connected together. A token that lives
    /// shorter than the lead is left to the requests: it would be refreshed without end. An
    /// account without a token is due at once.
    pub fn background_due(&self, now: Now, jitter: f64) -> Option<Duration> {
        let lead = self.policy.background_lead;
        match (self.block, self.life) {
            (Block::NotConnected | Block::Dead, _) => None,
            (Block::Rejected { until, .. } | Block::Failed { until, .. }, _) => {
                Some(left(until, now))
            }
            (Block::None, _) if lead.is_zero() => None,
            (Block::None, None) => Some(Duration::ZERO),
            (Block::None, Some(life)) if life.lifetime() <= lead => None,
            (Block::None, Some(life)) => {
                Some(life.remaining(now).saturating_sub(lead.mul_f64(jitter)))
            }
        }
    }

    /// Begins a new plan of the background refresher, which voids the one before.
    pub fn next_plan(&mut self) -> u64 {
        self.plan += 1;
        self.plan
    }

    /// Whether `plan` is the newest one.
    pub fn is_planned(&self, plan: u64) -> bool {
        self.plan == plan
    }

    /// The record holds a token that has expired since.
    pub fn expired(&mut self, generation: u64, life: Life) {
        self.generation = generation;
        self.life = Some(life);
    }

    /// The refresh brought a token, or another process had brought one.
    pub fn succeeded(&mut self, generation: u64, life: Life) {
        self.refreshing = false;
        self.failures = 0;
        self.block = Block::None;
        self.generation = generation;
        self.life = Some(life);
    }

    /// Amazon rejects the token of `generation` and its grant is dead: it is not tried again.
    /// Says whether that token was still the current one.
    pub fn discard(&mut self, generation: u64) -> bool {
        let current = self.generation == generation && self.block == Block::Dead;
        if current {
            self.life = None;
        }
        current
    }

    /// The refresh failed; remembered, so that late callers do not start the next storm.
    pub fn failed(&mut self, failure: Failure, now: Now) {
        self.refreshing = false;
        // The memory of the failure spaces what follows; the interval is for refreshes that
        // brought a token, which is then replayed with. A failed one brought nothing to try.
        self.last_forced = None;
        self.failures = self.failures.saturating_add(1);
        self.block = match failure {
            Failure::NotConnected => Block::NotConnected,
            Failure::GrantDead => Block::Dead,
            Failure::ApplicationRejected(why) => {
                Block::Rejected { until: now.plus(APPLICATION_REJECTED_FOR), why }
            }
            Failure::Unavailable { reason, retry_after } => {
                let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
                Block::Failed { until: now.plus(self.memory(reason).max(asked)), reason }
            }
        };
    }

    /// The account was connected anew, or its key is back: forget what failed.
    pub fn reconnected(&mut self) {
        self.failures = 0;
        self.block = Block::None;
    }

    /// Why a refresh must not start now.
    pub fn refusal(&self, now: Now) -> Option<Error> {
        match self.block {
            Block::None => None,
            Block::NotConnected => Some(Error::NotConnected),
            Block::Dead => Some(Error::ReauthorizationRequired),
            Block::Rejected { until, .. } | Block::Failed { until, .. } if passed(until, now) => {
                None
            }
            Block::Rejected { until, why } => {
                Some(Error::ApplicationRejected { why, retry_after: left(until, now) })
            }
            Block::Failed { until, reason } => {
                Some(Error::Unavailable { reason, retry_after: left(until, now) })
            }
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
            _ if self.failures > REFUSALS_FORGIVEN => REFUSAL_MEMORY,
            _ => FAILURE_MEMORY_MAX,
        }
    }

    fn is_due(&self, now: Now) -> bool {
        self.life.is_none_or(|life| passed(life.due(self.policy.refresh_buffer), now))
    }
}

/// Time until `at` by the monotonic clock, which no administrator moves.
fn left(at: Now, now: Now) -> Duration {
    at.mono.saturating_duration_since(now.mono)
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
