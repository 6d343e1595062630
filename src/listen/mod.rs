//! Accepts connections for one worker and serves them until they end or the worker drains.
//!
//! Is handed a service and knows nothing of proxying. Every connection has a place under the
//! limit before it is read from, a first byte it must send, and a sweep that ends it when it is
//! too slow. An accept that fails never ends the loop.

pub mod bind;
mod connection;
mod first_byte;
mod guarded;
pub mod refusal;
pub mod tls;

use crate::{
    caller_body::CallerBody,
    config,
    executor::LocalExecutor,
    inbound::peer::{Peer, UnixPeer},
    metrics::{Limit, WorkerMetrics},
};
use bind::Bound;
use connection::{Close, Connection, Watched};
use first_byte::{Peek, begins_http2};
use guarded::Guarded;
use http::{
    HeaderValue, Request, Response,
    header::{CONNECTION, EXPECT},
};
use hyper::{
    body::{Body, Incoming},
    rt::{Read, Write},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use refusal::{Refuse, Refused};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    error::Error as StdError,
    fmt, io,
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tls::ServerTls;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Notify,
    task::spawn_local,
    time::{sleep, timeout},
};

/// A draining worker keeps idle HTTP/1.1 connections for so long: a request may be on its way.
pub const IDLE_GRACE: Duration = Duration::from_millis(500);
/// How many header lines hyper takes unless told.
const HYPERS_HEADERS_MAX: usize = 100;
/// Beyond the limit this many are told so at once; the others are just closed.
const REFUSALS_MAX: usize = 64;

/// The accepting side of one worker.
pub struct Acceptor<S> {
    limits: config::Limits,
    tls: Option<Arc<ServerTls>>,
    service: S,
    refuse: Refuse,
    metrics: Arc<WorkerMetrics>,
    /// Open connections of all workers.
    open: Arc<AtomicUsize>,
    /// Open connections of this worker, those that have not sent a byte included.
    accepted: Rc<Cell<usize>>,
    clock: Rc<Cell<u32>>,
    connections: RefCell<HashMap<u64, Rc<Connection>>>,
    next: Cell<u64>,
    refusals: Cell<usize>,
    draining: Cell<bool>,
    stop: Notify,
}

impl<S> fmt::Debug for Acceptor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

