//! What became of traces and metrics on their way to a collector.

use super::{encode::Exposition, hooks::loaded};
use crate::{config::telemetry::Signal, named::named};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

named! {
    /// Why a span is lost.
    pub enum SpansDropped {
        /// `OTEL_BSP_MAX_QUEUE_SIZE`.
        QueueFull = "queue_full",
        /// The collector did not take its batch.
        ExportFailed = "export_failed",
        /// The collector took the batch without it.
        Rejected = "rejected",
        /// The process ended before it was sent.
        Stopped = "stopped",
    }
}

named! {
    /// How the export of one batch ended, its retries included.
    pub enum ExportOutcome {
        Succeeded = "succeeded",
        Failed = "failed",
    }
}

/// Counters of the exporters.
#[derive(Debug, Default)]
pub struct TelemetryMetrics {
    dropped: [AtomicU64; SpansDropped::ALL.len()],
    exports: [[AtomicU64; ExportOutcome::ALL.len()]; Signal::ALL.len()],
}

impl TelemetryMetrics {
    pub fn dropped(&self, why: SpansDropped, spans: usize) {
        self.dropped[why as usize].fetch_add(spans as u64, Relaxed);
    }

    pub fn exported(&self, signal: Signal, outcome: ExportOutcome) {
        self.exports[signal as usize][outcome as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn render(&self, page: &mut Exposition) {
        page.by_label(
            "adsproxy_telemetry_spans_dropped_total",
            "Spans that no collector got.",
            "reason",
            SpansDropped::ALL.map(SpansDropped::as_str).into_iter().zip(loaded(&self.dropped)),
        );
        page.family("adsproxy_telemetry_exports_total", "Batches for a collector.");
        for (signal, counts) in Signal::ALL.iter().zip(&self.exports) {
            for (outcome, count) in ExportOutcome::ALL.iter().zip(loaded(counts)) {
                let labels = [("signal", signal.as_str()), ("outcome", outcome.as_str())];
                page.sample(&labels, count);
            }
        }
    }
}
