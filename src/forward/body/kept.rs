//! What is kept of a request body for a replay, under the limits.

use super::{BodyError, Capture, CaptureState, Stage, frames::Frames, spill::Spill};
use crate::metrics::LimitHit;
use bytes::Bytes;
use std::{
    future::poll_fn,
    io, mem,
    task::{Poll, ready},
};

pub(super) enum KeptBody {
    Memory(Frames),
    Disk(Spill),
    Nothing,
}

impl Capture {
    pub(super) fn is_replayable(&self) -> bool {
        !matches!(self.state.borrow().kept, KeptBody::Nothing)
    }

    /// Whether all of the body is in memory.
    pub fn is_here(&self) -> bool {
        let state = self.state.borrow();
        self.size.exact() == Some(state.kept_bytes) && matches!(state.kept, KeptBody::Memory(_))
    }

    /// Waits for all of the body and returns a copy; none if it is not all in memory.
    ///
    /// # Cancel safety
    /// Safe: what was received stays captured.
    pub async fn whole(&self) -> Result<Option<Vec<u8>>, BodyError> {
        while let Some(data) = poll_fn(|cx| self.poll_source(cx)).await {
            data?;
            if !self.is_in_memory() {
                return Ok(None);
            }
        }
        let KeptBody::Memory(frames) = &mut self.state.borrow_mut().kept else { return Ok(None) };
        let mut whole = Vec::new();
        while let Some(data) = frames.read(whole.len() as u64) {
            whole.extend_from_slice(&data);
        }
        Ok(Some(whole))
    }

    fn is_in_memory(&self) -> bool {
        matches!(self.state.borrow().kept, KeptBody::Memory(_))
    }

    /// Keeps `data` for a replay as long as the limits allow.
    pub(super) fn keep(&self, state: &mut CaptureState, data: &Bytes) {
        if matches!(state.kept, KeptBody::Nothing) {
            return;
        }
        let limits = &self.context.limits.replay;
        let kept = state.kept_bytes + data.len() as u64;
        if kept > limits.disk_max_bytes.max(limits.memory_max_bytes) {
            self.context.metrics.limit(LimitHit::CaptureDisk);
            return self.drop_kept(state);
        }
        if !self.charge(state, kept) {
            self.context.metrics.limit(LimitHit::CaptureTotal);
            return self.drop_kept(state);
        }
        state.kept_bytes = kept;
        match &mut state.kept {
            KeptBody::Memory(frames) if kept <= limits.memory_max_bytes => {
                frames.push(data.clone());
            }
            KeptBody::Memory(frames) => {
                self.context.metrics.limit(LimitHit::CaptureMemory);
                let mut spill = Spill::new(limits.directory.clone(), mem::take(frames));
                spill.queued.push(data.clone());
                state.kept = KeptBody::Disk(spill);
            }
            KeptBody::Disk(spill) => spill.queued.push(data.clone()),
            KeptBody::Nothing => {}
        }
    }

    /// Takes of the common budget what is lacking to hold `bytes`, unless that is too much.
    pub(super) fn charge(&self, state: &mut CaptureState, bytes: u64) -> bool {
        let more = bytes.saturating_sub(state.charged);
        let now = self.context.deadlines.now();
        if more > 0 && !self.context.limits.budget.take(self.share, more, bytes, now) {
            return false;
        }
        state.charged += more;
        true
    }

    fn drop_kept(&self, state: &mut CaptureState) {
        self.context.limits.budget.give_back(self.share, mem::take(&mut state.charged));
        state.kept_bytes = 0;
        state.kept = KeptBody::Nothing;
    }

    pub(super) fn forget_what_is_read(&self, state: &mut CaptureState) {
        if self.stage.get() != Stage::Sending && self.given.get() >= state.kept_bytes {
            self.drop_kept(state);
        }
    }

    /// Polls what is on its way to the disk. A full disk costs the replay, not the request.
    pub(super) fn poll_spill(
        &self,
        state: &mut CaptureState,
        poll: impl FnOnce(&mut Spill) -> Poll<io::Result<()>>,
    ) -> Poll<()> {
        if let KeptBody::Disk(spill) = &mut state.kept
            && ready!(poll(spill)).is_err()
        {
            self.drop_kept(state);
        }
        Poll::Ready(())
    }
}
