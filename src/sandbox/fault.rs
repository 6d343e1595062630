//! What is switched on in the way of requests: faults that they meet, gates that park them.

use super::text::FormPairs;
use crate::named::named;
use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use std::{collections::VecDeque, fmt::Debug, time::Duration};
use tokio::sync::watch;

/// For how many requests a fault shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
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

impl<F: Clone + Debug> Faults<F> {
    pub fn add(&self, fault: F, times: Times) {
        if times != Times::Next(0) {
            self.0.lock().push_back((fault, times));
        }
    }

    pub fn clear(&self) {
        self.0.lock().clear();
    }

    /// The fault that the request at hand meets.
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

    pub(super) fn describe(&self) -> Vec<String> {
        let queue = self.0.lock();
        queue.iter().map(|(fault, times)| format!("{fault:?}, {times:?}")).collect()
    }
}

/// A response spelled out by a test.
#[derive(Debug, Clone)]
pub struct Scripted {
    pub status: StatusCode,
    /// Fields, `Content-Type` among them.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// What the token endpoint can do wrong. `retry_after` is in seconds.
#[derive(Debug, Clone)]
pub enum LwaFault {
    InvalidGrant,
    InvalidClient,
    UnsupportedGrantType,
    UnauthorizedClient,
    ServerError,
    /// 503 with an HTML page.
    Unavailable {
        retry_after: Option<u64>,
    },
    Throttled {
        retry_after: Option<u64>,
    },
    /// 400 whose `error_description` repeats what was sent: token or code, verifier, client secret.
    Echo,
    /// Takes the request and sends no response.
    Hang,
    /// Late, but good.
    Slow(Duration),
    /// Closes the connection before anything is issued.
    Drop,
    /// Issues (and rotates), then closes the connection: the response is lost.
    LoseResponse,
    /// 307 to this place.
    Redirect(String),
    /// 200 with a body of 64 MiB.
    Oversized,
    /// 200 with CR and LF inside the access token.
    CrlfInToken,
    /// 200 without an access token.
    NoToken,
    Respond(Scripted),
}

/// What the API can do wrong. `retry_after` is in seconds.
#[derive(Debug, Clone)]
pub enum ApiFault {
    /// 401 `{"message":"Unauthorized"}`, the API gateway's spurious one.
    SpuriousUnauthorized,
    /// 401 `Authentication failed` although the token is good.
    AuthenticationFailed,
    Permission(Permission),
    Throttled {
        retry_after: Option<u64>,
    },
    /// 429 whose `Retry-After` is a date so many seconds from now.
    ThrottledUntil {
        secs: u64,
    },
    /// 429 for a missing permission: no wait clears it.
    AccessDenied,
    /// 429 with the HTML page of the gateway in front of the MCP server.
    GatewayHtml,
    ServerError,
    Unavailable,
    /// Takes the request and sends no response.
    Hang,
    /// Late, but good.
    Slow(Duration),
    /// Closes the connection without a response.
    Drop,
    /// Announces a body of 1,000 bytes, sends half of it, closes the connection.
    Truncate,
    Respond(Scripted),
}

named! {
    /// The 401s about permissions, in Amazon's words for scope `123`: no new token helps against
    /// them.
    pub enum Permission {
        ScopeMissing = "Scope header is missing",
        /// The scope is no profile at all.
        NoAdvertiser = "No matching advertiser found for scope",
        /// The scope is a profile of another advertiser.
        ScopeDenied = "Not authorized to access scope 123",
        /// A write by a user with read access.
        ViewerRole = "Not authorized to manage this profile. Please check permissions and consent \
                      from the advertiser",
    }
}

/// Faults by their names over HTTP; the query of a control request has the rest.
pub(super) type NamedFaults<F> = &'static [(&'static str, fn(&FormPairs) -> F)];

pub(super) const LWA_FAULTS: NamedFaults<LwaFault> = &[
    ("down", |query| LwaFault::Unavailable { retry_after: query.number("retry_after") }),
    ("throttled", |query| LwaFault::Throttled { retry_after: query.number("retry_after") }),
    ("server-error", |_| LwaFault::ServerError),
    ("invalid-grant", |_| LwaFault::InvalidGrant),
    ("invalid-client", |_| LwaFault::InvalidClient),
    ("unsupported-grant-type", |_| LwaFault::UnsupportedGrantType),
    ("unauthorized-client", |_| LwaFault::UnauthorizedClient),
    ("echo", |_| LwaFault::Echo),
    ("hang", |_| LwaFault::Hang),
    ("slow", |query| LwaFault::Slow(delay(query))),
    ("drop", |_| LwaFault::Drop),
    ("lose-response", |_| LwaFault::LoseResponse),
    ("redirect", |query| LwaFault::Redirect(query.get("to").unwrap_or("/_elsewhere").to_owned())),
    ("oversized", |_| LwaFault::Oversized),
    ("crlf-in-token", |_| LwaFault::CrlfInToken),
    ("no-token", |_| LwaFault::NoToken),
];

