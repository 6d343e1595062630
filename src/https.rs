//! TLS for everything we call: one verifier, one crypto provider, small clients for LWA and hooks.
//!
//! The machine's roots are honoured (corporate authorities, `SSL_CERT_FILE`), Mozilla's are added
//! because an image built from nothing has none, and `tls.ca_file` and `upstream.ca_file` add theirs.

mod egress;

pub use egress::{Egress, EgressError};

use http::Uri;
use rustls::{
    ClientConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject},
    },
};
use rustls_platform_verifier::Verifier;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const USER_AGENT: &str = concat!("adsproxy/", env!("CARGO_PKG_VERSION"));

/// Why no TLS client can be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read certificates from {path}", path = path.display())]
    CaFile { path: PathBuf, source: pem::Error },
    #[error("the TLS client cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("the egress proxy")]
    Egress(#[from] EgressError),
    #[error("the HTTP client cannot be set up")]
    Client(#[from] reqwest::Error),
}

/// The TLS settings of outbound connections; offers HTTP/2 by ALPN if `alpn_h2`.
///
/// Sessions are resumed among all users of one returned value.
///
/// # Errors
/// When one of `ca_files` (PEM) cannot be used.
pub fn client_config<'a>(
    ca_files: impl IntoIterator<Item = &'a Path>,
    alpn_h2: bool,
) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec();
    for path in ca_files {
        roots.extend(read_roots(path)?);
    }
    let provider = Arc::new(default_provider());
    let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(&provider))?;
    // "Dangerous" is the only door for a verifier that is not rustls' own.
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let h2 = alpn_h2.then(|| b"h2".to_vec());
    config.alpn_protocols = h2.into_iter().chain([b"http/1.1".to_vec()]).collect();
    Ok(Arc::new(config))
}

/// What every client of ours has: it follows no redirect and retries nothing by itself, because
/// either would send a secret again, possibly elsewhere.
fn builder(tls: &ClientConfig) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .user_agent(USER_AGENT)
}

/// What LWA is called with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LwaHttp {
    remote: reqwest::Client,
    local: reqwest::Client,
}

impl LwaHttp {
    /// `timeout` is for a whole call, its body included.
    ///
    /// # Errors
    /// When the environment names a proxy that cannot be used.
    pub fn new(
        tls: &ClientConfig,
        connect_timeout: Duration,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let builder = || builder(tls).connect_timeout(connect_timeout).timeout(timeout);
        let remote = Egress::from_env()?.apply(builder())?;
        Ok(Self { remote: remote.build()?, local: builder().no_proxy().build()? })
    }

    /// Calls the program that listens on the Unix socket `path` in place of every host; `timeout`
    /// is for a whole call.
    pub fn over_socket(tls: &ClientConfig, path: &Path, timeout: Duration) -> Result<Self, Error> {
        let client = builder(tls).timeout(timeout).no_proxy().unix_socket(path).build()?;
        Ok(Self { remote: client.clone(), local: client })
    }

    /// The client for `url`: by [`Egress`], but for plain HTTP, which is for loopback only.
    pub fn client(&self, url: &Uri) -> &reqwest::Client {
        if url.scheme_str() == Some("https") { &self.remote } else { &self.local }
    }
}

/// What webhooks are sent to `url` with, a receiver that is not trusted, and whether an egress
/// proxy is on the way: if none is, `resolver` decides which addresses a name may have. No
/// connection is used twice. Timeouts are each request's own.
pub fn hook_client<R: reqwest::dns::Resolve + 'static>(
    tls: &ClientConfig,
    url: &str,
    resolver: Arc<R>,
) -> Result<(reqwest::Client, bool), Error> {
    let egress = Egress::from_env()?;
    let is_proxied = url.parse().is_ok_and(|url| egress.proxy_for(&url).is_some());
    let builder = builder(tls).pool_max_idle_per_host(0);
    let builder = match is_proxied {
        true => egress.apply(builder)?,
        false => builder.no_proxy().dns_resolver(resolver),
    };
    Ok((builder.build()?, is_proxied))
}

/// What telemetry is sent to a collector with: by [`Egress`], but for plain HTTP, since a collector is
/// a neighbour. Timeouts are each request's own.
///
/// # Errors
/// When the environment names a proxy that cannot be used.
pub fn collector_client(tls: &ClientConfig) -> Result<reqwest::Client, Error> {
    Ok(Egress::from_env()?.apply(builder(tls))?.build()?)
}

