//! Parks requests until a test lets them through.

use tokio::sync::watch;

/// A gate on the way of requests. Open unless held.
#[derive(Debug, Default)]
pub struct RequestGate(watch::Sender<Passage>);

#[derive(Debug, Default)]
struct Passage {
    held: bool,
    admitted: usize,
    waiting: usize,
}

impl RequestGate {
    /// Parks every request that arrives from now on.
    pub fn hold(&self) {
        self.0.send_modify(|passage| passage.held = true);
    }

    /// Lets everything through that waits or will come.
    pub fn release(&self) {
        self.0.send_modify(|passage| (passage.held, passage.admitted) = (false, 0));
    }

    /// Lets `count` requests through and goes on holding the others.
    pub fn admit(&self, count: usize) {
        self.0.send_modify(|passage| passage.admitted += count);
    }

    /// How many requests are parked.
    pub fn waiting(&self) -> usize {
        self.0.borrow().waiting
    }

    /// Waits until at least `count` requests are parked.
    pub async fn until_waiting(&self, count: usize) {
        // The sender is `self`: the channel does not close meanwhile.
        drop(self.0.subscribe().wait_for(|passage| passage.waiting >= count).await);
    }

    /// Waits for the way through.
    pub(super) async fn pass(&self) {
        if !self.0.borrow().held {
            return;
        }
        // Before the first look, so that no change falls between look and wait.
        let mut changes = self.0.subscribe();
        let _parked = Parked::at(self);
        while !self.is_let_through() {
            drop(changes.changed().await);
        }
    }

    fn is_let_through(&self) -> bool {
        let used_one = self.0.send_if_modified(|passage| {
            let is_admitted = passage.held && passage.admitted > 0;
            passage.admitted -= usize::from(is_admitted);
            is_admitted
        });
        used_one || !self.0.borrow().held
    }
}

/// Counts a parked request, also when its connection goes away meanwhile.
struct Parked<'a>(&'a RequestGate);

impl<'a> Parked<'a> {
    fn at(gate: &'a RequestGate) -> Self {
        gate.0.send_modify(|passage| passage.waiting += 1);
        Self(gate)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|passage| passage.waiting -= 1);
    }
}
