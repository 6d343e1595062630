//! What a worker knows of one open connection, and the stream that keeps it up to date.
//!
//! hyper's own header timer costs 5 % of a request and does not see a first byte that never
//! comes, so a sweep once a second judges all connections by these few cells.
//!
//! hyper answers a head that it cannot read by itself, with nothing but a status. No service sees
//! such a request, so the stream, which knows that none is in flight, puts a full answer there.

use super::refusal::{Refuse, Refused};
use crate::{caller_body::UnreadBody, inbound::peer::Peer, small_write};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use std::{
    cell::{Cell, RefCell},
    fmt, io,
    mem::MaybeUninit,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

/// How long a closing connection may take to read on after its last byte was written.
const LINGERING_SECS: u32 = 1;
/// What a caller may have sent behind a whole request whose response announced the end, bytes.
const PIPELINED_MAX_BYTES: u64 = 64 * 1024;
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

/// How far the answer to one request is with the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// There is no such request.
    Free,
    /// It is the turn of Amazon or of us.
    Ours,
    /// It is the turn of the caller, since then.
    Callers(u32),
}

/// One open connection. Times are seconds of the worker's sweep.
#[derive(Debug)]
pub struct Connection {
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
    answers: RefCell<Vec<Answer>>,
    served: Cell<bool>,
    /// Whether every answer begun has been written out.
    settled: Cell<bool>,
    close: Cell<Close>,
    clock: Rc<Cell<u32>>,
}

impl Connection {
    /// A connection just accepted.
    pub(super) fn new(peer: Peer, clock: &Rc<Cell<u32>>) -> Rc<Self> {
        Rc::new(Self {
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
            answers: RefCell::default(),
            served: Cell::new(false),
            settled: Cell::new(true),
            close: Cell::new(Close::Open),
            clock: clock.clone(),
        })
    }

    /// The first byte has come, and says what the caller speaks.
    pub(super) fn begin(&self, http2: bool) {
        self.http2.set(http2);
        self.idle_since.set(self.clock.get());
        self.first_byte.set(Some(self.clock.get()));
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
        InFlight { connection: self.clone(), answer: self.answer() }
    }

    /// A place for the state of one more answer.
    fn answer(&self) -> usize {
        let mut answers = self.answers.borrow_mut();
        let free = answers.iter().position(|answer| *answer == Answer::Free);
        let at = free.unwrap_or(answers.len());
        if free.is_none() {
            answers.push(Answer::Ours);
        }
        answers[at] = Answer::Ours;
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
        let idle = !self.is_busy() && (self.http2.get() || self.first_byte.get().is_none());
        self.since(Some(self.idle_since.get()).filter(|_| idle))
    }

    /// For how long the caller has not read what we write, or not taken what we have of an answer:
    /// HTTP/2 has windows that it can shut while the socket takes all.
    pub(super) fn write_blocked_secs(&self) -> u32 {
        let answers = self.answers.borrow();
        let waiting = answers.iter().filter_map(|answer| match answer {
            Answer::Callers(since) => Some(*since),
            Answer::Free | Answer::Ours => None,
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
    /// Its place among the connection's answers.
    answer: usize,
}

impl InFlight {
    /// The caller is to take what there is of the answer.
    pub(super) fn offered(&self) {
        self.set(Answer::Callers(self.connection.clock.get()));
    }

    /// The caller has taken everything, and waits for more.
    pub(super) fn asked(&self) {
        self.set(Answer::Ours);
    }

    fn set(&self, answer: Answer) {
        self.connection.answers.borrow_mut()[self.answer] = answer;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.set(Answer::Free);
        let connection = &self.connection;
        connection.requests.set(connection.requests.get() - 1);
        connection.idle_since.set(connection.clock.get());
    }
}

/// A stream that tells its connection when bytes come and when they cannot go.
pub(super) struct Watched<T> {
    io: T,
    connection: Rc<Connection>,
    refuse: Refuse,
    /// What is left to write of an answer that takes the place of hyper's.
    answer: Option<Vec<u8>>,
}

impl<T> Watched<T> {
    pub(super) fn new(io: T, connection: &Rc<Connection>, refuse: &Refuse) -> Self {
        Self { io, connection: connection.clone(), refuse: refuse.clone(), answer: None }
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched({:?})", self.connection)
    }
}

impl<T: Read + Unpin> Read for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let connection = &self.connection;
        if polled.is_ready()
            && !connection.is_busy()
            && connection.first_byte.get().is_none()
            && !connection.unread.is_discarding()
        {
            connection.first_byte.set(Some(connection.clock.get()));
        }
        polled
    }
}

impl<T: Write + Unpin> Watched<T> {
    fn note<R>(&self, polled: Poll<R>) -> Poll<R> {
        let blocked = &self.connection.write_blocked_since;
        if polled.is_pending() {
            if blocked.get().is_none() {
                blocked.set(Some(self.connection.clock.get()));
            }
        } else {
            blocked.set(None);
        }
        polled
    }

    /// Reads on until the caller has closed, too.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        T: Read,
    {
        let connection = self.connection.clone();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        while connection.lingering_bytes.get() > 0 {
            if connection.lingering_since.get().is_none() {
                connection.lingering_since.set(Some(connection.clock.get()));
            }
            let mut buffer = ReadBuf::uninit(&mut buffer);
            // How the connection ends makes no difference now.
            let Ok(()) = ready!(Pin::new(&mut self.io).poll_read(cx, buffer.unfilled())) else {
                return Poll::Ready(Ok(()));
            };
            let read = buffer.filled().len() as u64;
            if read == 0 {
                break;
            }
            let left = connection.lingering_bytes.get();
            connection.lingering_bytes.set(if left == u64::MAX {
                left
            } else {
                left.saturating_sub(read)
            });
        }
        Poll::Ready(Ok(()))
    }

    /// Writes all of `answer` in the place of `instead_of` bytes.
    fn poll_answer(&mut self, instead_of: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        while let Some(answer) = self.answer.as_mut().filter(|answer| !answer.is_empty()) {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, answer))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            answer.drain(..written);
        }
        self.answer = None;
        Poll::Ready(Ok(instead_of))
    }
}

impl<T: Read + Write + Unpin> Write for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        // What is written before the last answer is settled belongs to that answer.
        if this.connection.settled.get() && this.answer.is_none() {
            this.answer = Refused::by_parser(buf).map(|refused| (this.refuse)(refused));
            if this.answer.is_some() {
                // What is behind a head that cannot be read is unknown.
                this.connection.lingering_bytes.set(u64::MAX);
            }
        }
        let polled = if this.answer.is_some() {
            this.poll_answer(buf.len(), cx)
        } else {
            Pin::new(&mut this.io).poll_write(cx, buf)
        };
        this.note(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [buf] = bufs {
            return self.poll_write(cx, buf);
        }
        let polled = small_write::poll_write(&mut self.io, cx, bufs);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when its own buffer is empty, and drops a body before its end is written.
        if !self.connection.is_busy() {
            self.connection.settled.set(true);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Closes in stages where the caller may still send: its bytes would reset the connection, and
    /// the response could be lost. Source: RFC 9112 section 9.6.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        self.poll_linger(cx)
    }
}
