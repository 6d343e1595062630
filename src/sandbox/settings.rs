//! How the token service issues tokens.

use std::time::Duration;

/// Amazon's scopes.
const SCOPES: [&str; 5] = [
    "advertising::campaign_management",
    "cpc_advertising:campaign_management",
    "advertising::audiences",
    "advertising::test:create_account",
    "profile",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LwaSettings {
    pub token_lifetime: Duration,
    pub expires_in: ExpiresIn,
    pub rotation: Rotation,
    /// Leaves the refresh token out of the response to a refresh.
    pub omit_refresh_token: bool,
    /// How long an authorization code can be redeemed.
    pub code_lifetime: Duration,
    /// The scopes that may be asked for.
    pub scopes: Vec<String>,
    /// The return addresses registered for the applications; any on loopback if none.
    pub return_urls: Option<Vec<String>>,
    /// Whether the applications were approved for authorization codes.
    pub is_approved: bool,
    /// The scope that the consent page returns; the requested one if none.
    pub granted_scope: Option<String>,
}

/// The field `expires_in`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpiresIn {
    /// The real lifetime in whole seconds.
    Lifetime,
    /// This JSON text, whatever it is.
    Raw(String),
    Absent,
}

/// What a refresh does to the refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The same one is returned.
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
    /// The JSON text of `expires_in`.
    pub(super) fn expires_in(&self) -> Option<String> {
        match &self.expires_in {
            ExpiresIn::Lifetime => Some(self.token_lifetime.as_secs().to_string()),
            ExpiresIn::Raw(text) => Some(text.clone()),
            ExpiresIn::Absent => None,
        }
    }
}

impl Default for LwaSettings {
    /// An hour, the same refresh token each time: what Amazon does.
    fn default() -> Self {
        Self {
            token_lifetime: Duration::from_secs(3600),
            expires_in: ExpiresIn::Lifetime,
            rotation: Rotation::Off,
            omit_refresh_token: false,
            code_lifetime: Duration::from_secs(300),
            scopes: SCOPES.map(str::to_owned).to_vec(),
            return_urls: None,
            is_approved: true,
            granted_scope: None,
        }
    }
}
