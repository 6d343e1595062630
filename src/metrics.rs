//! Counters, gauges and histograms, and their text for Prometheus (exposition format 0.0.4).
//!
//! Written by hand: each worker counts in a block of its own, without atomic read-modify-write
//! and without sharing a cache line, and the blocks are summed on request. The libraries
//! keep one shared registry of shared counters; the official one also speaks OpenMetrics only.

mod encode;
mod hooks;
mod issuers;
mod process;
mod telemetry;
mod troubles;
mod worker;

pub use encode::{Exposition, Family, FamilyData, Number, Sample, seconds};
pub use hooks::{Dropped, HookMetrics, HookOutcome};
pub use issuers::IssuerMetrics;
pub use telemetry::{ExportOutcome, SpansDropped, TelemetryMetrics};
pub use troubles::{AccountTroubles, CallTrouble};
pub use worker::{LimitHit, ReplayOutcome, ThrottleKind, Upstream401, WorkerMetrics};

use crate::{
    account::AccountView,
    config,
    id::{AccountId, Region},
    named::named,
    provider::operations::OperationClass,
};
use hooks::loaded;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use worker::{CODE_CLASSES, Histogram};

named! {
    /// What started a token refresh.
    pub enum Trigger {
        /// A request inside the refresh buffer, or with an expired token.
        Request = "request",
        /// An upstream 401.
        Forced = "forced",
        /// The background refresher.
        Background = "background",
    }
}

named! {
    /// How a token refresh ended.
    pub enum RefreshOutcome {
        Succeeded = "succeeded",
        /// LWA could not be reached or failed; to be tried again.
        Transient = "transient",
        /// The grant is dead.
        ReauthorizationRequired = "reauthorization_required",
        /// Client id or secret are wrong.
        ApplicationRejected = "application_rejected",
        /// The rotated grant could not be stored.
        StoreFailed = "store_failed",
    }
}

/// How a write ended, by the index of its count.
const WRITES: [&str; 2] = ["succeeded", "failed"];

/// All counters of the process.
#[derive(Debug, Default)]
pub struct Metrics {
    account_labels_max: usize,
    log_dropped: Arc<AtomicU64>,
    workers: Mutex<Vec<Arc<WorkerMetrics>>>,
    issuers: Mutex<Vec<Arc<IssuerMetrics>>>,
    refreshes: [[AtomicU64; RefreshOutcome::ALL.len()]; Trigger::ALL.len()],
    refresh_duration: Mutex<Histogram>,
    /// When one succeeded last and failed last, in seconds since 1970; 0: never.
    last_refreshes: [AtomicU64; 2],
    store_writes: [AtomicU64; 2],
    audit_writes: [AtomicU64; 2],
    lwa_waits: AtomicU64,
    reloads: [AtomicU64; 2],
    /// When the configuration was read last, in seconds since 1970.
    reloaded: AtomicU64,
    /// What became of events on their way to hooks.
    pub hooks: HookMetrics,
    /// What became of traces and metrics on their way to a collector.
    pub telemetry: TelemetryMetrics,
    /// The end of the certificate that the data plane shows, in seconds since 1970, if it has one.
    certificate: Mutex<Option<Arc<AtomicU64>>>,
}

