//! Where traces and metrics are sent: the variables that OpenTelemetry defines, no keys of ours.
//!
//! Telemetry is no reason not to serve: what cannot be used is a warning, and its signal is not sent.
//!
//! Source: <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/> and
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/> (read 2026-11-29).

use super::{
    environment::Environment,
    problem::{ConfigProblem, Provenance},
};
use crate::{named::named, secret::Secret};
use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use std::{path::PathBuf, str::FromStr, time::Duration};

/// Where a collector is if an exporter is named and no endpoint.
const LOCAL_COLLECTOR: &str = "http://localhost:4318";
/// No queue and no time is longer.
const COUNT_MAX: usize = 1_000_000;
const MILLIS_MAX: u64 = 86_400_000;

named! {
    /// What is sent.
    pub enum Signal {
        Traces = "traces",
        Metrics = "metrics",
    }
}

named! {
    /// `OTEL_EXPORTER_OTLP_PROTOCOL`
    pub enum OtlpProtocol {
        Protobuf = "http/protobuf",
        Json = "http/json",
    }
}

/// What is sent, and where. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TelemetryConfig {
    pub traces: Option<TracesConfig>,
    pub metrics: Option<MetricsExportConfig>,
    /// What the sender is, beside what it says of itself.
    pub resource: Vec<(String, String)>,
}

/// How traces are sampled, queued and sent.
#[derive(Clone, Debug, PartialEq)]
pub struct TracesConfig {
    pub target: OtlpTarget,
    /// The part of the traces that begin here which is recorded, 0 to 1.
    pub ratio: f64,
    /// A trace that began elsewhere is recorded where its caller records it.
    pub follows_parent: bool,
    /// Spans that wait at most; more are dropped.
    pub queue_max: usize,
    /// Spans in one message at most.
    pub batch_max: usize,
    /// How long the first span of a batch waits.
    pub delay: Duration,
    /// How long one batch is tried.
    pub export_timeout: Duration,
}

/// How often metrics are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsExportConfig {
    pub target: OtlpTarget,
    pub interval: Duration,
    pub export_timeout: Duration,
}

/// A collector.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpTarget {
    /// With the path; there may be a password in it.
    pub url: Secret,
    /// Sensitive values.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Of one attempt.
    pub timeout: Duration,
    pub protocol: OtlpProtocol,
    pub is_compressed: bool,
    /// Roots beside those of `tls.ca_file`, PEM.
    pub ca_file: Option<PathBuf>,
}

/// Reads the variables; what is wrong with them is a warning that holds no value of a secret.
pub(super) fn read(environment: &Environment) -> (TelemetryConfig, Vec<ConfigProblem>) {
    let mut reader = VariableReader { environment, warnings: Vec::new() };
    let is_disabled = environment.get("OTEL_SDK_DISABLED");
    if is_disabled.is_some_and(|text| text.trim().eq_ignore_ascii_case("true")) {
        return <_>::default();
    }
    let (traces, metrics) = (reader.traces(), reader.metrics());
    let resource = match traces.is_some() || metrics.is_some() {
        true => reader.resource(),
        false => Vec::new(),
    };
    (TelemetryConfig { traces, metrics, resource }, reader.warnings)
}

struct VariableReader<'e> {
    environment: &'e Environment,
    warnings: Vec<ConfigProblem>,
}

