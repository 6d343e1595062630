//! Accepts connections for one worker and serves them until they end or the worker drains.
//!
//! The acceptor is handed a service and knows nothing of proxying. Every connection has an entry
//! under the limit before it is read from, a first byte that it must send, and a sweep that ends
//! it when it is too slow. A failed accept never ends the loop.

pub mod bind;
mod client_certificate;
mod connection;
pub mod control_plane;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod in_flight;
pub mod inherited;
mod io;
mod listener;
mod preface;
pub mod rejection;
mod response_body;
mod table;
pub mod tls;

use crate::{
    caller_body::CallerBody,
    config,
    executor::LocalExecutor,
    inbound::peer::{ConnectionInfo, Peer},
    metrics::{LimitHit, WorkerMetrics},
};
use bind::Bound;
use connection::{Close, Connection};
use futures_util::FutureExt;
use http::{
    HeaderValue, Request, Response,
    header::{CONNECTION, EXPECT},
};
use hyper::{
    body::{Body, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{rt::TokioTimer, server::graceful::GracefulConnection};
use io::ConnectionIo;
pub use listener::Listener;
use listener::{ByteStream, LINGERING_CLOSE_TIMEOUT, close_in_stages, pause};
use preface::Preface;
use rejection::{ListenRejection, WriteRejection, render};
use response_body::TrackedBody;
use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    error::Error as StdError,
    future::poll_fn,
    io::Result as IoResult,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};
pub use table::ConnectionLimit;
use table::{ConnectionEntry, ConnectionTable};
use tls::ServerTls;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, UnixListener},
    sync::Notify,
    task::spawn_local,
    time::timeout,
};

/// A draining worker keeps idle HTTP/1.1 connections for so long: a request may be on its way.
pub const IDLE_GRACE: Duration = Duration::from_millis(500);
/// Beyond the limit so many connections at once get a response; others are just closed.
const REJECTIONS_MAX: usize = 64;
/// How many header lines hyper takes by default.
const HYPERS_HEADERS_MAX: usize = 100;

/// The accepting side of one worker.
pub struct Acceptor<S> {
    limits: RefCell<Rc<config::Limits>>,
    tls: Option<Arc<ServerTls>>,
    service: S,
    write_rejection: WriteRejection,
    metrics: Arc<WorkerMetrics>,
    table: Rc<ConnectionTable>,
    rejections: Cell<usize>,
    draining: Cell<bool>,
    stop: Notify,
}