impl Metrics {
    /// Begins at zero. `log_dropped` is counted by the log (`Log::dropped`).
    pub fn new(config: &config::MetricsConfig, log_dropped: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self {
            account_labels_max: config.account_labels_max,
            log_dropped,
            workers: Mutex::default(),
            ..Self::default()
        })
    }

    /// A block of counters for one worker thread, which alone may write to it.
    pub fn worker(&self) -> Arc<WorkerMetrics> {
        let worker = Arc::new(WorkerMetrics::default());
        self.workers.lock().push(Arc::clone(&worker));
        worker
    }

    /// What is counted for an issuer of JWTs, by the name it has in the configuration.
    pub fn issuer(&self, name: &str) -> Arc<IssuerMetrics> {
        let mut issuers = self.issuers.lock();
        if let Some(known) = issuers.iter().find(|known| known.name() == name) {
            return Arc::clone(known);
        }
        let issuer = IssuerMetrics::new(name);
        issuers.push(Arc::clone(&issuer));
        issuer
    }

    /// Shows no other issuers than those of `names` any more.
    pub fn only_issuers(&self, names: &[&str]) {
        self.issuers.lock().retain(|issuer| names.contains(&issuer.name()));
    }

    /// Counts a finished refresh of an access token; `now_unix` is in seconds since 1970.
    pub fn token_refresh(
        &self,
        trigger: Trigger,
        outcome: RefreshOutcome,
        duration: Duration,
        now_unix: u64,
    ) {
        let failed = usize::from(outcome != RefreshOutcome::Succeeded);
        self.last_refreshes[failed].store(now_unix, Relaxed);
        self.refreshes[trigger as usize][outcome as usize].fetch_add(1, Relaxed);
        self.refresh_duration.lock().observe(duration);
    }

    /// When a refresh succeeded last and failed last, in seconds since 1970.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "only pages ask for it"))]
    pub fn last_refreshes(&self) -> [Option<u64>; 2] {
        self.last_refreshes.each_ref().map(|at| Some(at.load(Relaxed)).filter(|at| *at > 0))
    }

    /// Counts a write to the credential store.
    pub fn store_write(&self, ok: bool) {
        self.store_writes[usize::from(!ok)].fetch_add(1, Relaxed);
    }

    /// Counts `entries` of the audit log.
    pub fn audit_write(&self, entries: usize, ok: bool) {
        self.audit_writes[usize::from(!ok)].fetch_add(entries as u64, Relaxed);
    }

    /// Counts a reload of the configuration; none: it was read at the start.
    pub fn config_reloaded(&self, ok: Option<bool>, now_unix: u64) {
        if let Some(ok) = ok {
            self.reloads[usize::from(!ok)].fetch_add(1, Relaxed);
        }
        if ok != Some(false) {
            self.reloaded.store(now_unix, Relaxed);
        }
    }

    /// Shows when the listener's certificate ends: `expiry` is in seconds since 1970, and follows the
    /// certificate in use.
    pub fn certificate(&self, expiry: Arc<AtomicU64>) {
        *self.certificate.lock() = Some(expiry);
    }

    /// Counts a refresh that has to wait for others (`token.lwa_concurrency`).
    pub fn lwa_concurrency_hit(&self) {
        self.lwa_waits.fetch_add(1, Relaxed);
    }

    /// What was counted of the calls of `account`.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "only pages ask for it"))]
    pub fn troubles(&self, account: &AccountId) -> AccountTroubles {
        let mut sum = AccountTroubles::default();
        self.workers.lock().iter().for_each(|worker| worker.troubles.sum(account, &mut sum));
        sum
    }

    /// How often each limit was hit.
    pub fn limit_hits(&self) -> Vec<(&'static str, u64)> {
        let workers = self.workers.lock();
        let hits = LimitHit::ALL.into_iter().map(|limit| {
            let count = |worker: &Arc<WorkerMetrics>| worker.limits[limit as usize].load(Relaxed);
            (limit.as_str(), workers.iter().map(count).sum())
        });
        let waits = ("lwa_concurrency", self.lwa_waits.load(Relaxed));
        hits.chain([waits]).collect()
    }

    /// A number that grows with what is counted of accounts, the store, the audit log and hooks.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "only pages ask for it"))]
    pub fn events(&self) -> u64 {
        let own = [&self.store_writes, &self.audit_writes, &self.reloads];
        let counts = self.refreshes.iter().flatten().chain(own.into_iter().flatten());
        loaded(counts).fold(self.hooks.events(), u64::wrapping_add)
    }

    /// The page for Prometheus, in the text format 0.0.4; without `accounts` the part of it that
    /// tells neither of them nor of requests.
    pub fn render(&self, accounts: Option<&[AccountView]>) -> String {
        self.families(accounts).text()
    }

    /// The families of that page.
    pub fn families(&self, accounts: Option<&[AccountView]>) -> Exposition {
        let mut page = Exposition::default();
        if let Some(accounts) = accounts {
            self.render_workers(&mut page);
            self.render_tokens(&mut page);
            self.render_accounts(&mut page, accounts);
            issuers::render(&self.issuers.lock(), &mut page);
            self.hooks.render(&mut page);
            self.telemetry.render(&mut page);
        }
        page.family("adsproxy_build_info", "The running build.");
        page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1_u64);
        process::render(&mut page);
        page
    }

    fn render_workers(&self, page: &mut Exposition) {
        let workers = self.workers.lock().clone();
        let sum = |cell: &dyn Fn(&WorkerMetrics) -> &AtomicU64| -> u64 {
            workers.iter().map(|worker| cell(worker).load(Relaxed)).sum()
        };
        let sums = |cells: fn(&WorkerMetrics) -> &[AtomicU64], names: &[&'static str]| {
            let each = names.iter().enumerate();
            let each = each.map(|(at, name)| (*name, sum(&|worker| &cells(worker)[at])));
            each.collect::<Vec<_>>()
        };
        let requests = sums(|worker| &worker.requests, &CODE_CLASSES);
        page.by_label("adsproxy_requests_total", "Responses.", "code_class", requests);
        let duration = Histogram::default();
        workers.iter().for_each(|worker| duration.add(&worker.duration));
        let help = "From a request's head to the end of its response.";
        page.histogram("adsproxy_request_duration_seconds", help, &duration);
        let in_flight = sum(&|worker| &worker.in_flight);
        page.single("adsproxy_in_flight_requests", "Requests under way.", in_flight);
        let classes = sums(|worker| &worker.upstream_401, &Upstream401::ALL.map(|it| it.as_str()));
        page.by_label("adsproxy_upstream_401_total", "401 responses of Amazon.", "class", classes);
        let replays = sums(|worker| &worker.replays, &ReplayOutcome::ALL.map(|it| it.as_str()));
        page.by_label("adsproxy_replays_total", "Replays after a 401.", "outcome", replays);
        let help = "Error responses that quoted an access token.";
        let redacted = sum(&|worker| &worker.redacted);
        page.single("adsproxy_redacted_responses_total", help, redacted);
        let limits = self.limit_hits();
        page.by_label("adsproxy_limit_hits_total", "How often a limit was hit.", "limit", limits);
        let connections = sum(&|worker| &worker.connections);
        page.single("adsproxy_connections", "Open connections of callers.", connections);
        let opened = sum(&|worker| &worker.upstream_connections);
        let name = "adsproxy_upstream_connections_opened_total";
        page.single(name, "Connections opened to Amazon.", opened);
        page.family("adsproxy_upstream_throttled_total", "429 and 5xx responses of Amazon.");
        for region in Region::ALL {
            for class in OperationClass::ALL {
                for kind in ThrottleKind::ALL {
                    let at = (region as usize, class as usize, kind as usize);
                    let labels = [("region", region.as_str()), ("class", class.as_str())];
                    let labels = [labels[0], labels[1], ("kind", kind.as_str())];
                    page.sample(&labels, sum(&|worker| &worker.throttled[at.0][at.1][at.2]));
                }
            }
        }
    }

    fn render_tokens(&self, page: &mut Exposition) {
        page.family("adsproxy_token_refresh_total", "Refreshed access tokens.");
        for (trigger, counts) in Trigger::ALL.iter().zip(&self.refreshes) {
            for (outcome, count) in RefreshOutcome::ALL.iter().zip(loaded(counts)) {
                let labels = [("trigger", trigger.as_str()), ("outcome", outcome.as_str())];
                page.sample(&labels, count);
            }
        }
        let help = "One refresh, its retries included.";
        let name = "adsproxy_token_refresh_duration_seconds";
        page.histogram(name, help, &self.refresh_duration.lock());
        let writes = WRITES.into_iter().zip(loaded(&self.store_writes));
        page.by_label("adsproxy_store_write_total", "Writes to the store.", "outcome", writes);
        let writes = WRITES.into_iter().zip(loaded(&self.audit_writes));
        page.by_label("adsproxy_audit_write_total", "Entries of the audit log.", "outcome", writes);
        let reloads = WRITES.into_iter().zip(loaded(&self.reloads));
        let help = "Reloads of the configuration.";
        page.by_label("adsproxy_config_reload_total", help, "outcome", reloads);
        let name = "adsproxy_config_last_reload_success_timestamp_seconds";
        let help = "When the configuration in force was read.";
        page.single(name, help, self.reloaded.load(Relaxed));
        let name = "adsproxy_tls_certificate_expiry_timestamp_seconds";
        page.family(name, "When the certificate of the listener ends; absent without TLS.");
        let expiry = self.certificate.lock().as_ref().map_or(0, |expiry| expiry.load(Relaxed));
        if expiry > 0 {
            page.sample(&[], expiry);
        }
        let dropped = self.log_dropped.load(Relaxed);
        page.single("adsproxy_log_dropped_total", "Lost log lines.", dropped);
    }

    fn render_accounts(&self, page: &mut Exposition, accounts: &[AccountView]) {
        let labelled = &accounts[..accounts.len().min(self.account_labels_max)];
        let of_each = |value: fn(&AccountView) -> Option<u64>| {
            labelled.iter().filter_map(move |view| Some((view.account.as_str(), value(view)?)))
        };
        let help = "Until the access token expires.";
        let expiry = of_each(|view| Some(view.expires_in?.as_secs()));
        page.by_label("adsproxy_token_expiry_seconds", help, "account", expiry);
        page.family("adsproxy_grant_state", "1 for the account's state.");
        for view in labelled {
            let labels = [("account", view.account.as_str()), ("state", view.state.as_str())];
            page.sample(&labels, 1_u64);
        }
        let help = "Until the grant ends, in whole days; only if its consent is dated.";
        let expiry = of_each(|view| {
            let days = u64::try_from(view.consent_days_left?).unwrap_or(0);
            Some(days.saturating_mul(86_400))
        });
        page.by_label("adsproxy_grant_expiry_seconds", help, "account", expiry);
        let help = "Accounts whose newest record is in memory only: the store is degraded.";
        let unsaved = accounts.iter().filter(|view| view.is_unsaved).count();
        page.single("adsproxy_store_unsaved_records", help, unsaved);
        let help = "Accounts without series of their own (metrics.account_labels_max).";
        let beyond = accounts.len() - labelled.len();
        page.single("adsproxy_accounts_beyond_label_cap", help, beyond);
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
