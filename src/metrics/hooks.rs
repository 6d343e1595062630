//! What became of events on their way to hooks.

use super::encode::Exposition;
use crate::named::named;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

named! {
    /// How one attempt at a delivery ended.
    pub enum HookOutcome {
        Delivered = "delivered",
        /// To be tried again.
        Failed = "failed",
        /// The message was given up: a dead letter.
        Dead = "dead",
    }
}

named! {
    /// Why a message is lost.
    pub enum Dropped {
        /// `outbox.messages_max`.
        OutboxFull = "outbox_full",
        /// `outbox.dead_letters_max`.
        DeadLettersFull = "dead_letters_full",
    }
}

/// Counters and gauges of the hooks.
#[derive(Debug, Default)]
pub struct HookMetrics {
    deliveries: [AtomicU64; HookOutcome::ALL.len()],
    dropped: [AtomicU64; Dropped::ALL.len()],
    write_failures: AtomicU64,
    waiting: AtomicU64,
    dead_letters: AtomicU64,
}

impl HookMetrics {
    pub fn delivery(&self, outcome: HookOutcome) {
        self.deliveries[outcome as usize].fetch_add(1, Relaxed);
    }

    pub fn dropped(&self, why: Dropped, count: u64) {
        self.dropped[why as usize].fetch_add(count, Relaxed);
    }

    /// Counts a write to the outbox that failed.
    pub fn write_failed(&self) {
        self.write_failures.fetch_add(1, Relaxed);
    }

    /// Sets how many messages wait.
    pub fn waiting(&self, count: usize) {
        self.waiting.store(count as u64, Relaxed);
    }

    /// Sets how many messages were given up and are kept.
    pub fn dead_letters(&self, count: usize) {
        self.dead_letters.store(count as u64, Relaxed);
    }

    /// A number that grows with what is counted.
    pub(super) fn events(&self) -> u64 {
        loaded(self.deliveries.iter().chain(&self.dropped)).fold(0, u64::wrapping_add)
    }

    pub(super) fn render(&self, page: &mut Exposition) {
        page.by_label(
            "adsproxy_hook_deliveries_total",
            "Attempts to deliver a message to a hook.",
            "outcome",
            HookOutcome::ALL.map(HookOutcome::as_str).into_iter().zip(loaded(&self.deliveries)),
        );
        page.by_label(
            "adsproxy_hook_dropped_total",
            "Messages to hooks that were lost.",
            "reason",
            Dropped::ALL.map(Dropped::as_str).into_iter().zip(loaded(&self.dropped)),
        );
        let failures = self.write_failures.load(Relaxed);
        let help = "Messages that the disk did not take.";
        page.single("adsproxy_hook_outbox_write_failures_total", help, failures);
        let waiting = self.waiting.load(Relaxed);
        page.single("adsproxy_hook_outbox_messages", "Messages that wait.", waiting);
        let help = "Messages that were given up and are kept.";
        page.single("adsproxy_hook_dead_letters", help, self.dead_letters.load(Relaxed));
    }
}

/// The counts of now.
pub(super) fn loaded<'a>(
    counts: impl IntoIterator<Item = &'a AtomicU64>,
) -> impl Iterator<Item = u64> {
    counts.into_iter().map(|count| count.load(Relaxed))
}
