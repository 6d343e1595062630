//! The emulator over TLS, with an authority of its own.

use super::proxy::{Proxy, Setup, upstream};
use adsproxy::sandbox::{Emulator, EmulatorOptions};
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs::default_provider, pki_types::PrivatePkcs8KeyDer};
use std::{io::Write, sync::Arc};
use tempfile::NamedTempFile;

/// Amazon over TLS as `localhost`, and the file with the authority that vouches for it.
pub async fn secure_amazon(http2: bool) -> (Emulator, NamedTempFile) {
    let (tls, ca_file) = server_tls(http2);
    let options = EmulatorOptions { tls: Some(tls), ..EmulatorOptions::default() };
    (Emulator::start(options).await.expect("the emulator starts"), ca_file)
}

/// An authority, and a certificate of its for a server called `localhost`, with the key.
pub fn localhost() -> (CertifiedIssuer<'static, KeyPair>, Certificate, KeyPair) {
    let mut params = CertificateParams::new([]).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = || KeyPair::generate().expect("randomness");
    let issuer = CertifiedIssuer::self_signed(params, key()).expect("a certificate");
    let leaf_key = key();
    let leaf = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let leaf = leaf.signed_by(&leaf_key, &issuer).expect("a certificate");
    (issuer, leaf, leaf_key)
}

/// TLS of a server called `localhost`, and the file with the authority that vouches for it.
pub fn server_tls(http2: bool) -> (Arc<ServerConfig>, NamedTempFile) {
    let (issuer, leaf, leaf_key) = localhost();
    let mut tls = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into(),
        )
        .expect("a key");
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    if http2 {
        tls.alpn_protocols.insert(0, b"h2".to_vec());
    }
    let mut ca_file = NamedTempFile::new().expect("a file");
    ca_file.write_all(issuer.pem().as_bytes()).expect("written");
    (Arc::new(tls), ca_file)
}

/// A proxy with one worker in front of `url`, which `ca` vouches for.
pub fn behind_tls(ca: &NamedTempFile, amazon: &Emulator, url: &str, keys: &str) -> Proxy {
    let keys = format!("ca_file = {:?}\n{keys}", ca.path());
    let toml = format!("[proxy]\nworkers = 1\n{}", upstream(url, &keys));
    Proxy::with(amazon, Setup { toml, ..Setup::default() })
}

/// Where it is.
pub fn secure_url(amazon: &Emulator) -> String {
    format!("https://localhost:{}", amazon.tls_addr().expect("TLS").port())
}
