//! The stream below an upstream's TLS: TCP, or a tunnel through an egress proxy that speaks TLS itself.

use super::connect::server_name;
use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use std::{
    error::Error as StdError,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tower_service::Service;

/// A stream to an upstream or to an egress proxy. TLS runs over it, so that a call by a table costs
/// nothing that counts.
pub(super) type Hop = Box<dyn HopStream>;

pub(super) trait HopStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> HopStream for T {}

/// Connects to an egress proxy, by TLS if its URL says so.
#[derive(Clone)]
pub(super) struct HopConnector {
    tcp: HttpConnector,
    tls: TlsConnector,
}

impl HopConnector {
    /// Trusts the roots of `tls`. `CONNECT` is HTTP/1.1.
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
                Box::new(tls.connect(server_name(&uri)?, stream).await?) as Hop
            } else {
                Box::new(stream)
            }))
        })
    }
}
