//! The listening sockets, the streams of their connections, and how those are closed.

use crate::inbound::peer::Peer;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time::{sleep, timeout},
};

/// The pause after a failed accept: without file descriptors the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a caller may still send once the last response is written.
pub(super) const LINGERING_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What bytes of a connection come and go on.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> ByteStream for T {}

/// A listening socket that knows its peers.
pub trait Listener: Send + 'static {
    type Stream: ByteStream + Send;

    /// Whether it has an address beyond loopback.
    fn is_exposed(&self) -> bool;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    fn is_exposed(&self) -> bool {
        !self.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback())
    }

    async fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, address) = Self::accept(self).await?;
        // Without it small responses wait for acknowledgements; failing costs only that.
        let _ = stream.set_nodelay(true);
        Ok((stream, Peer::Tcp(address)))
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    fn is_exposed(&self) -> bool {
        false
    }

    async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = Self::accept(self).await?;
        let peer = stream.peer_cred()?;
        Ok((stream, Peer::Unix { uid: peer.uid(), gid: peer.gid() }))
    }
}

/// Closes in stages: what the caller may still send would reset the connection, and the response
/// could be lost. Source: RFC 9112 section 9.6.
pub(super) async fn close_in_stages(mut stream: impl ByteStream) {
    let closed = async {
        stream.shutdown().await?;
        while stream.read(&mut [0; 1024]).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(LINGERING_CLOSE_TIMEOUT, closed).await;
}

/// Waits before the next accept.
pub(super) async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    sleep(ACCEPT_PAUSE).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_is_exposed_by_its_own_address_and_not_by_its_peers() {
        for (address, is_exposed) in
            [("127.0.0.1:0", false), ("127.9.9.9:0", false), ("0.0.0.0:0", true)]
        {
            let listener = TcpListener::bind(address).await.expect("a free port");
            assert_eq!(listener.is_exposed(), is_exposed, "{address}");
        }
        if let Ok(listener) = TcpListener::bind("[::]:0").await {
            assert!(listener.is_exposed());
        }
        let directory = tempfile::tempdir().expect("a directory");
        assert!(
            !UnixListener::bind(directory.path().join("socket")).expect("a socket").is_exposed()
        );
    }
}
