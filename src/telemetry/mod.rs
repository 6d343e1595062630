//! Traces and metrics for a collector of OpenTelemetry, if the environment names one.
//!
//! The data plane takes notes of the requests that are recorded and hands them to a bounded queue; the
//! control runtime makes messages of them and sends them. A collector that is slow or away costs spans,
//! which are counted, and no request. Without a collector there is none of this: requests test one
//! pointer. This module knows neither accounts nor tokens, and no header field but `traceparent`.

mod convert;
mod export;
mod measure;
mod otlp;
mod queue;
mod refresh;
mod request;
mod sampler;

pub use refresh::{LinkedRequests, RefreshFacts, RefreshSpans};
pub use request::{RequestTrace, WorkerSpans};

use crate::{
    clock::Clock,
    config::{
        Config,
        telemetry::{MetricsExportConfig, Signal, TracesConfig},
    },
    error_chain::chain,
    metrics::{Exposition, Metrics, SpansDropped},
    trace_context::SpanIds,
};
use convert::Attributes;
use export::OtlpExporter;
use measure::Period;
use otlp::{
    ExportMetrics, ExportTraces, InstrumentationScope, Resource, ResourceMetrics, ResourceSpans,
    ScopeMetrics, ScopeSpans,
};
use queue::SpanQueue;
use sampler::Sampler;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{runtime::Handle, sync::watch, task::JoinSet, time};
use tracing::{info, warn};

/// How long the last batches may take when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// The version of the conventions whose names are used.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";

/// Makes the metrics page of now.
pub type ReadMetrics = Arc<dyn Fn() -> Exposition + Send + Sync>;

/// What telemetry needs of the rest.
pub struct TelemetryContext {
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub read_metrics: ReadMetrics,
    pub control: Handle,
}

/// Where spans are recorded. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SpanRecorder {
    queue: Arc<SpanQueue>,
    sampler: Sampler,
}

impl SpanRecorder {
    /// For the requests of one worker.
    pub fn worker(&self) -> WorkerSpans {
        WorkerSpans::new(self.queue.clone(), self.sampler)
    }

    /// For refreshes.
    pub fn refreshes(&self) -> RefreshSpans {
        RefreshSpans::new(self.queue.clone(), self.sampler)
    }
}

/// The running exporters; they end with it.
pub struct Telemetry {
    /// None: no traces.
    pub spans: Option<SpanRecorder>,
    /// Spans of the batch under way.
    sending: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("spans", &self.spans).finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Starts what is configured; none if that is nothing, or cannot be used, which is logged.
    pub fn start(config: &Config, with: &TelemetryContext) -> Option<Self> {
        let telemetry = &config.telemetry;
        let resource = resource(&telemetry.resource);
        let mut started = Self {
            spans: None,
            sending: Arc::default(),
            stop: <_>::default(),
            tasks: JoinSet::new(),
        };
        if let Some(traces) = &telemetry.traces
            && let Some(exporter) = exporter(config, with, Signal::Traces)
        {
            started.start_traces(traces, exporter, resource.clone(), with);
        }
        if let Some(metrics) = &telemetry.metrics
            && let Some(exporter) = exporter(config, with, Signal::Metrics)
        {
            started.start_metrics(metrics, exporter, resource, with);
        }
        (!started.tasks.is_empty()).then_some(started)
    }

    fn start_traces(
        &mut self,
        config: &TracesConfig,
        exporter: OtlpExporter,
        resource: Resource,
        with: &TelemetryContext,
    ) {
        let queue = SpanQueue::new(config, with.metrics.clone());
        let sampler = Sampler::new(config);
        self.spans = Some(SpanRecorder { queue: queue.clone(), sampler });
        let (sending, delay) = (self.sending.clone(), config.delay);
        let sender = SpanSender { queue, exporter, resource, sending };
        self.tasks.spawn_on(sender.run(delay, self.stop.subscribe()), &with.control);
    }

    fn start_metrics(
        &mut self,
        config: &MetricsExportConfig,
        exporter: OtlpExporter,
        resource: Resource,
        with: &TelemetryContext,
    ) {
        let (clock, read) = (with.clock.clone(), with.read_metrics.clone());
        let sender = MetricsSender { exporter, resource, read, clock };
        let interval = config.interval;
        self.tasks.spawn_on(sender.run(interval, self.stop.subscribe()), &with.control);
    }

