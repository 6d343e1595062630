//! The emulator's sockets: binding, accepting, HTTP/1.1 and HTTP/2 with and without TLS.

use super::serve::EmulatorService;
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
        atomic::{AtomicU64, Ordering::Relaxed},
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
pub struct Connections {
    accepted: AtomicU64,
    /// Each open connection has a receiver.
    closing: watch::Sender<()>,
}

impl Connections {
    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.closing.receiver_count()
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
    tls: Option<TlsAcceptor>,
    service: Arc<EmulatorService>,
) {
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

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, service: Arc<EmulatorService>) {
    let connections = &service.state.connections;
    connections.accepted.fetch_add(1, Relaxed);
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

async fn serve<S>(stream: S, service: &Arc<EmulatorService>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handler = service_fn(|request| {
        let service = Arc::clone(service);
        async move { service.serve(request).await }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(1000);
    // How a connection ended is what the tests look at from the other side.
    drop(builder.serve_connection(TokioIo::new(stream), handler).await);
}
