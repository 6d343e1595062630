//! Faults that the emulated services show when told to.

use super::form::Form;
use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use std::{collections::VecDeque, time::Duration};

/// How often a fault shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// For the next so many requests.
    Next(u32),
    /// Until cleared.
    Forever,
}

/// A queue of faults: each request meets the first one that is not used up.
#[derive(Debug)]
pub struct Faults<F>(Mutex<VecDeque<(F, Times)>>);

impl<F> Default for Faults<F> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<F: Clone + std::fmt::Debug> Faults<F> {
    /// Queues `fault` behind those already there.
    pub fn add(&self, fault: F, times: Times) {
        if times != Times::Next(0) {
            self.0.lock().push_back((fault, times));
        }
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    /// The fault the request at hand meets.
    pub(super) fn take(&self) -> Option<F> {
        let mut queue = self.0.lock();
        let (fault, times) = queue.front_mut()?;
        let fault = fault.clone();
        match times {
            Times::Next(1) => drop(queue.pop_front()),
            Times::Next(left) => *left -= 1,
            Times::Forever => {}
        }
        Some(fault)
    }

    /// The queue for people.
    pub(super) fn describe(&self) -> Vec<String> {
        let queue = self.0.lock();
        queue.iter().map(|(fault, times)| format!("{fault:?}, {times:?}")).collect()
    }
}

/// An answer spelled out by a test.
#[derive(Debug, Clone)]
pub struct Scripted {
    /// The status.
    pub status: StatusCode,
    /// Fields, `Content-Type` among them.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// What the token endpoint can do wrong.
#[derive(Debug, Clone)]
pub enum LwaFault {
    /// 400 `invalid_grant`.
    InvalidGrant,
    /// 401 `invalid_client`.
    InvalidClient,
    /// 400 `unsupported_grant_type`.
    UnsupportedGrantType,
    /// 400 `unauthorized_client`.
    UnauthorizedClient,
    /// 500 `ServerError`.
    ServerError,
    /// 503 with an HTML page.
    Unavailable {
        /// `Retry-After`, seconds.
        retry_after: Option<u64>,
    },
    /// 429.
    Throttled {
        /// `Retry-After`, seconds.
        retry_after: Option<u64>,
    },
    /// 400 whose `error_description` repeats what was sent: token or code, verifier, client secret.
    Echo,
    /// Takes the request and never answers.
    Hang,
    /// Answers properly, but late.
    Slow(Duration),
    /// Closes the connection before anything is issued.
    Drop,
    /// Issues (and rotates), then closes the connection: the answer is lost.
    LoseAnswer,
    /// 307 to this place.
    Redirect(String),
    /// 200 with a body of 64 MiB.
    Oversized,
    /// 200 with CR and LF inside the access token.
    CrlfInToken,
    /// 200 without an access token.
    NoToken,
    /// Any other answer.
    Answer(Scripted),
}

/// What the API can do wrong.
#[derive(Debug, Clone)]
pub enum ApiFault {
    /// 401 `{"message":"Unauthorized"}`, the API gateway's spurious one.
    SpuriousUnauthorized,
    /// 401 `Authentication failed` although the token is good.
    AuthenticationFailed,
    /// 401 with one of Amazon's permission texts.
    Permission(Permission),
    /// 429.
    Throttled {
        /// `Retry-After`, seconds.
        retry_after: Option<u64>,
    },
    /// 500.
    ServerError,
    /// 503.
    Unavailable,
    /// Takes the request and never answers.
    Hang,
    /// Answers properly, but late.
    Slow(Duration),
    /// Closes the connection without an answer.
    Drop,
    /// Announces a body of 1,000 bytes, sends half of it, closes the connection.
    Truncate,
    /// Any other answer.
    Answer(Scripted),
}

/// The permission 401s: no new token helps against them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// No `Amazon-Advertising-API-Scope`.
    ScopeMissing,
    /// The scope is no profile at all.
    NoAdvertiser,
    /// The scope is a profile of somebody else.
    ScopeDenied,
    /// A write by a person who may only look.
    ViewerRole,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::ScopeMissing, Self::NoAdvertiser, Self::ScopeDenied, Self::ViewerRole];

    /// Amazon's text, for scope `123`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::ScopeMissing => "Scope header is missing",
            Self::NoAdvertiser => "No matching advertiser found for scope",
            Self::ScopeDenied => "Not authorized to access scope 123",
            Self::ViewerRole => {
                "Not authorized to manage this profile. Please check permissions and consent \
                 from the advertiser"
            }
        }
    }
}

