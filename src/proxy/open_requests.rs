//! The requests of one worker that are in flight with a credential that can end: each ends with it.

use super::error::Error;
use crate::{
    callers::{Principal, Unauthenticated, sessions::FOLLOW_INTERVAL},
    clock::Now,
    deadline::TICK,
};
use slab::Slab;
use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// What is revoked ends within a second: a look at the store finds it, the next tick ends what is open,
/// and each has time to spare.
const _: () = assert!(FOLLOW_INTERVAL.as_millis() + TICK.as_millis() <= 750);

/// Its owner calls [`OpenRequests::end`] several times a second.
#[derive(Default)]
pub struct OpenRequests(RefCell<Slab<WatchedRequest>>);

struct WatchedRequest {
    principal: Arc<Principal>,
    waker: Option<Waker>,
    has_ended: bool,
}

/// One of them; it is over when this is dropped.
pub struct OpenRequest {
    requests: Rc<OpenRequests>,
    pub number: usize,
}

impl OpenRequests {
    /// A request of `principal` begins, if there is one whose credential can end.
    pub fn begin(
        self: &Rc<Self>,
        principal: Option<&Option<Arc<Principal>>>,
    ) -> Option<OpenRequest> {
        let principal = principal?.as_ref().filter(|principal| principal.can_end())?.clone();
        let request = WatchedRequest { principal, waker: None, has_ended: false };
        let number = self.0.borrow_mut().insert(request);
        Some(OpenRequest { requests: self.clone(), number })
    }

    /// Runs `proxied` to its end, or until the credential of the request `number` has ended.
    pub async fn until_ended<T>(
        &self,
        number: Option<usize>,
        mut proxied: Pin<&mut impl Future<Output = Result<T, Error>>>,
    ) -> Result<T, Error> {
        poll_fn(|cx| match number.map_or(Poll::Pending, |number| self.poll_ended(number, cx)) {
            Poll::Ready(()) => Poll::Ready(Err(Unauthenticated::Rejected.into())),
            Poll::Pending => proxied.as_mut().poll(cx),
        })
        .await
    }

    fn poll_ended(&self, number: usize, cx: &mut Context<'_>) -> Poll<()> {
        let request = &mut self.0.borrow_mut()[number];
        if request.has_ended {
            return Poll::Ready(());
        }
        if !request.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            request.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Ends the requests whose credential has been revoked or has expired by `now`. Each is asked,
    /// which is one load: what revokes a credential need not know who uses it.
    pub fn end(&self, now: Now) {
        let mut ended = Vec::new();
        for (_, request) in &mut *self.0.borrow_mut() {
            if !request.has_ended && request.principal.has_ended(now) {
                request.has_ended = true;
                ended.extend(request.waker.take());
            }
        }
        // Woken outside of the borrow: a waker may run code that ends a request.
        ended.into_iter().for_each(Waker::wake);
    }
}

impl OpenRequest {
    /// Ready once its credential has ended.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.requests.poll_ended(self.number, cx)
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.requests.0.borrow_mut().remove(self.number);
    }
}
