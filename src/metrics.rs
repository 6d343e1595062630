//! Counters, gauges and histograms, and their text for Prometheus (exposition format 0.0.4).
//!
//! Written by hand: each worker counts in a block of its own, without atomic read-modify-write
//! and without sharing a cache line, and the blocks are summed on request. The libraries
//! keep one shared registry of shared counters; the official one also speaks OpenMetrics only.

mod encode;
mod hooks;
mod process;
mod worker;

pub use hooks::{Dropped, HookMetrics, HookOutcome};
pub use worker::{Limit, ReplayOutcome, Upstream401, WorkerMetrics};

use crate::{account::AccountView, config};
use encode::{Exposition, MetricKind};
use parking_lot::Mutex;
use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use worker::{CODE_CLASSES, Histogram};

/// Defines an enum whose variants are the values of a label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            pub(super) const ALL: &[Self] = &[$(Self::$variant),+];
            pub(super) const COUNT: usize = Self::ALL.len();

            /// The label's value.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}
use label;

label! {
    /// What started a token refresh.
    Trigger {
        /// A request inside the refresh buffer, or with an expired token.
        Request = "request",
        /// An upstream 401.
        Forced = "forced",
        /// The background refresher.
        Background = "background",
    }
}

label! {
    /// How a token refresh ended.
    RefreshOutcome {
        /// A new access token.
        Succeeded = "succeeded",
        /// LWA could not be reached or did not answer well; to be tried again.
        Transient = "transient",
        /// The grant is dead.
        ReauthorizationRequired = "reauthorization_required",
        /// Client id or secret are wrong.
        ApplicationRejected = "application_rejected",
        /// The rotated grant could not be stored.
        StoreFailed = "store_failed",
    }
}

/// All counters of the process.
#[derive(Debug)]
pub struct Metrics {
    account_labels_max: usize,
    log_dropped: Arc<AtomicU64>,
    workers: Mutex<Vec<Arc<WorkerMetrics>>>,
    refreshes: [[AtomicU64; RefreshOutcome::COUNT]; Trigger::COUNT],
    refresh_duration: Mutex<Histogram>,
    store_writes: [AtomicU64; 2],
    audit_writes: [AtomicU64; 2],
    lwa_waits: AtomicU64,
    /// What became of events on their way to hooks.
    pub hooks: HookMetrics,
}

