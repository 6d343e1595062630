//! One upstream host as one worker sees it: its connections, kept and counted.
//!
//! Built on hyper's low-level connections: the pooled client costs a fifth of a request's CPU.
//! Idle HTTP/1.1 connections are a stack (the warmest first); HTTP/2 connections are shared, the
//! first with room serves. A connection counts against the limit until it has ended, so nothing
//! can leak a place.

use super::{
    body::RequestBody,
    connect::Connector,
    driver::Driver,
    multiplex::{Multiplex, Stream},
    patient::Patient,
};
use crate::{
    deadline::Deadlines,
    metrics::{Limit, WorkerMetrics},
};
use bytes::Bytes;
use http::{HeaderValue, Uri};
use http_body::{Body as _, Frame};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, oneshot},
    task::spawn_local,
};

pub use super::{connect::ConnectError, multiplex::Unread};

/// A request to Amazon.
pub type Request = http::Request<RequestBody>;
/// Amazon's answer.
pub type Response = http::Response<Incoming>;

/// The connections of one worker to one host.
pub struct Host {
    uri: Uri,
    authority: HeaderValue,
    connector: Rc<Connector>,
    max: usize,
    idle_timeout: Duration,
    deadlines: Rc<Deadlines>,
    metrics: Arc<WorkerMetrics>,
    open: Cell<usize>,
    idle: RefCell<Vec<Idle>>,
    http2: RefCell<Vec<Rc<Multiplex>>>,
    /// Tells those that open a connection of a shared one that is ready.
    http2_opened: Notify,
    waiting: RefCell<VecDeque<oneshot::Sender<Handover>>>,
    unread: Rc<Unread>,
}

struct Idle {
    connection: Http1,
    since: u64,
}

/// An HTTP/1.1 connection. It closes when this is dropped.
struct Http1 {
    sender: http1::SendRequest<RequestBody>,
    driver: Rc<Driver>,
    /// Whether a byte has come since the last request was sent.
    heard: Rc<Cell<bool>>,
}

impl Drop for Http1 {
    fn drop(&mut self) {
        // A request that left must not take the connection's wake-ups with it.
        self.driver.hand_back(false);
        // The rest of an upload that Amazon does not read would hold it for ever.
        if !self.sender.is_ready() {
            self.driver.end();
        }
    }
}

/// What a waiting request is given.
enum Handover {
    Connection(Http1),
    /// A part of a shared one.
    Stream(Stream),
    /// The right to open a connection.
    Place(Place),
}

/// One open connection's place under the limit; given up when dropped.
pub(super) struct Place(Rc<Host>);

impl Drop for Place {
    fn drop(&mut self) {
        let host = &self.0;
        host.open.set(host.open.get() - 1);
        if let Some(waiting) = host.pop_waiting() {
            // Cannot fail: whoever has left was passed over, and nothing runs in between.
            let _ = waiting.send(Handover::Place(Self::take(host)));
        }
    }
}

impl Place {
    fn take(host: &Rc<Host>) -> Self {
        host.open.set(host.open.get() + 1);
        Self(host.clone())
    }

    pub(super) fn host(&self) -> &Rc<Host> {
        &self.0
    }
}

/// A connection that is ready for one request.
pub struct Lease {
    sender: Sender,
    host: Rc<Host>,
    /// Whether it has served a request before.
    reused: bool,
    /// Whether it may serve another one.
    is_reusable: bool,
}

enum Sender {
    Http1(Http1),
    Http2(Stream),
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({})", self.host.uri)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({})", self.uri)
    }
}

impl Host {
    /// The host at `uri` (scheme and authority), with at most `max` open connections.
    #[must_use]
    pub fn new(
        uri: &Uri,
        connector: Rc<Connector>,
        max: usize,
        idle_timeout: Duration,
        deadlines: Rc<Deadlines>,
        metrics: Arc<WorkerMetrics>,
        unread: Rc<Unread>,
    ) -> Rc<Self> {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        Rc::new(Self {
            uri: uri.clone(),
            authority: HeaderValue::from_str(authority)
                .expect("an authority of a parsed URI is a header value"),
            connector,
            max: max.max(1),
            idle_timeout,
            deadlines,
            metrics,
            open: Cell::new(0),
            idle: RefCell::default(),
            http2: RefCell::default(),
            http2_opened: Notify::new(),
            waiting: RefCell::default(),
            unread,
        })
    }

