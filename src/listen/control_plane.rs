//! The accept loop of the admin and health listeners and the control socket: plain HTTP/1, few
//! connections.
//!
//! The health listener may be open to a whole network. A peer has a share of the connections, and
//! where there is no room the connection goes that has waited longest for a request.

use super::{
    Listener, close_in_stages, pause,
    rejection::{ListenRejection, Substitute},
};
use crate::inbound::peer::{Origin, Peer};
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
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    convert::Infallible,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
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

/// The connection serves a request.
const BUSY: u64 = u64::MAX;

struct OpenConnections {
    started: Instant,
    open: Mutex<HashMap<u64, OpenConnection>>,
}

struct OpenConnection {
    origin: Origin,
    /// Milliseconds since the start at which it began to wait for a request, or [`BUSY`].
    waits_since: Arc<AtomicU64>,
    task: AbortHandle,
}

impl OpenConnections {
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(BUSY - 1)
    }

    /// Makes room for one more connection of `origin`: whether there is some.
    fn make_room(&self, origin: Origin) -> bool {
        let mut open = self.open.lock();
        let own = open.values().filter(|one| one.origin == origin).count();
        let is_over_share = own >= PEER_CONNECTIONS_MAX;
        if !is_over_share && open.len() < CONNECTIONS_MAX {
            return true;
        }
        let candidates = open.iter().filter(|(_, one)| !is_over_share || one.origin == origin);
        let waiting = candidates.map(|(key, one)| (one.waits_since.load(Relaxed), *key));
        let longest = waiting.min().filter(|(since, _)| *since != BUSY);
        let Some((_, key)) = longest else { return false };
        if let Some(longest) = open.remove(&key) {
            longest.task.abort();
        }
        true
    }
}

/// Serves until `stop` becomes true or its sender is gone, then lets open requests finish.
/// `service` gives the service of a peer, or none for a peer that is not served.
///
/// `reject` gives the response to what is no HTTP.
///
/// Set `stop` after the data plane has drained: readiness should be seen to fall meanwhile.
pub async fn serve<L, S>(
    listener: L,
    service: impl Fn(&Peer) -> Option<S>,
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
    let connections =
        Arc::new(OpenConnections { started: Instant::now(), open: Mutex::new(HashMap::new()) });
    let mut tasks = JoinSet::new();
    for key in 0.. {
        let accepted = loop {
            tokio::select! {
                () = stopped(&mut stop) => break None,
                Some(_) = tasks.join_next() => {}
                accepted = listener.accept() => break Some(accepted),
            }
        };
        match accepted {
            None => break,
            Some(Ok((stream, peer))) => {
                let Some(service) = service(&peer) else { continue };
                if !connections.make_room(peer.origin()) {
                    continue;
                }
                let waits_since = Arc::new(AtomicU64::new(connections.now()));
                let serving = Serving {
                    connections: connections.clone(),
                    waits_since: waits_since.clone(),
                    key,
                };
                let stop = stop.clone();
                // Locked until the task is known: it could end before.
                let mut open = connections.open.lock();
                let task = tasks.spawn(async move {
                    // Whether it ended or was cut makes no difference here.
                    let io = RejectingIo {
                        io: TokioIo::new(stream),
                        reject,
                        substitute: Substitute::default(),
                    };
                    let served = serving.run(io, service, stop);
                    let _cut = timeout(CONNECTION_TIMEOUT, served).await;
                });
                open.insert(key, OpenConnection { origin: peer.origin(), waits_since, task });
            }
            Some(Err(error)) => pause(&error).await,
        }
    }
    drop(listener);
    let finished = timeout(DRAIN_TIMEOUT, async { while tasks.join_next().await.is_some() {} });
    // What is not finished by then is cut when `tasks` is dropped.
    let _cut = finished.await;
}

/// One connection's part of the table; taken out when dropped.
struct Serving {
    connections: Arc<OpenConnections>,
    waits_since: Arc<AtomicU64>,
    key: u64,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.connections.open.lock().remove(&self.key);
    }
}

impl Serving {
    async fn run<T, S>(&self, io: RejectingIo<T>, service: S, mut stop: watch::Receiver<bool>)
    where
        T: AsyncRead + AsyncWrite + Unpin,
        S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>,
    {
        let service = service_fn(|request| {
            self.waits_since.store(BUSY, Relaxed);
            let response = service.call(request);
            Box::pin(async {
                let response = response.await;
                self.waits_since.store(self.connections.now(), Relaxed);
                response
            })
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(io, service);
        let mut is_stopping = false;
        let ended = loop {
            tokio::select! {
                ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
                () = stopped(&mut stop), if !is_stopping => {
                    is_stopping = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        };
        match ended {
            Ok(()) => close_in_stages(connection.into_parts().io.io.into_inner()).await,
            Err(error) => {
                tracing::debug!(%error, "a connection to the admin or health listener broke")
            }
        }
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
        if !this.substitute.has_begun()
            && let Some(rejection) = ListenRejection::by_parser(buf)
        {
            this.substitute.begin(&(this.reject)(rejection));
        }
        if this.substitute.has_begun() {
            return this.substitute.poll_write(&mut this.io, buf.len(), cx);
        }
        Pin::new(&mut this.io).poll_write(cx, buf)
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
