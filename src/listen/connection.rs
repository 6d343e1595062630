//! What a worker knows of one open connection.
//!
//! hyper's own header timer costs 5 % of a request and does not see a first byte that never
//! comes, so a sweep once a second judges all connections by these few cells.

use super::preface::Preface;
use crate::{caller_body::UnreadBody, inbound::peer::Peer};
use hyper::rt::ReadBufCursor;
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// How long a closing connection may take to read on after its last byte was written.
const LINGERING_SECS: u32 = 1;
/// What a caller may have sent behind a whole request whose response announced the end, bytes.
const PIPELINED_MAX_BYTES: u64 = 64 * 1024;
/// So many requests more than were served may be reset before their response; each has cost a
/// connection to Amazon.
const EARLY_RESETS_MAX: u32 = 100;
/// How long an unread rest of a request body may pause.
const DISCARD_PAUSE_SECS: u32 = 5;
/// A rest up to this size is read and discarded, and the connection goes on, bytes.
const DISCARD_MAX_BYTES: u64 = 256 * 1024;

/// How a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Not at all.
    Open,
    /// After the requests in flight.
    Gracefully,
    /// At once.
    Now,
}

/// How far the response to one request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResponseState {
    /// There is no such request.
    Free,
    /// Amazon or the proxy is to go on.
    Pending,
    /// The caller is to read, since then.
    Offered(u32),
}

/// One open connection. Times are seconds of the worker's sweep.
#[derive(Debug)]
pub struct Connection {
    /// Bytes to be read again.
    preface: Cell<Preface>,
    /// Whether the first byte has come.
    has_begun: Cell<bool>,
    http2: Cell<bool>,
    pub(super) peer: Peer,
    pub(super) unread: Rc<UnreadBody>,
    /// Since when a rest of a request body is discarded, and when something of it came last.
    discarding: Cell<Option<(u32, u32)>>,
    /// How many bytes may still be read once the writing side is shut.
    lingering_bytes: Cell<u64>,
    lingering_since: Cell<Option<u32>>,
    requests: Cell<u32>,
    idle_since: Cell<u32>,
    first_byte: Cell<Option<u32>>,
    write_blocked_since: Cell<Option<u32>>,
    /// One for every request in flight, and for as many as there were at once.
    responses: RefCell<Vec<ResponseState>>,
    served: Cell<bool>,
    /// Requests reset before their response, less those that were served.
    early_resets: Cell<u32>,
    /// Whether every response begun has been written out.
    settled: Cell<bool>,
    close: Cell<Close>,
    clock: Rc<Cell<u32>>,
}

impl Connection {
    /// A connection just accepted.
    pub(super) fn new(peer: Peer, clock: &Rc<Cell<u32>>) -> Rc<Self> {
        Rc::new(Self {
            preface: Cell::default(),
            has_begun: Cell::new(false),
            http2: Cell::new(false),
            peer,
            unread: Rc::default(),
            discarding: Cell::new(None),
            lingering_bytes: Cell::new(0),
            lingering_since: Cell::new(None),
            requests: Cell::new(0),
            idle_since: Cell::new(clock.get()),
            first_byte: Cell::new(None),
            write_blocked_since: Cell::new(None),
            responses: RefCell::default(),
            served: Cell::new(false),
            early_resets: Cell::new(0),
            settled: Cell::new(true),
            close: Cell::new(Close::Open),
            clock: clock.clone(),
        })
    }

    /// The first byte has come, and says what the caller speaks.
    pub(super) fn begin(&self, http2: bool, preface: Preface) {
        self.preface.set(preface);
        self.has_begun.set(true);
        self.http2.set(http2);
        self.first_byte.set(Some(self.clock.get()));
    }

