//! One event on its way to one hook: what is kept of it, and what the receiver gets.
//!
//! A message holds no secret. The link by which an advertiser reconnects is made anew for each
//! attempt, so it is neither at rest nor too old when a message arrives late.

use crate::{clock::Now, event::Event, secret::Secret};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

/// The version of a message at rest.
pub(super) const FORMAT_VERSION: u32 = 1;

/// The type of what `adsproxy hooks test` sends.
pub const TEST_KIND: &str = "hook.test";

/// One event on its way to one hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    pub(super) v: u32,
    /// Tells it from all others, for the receiver too; the same for every attempt.
    pub id: String,
    /// The name of the hook it is for.
    pub hook: String,
    /// The event's type, such as `grant.expiring`.
    pub kind: String,
    /// When it happened, in seconds since 1970.
    pub at: u64,
    /// Whose event it is.
    pub account: Option<String>,
    /// Which LWA application is concerned.
    pub application: Option<String>,
    /// The number of the access token concerned.
    pub generation: Option<u64>,
    /// Why it happened, in a word or two; never Amazon's own text.
    pub reason: Option<String>,
    /// Days until the grant ends.
    pub days_left: Option<i64>,
    /// Orders messages: nanoseconds since 1970 when it was queued.
    pub(super) order: u64,
    /// Since when its delivery is tried, in seconds since 1970.
    pub queued_at: u64,
    /// Failed attempts so far.
    pub attempts: u32,
    /// Not to be tried again before this time, in seconds since 1970.
    pub not_before: u64,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the system's random generator failed")]
pub struct NoRandom;

impl Message {
    /// A message about `event` for the hook called `hook`.
    ///
    /// # Errors
    /// `NoRandom`.
    pub(super) fn new(event: &Event, hook: &str, now: Now) -> Result<Self, NoRandom> {
        Ok(Self {
            account: event.account.as_ref().map(|account| account.as_str().to_owned()),
            application: event.application.clone(),
            generation: event.generation,
            reason: event.reason.map(str::to_owned),
            days_left: event.days_left,
            at: event.at,
            ..Self::bare(event.kind.as_str(), hook, now)?
        })
    }

    /// What `adsproxy hooks test` sends.
    ///
    /// # Errors
    /// `NoRandom`.
    pub fn test(hook: &str, now: Now) -> Result<Self, NoRandom> {
        let reason = Some("sent by `adsproxy hooks test`".to_owned());
        Ok(Self { reason, ..Self::bare(TEST_KIND, hook, now)? })
    }

    fn bare(kind: &str, hook: &str, now: Now) -> Result<Self, NoRandom> {
        Ok(Self {
            v: FORMAT_VERSION,
            id: format!("msg_{}", random()?),
            hook: hook.to_owned(),
            kind: kind.to_owned(),
            at: now.unix(),
            account: None,
            application: None,
            generation: None,
            reason: None,
            days_left: None,
            order: u64::try_from(now.wall.as_nanos()).unwrap_or(u64::MAX),
            queued_at: now.unix(),
            attempts: 0,
            not_before: 0,
            last_error: None,
        })
    }

    /// What the receiver gets, JSON.
    #[must_use]
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

/// A name that nothing else has: 128 random bits.
pub(super) fn random() -> Result<String, NoRandom> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// A time in seconds since 1970 as RFC 3339 writes it.
#[must_use]
pub fn rfc3339(unix: u64) -> String {
    let time = i64::try_from(unix).ok().and_then(|unix| jiff::Timestamp::from_second(unix).ok());
    time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
