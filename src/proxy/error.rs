//! Every answer that is ours: the one table from error to status, code and public text.
//!
//! Public texts are fixed per code; what went wrong inside goes to the log only. Never a 401:
//! SDKs refresh and loop on it.

use crate::{
    forward::{self, body::BodyError, connect::ConnectError},
    inbound::guard::GuardRejection,
    token,
};
use http::StatusCode;
use std::time::Duration;

/// Why a request is answered by us and not by Amazon.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No selector, and no default account.
    #[error("the request names no account")]
    AccountRequired,
    /// Selectors name different accounts.
    #[error("the request names different accounts")]
    AccountConflict,
    /// No such account.
    #[error("the account is not known")]
    UnknownAccount,
    /// The request is malformed.
    #[error("{0}")]
    BadRequest(&'static str),
    /// The end of the body can be read in more than one way.
    #[error("the framing of the request is ambiguous")]
    AmbiguousFraming,
    /// The method is not one of [`METHODS`].
    #[error("the method is not forwarded")]
    MethodRefused,
    /// The path is one that MCP clients look for on their own.
    #[error("the path is reserved")]
    NotFound,
    /// Host or Origin is not accepted.
    #[error("the guard refuses the request")]
    Guard(#[source] GuardRejection, Option<Box<str>>),
    /// A limit is hit.
    #[error("{0}")]
    Overloaded(&'static str),
    /// The server is stopping.
    #[error("the server is stopping")]
    Draining,
    /// The announced body is over the cap.
    #[error("the request body is larger than allowed")]
    BodyTooLarge,
    /// The header is over a cap.
    #[error("the request header is larger than allowed")]
    HeadersTooLarge,
    /// There is no token.
    #[error("no token")]
    Token(#[source] token::Error),
    /// Amazon could not be asked, or did not answer.
    #[error("no answer from the upstream")]
    Forward(#[source] forward::Error),
}

/// The methods that are forwarded, as `Allow` lists them.
pub const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The calling program's.
    Caller,
    /// Ours.
    Proxy,
    /// Login with Amazon's, or the grant's.
    Lwa,
    /// The Ads API's, or the way to it.
    Upstream,
}

impl Error {
    /// The stable code: `X-Ads-Proxy-Error`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        use forward::Error as Forward;
        match self {
            Self::AccountRequired => "account_required",
            Self::AccountConflict => "account_conflict",
            Self::UnknownAccount => "unknown_account",
            Self::NotFound => "not_found",
            Self::BadRequest(_) | Self::AmbiguousFraming | Self::MethodRefused => "bad_request",
            Self::Guard(
                GuardRejection::ForeignHost
                | GuardRejection::ForeignOrigin
                | GuardRejection::SessionKey,
                _,
            ) => "caller_rejected",
            Self::Guard(
                GuardRejection::MissingHost
                | GuardRejection::DuplicateHost
                | GuardRejection::MalformedHost,
                _,
            ) => "bad_request",
            Self::Overloaded(_) => "overloaded",
            Self::Draining => "draining",
            Self::BodyTooLarge => "body_too_large",
            Self::HeadersTooLarge => "headers_too_large",
            Self::Token(token::Error::NotConnected | token::Error::ReauthorizationRequired) => {
                "reauthorization_required"
            }
            Self::Token(token::Error::ApplicationRejected { .. }) => "application_rejected",
            Self::Token(token::Error::Unavailable { .. }) => "token_unavailable",
            Self::Token(token::Error::TooManyWaiters) | Self::Forward(Forward::Busy) => {
                "overloaded"
            }
            Self::Forward(Forward::Body(BodyError::TooLarge)) => "body_too_large",
            Self::Forward(Forward::Body(BodyError::Incomplete | BodyError::TooSlow)) => {
                "bad_request"
            }
            Self::Forward(Forward::Timeout | Forward::Connect(ConnectError::Timeout)) => {
                "upstream_timeout"
            }
            Self::Forward(
                Forward::Connect(
                    ConnectError::Connect(_)
                    | ConnectError::Egress(_)
                    | ConnectError::Tls(_)
                    | ConnectError::ServerName(_)
                    | ConnectError::Http(_)
                    | ConnectError::ShuttingDown,
                )
                | Forward::Broken(_)
                | Forward::Malformed(_)
                | Forward::NotReplayable
                | Forward::Body(BodyError::Superseded | BodyError::Capture),
            ) => "upstream_unreachable",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        if matches!(self, Self::MethodRefused) {
            return StatusCode::METHOD_NOT_ALLOWED;
        }
        entry(self.code()).status
    }

    /// Whose fault it is.
    #[must_use]
    pub fn origin(&self) -> Origin {
        entry(self.code()).origin
    }

    /// RFC 9209's name for it.
    #[must_use]
    pub fn proxy_status(&self) -> &'static str {
        entry(self.code()).proxy_status
    }

    /// When to try again, in whole seconds and at least one; only for what may pass.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        let after = match self {
            Self::Token(
                token::Error::Unavailable { retry_after, .. }
                | token::Error::ApplicationRejected { retry_after, .. },
            ) => *retry_after,
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => Duration::from_secs(1),
            _ => return None,
        };
        Some(after.as_secs() + u64::from(after.subsec_nanos() > 0)).map(|seconds| seconds.max(1))
    }

    /// Whether the connection must end, because where the next request begins is uncertain.
    #[must_use]
    pub fn ends_connection(&self) -> bool {
        matches!(self, Self::AmbiguousFraming)
    }

    /// The text for the caller. Fixed but for a refused Host or Origin: no secret can be in it.
    #[must_use]
    pub fn public_text(&self) -> &str {
        match self {
            Self::BadRequest(text) | Self::Overloaded(text) => text,
            Self::Token(token::Error::TooManyWaiters) => {
                "As many requests as may wait for the account's token (token.waiters_max). \
                 Try again later."
            }
            Self::Forward(forward::Error::Busy) => {
                "No connection to Amazon came free in time (upstream.connections_max). \
                 Try again later."
            }
            Self::AmbiguousFraming => {
                "The length of the request body must be announced in one way, by Content-Length \
                 or by Transfer-Encoding: chunked."
            }
            Self::MethodRefused => {
                "The method is not forwarded. Use GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS, \
                 in capital letters."
            }
            Self::Forward(forward::Error::Malformed(_)) => {
                "The response of the Amazon Ads API is malformed."
            }
            Self::Guard(_, Some(text)) => text,
            Self::Guard(GuardRejection::MissingHost, _) => "The Host header is missing.",
            Self::Guard(GuardRejection::DuplicateHost, _) => "The Host header was sent twice.",
            Self::Guard(GuardRejection::MalformedHost, _) => "The Host header is malformed.",
            Self::Guard(GuardRejection::SessionKey, _) => {
                "This listener is private to one command: use the base URL that it was given."
            }
            Self::Forward(forward::Error::Body(BodyError::Incomplete)) => {
                "The request body ended before its announced length."
            }
            Self::Forward(forward::Error::Body(BodyError::TooSlow)) => {
                "The request body came too slowly (limits.body_min_bytes_per_sec)."
            }
            Self::Token(error) => error.advice().unwrap_or_else(|| entry(self.code()).text),
            _ => entry(self.code()).text,
        }
    }
}