impl<S, F, B> Acceptor<S>
where
    S: Fn(Request<CallerBody>, &Peer) -> F + 'static,
    F: Future<Output = Response<B>> + 'static,
    B: Body + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// An acceptor for `service` and, where that cannot be asked, `refuse`; `open` counts
    /// connections over all workers.
    #[must_use]
    pub fn new(
        limits: &config::Limits,
        tls: Option<Arc<ServerTls>>,
        metrics: Arc<WorkerMetrics>,
        open: Arc<AtomicUsize>,
        (service, refuse): (S, Refuse),
    ) -> Rc<Self> {
        Rc::new(Self {
            limits: limits.clone(),
            tls,
            service,
            refuse,
            metrics,
            open,
            accepted: Rc::default(),
            clock: Rc::new(Cell::new(0)),
            connections: RefCell::default(),
            next: Cell::new(0),
            refusals: Cell::new(0),
            draining: Cell::new(false),
            stop: Notify::new(),
        })
    }

    /// Begins to accept on `sockets`; each runs in a task of its own until the runtime ends.
    ///
    /// # Errors
    /// When a socket cannot be registered with the runtime.
    pub fn listen(self: &Rc<Self>, sockets: Vec<Bound>) -> io::Result<()> {
        for socket in sockets {
            let this = self.clone();
            match socket {
                Bound::Tcp(listener) => {
                    let listener = TcpListener::from_std(listener)?;
                    spawn_local(async move { this.accept_tcp(listener).await });
                }
                Bound::Unix(listener) => {
                    let listener = UnixListener::from_std(listener)?;
                    spawn_local(async move { this.accept_unix(listener).await });
                }
            }
        }
        Ok(())
    }

    async fn accept_tcp(self: Rc<Self>, listener: TcpListener) {
        while let Some(accepted) = self.next(listener.accept()).await {
            match accepted {
                Ok((stream, address)) => {
                    // Without it small answers wait for acknowledgements; failing costs only that.
                    let _ = stream.set_nodelay(true);
                    match self.place() {
                        Some(place) => {
                            let this = self.clone();
                            let connection = Connection::new(Peer::Tcp(address), &self.clock);
                            spawn_local(async move {
                                this.serve_tcp(stream, connection).await;
                                drop(place);
                            });
                        }
                        None => self.refuse(stream),
                    }
                }
                Err(error) => self.rest(&error).await,
            }
        }
    }

    async fn accept_unix(self: Rc<Self>, listener: UnixListener) {
        while let Some(accepted) = self.next(listener.accept()).await {
            match accepted {
                Ok((stream, _)) => match self.place() {
                    Some(place) => {
                        let this = self.clone();
                        let Some(peer) = unix_peer(&stream) else { continue };
                        let connection = Connection::new(peer, &self.clock);
                        spawn_local(async move {
                            this.serve_plain(stream, connection).await;
                            drop(place);
                        });
                    }
                    None => self.refuse(stream),
                },
                Err(error) => self.rest(&error).await,
            }
        }
    }

    /// The next connection. When draining, those that the kernel has taken already still count.
    async fn next<T>(&self, accept: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            accepted = accept => Some(accepted),
            () = self.stopped() => None,
        }
    }

    async fn stopped(&self) {
        if !self.draining.get() {
            self.stop.notified().await;
        }
    }

    /// Waits before the next accept: without file descriptors it would spin.
    async fn rest(&self, error: &io::Error) {
        tracing::warn!(%error, "cannot accept a connection");
        sleep(Duration::from_millis(100)).await;
    }

    fn place(&self) -> Option<Place> {
        let (open, accepted) = (self.open.clone(), self.accepted.clone());
        let place = Place { open, accepted, metrics: self.metrics.clone() };
        self.accepted.set(self.accepted.get() + 1);
        self.metrics.connection_opened();
        if self.open.fetch_add(1, Ordering::Relaxed) < self.limits.connections_max {
            return Some(place);
        }
        self.metrics.limit(Limit::Connections);
        None
    }

    /// Tells a caller beyond the limit why, without reading from it.
    fn refuse<T: AsyncRead + AsyncWrite + Unpin + 'static>(self: &Rc<Self>, mut stream: T) {
        if self.tls.is_some() || self.refusals.get() >= REFUSALS_MAX {
            return;
        }
        self.refusals.set(self.refusals.get() + 1);
        let this = self.clone();
        let refusal = (self.refuse)(Refused::Connections);
        spawn_local(async move {
            let written = async {
                stream.write_all(&refusal).await?;
                stream.shutdown().await?;
                // Closing with unread bytes would reset the connection, and lose the response.
                while stream.read(&mut [0; 1024]).await? > 0 {}
                io::Result::Ok(())
            };
            let _ = timeout(Duration::from_secs(2), written).await;
            this.refusals.set(this.refusals.get() - 1);
        });
    }

    async fn serve_tcp(self: Rc<Self>, stream: TcpStream, connection: Rc<Connection>) {
        match self.tls.clone() {
            None => self.serve_plain(stream, connection).await,
            // Boxed: a handshake is larger than all that a plain connection needs.
            Some(tls) => Box::pin(self.serve_tls(stream, connection, tls)).await,
        }
    }

    async fn serve_tls(
        self: Rc<Self>,
        stream: TcpStream,
        connection: Rc<Connection>,
        tls: Arc<ServerTls>,
    ) {
        let handshake = tokio_rustls::TlsAcceptor::from(tls.current()).accept(stream);
        match timeout(self.limits.handshake_timeout, handshake).await {
            Ok(Ok(stream)) => {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                self.serve(stream, connection, http2).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake with a caller failed"),
            Err(_) => self.metrics.limit(Limit::HandshakeTimeout),
        }
    }

    async fn serve_plain<T: Peek>(self: Rc<Self>, stream: T, connection: Rc<Connection>) {
        match timeout(self.limits.first_byte_timeout, begins_http2(&stream)).await {
            Ok(Ok(http2)) => self.serve(stream, connection, http2).await,
            Ok(Err(_)) => {}
            Err(_) => self.metrics.limit(Limit::FirstByteTimeout),
        }
    }

    async fn serve<T>(self: Rc<Self>, stream: T, connection: Rc<Connection>, http2: bool)
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        connection.begin(http2);
        let key = self.next.replace(self.next.get() + 1);
        self.connections.borrow_mut().insert(key, connection.clone());
        if self.draining.get() && http2 {
            connection.close(Close::Gracefully);
        }
        let io = Watched::new(TokioIo::new(stream), &connection, &self.refuse);
        if http2 {
            self.serve_http2(io, &connection).await;
        } else {
            self.serve_http1(io, &connection).await;
        }
        self.connections.borrow_mut().remove(&key);
    }

    async fn serve_http1<T: Read + Write + Unpin + 'static>(&self, io: T, watch: &Rc<Connection>) {
        let service = service_fn(|request| self.call(watch, request));
        let mut builder = http1::Builder::new();
        builder
            .auto_date_header(false)
            // Twice the cap, so that a header over it gets our answer and not hyper's.
            .max_buf_size((2 * self.limits.header_max_bytes).max(64 * 1024));
        // hyper's own cap keeps the lines on its stack; another one costs each request 5 %.
        if self.limits.headers_max != HYPERS_HEADERS_MAX {
            builder.max_headers(self.limits.headers_max);
        }
        let mut connection = pin!(builder.serve_connection(io, service));
        drive(watch, |cx, close| {
            if close {
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(cx).map(drop)
        })
        .await;
    }

    async fn serve_http2<T: Read + Write + Unpin + 'static>(
        self: &Rc<Self>,
        io: T,
        watch: &Rc<Connection>,
    ) {
        let (this, watched) = (self.clone(), watch.clone());
        let service = service_fn(move |request| {
            let (this, watched) = (this.clone(), watched.clone());
            async move { this.call(&watched, request).await }
        });
        let mut connection = pin!(
            http2::Builder::new(LocalExecutor)
                .timer(TokioTimer::new())
                .auto_date_header(false)
                .max_concurrent_streams(self.limits.http2_streams_max)
                // As for HTTP/1; HPACK counts 32 bytes more for every line.
                .max_header_list_size(
                    u32::try_from(2 * self.limits.header_max_bytes + 32 * self.limits.headers_max)
                        .unwrap_or(u32::MAX),
                )
                .max_pending_accept_reset_streams(20)
                .max_local_error_reset_streams(Some(256))
                .keep_alive_interval(Duration::from_secs(60))
                .keep_alive_timeout(Duration::from_secs(20))
                .serve_connection(io, service)
        );
        drive(watch, |cx, close| {
            if close {
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(cx).map(drop)
        })
        .await;
    }

    async fn call(
        &self,
        connection: &Rc<Connection>,
        request: Request<Incoming>,
    ) -> Result<Response<Guarded<B>>, std::convert::Infallible> {
        let in_flight = connection.request();
        // HTTP/2 ends a stream alone.
        let rest = (!connection.is_http2()).then_some(&connection.unread);
        let (head, body) = request.into_parts();
        let is_held_back = !body.is_end_stream() && head.headers.contains_key(EXPECT);
        let request = Request::from_parts(head, CallerBody::new(body, rest, is_held_back));
        let mut response = (self.service)(request, &connection.peer).await;
        if !connection.is_http2() && (self.draining.get() || connection.must_announce_end()) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            connection.announced_end();
        }
        Ok(response.map(|body| Guarded::new(body, in_flight)))
    }

    /// Judges every connection, about once a second.
    pub fn sweep(&self, seconds: u32) {
        self.clock.set(seconds);
        let limits = &self.limits;
        let over = |secs: u32, limit: Duration| u64::from(secs) > limit.as_secs();
        for connection in self.connections.borrow().values() {
            let hit = if over(connection.header_secs(), limits.header_timeout) {
                Limit::HeaderTimeout
            } else if over(connection.write_blocked_secs(), limits.write_timeout) {
                Limit::WriteTimeout
            } else if over(connection.idle_secs(), limits.idle_timeout + limits.write_timeout) {
                // Asked to end, it has waited since for a caller that does not take the last bytes.
                Limit::WriteTimeout
            } else if over(connection.idle_secs(), limits.idle_timeout) {
                // The usual end of a kept-alive connection: nothing to count.
                connection.close(Close::Gracefully);
                continue;
            } else if connection.discards_too_long(limits.body_timeout.as_secs()) {
                connection.abandon_rest();
                continue;
            } else if connection.lingers_too_long() {
                connection.close(Close::Now);
                continue;
            } else {
                continue;
            };
            self.metrics.limit(hit);
            connection.close(Close::Now);
        }
    }

    /// Accepts no more, and lets every connection end after the requests in flight.
    ///
    /// HTTP/2 has a message for that. An HTTP/1.1 connection that was closed between two requests
    /// would take one with it that is on its way; so the next answer announces the end, and only
    /// who stays silent for a while is closed.
    pub fn drain(&self) {
        self.draining.set(true);
        self.stop.notify_waiters();
        for connection in self.connections.borrow().values().filter(|one| one.is_http2()) {
            connection.close(Close::Gracefully);
        }
    }

    /// Says whether every connection has ended, `since` the drain began. To be asked again and
    /// again: it also closes those that are idle for too long.
    pub fn has_drained(&self, since: Duration) -> bool {
        if since < IDLE_GRACE {
            return self.accepted.get() == 0;
        }
        let connections = self.connections.borrow();
        for connection in connections.values() {
            // The rest of a body whose response is out is not waited for.
            let how = if connection.has_responded() { Close::Now } else { Close::Gracefully };
            connection.close(how);
        }
        connections.is_empty()
    }
}