fn read_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates = certificates.and_then(|found: Vec<_>| match found.is_empty() {
        true => Err(pem::Error::NoItemsFound),
        false => Ok(found),
    });
    certificates.map_err(|source| Error::CaFile { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::{
        HandshakeKind, ServerConfig,
        pki_types::{PrivatePkcs8KeyDer, ServerName},
    };
    use std::{io::Write, net::SocketAddr};
    use tempfile::NamedTempFile;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tokio_rustls::{TlsAcceptor, TlsConnector, server::TlsStream};

    const SECONDS: Duration = Duration::from_secs(10);

    /// A private authority in a file, and a server for `localhost` that it vouches for.
    fn authority() -> (NamedTempFile, TlsAcceptor) {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(issuer.pem().as_bytes()).unwrap();
        (file, TlsAcceptor::from(Arc::new(config)))
    }

    /// Shakes hands in memory; the protocol chosen and whether the session was resumed.
    async fn handshake(
        config: &Arc<ClientConfig>,
        acceptor: &TlsAcceptor,
    ) -> std::io::Result<(Vec<u8>, bool)> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from("localhost").unwrap();
        let (client, server) = tokio::join!(
            TlsConnector::from(Arc::clone(config)).connect(name, near),
            acceptor.accept(far)
        );
        let (mut client, mut server) = (client?, server?);
        // Session tickets arrive with the first data.
        server.write_all(b"x").await?;
        server.flush().await?;
        client.read_u8().await?;
        let session = client.get_ref().1;
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok((session.alpn_protocol().unwrap_or_default().to_vec(), resumed))
    }

    #[tokio::test]
    async fn trusts_the_authority_of_the_ca_file_and_resumes_sessions() {
        let (ca, server) = authority();
        let config = client_config([ca.path()], true).unwrap();
        assert_eq!(handshake(&config, &server).await.unwrap(), (b"h2".to_vec(), false));
        assert_eq!(handshake(&config, &server).await.unwrap(), (b"h2".to_vec(), true));
        let config = client_config([ca.path()], false).unwrap();
        assert_eq!(handshake(&config, &server).await.unwrap().0, b"http/1.1");
    }

    #[tokio::test]
    async fn does_not_trust_an_authority_that_was_not_named() {
        let (_, server) = authority();
        let (other, _) = authority();
        for ca_file in [None, Some(other.path())] {
            let config = client_config(ca_file, true).unwrap();
            assert!(handshake(&config, &server).await.is_err());
        }
    }

    #[test]
    fn a_ca_file_without_certificates_is_an_error() {
        let empty = NamedTempFile::new().unwrap();
        for path in [empty.path(), Path::new("/nonexistent/ca.pem")] {
            assert!(matches!(client_config([path], true), Err(Error::CaFile { .. })));
        }
    }

    /// Sends `response` to one request over TLS; returns the head of the request.
    async fn serve_once(
        server: TlsAcceptor,
        response: &str,
    ) -> (SocketAddr, impl Future<Output = String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let response = response.to_owned();
        let requested = async move {
            let mut stream: TlsStream<_> =
                server.accept(listener.accept().await.unwrap().0).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(response.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            String::from_utf8(head).unwrap()
        };
        (address, requested)
    }

    #[tokio::test]
    async fn the_lwa_client_is_built_names_itself_and_follows_no_redirect() {
        let (ca, server) = authority();
        let config = client_config([ca.path()], false).unwrap();
        let http = LwaHttp::new(&config, SECONDS, SECONDS).unwrap();
        let response =
            "HTTP/1.1 307 x\r\nlocation: https://localhost:1/\r\ncontent-length: 0\r\n\r\n";
        let (address, requested) = serve_once(server, response).await;
        let url = format!("https://localhost:{}/auth/o2/token", address.port());
        let client = http.client(&url.parse().unwrap());
        let (received, head) = tokio::join!(client.post(url).send(), requested);
        assert_eq!(received.unwrap().status(), 307);
        assert!(head.contains(&format!("user-agent: {USER_AGENT}\r\n")), "{head}");
        assert!(!head.contains("referer"), "{head}");
    }
}
