//! One upstream host as one worker sees it: its connections, pooled and counted.
//!
//! Built on hyper's low-level connections: the pooled client costs a fifth of a request's CPU.
//! Idle HTTP/1.1 connections are a stack (the warmest first); HTTP/2 connections are shared, the
//! first with room serves. A connection holds its permit under the limit until it has ended.

use super::{
    body::RequestBody,
    connect::{ConnectError, Connector, Io},
    driver::Driver,
    headers::Reuse,
    http2::{SharedConnection, Stream, Unread},
    upstream_io::UpstreamIo,
};
use crate::{
    config,
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
    runtime::Handle,
    sync::{Notify, oneshot},
    task::spawn_local,
};

pub type Request = http::Request<RequestBody>;
pub type Response = http::Response<Incoming>;
type Sent = Result<Response, TrySendError<Request>>;

/// What is read of a response whose caller has left, so that its connection serves again, bytes.
pub const FINISH_MAX_BYTES: u64 = 64 * 1024;
/// How long that may take, the wait for the response included.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may take to be ready again behind a whole response.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// The connections of one worker to one host.
pub struct Pool {
    /// Scheme and authority.
    pub uri: Uri,
    /// The value of `Host`.
    pub authority: HeaderValue,
    connector: Rc<Connector>,
    max: usize,
    idle_timeout: Duration,
    deadlines: Rc<Deadlines>,
    metrics: Arc<WorkerMetrics>,
    open: Cell<usize>,
    idle: RefCell<Vec<Idle>>,
    http2: RefCell<Vec<Rc<SharedConnection>>>,
    /// Notifies those that open a connection of a shared one that is ready.
    http2_opened: Notify,
    waiting: RefCell<VecDeque<oneshot::Sender<Handover>>>,
    /// What this worker's responses may leave unread.
    pub(super) unread: Rc<Unread>,
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
    Stream(Stream),
    /// The right to open a connection.
    Permit(Permit),
}

/// One open connection under the limit.
pub(super) struct Permit(pub(super) Rc<Pool>);

impl Drop for Permit {
    fn drop(&mut self) {
        let pool = &self.0;
        pool.open.set(pool.open.get() - 1);
        if let Some(waiting) = pool.pop_waiting() {
            // Cannot fail: who has left was passed over, and nothing runs in between.
            let _ = waiting.send(Handover::Permit(Self::take(pool)));
        }
    }
}

impl Permit {
    fn take(pool: &Rc<Pool>) -> Self {
        pool.open.set(pool.open.get() + 1);
        Self(pool.clone())
    }
}

