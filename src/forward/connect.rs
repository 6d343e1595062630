//! Opens one connection to an upstream: name lookup, egress proxy, TCP, TLS.

use crate::https::{Egress, EgressError};
use http::{Uri, uri::InvalidUri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{HttpConnector, proxy::Tunnel},
    rt::TokioIo,
};
use rustls::pki_types::ServerName;
use std::{error::Error as StdError, io, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_service::Service;

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name does not resolve, or no process listens there, or the egress proxy refuses.
    #[error("cannot connect")]
    Connect(#[source] Box<dyn StdError + Send + Sync>),
    /// The environment names an egress proxy that cannot be used.
    #[error("the egress proxy")]
    Egress(#[source] EgressError),
    #[error("TLS handshake failed")]
    Tls(#[source] io::Error),
    /// The host name cannot be in a certificate.
    #[error("not a TLS server name")]
    ServerName(#[source] rustls::pki_types::InvalidDnsNameError),
    #[error("HTTP handshake failed")]
    Http(#[source] hyper::Error),
    /// `upstream.connect_timeout_secs` is over.
    #[error("no connection in time")]
    Timeout,
}

/// A stream to an upstream or, by TLS if its URL says so, to an egress proxy.
type Hop = TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>;

pub(super) enum Io {
    Plain(TcpStream),
    Tls(TlsStream<Hop>),
    TlsHttp2(TlsStream<Hop>),
}

pub struct Connector {
    tcp: HttpConnector,
    to_egress: HttpsConnector<HttpConnector>,
    tls: TlsConnector,
    egress: Result<Egress, EgressError>,
    timeout: Duration,
}

impl Connector {
    /// A connector that takes the way that [`Egress`] names.
    pub fn new(tls: Arc<rustls::ClientConfig>, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        // Nothing else would end an event stream whose upstream has vanished.
        tcp.set_keepalive(Some(Duration::from_secs(60)));
        tcp.set_keepalive_interval(Some(Duration::from_secs(15)));
        tcp.set_keepalive_retries(Some(4));
        tcp.enforce_http(false);
        let mut egress_tls = (*tls).clone();
        // `CONNECT` is HTTP/1.1.
        egress_tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let to_egress = HttpsConnector::from((tcp.clone(), egress_tls));
        Self { tcp, to_egress, tls: TlsConnector::from(tls), egress: Egress::from_env(), timeout }
    }

    /// Opens a connection to `uri`'s host and closes it again.
    pub async fn probe(&self, uri: &Uri) -> Result<(), ConnectError> {
        self.open(uri).await.map(drop)
    }

    pub(super) async fn open(&self, uri: &Uri) -> Result<Io, ConnectError> {
        timeout(self.timeout, self.open_unlimited(uri)).await.unwrap_or(Err(ConnectError::Timeout))
    }

    async fn open_unlimited(&self, uri: &Uri) -> Result<Io, ConnectError> {
        // Plain HTTP is for loopback upstreams only, which no egress proxy can reach.
        if uri.scheme_str() != Some("https") {
            let io = self.tcp.clone().call(uri.clone()).await;
            let io = io.map_err(|error| ConnectError::Connect(error.into()))?;
            return Ok(Io::Plain(io.into_inner()));
        }
        // The name that the server's certificate must hold.
        let name = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name).map_err(ConnectError::ServerName)?;
        let egress = self.egress.as_ref().map_err(|error| ConnectError::Egress(error.clone()))?;
        let hop = self.hop(uri, egress).await.map_err(ConnectError::Connect)?;
        let tls = self.tls.connect(name, hop).await.map_err(ConnectError::Tls)?;
        let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(if http2 { Io::TlsHttp2(tls) } else { Io::Tls(tls) })
    }

    async fn hop(
        &self,
        uri: &Uri,
        egress: &Egress,
    ) -> Result<Hop, Box<dyn StdError + Send + Sync>> {
        let Some(proxy) = egress.proxy_for(uri) else {
            let stream = self.tcp.clone().call(uri.clone()).await?;
            return Ok(TokioIo::new(MaybeHttpsStream::Http(stream)));
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_egress.clone());
        if let Some(credentials) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(credentials.clone());
        }
        Ok(TokioIo::new(tunnel.call(with_port(uri)?).await?))
    }
}

/// `CONNECT` names a port always.
fn with_port(uri: &Uri) -> Result<Uri, InvalidUri> {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let port = if uri.port().is_some() { "" } else { ":443" };
    format!("https://{authority}{port}/").parse()
}
