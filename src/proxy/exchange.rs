//! One request from its first byte to the end of its answer: id, clocks, counters, access line.

use super::Worker;
use crate::{
    clock::Now,
    forward::body::Capture,
    id::Region,
    inbound::{fields::Fields, request_id},
    log::AccessLine,
    metrics::Limit,
    sync::Account,
};
use http::{HeaderName, HeaderValue, Method, Uri};
use std::{fmt, io, rc::Rc, sync::Arc};

static AMAZON_REQUEST_IDS: [HeaderName; 3] = [
    HeaderName::from_static("x-amzn-requestid"),
    HeaderName::from_static("x-amz-request-id"),
    HeaderName::from_static("x-amz-rid"),
];
/// What the access line says of a caller that left before its answer (nginx's word for it).
const CALLER_LEFT: u16 = 499;

/// Everything that is told about one request when it ends.
pub struct Exchange {
    worker: Rc<Worker>,
    began: Now,
    method: Method,
    uri: Uri,
    request_id: HeaderValue,
    status: u16,
    account: Option<(Arc<Account>, Region)>,
    amazon_request_id: Option<HeaderValue>,
    capture: Option<Capture>,
    error: Option<&'static str>,
    replays: u32,
    bytes_out: u64,
}

impl Exchange {
    /// Begins an exchange; it counts as in flight until dropped.
    pub(super) fn begin(
        worker: &Rc<Worker>,
        method: &Method,
        uri: &Uri,
        fields: &Fields<'_>,
    ) -> Box<Self> {
        worker.in_flight.set(worker.in_flight.get() + 1);
        worker.metrics.in_flight_inc();
        // On the heap: it travels with the answer through many hands.
        Box::new(Self {
            began: worker.shared.clock.now(),
            method: method.clone(),
            uri: uri.clone(),
            request_id: request_id::of(fields).unwrap_or_else(|| worker.fresh_request_id()),
            status: CALLER_LEFT,
            account: None,
            amazon_request_id: None,
            capture: None,
            error: None,
            replays: 0,
            bytes_out: 0,
            worker: worker.clone(),
        })
    }

    /// When the request came.
    #[must_use]
    pub fn began(&self) -> Now {
        self.began
    }

    /// The request's id.
    #[must_use]
    pub fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    pub(super) fn serves(&mut self, account: &Arc<Account>, region: Region) {
        self.account = Some((account.clone(), region));
    }

    pub(super) fn uploads(&mut self, capture: &Capture) {
        self.capture = Some(capture.clone());
    }

    pub(super) fn replayed(&mut self) {
        self.replays += 1;
    }

    pub(super) fn failed(&mut self, code: &'static str) {
        self.error = Some(code);
    }

    pub(super) fn answered(&mut self, head: &http::response::Parts) {
        self.status = head.status.as_u16();
        if self.worker.shared.config.log.access {
            let ids = AMAZON_REQUEST_IDS.iter();
            self.amazon_request_id = ids.filter_map(|name| head.headers.get(name)).next().cloned();
        }
        if let Some(capture) = &self.capture {
            capture.answered(head.status.is_client_error() || head.status.is_server_error());
        }
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// Amazon's body broke off; the caller's does too.
    pub(super) fn broken(&mut self, how: io::ErrorKind) {
        if how == io::ErrorKind::TimedOut {
            self.worker.metrics.limit(Limit::ResponseIdleTimeout);
            self.error = Some("upstream_timeout");
        } else {
            self.error = Some("upstream_unreachable");
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(capture) = &self.capture {
            capture.over();
        }
        let worker = &self.worker;
        worker.in_flight.set(worker.in_flight.get() - 1);
        worker.metrics.in_flight_dec();
        let duration = worker.shared.clock.now().mono.saturating_duration_since(self.began.mono);
        worker.metrics.request(self.status, duration);
        if !worker.shared.config.log.access {
            return;
        }
        worker.access.write(&AccessLine {
            wall: self.began.wall,
            method: self.method.as_str(),
            path: self.uri.path(),
            status: self.status,
            account: self.account.as_ref().map(|(account, _)| account.id.as_str()),
            region: self.account.as_ref().map(|(_, region)| *region),
            request_id: self.request_id.to_str().unwrap_or_default(),
            amazon_request_id: self.amazon_request_id.as_ref().and_then(|id| id.to_str().ok()),
            duration,
            bytes_in: self.capture.as_ref().map_or(0, Capture::received),
            bytes_out: self.bytes_out,
            replays: self.replays,
            error: self.error,
        });
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("status", &self.status).finish_non_exhaustive()
    }
}
