//! One account's token states and transitions: pure, no IO, reads no clock.
//!
//! The secret itself is not here, only its generation and its life. Whoever is told to refresh
//! owns the refresh and must report `succeeded` or `failed`; until then everybody else waits or
//! goes on with the token there is.

use crate::clock::Now;
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

/// How long a rejected application is left alone.
const APPLICATION_REJECTED_FOR: Duration = Duration::from_secs(60);
/// How long a record that does not open is left alone.
const SEALED_FOR: Duration = Duration::from_secs(10);
/// The longest memory of a transient failure: recovery is noticed within this time.
const FAILURE_MEMORY_MAX: Duration = Duration::from_secs(8);
/// `Retry-After` of LWA is honoured up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// From when to when a token is good, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it was issued.
    pub issued: Now,
    /// When it ends.
    pub expires: Now,
}

impl Life {
    /// A life of `lifetime` from `issued` on.
    #[must_use]
    pub fn new(issued: Now, lifetime: Duration) -> Self {
        Self { issued, expires: issued.plus(lifetime) }
    }

    /// The life of a token read from a store at `now`. Its age is known by the wall clock only.
    #[must_use]
    pub fn stored(issued_at: u64, expires_at: u64, now: Now) -> Self {
        let left = Duration::from_secs(expires_at).saturating_sub(now.wall);
        let lifetime = Duration::from_secs(expires_at.saturating_sub(issued_at));
        // A wall clock set back must not give a stored token a longer life than it was born with.
        let left = left.min(lifetime);
        Self {
            issued: Now { wall: Duration::from_secs(issued_at), mono: now.mono },
            expires: Now { wall: Duration::from_secs(expires_at), mono: now.mono + left },
        }
    }

    /// Whether either clock says that it is over.
    #[must_use]
    pub fn is_expired(&self, now: Now) -> bool {
        passed(self.expires, now)
    }

    /// What is left by the clock that leaves less.
    #[must_use]
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
    #[must_use]
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
#[must_use]
pub fn passed(at: Now, now: Now) -> bool {
    now.wall >= at.wall || now.mono >= at.mono
}

/// What an account is, for people and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A token that needs nothing.
    Fresh,
    /// A good token inside the refresh buffer.
    Due,
    /// No token, or one that is over.
    Expired,
    /// A refresh is under way and there is no good token.
    Refreshing,
    /// The grant is dead: a person must connect the account again.
    ReauthorizationRequired,
    /// LWA rejects the application's client id or secret.
    ApplicationRejected,
    /// The record cannot be opened with the keys there are.
    Sealed,
}

impl State {
    /// Every state, for metrics that show all of them.
    pub const ALL: [Self; 7] = [
        Self::Fresh,
        Self::Due,
        Self::Expired,
        Self::Refreshing,
        Self::ReauthorizationRequired,
        Self::ApplicationRejected,
        Self::Sealed,
    ];

    /// The state's name in metrics and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Due => "due",
            Self::Expired => "expired",
            Self::Refreshing => "refreshing",
            Self::ReauthorizationRequired => "reauthorization_required",
            Self::ApplicationRejected => "application_rejected",
            Self::Sealed => "sealed",
        }
    }
}

/// Why there is no token to be had now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The grant is dead.
    ReauthorizationRequired,
    /// The application is rejected.
    ApplicationRejected {
        /// When LWA is asked again.
        retry_after: Duration,
    },
    /// LWA could not be reached, or the record not be opened.
    Unavailable {
        /// When it is tried again.
        retry_after: Duration,
    },
}

/// What a request that wants a token does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Use the current token.
    Use,
    /// Use the current token and start a refresh beside it.
    UseAndRefresh,
    /// Start a refresh and wait for it.
    Refresh,
    /// Wait for the refresh that is under way.
    Wait,
    /// Give up at once.
    Refuse(Refusal),
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
    Refuse(Refusal),
}

/// How a refresh failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// LWA was not reached, answered nonsense, or was busy.
    Transient {
        /// LWA's `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// `invalid_grant`, or no grant at all.
    GrantDead,
    /// `invalid_client` for every live secret.
    ApplicationRejected,
    /// The record does not open.
    Sealed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    None,
    Dead,
    Rejected { until: Now },
    Sealed { until: Now },
    Failed { until: Now },
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
}