/// Names of the token endpoint's faults over HTTP.
pub(super) const LWA_FAULTS: &[&str] = &[
    "down",
    "throttled",
    "server-error",
    "invalid-grant",
    "invalid-client",
    "unsupported-grant-type",
    "unauthorized-client",
    "echo",
    "hang",
    "slow",
    "drop",
    "lose-answer",
    "redirect",
    "oversized",
    "crlf-in-token",
    "no-token",
];

/// Names of the API's faults over HTTP.
pub(super) const API_FAULTS: &[&str] = &[
    "spurious-401",
    "authentication-failed",
    "scope-missing",
    "no-advertiser",
    "scope-denied",
    "viewer-role",
    "throttled",
    "server-error",
    "unavailable",
    "hang",
    "slow",
    "drop",
    "truncate",
];

/// Reads `times` of a control request: a number, `forever`, or nothing for once.
pub(super) fn times(query: &Form) -> Option<Times> {
    match query.get("times") {
        None => Some(Times::Next(1)),
        Some("forever") => Some(Times::Forever),
        Some(number) => number.parse().ok().map(Times::Next),
    }
}

impl LwaFault {
    /// Reads the fault a control request names.
    pub(super) fn parse(query: &Form) -> Option<Self> {
        let retry_after = query.get("retry_after").and_then(|text| text.parse().ok());
        Some(match query.get("fault")? {
            "down" => Self::Unavailable { retry_after },
            "throttled" => Self::Throttled { retry_after },
            "server-error" => Self::ServerError,
            "invalid-grant" => Self::InvalidGrant,
            "invalid-client" => Self::InvalidClient,
            "unsupported-grant-type" => Self::UnsupportedGrantType,
            "unauthorized-client" => Self::UnauthorizedClient,
            "echo" => Self::Echo,
            "hang" => Self::Hang,
            "slow" => Self::Slow(Duration::from_millis(query.number("ms", 2000))),
            "drop" => Self::Drop,
            "lose-answer" => Self::LoseAnswer,
            "redirect" => Self::Redirect(query.get("to").unwrap_or("/_elsewhere").to_owned()),
            "oversized" => Self::Oversized,
            "crlf-in-token" => Self::CrlfInToken,
            "no-token" => Self::NoToken,
            _ => return None,
        })
    }
}

impl ApiFault {
    /// Reads the fault a control request names.
    pub(super) fn parse(query: &Form) -> Option<Self> {
        let retry_after = query.get("retry_after").and_then(|text| text.parse().ok());
        Some(match query.get("fault")? {
            "spurious-401" => Self::SpuriousUnauthorized,
            "authentication-failed" => Self::AuthenticationFailed,
            "scope-missing" => Self::Permission(Permission::ScopeMissing),
            "no-advertiser" => Self::Permission(Permission::NoAdvertiser),
            "scope-denied" => Self::Permission(Permission::ScopeDenied),
            "viewer-role" => Self::Permission(Permission::ViewerRole),
            "throttled" => Self::Throttled { retry_after },
            "server-error" => Self::ServerError,
            "unavailable" => Self::Unavailable,
            "hang" => Self::Hang,
            "slow" => Self::Slow(Duration::from_millis(query.number("ms", 2000))),
            "drop" => Self::Drop,
            "truncate" => Self::Truncate,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_is_a_fault_and_no_other_is() {
        let query = |name: &str| Form::parse(&format!("fault={name}"));
        assert!(LWA_FAULTS.iter().all(|name| LwaFault::parse(&query(name)).is_some()));
        assert!(API_FAULTS.iter().all(|name| ApiFault::parse(&query(name)).is_some()));
        assert!(LwaFault::parse(&query("spurious-401")).is_none());
        assert!(ApiFault::parse(&query("")).is_none());
    }

    #[test]
    fn faults_show_in_order_and_wear_off() {
        let faults = Faults::default();
        faults.add('a', Times::Next(2));
        faults.add('z', Times::Next(0));
        faults.add('b', Times::Forever);
        let met: Vec<_> = (0..5).filter_map(|_| faults.take()).collect();
        assert_eq!(met, ['a', 'a', 'b', 'b', 'b']);
        faults.clear();
        assert_eq!(faults.take(), None);
    }
}