impl<S, F, B> Acceptor<S>
where
    S: Fn(Request<CallerBody>, Rc<ConnectionInfo>) -> F + 'static,
    F: Future<Output = Response<B>> + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>> + Unpin + 'static,
{
    /// An acceptor for `service` and, for requests that do not reach it, `write_rejection`.
    pub fn new(
        limits: &config::Limits,
        tls: Option<Arc<ServerTls>>,
        metrics: Arc<WorkerMetrics>,
        connections: Arc<ConnectionLimit>,
        (service, write_rejection): (S, WriteRejection),
    ) -> Rc<Self> {
        Rc::new(Self {
            limits: RefCell::new(Rc::new(limits.clone())),
            tls,
            service,
            write_rejection,
            table: ConnectionTable::new(connections, metrics.clone()),
            metrics,
            rejections: Cell::new(0),
            draining: Cell::new(false),
            stop: Notify::new(),
        })
    }

    /// Begins to accept on `sockets`; each runs in a task of its own until the runtime ends.
    pub fn listen(self: &Rc<Self>, sockets: Vec<Bound>) -> IoResult<()> {
        let table = self.table.clone();
        spawn_local(async move { table.evict_for_others().await });
        for socket in sockets {
            let this = self.clone();
            let _task = match socket {
                Bound::Tcp(tcp) => spawn_local(this.accept(TcpListener::from_std(tcp)?)),
                Bound::Unix(unix) => spawn_local(this.accept(UnixListener::from_std(unix)?)),
            };
        }
        Ok(())
    }

    async fn accept<L: Listener>(self: Rc<Self>, listener: L) {
        let is_exposed = listener.is_exposed();
        loop {
            // When draining, connections that the kernel has taken already still count.
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                () = self.stopped() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (info, arrival) =
                        (ConnectionInfo::new(peer, is_exposed), self.table.arrive());
                    match self.table.enter(&info, arrival) {
                        Some(entry) => drop(spawn_local(self.clone().serve(stream, entry))),
                        None => self.wait_for_room(stream, info, arrival),
                    }
                }
                Err(error) => pause(&error).await,
            }
        }
    }

    async fn stopped(&self) {
        if !self.draining.get() {
            self.stop.notified().await;
        }
    }

    /// Serves a connection beyond the limit once another worker has evicted one, else writes to the
    /// caller why it is not served, without reading its request.
    fn wait_for_room(
        self: &Rc<Self>,
        mut stream: impl ByteStream,
        info: ConnectionInfo,
        arrival: u64,
    ) {
        if self.rejections.get() >= REJECTIONS_MAX {
            return self.metrics.limit(LimitHit::Connections);
        }
        self.rejections.set(self.rejections.get() + 1);
        let this = self.clone();
        spawn_local(async move {
            this.table.refresh_evictions().await;
            if let Some(entry) = this.table.enter(&info, arrival) {
                this.rejections.set(this.rejections.get() - 1);
                return this.serve(stream, entry).await;
            }
            this.metrics.limit(LimitHit::Connections);
            if this.tls.is_none() {
                let rejection = render(&(this.write_rejection)(ListenRejection::Connections));
                let written = timeout(LINGERING_CLOSE_TIMEOUT, stream.write_all(&rejection)).await;
                if matches!(written, Ok(Ok(()))) {
                    close_in_stages(stream).await;
                }
            }
            this.rejections.set(this.rejections.get() - 1);
        });
    }

    /// Goes by other limits from now on; connections that are open keep those of their protocol.
    pub fn set_limits(&self, limits: &config::Limits) {
        *self.limits.borrow_mut() = Rc::new(limits.clone());
    }

    fn limits(&self) -> Rc<config::Limits> {
        self.limits.borrow().clone()
    }

    /// Judges every connection, once a second.
    pub fn sweep(&self, seconds: u32) {
        if !self.table.set_clock(seconds) {
            return;
        }
        let limits = self.limits();
        self.table.for_each(|connection| {
            if let Some(hit) = connection.enforce_timeouts(&limits, self.tls.is_some()) {
                self.metrics.limit(hit);
            }
        });
    }

    /// Accepts no more, and lets every connection end after the requests in flight.
    ///
    /// HTTP/2 has a message for that. An HTTP/1.1 connection that was closed between two requests
    /// would take one with it that is on its way; so the next response announces the end, and only
    /// a connection that is idle for a while is closed.
    pub fn drain(&self) {
        self.draining.set(true);
        self.stop.notify_waiters();
        self.table.for_each(|connection| {
            if connection.is_http2.get() {
                connection.close(Close::Gracefully);
            }
        });
    }

    /// Whether every connection has ended, `since` the drain began. To be asked again and again:
    /// it also closes those that are idle for too long.
    pub fn has_drained(&self, since: Duration) -> bool {
        if since < IDLE_GRACE {
            return self.table.is_empty();
        }
        let mut is_drained = true;
        self.table.for_each(|connection| {
            if connection.has_begun.get() {
                is_drained = false;
                connection.drain(since);
            }
        });
        is_drained
    }

    async fn serve<T: ByteStream>(self: Rc<Self>, mut stream: T, entry: ConnectionEntry) {
        let connection = &entry.connection;
        if let (Some(tls), Peer::Tcp(_)) = (&self.tls, connection.info().peer) {
            // Boxed: a handshake is larger than all that a plain connection needs.
            return Box::pin(self.serve_tls(stream, connection, tls)).await;
        }
        let first_bytes = Preface::read(&mut stream);
        if let Some(Ok(preface)) = unless_closed(connection, first_bytes).await {
            connection.begin(preface.is_http2(), preface);
            self.serve_requests(stream, connection).await;
        }
    }

    async fn serve_tls<T: ByteStream>(
        self: &Rc<Self>,
        stream: T,
        connection: &Rc<Connection>,
        tls: &ServerTls,
    ) {
        let handshake = tokio_rustls::TlsAcceptor::from(tls.current()).accept(stream);
        match unless_closed(connection, handshake).await {
            Some(Ok(stream)) => {
                let session = stream.get_ref().1;
                let is_http2 = session.alpn_protocol() == Some(b"h2");
                let leaf = session.peer_certificates().and_then(<[_]>::first);
                connection.set_certificate(leaf.and_then(client_certificate::read));
                connection.begin(is_http2, Preface::default());
                self.serve_requests(stream, connection).await;
            }
            Some(Err(error)) => tracing::debug!(%error, "TLS handshake with a caller failed"),
            None => {}
        }
    }

    async fn serve_requests(self: &Rc<Self>, stream: impl ByteStream, connection: &Rc<Connection>) {
        if self.draining.get() && connection.is_http2.get() {
            connection.close(Close::Gracefully);
        }
        let io = ConnectionIo::new(stream, connection, &self.write_rejection);
        if connection.is_http2.get() {
            self.serve_http2(io, connection).await;
        } else {
            self.serve_http1(io, connection).await;
        }
    }

    async fn serve_http1<T: ByteStream>(&self, io: ConnectionIo<T>, connection: &Rc<Connection>) {
        let service = service_fn(|request| self.call(connection, request));
        let (mut builder, limits) = (http1::Builder::new(), self.limits());
        builder
            .auto_date_header(false)
            // Twice the cap, so that a header over it gets the service's response and not hyper's.
            .max_buf_size((2 * limits.header_max_bytes).max(64 * 1024));
        // hyper's own cap keeps the lines on its stack; another one costs each request 5 %.
        if limits.headers_max != HYPERS_HEADERS_MAX {
            builder.max_headers(limits.headers_max);
        }
        let mut served = pin!(builder.serve_connection(io, service));
        drive(connection, served.as_mut()).await;
    }

    async fn serve_http2(
        self: &Rc<Self>,
        io: ConnectionIo<impl ByteStream>,
        connection: &Rc<Connection>,
    ) {
        let (this, tracked, limits) = (self.clone(), connection.clone(), self.limits());
        let service = service_fn(move |request| {
            let (this, tracked) = (this.clone(), tracked.clone());
            async move { this.call(&tracked, request).await }
        });
        let mut served = pin!(
            http2::Builder::new(LocalExecutor)
                .timer(TokioTimer::new())
                .auto_date_header(false)
                .max_concurrent_streams(limits.http2_streams_max)
                // As for HTTP/1; HPACK counts 32 bytes more for every line.
                .max_header_list_size(
                    u32::try_from(2 * limits.header_max_bytes + 32 * limits.headers_max)
                        .unwrap_or(u32::MAX),
                )
                .max_pending_accept_reset_streams(20)
                .max_local_error_reset_streams(Some(256))
                .keep_alive_interval(Duration::from_secs(60))
                .keep_alive_timeout(Duration::from_secs(20))
                .serve_connection(io, service)
        );
        drive(connection, served.as_mut()).await;
    }

    /// Serves one request. What comes before the response is waited for is done here and not in the
    /// future, which would have room for the request twice.
    fn call<'a>(
        &'a self,
        connection: &'a Rc<Connection>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<TrackedBody<B>>, Infallible>> + use<'a, S, F, B> {
        let in_flight = connection.request();
        // HTTP/2 ends a stream alone.
        let rest = (!connection.is_http2.get()).then_some(&connection.unread);
        let (head, body) = request.into_parts();
        let is_held_back = !body.is_end_stream() && head.headers.contains_key(EXPECT);
        let request = Request::from_parts(head, CallerBody::new(body, rest, is_held_back));
        // No async block: that would have room for the future twice, too.
        (self.service)(request, connection.info()).map(move |mut response| {
            // Hop-by-hop fields of Amazon's are gone: this one is ours.
            let ends = response.headers().contains_key(CONNECTION);
            let ends = ends || self.draining.get() || connection.must_announce_end();
            if ends && !connection.is_http2.get() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                connection.announced_end();
            }
            Ok(response.map(|body| TrackedBody::new(body, in_flight)))
        })
    }
}

