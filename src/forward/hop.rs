//! The stream below an upstream's TLS: TCP, or a tunnel through an egress proxy that speaks TLS itself.

use super::connect::server_name;
use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use std::{
    error::Error as StdError,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_service::Service;

/// A stream to an upstream or to an egress proxy.
pub(super) enum Hop {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

macro_rules! each {
    ($hop:expr, $io:ident => $call:expr) => {
        match $hop.get_mut() {
            Hop::Tcp($io) => {
                let $io = Pin::new($io);
                $call
            }
            Hop::Tls($io) => {
                let $io = Pin::new($io);
                $call
            }
        }
    };
}

impl AsyncRead for Hop {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Hop {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_shutdown(cx))
    }
}

/// Connects to an egress proxy, by TLS if its URL says so.
#[derive(Clone)]
pub(super) struct HopConnector {
    tcp: HttpConnector,
    tls: TlsConnector,
}

impl HopConnector {
    /// Trusts whom `tls` trusts. What is asked for with `CONNECT` is HTTP/1.1.
    pub(super) fn new(tcp: HttpConnector, tls: &rustls::ClientConfig) -> Self {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { tcp, tls: TlsConnector::from(Arc::new(tls)) }
    }
}

impl Service<Uri> for HopConnector {
    type Response = TokioIo<Hop>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Hop>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (mut tcp, tls) = (self.tcp.clone(), self.tls.clone());
        Box::pin(async move {
            let stream = tcp.call(uri.clone()).await?.into_inner();
            Ok(TokioIo::new(if uri.scheme_str() == Some("https") {
                Hop::Tls(Box::new(tls.connect(server_name(&uri)?, stream).await?))
            } else {
                Hop::Tcp(stream)
            }))
        })
    }
}
