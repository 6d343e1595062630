//! Tests of the variables of OpenTelemetry.

use super::*;

fn try_read(variables: &[(&str, &str)]) -> (TelemetryConfig, Vec<String>) {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let environment: Environment = variables.iter().map(own).collect();
    let (config, warnings) = read(&environment);
    (config, warnings.into_iter().map(|warning| warning.message).collect())
}

fn good(variables: &[(&str, &str)]) -> TelemetryConfig {
    let (config, warnings) = try_read(variables);
    assert!(warnings.is_empty(), "{warnings:?}");
    config
}

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

/// The URLs of traces and metrics.
fn urls(config: &TelemetryConfig) -> [Option<&str>; 2] {
    let traces = config.traces.as_ref().map(|traces| traces.target.url.expose());
    [traces, config.metrics.as_ref().map(|metrics| metrics.target.url.expose())]
}

#[test]
fn nothing_is_sent_unless_a_variable_says_where() {
    for variables in [
        &[][..],
        &[("OTEL_SERVICE_NAME", "x"), ("OTEL_TRACES_SAMPLER", "nonsense")],
        &[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")],
        &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "none")],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
    ] {
        assert_eq!(good(variables), TelemetryConfig::default(), "{variables:?}");
    }
    assert!(good(&[ENDPOINT, ("OTEL_SDK_DISABLED", "false")]).traces.is_some());
}

#[test]
fn an_endpoint_alone_sends_both_and_that_of_a_signal_is_taken_as_it_is() {
    let both = good(&[ENDPOINT]);
    let expected = ["http://collector:4318/v1/traces", "http://collector:4318/v1/metrics"];
    assert_eq!(urls(&both), expected.map(Some));
    let traces = both.traces.expect("traces");
    assert!((traces.ratio - 1.0).abs() < f64::EPSILON && traces.follows_parent);
    assert_eq!((traces.queue_max, traces.batch_max), (2048, 512));
    assert_eq!((traces.delay.as_secs(), traces.export_timeout.as_secs()), (5, 30));
    assert_eq!(traces.target.timeout.as_secs(), 10);
    assert_eq!(traces.target.protocol, OtlpProtocol::Protobuf);
    assert_eq!(both.metrics.expect("metrics").interval.as_secs(), 60);
    assert_eq!(both.resource, [("service.name".to_owned(), "adsproxy".to_owned())]);
    let one = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://t/x");
    assert_eq!(urls(&good(&[one])), [Some("https://t/x"), None]);
    assert_eq!(urls(&good(&[one, ENDPOINT])), [Some("https://t/x"), Some(expected[1])]);
    let local = good(&[("OTEL_METRICS_EXPORTER", "otlp")]);
    assert_eq!(urls(&local), [None, Some("http://localhost:4318/v1/metrics")]);
}

#[test]
fn what_is_said_of_one_signal_beats_what_is_said_of_all() {
    let config = good(&[
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s%3Dcret, X-Scope = a b ,"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
    ]);
    let (traces, metrics) = (config.traces.expect("traces"), config.metrics.expect("metrics"));
    assert_eq!(traces.target.protocol, OtlpProtocol::Json);
    assert_eq!(metrics.target.protocol, OtlpProtocol::Protobuf);
    assert_eq!(traces.target.timeout.as_millis(), 2500);
    assert_eq!(metrics.target.timeout.as_millis(), 1500);
    assert_eq!((traces.target.is_compressed, metrics.target.is_compressed), (false, true));
    assert_eq!(traces.target.ca_file.as_deref(), Some("/ca.pem".as_ref()));
    assert_eq!((traces.queue_max, traces.batch_max), (100, 100), "no batch is larger");
    assert_eq!((traces.delay.as_millis(), metrics.interval.as_millis()), (50, 1000));
    let headers = traces.target.headers.iter().map(|(name, value)| {
        assert!(value.is_sensitive());
        (name.as_str(), value.to_str().expect("ASCII"))
    });
    assert_eq!(headers.collect::<Vec<_>>(), [("api-key", "s=cret"), ("x-scope", "a b")]);
    assert!(!format!("{:?}", traces.target).contains("cret"), "{:?}", traces.target);
}

#[test]
fn the_samplers_of_the_specification_are_known() {
    for (sampler, argument, expected) in [
        ("always_on", "", (1.0, false)),
        ("always_off", "", (0.0, false)),
        ("traceidratio", "0.25", (0.25, false)),
        ("parentbased_always_on", "0.25", (1.0, true)),
        ("parentbased_always_off", "", (0.0, true)),
        ("parentbased_traceidratio", " 0.5 ", (0.5, true)),
        ("parentbased_traceidratio", "", (1.0, true)),
    ] {
        let variables =
            [ENDPOINT, ("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)];
        let traces = good(&variables).traces.expect("traces");
        assert_eq!((traces.ratio, traces.follows_parent), expected, "{sampler}");
    }
}

#[test]
fn the_resource_has_the_service_once_and_what_else_is_said() {
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=a%20b,service.name=x");
    let environment = ("deployment.environment".to_owned(), "a b".to_owned());
    let service = |name: &str| ("service.name".to_owned(), name.to_owned());
    assert_eq!(good(&[ENDPOINT, attributes]).resource, [environment.clone(), service("x")]);
    let named = good(&[ENDPOINT, attributes, ("OTEL_SERVICE_NAME", "ads")]);
    assert_eq!(named.resource, [environment, service("ads")]);
}

#[test]
fn what_cannot_be_used_is_a_warning_without_its_value_and_only_its_signal_is_not_sent() {
    for (name, value, says) in [
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc", "usually 4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "s3cret", "must be http/protobuf or http/json"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "s3cret", "name=value"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "s3 cret=x", "name=value"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=s3cret%0a", "name=value"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318/s3cret", "http://"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "unix:///s3cret", "http://"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "10s", "milliseconds"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0", "milliseconds"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zstd", "gzip"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "otlp or none"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "always_on"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "whole number"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "99999999999", "milliseconds"),
    ] {
        let (config, warnings) = try_read(&[ENDPOINT, (name, value)]);
        let [warning] = &warnings[..] else { panic!("{name}: {warnings:?}") };
        assert!(warning.contains(name) && warning.contains(says), "{warning}");
        assert!(!warning.contains("s3"), "{warning}");
        assert!(config.traces.is_none() && config.metrics.is_some(), "{name}");
    }
    let ratio = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "1.5")];
    let (config, warnings) = try_read(&[ENDPOINT, ratio[0], ratio[1]]);
    assert!(config.traces.is_none() && warnings[0].contains("0 to 1"), "{warnings:?}");
    let (config, warnings) = try_read(&[ENDPOINT, ("OTEL_RESOURCE_ATTRIBUTES", "nonsense")]);
    assert!(config.traces.is_some() && warnings.len() == 1, "sent all the same");
}
