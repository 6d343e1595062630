//! Tests with certificates made on the spot, and with handshakes in memory.

use super::*;
use crate::{config::ListenTls, listen::tls::ServerTls};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ServerConnection,
    pki_types::{PrivateKeyDer, ServerName},
};
use std::fs;

fn certificate(names: Vec<SanType>) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "reports.example.org");
    params.subject_alt_names = names;
    params.not_after = date_time_ymd(2031, 2, 3);
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().clone()
}

#[test]
fn the_names_are_uris_and_dns_names_and_nothing_else() {
    let uri = |name: &str| SanType::URI(name.try_into().unwrap());
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let read = read(&certificate(vec![
        uri("spiffe://example.org/reports"),
        uri("no-scheme"),
        dns("Reports.Example.org"),
        dns("*.example.org"),
        SanType::Rfc822Name("reports@example.org".try_into().unwrap()),
        SanType::IpAddress([127, 0, 0, 1].into()),
    ]));
    let names = read.unwrap().names;
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    assert_eq!(names, ["spiffe://example.org/reports", "reports.example.org"]);
}

#[test]
fn a_certificate_without_names_has_an_end_all_the_same() {
    let read = read(&certificate(Vec::new())).unwrap();
    assert!(read.names.is_empty(), "the common name is no name");
    assert_eq!(read.not_after, Duration::from_secs(1_927_843_200), "2031-02-03");
    assert!(!read.is_expired(read.not_after));
    assert!(read.is_expired(read.not_after + Duration::from_secs(1)));
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A client that trusts the server and has a certificate of this authority.
    fn client(&self, server: &CertificateDer<'static>) -> Arc<ClientConfig> {
        let params = CertificateParams::new(["reports.example.org".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = trusting(server).with_client_auth_cert(vec![certificate], key);
        Arc::new(config.unwrap())
    }
}

fn trusting(
    server: &CertificateDer<'static>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(server.clone()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}

struct Server {
    _directory: tempfile::TempDir,
    files: ListenTls,
    certificate: CertificateDer<'static>,
}

impl Server {
    fn new(authorities: &str, client_auth: ClientAuth) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let files = ListenTls {
            cert_file: file("tls.crt", &made.cert.pem()),
            key_file: file("tls.key", &made.signing_key.serialize_pem()),
            client_ca_file: Some(file("clients.crt", authorities)),
            client_auth,
        };
        Self { _directory: directory, files, certificate: made.cert.der().clone() }
    }
}

/// What the server knows of the caller after a handshake, and whether that was resumed.
fn handshake(
    tls: &ServerTls,
    client: &Arc<ClientConfig>,
) -> Result<(Option<ClientCertificate>, bool), rustls::Error> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(tls.current()).unwrap();
    for _ in 0..4 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets()?;
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut &bytes[..]).unwrap();
        client.process_new_packets().unwrap();
    }
    assert!(!server.is_handshaking());
    let leaf = server.peer_certificates().and_then(<[_]>::first);
    let is_resumed = server.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok((leaf.and_then(read), is_resumed))
}

#[test]
fn a_resumed_session_has_the_certificate_of_the_first() {
    let authority = Authority::new();
    let server = Server::new(&authority.pem, ClientAuth::Required);
    let tls = ServerTls::load(&server.files).unwrap();
    assert_eq!(tls.current().max_early_data_size, 0, "no request comes before the handshake ends");
    let client = authority.client(&server.certificate);
    let (first, is_resumed) = handshake(&tls, &client).unwrap();
    assert!(!is_resumed && first.as_ref().unwrap().names[..] == ["reports.example.org".into()]);
    assert_eq!(handshake(&tls, &client).unwrap(), (first, true));
}

#[test]
fn a_caller_without_certificate_is_let_in_only_where_it_is_optional() {
    let authority = Authority::new();
    for (client_auth, is_let_in) in [(ClientAuth::Optional, true), (ClientAuth::Required, false)] {
        let server = Server::new(&authority.pem, client_auth);
        let tls = ServerTls::load(&server.files).unwrap();
        let without = Arc::new(trusting(&server.certificate).with_no_client_auth());
        let known = handshake(&tls, &without).map(|(known, _)| known);
        assert_eq!(known.is_ok_and(|known| known.is_none()), is_let_in, "{client_auth}");
        let stranger = Authority::new().client(&server.certificate);
        assert!(handshake(&tls, &stranger).is_err(), "{client_auth}: of another CA");
    }
}

#[test]
fn a_replaced_ca_ends_what_the_old_one_signed_also_in_resumed_sessions() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = Server::new(&old.pem, ClientAuth::Optional);
    let tls = ServerTls::load(&server.files).unwrap();
    let [of_old, of_new] = [&old, &new].map(|authority| authority.client(&server.certificate));
    assert!(handshake(&tls, &of_old).is_ok() && handshake(&tls, &of_new).is_err());
    fs::write(server.files.client_ca_file.as_ref().unwrap(), &new.pem).unwrap();
    assert!(tls.reload_if_changed().unwrap());
    assert!(handshake(&tls, &of_old).is_err() && handshake(&tls, &of_new).is_ok());
    for broken in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        fs::write(server.files.client_ca_file.as_ref().unwrap(), broken).unwrap();
        assert!(tls.reload_if_changed().is_err());
        assert!(handshake(&tls, &of_new).is_ok(), "the last good CA stays");
    }
}