    /// Whether the first byte has come.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.get()
    }

    /// For how long its first byte, or the TLS handshake, has been awaited.
    pub(super) fn beginning_secs(&self) -> u32 {
        self.since(Some(self.idle_since.get()).filter(|_| !self.has_begun.get()))
    }

    /// Since when it waits for its first request, if it does.
    pub(super) fn waits_since(&self) -> Option<u32> {
        let waits = !self.served.get() && self.close.get() == Close::Open;
        waits.then(|| self.idle_since.get())
    }

    /// Every response begun has been written out.
    pub(super) fn settle(&self) {
        if !self.is_busy() {
            self.settled.set(true);
        }
    }

    /// Whether what is written next belongs to no response of the service.
    pub(super) fn is_settled(&self) -> bool {
        self.settled.get()
    }

    /// Ready when it is to end at once.
    pub(super) async fn closed(&self) {
        poll_fn(|cx| {
            self.register(cx.waker());
            if self.close.get() == Close::Now { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Gives the bytes out that were read first, once: whether there were any.
    pub(super) fn take_preface(&self, buf: &mut ReadBufCursor<'_>) -> bool {
        let preface = self.preface.get();
        let bytes = preface.bytes();
        if bytes.is_empty() || buf.remaining() < bytes.len() {
            return false;
        }
        buf.put_slice(bytes);
        self.preface.take();
        true
    }

    /// Bytes have come.
    pub(super) fn received(&self) {
        if !self.is_busy() && self.first_byte.get().is_none() && !self.unread.is_discarding() {
            self.first_byte.set(Some(self.clock.get()));
        }
    }

    /// Bytes could be written, or not.
    pub(super) fn wrote(&self, is_blocked: bool) {
        let since = self.write_blocked_since.get().unwrap_or_else(|| self.clock.get());
        self.write_blocked_since.set(is_blocked.then_some(since));
    }

    /// What is behind a head that cannot be read is unknown.
    pub(super) fn cannot_parse(&self) {
        self.lingering_bytes.set(u64::MAX);
    }

    /// Whether the caller may send on now that the writing side is shut.
    pub(super) fn lingers(&self) -> bool {
        let lingers = self.lingering_bytes.get() > 0;
        if lingers && self.lingering_since.get().is_none() {
            self.lingering_since.set(Some(self.clock.get()));
        }
        lingers
    }

    /// So many bytes have come that are not wanted.
    pub(super) fn lingered(&self, bytes: usize) {
        let left = self.lingering_bytes.get();
        if left < u64::MAX {
            self.lingering_bytes.set(left.saturating_sub(bytes as u64));
        }
    }

    /// Whether the caller speaks HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.http2.get()
    }

    /// A request begins; it is in flight until the guard is dropped.
    pub(super) fn request(self: &Rc<Self>) -> InFlight {
        self.requests.set(self.requests.get() + 1);
        self.served.set(true);
        self.settled.set(false);
        self.first_byte.set(None);
        InFlight {
            connection: self.clone(),
            response: self.response(),
            has_response: Cell::new(false),
        }
    }

    /// A request has ended, served or reset before its response. Too many resets end an HTTP/2
    /// connection: after the requests in flight, and at once where the resets go on.
    fn count_end(&self, has_response: bool) {
        let resets = self.early_resets.get();
        let resets = if has_response { resets.saturating_sub(1) } else { resets + 1 };
        self.early_resets.set(resets);
        if resets > 2 * EARLY_RESETS_MAX {
            self.close(Close::Now);
        } else if resets > EARLY_RESETS_MAX && self.http2.get() && self.close.get() == Close::Open {
            self.close(Close::Gracefully);
        }
    }

    /// A slot for the state of one more response.
    fn response(&self) -> usize {
        let mut responses = self.responses.borrow_mut();
        let free = responses.iter().position(|state| *state == ResponseState::Free);
        let at = free.unwrap_or(responses.len());
        if free.is_none() {
            responses.push(ResponseState::Pending);
        }
        responses[at] = ResponseState::Pending;
        at
    }

    /// Whether requests are in flight.
    pub(super) fn is_busy(&self) -> bool {
        self.requests.get() > 0
    }

    /// Asks its task to end it.
    pub(super) fn close(&self, how: Close) {
        if self.close.replace(how) == how {
            return;
        }
        self.unread.wake();
    }

    pub(super) fn closing(&self) -> Close {
        self.close.get()
    }

    /// Remembers how to wake the connection's task.
    pub(super) fn register(&self, waker: &Waker) {
        self.unread.register(waker);
    }

    /// Whether the response to the current request must announce the end of the connection: so
    /// much of the request's body is still to come that its end is not waited for.
    pub(super) fn must_announce_end(&self) -> bool {
        self.unread.remaining().is_some_and(|remaining| remaining > DISCARD_MAX_BYTES)
    }

    /// The end of the connection was announced.
    pub(super) fn announced_end(&self) {
        let is_unread = self.unread.remaining().is_some();
        self.lingering_bytes.set(if is_unread { u64::MAX } else { PIPELINED_MAX_BYTES });
    }

    /// Reads what has come of an unread rest of a request body.
    pub(super) fn poll_discard(&self, cx: &mut Context<'_>) {
        let has_come = self.unread.poll_discard(cx);
        if !self.unread.is_discarding() {
            if self.discarding.take().is_some() || has_come {
                let most = self.lingering_bytes.get().min(PIPELINED_MAX_BYTES);
                self.lingering_bytes.set(most);
            }
            return;
        }
        let now = self.clock.get();
        let (since, last) = self.discarding.get().unwrap_or((now, now));
        self.discarding.set(Some((since, if has_come { now } else { last })));
    }

    /// Reads no more of an unread rest, so that the connection ends.
    pub(super) fn abandon_rest(&self) {
        self.lingering_bytes.set(u64::MAX);
        self.unread.abandon();
    }

    /// Whether an unread rest has paused for too long, or has been coming for more than `limit`.
    pub(super) fn discards_too_long(&self, limit: u64) -> bool {
        self.discarding.get().is_some_and(|(since, last)| {
            self.since(Some(last)) > DISCARD_PAUSE_SECS
                || u64::from(self.since(Some(since))) > limit
        })
    }

    /// Whether the last byte was written long enough ago to close.
    pub(super) fn lingers_too_long(&self) -> bool {
        self.since(self.lingering_since.get()) > LINGERING_SECS
    }

    /// Whether nothing of a response is left to write.
    pub(super) fn has_responded(&self) -> bool {
        !self.is_busy() && self.settled.get()
    }

    /// For how long a request's header has been arriving.
    pub(super) fn header_secs(&self) -> u32 {
        if self.unread.is_discarding() {
            return 0;
        }
        // Between requests HTTP/2 sends frames of its own, which are no header.
        let between = self.http2.get() && self.served.get();
        self.since(self.first_byte.get().filter(|_| !self.is_busy() && !between))
    }

    /// For how long there has been no request at all.
    pub(super) fn idle_secs(&self) -> u32 {
        let idle = self.has_begun.get()
            && !self.is_busy()
            && (self.http2.get() || self.first_byte.get().is_none());
        self.since(Some(self.idle_since.get()).filter(|_| idle))
    }

    /// For how long the caller has not read what was written, or what there is of a response: HTTP/2
    /// has windows that the caller can shut while the socket takes all.
    pub(super) fn write_blocked_secs(&self) -> u32 {
        let responses = self.responses.borrow();
        let waiting = responses.iter().filter_map(|state| match state {
            ResponseState::Offered(since) => Some(*since),
            ResponseState::Free | ResponseState::Pending => None,
        });
        self.since(waiting.chain(self.write_blocked_since.get()).min())
    }

    fn since(&self, when: Option<u32>) -> u32 {
        when.map_or(0, |when| self.clock.get().saturating_sub(when))
    }
}

/// A request in flight on a connection.
#[derive(Debug)]
pub struct InFlight {
    connection: Rc<Connection>,
    /// Its slot among the connection's responses.
    response: usize,
    has_response: Cell<bool>,
}

impl InFlight {
    /// The caller is to read what there is of the response.
    pub(super) fn offered(&self) {
        self.has_response.set(true);
        self.set(ResponseState::Offered(self.connection.clock.get()));
    }

    /// The caller has read everything and waits for more.
    pub(super) fn asked(&self) {
        self.set(ResponseState::Pending);
    }

    fn set(&self, state: ResponseState) {
        self.connection.responses.borrow_mut()[self.response] = state;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.set(ResponseState::Free);
        let connection = &self.connection;
        connection.count_end(self.has_response.get());
        connection.requests.set(connection.requests.get() - 1);
        connection.idle_since.set(connection.clock.get());
    }
}
