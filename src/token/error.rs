//! Why there is no token, and what to do about each reason.

use crate::store;
use std::time::Duration;

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The account has no grant.
    #[error("the account is not connected")]
    NotConnected,
    /// The grant is dead; the account must be connected again.
    #[error("the account must be connected again")]
    ReauthorizationRequired,
    /// LWA rejects the application.
    #[error("{}", .why.advice())]
    ApplicationRejected {
        /// What it says of it.
        why: Rejection,
        /// When LWA is asked again.
        retry_after: Duration,
    },
    /// No token this time.
    #[error("{}", .reason.advice())]
    Unavailable {
        /// What is in the way.
        reason: Obstacle,
        /// When it is tried again.
        retry_after: Duration,
    },
    /// As many requests wait already as may.
    #[error("too many requests wait for a token of this account")]
    TooManyWaiters,
}

impl Error {
    /// A wait that ended without a result.
    pub(super) fn later() -> Self {
        let (reason, retry_after) = (Obstacle::Unreachable, Duration::from_secs(1));
        Self::Unavailable { reason, retry_after }
    }

    /// What is wrong and what to do, where that differs within one code. A fixed text.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::ApplicationRejected { why, .. } => Some(why.advice()),
            Self::Unavailable { reason, .. } => Some(reason.advice()),
            Self::NotConnected | Self::ReauthorizationRequired | Self::TooManyWaiters => None,
        }
    }
}

/// Why LWA rejects an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// `invalid_client`.
    InvalidClient,
    /// `unauthorized_client`.
    UnauthorizedClient,
}

impl Rejection {
    /// The error code of LWA.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidClient => "invalid_client",
            Self::UnauthorizedClient => "unauthorized_client",
        }
    }

    /// What to do.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::InvalidClient => {
                "Login with Amazon rejects the client id or client secret. Check [lwa] in the \
                 configuration."
            }
            Self::UnauthorizedClient => {
                "Login with Amazon does not let this application use the grant \
                 (unauthorized_client). Check that the refresh token was granted to this client \
                 id, and that the security profile is enabled for Login with Amazon and approved \
                 for the Ads API."
            }
        }
    }
}

/// What is in the way of a token, although the grant may be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// LWA cannot be reached, is busy, or did not respond in time.
    Unreachable,
    /// LWA refuses the request for good: the same request would be refused again.
    Refused,
    /// What responds at the token endpoint is not LWA.
    NotLwa,
    /// The record cannot be opened with the configured keys.
    Sealed,
    /// The record cannot be read: its permissions or its content are wrong.
    Unreadable,
    /// The store cannot be reached.
    Store,
}

impl Obstacle {
    /// The stable code in events.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Unreachable => "lwa_unavailable",
            Self::Refused => "lwa_refused",
            Self::NotLwa => "lwa_bad_response",
            Self::Sealed => "sealed",
            Self::Unreadable => "unreadable",
            Self::Store => "store_unavailable",
        }
    }

    /// What to do.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Unreachable => {
                "There is no valid access token and Login with Amazon cannot be reached. Try \
                 again later."
            }
            Self::Refused => {
                "Login with Amazon refuses the token request, and will refuse it again. The \
                 server's log and `adsproxy status` have its error code."
            }
            Self::NotLwa => {
                "The token endpoint does not respond as Login with Amazon does. Check \
                 lwa.token_url, and proxies on the way."
            }
            Self::Sealed => {
                "The account's record is sealed with a key that is not configured. Put the key \
                 back into encryption.keys."
            }
            Self::Unreadable => {
                "The account's record cannot be read. Check the owner and the permissions of the \
                 files below store.path; `adsproxy status` has the error."
            }
            Self::Store => {
                "There is no valid access token and the store cannot be reached. Try again later."
            }
        }
    }

    /// Why a record cannot be had.
    pub(super) fn of_store(error: &store::Error) -> Self {
        match error {
            error if error.is_sealed() => Self::Sealed,
            error if error.is_lasting() => Self::Unreadable,
            _ => Self::Store,
        }
    }
}
