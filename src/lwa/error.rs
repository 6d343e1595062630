//! Why Login with Amazon gave no token, and what to do about each reason: the one table for
//! requests, commands and `doctor`.

use crate::named::named;
use std::time::Duration;

/// What one call came to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The refresh token, or the code, is dead.
    #[error("invalid_grant")]
    InvalidGrant,
    /// No live client secret was accepted.
    #[error("invalid_client")]
    InvalidClient,
    /// The application may not do this at all.
    #[error("unauthorized_client")]
    UnauthorizedClient,
    /// LWA responded with another error, whose code is a known one.
    #[error("status {status}, error {code}")]
    Refused { status: u16, code: &'static str, retry_after: Option<Duration> },
    /// The response is not one of LWA's: a page of HTML, a redirect.
    #[error("status {status} without an error of login with amazon in it")]
    NotLwa { status: u16 },
    /// The code is older than its five minutes; of a code only.
    #[error("the code has expired")]
    CodeExpired,
    /// The code was given for another return address; of a code only.
    #[error("the return address differs")]
    RedirectMismatch,
    /// A success without a usable token in it.
    #[error("unusable response: {0}")]
    BadResponse(&'static str),
    #[error("no response")]
    Transport(#[source] reqwest::Error),
}

impl Error {
    /// How long LWA asked not to be called again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the same call may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            // A hung LWA has already cost the whole timeout; asking again would only add to it.
            Self::Transport(error) => !error.is_timeout() || error.is_connect(),
            error => error.failure() == LwaFailure::Unreachable,
        }
    }

    pub fn failure(&self) -> LwaFailure {
        match self {
            Self::InvalidGrant | Self::CodeExpired | Self::RedirectMismatch => {
                LwaFailure::InvalidGrant
            }
            Self::InvalidClient => LwaFailure::InvalidClient,
            Self::UnauthorizedClient => LwaFailure::UnauthorizedClient,
            Self::Refused { status: 408 | 429 | 500.., .. } | Self::Transport(_) => {
                LwaFailure::Unreachable
            }
            Self::Refused { .. } => LwaFailure::Refused,
            Self::NotLwa { .. } | Self::BadResponse(_) => LwaFailure::NotLwa,
        }
    }
}

named! {
    /// What an error means for what happens next, by its stable code in events.
    pub enum LwaFailure {
        InvalidGrant = "invalid_grant",
        InvalidClient = "invalid_client",
        UnauthorizedClient = "unauthorized_client",
        /// LWA refuses the request for good: the same request would be refused again.
        Refused = "lwa_refused",
        /// What responds at the token endpoint is not LWA.
        NotLwa = "lwa_bad_response",
        /// LWA cannot be reached, is busy, or did not respond in time. Only this passes by itself.
        Unreachable = "lwa_unavailable",
    }
}

impl LwaFailure {
    /// What is wrong and what to do.
    pub fn advice(self) -> &'static str {
        match self {
            Self::InvalidGrant => {
                "Login with Amazon does not accept the refresh token (invalid_grant). Consent was \
                 withdrawn or has ended, or the token belongs to another application. Connect the \
                 account again with `adsproxy login`."
            }
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
            Self::Refused => {
                "Login with Amazon refuses the token request, and will refuse it again. The \
                 server's log and `adsproxy status` have its error code."
            }
            Self::NotLwa => {
                "The token endpoint does not respond as Login with Amazon does. Check \
                 lwa.token_url, and proxies on the way."
            }
            Self::Unreachable => {
                "There is no valid access token and Login with Amazon cannot be reached. Try \
                 again later."
            }
        }
    }
}