/// One row of the error table.
#[derive(Debug)]
pub struct Entry {
    /// The stable code.
    pub code: &'static str,
    /// The usual status.
    pub status: StatusCode,
    /// Whose fault it is.
    pub origin: Origin,
    /// RFC 9209 section 2.3.
    pub proxy_status: &'static str,
    /// The public text.
    pub text: &'static str,
}

macro_rules! table {
    ($($code:literal $status:ident $origin:ident $proxy_status:literal $text:literal;)*) => {
        /// The whole table.
        pub static TABLE: &[Entry] = &[$(Entry {
            code: $code,
            status: StatusCode::$status,
            origin: Origin::$origin,
            proxy_status: $proxy_status,
            text: $text,
        }),*];
    };
}

table! {
    "account_required" BAD_REQUEST Caller "http_request_error"
        "The request names no account. Send the header X-Ads-Account: <alias>, or the placeholder \
         token Authorization: Bearer Atza|<alias>, which every client can send. A base URL that \
         ends in /a/<alias> works unless the client drops its path, as some do for paths that \
         begin with a slash.";
    "account_conflict" BAD_REQUEST Caller "http_request_error"
        "The request names two different accounts.";
    "bad_request" BAD_REQUEST Caller "http_request_error"
        "The request is malformed.";
    "caller_rejected" FORBIDDEN Caller "http_request_denied"
        "The Host or Origin of this request is not accepted (guard.allowed_hosts, \
         guard.allowed_origins).";
    "not_found" NOT_FOUND Proxy "http_request_denied"
        "adsproxy serves no OAuth endpoint here: it authenticates to Amazon by itself, and needs no \
         login or client registration.";
    "unknown_account" NOT_FOUND Caller "http_request_denied"
        "There is no such account, or it is not yours to use. See: adsproxy account list.";
    "reauthorization_required" FORBIDDEN Lwa "http_request_denied"
        "The advertiser's consent is missing, revoked or expired. Connect the account again: run \
         adsproxy login <alias>, or set a new accounts.<alias>.refresh_token and restart.";
    "application_rejected" BAD_GATEWAY Lwa "proxy_configuration_error"
        "Login with Amazon rejects the client id or client secret. Check [lwa] in the configuration.";
    "token_unavailable" SERVICE_UNAVAILABLE Lwa "proxy_internal_error"
        "There is no valid access token and Login with Amazon cannot be reached. Try again later.";
    "overloaded" SERVICE_UNAVAILABLE Proxy "http_request_denied"
        "A limit of the proxy is hit. Try again later.";
    "draining" SERVICE_UNAVAILABLE Proxy "http_request_denied"
        "The proxy is shutting down. Try again.";
    "upstream_unreachable" BAD_GATEWAY Upstream "connection_terminated"
        "The Amazon Ads API could not be reached, or broke off before it answered.";
    "upstream_timeout" GATEWAY_TIMEOUT Upstream "http_response_timeout"
        "The Amazon Ads API did not answer in time.";
    "body_too_large" PAYLOAD_TOO_LARGE Caller "http_request_error"
        "The request body is larger than allowed (limits.body_max_bytes).";
    "headers_too_large" REQUEST_HEADER_FIELDS_TOO_LARGE Caller "http_request_error"
        "The request header is larger than allowed (limits.header_max_bytes, limits.headers_max).";
}

