//! Sends batches to a collector over HTTP, and tries again where that may help.
//!
//! Source: <https://opentelemetry.io/docs/specs/otlp/#otlphttp> (read 2026-11-29).

use super::otlp::ExportResponse;
use crate::{
    backoff::Backoff,
    config::telemetry::{OtlpProtocol, OtlpTarget, Signal},
    error_chain::chain,
    https,
    metrics::{ExportOutcome, Metrics},
};
use bytes::{Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, StatusCode, header};
use prost::Message;
use reqwest::{Client, Response};
use serde::Serialize;
use std::{
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

/// Bytes of a response that are read: it only says how much of a batch was rejected.
const RESPONSE_MAX: usize = 64 * 1024;
/// Between two attempts, unless the collector says how long.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Why a batch was not taken. Holds nothing of the URL nor of the header fields.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error("the message cannot be built")]
    Encoding(#[source] serde_json::Error),
    #[error("the message cannot be compressed")]
    Compression(#[source] io::Error),
    #[error("the collector cannot be reached")]
    Request(#[source] reqwest::Error),
    #[error("the collector responded with {0}")]
    Status(StatusCode),
}

/// The way to the collector of one signal.
pub(super) struct OtlpExporter {
    signal: Signal,
    target: OtlpTarget,
    headers: HeaderMap,
    client: Client,
    metrics: Arc<Metrics>,
    /// How long one batch is tried.
    timeout: Duration,
    /// The last batch failed, which is logged once.
    is_failing: AtomicBool,
}

impl OtlpExporter {
    /// `roots` are the configured files of roots.
    pub(super) fn new<'a>(
        signal: Signal,
        target: &'a OtlpTarget,
        timeout: Duration,
        roots: impl Iterator<Item = &'a Path>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, https::Error> {
        let tls = https::client_config(roots.chain(target.ca_file.as_deref()), true)?;
        let client = https::collector_client(&tls)?;
        let mut headers: HeaderMap = target.headers.iter().cloned().collect();
        let content_type = match target.protocol {
            OtlpProtocol::Protobuf => "application/x-protobuf",
            OtlpProtocol::Json => "application/json",
        };
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
        if target.is_compressed {
            headers.insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
        }
        let target = target.clone();
        let is_failing = AtomicBool::new(false);
        Ok(Self { signal, target, headers, client, metrics, timeout, is_failing })
    }

    /// Sends one batch, counts how that ended and logs where it begins or ceases to fail. Returns how
    /// many of its spans the collector rejected; none if it did not take the batch.
    pub(super) async fn export<M: Message + Serialize>(&self, batch: &M) -> Option<u64> {
        let sent = match self.encode(batch) {
            Ok(body) => self.send_until_taken(body.into()).await,
            Err(error) => Err(error),
        };
        let signal = self.signal.as_str();
        let was_failing = self.is_failing.swap(sent.is_err(), Ordering::Relaxed);
        let outcome = match &sent {
            Ok(_) => ExportOutcome::Succeeded,
            Err(_) => ExportOutcome::Failed,
        };
        self.metrics.telemetry.exported(self.signal, outcome);
        match &sent {
            Ok(_) if was_failing => info!(signal, "the collector takes telemetry again"),
            Err(error) if !was_failing => {
                warn!(signal, error = %chain(error), "telemetry is lost");
            }
            _ => {}
        }
        sent.ok()
    }

    fn encode<M: Message + Serialize>(&self, batch: &M) -> Result<Vec<u8>, ExportError> {
        let plain = match self.target.protocol {
            OtlpProtocol::Protobuf => batch.encode_to_vec(),
            OtlpProtocol::Json => serde_json::to_vec(batch).map_err(ExportError::Encoding)?,
        };
        if !self.target.is_compressed {
            return Ok(plain);
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&plain).map_err(ExportError::Compression)?;
        encoder.finish().map_err(ExportError::Compression)
    }

    /// Ends with success, or an error that lasts.
    async fn send_until_taken(&self, body: Bytes) -> Result<u64, ExportError> {
        let deadline = Instant::now() + self.timeout;
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let request = self
                .client
                .post(self.target.url.expose())
                .timeout(self.target.timeout.min(left))
                .headers(self.headers.clone())
                .body(body.clone());
            let (error, pause) = match request.send().await {
                Ok(response) if response.status().is_success() => {
                    return Ok(self.rejected(response).await);
                }
                Ok(response) => {
                    let status = response.status();
                    let pause = is_passing(status).then(|| retry_after(response.headers()));
                    (ExportError::Status(status), pause)
                }
                Err(error) => {
                    let pause = (!error.is_builder()).then_some(None);
                    (ExportError::Request(error.without_url()), pause)
                }
            };
            let Some(pause) = pause else { return Err(error) };
            let pause = pause.unwrap_or_else(|| backoff.next());
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
        }
    }

    /// What the collector says that it did not take of a batch. A body that is none says nothing.
    async fn rejected(&self, mut response: Response) -> u64 {
        let mut body = BytesMut::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            if body.len() + chunk.len() > RESPONSE_MAX {
                return 0;
            }
            body.extend_from_slice(&chunk);
        }
        let rejected = match self.target.protocol {
            OtlpProtocol::Protobuf => {
                let response = ExportResponse::decode(body.freeze()).ok();
                response.and_then(|response| Some(response.partial_success?.rejected))
            }
            OtlpProtocol::Json => {
                let response = serde_json::from_slice::<serde_json::Value>(&body).ok();
                let spans = response.map(|mut it| it["partialSuccess"]["rejectedSpans"].take());
                spans.and_then(|it| it.as_i64().or_else(|| it.as_str()?.parse().ok()))
            }
        };
        rejected.and_then(|rejected| u64::try_from(rejected).ok()).unwrap_or(0)
    }
}

/// The statuses after which the same batch may be taken.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// Seconds; a date counts as none. What is too long ends with the batch's timeout.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).clamp(PAUSES.0, Duration::from_secs(3600)))
}
