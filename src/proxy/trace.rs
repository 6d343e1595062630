//! What is noted of a request for a collector of traces. Where none is configured, each of these tests
//! one pointer.

use super::{Worker, select::Selection};
use crate::{
    forward::pool::Pool, inbound::path_key, metrics::Upstream401, recent::RequestFacts,
    telemetry::RequestTrace, trace_context::SpanContext,
};
use http::{HeaderMap, HeaderValue, StatusCode};

/// The notes, if the request is recorded.
#[derive(Default)]
pub struct ExchangeTrace(Option<Box<RequestTrace>>);

impl ExchangeTrace {
    pub(super) fn begin(worker: &Worker, headers: &HeaderMap) -> Self {
        Self(worker.spans.as_ref().and_then(|spans| spans.begin(headers)))
    }

    /// The span of the request.
    pub(super) fn span(&self) -> Option<SpanContext> {
        self.0.as_ref().map(|trace| trace.span())
    }

    /// What the attempt under way sends in the place of the caller's.
    pub(super) fn traceparent(&self) -> Option<&HeaderValue> {
        self.0.as_ref().and_then(|trace| trace.traceparent())
    }

    /// An attempt at `pool` begins.
    pub(super) fn begin_attempt(&mut self, worker: &Worker, pool: &Pool, selection: &Selection) {
        if let (Some(trace), Some(spans)) = (&mut self.0, &worker.spans) {
            let now = worker.shared.clock.now();
            let path = path_key::masked(selection.target.path());
            spans.begin_attempt(trace, now, &pool.uri, &path);
        }
    }

    /// The head of the response to the attempt has come.
    pub(super) fn responded(&mut self, worker: &Worker, status: StatusCode) {
        if let Some(trace) = &mut self.0 {
            trace.responded(status.as_u16(), worker.shared.clock.now());
        }
    }

    /// The response to the attempt was a 401 of this class.
    pub(super) fn unauthorized(&mut self, class: Upstream401) {
        if let Some(trace) = &mut self.0 {
            trace.unauthorized(class);
        }
    }

    /// The request has ended.
    pub(super) fn end(self, worker: &Worker, facts: &RequestFacts<'_>) {
        if let (Some(trace), Some(spans)) = (self.0, &worker.spans) {
            spans.end(*trace, facts);
        }
    }
}
