//! One request in flight on a connection, and how far its response is.

use super::connection::Connection;
use std::{cell::Cell, rc::Rc};

/// How far the response to one request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseState {
    /// There is no such request.
    Free,
    /// Amazon or the proxy is to go on.
    Pending,
    /// The caller is to read, since then.
    Offered(u32),
}

/// A request in flight on a connection.
#[derive(Debug)]
pub(super) struct InFlight {
    connection: Rc<Connection>,
    /// The index of its state among the connection's responses.
    response: usize,
    has_response: Cell<bool>,
}

impl InFlight {
    /// One whose state is that at `response`.
    pub(super) fn new(connection: &Rc<Connection>, response: usize) -> Self {
        Self { connection: connection.clone(), response, has_response: Cell::new(false) }
    }

    /// The caller is to read what there is of the response.
    pub(super) fn offered(&self) {
        self.has_response.set(true);
        self.set(ResponseState::Offered(self.connection.clock.get()));
    }

    /// The caller has read everything and waits for more.
    pub(super) fn pending(&self) {
        self.set(ResponseState::Pending);
    }

    fn set(&self, state: ResponseState) {
        self.connection.responses.borrow_mut()[self.response] = state;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.set(ResponseState::Free);
        self.connection.end_request(self.has_response.get());
    }
}
