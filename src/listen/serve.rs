//! Serves one connection: TLS, the protocol, and the requests on it.

use super::{
    Acceptor, ByteStream,
    connection::{Close, Connection},
    io::ConnectionIo,
    preface::Preface,
    response_body::TrackedBody,
    table::ConnectionEntry,
    tls::ServerTls,
};
use crate::{caller_body::CallerBody, executor::LocalExecutor, inbound::peer::Peer};
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
use std::{
    convert::Infallible,
    error::Error as StdError,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

/// How many header lines hyper takes by default.
const HYPERS_HEADERS_MAX: usize = 100;

impl<S, F, B> Acceptor<S>
where
    S: Fn(Request<CallerBody>, &Peer) -> F + 'static,
    F: Future<Output = Response<B>> + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>> + Unpin + 'static,
{
    pub(super) async fn serve<T: ByteStream>(
        self: Rc<Self>,
        mut stream: T,
        entry: ConnectionEntry,
    ) {
        let connection = &entry.connection;
        if let (Some(tls), Peer::Tcp(_)) = (&self.tls, connection.peer) {
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
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
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
        let mut builder = http1::Builder::new();
        builder
            .auto_date_header(false)
            // Twice the cap, so that a header over it gets the service's response and not hyper's.
            .max_buf_size((2 * self.limits.header_max_bytes).max(64 * 1024));
        // hyper's own cap keeps the lines on its stack; another one costs each request 5 %.
        if self.limits.headers_max != HYPERS_HEADERS_MAX {
            builder.max_headers(self.limits.headers_max);
        }
        let mut served = pin!(builder.serve_connection(io, service));
        drive(connection, served.as_mut()).await;
    }

    async fn serve_http2(
        self: &Rc<Self>,
        io: ConnectionIo<impl ByteStream>,
        connection: &Rc<Connection>,
    ) {
        let (this, tracked) = (self.clone(), connection.clone());
        let service = service_fn(move |request| {
            let (this, tracked) = (this.clone(), tracked.clone());
            async move { this.call(&tracked, request).await }
        });
        let mut served = pin!(
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
        drive(connection, served.as_mut()).await;
    }

    async fn call(
        &self,
        connection: &Rc<Connection>,
        request: Request<Incoming>,
    ) -> Result<Response<TrackedBody<B>>, Infallible> {
        let in_flight = connection.request();
        // HTTP/2 ends a stream alone.
        let rest = (!connection.is_http2.get()).then_some(&connection.unread);
        let (head, body) = request.into_parts();
        let is_held_back = !body.is_end_stream() && head.headers.contains_key(EXPECT);
        let request = Request::from_parts(head, CallerBody::new(body, rest, is_held_back));
        let mut response = (self.service)(request, &connection.peer).await;
        // Hop-by-hop fields of Amazon's are gone: this one is ours.
        let ends = response.headers().contains_key(CONNECTION);
        let ends = ends || self.draining.get() || connection.must_announce_end();
        if ends && !connection.is_http2.get() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            connection.announced_end();
        }
        Ok(response.map(|body| TrackedBody::new(body, in_flight)))
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
    std::future::poll_fn(|cx| {
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
