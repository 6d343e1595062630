//! Where events wait until they are written down: told without blocking, bounded.

use crate::{
    event::{Event, Kind},
    metrics::{Dropped, Metrics},
};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

/// The longest that somebody waits until events are written down: a disk that hangs must not hold
/// up a refresh.
const KEPT_TIMEOUT: Duration = Duration::from_secs(1);

/// Events in the order they happened.
#[derive(Debug)]
pub struct Intake {
    events: Mutex<VecDeque<Event>>,
    max: usize,
    wanted: Vec<Kind>,
    metrics: Arc<Metrics>,
    changed: Notify,
    /// How many events there were, and how many of them are written down.
    told: AtomicU64,
    kept: watch::Sender<u64>,
}

impl Intake {
    pub(super) fn new(max: usize, wanted: Vec<Kind>, metrics: Arc<Metrics>) -> Self {
        Self {
            events: Mutex::default(),
            max,
            wanted,
            metrics,
            changed: Notify::new(),
            told: AtomicU64::new(0),
            kept: watch::Sender::new(0),
        }
    }

    /// Takes note of `event`, if a hook wants it. If there is no room, the disk hangs: another one
    /// has to go.
    pub(crate) fn push(&self, event: &Event) {
        if !self.wanted.contains(&event.kind) {
            return;
        }
        let mut events = self.events.lock();
        let full = events.len() >= self.max;
        if full {
            let least = events.iter().position(|event| event.kind == Kind::TokenRefreshed);
            events.remove(least.unwrap_or(0));
        }
        events.push_back(event.clone());
        self.told.fetch_add(1, Relaxed);
        drop(events);
        self.changed.notify_one();
        if full {
            self.metrics.hooks.dropped(Dropped::OutboxFull, 1);
        }
    }

    /// Takes everything, with the number that `written` is to be told once it is on disk.
    pub(super) fn take(&self) -> (VecDeque<Event>, u64) {
        let mut events = self.events.lock();
        (std::mem::take(&mut *events), self.told.load(Relaxed))
    }

    /// Everything up to this number is written down.
    pub(super) fn written(&self, number: u64) {
        self.kept.send_replace(number);
    }

    /// Waits until what was told until now is written down, for a second at most.
    pub(crate) async fn kept(&self) {
        let told = self.told.load(Relaxed);
        let mut kept = self.kept.subscribe();
        let _ = timeout(KEPT_TIMEOUT, kept.wait_for(|number| *number >= told)).await;
    }

    /// Waits until there is something new.
    ///
    /// # Cancel safety
    /// Safe: what is there is told again.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intake() -> Intake {
        let config = crate::config::Metrics { account_labels_max: 5 };
        Intake::new(3, Kind::ALL.to_vec(), Metrics::new(&config, Arc::default()))
    }

    #[test]
    fn the_oldest_refresh_goes_first_and_then_the_oldest_of_all() {
        let intake = intake();
        for (kind, at) in [(Kind::Expiring, 1), (Kind::TokenRefreshed, 2), (Kind::Recovered, 3)] {
            intake.push(&Event::new(kind, at));
        }
        intake.push(&Event::new(Kind::Recovered, 4));
        intake.push(&Event::new(Kind::Recovered, 5));
        let left: Vec<u64> = intake.take().0.iter().map(|event| event.at).collect();
        assert_eq!(left, [3, 4, 5]);
        assert!(intake.take().0.is_empty());
    }
    #[tokio::test]
    async fn what_is_kept_is_what_was_written_down() {
        let intake = std::sync::Arc::new(intake());
        intake.kept().await;
        intake.push(&Event::new(Kind::Expiring, 1));
        let (waiter, began) = (intake.clone(), std::time::Instant::now());
        let waiting = tokio::spawn(async move { waiter.kept().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        intake.written(intake.take().1);
        waiting.await.expect("it ends");
        assert!(began.elapsed() < KEPT_TIMEOUT);
        intake.push(&Event::new(Kind::Expiring, 2));
        intake.kept().await;
        assert!(began.elapsed() >= KEPT_TIMEOUT, "a disk that hangs holds up nobody for long");
    }
}