    /// Its scheme and authority.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The value of `Host`.
    #[must_use]
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// A ready connection: the warmest idle one, else a new one, else the next that comes free.
    /// `fresh` asks for a new one.
    ///
    /// # Errors
    /// When a new connection cannot be made.
    ///
    /// # Cancel safety
    /// Safe: a connection that was being made is dropped, a place in the queue given up.
    pub async fn lease(self: &Rc<Self>, fresh: bool) -> Result<Lease, ConnectError> {
        if !fresh && let Some(sender) = self.ready() {
            return Ok(self.lease_on(sender, true));
        }
        Box::pin(self.new_lease()).await
    }

    /// Opens a connection, or waits for one where there may be no more.
    async fn new_lease(self: &Rc<Self>) -> Result<Lease, ConnectError> {
        let place = if self.open.get() < self.max {
            Place::take(self)
        } else {
            self.metrics.limit(Limit::UpstreamConnections);
            let (turn, told) = oneshot::channel();
            self.waiting.borrow_mut().push_back(turn);
            match told.await {
                Ok(Handover::Connection(connection)) => {
                    return Ok(self.lease_on(Sender::Http1(connection), true));
                }
                Ok(Handover::Stream(stream)) => {
                    return Ok(self.lease_on(Sender::Http2(stream), true));
                }
                Ok(Handover::Place(place)) => place,
                Err(_) => return Err(ConnectError::ShuttingDown),
            }
        };
        let mut opening = pin!(self.connector.clone().connect(&self.uri, place));
        loop {
            // A burst finds out together that the host speaks HTTP/2: then one connection will do.
            tokio::select! {
                biased;
                sender = &mut opening => return Ok(self.lease_on(sender?, false)),
                () = self.http2_opened.notified() => {
                    if let Some(stream) = self.stream() {
                        return Ok(self.lease_on(Sender::Http2(stream), true));
                    }
                }
            }
        }
    }

    fn lease_on(self: &Rc<Self>, sender: Sender, reused: bool) -> Lease {
        Lease { sender, host: self.clone(), reused, is_reusable: true }
    }

    fn ready(self: &Rc<Self>) -> Option<Sender> {
        if let Some(stream) = self.stream() {
            return Some(Sender::Http2(stream));
        }
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { connection, .. }) = idle.pop() {
            if connection.sender.is_ready() {
                return Some(Sender::Http1(connection));
            }
        }
        None
    }

    /// A part of the first shared connection with room, so that the others can go cold.
    fn stream(self: &Rc<Self>) -> Option<Stream> {
        let http2 = self.http2.borrow();
        let connection = http2.iter().find(|connection| connection.has_room())?;
        Some(Stream::take(connection, self))
    }

    /// Gives the room on `connection` to those that wait.
    pub(super) fn hand_out(self: &Rc<Self>, connection: &Rc<Multiplex>) {
        while !self.waiting.borrow().is_empty() && connection.has_room() {
            let Some(waiting) = self.pop_waiting() else { return };
            let _ = waiting.send(Handover::Stream(Stream::take(connection, self)));
        }
    }

    /// Gives `connection` no more requests. It closes after those that it serves.
    pub(super) fn retire(&self, connection: &Rc<Multiplex>) {
        connection.retire();
        self.http2.borrow_mut().retain(|other| !Rc::ptr_eq(other, connection));
    }

    /// What this worker's responses may leave unread.
    pub(super) fn unread(&self) -> &Rc<Unread> {
        &self.unread
    }

    /// The worker's ticks.
    pub(super) fn now(&self) -> u64 {
        self.deadlines.now()
    }

    /// The request that waits longest, passing over those that have left.
    fn pop_waiting(&self) -> Option<oneshot::Sender<Handover>> {
        let mut waiting = self.waiting.borrow_mut();
        std::iter::from_fn(|| waiting.pop_front()).find(|turn| !turn.is_closed())
    }

    /// Takes a connection back that has served its request.
    fn give_back(&self, connection: Http1) {
        match self.pop_waiting() {
            Some(waiting) => drop(waiting.send(Handover::Connection(connection))),
            None => self.idle.borrow_mut().push(Idle { connection, since: self.deadlines.now() }),
        }
    }

    /// Closes connections that nobody has used for the idle timeout. The stack's bottom is the
    /// coldest.
    pub fn close_idle(&self) {
        let oldest = self.deadlines.now().saturating_sub(Deadlines::ticks(self.idle_timeout));
        let mut idle = self.idle.borrow_mut();
        let cold = idle.iter().take_while(|idle| idle.since < oldest).count();
        let closed: Vec<Idle> = idle.drain(..cold).collect();
        idle.retain(|idle| !idle.connection.sender.is_closed());
        drop(idle);
        drop(closed);
        self.http2.borrow_mut().retain(|connection| connection.is_used_since(oldest));
    }

    /// Gives no connection of now any more requests.
    pub fn retire_all(&self) {
        drop(self.idle.take());
        self.http2.take().iter().for_each(|connection| connection.retire());
    }
}