fn entry(code: &str) -> &'static Entry {
    TABLE.iter().find(|entry| entry.code == code).expect("every code has its row: see the test")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// One error per variant, and per inner variant that changes the answer.
    fn all() -> Vec<(Error, &'static str, u16)> {
        use forward::Error as Forward;
        let after = Duration::from_millis(1500);
        vec![
            (Error::AccountRequired, "account_required", 400),
            (Error::AccountConflict, "account_conflict", 400),
            (Error::BadRequest("x"), "bad_request", 400),
            (Error::AmbiguousFraming, "bad_request", 400),
            (Error::MethodRefused, "bad_request", 405),
            (Error::Guard(GuardRejection::MissingHost, None), "bad_request", 400),
            (Error::Guard(GuardRejection::ForeignHost, None), "caller_rejected", 403),
            (Error::Guard(GuardRejection::ForeignOrigin, None), "caller_rejected", 403),
            (Error::Guard(GuardRejection::SessionKey, None), "caller_rejected", 403),
            (Error::UnknownAccount, "unknown_account", 404),
            (Error::NotFound, "not_found", 404),
            (
                Error::Forward(Forward::Malformed(forward::Malformed::SwitchingProtocols)),
                "upstream_unreachable",
                502,
            ),
            (Error::Token(token::Error::ReauthorizationRequired), "reauthorization_required", 403),
            (
                Error::Token(token::Error::ApplicationRejected {
                    why: token::Rejection::InvalidClient,
                    retry_after: after,
                }),
                "application_rejected",
                502,
            ),
            (
                Error::Token(token::Error::Unavailable {
                    reason: token::Obstacle::Unreachable,
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
            assert_eq!((error.code(), error.status().as_u16()), (code, status), "{error}");
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
            reason: token::Obstacle::Unreachable,
            retry_after: Duration::from_millis(1500),
        });
        assert_eq!(error.retry_after(), Some(2));
        assert_eq!(Error::AccountRequired.retry_after(), None);
    }
}
