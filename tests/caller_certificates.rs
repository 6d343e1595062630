//! Callers with a client certificate on the data plane: who is served, and who gets no further.

use crate::support::{
    callers::TestCaller,
    proxy::{Answer, Proxy, Setup, amazon, eventually, judge, write_private},
};
use adsproxy::sandbox::Emulator;
use http::Version;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType, date_time_ymd,
};
use reqwest::Client;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};
use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;

const URI: &str = "spiffe://example.org/reports";
const DNS: &str = "reports.example.org";
const VERSIONS: [(Version, &[u8]); 2] = [(Version::HTTP_11, b"http/1.1"), (Version::HTTP_2, b"h2")];
const MODES: [&str; 2] = ["optional", "required"];

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().expect("ASCII"))
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("ASCII"))
}

/// A client certificate for `names`, and its key.
struct Identity {
    params: CertificateParams,
    key: KeyPair,
}

impl Identity {
    fn new(names: impl Into<Vec<SanType>>) -> Self {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.into();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Self { params, key: KeyPair::generate().expect("randomness") }
    }

    fn with(mut self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        change(&mut self.params);
        self
    }

    /// One that ends at the second `end`, since the Unix epoch.
    fn until(self, end: Duration) -> Self {
        self.with(|params| params.not_after = date_time_ymd(1970, 1, 1) + end)
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("randomness")).expect("a CA")
}

/// The time since the Unix epoch.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time")
}

/// A server that asks for certificates of `authority`.
struct Server {
    proxy: Proxy,
    directory: TempDir,
    certificate: CertificateDer<'static>,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Server {
    /// In front of `amazon`, with a caller that may use `acme` and has both names.
    fn start(amazon: &Emulator, client_auth: &str, more: &str) -> Self {
        let (directory, authority) = (tempfile::tempdir().expect("a directory"), authority());
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let [cert, key, clients] =
            ["tls.crt", "tls.key", "clients.crt"].map(|name| directory.path().join(name));
        fs::write(&cert, made.cert.pem()).expect("written");
        write_private(&key, &made.signing_key.serialize_pem());
        fs::write(&clients, authority.pem()).expect("written");
        let toml = format!(
            "[listen.tls]\ncert_file = {cert:?}\nkey_file = {key:?}\nclient_ca_file = {clients:?}\n\
             client_auth = \"{client_auth}\"\n[[callers]]\nname = \"reports\"\n\
             mtls_san = [\"{URI}\", \"{DNS}\"]\naccounts = [\"acme\"]\n{more}"
        );
        let proxy = Proxy::with(amazon, Setup { toml, ..Setup::default() });
        Self { proxy, directory, certificate: made.cert.der().clone(), authority }
    }

