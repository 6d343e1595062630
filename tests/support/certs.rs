//! Certificates for loopback, made for one test.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};
use std::{fs, path::PathBuf, sync::Arc};
use tempfile::TempDir;

/// A certificate for `localhost` and 127.0.0.1, and the authority that made it.
pub struct Pair {
    /// The authority, PEM.
    pub ca: PathBuf,
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// Its key, PEM, mode 0600.
    pub key: PathBuf,
    /// The certificate as rustls takes it.
    pub chain: CertificateDer<'static>,
    key_der: Vec<u8>,
    _dir: TempDir,
}

/// Makes one.
pub fn localhost() -> Pair {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key"))
        .expect("an authority");
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(names)
        .and_then(|params| params.signed_by(&key, &authority))
        .expect("a certificate");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = |name: &str| dir.path().join(name);
    fs::write(place("ca.pem"), authority.pem()).expect("written");
    fs::write(place("tls.crt"), leaf.pem()).expect("written");
    super::proxy::write_private(&place("tls.key"), &key.serialize_pem());
    Pair {
        ca: place("ca.pem"),
        cert: place("tls.crt"),
        key: place("tls.key"),
        chain: leaf.der().clone(),
        key_der: key.serialize_der(),
        _dir: dir,
    }
}

impl Pair {
    /// A server with it that offers `protocols` by ALPN.
    pub fn server(&self, protocols: &[&str]) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivatePkcs8KeyDer::from(self.key_der.clone());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.chain.clone()], key.into())
            .expect("a certificate with its key");
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}