impl Connector {
    async fn connect(self: Rc<Self>, uri: &Uri, place: Place) -> Result<Sender, ConnectError> {
        let metrics = place.0.metrics.clone();
        let connected = self.open(uri).await?;
        metrics.upstream_connection_opened();
        match connected {
            super::connect::Io::Plain(io) => http1_on(io, place).await,
            super::connect::Io::Tls(io) => http1_on(io, place).await,
            super::connect::Io::TlsHttp2(io) => http2_on(io, place).await,
        }
    }
}

async fn http1_on<T>(io: T, place: Place) -> Result<Sender, ConnectError>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let heard = Rc::new(Cell::new(false));
    let io = TokioIo::new(Patient::new(io, heard.clone()));
    let (sender, connection) =
        http1::Builder::new().handshake(io).await.map_err(ConnectError::Http)?;
    let driver = Driver::spawn(async move {
        // An error reaches the request that waits for the response; without one it changes nothing.
        let _ = connection.await;
        drop(place);
    });
    Ok(Sender::Http1(Http1 { sender, driver, heard }))
}

async fn http2_on<T>(io: T, place: Place) -> Result<Sender, ConnectError>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let host = place.0.clone();
    let connection = Multiplex::open(TokioIo::new(io), place).await?;
    let stream = Stream::take(&connection, &host);
    host.http2.borrow_mut().push(connection.clone());
    host.hand_out(&connection);
    host.http2_opened.notify_waiters();
    Ok(Sender::Http2(stream))
}

impl Lease {
    /// Whether a failure before the first byte may mean nothing but an old connection.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether it has ended without a byte of a response to the request that was sent on it.
    #[must_use]
    pub fn died_unheard(&self) -> bool {
        match &self.sender {
            Sender::Http1(connection) => !connection.heard.get(),
            Sender::Http2(stream) => stream.connection().is_dead(),
        }
    }

    /// Whether requests on it need HTTP/1.1's framing.
    #[must_use]
    pub fn is_http1(&self) -> bool {
        matches!(self.sender, Sender::Http1(_))
    }

    /// Sends `request` and waits for the head of the answer. Where its body `is_here` whole, the
    /// connection is run from here until it is given back.
    ///
    /// # Errors
    /// The request comes back where no byte of it was written.
    pub async fn send(
        &mut self,
        request: Request,
        is_here: bool,
    ) -> Result<Response, TrySendError<Request>> {
        match &mut self.sender {
            Sender::Http1(Http1 { sender, driver, heard }) => {
                heard.set(false);
                let driver = is_here.then_some(&**driver);
                let send = || sender.try_send_request(request);
                // One future for both ways: it is large, and every request has room for it.
                let mut answer = pin!(match driver {
                    Some(driver) => driver.give(send),
                    None => send(),
                });
                poll_fn(|cx| match driver {
                    Some(driver) => driver.poll_with(cx, |cx| answer.as_mut().poll(cx)),
                    None => answer.as_mut().poll(cx),
                })
                .await
            }
            Sender::Http2(stream) => stream.send(request).await.inspect(|_| stream.heard()),
        }
    }

    /// No answer came for `silence`. A shared connection that brought none to anybody else either
    /// may be dead, and gets no more requests.
    pub fn timed_out(&self, silence: Duration) {
        let before = self.host.now().saturating_sub(Deadlines::ticks(silence));
        if let Sender::Http2(stream) = &self.sender
            && !stream.connection().is_heard_after(before)
        {
            self.host.retire(stream.connection());
        }
    }

    /// The next frame of `body`, which came on this connection.
    pub fn poll_frame(
        &self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &self.sender {
            Sender::Http1(connection) => connection.driver.poll_frame(body, cx),
            Sender::Http2(_) => Pin::new(body).poll_frame(cx),
        }
    }

    /// Closes the connection after its response.
    pub fn forbid_reuse(&mut self) {
        self.is_reusable = false;
    }

    /// Gives the connection back after a whole response.
    pub fn release(self) {
        let Sender::Http1(mut connection) = self.sender else { return };
        if !self.is_reusable {
            return;
        }
        connection.driver.hand_back(true);
        if connection.sender.is_ready() {
            self.host.give_back(connection);
        } else if !connection.sender.is_closed() {
            // The connection has not seen the end yet, or still sends the request's body.
            let (host, deadlines) = (self.host.clone(), self.host.deadlines.clone());
            spawn_local(async move {
                let ready = connection.sender.ready();
                let ready = deadlines.within(Duration::from_secs(5), ready).await;
                if matches!(ready, Some(Ok(()))) {
                    host.give_back(connection);
                }
            });
        }
    }
}
