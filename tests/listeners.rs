//! Where requests arrive: TCP, IPv6, Unix sockets, TLS; what is refused at the start and later.

use crate::support::{
    extras,
    proxy::{Proxy, Setup, amazon, eventually, write_private},
    stream::Wire,
};
use adsproxy::sandbox::Emulator;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::CertificateDer,
};
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt, symlink},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const ALPN: [&str; 2] = ["h2", "http/1.1"];

fn listen(addresses: &[&str]) -> Setup {
    Setup { listen: Some(format!("{addresses:?}")), ..Setup::default() }
}

/// A directory for sockets and certificates.
fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn over_tcp(address: impl AsRef<str>) -> u16 {
    let stream = TcpStream::connect(address.as_ref()).expect("a connection");
    Wire::new(stream).get("/v2/profiles").expect("an answer").status
}

fn over_unix(path: &Path) -> u16 {
    let stream = UnixStream::connect(path).expect("a connection");
    Wire::new(stream).get("/v2/profiles").expect("an answer").status
}

#[tokio::test(flavor = "multi_thread")]
async fn every_configured_address_is_served() {
    let amazon = amazon().await;
    let directory = directory();
    let socket = directory.path().join("socket");
    let unix = format!("unix:{}", socket.display());
    let addresses = ["127.0.0.1:0", "[::1]:0", "127.0.0.2:0", &unix];
    let proxy = Proxy::with(&amazon, listen(&addresses));
    let bound = proxy.listening();
    assert_eq!(bound.len(), 4);
    for (bound, host) in bound[..3].iter().zip(["127.0.0.1:", "[::1]:", "127.0.0.2:"]) {
        assert!(bound.starts_with(host) && !bound.ends_with(":0"), "{bound}");
        assert_eq!(over_tcp(bound), 200);
    }
    assert_eq!(bound[3], unix);
    assert_eq!(over_unix(&socket), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_host_is_as_good_as_localhost() {
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, listen(&["[::1]:0"]));
    let address = proxy.addr;
    assert!(address.is_ipv6());
    let mut wire = Wire::new(TcpStream::connect(address).expect("a connection"));
    for (host, status) in [(address.to_string(), 200), ("[2001:db8::1]:80".to_owned(), 403)] {
        let head =
            format!("GET /v2/profiles HTTP/1.1\r\nHost: {host}\r\nX-Ads-Account: acme\r\n\r\n");
        wire.write(head).expect("written");
        assert_eq!(wire.reply().expect("an answer").status, status, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_for_its_group_only_and_goes_with_the_process() {
    let amazon = amazon().await;
    let directory = directory();
    let path = directory.path().join("socket");
    let mut proxy = Proxy::with(&amazon, listen(&[&format!("unix:{}", path.display())]));
    let mode = fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
    assert_eq!(over_unix(&path), 200);
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_speaks_over_the_unix_socket() {
    if !extras::required("curl") {
        return;
    }
    let amazon = amazon().await;
    let directory = directory();
    let path = directory.path().join("socket");
    let _proxy = Proxy::with(&amazon, listen(&[&format!("unix:{}", path.display())]));
    let curl = |account: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-o", "-", "-w", " %{http_code}", "--unix-socket"]).arg(&path);
        let output = curl.arg(format!("http://localhost/a/{account}/v2/profiles")).output();
        String::from_utf8(output.expect("curl runs").stdout).expect("text")
    };
    let answer = curl("acme");
    assert!(answer.contains("profileId") && answer.ends_with(" 200"), "{answer}");
    assert!(curl("nobody").ends_with(" 404"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_left_by_a_crash_is_replaced() {
    let amazon = amazon().await;
    let directory = directory();
    let path = directory.path().join("socket");
    let setup = || listen(&[&format!("unix:{}", path.display())]);
    let mut killed = Proxy::with(&amazon, setup());
    killed.signal("KILL");
    killed.wait();
    assert!(fs::metadata(&path).expect("left behind").file_type().is_socket());
    let _proxy = Proxy::with(&amazon, setup());
    assert_eq!(over_unix(&path), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_somebody_answers_on_and_a_file_are_left_alone() {
    let amazon = amazon().await;
    let directory = directory();
    let (live, file) = (directory.path().join("live"), directory.path().join("file"));
    let _answering = UnixListener::bind(&live).expect("a socket");
    fs::write(&file, "precious").expect("written");
    for (path, reason) in [(&live, "another program uses it"), (&file, "there is a file")] {
        let unix = format!("unix:{}", path.display());
        let (code, said) = Proxy::refused(&amazon, &listen(&[&unix]));
        assert_eq!(code, 1);
        assert!(said.contains(&format!("cannot listen on {unix}")), "{said}");
        assert!(said.contains(reason), "{said}");
    }
    assert!(UnixStream::connect(&live).is_ok());
    assert_eq!(fs::read_to_string(&file).expect("still there"), "precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successors_socket_is_not_removed() {
    let amazon = amazon().await;
    let directory = directory();
    let path = directory.path().join("socket");
    let setup = || listen(&[&format!("unix:{}", path.display())]);
    let mut old = Proxy::with(&amazon, setup());
    fs::remove_file(&path).expect("removed");
    let _new = Proxy::with(&amazon, setup());
    old.signal("TERM");
    assert_eq!(old.wait().code(), Some(0));
    assert_eq!(over_unix(&path), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_refused_and_the_error_names_it() {
    let amazon = amazon().await;
    let first = Proxy::with(
        &amazon,
        Setup { toml: "health = \"127.0.0.1:0\"\n[proxy]\nworkers = 4".into(), ..Setup::default() },
    );
    let taken = [first.addr.to_string(), first.admin.to_string()];
    let proxy_port = listen(&[&taken[0]]);
    let health_port = Setup { toml: format!("health = {:?}", taken[0]), ..Setup::default() };
    let proxy_on_admin = listen(&["127.0.0.1:0", &taken[1]]);
    let expected = [&taken[0], &taken[0], &taken[1]];
    for (setup, address) in [proxy_port, health_port, proxy_on_admin].iter().zip(expected) {
        let (code, said) = Proxy::refused(&amazon, setup);
        assert_eq!(code, 1);
        assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
        assert!(said.contains("another program uses it: stop that, or choose another"), "{said}");
    }
    // With SO_REUSEPORT the kernel would have given some of these to the second one.
    for _ in 0..20 {
        assert_eq!(over_tcp(&taken[0]), 200);
    }
}

/// A certificate for `localhost` and its key.
struct Pair {
    cert: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Pair {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let key = made.signing_key.serialize_pem();
        Self { cert: made.cert.pem(), key, der: made.cert.der().clone() }
    }
}

/// What Kubernetes mounts: files are links into `..data`, which is a link that is swapped.
struct Mount(TempDir);

impl Mount {
    fn new(pair: &Pair) -> Self {
        let mount = Self(directory());
        mount.swap("..one", &pair.cert, &pair.key);
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), mount.path(name)).expect("a link");
        }
        mount
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn swap(&self, version: &str, cert: &str, key: &str) {
        fs::create_dir(self.path(version)).expect("a directory");
        fs::write(self.path(version).join("tls.crt"), cert).expect("written");
        write_private(&self.path(version).join("tls.key"), key);
        symlink(version, self.path("..data_tmp")).expect("a link");
        fs::rename(self.path("..data_tmp"), self.path("..data")).expect("swapped");
    }

    fn setup(&self, more: &str) -> Setup {
        let (cert, key) = (self.path("tls.crt"), self.path("tls.key"));
        let toml = format!("[listen.tls]\ncert_file = {cert:?}\nkey_file = {key:?}\n{more}");
        Setup { toml, ..Setup::default() }
    }
}

fn trusting(pairs: &[&Pair], alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for pair in pairs {
        roots.add(pair.der.clone()).expect("a root");
    }
    // Fails when another test was first, which is fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

type Tls = Wire<StreamOwned<ClientConnection, TcpStream>>;

/// A TLS connection on which HTTP/1.1 was agreed, after a first answer.
fn secure(address: SocketAddr, config: &Arc<ClientConfig>) -> Tls {
    let name = "localhost".try_into().expect("a name");
    let session = ClientConnection::new(config.clone(), name).expect("a session");
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut wire = Wire::new(StreamOwned::new(session, stream));
    assert_eq!(wire.get("/v2/profiles").expect("an answer").status, 200);
    wire
}

fn served(wire: &Tls) -> &CertificateDer<'static> {
    &wire.stream().conn.peer_certificates().expect("a certificate")[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_speaks_http_2_or_1_as_the_caller_offers() {
    let amazon = amazon().await;
    let pair = Pair::new();
    let mount = Mount::new(&pair);
    let proxy = Proxy::with(&amazon, mount.setup(""));
    for (offer, version) in [
        (&ALPN[..], http::Version::HTTP_2),
        (&ALPN[1..], http::Version::HTTP_11),
        (&[], http::Version::HTTP_11),
    ] {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(trusting(&[&pair], offer))
            .resolve("localhost", proxy.addr)
            .no_proxy()
            .build()
            .expect("a client");
        let url = format!("https://localhost:{}/v2/profiles", proxy.addr.port());
        let answer = client.get(url).header("X-Ads-Account", "acme").send().await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swapped_certificate_is_used_within_seconds_and_a_broken_one_never() {
    let amazon = amazon().await;
    let (old, new) = (Pair::new(), Pair::new());
    let mount = Mount::new(&old);
    let proxy = Proxy::with(&amazon, mount.setup(""));
    let config = Arc::new(trusting(&[&old, &new], &["http/1.1"]));
    let mut before = secure(proxy.addr, &config);
    assert_eq!(served(&before), &old.der);

    let swapped = Instant::now();
    mount.swap("..two", &new.cert, &new.key);
    eventually("the new certificate is served", || {
        served(&secure(proxy.addr, &config)) == &new.der
    })
    .await;
    assert!(swapped.elapsed() < Duration::from_secs(7), "{:?}", swapped.elapsed());
    let answer = before.get("/v2/profiles").expect("the old connection lives on");
    assert_eq!(answer.status, 200);

    mount.swap("..three", "-----BEGIN CERTIFICATE-----\nnonsense", &new.key);
    let refusal = "new certificate or key rejected, the old one stays in use";
    eventually("the broken one is refused", || proxy.log().contains(refusal)).await;
    assert_eq!(served(&secure(proxy.addr, &config)), &new.der);
    assert_eq!(proxy.log().matches(refusal).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_certificate_in_the_configuration_is_for_new_connections() {
    let amazon = amazon().await;
    let (old, new) = (Pair::new(), Pair::new());
    let (before, after) = (Mount::new(&old), Mount::new(&new));
    let proxy = Proxy::with(&amazon, before.setup(""));
    let config = Arc::new(trusting(&[&old, &new], &["http/1.1"]));
    let mut open = secure(proxy.addr, &config);
    assert_eq!(served(&open), &old.der);

    let path = proxy.dir.path().join("proxy.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    let named = |mount: &Mount| mount.0.path().display().to_string();
    let moved = text.replace(&named(&before), &named(&after));
    assert_ne!(moved, text);
    let reload = async |text: &str, said: &str| {
        let count = || proxy.log().matches(said).count();
        let had = count();
        write_private(&path.with_extension("new"), text);
        fs::rename(path.with_extension("new"), &path).expect("renamed");
        proxy.signal("HUP");
        eventually(said, || count() > had).await;
    };
    reload(&moved, "configuration reloaded").await;
    assert!(proxy.log().contains("listen.tls.cert_file"), "{}", proxy.log());
    assert_eq!(served(&secure(proxy.addr, &config)), &new.der);
    assert_eq!(open.get("/v2/profiles").expect("it goes on").status, 200);

    // A key of another certificate, no certificate at all, and no file.
    let broken = Mount::new(&new);
    for (version, cert, key) in
        [("..2", &*new.cert, &*old.key), ("..3", "-----BEGIN CERTIFICATE-----\nx", &*new.key)]
    {
        broken.swap(version, cert, key);
        reload(&text.replace(&named(&before), &named(&broken)), "configuration not reloaded").await;
        assert_eq!(served(&secure(proxy.addr, &config)), &new.der);
    }
    let nowhere = text.replace(&named(&before), "/nonexistent");
    reload(&nowhere, "configuration not reloaded").await;
    let log = proxy.log();
    let reasons: Vec<_> =
        log.lines().filter(|line| line.contains("configuration not reloaded")).collect();
    for reason in ["certificate and key cannot be used", "tls.crt", "/nonexistent/tls.crt"] {
        assert!(reasons.iter().any(|line| line.contains(reason)), "{reason}: {reasons:?}");
    }
    assert_eq!(served(&secure(proxy.addr, &config)), &new.der);
    assert_eq!(open.get("/v2/profiles").expect("it goes on").status, 200);

    // The files of now are followed, not those of the start.
    let third = Pair::new();
    let config = Arc::new(trusting(&[&third, &old], &["http/1.1"]));
    reload(&text, "configuration reloaded").await;
    assert_eq!(served(&secure(proxy.addr, &config)), &old.der);
    before.swap("..two", &third.cert, &third.key);
    eventually("the new certificate is served", || {
        served(&secure(proxy.addr, &config)) == &third.der
    })
    .await;
}

/// What a caller gets that does not speak TLS.
fn garbage(proxy: &Proxy, bytes: &[u8]) -> Vec<u8> {
    proxy.raw(bytes, Duration::from_secs(10))
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_instead_of_a_handshake_ends_that_connection_only() {
    let amazon = amazon().await;
    let pair = Pair::new();
    let mount = Mount::new(&pair);
    let proxy = Proxy::with(&amazon, mount.setup("[limits]\nhandshake_timeout_secs = 1"));
    let config = Arc::new(trusting(&[&pair], &[]));
    let mut honest = secure(proxy.addr, &config);
    let plain = b"GET /v2/profiles HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\r\n";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let random: Vec<u8> =
        (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for bytes in [&plain[..], preface, &random, &[0x16, 3, 1, 0, 100], b"\0"] {
        let started = Instant::now();
        let answer = garbage(&proxy, bytes);
        // Nothing, or a TLS alert.
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    let hits = r#"adsproxy_limit_hits_total{limit="handshake_timeout"}"#;
    eventually("who stops in the middle is counted", || proxy.metric(hits) >= 1.0).await;
    assert_eq!(honest.get("/v2/profiles").expect("an answer").status, 200);
    assert_eq!(amazon.state().record.counts().api_calls, 2);
}

async fn plain(limits: &str) -> (Emulator, Proxy) {
    let amazon = amazon().await;
    let toml = format!("[limits]\n{limits}");
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    (amazon, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_handshake_on_a_plain_port_gets_no_further() {
    let (amazon, proxy) = plain("header_timeout_secs = 1").await;
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 506]].concat();
    let answer = garbage(&proxy, &hello);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "), "{answer:?}");
    assert_eq!(amazon.state().record.counts().api_calls, 0);
    assert_eq!(over_tcp(proxy.addr.to_string()), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_byte_is_closed_and_counted() {
    let (_amazon, proxy) = plain("first_byte_timeout_secs = 1").await;
    let started = Instant::now();
    assert!(garbage(&proxy, b"").is_empty());
    let took = started.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&took), "{took:?}");
    assert_eq!(proxy.metric(r#"adsproxy_limit_hits_total{limit="first_byte_timeout"}"#), 1.0);
    assert_eq!(over_tcp(proxy.addr.to_string()), 200);
}
