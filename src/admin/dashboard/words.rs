//! What pages say of accounts, in plain words, and the one thing to do about each.

use crate::{
    account::{AccountView, State},
    hooks::rfc3339,
};
use std::time::Duration;

/// How urgent a state is: the first is the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Calls fail until a person acts.
    Broken,
    /// It fails, or will soon.
    Warning,
    /// Nothing is wrong, and nothing works yet.
    Idle,
    Good,
}

impl Urgency {
    /// The class of the style.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Broken => "bad",
            Self::Warning => "warn",
            Self::Idle => "idle",
            Self::Good => "good",
        }
    }
}

/// Days before the end of a consent from when on it is shown as urgent.
const CONSENT_WARN_DAYS: i64 = 30;

pub(super) fn urgency(view: &AccountView) -> Urgency {
    let ends_soon = view.consent_days_left.is_some_and(|days| days <= CONSENT_WARN_DAYS);
    match view.state {
        State::ReauthorizationRequired
        | State::ApplicationRejected
        | State::Sealed
        | State::Unreadable => Urgency::Broken,
        State::Expired => Urgency::Warning,
        _ if view.last_error.is_some() || view.is_unsaved || ends_soon => Urgency::Warning,
        State::NotConnected | State::Idle => Urgency::Idle,
        State::Fresh | State::Due | State::Refreshing => Urgency::Good,
    }
}

pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Fresh => "Connected",
        State::Due => "Connected, refresh due",
        State::Expired => "Token expired",
        State::Refreshing => "Refreshing",
        State::Idle => "Connected, no token yet",
        State::NotConnected => "Not connected",
        State::ReauthorizationRequired => "Must reconnect",
        State::ApplicationRejected => "Application rejected",
        State::Sealed => "Sealed: key missing",
        State::Unreadable => "Record unreadable",
    }
}

/// Why an account does not work, in a sentence.
pub(super) fn trouble(view: &AccountView) -> Option<String> {
    let fixed = match view.state {
        State::ReauthorizationRequired => Some(
            "Amazon accepts the advertiser's consent no more. The advertiser must consent again.",
        ),
        State::ApplicationRejected => Some(
            "Amazon rejects the client id or secret. Check the application in the configuration.",
        ),
        State::Sealed => Some("No configured key opens the record. Put the key back."),
        State::Unreadable => Some("The record cannot be read. The server's log says why."),
        State::NotConnected => Some("No advertiser has consented yet."),
        _ => None,
    };
    let unsaved =
        || view.is_unsaved.then(|| "The store does not take the newest record.".to_owned());
    let refresh = || view.last_error.as_ref().map(|why| format!("The last refresh failed: {why}."));
    let consent = || {
        let days = view.consent_days_left.filter(|days| *days <= CONSENT_WARN_DAYS)?;
        Some(format!("The consent ends in {days} days. The advertiser can consent again now."))
    };
    fixed.map(str::to_owned).or_else(refresh).or_else(unsaved).or_else(consent)
}

/// The button that helps: its text, and the page it leads to.
pub(super) fn remedy(view: &AccountView, name: &str) -> Option<(&'static str, String)> {
    let connect = |text| Some((text, format!("/dashboard/connect?account={name}")));
    match view.state {
        State::NotConnected => connect("Connect"),
        State::ReauthorizationRequired => connect("Reconnect"),
        State::Sealed | State::Unreadable | State::ApplicationRejected => None,
        _ if view.last_error.is_some() || view.state == State::Expired => {
            Some(("Refresh now", format!("/dashboard/accounts/{name}/refresh")))
        }
        _ if urgency(view) == Urgency::Warning && !view.is_unsaved => connect("Reconnect"),
        _ => None,
    }
}

/// A moment for `<time>`, and how far away it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Until {
    pub(super) at: String,
    pub(super) text: String,
}

impl Until {
    /// The end of what lasts for `left` more; `now` is the time since 1970.
    pub(super) fn of(left: Duration, now: Duration) -> Self {
        let text = match left.as_secs() {
            0 => "expired".to_owned(),
            secs if secs < 60 => format!("in {secs} s"),
            secs if secs < 7200 => format!("in {} min", secs / 60),
            secs => format!("in {} h", secs / 3600),
        };
        // The end is the same whenever it is looked at.
        Self { at: rfc3339((now + left).as_secs()), text }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::admin::dashboard) fn view(state: State) -> AccountView {
        AccountView {
            account: "acme".parse().expect("an id"),
            state,
            region: "na".parse().expect("a region"),
            application: "default".to_owned(),
            expires_in: None,
            generation: 0,
            last_error: None,
            reauthorization_required: state == State::ReauthorizationRequired,
            consent_days_left: Some(200),
            is_unsaved: false,
        }
    }

    #[test]
    fn what_is_broken_is_worse_than_what_fails_and_that_than_what_works() {
        let order =
            [State::ReauthorizationRequired, State::Expired, State::NotConnected, State::Fresh];
        assert!(order.map(|state| urgency(&view(state))).is_sorted());
        let ends_soon = AccountView { consent_days_left: Some(30), ..view(State::Fresh) };
        assert_eq!(urgency(&ends_soon), Urgency::Warning);
        assert!(trouble(&ends_soon).expect("a sentence").contains("30 days"));
        assert_eq!(trouble(&view(State::Fresh)), None);
    }

    #[test]
    fn each_trouble_has_the_button_that_helps_or_none() {
        let text = |view| remedy(&view, "acme").map(|(text, _)| text);
        assert_eq!(text(view(State::ReauthorizationRequired)), Some("Reconnect"));
        assert_eq!(text(view(State::NotConnected)), Some("Connect"));
        assert_eq!(text(view(State::Sealed)), None);
        assert_eq!(text(view(State::Fresh)), None);
        let failed = AccountView { last_error: Some("x".to_owned()), ..view(State::Due) };
        assert_eq!(text(failed), Some("Refresh now"));
    }

    #[test]
    fn a_time_that_is_left_is_short() {
        let text = |secs| Until::of(Duration::from_secs(secs), Duration::ZERO).text;
        assert_eq!([0, 59, 3600, 7200].map(text), ["expired", "in 59 s", "in 60 min", "in 2 h"]);
    }
}
