//! Spans that have ended and wait to be sent: so many and no more, and no request waits for their
//! place.

use super::{refresh::FinishedRefresh, request::FinishedRequest};
use crate::{
    config::telemetry::TracesConfig,
    metrics::{Metrics, SpansDropped},
};
use parking_lot::Mutex;
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::Notify;

/// What has ended, with all of its spans.
#[derive(Debug)]
pub(super) enum Finished {
    Request(Box<FinishedRequest>),
    Refresh(Box<FinishedRefresh>),
}

impl Finished {
    /// How many spans it is.
    fn spans(&self) -> usize {
        match self {
            Self::Request(request) => 1 + request.trace.attempts.len(),
            Self::Refresh(_) => 1,
        }
    }
}

/// Between all that records spans and the one that sends them.
#[derive(Debug)]
pub(super) struct SpanQueue {
    waiting: Mutex<WaitingSpans>,
    spans_max: usize,
    batch_max: usize,
    /// A whole batch waits.
    full: Notify,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct WaitingSpans {
    finished: VecDeque<Finished>,
    spans: usize,
}

impl SpanQueue {
    pub(super) fn new(config: &TracesConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            spans_max: config.queue_max,
            batch_max: config.batch_max,
            full: Notify::new(),
            metrics,
        })
    }

    /// Takes all of `pending`, unless another thread uses the queue at this moment. What there is no
    /// room for is dropped and counted, also where it could not be handed over for long.
    pub(super) fn try_take_in(&self, pending: &mut Vec<Finished>) {
        match self.waiting.try_lock() {
            Some(mut waiting) => self.take_in(&mut waiting, pending.drain(..)),
            None if pending.len() >= self.spans_max => {
                let lost = pending.drain(..).map(|finished| finished.spans()).sum();
                self.dropped(SpansDropped::QueueFull, lost);
            }
            None => {}
        }
    }

    /// As [`Self::try_take_in`]; waits for the others. Not for the data plane.
    pub(super) fn put(&self, finished: Finished) {
        self.take_in(&mut self.waiting.lock(), [finished]);
    }

    fn take_in(&self, waiting: &mut WaitingSpans, finished: impl IntoIterator<Item = Finished>) {
        let mut lost = 0;
        for finished in finished {
            let spans = finished.spans();
            if waiting.spans + spans > self.spans_max {
                lost += spans;
            } else {
                waiting.spans += spans;
                waiting.finished.push_back(finished);
            }
        }
        if lost > 0 {
            self.dropped(SpansDropped::QueueFull, lost);
        }
        if waiting.spans >= self.batch_max {
            self.full.notify_one();
        }
    }

    /// Returns once a whole batch waits.
    pub(super) async fn full(&self) {
        self.full.notified().await;
    }

    /// The next batch, of about as many spans as one may have, with their number.
    pub(super) fn batch(&self) -> (Vec<Finished>, usize) {
        let mut waiting = self.waiting.lock();
        let (mut batch, mut spans) = (Vec::new(), 0);
        while let Some(next) = waiting.finished.front().map(Finished::spans)
            && (batch.is_empty() || spans + next <= self.batch_max)
        {
            spans += next;
            batch.extend(waiting.finished.pop_front());
        }
        waiting.spans -= spans;
        (batch, spans)
    }

    /// Whether a whole batch waits.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.lock().spans >= self.batch_max
    }

    pub(super) fn dropped(&self, why: SpansDropped, spans: usize) {
        self.metrics.telemetry.dropped(why, spans);
    }
}
