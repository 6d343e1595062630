//! The span of a token refresh, which links to the requests that it was for.

use super::{
    queue::{Finished, SpanQueue},
    sampler::Sampler,
};
use crate::{
    clock::Now,
    metrics::{RefreshOutcome, Trigger},
    trace_context::{SpanContext, SpanIds},
};
use std::{fmt, sync::Arc, time::Duration};

/// Links of one span, as the specification limits them.
const LINKS_MAX: usize = 128;

/// Records refreshes.
pub struct RefreshSpans {
    queue: Arc<SpanQueue>,
    sampler: Sampler,
    ids: SpanIds,
}

/// Requests that a refresh was begun for, or that waited for it.
#[derive(Debug, Default)]
pub struct LinkedRequests {
    pub(super) spans: Vec<SpanContext>,
    /// Those beyond the limit.
    pub(super) more: u32,
}

/// One refresh, as it ended.
#[derive(Debug)]
pub struct RefreshFacts<'a> {
    pub account: &'a str,
    pub trigger: Trigger,
    pub outcome: RefreshOutcome,
    /// Why it failed, as a stable code.
    pub error: Option<&'static str>,
    pub began: Now,
    pub took: Duration,
}

/// A refresh that is recorded.
#[derive(Debug)]
pub(super) struct FinishedRefresh {
    pub(super) span: SpanContext,
    pub(super) facts: RefreshFacts<'static>,
    pub(super) account: String,
    pub(super) requests: LinkedRequests,
}

impl LinkedRequests {
    pub fn add(&mut self, span: SpanContext) {
        match self.spans.len() < LINKS_MAX {
            true => self.spans.push(span),
            false => self.more = self.more.saturating_add(1),
        }
    }
}

impl fmt::Debug for RefreshSpans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshSpans")
    }
}

impl RefreshSpans {
    pub(super) fn new(queue: Arc<SpanQueue>, sampler: Sampler) -> Self {
        Self { queue, sampler, ids: SpanIds::default() }
    }

    /// A refresh has ended. It is a trace of its own, recorded also where one of the requests is.
    pub fn end(&self, facts: &RefreshFacts<'_>, requests: LinkedRequests) {
        let root = self.ids.root();
        if requests.spans.is_empty() && !self.sampler.samples_root(root) {
            return;
        }
        self.queue.put(Finished::Refresh(Box::new(FinishedRefresh {
            span: root.with(root.span_id, true),
            account: facts.account.to_owned(),
            facts: RefreshFacts { account: "", ..*facts },
            requests,
        })));
    }
}
