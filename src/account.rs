//! What an account is to readers: its one state and its one view, for `/status`, metrics and
//! commands alike.

use crate::{
    id::{AccountId, Region},
    named::named,
};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use std::time::Duration;

named! {
    /// The state of an account: one word everywhere, in `/status`, metrics and commands.
    #[derive(Serialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum State {
        Fresh = "fresh",
        /// A good token inside the refresh buffer.
        Due = "due",
        Expired = "expired",
        /// A refresh is under way and there is no good token.
        Refreshing = "refreshing",
        /// A grant, and no token yet.
        Idle = "idle",
        NotConnected = "not_connected",
        /// The grant is dead: the account must be connected again.
        ReauthorizationRequired = "reauthorization_required",
        ApplicationRejected = "application_rejected",
        /// The record cannot be opened with the configured keys.
        Sealed = "sealed",
        /// The record cannot be read: its permissions or its content are wrong.
        Unreadable = "unreadable",
    }
}

impl State {
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
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AccountView {
    pub account: AccountId,
    pub state: State,
    /// The default region.
    pub region: Region,
    pub application: String,
    /// Until the access token expires; zero once it has, none if there is no token.
    #[serde(rename = "expires_in_secs", serialize_with = "whole_seconds")]
    #[schemars(with = "Option<u64>")]
    pub expires_in: Option<Duration>,
    pub generation: u64,
    /// Why the last refresh failed; never LWA's own words.
    pub last_error: Option<String>,
    /// A person must connect the account again.
    pub reauthorization_required: bool,
    /// Days until the grant ends, the current one included; none if its consent is not dated.
    pub consent_days_left: Option<i64>,
    /// The store does not take its newest record, which is in memory only.
    #[serde(rename = "unsaved")]
    pub is_unsaved: bool,
}

fn whole_seconds<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs()).serialize(to)
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
        for state in State::ALL {
            assert_eq!(serde_json::to_value(state).expect("a text"), state.as_str());
        }
    }
}
