//! Parks requests until a test lets them through.

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A gate on the way of requests. Open unless held.
#[derive(Debug, Default)]
pub struct Gate {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    held: bool,
    admitted: usize,
    waiting: usize,
}

impl Gate {
    /// Parks every request that arrives from now on.
    pub fn hold(&self) {
        self.inner.lock().held = true;
    }

    /// Lets everything through that waits or will come.
    pub fn release(&self) {
        {
            let mut inner = self.inner.lock();
            inner.held = false;
            inner.admitted = 0;
        }
        self.changed.notify_waiters();
    }

    /// Lets `count` requests through and goes on holding the others.
    pub fn admit(&self, count: usize) {
        self.inner.lock().admitted += count;
        self.changed.notify_waiters();
    }

    /// How many requests are parked.
    pub fn waiting(&self) -> usize {
        self.inner.lock().waiting
    }

    /// Waits until at least `count` requests are parked.
    pub async fn until_waiting(&self, count: usize) {
        self.until(|inner| inner.waiting >= count).await;
    }

    /// The way through for a request.
    pub(super) async fn pass(&self) {
        if !self.inner.lock().held {
            return;
        }
        let _parked = Parked::at(self);
        self.until(|inner| {
            let admitted = inner.held && inner.admitted > 0;
            if admitted {
                inner.admitted -= 1;
            }
            admitted || !inner.held
        })
        .await;
    }

    async fn until(&self, mut done: impl FnMut(&mut Inner) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that no change falls between the two.
            changed.as_mut().enable();
            if done(&mut self.inner.lock()) {
                return;
            }
            changed.await;
        }
    }
}

/// Counts a parked request, also when its connection goes away meanwhile.
struct Parked<'a>(&'a Gate);

impl<'a> Parked<'a> {
    fn at(gate: &'a Gate) -> Self {
        gate.inner.lock().waiting += 1;
        gate.changed.notify_waiters();
        Self(gate)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.inner.lock().waiting -= 1;
        self.0.changed.notify_waiters();
    }
}
