//! Holds a request body back until Amazon has said whether it wants it.

use parking_lot::Mutex;
use std::task::{Context, Poll, Waker};

/// Holds a body back until Amazon says `100 Continue`. CaptureShared with hyper's callback, which must be
/// `Send` although it runs on the same thread.
#[derive(Debug, Default)]
pub struct ContinueGate(Mutex<GateState>);

#[derive(Debug, Default)]
struct GateState {
    pass: Option<Pass>,
    waker: Option<Waker>,
}

/// What became of a body that was held back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pass {
    Open,
    Shut,
}

impl ContinueGate {
    pub fn open(&self) {
        self.decide(Pass::Open);
    }

    pub(super) fn shut(&self) {
        self.decide(Pass::Shut);
    }

    fn decide(&self, pass: Pass) {
        let mut gate = self.0.lock();
        gate.pass.get_or_insert(pass);
        let waker = gate.waker.take();
        drop(gate);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Pass> {
        let mut gate = self.0.lock();
        if gate.pass.is_none() {
            gate.waker = Some(cx.waker().clone());
        }
        gate.pass.map_or(Poll::Pending, Poll::Ready)
    }
}
