//! The spans of a request: one of the server, and one of the client for each attempt at Amazon.
//!
//! Runs on the data plane, and only for requests that are recorded: it takes notes, which become
//! messages elsewhere.

use super::{
    queue::{Finished, SpanQueue},
    sampler::Sampler,
};
use crate::{
    clock::Now,
    metrics::Upstream401,
    recent::{RecentRequest, RequestFacts, kept_path},
    trace_context::{SpanContext, SpanIds},
};
use http::{HeaderMap, HeaderValue, Uri};
use std::{cell::RefCell, fmt, mem, sync::Arc};

/// Requests that a worker hands over together.
const TOGETHER: usize = 16;

/// The spans of one worker's requests.
pub struct WorkerSpans {
    queue: Arc<SpanQueue>,
    sampler: Sampler,
    ids: SpanIds,
    pending: RefCell<Vec<Finished>>,
}

/// What is noted of a request that is recorded.
#[derive(Debug)]
pub struct RequestTrace {
    /// The caller's span, if it sent one.
    pub(super) parent: Option<SpanContext>,
    /// That of the request.
    pub(super) span: SpanContext,
    pub(super) attempts: Vec<AttemptTrace>,
    /// Host and path of the attempts. The path is a copy: a target holds all of the request's head.
    pub(super) upstream: Option<(Uri, Box<str>)>,
    traceparent: Option<HeaderValue>,
}

/// One attempt.
#[derive(Debug)]
pub(super) struct AttemptTrace {
    pub(super) span_id: [u8; 8],
    pub(super) began: Now,
    /// Status, and when its head came; none for an attempt that failed.
    pub(super) response: Option<(u16, Now)>,
    /// What its 401 was.
    pub(super) class: Option<Upstream401>,
}

/// A request that has ended.
#[derive(Debug)]
pub(super) struct FinishedRequest {
    pub(super) trace: RequestTrace,
    pub(super) request: RecentRequest,
}

impl fmt::Debug for WorkerSpans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerSpans")
    }
}

impl WorkerSpans {
    pub(super) fn new(queue: Arc<SpanQueue>, sampler: Sampler) -> Self {
        Self { queue, sampler, ids: SpanIds::default(), pending: RefCell::default() }
    }

    /// Begins to note a request with these header fields, if it is to be recorded. Without a good
    /// `traceparent` a new trace begins.
    pub fn begin(&self, headers: &HeaderMap) -> Option<Box<RequestTrace>> {
        let parent = SpanContext::of(headers);
        let (span, is_sampled) = match parent {
            Some(parent) => (parent, self.sampler.samples_child(parent)),
            None => {
                let root = self.ids.root();
                (root, self.sampler.samples_root(root))
            }
        };
        is_sampled.then(|| {
            Box::new(RequestTrace {
                parent,
                span: span.with(self.ids.span(), true),
                attempts: Vec::with_capacity(1),
                upstream: None,
                traceparent: None,
            })
        })
    }

    /// Begins an attempt at `host`, for `path`, which has no key in it.
    pub fn begin_attempt(&self, trace: &mut RequestTrace, now: Now, host: &Uri, path: &str) {
        let span_id = self.ids.span();
        trace.attempts.push(AttemptTrace { span_id, began: now, response: None, class: None });
        // Only in the place of the caller's: a field that was not sent is not added.
        trace.traceparent = trace.parent.map(|_| trace.span.with(span_id, true).to_header());
        trace.upstream.get_or_insert_with(|| (host.clone(), kept_path(path).into()));
    }

    /// A request has ended.
    pub fn end(&self, trace: RequestTrace, facts: &RequestFacts<'_>) {
        let request = RecentRequest::of(facts);
        let mut pending = self.pending.borrow_mut();
        pending.push(Finished::Request(Box::new(FinishedRequest { trace, request })));
        if pending.len() >= TOGETHER {
            self.queue.try_take_in(&mut pending);
        }
    }

    /// Hands over what has ended since the last time; called at every tick of the worker.
    pub fn hand_over(&self) {
        let mut pending = self.pending.borrow_mut();
        if !pending.is_empty() {
            self.queue.try_take_in(&mut pending);
        }
    }
}

impl Drop for WorkerSpans {
    fn drop(&mut self) {
        for finished in mem::take(self.pending.get_mut()) {
            self.queue.put(finished);
        }
    }
}

impl RequestTrace {
    pub fn span(&self) -> SpanContext {
        self.span
    }

    /// What the attempt under way sends in the place of the caller's `traceparent`.
    pub fn traceparent(&self) -> Option<&HeaderValue> {
        self.traceparent.as_ref()
    }

    /// The head of the response to the attempt under way has come.
    pub fn responded(&mut self, status: u16, now: Now) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.response = Some((status, now));
        }
    }

    /// What the 401 to the attempt under way was.
    pub fn unauthorized(&mut self, class: Upstream401) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.class = Some(class);
        }
    }
}