impl Pool {
    /// The pool of the host at `uri`; `workers` share the connection limit.
    pub fn new(
        uri: &Uri,
        config: &config::Upstream,
        workers: usize,
        connector: Rc<Connector>,
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
            max: config.connections_max.div_ceil(workers).max(1),
            idle_timeout: config.idle_timeout,
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

    /// A ready connection: the warmest idle one, else a new one, else the next that comes free.
    /// `fresh` asks for a new one.
    ///
    /// # Cancel safety
    /// Safe: a connection that was being made is dropped, a turn in the queue given up.
    pub async fn connection(
        self: &Rc<Self>,
        fresh: bool,
    ) -> Result<PooledConnection, ConnectError> {
        if !fresh && let Some(channel) = self.ready() {
            return Ok(self.pooled(channel, true));
        }
        Box::pin(self.new_connection()).await
    }

    /// Opens a connection, or waits for one where there may be no more.
    async fn new_connection(self: &Rc<Self>) -> Result<PooledConnection, ConnectError> {
        let permit = if self.open.get() < self.max {
            Permit::take(self)
        } else {
            self.metrics.limit(Limit::UpstreamConnections);
            let (sender, turn) = oneshot::channel();
            self.waiting.borrow_mut().push_back(sender);
            match turn.await.map_err(|_| ConnectError::ShuttingDown)? {
                Handover::Connection(one) => return Ok(self.pooled(Channel::Http1(one), true)),
                Handover::Stream(one) => return Ok(self.pooled(Channel::Http2(one), true)),
                Handover::Permit(permit) => permit,
            }
        };
        let mut opening = pin!(self.open(permit));
        loop {
            // A burst finds out together that the host speaks HTTP/2: then one connection will do.
            tokio::select! {
                biased;
                channel = &mut opening => return Ok(self.pooled(channel?, false)),
                () = self.http2_opened.notified() => {
                    if let Some(stream) = self.stream() {
                        return Ok(self.pooled(Channel::Http2(stream), true));
                    }
                }
            }
        }
    }

    async fn open(self: &Rc<Self>, permit: Permit) -> Result<Channel, ConnectError> {
        let io = self.connector.open(&self.uri).await?;
        self.metrics.upstream_connection_opened();
        match io {
            Io::Plain(io) => http1_on(io, permit).await,
            Io::Tls(io) => http1_on(io, permit).await,
            Io::TlsHttp2(io) => {
                let connection = SharedConnection::open(TokioIo::new(io), permit).await?;
                let stream = Stream::take(&connection, self);
                self.http2.borrow_mut().push(connection.clone());
                self.hand_out(&connection);
                self.http2_opened.notify_waiters();
                Ok(Channel::Http2(stream))
            }
        }
    }

    fn pooled(self: &Rc<Self>, channel: Channel, is_reused: bool) -> PooledConnection {
        PooledConnection {
            channel: Some(channel),
            pool: self.clone(),
            awaited: None,
            is_reused,
            is_reusable: true,
        }
    }

    fn ready(self: &Rc<Self>) -> Option<Channel> {
        if let Some(stream) = self.stream() {
            return Some(Channel::Http2(stream));
        }
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { connection, .. }) = idle.pop() {
            if connection.sender.is_ready() {
                return Some(Channel::Http1(connection));
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
    pub(super) fn hand_out(self: &Rc<Self>, connection: &Rc<SharedConnection>) {
        while !self.waiting.borrow().is_empty() && connection.has_room() {
            let Some(waiting) = self.pop_waiting() else { return };
            let _ = waiting.send(Handover::Stream(Stream::take(connection, self)));
        }
    }

    /// Gives `connection` no more requests. It closes after those that it serves.
    pub(super) fn retire(&self, connection: &Rc<SharedConnection>) {
        connection.retire();
        self.http2.borrow_mut().retain(|other| !Rc::ptr_eq(other, connection));
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

    fn give_back(&self, connection: Http1) {
        match self.pop_waiting() {
            Some(waiting) => drop(waiting.send(Handover::Connection(connection))),
            None => self.idle.borrow_mut().push(Idle { connection, since: self.now() }),
        }
    }

    /// Closes connections that were idle for the idle timeout. The stack's bottom is the coldest.
    pub fn close_idle(&self) {
        let oldest = self.now().saturating_sub(Deadlines::ticks(self.idle_timeout));
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

async fn http1_on<T>(io: T, permit: Permit) -> Result<Channel, ConnectError>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let heard = Rc::new(Cell::new(false));
    let io = TokioIo::new(UpstreamIo::new(io, heard.clone()));
    let (sender, connection) =
        http1::Builder::new().handshake(io).await.map_err(ConnectError::Http)?;
    let driver = Driver::spawn(async move {
        // An error reaches the request that waits for the response; without one it changes nothing.
        let _ = connection.await;
        drop(permit);
    });
    Ok(Channel::Http1(Http1 { sender, driver, heard }))
}

enum Channel {
    Http1(Http1),
    Http2(Stream),
}

/// A connection for one request.
pub struct PooledConnection {
    /// None once it was given back.
    channel: Option<Channel>,
    pool: Rc<Pool>,
    /// A response that is read to its end even if the caller leaves.
    awaited: Option<Pin<Box<dyn Future<Output = Sent>>>>,
    /// Whether it has served a request before: then a failure before the first byte may mean
    /// nothing but an old connection.
    pub is_reused: bool,
    pub is_reusable: bool,
}

impl fmt::Debug for PooledConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PooledConnection({})", self.pool.uri)
    }
}

impl PooledConnection {
    /// Whether it has ended without a byte of a response to the request that was sent on it.
    pub fn died_unheard(&self) -> bool {
        match &self.channel {
            Some(Channel::Http1(connection)) => !connection.heard.get(),
            Some(Channel::Http2(stream)) => stream.connection.is_dead(),
            None => true,
        }
    }

    /// Whether requests on it need HTTP/1.1's framing.
    pub fn is_http1(&self) -> bool {
        matches!(self.channel, Some(Channel::Http1(_)))
    }

    /// Sends `request` and waits for the head of the response. Where its body `is_here` whole, the
    /// connection is run from here until it is given back. An error has the request where no byte
    /// of it was written.
    pub async fn send(&mut self, request: Request, is_here: bool, outlives_caller: bool) -> Sent {
        match self.channel.as_mut().expect("a connection is sent on before it is given back") {
            Channel::Http1(Http1 { sender, heard, .. }) if outlives_caller => {
                heard.set(false);
                let awaited = self.awaited.insert(Box::pin(sender.try_send_request(request)));
                let sent = awaited.await;
                self.awaited = None;
                sent
            }
            Channel::Http1(Http1 { sender, driver, heard }) => {
                heard.set(false);
                let driver = is_here.then_some(&**driver);
                let send = || sender.try_send_request(request);
                // One future for both ways: it is large, and every request has room for it.
                let mut response = pin!(match driver {
                    Some(driver) => driver.give(send),
                    None => send(),
                });
                poll_fn(|cx| match driver {
                    Some(driver) => driver.poll_with(cx, |cx| response.as_mut().poll(cx)),
                    None => response.as_mut().poll(cx),
                })
                .await
            }
            Channel::Http2(stream) => stream.send(request).await.inspect(|_| stream.heard()),
        }
    }

    /// No response came for `timeout`. A shared connection that brought no other request one
    /// either may be dead, and gets no more requests.
    pub fn timed_out(&mut self, timeout: Duration) {
        self.awaited = None;
        let before = self.pool.now().saturating_sub(Deadlines::ticks(timeout));
        if let Some(Channel::Http2(stream)) = &self.channel
            && !stream.connection.is_heard_after(before)
        {
            self.pool.retire(&stream.connection);
        }
    }

    /// The next frame of `body`, which came on this connection.
    pub fn poll_frame(
        &self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &self.channel {
            Some(Channel::Http1(connection)) => connection.driver.poll_frame(body, cx),
            Some(Channel::Http2(_)) | None => Pin::new(body).poll_frame(cx),
        }
    }

    /// Reads the response to its end, although its caller has left.
    fn finish(mut self, body: Option<Incoming>) {
        let awaited = self.awaited.take();
        // A runtime that shuts down takes no more tasks.
        if !self.is_http1() || Handle::try_current().is_err() {
            return;
        }
        let deadlines = self.pool.deadlines.clone();
        spawn_local(async move {
            let finished = async {
                let body = match (body, awaited) {
                    (Some(body), _) => body,
                    (None, Some(awaited)) => {
                        let mut response = awaited.await.ok()?;
                        let reuse = super::clean(&mut response).ok()?;
                        (reuse == Reuse::Allowed).then(|| response.into_body())?
                    }
                    (None, None) => return None,
                };
                self.discard(body).await;
                Some(())
            };
            deadlines.within(FINISH_TIMEOUT, finished).await
        });
    }

    /// Reads the rest of a body, if that is short, and gives the connection back.
    async fn discard(self, mut body: Incoming) {
        let mut left = FINISH_MAX_BYTES;
        loop {
            match poll_fn(|cx| self.poll_frame(&mut body, cx)).await {
                None => return self.release(),
                Some(Err(_)) => return,
                Some(Ok(frame)) => {
                    let len = frame.data_ref().map_or(0, |data| data.len() as u64);
                    let Some(rest) = left.checked_sub(len) else { return };
                    left = rest;
                }
            }
        }
    }

    /// Drops the connection with a `body` that its caller does not want any more. One of which
    /// little is left is read to its end.
    pub fn leave(self, body: Incoming) {
        if body.is_end_stream() {
            self.release();
        } else if body.size_hint().exact().is_some_and(|rest| rest <= FINISH_MAX_BYTES) {
            self.finish(Some(body));
        }
    }

    /// Gives the connection back after a whole response.
    pub fn release(mut self) {
        let Some(Channel::Http1(mut connection)) = self.channel.take() else { return };
        if !self.is_reusable {
            return;
        }
        connection.driver.hand_back(true);
        if connection.sender.is_ready() {
            self.pool.give_back(connection);
        } else if !connection.sender.is_closed() {
            // The connection has not seen the end yet, or still sends the request's body.
            let (pool, deadlines) = (self.pool.clone(), self.pool.deadlines.clone());
            spawn_local(async move {
                let ready = deadlines.within(READY_TIMEOUT, connection.sender.ready()).await;
                if matches!(ready, Some(Ok(()))) {
                    pool.give_back(connection);
                }
            });
        }
    }
}

impl Drop for PooledConnection {
    /// The caller may have left before the response.
    fn drop(&mut self) {
        if let Some(awaited) = self.awaited.take() {
            let connection = Self {
                channel: self.channel.take(),
                pool: self.pool.clone(),
                awaited: Some(awaited),
                is_reused: true,
                is_reusable: true,
            };
            connection.finish(None);
        }
    }
}
