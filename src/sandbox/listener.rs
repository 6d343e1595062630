//! The emulator's sockets: binding, accepting, HTTP/1.1 and HTTP/2 with and without TLS.

use super::Service;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// Connections that may wait to be accepted: a storm of callers is part of the tests.
const BACKLOG: u32 = 8192;

/// Counts the connections and can close them.
#[derive(Debug, Default)]
pub struct OpenConnections {
    accepted: AtomicU64,
    open: AtomicUsize,
    closing: watch::Sender<()>,
}

impl OpenConnections {
    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Closes all connections, whatever they carry.
    pub fn close_all(&self) {
        self.closing.send_replace(());
    }
}

/// Binds a loopback address.
pub(super) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    if !addr.ip().is_loopback() {
        let text = "the emulator listens on loopback addresses only";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Accepts until the task is dropped; its connections go with it.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    service: Arc<Service>,
) {
    let tls = tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, tls.clone(), Arc::clone(&service)));
                }
                // Out of file descriptors, most likely: the connections under way free some.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, service: Arc<Service>) {
    let connections = &service.state.connections;
    connections.accepted.fetch_add(1, Relaxed);
    connections.open.fetch_add(1, Relaxed);
    let _counted = Counted(&connections.open);
    let mut closing = connections.closing.subscribe();
    let served = async {
        // Nothing to do about a socket that is gone already.
        drop(stream.set_nodelay(true));
        match tls {
            None => serve(stream, &service).await,
            Some(tls) => {
                if let Ok(stream) = tls.accept(stream).await {
                    serve(stream, &service).await;
                }
            }
        }
    };
    tokio::select! {
        () = served => {}
        _ = closing.changed() => {}
    }
}

async fn serve<S>(stream: S, service: &Arc<Service>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let service = Arc::clone(service);
        async move { service.serve(request).await }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(1000);
    // How a connection ended is what the tests look at from the other side.
    drop(builder.serve_connection(TokioIo::new(stream), service).await);
}

/// One open connection, counted until it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