pub(super) const API_FAULTS: NamedFaults<ApiFault> = &[
    ("spurious-401", |_| ApiFault::SpuriousUnauthorized),
    ("authentication-failed", |_| ApiFault::AuthenticationFailed),
    ("scope-missing", |_| ApiFault::Permission(Permission::ScopeMissing)),
    ("no-advertiser", |_| ApiFault::Permission(Permission::NoAdvertiser)),
    ("scope-denied", |_| ApiFault::Permission(Permission::ScopeDenied)),
    ("viewer-role", |_| ApiFault::Permission(Permission::ViewerRole)),
    ("throttled", |query| ApiFault::Throttled { retry_after: query.number("retry_after") }),
    ("throttled-until", |query| ApiFault::ThrottledUntil {
        secs: query.number("retry_after").unwrap_or(2),
    }),
    ("throttled-denied", |_| ApiFault::AccessDenied),
    ("throttled-html", |_| ApiFault::GatewayHtml),
    ("server-error", |_| ApiFault::ServerError),
    ("unavailable", |_| ApiFault::Unavailable),
    ("hang", |_| ApiFault::Hang),
    ("slow", |query| ApiFault::Slow(delay(query))),
    ("drop", |_| ApiFault::Drop),
    ("truncate", |_| ApiFault::Truncate),
];

pub(super) fn names<F>(faults: NamedFaults<F>) -> Vec<&'static str> {
    faults.iter().map(|(name, _)| *name).collect()
}

/// Queues the fault that a control request names.
pub(super) fn add<F: Clone + Debug>(
    queue: &Faults<F>,
    faults: NamedFaults<F>,
    query: &FormPairs,
) -> Result<(), String> {
    let fault = faults.iter().find(|(name, _)| query.get("fault") == Some(name));
    let (_, fault) =
        fault.ok_or_else(|| format!("fault is one of {}", names(faults).join(", ")))?;
    let times = match query.get("times") {
        None => Times::Next(1),
        Some("forever") => Times::Forever,
        Some(number) => Times::Next(number.parse().map_err(|_| "times is a number or forever")?),
    };
    queue.add(fault(query), times);
    Ok(())
}

fn delay(query: &FormPairs) -> Duration {
    Duration::from_millis(query.number("ms").unwrap_or(2000))
}

/// A gate on the way of requests. Open unless held.
#[derive(Debug, Default)]
pub struct RequestGate(watch::Sender<Passage>);

#[derive(Debug, Default)]
struct Passage {
    held: bool,
    let_through: usize,
    waiting: usize,
}

impl RequestGate {
    /// Parks every request that arrives from now on.
    pub fn hold(&self) {
        self.0.send_modify(|passage| passage.held = true);
    }

    /// Lets everything through that waits or will come.
    pub fn release(&self) {
        self.0.send_modify(|passage| (passage.held, passage.let_through) = (false, 0));
    }

    /// Lets `count` requests through and goes on holding the others.
    pub fn let_through(&self, count: usize) {
        self.0.send_modify(|passage| passage.let_through += count);
    }

    pub fn waiting(&self) -> usize {
        self.0.borrow().waiting
    }

    /// Waits until at least `count` requests are parked.
    pub async fn until_waiting(&self, count: usize) {
        // The sender is `self`: the channel does not close meanwhile.
        drop(self.0.subscribe().wait_for(|passage| passage.waiting >= count).await);
    }

    pub(super) async fn pass(&self) {
        if !self.0.borrow().held {
            return;
        }
        // Before the first look, so that no change falls between look and wait.
        let mut changes = self.0.subscribe();
        let _parked = Parked::at(self);
        while !self.is_let_through() {
            drop(changes.changed().await);
        }
    }

    fn is_let_through(&self) -> bool {
        let used_one = self.0.send_if_modified(|passage| {
            let may_pass = passage.held && passage.let_through > 0;
            passage.let_through -= usize::from(may_pass);
            may_pass
        });
        used_one || !self.0.borrow().held
    }
}

/// Counts a parked request, also when its connection goes away meanwhile.
struct Parked<'a>(&'a RequestGate);

impl<'a> Parked<'a> {
    fn at(gate: &'a RequestGate) -> Self {
        gate.0.send_modify(|passage| passage.waiting += 1);
        Self(gate)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|passage| passage.waiting -= 1);
    }
}