impl Slot {
    /// An account without a token, and with a live grant as far as is known.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            generation: 0,
            life: None,
            refreshing: false,
            block: Block::None,
            failures: 0,
            last_forced: None,
        }
    }

    /// The current token's generation; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Refreshes that failed since the last that succeeded.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether a good token is there.
    #[must_use]
    pub fn is_alive(&self, now: Now) -> bool {
        self.life.is_some_and(|life| !life.is_expired(now))
    }

    /// The state to show.
    #[must_use]
    pub fn state(&self, now: Now) -> State {
        match (self.block, self.life) {
            (Block::Dead, _) => State::ReauthorizationRequired,
            (Block::Rejected { until }, _) if !passed(until, now) => State::ApplicationRejected,
            (Block::Sealed { .. }, _) => State::Sealed,
            (_, Some(life)) if !life.is_expired(now) => {
                if passed(life.due(self.policy.refresh_buffer), now) {
                    State::Due
                } else {
                    State::Fresh
                }
            }
            _ if self.refreshing => State::Refreshing,
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
            (Some(refusal), false) => Want::Refuse(refusal),
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
        if let Some(refusal) = self.refusal(now) {
            return Rejected::Refuse(refusal);
        }
        self.refreshing = true;
        self.last_forced = Some(now);
        Rejected::Refresh
    }

    /// Whether the background refresher shall refresh now. `true` hands it the refresh.
    pub fn background(&mut self, now: Now) -> bool {
        if self.life.is_none() || self.refreshing || self.refusal(now).is_some() {
            return false;
        }
        self.refreshing = true;
        true
    }

    /// How long until the background refresher should act; `None` when it has nothing to do.
    ///
    /// `jitter` (0.9 to 1.1) spreads accounts that were connected together. A token that lives
    /// shorter than the lead is left to the requests: it would be refreshed without end.
    #[must_use]
    pub fn background_due(&self, now: Now, jitter: f64) -> Option<Duration> {
        let life = self.life?;
        match self.block {
            Block::Dead => None,
            Block::Rejected { until } | Block::Sealed { until } | Block::Failed { until } => {
                Some(left(until, now))
            }
            Block::None => {
                let lead = self.policy.background_lead;
                if lead.is_zero() || life.lifetime() <= lead {
                    return None;
                }
                Some(life.remaining(now).saturating_sub(lead.mul_f64(jitter)))
            }
        }
    }

    /// The refresh brought a token, or another process had brought one.
    pub fn succeeded(&mut self, generation: u64, life: Life) {
        self.refreshing = false;
        self.failures = 0;
        self.block = Block::None;
        self.generation = generation;
        self.life = Some(life);
    }

    /// Amazon rejects the token of `generation` and its grant is dead: nobody shall try it again.
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
            Failure::GrantDead => Block::Dead,
            Failure::ApplicationRejected => {
                Block::Rejected { until: now.plus(APPLICATION_REJECTED_FOR) }
            }
            Failure::Sealed => Block::Sealed { until: now.plus(SEALED_FOR) },
            Failure::Transient { retry_after } => {
                let doubled = Duration::from_secs(1 << (self.failures - 1).min(8));
                let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
                Block::Failed { until: now.plus(doubled.min(FAILURE_MEMORY_MAX).max(asked)) }
            }
        };
    }

    /// The account was connected anew, or its key is back: forget what failed.
    pub fn reconnected(&mut self) {
        self.failures = 0;
        self.block = Block::None;
    }

    /// Why a refresh must not start now.
    #[must_use]
    pub fn refusal(&self, now: Now) -> Option<Refusal> {
        match self.block {
            Block::None => None,
            Block::Dead => Some(Refusal::ReauthorizationRequired),
            Block::Rejected { until } if !passed(until, now) => {
                Some(Refusal::ApplicationRejected { retry_after: left(until, now) })
            }
            Block::Sealed { until } | Block::Failed { until } if !passed(until, now) => {
                Some(Refusal::Unavailable { retry_after: left(until, now) })
            }
            Block::Rejected { .. } | Block::Sealed { .. } | Block::Failed { .. } => None,
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
