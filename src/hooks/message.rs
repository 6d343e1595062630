//! One event on its way to one hook: what is kept of it, and what the receiver gets.
//!
//! A message holds no secret. The link by which an advertiser reconnects is made anew for each
//! attempt, so it is neither at rest nor too old when a message arrives late.

use crate::{clock::Now, event::Event, secret::Secret};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

/// The type of what `adsproxy hooks test` sends.
const TEST_KIND: &str = "hook.test";

/// One event on its way to one hook. Times are in seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The same for every attempt: receivers drop repetitions by it.
    pub id: String,
    pub hook: String,
    /// The event's type, such as `grant.expiring`.
    pub kind: String,
    /// When it happened.
    pub at: u64,
    pub account: Option<String>,
    pub application: Option<String>,
    pub generation: Option<u64>,
    pub reason: Option<String>,
    pub days_left: Option<i64>,
    /// Orders messages: nanoseconds since 1970 when it was queued.
    pub(super) order: u64,
    /// Since when its delivery is tried.
    pub queued_at: u64,
    /// Failed attempts so far.
    pub attempts: u32,
    /// Not to be tried again before this time.
    pub not_before: u64,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// The process that delivers it; none: the next one that finds it.
    pub(super) owner: Option<String>,
    /// It was given up.
    pub is_dead: bool,
}

impl Message {
    /// A message about `event` for the hook called `hook`.
    pub(super) fn new(event: &Event, hook: &str, now: Now) -> Self {
        Self {
            account: event.account.as_ref().map(|account| account.as_str().to_owned()),
            application: event.application.clone(),
            generation: event.generation,
            reason: event.reason.map(str::to_owned),
            days_left: event.days_left,
            at: event.at,
            ..Self::bare(event.kind.as_str(), hook, now)
        }
    }

    /// What `adsproxy hooks test` sends.
    pub fn test(hook: &str, now: Now) -> Self {
        let reason = Some("sent by `adsproxy hooks test`".to_owned());
        Self { reason, ..Self::bare(TEST_KIND, hook, now) }
    }

    fn bare(kind: &str, hook: &str, now: Now) -> Self {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).expect("the system's random generator works");
        Self {
            id: format!("msg_{}", URL_SAFE_NO_PAD.encode(random)),
            hook: hook.to_owned(),
            kind: kind.to_owned(),
            at: now.unix(),
            order: u64::try_from(now.wall.as_nanos()).unwrap_or(u64::MAX),
            queued_at: now.unix(),
            ..Self::default()
        }
    }

    /// Its name in the store: names sort by the time at which messages were queued.
    pub(super) fn name(&self) -> String {
        format!("{:020}-{}", self.order, self.id)
    }

    /// What the receiver gets, JSON.
    pub fn body(&self, reconnect_url: Option<&Secret>) -> Zeroizing<Vec<u8>> {
        let mut body = json!({
            "type": self.kind,
            "timestamp": rfc3339(self.at),
            "id": self.id,
            "data": {
                "account": self.account,
                "application": self.application,
                "generation": self.generation,
                "reason": self.reason,
                "days_left": self.days_left,
            },
        });
        if let Some(url) = reconnect_url {
            body["data"]["reconnect_url"] = url.expose().into();
        }
        Zeroizing::new(serde_json::to_vec(&body).expect("texts and numbers are valid JSON"))
    }
}

/// A time in seconds since 1970 as RFC 3339 writes it.
pub fn rfc3339(unix: u64) -> String {
    let time = i64::try_from(unix).ok().and_then(|unix| jiff::Timestamp::from_second(unix).ok());
    time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
