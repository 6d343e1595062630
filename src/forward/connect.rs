//! Opens one connection to an upstream: name lookup, egress proxy, TCP, TLS.

use http::Uri;
use hyper_util::{
    client::{
        legacy::connect::{HttpConnector, proxy::Tunnel},
        proxy::matcher::Matcher,
    },
    rt::TokioIo,
};
use rustls::pki_types::ServerName;
use std::{error::Error as StdError, fmt, io, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_service::Service;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name does not resolve, or nobody listens there, or the egress proxy refuses.
    #[error("cannot connect")]
    Connect(#[source] Box<dyn StdError + Send + Sync>),
    /// The TLS handshake failed.
    #[error("TLS handshake failed")]
    Tls(#[source] io::Error),
    /// The host name cannot be in a certificate.
    #[error("not a TLS server name")]
    ServerName(#[source] rustls::pki_types::InvalidDnsNameError),
    /// The HTTP handshake failed.
    #[error("HTTP handshake failed")]
    Http(#[source] hyper::Error),
    /// `upstream.connect_timeout_secs` is over.
    #[error("no connection in time")]
    Timeout,
    /// The worker ends.
    #[error("shutting down")]
    ShuttingDown,
}

/// An open connection.
pub(super) enum Io {
    Plain(TokioIo<TcpStream>),
    Tls(TokioIo<TlsStream<TcpStream>>),
    TlsHttp2(TokioIo<TlsStream<TcpStream>>),
}

/// Opens connections for one worker.
pub struct Connector {
    tcp: HttpConnector,
    tls: TlsConnector,
    egress: Matcher,
    timeout: Duration,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// A connector that honours `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    #[must_use]
    pub fn new(tls: Arc<rustls::ClientConfig>, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        // Nothing else would end an event stream whose upstream has vanished.
        tcp.set_keepalive(Some(Duration::from_secs(60)));
        tcp.set_keepalive_interval(Some(Duration::from_secs(15)));
        tcp.set_keepalive_retries(Some(4));
        tcp.enforce_http(false);
        Self { tcp, tls: TlsConnector::from(tls), egress: Matcher::from_env(), timeout }
    }

    /// Opens a connection to `uri`'s host and closes it again.
    ///
    /// # Errors
    /// Why none can be had.
    pub async fn probe(&self, uri: &Uri) -> Result<(), ConnectError> {
        self.open(uri).await.map(drop)
    }

    /// Opens a connection to `uri`'s host.
    pub(super) async fn open(&self, uri: &Uri) -> Result<Io, ConnectError> {
        timeout(self.timeout, self.open_unlimited(uri)).await.unwrap_or(Err(ConnectError::Timeout))
    }

    async fn open_unlimited(&self, uri: &Uri) -> Result<Io, ConnectError> {
        // Plain HTTP is for loopback upstreams only, which no egress proxy can reach.
        if uri.scheme_str() != Some("https") {
            let io = self.tcp.clone().call(uri.clone()).await;
            return io.map(Io::Plain).map_err(|error| ConnectError::Connect(error.into()));
        }
        let host = uri.host().unwrap_or_default();
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(ConnectError::ServerName)?;
        let tcp = self.tcp_or_tunnel(uri).await.map_err(ConnectError::Connect)?;
        let tls = self.tls.connect(name, tcp).await.map_err(ConnectError::Tls)?;
        let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(tls);
        Ok(if http2 { Io::TlsHttp2(io) } else { Io::Tls(io) })
    }

    async fn tcp_or_tunnel(&self, uri: &Uri) -> Result<TcpStream, Box<dyn StdError + Send + Sync>> {
        let io = match self.egress.intercept(uri) {
            None => self.tcp.clone().call(uri.clone()).await?,
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), self.tcp.clone());
                if let Some(credentials) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(credentials.clone());
                }
                tunnel.call(with_port(uri)?).await?
            }
        };
        Ok(io.into_inner())
    }
}

/// `CONNECT` names a port always.
fn with_port(uri: &Uri) -> Result<Uri, http::Error> {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let port = if uri.port().is_some() { "" } else { ":443" };
    Uri::builder()
        .scheme("https")
        .authority(format!("{authority}{port}"))
        .path_and_query("/")
        .build()
}
