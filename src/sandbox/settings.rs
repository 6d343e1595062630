//! How the emulated services behave while no fault is switched on.

use serde_json::value::RawValue;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct LwaSettings {
    pub token_lifetime: Duration,
    pub expires_in: ExpiresIn,
    pub rotation: RefreshRotation,
    /// Leaves the refresh token out of the response to a refresh.
    pub omit_refresh_token: bool,
    /// The return addresses registered for the applications; any on loopback if none.
    pub return_urls: Option<Vec<String>>,
    /// Whether the applications were approved for authorization codes.
    pub is_approved: bool,
    /// The scope that the consent page returns; the requested one if none.
    pub granted_scope: Option<String>,
}

#[derive(Debug, Clone)]
pub enum ExpiresIn {
    /// The real lifetime in whole seconds.
    Lifetime,
    /// This JSON text, also a number that no JSON library would write.
    Raw(String),
    Absent,
}

/// What a refresh does to the refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshRotation {
    /// Nothing: the same one is returned.
    Off,
    /// A new one; the old one goes on working.
    OldLives,
    /// A new one; the old one works for so long.
    OldDiesAfter(Duration),
    /// A new one; the old one dies once it or the access token it came with is used.
    OldDiesOnceUsed,
    /// A new one; the old one is dead.
    OldDies,
}

impl LwaSettings {
    pub(super) fn expires_in(&self) -> Option<Box<RawValue>> {
        let text = match &self.expires_in {
            ExpiresIn::Lifetime => self.token_lifetime.as_secs().to_string(),
            ExpiresIn::Raw(text) => text.clone(),
            ExpiresIn::Absent => return None,
        };
        Some(RawValue::from_string(text).expect("the test's text is JSON"))
    }
}

impl Default for LwaSettings {
    /// An hour, the same refresh token each time: what Amazon does.
    fn default() -> Self {
        Self {
            token_lifetime: Duration::from_secs(3600),
            expires_in: ExpiresIn::Lifetime,
            rotation: RefreshRotation::Off,
            omit_refresh_token: false,
            return_urls: None,
            is_approved: true,
            granted_scope: None,
        }
    }
}

#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Fills `GET /v2/profiles` up to this many (Amazon's most is 5000).
    pub profiles_min: usize,
    /// JSON responses of at least this size are compressed where the caller accepts gzip.
    pub gzip_min_bytes: usize,
    /// Responds with rejections and faults before the request's body was read.
    pub responds_before_body: bool,
    /// How often a report is looked at before it is complete.
    pub report_polls: u32,
    /// The time between the events of an MCP stream.
    pub mcp_interval: Duration,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            profiles_min: 0,
            gzip_min_bytes: 1024,
            responds_before_body: false,
            report_polls: 1,
            mcp_interval: Duration::from_millis(300),
        }
    }
}
