//! What a worker knows of one open connection.
//!
//! hyper's own header timer costs 5 % of a request and does not see a first byte that never
//! comes, so a sweep once a second judges all connections by these few cells.

use super::{
    in_flight::{InFlight, ResponseState},
    listener::LINGERING_CLOSE_TIMEOUT,
    preface::Preface,
};
use crate::{caller_body::UnreadBody, config, inbound::peer, metrics::LimitHit};
use hyper::rt::ReadBufCursor;
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// [`LINGERING_CLOSE_TIMEOUT`] while the server stops.
const DRAIN_LINGERING_TIMEOUT: Duration = Duration::from_millis(300);
/// What a caller may have sent behind a whole request whose response announced the end, bytes.
const PIPELINED_MAX_BYTES: u64 = 64 * 1024;
/// So many requests may be reset before their response; each may have cost a connection to Amazon.
const EARLY_RESETS_MAX: u32 = 100;
/// So many served requests make up for one that was reset.
const SERVED_PER_RESET: u32 = 8;
/// How long an unread rest of a request body may pause.
const DISCARD_PAUSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A rest up to this size is read and discarded, and the connection goes on, bytes.
const DISCARD_MAX_BYTES: u64 = 256 * 1024;
/// A connection that has served requests is evicted only after so many seconds without one: the
/// next may be on its way.
const EVICTION_IDLE_SECS: u32 = 2;
/// The lowest eviction rank of a connection that has served requests.
pub(super) const SERVED_RANK: u64 = 1 << 63;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    Open,
    /// After the requests in flight.
    Gracefully,
    Now,
}

/// One open connection. Times are seconds of the worker's sweep.
#[derive(Debug)]
pub(super) struct Connection {
    /// Bytes to be read again.
    preface: Cell<Preface>,
    /// Whether the first byte has come.
    pub(super) has_begun: Cell<bool>,
    pub(super) is_http2: Cell<bool>,
    info: RefCell<Rc<peer::ConnectionInfo>>,
    /// How many connections of all workers came before.
    pub(super) arrival: u64,
    pub(super) unread: Rc<UnreadBody>,
    /// Since when a rest of a request body is discarded, and when something of it came last.
    discarding: Cell<Option<(u32, u32)>>,
    /// How many bytes may still be read once the writing side is shut.
    pub(super) lingering_bytes: Cell<u64>,
    lingering_since: Cell<Option<u32>>,
    requests: Cell<u32>,
    idle_since: Cell<u32>,
    /// When the first byte of the next request came.
    first_byte: Cell<Option<u32>>,
    write_blocked_since: Cell<Option<u32>>,
    /// One for every request in flight, and for as many as there were at once.
    pub(super) responses: RefCell<Vec<ResponseState>>,
    /// Requests reset before their response, in parts of one served request.
    early_resets: Cell<u32>,
    /// Whether every response begun has been written out.
    pub(super) is_flushed: Cell<bool>,
    pub(super) close: Cell<Close>,
    /// When, in the drain, nothing of a response was left to write.
    responded_at: Cell<Option<Duration>>,
    pub(super) clock: Rc<Cell<u32>>,
}

impl Connection {
    pub(super) fn new(info: peer::ConnectionInfo, arrival: u64, clock: &Rc<Cell<u32>>) -> Rc<Self> {
        Rc::new(Self {
            preface: Cell::default(),
            has_begun: Cell::new(false),
            is_http2: Cell::new(false),
            info: RefCell::new(Rc::new(info)),
            arrival,
            unread: Rc::default(),
            discarding: Cell::new(None),
            lingering_bytes: Cell::new(0),
            lingering_since: Cell::new(None),
            requests: Cell::new(0),
            idle_since: Cell::new(clock.get()),
            first_byte: Cell::new(None),
            write_blocked_since: Cell::new(None),
            responses: RefCell::default(),
            early_resets: Cell::new(0),
            is_flushed: Cell::new(true),
            close: Cell::new(Close::Open),
            responded_at: Cell::new(None),
            clock: clock.clone(),
        })
    }

    /// What a service is handed of it.
    pub(super) fn info(&self) -> Rc<peer::ConnectionInfo> {
        self.info.borrow().clone()
    }

    /// The certificate of the handshake, before the first request.
    pub(super) fn set_certificate(&self, certificate: Option<peer::ClientCertificate>) {
        Rc::make_mut(&mut self.info.borrow_mut()).certificate = certificate.map(Arc::new);
    }

