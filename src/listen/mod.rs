//! Accepts connections for one worker and serves them until they end or the worker drains.
//!
//! The acceptor is handed a service and knows nothing of proxying. Every connection has an entry
//! under the limit before it is read from, a first byte that it must send, and a sweep that ends
//! it when it is too slow. A failed accept never ends the loop.

pub mod bind;
mod connection;
pub mod control_plane;
mod io;
mod preface;
pub mod rejection;
mod response_body;
mod serve;
mod table;
pub mod tls;

use crate::{
    caller_body::CallerBody,
    config,
    inbound::peer::Peer,
    metrics::{LimitHit, WorkerMetrics},
};
use bind::Bound;
use connection::Close;
use http::{Request, Response};
use hyper::body::Body;
use rejection::{ListenRejection, WriteRejection, render};
use std::{
    cell::Cell,
    error::Error as StdError,
    io::{Error as IoError, Result as IoResult},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
pub use table::ConnectionLimit;
use table::ConnectionTable;
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
/// Beyond the limit so many connections at once get a response; others are just closed.
const REJECTIONS_MAX: usize = 64;
/// The pause after a failed accept: without file descriptors the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a caller may still send once the last response is written.
const LINGERING_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What bytes of a connection come and go on.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> ByteStream for T {}

/// A listening socket that knows its peers.
pub trait Listener: Send + 'static {
    type Stream: ByteStream + Send;

    fn accept(&self) -> impl Future<Output = IoResult<(Self::Stream, Peer)>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> IoResult<(TcpStream, Peer)> {
        let (stream, address) = Self::accept(self).await?;
        // Without it small responses wait for acknowledgements; failing costs only that.
        let _ = stream.set_nodelay(true);
        Ok((stream, Peer::Tcp(address)))
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> IoResult<(UnixStream, Peer)> {
        let (stream, _) = Self::accept(self).await?;
        let peer = stream.peer_cred()?;
        Ok((stream, Peer::Unix { uid: peer.uid(), gid: peer.gid() }))
    }
}

/// Closes in stages: what the caller may still send would reset the connection, and the response
/// could be lost. Source: RFC 9112 section 9.6.
async fn close_in_stages(mut stream: impl ByteStream) {
    let closed = async {
        stream.shutdown().await?;
        while stream.read(&mut [0; 1024]).await? > 0 {}
        IoResult::Ok(())
    };
    let _ = timeout(LINGERING_CLOSE_TIMEOUT, closed).await;
}

/// The accepting side of one worker.
pub struct Acceptor<S> {
    limits: config::Limits,
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
    S: Fn(Request<CallerBody>, &Peer) -> F + 'static,
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
            limits: limits.clone(),
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
            match socket {
                Bound::Tcp(listener) => {
                    spawn_local(this.accept(TcpListener::from_std(listener)?));
                }
                Bound::Unix(listener) => {
                    spawn_local(this.accept(UnixListener::from_std(listener)?));
                }
            }
        }
        Ok(())
    }

    async fn accept<L: Listener>(self: Rc<Self>, listener: L) {
        loop {
            // When draining, connections that the kernel has taken already still count.
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                () = self.stopped() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let arrival = self.table.arrive();
                    match self.table.enter(peer, arrival) {
                        Some(entry) => drop(spawn_local(self.clone().serve(stream, entry))),
                        None => self.wait_for_room(stream, peer, arrival),
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
    fn wait_for_room(self: &Rc<Self>, mut stream: impl ByteStream, peer: Peer, arrival: u64) {
        if self.rejections.get() >= REJECTIONS_MAX {
            return self.metrics.limit(LimitHit::Connections);
        }
        self.rejections.set(self.rejections.get() + 1);
        let this = self.clone();
        spawn_local(async move {
            this.table.refresh_evictions().await;
            if let Some(entry) = this.table.enter(peer, arrival) {
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

    /// Judges every connection, once a second.
    pub fn sweep(&self, seconds: u32) {
        if !self.table.set_clock(seconds) {
            return;
        }
        self.table.for_each(|connection| {
            if let Some(hit) = connection.enforce_timeouts(&self.limits, self.tls.is_some()) {
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
}

/// Waits before the next accept.
async fn pause(error: &IoError) {
    tracing::warn!(%error, "cannot accept a connection");
    sleep(ACCEPT_PAUSE).await;
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
