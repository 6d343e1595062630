//! Writes down what happens to grants and tokens, without holding it up.

use super::{Action, Actor, Audit, Entry, tally};
use crate::event::{Event, Events, Kind};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Entries that may wait to be written; beyond it they are lost, and counted.
const WAITING_MAX: usize = 4096;
/// Entries written with one sync.
const BATCH_MAX: usize = 256;

/// The way to the log for what happens. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder(Option<mpsc::Sender<Message>>);

#[derive(Debug)]
enum Message {
    Entry(Entry),
    /// Everything before it is to be written, then this is sent.
    Settle(oneshot::Sender<()>),
}

impl Recorder {
    /// Writes down every event from now on, on `control`, as what `actor` caused.
    #[must_use]
    pub fn start(audit: &Audit, events: &Events, actor: Actor, control: &Handle) -> Self {
        if audit.path().is_none() {
            return Self(None);
        }
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        control.spawn(write(audit.clone(), receiver, lost.clone()));
        let (listener, audit) = (sender.clone(), audit.clone());
        events.subscribe(move |event| {
            if listener.try_send(Message::Entry(entry(actor.clone(), event))).is_err() {
                lost.fetch_add(1, Relaxed);
                audit.lost(1);
            }
        });
        Self(Some(sender))
    }

    /// Waits until all that has happened so far is written, or could not be.
    ///
    /// # Cancel safety
    /// Safe: what was to be written still is.
    pub async fn settle(&self) {
        let Some(sender) = &self.0 else { return };
        let (written, waiting) = oneshot::channel();
        if sender.send(Message::Settle(written)).await.is_ok() {
            let _ = waiting.await;
        }
    }
}

async fn write(audit: Audit, mut messages: mpsc::Receiver<Message>, lost: Arc<AtomicU64>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    loop {
        match timeout(tally::INTERVAL, messages.recv_many(&mut batch, BATCH_MAX)).await {
            Ok(0) => return,
            Ok(_) => audit.write_counted(false).await,
            Err(_) => {
                audit.write_counted(false).await;
                continue;
            }
        }
        let mut entries = Vec::new();
        let mut waiting = Vec::new();
        for message in batch.drain(..) {
            match message {
                Message::Entry(entry) => entries.push(entry),
                Message::Settle(written) => waiting.push(written),
            }
        }
        if !entries.is_empty() {
            // A hole is reported as soon as there is something to write to.
            let missing = lost.swap(0, Relaxed);
            let hole = Entry::new(Actor::Server, Action::AuditLost).count(missing);
            let count = entries.len() as u64;
            let hole = (missing > 0).then_some(hole).into_iter();
            let written = audit.write_all(hole.chain(entries).collect()).await;
            if written.is_err() {
                lost.fetch_add(missing + count, Relaxed);
            }
        }
        for written in waiting {
            audit.write_counted(true).await;
            let _ = written.send(());
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
    match event.kind {
        Kind::TokenRefreshed | Kind::Recovered => entry,
        Kind::Expiring => {
            entry.count(event.days_left.and_then(|days| days.try_into().ok()).unwrap_or(0))
        }
        Kind::ApplicationRejected => {
            let entry = entry.failed(event.reason.unwrap_or("unknown"));
            match &event.application {
                Some(application) => entry.about(application),
                None => entry,
            }
        }
        Kind::TokenRefreshFailed | Kind::ReauthorizationRequired | Kind::StoreDegraded => {
            entry.failed(event.reason.unwrap_or("unknown"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{chain::Line, tests::audit};
    use std::fs;

    fn event(kind: Kind) -> Event {
        let account = Some("acme".parse().expect("an alias"));
        let application = Some("default".to_owned());
        let (generation, reason) = (Some(7), Some("invalid_grant"));
        Event {
            account,
            application,
            generation,
            reason,
            days_left: Some(12),
            request_id: Some("r-1".to_owned()),
            ..Event::new(kind, 1)
        }
    }

    #[tokio::test]
    async fn every_event_becomes_an_entry_in_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let audit = audit(dir.path(), &["k1"], 0, 0);
        let events = Events::default();
        let recorder = Recorder::start(&audit, &events, Actor::Server, &Handle::current());
        for kind in Kind::ALL {
            events.emit(&event(kind));
        }
        recorder.settle().await;
        let text = fs::read_to_string(dir.path().join("audit.jsonl")).expect("a log");
        let lines = text.lines().skip(1).map(|line| Line::parse(line.as_bytes()).expect("a line"));
        let seen: Vec<String> = lines
            .map(|line| {
                assert_eq!(line.body.account.as_deref(), Some("acme"));
                assert_eq!(line.body.request_id.as_deref(), Some("r-1"));
                let reason = line.body.reason.as_deref().unwrap_or("-");
                format!("{} {} {reason}", line.body.action, line.body.outcome)
            })
            .collect();
        assert_eq!(
            seen,
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

    #[tokio::test]
    async fn a_hole_is_told_once_the_log_can_be_written_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("log");
        let audit = audit(&place, &["k1"], 0, 0);
        // A file where the directory should be.
        fs::write(&place, "").expect("written");
        let events = Events::default();
        let recorder = Recorder::start(&audit, &events, Actor::Server, &Handle::current());
        for _ in 0..3 {
            events.emit(&event(Kind::TokenRefreshed));
            recorder.settle().await;
        }
        fs::remove_file(&place).expect("removed");
        events.emit(&event(Kind::Recovered));
        recorder.settle().await;
        let text = fs::read_to_string(place.join("audit.jsonl")).expect("a log");
        let hole = text.lines().nth(1).expect("a second line");
        assert!(hole.contains("audit.lost") && hole.contains("\"count\":3"), "{hole}");
        assert!(text.lines().nth(2).expect("a third line").contains("grant.recovered"));
    }
}
