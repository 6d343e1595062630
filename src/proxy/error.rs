//! Why a request gets a response of our own: from every error to its code, text and `Retry-After`.

use crate::{
    callers::{Unauthenticated, rules::Denial},
    forward::{self, body::BodyError, connect::ConnectError},
    inbound::guard::GuardRejection,
    problem::{Code, Problem},
    token,
};
use http::StatusCode;
use serde_json::Value;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text of the code says it all.
    #[error("{}", .0.row().code)]
    Rejected(Code),
    #[error("{0}")]
    BadRequest(&'static str),
    /// The end of the body, and so the next request, can be found in more than one way.
    #[error("the framing of the request is ambiguous")]
    AmbiguousFraming,
    #[error("the method is not one of {METHODS}")]
    MethodRejected,
    /// With a text that shows the Host or Origin that is not accepted, where it can be shown.
    #[error("the guard rejects the request")]
    Guard(#[source] GuardRejection, Option<Box<str>>),
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    /// Which rule it is, is not for the caller.
    #[error("the rules of the caller refuse the request: {0}")]
    Denied(Box<Denial>),
    /// With the time to try again.
    #[error("the caller sends more than it may in a minute")]
    TooManyRequests(Duration),
    /// A request to the MCP server that calls a tool that its caller may not use, or might: with the
    /// response of that protocol, if one is possible.
    #[error("the tool rules of the caller reject the request")]
    ToolsRejected(Option<Box<Value>>),
    #[error("{0}")]
    Overloaded(&'static str),
    /// Amazon would only throttle it; with the time to try again.
    #[error("amazon throttles this kind of call")]
    Throttled(Duration),
    #[error("no token")]
    Token(#[from] token::Error),
    #[error("no response from the upstream")]
    Forward(#[from] forward::Error),
}

/// The methods that are forwarded, as `Allow` lists them.
pub const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

impl From<BodyError> for Error {
    fn from(error: BodyError) -> Self {
        Self::Forward(error.into())
    }
}

impl Error {
    pub fn code(&self) -> Code {
        self.describe().0
    }

    /// The text for the caller: fixed but for a rejected Host or Origin, so that no secret is in it.
    pub fn public_text(&self) -> &str {
        let (code, text) = self.describe();
        text.unwrap_or(code.row().text)
    }

    /// Its code, and its text where the code's own is not enough.
    fn describe(&self) -> (Code, Option<&str>) {
        match self {
            Self::Rejected(code) => (*code, None),
            Self::BadRequest(text) => (Code::BadRequest, Some(text)),
            Self::AmbiguousFraming => bad_request(
                "The length of the request body must be announced in one way, by Content-Length or \
                 by Transfer-Encoding: chunked.",
            ),
            Self::MethodRejected => bad_request(
                "The method is not forwarded. Use GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS, \
                 in capital letters.",
            ),
            Self::Guard(rejection, shown) => {
                let (code, text) = describe_guard(*rejection);
                (code, shown.as_deref().or(text))
            }
            Self::Unauthenticated(error) => describe_unauthenticated(*error),
            Self::Denied(_) | Self::ToolsRejected(_) => {
                (Code::CallerRejected, Some("The rules of this caller do not allow this request."))
            }
            Self::TooManyRequests(_) => (
                Code::TooManyRequests,
                Some("This caller sends more requests than it may in a minute. Try again later."),
            ),
            Self::Overloaded(text) => (Code::Overloaded, Some(text)),
            Self::Throttled(_) => (Code::UpstreamThrottled, None),
            Self::Token(error) => describe_token(error),
            Self::Forward(error) => describe_forward(error),
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::MethodRejected => StatusCode::METHOD_NOT_ALLOWED,
            // The session of an agent goes on: the error is that of one call.
            Self::ToolsRejected(Some(_)) => StatusCode::OK,
            _ => self.code().row().status,
        }
    }

    /// When to try again, in whole seconds and at least one; only for what may pass.
    pub fn retry_after(&self) -> Option<u64> {
        let after = match self {
            Self::Token(
                token::Error::Unavailable { retry_after, .. }
                | token::Error::ApplicationRejected { retry_after, .. },
            ) => *retry_after,
            Self::Throttled(after)
            | Self::TooManyRequests(after)
            | Self::Unauthenticated(Unauthenticated::TooMany(after)) => *after,
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => Duration::from_secs(1),
            _ => return None,
        };
        Some((after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1))
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

type Described = (Code, Option<&'static str>);

fn bad_request(text: &'static str) -> Described {
    (Code::BadRequest, Some(text))
}

fn describe_guard(rejection: GuardRejection) -> Described {
    match rejection {
        GuardRejection::ForeignHost
        | GuardRejection::ForeignOrigin
        | GuardRejection::UnnamedPage => (Code::CallerRejected, None),
        GuardRejection::MissingHost => bad_request("The Host header is missing."),
        GuardRejection::DuplicateHost => bad_request("The Host header was sent twice."),
        GuardRejection::MalformedHost => bad_request("The Host header is malformed."),
    }
}

/// What is wrong with a credential is not said.
fn describe_unauthenticated(error: Unauthenticated) -> Described {
    let text = match error {
        Unauthenticated::Several => {
            return bad_request(
                "The request brings more than one credential: send one key or token, in one place.",
            );
        }
        Unauthenticated::Missing => {
            "This proxy asks its callers for a credential: send a key in X-Ads-Key or as bearer, \
             or a token of a configured issuer as bearer."
        }
        Unauthenticated::Rejected | Unauthenticated::Unverified(_) => {
            "The credential is not accepted."
        }
        Unauthenticated::TooMany(_) => {
            let text = "Too many credentials from this address were not accepted. Try again later.";
            return (Code::TooManyRequests, Some(text));
        }
    };
    (Code::CallerRejected, Some(text))
}

fn describe_token(error: &token::Error) -> Described {
    let code = match error {
        token::Error::NotConnected | token::Error::ReauthorizationRequired => {
            Code::ReauthorizationRequired
        }
        token::Error::ApplicationRejected { .. } => Code::ApplicationRejected,
        token::Error::Unavailable { .. } => Code::TokenUnavailable,
        token::Error::TooManyWaiters => {
            let text = "As many requests as may wait for the account's token (token.waiters_max). \
                        Try again later.";
            return (Code::Overloaded, Some(text));
        }
    };
    (code, error.advice())
}

fn describe_forward(error: &forward::Error) -> Described {
    use forward::Error as Forward;
    match error {
        Forward::Busy => {
            let text = "No connection to Amazon came free in time (upstream.connections_max, of \
                        which one tenant or caller may have half). Try again later.";
            (Code::Overloaded, Some(text))
        }
        Forward::Body(BodyError::TooLarge) => (Code::BodyTooLarge, None),
        Forward::Body(BodyError::Incomplete) => {
            bad_request("The request body ended before its announced length.")
        }
        Forward::Body(BodyError::TooSlow) => {
            bad_request("The request body came too slowly (limits.body_min_bytes_per_sec).")
        }
        Forward::Timeout | Forward::Connect(ConnectError::Timeout) => (Code::UpstreamTimeout, None),
        Forward::Malformed(_) => {
            (Code::UpstreamUnreachable, Some("The response of the Amazon Ads API is malformed."))
        }
        Forward::Connect(_)
        | Forward::Broken(_)
        | Forward::NotReplayable
        | Forward::Body(BodyError::Superseded | BodyError::Capture) => {
            (Code::UpstreamUnreachable, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lwa::LwaFailure;
    use std::collections::HashSet;

    /// One error per variant, and per inner variant that changes the response.
    fn all() -> Vec<(Error, &'static str, u16)> {
        use forward::Error as Forward;
        let after = Duration::from_millis(1500);
        vec![
            (Error::Rejected(Code::AccountRequired), "account_required", 400),
            (Error::Rejected(Code::AccountConflict), "account_conflict", 400),
            (Error::BadRequest("x"), "bad_request", 400),
            (Error::AmbiguousFraming, "bad_request", 400),
            (Error::MethodRejected, "bad_request", 405),
            (Error::Guard(GuardRejection::MissingHost, None), "bad_request", 400),
            (Error::Guard(GuardRejection::ForeignHost, None), "caller_rejected", 403),
            (Error::Guard(GuardRejection::ForeignOrigin, None), "caller_rejected", 403),
            (Error::Unauthenticated(Unauthenticated::Missing), "caller_rejected", 403),
            (Error::Unauthenticated(Unauthenticated::Rejected), "caller_rejected", 403),
            (Error::Unauthenticated(Unauthenticated::Several), "bad_request", 400),
            (Error::ToolsRejected(None), "caller_rejected", 403),
            (Error::ToolsRejected(Some(Box::default())), "caller_rejected", 200),
            (Error::Rejected(Code::UnknownAccount), "unknown_account", 404),
            (Error::Rejected(Code::NotFound), "not_found", 404),
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
            (Error::Throttled(after), "upstream_throttled", 429),
            (Error::Rejected(Code::Draining), "draining", 503),
            (Error::Forward(Forward::Busy), "overloaded", 503),
            (Error::Forward(Forward::Timeout), "upstream_timeout", 504),
            (Error::Forward(Forward::NotReplayable), "upstream_unreachable", 502),
            (Error::Forward(Forward::Connect(ConnectError::Timeout)), "upstream_timeout", 504),
            (Error::Forward(Forward::Body(BodyError::TooLarge)), "body_too_large", 413),
            (Error::Forward(Forward::Body(BodyError::Incomplete)), "bad_request", 400),
            (Error::Rejected(Code::BodyTooLarge), "body_too_large", 413),
            (Error::Rejected(Code::HeadersTooLarge), "headers_too_large", 431),
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
        assert_eq!(seen.len(), Code::HeadersTooLarge as usize + 1, "all of the data plane");
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
        assert_eq!(Error::Rejected(Code::AccountRequired).retry_after(), None);
    }
}