    /// A client that speaks one version and has `identity` from `authority`.
    fn client_of(
        &self,
        authority: &CertifiedIssuer<'static, KeyPair>,
        identity: Option<&Identity>,
        alpn: &[u8],
    ) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        let config = ClientConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match identity {
            Some(Identity { params, key }) => {
                let signed = params.signed_by(key, authority).expect("a certificate");
                let key = PrivatePkcs8KeyDer::from(key.serialize_der());
                config.with_client_auth_cert(vec![signed.der().clone()], key.into()).expect("a key")
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let client = Client::builder().tls_backend_preconfigured(config).no_proxy();
        client.resolve("localhost", self.proxy.addr).build().expect("a client")
    }

    fn client(&self, identity: &Identity, alpn: &[u8]) -> Client {
        self.client_of(&self.authority, Some(identity), alpn)
    }

    /// What `client` is answered about `account`, with `key` beside its certificate if that is not
    /// empty; an error if it is not served at all.
    async fn ask(&self, client: &Client, account: &str, key: &str) -> reqwest::Result<Answer> {
        let url = format!("https://localhost:{}/a/{account}/_sink", self.proxy.addr.port());
        let mut request = client.get(url);
        if !key.is_empty() {
            request = request.header("X-Ads-Key", key);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let answer = Answer { status, headers, body: response.bytes().await?.to_vec() };
        judge(&answer);
        Ok(answer)
    }

    async fn status(&self, client: &Client, account: &str) -> u16 {
        self.ask(client, account, "").await.expect("an answer").status.as_u16()
    }

    /// Fails unless `client` has a connection and is refused on it.
    async fn assert_rejected(&self, client: &Client, what: &str) {
        let answer = self.ask(client, "acme", "").await.expect("an answer");
        assert_eq!(
            (answer.status.as_u16(), answer.error()),
            (403, Some("caller_rejected")),
            "{what}"
        );
    }
}

fn api_calls(amazon: &Emulator) -> u64 {
    amazon.state().record.counts().api_calls
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_known_by_a_name_of_its_certificate() {
    let amazon = amazon().await;
    for client_auth in MODES {
        let server = Server::start(&amazon, client_auth, "[auth]\nrequired = true\n");
        for names in [
            vec![uri(URI)],
            vec![dns(DNS)],
            vec![dns("Reports.Example.ORG")],
            vec![dns("other.example.org"), uri("spiffe://example.org/other"), uri(URI)],
        ] {
            for (version, alpn) in VERSIONS {
                let client = server.client(&Identity::new(names.clone()), alpn);
                let response = server.ask(&client, "acme", "").await.expect("an answer");
                assert_eq!(response.status, 200, "{names:?} {version:?}");
                assert_eq!(server.status(&client, "globex").await, 404, "{names:?} {version:?}");
            }
        }
        let named = r#""caller":"reports""#;
        eventually("who it was is logged", || server.proxy.log().contains(named)).await;
        assert!(!server.proxy.log().contains(URI), "its certificate is not");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_names_no_caller_is_rejected_where_none_at_all_is_served() {
    let amazon = amazon().await;
    let server = Server::start(&amazon, "optional", "");
    let common_name =
        Identity::new([]).with(|params| params.distinguished_name.push(DnType::CommonName, DNS));
    let strangers = [
        ("another name", Identity::new([dns("other.example.org")])),
        ("a name above", Identity::new([dns("example.org"), uri("spiffe://example.org/")])),
        ("a name below", Identity::new([dns("x.reports.example.org")])),
        ("a pattern", Identity::new([dns("*.example.org")])),
        ("a DNS name that spells the URI", Identity::new([dns("spiffe.example.org/reports")])),
        ("a URI that spells the DNS name", Identity::new([uri(DNS)])),
        ("the URI in other letters", Identity::new([uri("spiffe://example.org/Reports")])),
        ("mail", Identity::new([SanType::Rfc822Name(DNS.try_into().expect("ASCII"))])),
        ("a common name", common_name),
    ];
    for (what, identity) in &strangers {
        for (_, alpn) in VERSIONS {
            server.assert_rejected(&server.client(identity, alpn), what).await;
        }
    }
    assert_eq!(api_calls(&amazon), 0);
    // They have used up the mistakes of this address. Neighbours do not pay for it.
    let late = server.client(&Identity::new([]), b"h2");
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(server.status(&late, "acme").await);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(server.status(&server.client(&Identity::new([uri(URI)]), b"h2"), "acme").await, 200);
    // On loopback a caller without any certificate is as one without any key.
    for (_, alpn) in VERSIONS {
        let without = server.client_of(&server.authority, None, alpn);
        assert_eq!(server.status(&without, "globex").await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_there_is_no_connection_or_no_answer_of_amazons() {
    let amazon = amazon().await;
    let asks = "[auth]\nrequired = true\n";
    for client_auth in MODES {
        let server = Server::start(&amazon, client_auth, asks);
        for (_, alpn) in VERSIONS {
            let without = server.client_of(&server.authority, None, alpn);
            if client_auth == "optional" {
                server.assert_rejected(&without, client_auth).await;
            } else {
                server.ask(&without, "acme", "").await.expect_err("no connection");
            }
        }
    }
    assert_eq!(api_calls(&amazon), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_proves_nothing_makes_no_connection() {
    let amazon = amazon().await;
    let named = || Identity::new([uri(URI), dns(DNS)]);
    let of_a_server = named()
        .with(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let to_come = named().with(|params| params.not_before = date_time_ymd(4000, 1, 1));
    for client_auth in MODES {
        let server = Server::start(&amazon, client_auth, "");
        let stranger = authority();
        for (what, issuer, identity) in [
            ("another CA", &stranger, &named()),
            ("expired", &server.authority, &named().until(now() - Duration::from_secs(60))),
            ("not yet valid", &server.authority, &to_come),
            ("for servers", &server.authority, &of_a_server),
        ] {
            for (_, alpn) in VERSIONS {
                let client = server.client_of(issuer, Some(identity), alpn);
                let asked = server.ask(&client, "acme", "").await;
                assert!(asked.is_err(), "{client_auth}: {what}: {asked:?}");
            }
        }
        // Nor is the next one worse off.
        assert_eq!(api_calls(&amazon), u64::from(client_auth == "required"));
        assert_eq!(server.status(&server.client(&named(), b"h2"), "acme").await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_sent_counts_before_the_certificate_right_or_wrong() {
    let amazon = amazon().await;
    let other = TestCaller::new("other", "accounts = [\"globex\"]");
    let server = Server::start(&amazon, "required", &other.toml);
    let (known, unknown) = (Identity::new([uri(URI)]), Identity::new([]));
    for (_, alpn) in VERSIONS {
        for identity in [&known, &unknown] {
            let client = server.client(identity, alpn);
            let mut statuses = Vec::new();
            for (account, key) in
                [("globex", &other.key), ("acme", &other.key), ("acme", &other.other_secret())]
            {
                let answer = server.ask(&client, account, key).await.expect("an answer");
                statuses.push(answer.status.as_u16());
            }
            assert_eq!(statuses, [200, 404, 403]);
        }
        // Two that are sent are one too many, with a certificate as without.
        let url = format!("https://localhost:{}/a/acme/_sink", server.proxy.addr.port());
        let two = server.client(&known, alpn).get(url).header("X-Ads-Key", &other.key);
        let two = two.bearer_auth(&other.key).send().await.expect("an answer");
        assert_eq!(two.status(), 400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_outlives_its_certificate_and_its_requests_do_not() {
    let amazon = amazon().await;
    let server = Server::start(&amazon, "required", "");
    let end = Duration::from_secs(now().as_secs() + 6);
    let identity = Identity::new([uri(URI)]).until(end);
    let clients = VERSIONS.map(|(_, alpn)| server.client(&identity, alpn));
    for client in &clients {
        assert_eq!(server.status(client, "acme").await, 200);
    }
    let left = (end + Duration::from_secs(1)).saturating_sub(now());
    assert!(!left.is_zero(), "it was served in time");
    tokio::time::sleep(left + Duration::from_millis(100)).await;
    for (client, (_, alpn)) in clients.iter().zip(VERSIONS) {
        // On the connection of before: another one would fail in its handshake.
        server.assert_rejected(client, "it has ended").await;
        let again = server.client(&identity, alpn);
        server.ask(&again, "acme", "").await.expect_err("no new connection");
    }
    assert_eq!(api_calls(&amazon), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_authority_decides_on_the_next_connections() {
    let amazon = amazon().await;
    let server = Server::start(&amazon, "required", "");
    let next = authority();
    let identity = Identity::new([uri(URI)]);
    let before = server.client(&identity, b"h2");
    assert_eq!(server.status(&before, "acme").await, 200);
    let of_next = || server.client_of(&next, Some(&identity), b"h2");
    server.ask(&of_next(), "acme", "").await.expect_err("not known yet");
    let clients = server.directory.path().join("clients.crt");
    fs::write(&clients, "-----BEGIN CERTIFICATE-----\nnonsense").expect("written");
    let kept = "the old one stays in use";
    eventually("a broken file is refused", || server.proxy.log().contains(kept)).await;
    assert_eq!(server.status(&server.client(&identity, b"h2"), "acme").await, 200);
    fs::write(&clients, next.pem()).expect("written");
    eventually("it is read", || server.proxy.log().contains("new certificate\"")).await;
    assert_eq!(server.status(&of_next(), "acme").await, 200);
    let late = server.client(&identity, b"h2");
    server.ask(&late, "acme", "").await.expect_err("its authority is gone");
    assert_eq!(server.status(&before, "acme").await, 200, "what is open goes on");
}
