//! Why a request gets a response of our own: from every error to its code, text and `Retry-After`.

use crate::{
    forward::{self, body::BodyError, connect::ConnectError},
    inbound::guard::GuardRejection,
    problem::{Code, ErrorOrigin, Problem},
    token,
};
use http::StatusCode;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the request names no account")]
    AccountRequired,
    #[error("the request names different accounts")]
    AccountConflict,
    #[error("the account is not known")]
    UnknownAccount,
    #[error("{0}")]
    BadRequest(&'static str),
    /// The end of the body, and so the next request, can be found in more than one way.
    #[error("the framing of the request is ambiguous")]
    AmbiguousFraming,
    #[error("the method is not one of {METHODS}")]
    MethodRejected,
    /// The path is one that MCP clients look for on their own.
    #[error("the path is reserved")]
    ReservedPath,
    /// With the Host or ErrorOrigin that is not accepted, where it can be shown.
    #[error("the guard rejects the request")]
    Guard(#[source] GuardRejection, Option<Box<str>>),
    #[error("{0}")]
    Overloaded(&'static str),
    #[error("the server is stopping")]
    Draining,
    #[error("the request body is larger than allowed")]
    BodyTooLarge,
    #[error("the request header is larger than allowed")]
    HeadersTooLarge,
    #[error("no token")]
    Token(#[from] token::Error),
    #[error("no response from the upstream")]
    Forward(#[from] forward::Error),
}

/// The methods that are forwarded, as `Allow` lists them.
pub const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

impl Error {
    pub fn code(&self) -> Code {
        use ConnectError as Connect;
        use forward::Error as Forward;
        match self {
            Self::AccountRequired => Code::AccountRequired,
            Self::AccountConflict => Code::AccountConflict,
            Self::UnknownAccount => Code::UnknownAccount,
            Self::ReservedPath => Code::NotFound,
            Self::BadRequest(_) | Self::AmbiguousFraming | Self::MethodRejected => Code::BadRequest,
            Self::Guard(rejection, _) => match rejection {
                GuardRejection::ForeignHost
                | GuardRejection::ForeignOrigin
                | GuardRejection::SessionKey => Code::CallerRejected,
                GuardRejection::MissingHost
                | GuardRejection::DuplicateHost
                | GuardRejection::MalformedHost => Code::BadRequest,
            },
            Self::Overloaded(_) => Code::Overloaded,
            Self::Draining => Code::Draining,
            Self::BodyTooLarge => Code::BodyTooLarge,
            Self::HeadersTooLarge => Code::HeadersTooLarge,
            Self::Token(error) => match error {
                token::Error::NotConnected | token::Error::ReauthorizationRequired => {
                    Code::ReauthorizationRequired
                }
                token::Error::ApplicationRejected { .. } => Code::ApplicationRejected,
                token::Error::Unavailable { .. } => Code::TokenUnavailable,
                token::Error::TooManyWaiters => Code::Overloaded,
            },
            Self::Forward(error) => match error {
                Forward::Busy => Code::Overloaded,
                Forward::Body(BodyError::TooLarge) => Code::BodyTooLarge,
                Forward::Body(BodyError::Incomplete | BodyError::TooSlow) => Code::BadRequest,
                Forward::Timeout | Forward::Connect(Connect::Timeout) => Code::UpstreamTimeout,
                Forward::Connect(
                    Connect::Connect(_)
                    | Connect::Egress(_)
                    | Connect::Tls(_)
                    | Connect::ServerName(_)
                    | Connect::Http(_)
                    | Connect::ShuttingDown,
                )
                | Forward::Broken(_)
                | Forward::Malformed(_)
                | Forward::NotReplayable
                | Forward::Body(BodyError::Superseded | BodyError::Capture) => {
                    Code::UpstreamUnreachable
                }
            },
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::MethodRejected => StatusCode::METHOD_NOT_ALLOWED,
            _ => self.code().row().status,
        }
    }

    pub fn origin(&self) -> ErrorOrigin {
        self.code().row().origin
    }

    /// When to try again, in whole seconds and at least one; only for what may pass.
    pub fn retry_after(&self) -> Option<u64> {
        let after = match self {
            Self::Token(
                token::Error::Unavailable { retry_after, .. }
                | token::Error::ApplicationRejected { retry_after, .. },
            ) => *retry_after,
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => Duration::from_secs(1),
            _ => return None,
        };
        Some((after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1))
    }

    /// The text for the caller: fixed but for a rejected Host or ErrorOrigin, so that no secret is in it.
    pub fn public_text(&self) -> &str {
        let text = match self {
            Self::BadRequest(text) | Self::Overloaded(text) => Some(*text),
            Self::Guard(_, Some(text)) => Some(&**text),
            Self::Guard(rejection, None) => match rejection {
                GuardRejection::MissingHost => Some("The Host header is missing."),
                GuardRejection::DuplicateHost => Some("The Host header was sent twice."),
                GuardRejection::MalformedHost => Some("The Host header is malformed."),
                GuardRejection::SessionKey => Some(
                    "This listener is private to one command: use the base URL that it was given.",
                ),
                GuardRejection::ForeignHost | GuardRejection::ForeignOrigin => None,
            },
            Self::AmbiguousFraming => Some(
                "The length of the request body must be announced in one way, by Content-Length \
                 or by Transfer-Encoding: chunked.",
            ),
            Self::MethodRejected => Some(
                "The method is not forwarded. Use GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS, \
                 in capital letters.",
            ),
            Self::Token(token::Error::TooManyWaiters) => Some(
                "As many requests as may wait for the account's token (token.waiters_max). \
                 Try again later.",
            ),
            Self::Token(error) => error.advice(),
            Self::Forward(forward::Error::Busy) => Some(
                "No connection to Amazon came free in time (upstream.connections_max). \
                 Try again later.",
            ),
            Self::Forward(forward::Error::Malformed(_)) => {
                Some("The response of the Amazon Ads API is malformed.")
            }
            Self::Forward(forward::Error::Body(BodyError::Incomplete)) => {
                Some("The request body ended before its announced length.")
            }
            Self::Forward(forward::Error::Body(BodyError::TooSlow)) => {
                Some("The request body came too slowly (limits.body_min_bytes_per_sec).")
            }
            _ => None,
        };
        text.unwrap_or(self.code().row().text)
    }

    pub fn problem(&self) -> Problem<'_> {
        Problem {
            status: self.status(),
            detail: self.public_text(),
            retry_after_secs: self.retry_after(),
            ..self.code().problem()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lwa::LwaFailure, problem::TABLE};
    use std::collections::HashSet;

    /// One error per variant, and per inner variant that changes the response.
    fn all() -> Vec<(Error, &'static str, u16)> {
        use forward::Error as Forward;
        let after = Duration::from_millis(1500);
        vec![
            (Error::AccountRequired, "account_required", 400),
            (Error::AccountConflict, "account_conflict", 400),
            (Error::BadRequest("x"), "bad_request", 400),
            (Error::AmbiguousFraming, "bad_request", 400),
            (Error::MethodRejected, "bad_request", 405),
            (Error::Guard(GuardRejection::MissingHost, None), "bad_request", 400),
            (Error::Guard(GuardRejection::ForeignHost, None), "caller_rejected", 403),
            (Error::Guard(GuardRejection::ForeignOrigin, None), "caller_rejected", 403),
            (Error::Guard(GuardRejection::SessionKey, None), "caller_rejected", 403),
            (Error::UnknownAccount, "unknown_account", 404),
            (Error::ReservedPath, "not_found", 404),
            (
                Error::Forward(Forward::Malformed(forward::Malformed::SwitchingProtocols)),
                "upstream_unreachable",
                502,
            ),
            (Error::Token(token::Error::ReauthorizationRequired), "reauthorization_required", 403),
            (
                Error::Token(token::Error::ApplicationRejected {
                    why: LwaFailure::InvalidClient,
                    retry_after: after,
                }),
                "application_rejected",
                502,
            ),
            (
                Error::Token(token::Error::Unavailable {
                    reason: token::Obstacle::UNREACHABLE,
                    retry_after: after,
                }),
                "token_unavailable",
                503,
            ),
            (Error::Token(token::Error::TooManyWaiters), "overloaded", 503),
            (Error::Overloaded("x"), "overloaded", 503),
            (Error::Draining, "draining", 503),
            (Error::Forward(Forward::Busy), "overloaded", 503),
            (Error::Forward(Forward::Timeout), "upstream_timeout", 504),
            (Error::Forward(Forward::NotReplayable), "upstream_unreachable", 502),
            (Error::Forward(Forward::Connect(ConnectError::Timeout)), "upstream_timeout", 504),
            (Error::Forward(Forward::Body(BodyError::TooLarge)), "body_too_large", 413),
            (Error::Forward(Forward::Body(BodyError::Incomplete)), "bad_request", 400),
            (Error::BodyTooLarge, "body_too_large", 413),
            (Error::HeadersTooLarge, "headers_too_large", 431),
        ]
    }

    #[test]
    fn every_error_has_its_code_and_status_and_every_row_an_error() {
        let mut seen = HashSet::new();
        for (error, code, status) in all() {
            assert_eq!(
                (error.code().row().code, error.status().as_u16()),
                (code, status),
                "{error}"
            );
            assert!(!error.public_text().is_empty());
            seen.insert(code);
        }
        assert_eq!(seen.len(), TABLE.len());
    }

    #[test]
    fn none_is_a_401_and_every_503_says_when_to_come_back() {
        for (error, code, status) in all() {
            assert_ne!(status, 401);
            assert!(status != 503 || error.retry_after().is_some_and(|after| after >= 1), "{code}");
        }
        let error = Error::Token(token::Error::Unavailable {
            reason: token::Obstacle::UNREACHABLE,
            retry_after: Duration::from_millis(1500),
        });
        assert_eq!(error.retry_after(), Some(2));
        assert_eq!(Error::AccountRequired.retry_after(), None);
    }
}
