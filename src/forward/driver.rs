//! Runs an HTTP/1.1 connection in its own task or, for a while, in that of a request.
//!
//! hyper wants a task for every connection. A request then goes through the queue of tasks on its
//! way out and on its way back, and a body of some kilobytes has left the processor's cache until
//! it is its turn. A request that carries such a body runs its connection itself. One without gains
//! nothing: then the same work of many connections, done in a row, is what the cache likes.

use http_body::{Body as _, Frame};
use hyper::body::{Bytes, Incoming};
use parking_lot::Mutex;
use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};
use tokio::task::spawn_local;

/// How often a connection is run on before its request lets others have their turn.
const ROUNDS_MAX: u32 = 4;

/// One connection, and the task that runs it.
pub(super) struct Driver {
    /// None once it has ended.
    connection: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    relay: Arc<Relay>,
    /// The relay as the connection knows it, from first to last.
    waker: Waker,
    /// The connection's own task, once it has begun.
    task: RefCell<Option<Waker>>,
    /// The request that runs it.
    request: RefCell<Option<Waker>>,
}

/// A connection's own task. The connection does not outlive it.
struct Task(Rc<Driver>);

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = &self.0;
        if !driver.task.borrow().as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *driver.task.borrow_mut() = Some(cx.waker().clone());
            if driver.request.borrow().is_none() {
                *driver.relay.target.lock() = Some(cx.waker().clone());
            }
        }
        driver.run()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let connection = self.0.connection.take();
        drop(connection);
    }
}

/// Passes a connection's wake-ups on to the task or the request that runs it.
#[derive(Default)]
struct Relay {
    target: Mutex<Option<Waker>>,
    /// Whether the connection is being run by a request, which then needs no waking.
    running: AtomicBool,
    woken: AtomicBool,
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.running.load(Ordering::Relaxed) {
            self.woken.store(true, Ordering::SeqCst);
            // Either this sees that it is not run any more, or its last runner sees that it was woken.
            if self.running.load(Ordering::SeqCst) {
                return;
            }
        }
        if let Some(target) = &*self.target.lock() {
            target.wake_by_ref();
        }
    }
}

impl Driver {
    pub(super) fn spawn(connection: impl Future<Output = ()> + 'static) -> Rc<Self> {
        let relay = Arc::new(Relay::default());
        let this = Rc::new(Self {
            connection: RefCell::new(Some(Box::pin(connection))),
            waker: Waker::from(relay.clone()),
            relay,
            task: RefCell::new(None),
            request: RefCell::new(None),
        });
        spawn_local(Task(this.clone()));
        this
    }

    /// Lets `send` give the connection a request without waking its task: what comes back is to be
    /// polled with [`Driver::poll_with`] at once.
    pub(super) fn give<T>(&self, send: impl FnOnce() -> T) -> T {
        self.relay.running.store(true, Ordering::Relaxed);
        let given = send();
        self.relay.running.store(false, Ordering::SeqCst);
        given
    }

    /// The next frame of `body`, which the connection brings.
    pub(super) fn poll_frame(
        &self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.request.borrow().is_none() {
            return Pin::new(body).poll_frame(cx);
        }
        self.poll_with(cx, |cx| Pin::new(&mut *body).poll_frame(cx))
    }

    /// Polls what the connection brings, and the connection, until neither moves the other. The
    /// connection stays with the caller until [`Driver::hand_back`].
    pub(super) fn poll_with<T>(
        &self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.serve(cx.waker());
        self.relay.running.store(true, Ordering::Relaxed);
        let mut inner = Context::from_waker(&self.waker);
        let mut polled = poll(&mut inner);
        for _ in 0..ROUNDS_MAX {
            if polled.is_ready() {
                break;
            }
            self.relay.woken.store(false, Ordering::Relaxed);
            let _ = self.run();
            polled = poll(&mut inner);
            if polled.is_pending() && !self.relay.woken.load(Ordering::SeqCst) {
                break;
            }
        }
        self.relay.running.store(false, Ordering::SeqCst);
        if polled.is_pending() && self.relay.woken.load(Ordering::SeqCst) {
            cx.waker().wake_by_ref();
        }
        polled
    }

    /// Wake-ups go to the request of `waker`.
    fn serve(&self, waker: &Waker) {
        let mut request = self.request.borrow_mut();
        if !request.as_ref().is_some_and(|request| request.will_wake(waker)) {
            *request = Some(waker.clone());
            *self.relay.target.lock() = Some(waker.clone());
        }
    }

    /// Runs the connection as far as it goes now; ready when it has ended.
    fn run(&self) -> Poll<()> {
        let mut connection = self.connection.borrow_mut();
        let Some(running) = connection.as_mut() else { return Poll::Ready(()) };
        let polled = running.as_mut().poll(&mut Context::from_waker(&self.waker));
        if polled.is_ready() {
            *connection = None;
        }
        polled
    }

    /// Ends the connection at once, also while it waits to send the rest of an upload.
    pub(super) fn end(&self) {
        // Dropped outside the borrow. It cannot be running: requests do not end in its own task.
        let connection = self.connection.try_borrow_mut().ok().and_then(|mut one| one.take());
        drop(connection);
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// The connection's own task takes over again, if a request ran it. `finish` runs it once more
    /// first, which is cheaper than the task where nothing else is left to do.
    pub(super) fn hand_back(&self, finish: bool) {
        if self.request.take().is_none() {
            return;
        }
        let task = self.task.borrow().clone();
        *self.relay.target.lock() = task.clone();
        let ended = !finish || self.run().is_ready();
        // What was woken by that run has woken the task already.
        if ended && let Some(task) = task {
            task.wake();
        }
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