impl Metrics {
    /// Begins at zero. `log_dropped` is counted by the log (`Log::dropped`).
    #[must_use]
    pub fn new(config: &config::MetricsConfig, log_dropped: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self {
            account_labels_max: config.account_labels_max,
            log_dropped,
            workers: Mutex::default(),
            refreshes: array::from_fn(|_| array::from_fn(|_| AtomicU64::default())),
            refresh_duration: Mutex::default(),
            store_writes: array::from_fn(|_| AtomicU64::default()),
            audit_writes: array::from_fn(|_| AtomicU64::default()),
            lwa_waits: AtomicU64::new(0),
            hooks: HookMetrics::default(),
        })
    }

    /// A block of counters for one worker thread, which alone may write to it.
    #[must_use]
    pub fn worker(&self) -> Arc<WorkerMetrics> {
        let worker = Arc::new(WorkerMetrics::default());
        self.workers.lock().push(Arc::clone(&worker));
        worker
    }

    /// Counts a finished refresh of an access token.
    pub fn token_refresh(&self, trigger: Trigger, outcome: RefreshOutcome, duration: Duration) {
        self.refreshes[trigger as usize][outcome as usize].fetch_add(1, Relaxed);
        self.refresh_duration.lock().observe(duration);
    }

    /// Counts a write to the credential store.
    pub fn store_write(&self, ok: bool) {
        self.store_writes[usize::from(!ok)].fetch_add(1, Relaxed);
    }

    /// Counts `entries` of the audit log.
    pub fn audit_write(&self, entries: usize, ok: bool) {
        self.audit_writes[usize::from(!ok)].fetch_add(entries as u64, Relaxed);
    }

    /// Counts a refresh that has to wait for others (`token.lwa_concurrency`).
    pub fn lwa_concurrency_hit(&self) {
        self.lwa_waits.fetch_add(1, Relaxed);
    }

    /// The page for Prometheus, in the text format 0.0.4.
    #[must_use]
    pub fn render(&self, accounts: &[AccountView]) -> String {
        let mut page = Exposition::default();
        self.render_workers(&mut page);
        self.render_tokens(&mut page);
        self.render_accounts(&mut page, accounts);
        self.hooks.render(&mut page);
        page.family("adsproxy_build_info", "The running build.", MetricKind::Gauge);
        page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        process::render(&mut page);
        page.finish()
    }

    fn render_workers(&self, page: &mut Exposition) {
        let workers = self.workers.lock().clone();
        let sum = |cell: &dyn Fn(&WorkerMetrics) -> &AtomicU64| -> u64 {
            workers.iter().map(|worker| cell(worker).load(Relaxed)).sum()
        };
        page.family("adsproxy_requests_total", "Answered requests.", MetricKind::Counter);
        for (index, class) in CODE_CLASSES.iter().enumerate() {
            page.sample(&[("code_class", class)], sum(&|worker| &worker.requests[index]));
        }
        let mut duration = Histogram::default();
        workers.iter().for_each(|worker| duration.add(&worker.duration));
        let help = "From a request's head to the end of its answer.";
        page.histogram("adsproxy_request_duration_seconds", help, &duration);
        page.family("adsproxy_in_flight_requests", "Requests under way.", MetricKind::Gauge);
        page.sample(&[], sum(&|worker| &worker.in_flight));
        page.family("adsproxy_upstream_401_total", "Answers 401 from Amazon.", MetricKind::Counter);
        for &class in Upstream401::ALL {
            let value = sum(&|worker| &worker.upstream_401[class as usize]);
            page.sample(&[("class", class.as_str())], value);
        }
        page.family("adsproxy_replays_total", "Replays after a 401.", MetricKind::Counter);
        for &outcome in ReplayOutcome::ALL {
            let value = sum(&|worker| &worker.replays[outcome as usize]);
            page.sample(&[("outcome", outcome.as_str())], value);
        }
        let name = "adsproxy_redacted_responses_total";
        page.family(name, "Error responses that quoted an access token.", MetricKind::Counter);
        page.sample(&[], sum(&|worker| &worker.redacted));
        page.family("adsproxy_limit_hits_total", "How often a limit was hit.", MetricKind::Counter);
        for &limit in Limit::ALL {
            let value = sum(&|worker| &worker.limits[limit as usize]);
            page.sample(&[("limit", limit.as_str())], value);
        }
        page.sample(&[("limit", "lwa_concurrency")], self.lwa_waits.load(Relaxed));
        page.family("adsproxy_connections", "Open connections of callers.", MetricKind::Gauge);
        page.sample(&[], sum(&|worker| &worker.connections));
        let name = "adsproxy_upstream_connections_opened_total";
        page.family(name, "Connections opened to Amazon.", MetricKind::Counter);
        page.sample(&[], sum(&|worker| &worker.upstream_connections));
    }

    fn render_tokens(&self, page: &mut Exposition) {
        page.family(
            "adsproxy_token_refresh_total",
            "Refreshed access tokens.",
            MetricKind::Counter,
        );
        for &trigger in Trigger::ALL {
            for &outcome in RefreshOutcome::ALL {
                let value = self.refreshes[trigger as usize][outcome as usize].load(Relaxed);
                let labels = [("trigger", trigger.as_str()), ("outcome", outcome.as_str())];
                page.sample(&labels, value);
            }
        }
        let help = "One refresh, its retries included.";
        let duration = self.refresh_duration.lock();
        page.histogram("adsproxy_token_refresh_duration_seconds", help, &duration);
        drop(duration);
        page.family("adsproxy_store_write_total", "Writes to the store.", MetricKind::Counter);
        for (outcome, count) in ["succeeded", "failed"].iter().zip(&self.store_writes) {
            page.sample(&[("outcome", outcome)], count.load(Relaxed));
        }
        page.family("adsproxy_audit_write_total", "Entries of the audit log.", MetricKind::Counter);
        for (outcome, count) in ["succeeded", "failed"].iter().zip(&self.audit_writes) {
            page.sample(&[("outcome", outcome)], count.load(Relaxed));
        }
        page.family("adsproxy_log_dropped_total", "Lost log lines.", MetricKind::Counter);
        page.sample(&[], self.log_dropped.load(Relaxed));
    }

    fn render_accounts(&self, page: &mut Exposition, accounts: &[AccountView]) {
        let labelled = &accounts[..accounts.len().min(self.account_labels_max)];
        let help = "Until the access token expires.";
        page.family("adsproxy_token_expiry_seconds", help, MetricKind::Gauge);
        for status in labelled {
            if let Some(expires_in) = status.expires_in {
                page.sample(&[("account", status.account.as_str())], expires_in.as_secs());
            }
        }
        page.family("adsproxy_grant_state", "1 for the account's state.", MetricKind::Gauge);
        for status in labelled {
            page.sample(
                &[("account", status.account.as_str()), ("state", status.state.as_str())],
                1,
            );
        }
        let help = "Until the grant ends, in whole days; only if its consent is dated.";
        page.family("adsproxy_grant_expiry_seconds", help, MetricKind::Gauge);
        for status in labelled {
            if let Some(days) = status.consent_days_left {
                let seconds = days.max(0).saturating_mul(86_400);
                page.sample(&[("account", status.account.as_str())], seconds);
            }
        }
        let help = "Accounts whose newest record is in memory only: the store is degraded.";
        page.family("adsproxy_store_unsaved_records", help, MetricKind::Gauge);
        page.sample(&[], accounts.iter().filter(|status| status.is_unsaved).count() as u64);
        let help = "Accounts without series of their own (metrics.account_labels_max).";
        page.family("adsproxy_accounts_beyond_label_cap", help, MetricKind::Gauge);
        page.sample(&[], (accounts.len() - labelled.len()) as u64);
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