/// Polls a connection until it ends, or is told to.
async fn drive(watch: &Connection, mut poll: impl FnMut(&mut Context<'_>, bool) -> Poll<()>) {
    let mut told = false;
    std::future::poll_fn(|cx| {
        let close = watch.closing();
        if close == Close::Now {
            return Poll::Ready(());
        }
        let tell = close == Close::Gracefully && !told;
        told |= tell;
        let polled = poll(cx, tell);
        watch.poll_discard(cx);
        watch.register(cx.waker());
        polled
    })
    .await;
}

/// The process at the other end of a Unix socket; none if it has left already.
fn unix_peer(stream: &UnixStream) -> Option<Peer> {
    let peer = stream.peer_cred().ok()?;
    Some(Peer::Unix(UnixPeer { pid: peer.pid(), uid: peer.uid(), gid: peer.gid() }))
}

/// A place under the connection limit.
struct Place {
    open: Arc<AtomicUsize>,
    accepted: Rc<Cell<usize>>,
    metrics: Arc<WorkerMetrics>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.accepted.set(self.accepted.get() - 1);
        self.metrics.connection_closed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::Full;
    use std::future::{Ready, ready};

    fn empty(_: Request<CallerBody>, _: &Peer) -> Ready<Response<Full<Bytes>>> {
        ready(Response::default())
    }

    fn size_of_task<S, F>(_: S) -> usize
    where
        S: Fn(Request<CallerBody>, &Peer) -> F + 'static,
        F: Future<Output = Response<Full<Bytes>>> + 'static,
    {
        fn returned<A, B, C, R>(_: impl Fn(A, B, C) -> R) -> usize {
            size_of::<R>()
        }
        returned(Acceptor::<S>::serve_tcp)
    }

    /// Every idle connection holds its task.
    #[test]
    fn the_task_of_a_connection_stays_small() {
        let size = size_of_task(empty);
        assert!(size <= 2048, "{size} bytes: box what is rare");
    }
}
