//! The accept loop of the admin and health listeners and the control socket: plain HTTP/1, few
//! connections.
//!
//! The health listener may be open to a whole network. A peer has a share of the connections, and
//! where there is no room the connection goes that has waited longest for a request.

use super::{
    listener::{ByteStream, Listener, close_in_stages, pause},
    rejection::{ListenRejection, Substitute},
};
use crate::inbound::peer::{ConnectionInfo, Origin};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::timeout,
};

const CONNECTIONS_MAX: usize = 256;
/// Connections at once from one address or user.
const PEER_CONNECTIONS_MAX: usize = 64;
/// From the first wait for a request to the end of its header; ends idle connections too.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection may live: a caller who never reads a response must not keep its place.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);
/// How long connections may finish once `stop` is set.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Makes the response to a rejection.
pub type Reject = fn(ListenRejection) -> Response<Bytes>;

/// The turn of a connection that serves a request.
const BUSY: u64 = u64::MAX;

struct OpenConnection {
    origin: Origin,
    turn: Arc<AtomicU64>,
    task: AbortHandle,
}

/// Numbers the waits for a request in the order in which they began.
static WAITS: AtomicU64 = AtomicU64::new(0);

/// The turn of a connection that begins to wait for a request.
fn next_turn() -> u64 {
    WAITS.fetch_add(1, Relaxed)
}

/// Makes room for one more connection of `origin`: whether there is some.
fn make_room(open: &mut Vec<OpenConnection>, origin: Origin) -> bool {
    open.retain(|one| !one.task.is_finished());
    let own = open.iter().filter(|one| one.origin == origin).count();
    let is_over_share = own >= PEER_CONNECTIONS_MAX;
    if !is_over_share && open.len() < CONNECTIONS_MAX {
        return true;
    }
    let candidates = open.iter().enumerate();
    let candidates = candidates.filter(|(_, one)| !is_over_share || one.origin == origin);
    let turns = candidates.map(|(at, one)| (one.turn.load(Relaxed), at));
    let Some((_, at)) = turns.min().filter(|(turn, _)| *turn != BUSY) else { return false };
    open.swap_remove(at).task.abort();
    true
}

/// Serves until `stop` becomes true or its sender is gone, then lets open requests finish.
/// `service` gives the service of a connection, or none for one that is not served.
///
/// `reject` gives the response to what is no HTTP.
///
/// Set `stop` after the data plane has drained: readiness should be seen to fall meanwhile.
pub async fn serve<L, S>(
    listener: L,
    service: impl Fn(&ConnectionInfo) -> Option<S>,
    reject: Reject,
    mut stop: watch::Receiver<bool>,
) where
    L: Listener,
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let is_exposed = listener.is_exposed();
    let mut open = Vec::new();
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let info = ConnectionInfo::new(peer, is_exposed);
                let Some(service) = service(&info) else { continue };
                if !make_room(&mut open, peer.origin()) {
                    continue;
                }
                let turn = Arc::new(AtomicU64::new(next_turn()));
                let io = TokioIo::new(stream);
                let io = RejectingIo { io, reject, substitute: Substitute::default() };
                let served = serve_connection(io, service, turn.clone(), stop.clone());
                // Whether it ended or was cut makes no difference here.
                let task = tasks.spawn(async { drop(timeout(CONNECTION_TIMEOUT, served).await) });
                open.push(OpenConnection { origin: peer.origin(), turn, task });
            }
            Err(error) => pause(&error).await,
        }
    }
    drop(listener);
    let finished = timeout(DRAIN_TIMEOUT, async { while tasks.join_next().await.is_some() {} });
    // What is not finished by then is cut when `tasks` is dropped.
    let _cut = finished.await;
}

async fn serve_connection<S>(
    io: RejectingIo<impl ByteStream>,
    service: S,
    turn: Arc<AtomicU64>,
    mut stop: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>,
{
    let service = service_fn(|request| {
        turn.store(BUSY, Relaxed);
        let response = service.call(request);
        Box::pin(async { response.await.inspect(|_| turn.store(next_turn(), Relaxed)) })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(io, service);
    let ended = tokio::select! {
        ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => ended,
        () = stopped(&mut stop) => {
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|cx| connection.poll_without_shutdown(cx)).await
        }
    };
    match ended {
        Ok(()) => close_in_stages(connection.into_parts().io.io.into_inner()).await,
        Err(error) => tracing::debug!(%error, "a connection to the admin or health listener broke"),
    }
}

/// A stream on which the parser's bare responses are replaced by those of `reject`.
struct RejectingIo<T> {
    io: TokioIo<T>,
    reject: Reject,
    substitute: Substitute,
}

impl<T: AsyncRead + Unpin> Read for RejectingIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> Write for RejectingIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        // No response of the service has an empty body and such a status.
        this.substitute.poll_write(&mut this.io, cx, buf, Some(this.reject))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Returns once `stop` is true or its sender is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Either way it is time to stop; the guard inside must not live across an await.
    let _stop = stop.wait_for(|stop| *stop).await.is_ok();
}
