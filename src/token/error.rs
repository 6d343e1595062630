//! Why there is no token, and what to do about each reason.

use crate::{lwa::LwaFailure, store};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the account is not connected")]
    NotConnected,
    #[error("the account must be connected again")]
    ReauthorizationRequired,
    #[error("{}", .why.advice())]
    ApplicationRejected { why: LwaFailure, retry_after: Duration },
    #[error("{}", .reason.advice())]
    Unavailable { reason: Obstacle, retry_after: Duration },
    #[error("too many requests wait for a token of this account")]
    TooManyWaiters,
}

impl Error {
    /// A wait that ended without a result.
    pub(super) const LATER: Self =
        Self::Unavailable { reason: Obstacle::UNREACHABLE, retry_after: Duration::from_secs(1) };

    pub(super) const fn unavailable(reason: Obstacle) -> Self {
        Self::Unavailable { reason, retry_after: Duration::ZERO }
    }

    /// The stable code in events.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::ReauthorizationRequired => "invalid_grant",
            Self::ApplicationRejected { why, .. } => why.as_str(),
            Self::Unavailable { reason, .. } => reason.code(),
            Self::TooManyWaiters => "too_many_waiters",
        }
    }

    /// What is wrong and what to do, where that differs within one code. A fixed text.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::ApplicationRejected { why, .. } => Some(why.advice()),
            Self::Unavailable { reason, .. } => Some(reason.advice()),
            Self::NotConnected | Self::ReauthorizationRequired | Self::TooManyWaiters => None,
        }
    }
}

/// What is in the way of a token, although the grant may be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    Lwa(LwaFailure),
    /// The record cannot be opened with the configured keys.
    Sealed,
    /// The record cannot be read: its permissions or its content are wrong.
    Unreadable,
    /// Another server refreshes the grant.
    Held,
    Store,
}

impl Obstacle {
    pub const UNREACHABLE: Self = Self::Lwa(LwaFailure::Unreachable);
    pub const REFUSED: Self = Self::Lwa(LwaFailure::Refused);
    pub const NOT_LWA: Self = Self::Lwa(LwaFailure::NotLwa);

    fn code(self) -> &'static str {
        match self {
            Self::Lwa(failure) => failure.as_str(),
            Self::Sealed => "sealed",
            Self::Unreadable => "unreadable",
            Self::Held => "held_elsewhere",
            Self::Store => "store_unavailable",
        }
    }

    pub fn advice(self) -> &'static str {
        match self {
            Self::Lwa(failure) => failure.advice(),
            Self::Sealed => {
                "The account's record is sealed with a key that is not configured. Put the key \
                 back into encryption.keys."
            }
            Self::Unreadable => {
                "The account's record cannot be read. `adsproxy status` has the error; in a store of \
                 files, check their owner and permissions below store.path."
            }
            Self::Held => {
                "There is no valid access token yet, and another server is refreshing it. Try again \
                 in a moment."
            }
            Self::Store => {
                "There is no valid access token and the store cannot be reached. Try again later."
            }
        }
    }

    /// Whether it may pass by itself.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Lwa(LwaFailure::Unreachable) | Self::Held | Self::Store)
    }

    /// Why a record cannot be had.
    pub(super) fn of_store(error: &store::Error) -> Self {
        match error {
            error if error.is_sealed() => Self::Sealed,
            error if error.is_lasting() => Self::Unreadable,
            store::Error::Held { .. } => Self::Held,
            _ => Self::Store,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_of_another_server_is_no_store_that_is_away() {
        let held = Obstacle::of_store(&store::Error::Held { until_ms: 0 });
        assert_eq!((held, held.code()), (Obstacle::Held, "held_elsewhere"));
        assert!(held.is_passing() && !held.advice().contains("cannot be reached"));
        let away = store::Error::Database { source: std::io::Error::other("gone") };
        assert_eq!(Obstacle::of_store(&away), Obstacle::Store);
    }
}