    /// Sends what waits, for two seconds at most, and ends.
    pub async fn finish(&mut self) {
        self.stop.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if time::timeout(FLUSH_TIMEOUT, all).await.is_ok() {
            return;
        }
        self.tasks.shutdown().await;
        let mut lost = self.sending.load(Ordering::Relaxed);
        if let Some(SpanRecorder { queue, .. }) = &self.spans {
            while let (batch, spans) = queue.batch()
                && !batch.is_empty()
            {
                lost += spans;
            }
            queue.dropped(SpansDropped::Stopped, lost);
        }
        warn!(spans = lost, "the collector was too slow for the last telemetry");
    }
}

/// The exporter of `signal`, which is configured.
fn exporter(config: &Config, with: &TelemetryContext, signal: Signal) -> Option<OtlpExporter> {
    let (traces, metrics) = (config.telemetry.traces.as_ref(), config.telemetry.metrics.as_ref());
    let (target, timeout) = match signal {
        Signal::Traces => traces.map(|it| (&it.target, it.export_timeout))?,
        Signal::Metrics => metrics.map(|it| (&it.target, it.export_timeout))?,
    };
    let roots = config.other_roots().into_iter();
    let made = OtlpExporter::new(signal, target, timeout, roots, with.metrics.clone());
    let (signal, protocol) = (signal.as_str(), target.protocol.as_str());
    match &made {
        // No URL: there may be a password in it.
        Ok(_) => info!(signal, protocol, "telemetry is sent to a collector"),
        Err(error) => warn!(signal, error = %chain(error), "this telemetry is not sent"),
    }
    made.ok()
}

/// What sends: as configured, with what this process knows of itself.
fn resource(configured: &[(String, String)]) -> Resource {
    let mut attributes = Attributes::default();
    let instance = u64::from_be_bytes(SpanIds::default().span());
    let instance = format!("{instance:016x}");
    let own = [
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", instance.as_str()),
        ("telemetry.sdk.name", "adsproxy"),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    for (key, value) in configured {
        attributes.text(key, value);
    }
    for (key, value) in own {
        if !configured.iter().any(|(configured, _)| configured == key) {
            attributes.text(key, value);
        }
    }
    Resource { attributes: attributes.0 }
}

fn scope() -> InstrumentationScope {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    InstrumentationScope { name: "adsproxy".to_owned(), version }
}

/// The task that sends spans.
struct SpanSender {
    queue: Arc<SpanQueue>,
    exporter: OtlpExporter,
    resource: Resource,
    sending: Arc<AtomicUsize>,
}

impl SpanSender {
    async fn run(self, delay: Duration, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            tokio::select! {
                () = time::sleep(delay) => {}
                () = self.queue.full() => {}
                _ = stop.changed() => {}
            }
            loop {
                self.send_batch().await;
                if !self.queue.is_full() {
                    break;
                }
            }
        }
        while self.send_batch().await {}
    }

    /// Sends one batch, or loses it; says whether there was one.
    async fn send_batch(&self) -> bool {
        let (batch, count) = self.queue.batch();
        if batch.is_empty() {
            return false;
        }
        self.sending.store(count, Ordering::Relaxed);
        let spans = batch.iter().flat_map(convert::spans).collect();
        let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans }];
        let (resource, schema_url) = (Some(self.resource.clone()), SCHEMA.to_owned());
        let resource_spans = vec![ResourceSpans { resource, scope_spans, schema_url }];
        match self.exporter.export(&ExportTraces { resource_spans }).await {
            Some(0) => {}
            Some(rejected) => {
                let rejected = usize::try_from(rejected).unwrap_or(count).min(count);
                self.queue.dropped(SpansDropped::Rejected, rejected);
            }
            None => self.queue.dropped(SpansDropped::ExportFailed, count),
        }
        self.sending.store(0, Ordering::Relaxed);
        true
    }
}

/// The task that sends metrics.
struct MetricsSender {
    exporter: OtlpExporter,
    resource: Resource,
    read: ReadMetrics,
    clock: Arc<dyn Clock>,
}

impl MetricsSender {
    async fn run(self, interval: Duration, mut stop: watch::Receiver<bool>) {
        let start = self.clock.now().wall;
        let mut ticks = time::interval(interval);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        // The first tick is now, when nothing has happened yet.
        ticks.tick().await;
        while !*stop.borrow() {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.changed() => {}
            }
            self.send(Period { start, now: self.clock.now().wall }).await;
        }
    }

    async fn send(&self, period: Period) {
        let metrics = measure::metrics(&(self.read)(), period);
        let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics }];
        let resource = Some(self.resource.clone());
        let resource_metrics = vec![ResourceMetrics { resource, scope_metrics }];
        // A page that is lost is made good by the next one.
        let _ = self.exporter.export(&ExportMetrics { resource_metrics }).await;
    }
}
