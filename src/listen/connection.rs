//! What a worker knows of one open connection, and the stream that keeps it up to date.
//!
//! hyper's own header timer costs 5 % of a request and does not see a first byte that never
//! comes, so a sweep once a second judges all connections by these few cells.
//!
//! hyper answers a head that it cannot read by itself, with nothing but a status. No service sees
//! such a request, so the stream, which knows that none is in flight, puts a full answer there.

use super::refusal::{Refuse, Refused};
use crate::small_write;
use hyper::rt::{Read, ReadBufCursor, Write};
use std::{
    cell::{Cell, RefCell},
    fmt, io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

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
    pub(super) http2: bool,
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
    waker: RefCell<Option<Waker>>,
    clock: Rc<Cell<u32>>,
}

impl Connection {
    /// A connection just accepted.
    pub(super) fn new(http2: bool, clock: &Rc<Cell<u32>>) -> Rc<Self> {
        Rc::new(Self {
            http2,
            requests: Cell::new(0),
            idle_since: Cell::new(clock.get()),
            // It was not handed over before its first byte had come.
            first_byte: Cell::new(Some(clock.get())),
            write_blocked_since: Cell::new(None),
            answers: RefCell::default(),
            served: Cell::new(false),
            settled: Cell::new(true),
            close: Cell::new(Close::Open),
            waker: RefCell::new(None),
            clock: clock.clone(),
        })
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
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    pub(super) fn closing(&self) -> Close {
        self.close.get()
    }

    /// Remembers how to wake the connection's task.
    pub(super) fn register(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// For how long a request's header has been arriving.
    pub(super) fn header_secs(&self) -> u32 {
        // Between requests HTTP/2 sends frames of its own, which are no header.
        let between = self.http2 && self.served.get();
        self.since(self.first_byte.get().filter(|_| !self.is_busy() && !between))
    }

    /// For how long there has been no request at all.
    pub(super) fn idle_secs(&self) -> u32 {
        let idle = !self.is_busy() && (self.http2 || self.first_byte.get().is_none());
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
        if polled.is_ready() && !connection.is_busy() && connection.first_byte.get().is_none() {
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

impl<T: Write + Unpin> Write for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        // What is written before the last answer is settled belongs to that answer.
        if this.connection.settled.get() && this.answer.is_none() {
            this.answer = Refused::by_parser(buf).map(|refused| (this.refuse)(refused));
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

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