impl VariableReader<'_> {
    fn traces(&mut self) -> Option<TracesConfig> {
        let target = self.target(Signal::Traces)?;
        let (ratio, follows_parent) = self.sampling()?;
        let queue_max = self.number("OTEL_BSP_MAX_QUEUE_SIZE", 2048)?;
        let batch_max: usize = self.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)?;
        Some(TracesConfig {
            target,
            ratio,
            follows_parent,
            queue_max,
            batch_max: batch_max.min(queue_max),
            delay: self.millis("OTEL_BSP_SCHEDULE_DELAY", 5000)?,
            export_timeout: self.millis("OTEL_BSP_EXPORT_TIMEOUT", 30_000)?,
        })
    }

    fn metrics(&mut self) -> Option<MetricsExportConfig> {
        Some(MetricsExportConfig {
            target: self.target(Signal::Metrics)?,
            interval: self.millis("OTEL_METRIC_EXPORT_INTERVAL", 60_000)?,
            export_timeout: self.millis("OTEL_METRIC_EXPORT_TIMEOUT", 30_000)?,
        })
    }

    /// The collector for `signal`, if one is named.
    fn target(&mut self, signal: Signal) -> Option<OtlpTarget> {
        let upper = signal.as_str().to_ascii_uppercase();
        let exporter = format!("OTEL_{upper}_EXPORTER");
        let wanted = self.environment.non_empty(&exporter).map(|text| text.trim().to_owned());
        match wanted.as_deref() {
            None | Some("otlp") => {}
            Some("none") => return None,
            Some(_) => return self.refuse(&exporter, "must be otlp or none"),
        }
        let of_signal = |name: &str| format!("OTEL_EXPORTER_OTLP_{upper}_{name}");
        let endpoint = of_signal("ENDPOINT");
        let (endpoint, url) = match self.environment.non_empty(&endpoint) {
            Some(url) => (endpoint, url.trim().to_owned()),
            None => {
                const NAME: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
                let base = self.environment.non_empty(NAME).map(str::trim);
                let base = base.or_else(|| wanted.is_some().then_some(LOCAL_COLLECTOR))?;
                (NAME.to_owned(), format!("{}/v1/{signal}", base.trim_end_matches('/')))
            }
        };
        self.is_usable(&endpoint, &url)?;
        Some(OtlpTarget {
            url: Secret::new(url),
            protocol: self.protocol(&of_signal("PROTOCOL"))?,
            headers: self.headers(&of_signal("HEADERS"))?,
            timeout: self.timeout(&of_signal("TIMEOUT"))?,
            is_compressed: self.is_compressed(&of_signal("COMPRESSION"))?,
            ca_file: self.either(&of_signal("CERTIFICATE")).map(|(_, path)| path.into()),
        })
    }

    /// Whether a request can be sent to `url`. Plain HTTP is accepted: collectors are neighbours.
    fn is_usable(&mut self, name: &str, url: &str) -> Option<()> {
        let parsed = Uri::from_str(url).ok().filter(|url| url.host().is_some());
        match parsed.as_ref().and_then(Uri::scheme_str) {
            Some("http" | "https") => Some(()),
            _ => self.refuse(name, "must be an http:// or https:// URL of a collector"),
        }
    }

    fn protocol(&mut self, name: &str) -> Option<OtlpProtocol> {
        let Some((name, text)) = self.either(name) else { return Some(OtlpProtocol::Protobuf) };
        const GRPC: &str = "is grpc, which is not spoken: set it to http/protobuf, and the endpoint \
                            to the collector's port for HTTP, usually 4318 in place of 4317";
        match OtlpProtocol::from_name(text.trim()) {
            Some(protocol) => Some(protocol),
            None if text.trim() == "grpc" => self.refuse(&name, GRPC),
            None => self.refuse(&name, "must be http/protobuf or http/json"),
        }
    }

    /// `name=value,name=value`, percent-encoded.
    fn headers(&mut self, name: &str) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let Some((name, text)) = self.either(name) else { return Some(Vec::new()) };
        let field = |(field, value): (String, String)| {
            let mut value = HeaderValue::from_str(&value).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_str(&field).ok()?, value))
        };
        let fields = pairs(&text).map(|pair| pair.and_then(field)).collect();
        match fields {
            Some(fields) => Some(fields),
            None => self.refuse(&name, "must be header fields, name=value, with commas between"),
        }
    }

    fn timeout(&mut self, name: &str) -> Option<Duration> {
        let name = self.either(name).map_or_else(|| name.to_owned(), |(name, _)| name);
        self.millis(&name, 10_000)
    }

    fn is_compressed(&mut self, name: &str) -> Option<bool> {
        let Some((name, text)) = self.either(name) else { return Some(false) };
        match text.trim() {
            "none" => Some(false),
            "gzip" => Some(true),
            _ => self.refuse(&name, "must be gzip or none"),
        }
    }

    /// The ratio for traces that begin here, and whether others are decided by their caller.
    fn sampling(&mut self) -> Option<(f64, bool)> {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
        let name = self.environment.non_empty(NAME).unwrap_or("parentbased_always_on").trim();
        let own = name.strip_prefix("parentbased_");
        let ratio = match own.unwrap_or(name) {
            "always_on" => Some(1.0),
            "always_off" => Some(0.0),
            "traceidratio" => match self.environment.non_empty(ARGUMENT) {
                None => Some(1.0),
                Some(text) => match text.trim().parse::<f64>() {
                    Ok(ratio) if (0.0..=1.0).contains(&ratio) => Some(ratio),
                    _ => self.refuse(ARGUMENT, "must be a number from 0 to 1"),
                },
            },
            _ => self.refuse(
                NAME,
                "must be always_on, always_off or traceidratio, or parentbased_ and one of these",
            ),
        };
        Some((ratio?, own.is_some()))
    }

    /// `OTEL_RESOURCE_ATTRIBUTES`, with the name of the service in front.
    fn resource(&mut self) -> Vec<(String, String)> {
        const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
        const SERVICE: &str = "service.name";
        let text = self.environment.non_empty(NAME).unwrap_or_default();
        let mut resource = pairs(text).collect::<Option<Vec<_>>>().unwrap_or_else(|| {
            let none = self.refuse(NAME, "must be attributes, key=value, with commas between");
            none.unwrap_or_default()
        });
        if let Some(service) = self.environment.non_empty("OTEL_SERVICE_NAME") {
            resource.retain(|(key, _)| key != SERVICE);
            resource.push((SERVICE.to_owned(), service.trim().to_owned()));
        } else if !resource.iter().any(|(key, _)| key == SERVICE) {
            resource.push((SERVICE.to_owned(), "adsproxy".to_owned()));
        }
        resource
    }

    /// The variable `name` of one signal, else that of all signals, with its name.
    fn either(&self, name: &str) -> Option<(String, String)> {
        let of_all = Signal::ALL.iter().fold(name.to_owned(), |name, signal| {
            name.replace(&format!("_{}_", signal.as_str().to_ascii_uppercase()), "_")
        });
        let names = [name.to_owned(), of_all].into_iter();
        let mut set = names.filter_map(|name| {
            let value = self.environment.non_empty(&name)?.to_owned();
            Some((name, value))
        });
        set.next()
    }

    fn number(&mut self, name: &str, default: usize) -> Option<usize> {
        let Some(text) = self.environment.non_empty(name) else { return Some(default) };
        match text.trim().parse() {
            Ok(number) if (1..=COUNT_MAX).contains(&number) => Some(number),
            _ => self.refuse(name, &format!("must be a whole number from 1 to {COUNT_MAX}")),
        }
    }

    fn millis(&mut self, name: &str, default: u64) -> Option<Duration> {
        let Some(text) = self.environment.non_empty(name) else {
            return Some(Duration::from_millis(default));
        };
        match text.trim().parse() {
            Ok(number) if (1..=MILLIS_MAX).contains(&number) => Some(Duration::from_millis(number)),
            _ => self.refuse(name, &format!("must be milliseconds, from 1 to {MILLIS_MAX}")),
        }
    }

    /// Its value is not quoted: it may be a secret.
    fn refuse<T>(&mut self, name: &str, why: &str) -> Option<T> {
        let message = format!("environment variable {name} {why}; what it is for is not sent");
        let place = Provenance::Whole(None);
        self.warnings.push(ConfigProblem { place, message, help: None });
        None
    }
}

/// The pairs of a list in the form of a `baggage` field; none for what is no pair.
fn pairs(text: &str) -> impl Iterator<Item = Option<(String, String)>> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| {
        let (key, value) = item.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        let key = Some(key.trim()).filter(|key| !key.is_empty())?;
        Some((key.to_owned(), value.into_owned()))
    })
}

#[cfg(test)]
#[path = "telemetry_tests.rs"]
mod tests;

#[cfg(test)]
pub(crate) mod testing {
    //! Configurations for the tests of others.

    use super::*;

    /// What `variables` say of traces, beside an endpoint.
    pub(crate) fn traces(variables: &[(&str, &str)]) -> TracesConfig {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");
        let variables = variables.iter().chain([&endpoint]);
        let variables = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let (config, warnings) = read(&variables.collect());
        assert!(warnings.is_empty(), "{warnings:?}");
        config.traces.expect("an endpoint")
    }
}
