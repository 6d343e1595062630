//! Coarse timers of one worker: cheap to arm and disarm, a quarter of a second exact.
//!
//! Nearly every timer of the data plane is disarmed unfired, so arming must cost nothing worth
//! mentioning: a slot in a table and a waker, no timer wheel, no system call.

use slab::Slab;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// How exact the timers are.
pub const TICK: Duration = Duration::from_millis(250);

/// The timers of one worker. Its owner calls [`Deadlines::advance`] every [`TICK`].
#[derive(Debug)]
pub struct Deadlines {
    started: Instant,
    now: Cell<u64>,
    slots: RefCell<Slab<TimerSlot>>,
}

#[derive(Debug)]
struct TimerSlot {
    due: u64,
    waker: Option<Waker>,
}

impl Deadlines {
    pub fn new() -> Rc<Self> {
        Rc::new(Self { started: Instant::now(), now: Cell::new(0), slots: RefCell::default() })
    }

    /// Ticks since the worker began.
    pub fn now(&self) -> u64 {
        self.now.get()
    }

    /// A duration in ticks, rounded up; one more, because the current tick is partly over.
    pub fn ticks(duration: Duration) -> u64 {
        let ticks = duration.as_millis().div_ceil(TICK.as_millis());
        u64::try_from(ticks).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Moves to the present and wakes what is due.
    pub fn advance(&self) {
        let elapsed = self.started.elapsed().as_millis() / TICK.as_millis();
        let now = u64::try_from(elapsed).unwrap_or(u64::MAX);
        self.now.set(now);
        let mut due = Vec::new();
        for (_, slot) in &mut *self.slots.borrow_mut() {
            if slot.due <= now {
                due.extend(slot.waker.take());
            }
        }
        // Woken outside the borrow: a waker may run code that arms a timer.
        due.into_iter().for_each(Waker::wake);
    }

    pub fn timer(self: &Rc<Self>) -> Timer {
        Timer { deadlines: self.clone(), key: None }
    }

    /// Runs `future` for at most `limit`; `None` when that was not enough.
    ///
    /// # Cancel safety
    /// As safe as `future`.
    pub async fn within<F: Future>(
        self: &Rc<Self>,
        limit: Duration,
        future: F,
    ) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        let mut timer = self.timer();
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => timer.poll_after(limit, cx).map(|()| None),
        })
        .await
    }
}

/// One timer. Dropping it disarms it.
#[derive(Debug)]
pub struct Timer {
    deadlines: Rc<Deadlines>,
    key: Option<usize>,
}

impl Timer {
    /// Ready once `after` has passed since the first call that armed it.
    pub fn poll_after(&mut self, after: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let mut slots = self.deadlines.slots.borrow_mut();
        if let Some(key) = self.key {
            let slot = &mut slots[key];
            if slot.due <= self.deadlines.now.get() {
                return Poll::Ready(());
            }
            if !slot.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                slot.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let due = self.deadlines.now.get().saturating_add(Deadlines::ticks(after));
        self.key = Some(slots.insert(TimerSlot { due, waker: Some(cx.waker().clone()) }));
        Poll::Pending
    }

    /// Disarms: the next [`Timer::poll_after`] starts anew.
    pub fn disarm(&mut self) {
        if let Some(key) = self.key.take() {
            self.deadlines.slots.borrow_mut().remove(key);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.disarm();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[test]
    fn a_future_that_is_in_time_wins() {
        let deadlines = Deadlines::new();
        let mut cx = Context::from_waker(Waker::noop());
        let mut run = std::pin::pin!(deadlines.within(Duration::from_secs(1), async { 7 }));
        assert_eq!(run.as_mut().poll(&mut cx), Poll::Ready(Some(7)));
        assert_eq!(deadlines.slots.borrow().len(), 0);
    }

    #[test]
    fn a_future_that_never_ends_is_cut_and_its_slot_freed() {
        let deadlines = Deadlines::new();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            let mut run = Box::pin(deadlines.within(Duration::from_secs(1), pending::<()>()));
            assert_eq!(run.as_mut().poll(&mut cx), Poll::Pending);
            deadlines.now.set(deadlines.now.get() + Deadlines::ticks(Duration::from_secs(1)));
            assert_eq!(deadlines.slots.borrow().len(), 1);
            assert_eq!(run.as_mut().poll(&mut cx), Poll::Ready(None));
        }
        assert_eq!(deadlines.slots.borrow().len(), 0);
    }
}
