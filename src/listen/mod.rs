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
    inbound::peer::{Peer, UnixPeer},
    metrics::{Limit, WorkerMetrics},
};
use bind::Bound;
use connection::Close;
use http::{Request, Response};
use hyper::body::Body;
use rejection::{ListenRejection, WriteRejection, render};
use std::{
    cell::Cell,
    error::Error as StdError,
    fmt,
    io::{Error as IoError, Result as IoResult},
    rc::Rc,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};
use table::ConnectionTable;
use tls::ServerTls;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener, UnixStream},
    sync::Notify,
    task::spawn_local,
    time::{sleep, timeout},
};

/// A draining worker keeps idle HTTP/1.1 connections for so long: a request may be on its way.
pub const IDLE_GRACE: Duration = Duration::from_millis(500);
/// Beyond the limit so many connections at once get a response; others are just closed.
const REJECTIONS_MAX: usize = 64;

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
    /// An acceptor for `service` and, for requests that do not reach it, `write_rejection`; `open`
    /// counts connections over all workers.
    #[must_use]
    pub fn new(
        limits: &config::Limits,
        tls: Option<Arc<ServerTls>>,
        metrics: Arc<WorkerMetrics>,
        open: Arc<AtomicUsize>,
        (service, write_rejection): (S, WriteRejection),
    ) -> Rc<Self> {
        Rc::new(Self {
            limits: limits.clone(),
            tls,
            service,
            write_rejection,
            table: ConnectionTable::new(open, limits.connections_max, metrics.clone()),
            metrics,
            rejections: Cell::new(0),
            draining: Cell::new(false),
            stop: Notify::new(),
        })
    }

    /// Begins to accept on `sockets`; each runs in a task of its own until the runtime ends.
    ///
    /// # Errors
    /// When a socket cannot be registered with the runtime.
    pub fn listen(self: &Rc<Self>, sockets: Vec<Bound>) -> IoResult<()> {
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
                    // Without it small responses wait for acknowledgements; failing costs only that.
                    let _ = stream.set_nodelay(true);
                    match self.table.enter(Peer::Tcp(address)) {
                        Some(entry) => {
                            let this = self.clone();
                            spawn_local(async move { this.serve_tcp(stream, entry).await });
                        }
                        None => self.reject(stream),
                    }
                }
                Err(error) => self.pause(&error).await,
            }
        }
    }

    async fn accept_unix(self: Rc<Self>, listener: UnixListener) {
        while let Some(accepted) = self.next(listener.accept()).await {
            match accepted.and_then(|(stream, _)| Ok((unix_peer(&stream)?, stream))) {
                Ok((peer, stream)) => match self.table.enter(peer) {
                    Some(entry) => {
                        let this = self.clone();
                        spawn_local(async move { this.serve_plain(stream, entry).await });
                    }
                    None => self.reject(stream),
                },
                Err(error) => self.pause(&error).await,
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

    /// Waits before the next accept: without file descriptors the loop would spin.
    async fn pause(&self, error: &IoError) {
        tracing::warn!(%error, "cannot accept a connection");
        sleep(Duration::from_millis(100)).await;
    }

    /// Writes to a caller beyond the limit why it is not served, without reading its request.
    fn reject<T: AsyncRead + AsyncWrite + Unpin + 'static>(self: &Rc<Self>, mut stream: T) {
        if self.tls.is_some() || self.rejections.get() >= REJECTIONS_MAX {
            return;
        }
        self.rejections.set(self.rejections.get() + 1);
        let this = self.clone();
        let rejection = render(&(self.write_rejection)(ListenRejection::Connections));
        spawn_local(async move {
            let written = async {
                stream.write_all(&rejection).await?;
                stream.shutdown().await?;
                // Closing with unread bytes would reset the connection, and lose the response.
                while stream.read(&mut [0; 1024]).await? > 0 {}
                IoResult::Ok(())
            };
            let _ = timeout(Duration::from_secs(2), written).await;
            this.rejections.set(this.rejections.get() - 1);
        });
    }

    /// Judges every connection, once a second.
    pub fn sweep(&self, seconds: u32) {
        if !self.table.set_clock(seconds) {
            return;
        }
        let limits = &self.limits;
        let over = |secs: u32, limit: Duration| u64::from(secs) > limit.as_secs();
        self.table.for_each(|connection| {
            let is_tls = self.tls.is_some() && matches!(connection.peer, Peer::Tcp(_));
            let (begin_timeout, not_begun) = if is_tls {
                (limits.handshake_timeout, Limit::HandshakeTimeout)
            } else {
                (limits.first_byte_timeout, Limit::FirstByteTimeout)
            };
            let hit = if over(connection.beginning_secs(), begin_timeout) {
                not_begun
            } else if over(connection.header_secs(), limits.header_timeout) {
                Limit::HeaderTimeout
            } else if over(connection.write_blocked_secs(), limits.write_timeout) {
                Limit::WriteTimeout
            } else if over(connection.idle_secs(), limits.idle_timeout + limits.write_timeout) {
                // Asked to end, it has waited since for a caller that does not read the last bytes.
                Limit::WriteTimeout
            } else if over(connection.idle_secs(), limits.idle_timeout) {
                // The usual end of a kept-alive connection: nothing to count.
                return connection.close(Close::Gracefully);
            } else if connection.discards_too_long(limits.body_timeout.as_secs()) {
                return connection.abandon_rest();
            } else if connection.lingers_too_long() {
                return connection.close(Close::Now);
            } else {
                return;
            };
            self.metrics.limit(hit);
            connection.close(Close::Now);
        });
    }

    /// Accepts no more, and lets every connection end after the requests in flight.
    ///
    /// HTTP/2 has a message for that. An HTTP/1.1 connection that was closed between two requests
    /// would take one with it that is on its way; so the next response announces the end, and only
    /// a connection that is silent for a while is closed.
    pub fn drain(&self) {
        self.draining.set(true);
        self.stop.notify_waiters();
        self.table.for_each(|one| {
            if one.is_http2() {
                one.close(Close::Gracefully);
            }
        });
    }

    /// Says whether every connection has ended, `since` the drain began. To be asked again and
    /// again: it also closes those that are idle for too long.
    pub fn has_drained(&self, since: Duration) -> bool {
        if since < IDLE_GRACE {
            return self.table.is_empty();
        }
        let mut is_drained = true;
        self.table.for_each(|connection| {
            if connection.has_begun() {
                is_drained = false;
                // The rest of a body whose response is out is not waited for.
                let responded = connection.has_responded();
                connection.close(if responded { Close::Now } else { Close::Gracefully });
            }
        });
        is_drained
    }
}

/// The process at the other end of a Unix socket.
fn unix_peer(stream: &UnixStream) -> IoResult<Peer> {
    let peer = stream.peer_cred()?;
    Ok(Peer::Unix(UnixPeer { pid: peer.pid(), uid: peer.uid(), gid: peer.gid() }))
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
        // With its entry in the table.
        assert!(size <= 2176, "{size} bytes: box what is rare");
    }
}
