//! What an account is to readers: its one state and its one view, for `/status`, metrics and
//! commands alike.

use crate::id::{AccountId, Region};
use std::time::Duration;

/// The state of an account: one word everywhere, in `/status`, metrics and commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Fresh,
    /// A good token inside the refresh buffer.
    Due,
    Expired,
    /// A refresh is under way and there is no good token.
    Refreshing,
    /// A grant, and no token yet.
    Idle,
    NotConnected,
    /// The grant is dead: the account must be connected again.
    ReauthorizationRequired,
    ApplicationRejected,
    /// The record cannot be opened with the configured keys.
    Sealed,
    /// The record cannot be read: its permissions or its content are wrong.
    Unreadable,
}

impl State {
    /// Every state, for metrics that show all of them.
    pub const ALL: [Self; 10] = [
        Self::Fresh,
        Self::Due,
        Self::Expired,
        Self::Refreshing,
        Self::Idle,
        Self::NotConnected,
        Self::ReauthorizationRequired,
        Self::ApplicationRejected,
        Self::Sealed,
        Self::Unreadable,
    ];

    /// The state's name in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Due => "due",
            Self::Expired => "expired",
            Self::Refreshing => "refreshing",
            Self::Idle => "idle",
            Self::NotConnected => "not_connected",
            Self::ReauthorizationRequired => "reauthorization_required",
            Self::ApplicationRejected => "application_rejected",
            Self::Sealed => "sealed",
            Self::Unreadable => "unreadable",
        }
    }

    /// Whether the account must be connected before it has a token again.
    pub fn needs_login(self) -> bool {
        matches!(self, Self::NotConnected | Self::ReauthorizationRequired)
    }

    /// Whether only a change of the record, or of who may read it, can help.
    pub fn needs_record(self) -> bool {
        self.needs_login() || matches!(self, Self::Sealed | Self::Unreadable)
    }
}

/// What `/status`, commands and the per-account gauges show of an account.
#[derive(Debug, Clone)]
pub struct AccountView {
    pub account: AccountId,
    pub state: State,
    /// The default region.
    pub region: Region,
    pub application: String,
    /// Until the access token expires; zero once it has, none if there is no token.
    pub expires_in: Option<Duration>,
    pub generation: u64,
    /// Why the last refresh failed; never LWA's own words.
    pub last_error: Option<String>,
    /// A person must connect the account again.
    pub reauthorization_required: bool,
    /// Days until the grant ends, the current one included; none if its consent is not dated.
    pub consent_days_left: Option<i64>,
    /// The store does not take its newest record, which is in memory only.
    pub is_unsaved: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_word_of_its_own() {
        let mut words = State::ALL.map(State::as_str).to_vec();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), State::ALL.len());
    }
}
