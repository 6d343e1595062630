//! What became of events on their way to hooks.

use super::{
    encode::{Exposition, MetricKind},
    label,
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

label! {
    /// How one attempt at a delivery ended.
    HookOutcome {
        /// The receiver took it.
        Delivered = "delivered",
        /// It did not; to be tried again.
        Failed = "failed",
        /// It did not, and the message was given up: a dead letter.
        Dead = "dead",
    }
}

label! {
    /// Why a message is lost.
    Dropped {
        /// `outbox.messages_max`.
        OutboxFull = "outbox_full",
        /// `outbox.dead_letters_max`.
        DeadLettersFull = "dead_letters_full",
    }
}

/// Counters and gauges of the hooks.
#[derive(Debug, Default)]
pub struct HookMetrics {
    deliveries: [AtomicU64; HookOutcome::COUNT],
    dropped: [AtomicU64; Dropped::COUNT],
    write_failures: AtomicU64,
    waiting: AtomicU64,
    dead_letters: AtomicU64,
}

impl HookMetrics {
    /// Counts an attempt.
    pub fn delivery(&self, outcome: HookOutcome) {
        self.deliveries[outcome as usize].fetch_add(1, Relaxed);
    }

    /// Counts lost messages.
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

    pub(super) fn render(&self, page: &mut Exposition) {
        let name = "adsproxy_hook_deliveries_total";
        page.family(name, "Attempts to deliver a message to a hook.", MetricKind::Counter);
        for &outcome in HookOutcome::ALL {
            let value = self.deliveries[outcome as usize].load(Relaxed);
            page.sample(&[("outcome", outcome.as_str())], value);
        }
        page.family(
            "adsproxy_hook_dropped_total",
            "Messages to hooks that were lost.",
            MetricKind::Counter,
        );
        for &why in Dropped::ALL {
            page.sample(&[("reason", why.as_str())], self.dropped[why as usize].load(Relaxed));
        }
        let name = "adsproxy_hook_outbox_write_failures_total";
        page.family(name, "Messages that the disk did not take.", MetricKind::Counter);
        page.sample(&[], self.write_failures.load(Relaxed));
        page.family("adsproxy_hook_outbox_messages", "Messages that wait.", MetricKind::Gauge);
        page.sample(&[], self.waiting.load(Relaxed));
        let name = "adsproxy_hook_dead_letters";
        page.family(name, "Messages that were given up and are kept.", MetricKind::Gauge);
        page.sample(&[], self.dead_letters.load(Relaxed));
    }
}