/// Waits for `future`; none if the connection is to end at once.
async fn unless_closed<F: Future>(connection: &Connection, future: F) -> Option<F::Output> {
    tokio::select! {
        ended = future => Some(ended),
        () = connection.closed() => None,
    }
}

/// Polls a connection until it ends, or is to end at once.
async fn drive(connection: &Connection, mut served: Pin<&mut impl GracefulConnection>) {
    let mut is_closing = false;
    poll_fn(|cx| {
        let close = connection.close.get();
        if close == Close::Now {
            return Poll::Ready(());
        }
        if close == Close::Gracefully && !is_closing {
            is_closing = true;
            served.as_mut().graceful_shutdown();
        }
        let polled = served.as_mut().poll(cx).map(drop);
        connection.poll_discard(cx);
        connection.unread.register(cx.waker());
        polled
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::Full;
    use std::future::{Ready, ready};
    use tokio::net::TcpStream;

    fn empty(_: Request<CallerBody>, _: Rc<ConnectionInfo>) -> Ready<Response<Full<Bytes>>> {
        ready(Response::default())
    }

    fn size_of_task<S, F>(_: S) -> usize
    where
        S: Fn(Request<CallerBody>, Rc<ConnectionInfo>) -> F + 'static,
        F: Future<Output = Response<Full<Bytes>>> + 'static,
    {
        fn returned<A, B, C, R>(_: impl Fn(A, B, C) -> R) -> usize {
            size_of::<R>()
        }
        returned(Acceptor::<S>::serve::<TcpStream>)
    }

    /// Every idle connection holds its task.
    #[test]
    fn the_task_of_a_connection_stays_small() {
        let size = size_of_task(empty);
        // With its entry in the table.
        assert!(size <= 2176, "{size} bytes: box what is rare");
    }
}