    /// The first byte has come, and shows what the caller speaks.
    pub(super) fn begin(&self, is_http2: bool, preface: Preface) {
        self.preface.set(preface);
        self.has_begun.set(true);
        self.is_http2.set(is_http2);
        self.first_byte.set(Some(self.clock.get()));
    }

    /// Its rank among those that may be evicted for another connection, the lowest first: those
    /// that wait longest for their first request, then those that wait longest for their next.
    pub(super) fn eviction_rank(&self) -> Option<u64> {
        if self.close.get() != Close::Open {
            return None;
        }
        if !self.has_served() {
            return Some(self.arrival);
        }
        let since = self.idle().or(self.head())?;
        let is_old = since.saturating_add(EVICTION_IDLE_SECS) <= self.clock.get();
        is_old.then(|| SERVED_RANK | u64::from(since))
    }

    /// All bytes so far are on their way.
    pub(super) fn flushed(&self) {
        if !self.is_busy() {
            self.is_flushed.set(true);
        }
    }

    /// Ready when it is to end at once.
    pub(super) async fn closed(&self) {
        poll_fn(|cx| {
            self.unread.register(cx.waker());
            if self.close.get() == Close::Now { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Gives out, once, the bytes that were read first: whether there were any.
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

    pub(super) fn received(&self) {
        if !self.is_busy() && self.first_byte.get().is_none() && !self.unread.is_discarding() {
            self.first_byte.set(Some(self.clock.get()));
        }
    }

    pub(super) fn wrote(&self, is_blocked: bool) {
        let since = self.write_blocked_since.get().unwrap_or_else(|| self.clock.get());
        self.write_blocked_since.set(is_blocked.then_some(since));
    }

    /// Whether the caller may send on now that the writing side is shut.
    pub(super) fn is_lingering(&self) -> bool {
        let is_lingering = self.lingering_bytes.get() > 0;
        if is_lingering && self.lingering_since.get().is_none() {
            self.lingering_since.set(Some(self.clock.get()));
        }
        is_lingering
    }

    /// So many bytes have come that are discarded.
    pub(super) fn lingered(&self, bytes: usize) {
        let left = self.lingering_bytes.get();
        if left < u64::MAX {
            self.lingering_bytes.set(left.saturating_sub(bytes as u64));
        }
    }

    /// A request begins; it is in flight until the guard is dropped.
    pub(super) fn request(self: &Rc<Self>) -> InFlight {
        self.requests.set(self.requests.get() + 1);
        self.is_flushed.set(false);
        self.first_byte.set(None);
        let mut responses = self.responses.borrow_mut();
        let free = responses.iter().position(|state| *state == ResponseState::Free);
        let response = free.unwrap_or_else(|| {
            responses.push(ResponseState::Free);
            responses.len() - 1
        });
        responses[response] = ResponseState::Pending;
        InFlight::new(self, response)
    }

    /// A request has ended, served or reset before its response. Too many resets end an HTTP/2
    /// connection: after the requests in flight, and at once where the resets go on.
    pub(super) fn end_request(&self, has_response: bool) {
        self.requests.set(self.requests.get() - 1);
        self.idle_since.set(self.clock.get());
        let resets = self.early_resets.get();
        let resets =
            if has_response { resets.saturating_sub(1) } else { resets + SERVED_PER_RESET };
        self.early_resets.set(resets);
        let resets = resets.div_ceil(SERVED_PER_RESET);
        if resets > 2 * EARLY_RESETS_MAX {
            self.close(Close::Now);
        } else if resets > EARLY_RESETS_MAX
            && self.is_http2.get()
            && self.close.get() == Close::Open
        {
            self.close(Close::Gracefully);
        }
    }

    fn has_served(&self) -> bool {
        !self.responses.borrow().is_empty()
    }

    fn is_busy(&self) -> bool {
        self.requests.get() > 0
    }

    pub(super) fn close(&self, how: Close) {
        if self.close.replace(how) != how {
            self.unread.wake();
        }
    }

    /// Whether the response to the current request must announce the end of the connection: so
    /// much of the request's body is still to come that its end is not waited for.
    pub(super) fn must_announce_end(&self) -> bool {
        self.unread.remaining.get().is_some_and(|remaining| remaining > DISCARD_MAX_BYTES)
    }

    pub(super) fn announced_end(&self) {
        let is_unread = self.unread.remaining.get().is_some();
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

    /// Ends it in a drain that has lasted for `elapsed`. The rest of a body whose response is out is
    /// read for a moment only, so that the caller reads the response.
    pub(super) fn drain(&self, elapsed: Duration) {
        if self.is_busy() || !self.is_flushed.get() {
            return self.close(Close::Gracefully);
        }
        let responded_at = self.responded_at.get().unwrap_or(elapsed);
        self.responded_at.set(Some(responded_at));
        if elapsed >= responded_at + DRAIN_LINGERING_TIMEOUT {
            return self.close(Close::Now);
        }
        if self.unread.is_discarding() {
            self.abandon_rest();
        }
        self.close(Close::Gracefully);
    }

    /// Ends it where it is too slow; returns the limit that it hit.
    pub(super) fn enforce_timeouts(
        &self,
        limits: &config::Limits,
        has_tls: bool,
    ) -> Option<LimitHit> {
        let (begin_timeout, not_begun) =
            if has_tls && matches!(self.info().peer, peer::Peer::Tcp(_)) {
                (limits.handshake_timeout, LimitHit::HandshakeTimeout)
            } else {
                (limits.first_byte_timeout, LimitHit::FirstByteTimeout)
            };
        let not_begun_since = (!self.has_begun.get()).then(|| self.idle_since.get());
        let (discarding_since, discarded_last) = self.discarding.get().unzip();
        let hit = if self.is_over(not_begun_since, begin_timeout) {
            not_begun
        } else if self.is_over(self.head(), limits.header_timeout) {
            LimitHit::HeaderTimeout
        } else if self.is_over(self.write_blocked(), limits.write_timeout)
            // Asked to end, it has waited since for a caller that does not read the last bytes.
            || self.is_over(self.idle(), limits.idle_timeout + limits.write_timeout)
        {
            LimitHit::WriteTimeout
        } else {
            if self.is_over(self.idle(), limits.idle_timeout) {
                // The usual end of a kept-alive connection: nothing to count.
                self.close(Close::Gracefully);
            } else if self.is_over(discarded_last, DISCARD_PAUSE_TIMEOUT)
                || self.is_over(discarding_since, limits.body_timeout)
            {
                self.abandon_rest();
            } else if self.is_over(self.lingering_since.get(), LINGERING_CLOSE_TIMEOUT) {
                self.close(Close::Now);
            }
            return None;
        };
        self.close(Close::Now);
        Some(hit)
    }

    fn is_over(&self, since: Option<u32>, timeout: Duration) -> bool {
        let secs = since.map_or(0, |since| self.clock.get().saturating_sub(since));
        u64::from(secs) > timeout.as_secs()
    }

    /// Since when a request's header has been arriving.
    fn head(&self) -> Option<u32> {
        // Between requests HTTP/2 sends frames of its own, which are no header.
        let is_between = self.is_http2.get() && self.has_served();
        let is_arriving = !self.is_busy() && !is_between && !self.unread.is_discarding();
        self.first_byte.get().filter(|_| is_arriving)
    }

    /// Since when there has been no request at all.
    fn idle(&self) -> Option<u32> {
        let is_idle = self.has_begun.get()
            && !self.is_busy()
            && (self.is_http2.get() || self.first_byte.get().is_none());
        is_idle.then(|| self.idle_since.get())
    }

    /// Since when the caller has not read what was written, or what there is of a response: HTTP/2
    /// has windows that the caller can shut while the socket takes all.
    fn write_blocked(&self) -> Option<u32> {
        let responses = self.responses.borrow();
        let waiting = responses.iter().filter_map(|state| match state {
            ResponseState::Offered(since) => Some(*since),
            ResponseState::Free | ResponseState::Pending => None,
        });
        waiting.chain(self.write_blocked_since.get()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a connection is to end on which, `rounds` times, one request is reset and `served` are
    /// served.
    fn close_after(rounds: u32, served: u32) -> Close {
        let peer = peer::Peer::Tcp(([127, 0, 0, 1], 1).into());
        let info = peer::ConnectionInfo::new(peer, false);
        let connection = Connection::new(info, 0, &Rc::default());
        connection.begin(true, Preface::default());
        for _ in 0..rounds {
            drop(connection.request());
            for _ in 0..served {
                connection.request().offered();
            }
        }
        connection.close.get()
    }

    #[test]
    fn one_served_request_does_not_make_up_for_one_that_was_reset() {
        assert_eq!(close_after(EARLY_RESETS_MAX, 0), Close::Open);
        assert_eq!(close_after(EARLY_RESETS_MAX + 1, 0), Close::Gracefully);
        assert_eq!(close_after(2 * EARLY_RESETS_MAX, 1), Close::Gracefully);
        assert_eq!(close_after(3 * EARLY_RESETS_MAX, 1), Close::Now);
        assert_eq!(close_after(3 * EARLY_RESETS_MAX, SERVED_PER_RESET), Close::Open);
    }
}
