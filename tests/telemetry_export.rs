//! How telemetry is sent, and that no collector, however bad, is in the way of a request.

use crate::support::{
    otlp::{Collector, Manner, attributes, sample},
    program::Home,
    proxy::{Proxy, Setup, amazon, eventually, write_config},
};
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric, metric::Data};
use std::time::{Duration, Instant};

const DROPPED: &str = "adsproxy_telemetry_spans_dropped_total";

fn dropped(proxy: &Proxy, reason: &str) -> f64 {
    proxy.metric(&format!("{DROPPED}{{reason=\"{reason}\"}}"))
}

/// Sends `count` requests, which are served as if there was no collector.
async fn served(proxy: &Proxy, count: usize) {
    for _ in 0..count {
        assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    }
}

/// Ends the proxy, which must not take long; the last it said.
fn stopped(mut proxy: Proxy) -> String {
    let began = Instant::now();
    proxy.signal("TERM");
    let status = proxy.wait();
    assert!(status.success(), "{status}\n{}", proxy.log());
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    proxy.log()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_variable_or_disabled_there_is_not_even_a_connection() {
    let (amazon, collector) = (amazon().await, Collector::start().await);
    let disabled = collector.setup(&[
        ("OTEL_METRICS_EXPORTER", "otlp"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "10"),
        ("OTEL_SDK_DISABLED", "true"),
    ]);
    for setup in [disabled, Setup::default()] {
        let proxy = Proxy::with(&amazon, setup);
        served(&proxy, 20).await;
        assert!(!proxy.log().contains("telemetry"), "{}", proxy.log());
        stopped(proxy);
    }
    assert_eq!(collector.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_or_bad_costs_spans_and_no_request() {
    let amazon = amazon().await;
    for (manner, reason) in [
        (Manner::Close, "export_failed"),
        (Manner::Status(500), "export_failed"),
        (Manner::Status(503), "export_failed"),
        (Manner::Hang, "queue_full"),
    ] {
        let collector = Collector::start().await;
        collector.be(manner.clone());
        let proxy = Proxy::with(
            &amazon,
            collector.setup(&[
                ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
                ("OTEL_BSP_EXPORT_TIMEOUT", if reason == "queue_full" { "60000" } else { "300" }),
            ]),
        );
        let deadline = Instant::now() + Duration::from_secs(60);
        while dropped(&proxy, reason) < 1.0 {
            served(&proxy, 20).await;
            assert!(Instant::now() < deadline, "{manner:?} costs nothing:\n{}", proxy.metrics());
        }
        assert!(collector.spans().is_empty(), "{manner:?}");
        let log = stopped(proxy);
        let warnings = log.matches("telemetry is lost").count();
        assert!(warnings <= 1, "logged once, not for each batch:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_logged_with_its_cause_and_without_the_password() {
    let (amazon, collector) = (amazon().await, Collector::start().await);
    let address = collector.addr;
    drop(collector);
    // Nothing listens there any more.
    let endpoint = format!("http://clerk:PASSWORD-CANARY@{address}/HIDDEN-CANARY");
    let env = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=HEADER-CANARY"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "100"),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let proxy = Proxy::with(&amazon, Setup { env, ..Setup::default() });
    served(&proxy, 1).await;
    eventually("a failed batch", || dropped(&proxy, "export_failed") > 0.0).await;
    let log = stopped(proxy);
    assert!(log.contains("telemetry is lost") && log.contains("refused"), "{log}");
    assert!(!log.contains("CANARY") && !log.contains("clerk"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_comes_back_gets_the_batch_it_could_not_take() {
    let (amazon, collector) = (amazon().await, Collector::start().await);
    collector.be(Manner::Status(503));
    let proxy = Proxy::with(&amazon, collector.setup(&[]));
    served(&proxy, 1).await;
    eventually("a refused batch", || !collector.all().is_empty()).await;
    collector.be(Manner::Good);
    collector.span("the batch", |span| span.name == "GET").await;
    assert!(dropped(&proxy, "export_failed") < 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_response_is_not_read_and_what_is_rejected_is_counted() {
    let (amazon, collector) = (amazon().await, Collector::start().await);
    collector.be(Manner::Huge);
    let proxy = Proxy::with(&amazon, collector.setup(&[]));
    let before = proxy.memory();
    served(&proxy, 3).await;
    eventually("a batch", || !collector.spans().is_empty()).await;
    collector.be(Manner::Partial(1));
    let deadline = Instant::now() + Duration::from_secs(60);
    while dropped(&proxy, "rejected") < 1.0 {
        served(&proxy, 1).await;
        assert!(Instant::now() < deadline, "nothing is rejected:\n{}", proxy.metrics());
    }
    let grown = proxy.memory().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
    assert!(dropped(&proxy, "export_failed") < 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_when_the_process_ends_is_sent_before() {
    let (amazon, collector) = (amazon().await, Collector::start().await);
    let later = [("OTEL_BSP_SCHEDULE_DELAY", "3600000"), ("OTEL_METRICS_EXPORTER", "otlp")];
    let proxy = Proxy::with(&amazon, collector.setup(&later));
    served(&proxy, 5).await;
    stopped(proxy);
    let servers = collector.spans().iter().filter(|span| span.kind == 2).count();
    assert_eq!(servers, 5);
    assert!(!collector.metrics().is_empty(), "the last page too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_holds_the_exit_for_a_bounded_time() {
    let (amazon, collector) = (amazon().await, Collector::start().await);
    collector.be(Manner::Hang);
    let proxy = Proxy::with(&amazon, collector.setup(&[("OTEL_METRICS_EXPORTER", "otlp")]));
    served(&proxy, 5).await;
    eventually("a batch", || !collector.all().is_empty()).await;
    let log = stopped(proxy);
    assert!(log.contains("too slow for the last telemetry"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_are_those_of_the_page() {
    let (amazon, collector) = (amazon().await, Collector::start().await);
    let often = [("OTEL_METRICS_EXPORTER", "otlp"), ("OTEL_METRIC_EXPORT_INTERVAL", "50")];
    let proxy = Proxy::with(&amazon, collector.setup(&often));
    served(&proxy, 7).await;
    let find = |name: &str| collector.metrics().into_iter().find(|metric| metric.name == name);
    let requests = |metric: &Metric| sample(metric, &[("code_class", "2xx")]);
    let total = "adsproxy_requests_total";
    eventually("the page", || find(total).is_some_and(|it| requests(&it) >= 7.0)).await;
    let Some(Data::Sum(sum)) = find(total).expect("a metric").data else { panic!("no sum") };
    assert!(sum.is_monotonic);
    assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Cumulative);
    assert!(sum.data_points[0].start_time_unix_nano <= sum.data_points[0].time_unix_nano);
    let duration = find("adsproxy_request_duration_seconds").expect("a metric");
    assert_eq!(duration.unit, "s");
    let Some(Data::Histogram(histogram)) = duration.data else { panic!("no histogram") };
    let point = &histogram.data_points[0];
    assert!(point.count >= 7 && point.count == point.bucket_counts.iter().sum::<u64>());
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    assert!(point.explicit_bounds.is_sorted() && point.sum.is_some_and(|sum| sum > 0.0));
    let state = find("adsproxy_grant_state").expect("a metric");
    assert!((sample(&state, &[("account", "acme"), ("state", "fresh")]) - 1.0).abs() < 0.5);
    // All that the page has, but for families without a sample.
    let page = proxy.metrics();
    let named = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let named = named.filter(|line| line.starts_with("adsproxy_") || line.starts_with("process_"));
    for line in named {
        let name = line.split(['{', ' ']).next().expect("a name");
        let is_sent = ["", "_bucket", "_sum", "_count"]
            .iter()
            .any(|suffix| name.strip_suffix(suffix).is_some_and(|name| find(name).is_some()));
        assert!(is_sent, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_compression_and_header_fields_are_as_the_variables_say() {
    let (amazon, collector) = (amazon().await, Collector::start().await);
    let proxy = Proxy::with(
        &amazon,
        collector.setup(&[
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20HEADER-CANARY,x-scope=ads"),
            ("OTEL_METRICS_EXPORTER", "otlp"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "50"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
        ]),
    );
    served(&proxy, 2).await;
    let server = collector.span("a span", |span| span.kind == 2).await;
    assert_eq!((server.trace_id.len(), server.span_id.len()), (16, 8));
    assert_eq!(attributes(&server.attributes)["http.response.status_code"], "200");
    eventually("a page", || !collector.metrics().is_empty()).await;
    assert_eq!(collector.resource()["deployment.environment"], "test");
    for batch in collector.all() {
        assert_eq!(batch.headers["authorization"], "Basic HEADER-CANARY");
        assert_eq!(batch.headers["x-scope"], "ads");
        assert_eq!(batch.headers["content-type"], "application/json");
        assert_eq!(batch.headers["content-encoding"], "gzip");
    }
    let log = stopped(proxy);
    assert!(!log.contains("HEADER-CANARY"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_is_refused_by_name_and_the_proxy_serves() {
    let (amazon, collector) = (amazon().await, Collector::start().await);
    let grpc = [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_METRICS_EXPORTER", "otlp")];
    let proxy = Proxy::with(&amazon, collector.setup(&grpc));
    served(&proxy, 2).await;
    let log = proxy.log();
    assert!(log.contains("OTEL_EXPORTER_OTLP_PROTOCOL is grpc, which is not spoken"), "{log}");
    stopped(proxy);
    assert_eq!(collector.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_send_no_telemetry_of_their_own() {
    let (amazon, collector) = (amazon().await, Collector::start().await);
    let setup = collector.setup(&[("OTEL_METRICS_EXPORTER", "otlp")]);
    let directory = tempfile::tempdir().expect("a directory");
    write_config(directory.path(), &amazon, &setup);
    let home = Home::new();
    let mut command = home.command("curl acme /v2/profiles --config");
    command.arg(directory.path().join("proxy.toml")).envs(setup.env);
    let secrets = [
        ("CLIENT_SECRET", adsproxy::sandbox::CLIENT_SECRET),
        ("ACME_REFRESH", adsproxy::sandbox::ACCOUNTS[0].1),
        ("GLOBEX_REFRESH", adsproxy::sandbox::ACCOUNTS[1].1),
    ];
    let output = command.envs(secrets).output().expect("the binary runs");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(collector.connections(), 0);
}
