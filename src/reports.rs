//! Where a change of a grant or token is reported: to the audit log, to subscribers within the
//! program and to the hooks' outbox, in this order.
//!
//! Reporting holds up no refresh: entries of the audit log are queued, a subscriber only takes note,
//! and the outbox is waited for where a mark in the store must not be older than it, for a second.

use crate::{
    audit::{Action, Actor, Audit, Entry},
    event::{Event, Events, Kind},
    hooks::{Message, Outbox},
};
use std::sync::{Arc, OnceLock};
use tokio::runtime::Handle;

/// Cheap to clone; all clones report to the same places.
#[derive(Clone, Debug)]
pub struct Reports {
    audit: Audit,
    /// The actor of what is reported.
    actor: Actor,
    control: Handle,
    pub(crate) events: Events,
    outbox: Arc<OnceLock<Arc<Outbox>>>,
}

impl Reports {
    /// Reports to `audit` what `actor` causes; `control` writes it.
    pub fn new(audit: Audit, actor: Actor, control: Handle) -> Self {
        Self { audit, actor, control, events: Events::default(), outbox: Arc::default() }
    }

    /// Reports to hooks, too, from now on.
    pub(crate) fn to_hooks(&self, outbox: Arc<Outbox>) {
        // There is one outbox per engine; a second one would send everything twice.
        let _ = self.outbox.set(outbox);
    }

    /// The latest `count` messages to hooks about `account`, and whether each still waits; none where
    /// there are no hooks.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "only pages ask for it"))]
    pub(crate) fn to_hooks_about(
        &self,
        account: &str,
        count: usize,
    ) -> Option<Vec<(Message, bool)>> {
        Some(self.outbox.get()?.of_account(account, count))
    }

    /// Reports `event` without waiting for anything.
    pub fn note(&self, event: &Event) {
        self.audit.queue(entry(self.actor.clone(), event), &self.control);
        self.events.emit(event);
        if let Some(outbox) = self.outbox.get() {
            outbox.push(event);
        }
    }

    /// Reports `event`; the hooks' outbox has it on disk on return, or the disk hangs or is full.
    pub async fn report(&self, event: &Event) {
        self.note(event);
        if let Some(outbox) = self.outbox.get() {
            outbox.flush().await;
        }
    }
}

/// What is written of `event`.
fn entry(actor: Actor, event: &Event) -> Entry {
    let action = match event.kind {
        Kind::TokenRefreshed | Kind::TokenRefreshFailed => Action::TokenRefresh,
        Kind::ReauthorizationRequired => Action::GrantReauthorizationRequired,
        Kind::Recovered => Action::GrantRecovered,
        Kind::Expiring => Action::GrantExpiring,
        Kind::ApplicationRejected => Action::ApplicationRejected,
        Kind::StoreDegraded => Action::StoreDegraded,
    };
    let mut entry = Entry::new(actor, action);
    entry.account.clone_from(&event.account);
    entry.generation = event.generation;
    if let Some(id) = &event.request_id {
        entry = entry.request_id(id);
    }
    if let Some(id) = &event.server_request_id {
        entry = entry.server_request_id(id);
    }
    if let (Kind::ApplicationRejected, Some(application)) = (event.kind, &event.application) {
        entry = entry.about(application);
    }
    match event.kind {
        Kind::TokenRefreshed | Kind::Recovered => entry,
        Kind::Expiring => entry.count(event.days_left.unwrap_or(0).try_into().unwrap_or(0)),
        _ => entry.failed(event.reason.unwrap_or("unknown")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn every_event_becomes_an_entry_in_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let audit = crate::audit::tests::audit(dir.path(), &["k1"], 0, 0);
        let reports = Reports::new(audit.clone(), Actor::Server, Handle::current());
        for kind in Kind::ALL {
            reports.note(&Event {
                account: Some("acme".parse().expect("an alias")),
                application: Some("default".to_owned()),
                generation: Some(7),
                reason: Some("invalid_grant"),
                days_left: Some(12),
                request_id: Some("r-1".to_owned()),
                server_request_id: Some("s-1".to_owned()),
                ..Event::new(kind, 1)
            });
        }
        audit.flush().await;
        let text = fs::read_to_string(dir.path().join("audit.jsonl")).expect("a log");
        let seen = text.lines().skip(1).map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_eq!((&line["account"], &line["request_id"]), (&"acme".into(), &"r-1".into()));
            assert_eq!(line["server_request_id"], "s-1");
            let reason = line["reason"].as_str().unwrap_or("-").to_owned();
            [line["action"].as_str(), line["outcome"].as_str()].map(Option::unwrap).join(" ")
                + " "
                + &reason
        });
        assert_eq!(
            seen.collect::<Vec<_>>(),
            [
                "token.refresh ok -",
                "token.refresh failed invalid_grant",
                "grant.reauthorization_required failed invalid_grant",
                "grant.recovered ok -",
                "grant.expiring ok -",
                "application.rejected failed invalid_grant",
                "store.degraded failed invalid_grant",
            ]
        );
    }
}
