//! A collector of OTLP over HTTP that records what comes, read by the types of OpenTelemetry's makers,
//! and that is as bad as it is told to be.

use super::{
    proxy::{Setup, assert_no_secret, eventually},
    recorder::{Post, Record, Recorder, write_huge},
};
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::ExportMetricsServiceRequest,
        trace::v1::{
            ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        },
    },
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{Metric, metric::Data, number_data_point},
    trace::v1::Span,
};
use prost::Message;
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, io::Read, ops::Deref, sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// How it answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Manner {
    /// Takes everything.
    Good,
    /// Takes all but so many spans of each batch.
    Partial(i64),
    /// With this status.
    Status(u16),
    /// Never.
    Hang,
    /// 200, and then 64 MiB.
    Huge,
    /// By closing the connection at once.
    Close,
}

/// A running collector; it ends when dropped.
pub struct Collector(Recorder<Manner, Received>);

impl Deref for Collector {
    type Target = Recorder<Manner, Received>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// One batch that was taken, or refused with a status.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    /// As it came, but for its compression.
    pub body: Vec<u8>,
    pub is_taken: bool,
}

impl Received {
    fn read<M: Message + Default + DeserializeOwned>(&self) -> M {
        match self.headers["content-type"].as_str() {
            "application/x-protobuf" => M::decode(&*self.body).expect("protobuf"),
            "application/json" => serde_json::from_slice(&self.body).expect("OTLP's JSON"),
            other => panic!("content-type: {other}"),
        }
    }
}

impl Collector {
    pub async fn start() -> Self {
        Self(Recorder::start(Manner::Good, serve).await)
    }

    /// The variables that send both signals to it, the spans soon and the metrics at the end, and
    /// `more` of them.
    pub fn env(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let endpoint = format!("http://{}", self.addr);
        let own = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_METRICS_EXPORTER", "none"),
        ];
        let all = own.iter().chain(more);
        all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    pub fn setup(&self, more: &[(&str, &str)]) -> Setup {
        Setup { env: self.env(more), ..Setup::default() }
    }

    /// Every span that was taken.
    pub fn spans(&self) -> Vec<Span> {
        let all = self.all();
        let traces = all.iter().filter(|one| one.is_taken && one.path == "/v1/traces");
        let traces = traces.map(Received::read::<ExportTraceServiceRequest>);
        let resources = traces.flat_map(|request| request.resource_spans);
        resources.flat_map(|it| it.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// What sent the first batch of spans.
    pub fn resource(&self) -> BTreeMap<String, String> {
        let all = self.all();
        let first = all.iter().find(|one| one.path == "/v1/traces").expect("a batch");
        let first: ExportTraceServiceRequest = first.read();
        let resource = first.resource_spans[0].resource.clone().expect("a resource");
        attributes(&resource.attributes)
    }

    /// The metrics of the last page that was taken.
    pub fn metrics(&self) -> Vec<Metric> {
        let all = self.all();
        let last = all.iter().rfind(|one| one.is_taken && one.path == "/v1/metrics");
        let last: Option<ExportMetricsServiceRequest> = last.map(Received::read);
        let resources = last.into_iter().flat_map(|request| request.resource_metrics);
        resources.flat_map(|it| it.scope_metrics).flat_map(|scope| scope.metrics).collect()
    }

    /// Waits for a span that `is_wanted`.
    pub async fn span(&self, what: &str, is_wanted: impl Fn(&Span) -> bool) -> Span {
        eventually(what, || self.spans().iter().any(&is_wanted)).await;
        self.spans().into_iter().find(is_wanted).expect("just seen")
    }
}

/// Attributes by their keys, numbers as texts.
pub fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{}: {other:?}", attribute.key),
    };
    let pairs = attributes.iter();
    let pairs: Vec<_> =
        pairs.map(|it| (it.key.clone(), text(it).unwrap_or_else(|| panic!("{it:?}")))).collect();
    let map: BTreeMap<_, _> = pairs.iter().cloned().collect();
    assert_eq!(map.len(), pairs.len(), "a key comes twice: {pairs:?}");
    map
}

/// An attribute of `span`; empty if it is absent.
pub fn attribute(span: &Span, key: &str) -> String {
    attributes(&span.attributes).remove(key).unwrap_or_default()
}

/// The sample of `metric` with these labels.
pub fn sample(metric: &Metric, labels: &[(&str, &str)]) -> f64 {
    let points = match metric.data.as_ref().expect("data") {
        Data::Sum(sum) => &sum.data_points,
        Data::Gauge(gauge) => &gauge.data_points,
        other => panic!("{other:?}"),
    };
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let labels: BTreeMap<_, _> = labels.collect();
    let point = points.iter().find(|point| attributes(&point.attributes) == labels);
    match point.expect("a sample").value.expect("a value") {
        number_data_point::Value::AsInt(value) => value as f64,
        number_data_point::Value::AsDouble(value) => value,
    }
}

async fn serve(mut stream: TcpStream, record: Arc<Record<Manner, Received>>) {
    loop {
        let manner = record.manner();
        if manner == Manner::Close {
            return;
        }
        let Some(Post { path, headers, mut body }) = Post::read(&mut stream).await else { return };
        // As it is when the batch is whole.
        let manner = match record.manner() {
            Manner::Close => manner,
            now => now,
        };
        if headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
            let mut plain = Vec::new();
            GzDecoder::new(&*body).read_to_end(&mut plain).expect("gzip");
            body = plain;
        }
        assert_no_secret("telemetry", &body);
        let is_taken = matches!(manner, Manner::Good | Manner::Partial(_) | Manner::Huge);
        record.push(Received { path, headers, body, is_taken });
        if answer(&mut stream, &manner).await.is_none() {
            return;
        }
    }
}

async fn answer(stream: &mut TcpStream, manner: &Manner) -> Option<()> {
    let (status, body) = match manner {
        Manner::Hang => {
            tokio::time::sleep(Duration::from_secs(600)).await;
            return None;
        }
        Manner::Huge => return write_huge(stream).await.ok(),
        Manner::Partial(rejected_spans) => {
            let error_message = "not these".to_owned();
            let partial =
                ExportTracePartialSuccess { rejected_spans: *rejected_spans, error_message };
            let response = ExportTraceServiceResponse { partial_success: Some(partial) };
            (200, response.encode_to_vec())
        }
        Manner::Status(status) => (*status, b"no".to_vec()),
        Manner::Good | Manner::Close => (200, Vec::new()),
    };
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).await.ok()
}
