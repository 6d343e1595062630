//! The accept loop of the admin and health listeners and the control socket: plain HTTP/1, few
//! connections.
//!
//! The health listener may be open to a whole network. A peer has a share of the connections, and
//! where there is no room the connection goes that has waited longest for a request. A request has
//! come when its body has: one whose body does not come keeps no place.

use super::{
    listener::{ByteStream, Listener, close_in_stages, pause},
    rejection::{ListenRejection, Substitute},
};
use crate::inbound::peer::{ConnectionInfo, Origin};
use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
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
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
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

/// The turn of a connection that serves a request, which has come as a whole.
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

/// Serves until `stop` becomes true or its sender is gone, then lets open requests finish, and cuts
/// off responses whose length is not known: they are streams, which have no end of their own.
/// `service` gives the service of a connection, or none for one that is not served.
///
/// `reject` gives the response to what is no HTTP.
///
/// Set `stop` after the data plane has drained: readiness should be seen to fall meanwhile.
pub async fn serve<L, S, B>(
    listener: L,
    service: impl Fn(&ConnectionInfo) -> Option<S>,
    reject: Reject,
    mut stop: watch::Receiver<bool>,
) where
    L: Listener,
    S: Service<Request<AwaitedBody>, Response = Response<B>, Error = Infallible>
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
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

async fn serve_connection<S, B>(
    io: RejectingIo<impl ByteStream>,
    service: S,
    turn: Arc<AtomicU64>,
    mut stop: watch::Receiver<bool>,
) where
    S: Service<Request<AwaitedBody>, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes, Error = Infallible> + 'static,
{
    let is_streaming = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        let request = request.map(|body| AwaitedBody::new(body, turn.clone()));
        let response = service.call(request);
        Box::pin(async {
            response.await.inspect(|response| {
                is_streaming.store(response.body().size_hint().exact().is_none(), Relaxed);
                turn.store(next_turn(), Relaxed);
            })
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(io, service);
    let ended = tokio::select! {
        ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => ended,
        () = stopped(&mut stop) => {
            if is_streaming.load(Relaxed) {
                return;
            }
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|cx| connection.poll_without_shutdown(cx)).await
        }
    };
    match ended {
        Ok(()) => close_in_stages(connection.into_parts().io.io.into_inner()).await,
        Err(error) => tracing::debug!(%error, "a connection to the admin or health listener broke"),
    }
}

/// The body of a request, at whose end its connection is busy.
#[derive(Debug)]
pub struct AwaitedBody {
    incoming: Incoming,
    turn: Arc<AtomicU64>,
}

impl AwaitedBody {
    fn new(incoming: Incoming, turn: Arc<AtomicU64>) -> Self {
        if incoming.is_end_stream() {
            turn.store(BUSY, Relaxed);
        }
        Self { incoming, turn }
    }
}

impl Body for AwaitedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if let Poll::Ready(None) = polled {
            self.turn.store(BUSY, Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
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

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full};
    use std::{net::SocketAddr, sync::atomic::AtomicUsize};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        sync::Semaphore,
    };

    /// What a service has seen, and what lets it respond to a POST.
    #[derive(Default)]
    struct Seen {
        heads: AtomicUsize,
        bodies: AtomicUsize,
        gate: Option<Semaphore>,
    }

    /// A listener whose service reads each body, and waits at the gate with that of a POST.
    async fn start(seen: &Arc<Seen>) -> (SocketAddr, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let seen = seen.clone();
        let service = move |_: &ConnectionInfo| {
            let seen = seen.clone();
            Some(service_fn(move |request: Request<AwaitedBody>| {
                let seen = seen.clone();
                async move {
                    seen.heads.fetch_add(1, Relaxed);
                    let is_post = request.method() == http::Method::POST;
                    if request.into_body().collect().await.is_ok() && is_post {
                        seen.bodies.fetch_add(1, Relaxed);
                        if let Some(gate) = &seen.gate {
                            gate.acquire().await.unwrap().forget();
                        }
                    }
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                }
            }))
        };
        tokio::spawn(serve(listener, service, |_| Response::default(), stopped));
        (address, stop)
    }

    async fn open(address: SocketAddr, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Where there is no room it may have been closed by now.
        let _ = stream.write_all(request.as_bytes()).await;
        stream
    }

    async fn is_served(mut stream: TcpStream) -> bool {
        let mut status = [0; 12];
        let read = timeout(Duration::from_secs(20), stream.read_exact(&mut status)).await;
        read.expect("an answer or an end").is_ok() && &status == b"HTTP/1.1 200"
    }

    async fn until(count: &AtomicUsize, wanted: usize) {
        let reached = async {
            while count.load(Relaxed) < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), reached).await.expect("they arrive");
    }

    const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    const POST: &str = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n";

    #[tokio::test]
    async fn requests_whose_bodies_do_not_come_keep_no_place_from_others() {
        let seen = Arc::<Seen>::default();
        let (address, _stop) = start(&seen).await;
        let mut stalled = Vec::new();
        for _ in 0..PEER_CONNECTIONS_MAX {
            stalled.push(open(address, POST).await);
        }
        until(&seen.heads, PEER_CONNECTIONS_MAX).await;
        for _ in 0..3 {
            assert!(is_served(open(address, GET).await).await);
        }
    }

    #[tokio::test]
    async fn a_request_whose_body_has_come_is_served_to_its_end() {
        let gate = Some(Semaphore::new(0));
        let seen = Arc::new(Seen { gate, ..Seen::default() });
        let (address, _stop) = start(&seen).await;
        let mut whole = Vec::new();
        for _ in 0..PEER_CONNECTIONS_MAX {
            whole.push(open(address, &format!("{POST}hello")).await);
        }
        until(&seen.bodies, PEER_CONNECTIONS_MAX).await;
        assert!(!is_served(open(address, GET).await).await, "there is no room");
        seen.gate.as_ref().unwrap().add_permits(PEER_CONNECTIONS_MAX);
        for stream in whole {
            assert!(is_served(stream).await);
        }
    }
}
