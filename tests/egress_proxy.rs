//! The way out through a company's proxy: `HTTPS_PROXY` and `NO_PROXY`, for the API and for LWA.

use crate::support::{
    proxy::{Proxy, Setup, eventually, upstream},
    secure::{secure_amazon, secure_url, server_tls},
    wire::field,
};
use adsproxy::sandbox::{Emulator, EmulatorOptions};
use base64::{Engine, prelude::BASE64_STANDARD};
use parking_lot::Mutex;
use rustls::ServerConfig;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// The API over TLS, LWA at `token_url`.
fn setup(amazon: &Emulator, ca: &NamedTempFile, token_url: &str, env: &[(&str, &str)]) -> Setup {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Setup {
        toml: upstream(&secure_url(amazon), &format!("[tls]\nca_file = {:?}", ca.path())),
        token_url: Some(format!("{token_url}/auth/o2/token")),
        env: env.iter().map(own).collect(),
        ..Setup::default()
    }
}

/// A proxy for `CONNECT`, and what it was asked.
struct Egress {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Egress {
    /// Connects callers that send `credentials` if there are any; `refuses` all else.
    async fn start(credentials: Option<&'static str>, refuses: bool) -> Self {
        Self::listen(credentials, refuses, None).await
    }

    /// As `start`, over TLS.
    async fn secure(credentials: &'static str, tls: Arc<ServerConfig>) -> Self {
        Self::listen(Some(credentials), false, Some(TlsAcceptor::from(tls))).await
    }

    async fn listen(
        credentials: Option<&'static str>,
        refuses: bool,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (heads, mut serving) = (asked.clone(), JoinSet::new());
        serving.spawn(async move {
            let mut tunnels = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (heads, tls) = (heads.clone(), tls.clone());
                tunnels.spawn(async move {
                    match tls {
                        None => tunnel(stream, heads, credentials, refuses).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                tunnel(stream, heads, credentials, refuses).await;
                            }
                        }
                    }
                });
            }
        });
        Self { addr, asked, _serving: serving }
    }

    fn targets(&self) -> Vec<String> {
        let asked = self.asked.lock();
        asked.iter().map(|head| head.lines().next().unwrap_or_default().to_owned()).collect()
    }
}

async fn tunnel(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    heads: Arc<Mutex<Vec<String>>>,
    credentials: Option<&str>,
    refuses: bool,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).expect("text");
    heads.lock().push(head.clone());
    let is_known = credentials.is_none_or(|wanted| {
        let basic = format!("Basic {}", BASE64_STANDARD.encode(wanted));
        field(&head, "proxy-authorization") == Some(&basic)
    });
    let answer = match (refuses, is_known) {
        (true, _) => "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        (false, false) => "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        (false, true) => "HTTP/1.1 200 Connection established\r\n\r\n",
    };
    if stream.write_all(answer.as_bytes()).await.is_ok() && answer.contains(" 200 ") {
        let target = head.split(' ').nth(1).expect("a target");
        let mut upstream = TcpStream::connect(target).await.expect("the emulator listens");
        // How a tunnel ends is not looked at.
        let _ = copy_bidirectional(&mut stream, &mut upstream).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_and_lwa_are_reached_through_the_egress_proxy() {
    for http2 in [false, true] {
        let (amazon, ca) = secure_amazon(http2).await;
        let egress = Egress::start(None, false).await;
        let url = format!("http://{}", egress.addr);
        let secure = secure_url(&amazon);
        let proxy = Proxy::with(&amazon, setup(&amazon, &ca, &secure, &[("HTTPS_PROXY", &url)]));
        let answer = proxy.post("/_echo", "body").await;
        assert_eq!(answer.status, 200, "{}", proxy.log());
        let version = if http2 { "HTTP/2.0" } else { "HTTP/1.1" };
        assert_eq!(answer.json()["version"], version);
        let target = secure.trim_start_matches("https://").to_owned();
        let connect = format!("CONNECT {target} HTTP/1.1");
        // One tunnel for LWA, one for the API; no token in sight of the egress proxy.
        assert_eq!(egress.targets(), [connect.clone(), connect]);
        assert!(!egress.asked.lock().iter().any(|head| head.contains("Bearer")));
        assert_eq!(amazon.state().record.counts().token_calls, 1);
    }
}

/// A webhook at `url`, for every refresh.
fn webhook(mut setup: Setup, url: &str, allow_private: bool) -> Setup {
    setup.toml.push_str(&format!(
        "\n[[hooks]]\nname = \"ops\"\nurl = \"{url}/hook\"\nevents = [\"token.refreshed\"]\n\
         secret = {{ env = \"HOOK_SECRET\" }}\nunsafe_allow_private_addresses = {allow_private}\n"
    ));
    setup.env.push(("HOOK_SECRET".to_owned(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()));
    setup
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_go_out_by_the_egress_proxy_unless_no_proxy_names_the_receiver() {
    let (amazon, ca) = secure_amazon(true).await;
    let (receiver, _) = secure_amazon(true).await;
    for (no_proxy, tunnels) in [("example.test", 1), ("localhost", 0)] {
        let egress = Egress::start(None, false).await;
        let url = format!("http://{}", egress.addr);
        let env = [("HTTPS_PROXY", url.as_str()), ("NO_PROXY", no_proxy)];
        let plain = format!("http://{}", amazon.addr());
        let setup = setup(&amazon, &ca, &plain, &env);
        let proxy = Proxy::with(&amazon, webhook(setup, &secure_url(&receiver), true));
        assert_eq!(proxy.get("/v2/profiles").await.status, 200, "{}", proxy.log());
        // It is no receiver that this program trusts: the handshake is the end of it.
        eventually("it is tried", || proxy.log().contains("hook not delivered")).await;
        let target =
            format!("CONNECT {} HTTP/1.1", secure_url(&receiver)["https://".len()..].to_owned());
        let hooks = egress.targets().iter().filter(|asked| **asked == target).count();
        assert_eq!(hooks.min(1), tunnels, "{no_proxy}: {:?}", egress.targets());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_this_machine_knows_as_private_is_not_asked_for_at_the_egress_proxy() {
    let (amazon, ca) = secure_amazon(true).await;
    let egress = Egress::start(None, false).await;
    let url = format!("http://{}", egress.addr);
    let plain = format!("http://{}", amazon.addr());
    let setup = setup(&amazon, &ca, &plain, &[("HTTPS_PROXY", &url)]);
    // A name for loopback that the configuration cannot see through.
    let proxy = Proxy::with(&amazon, webhook(setup, "https://127.1:9", false));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200, "{}", proxy.log());
    eventually("it is refused", || proxy.log().contains("its address is a private one")).await;
    assert!(!egress.targets().iter().any(|asked| asked.contains(":9 ")), "{:?}", egress.targets());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_names_what_is_reached_directly() {
    let (amazon, ca) = secure_amazon(true).await;
    let egress = Egress::start(None, false).await;
    let url = format!("http://{}", egress.addr);
    let secure = secure_url(&amazon);
    for (no_proxy, tunnels) in [("example.test,localhost", 0), ("example.test,local", 2)] {
        let env = [("HTTPS_PROXY", url.as_str()), ("NO_PROXY", no_proxy)];
        let proxy = Proxy::with(&amazon, setup(&amazon, &ca, &secure, &env));
        assert_eq!(proxy.get("/v2/profiles").await.status, 200);
        assert_eq!(egress.targets().len(), tunnels, "{no_proxy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_in_the_proxys_url_are_sent_to_it_and_written_nowhere() {
    let (amazon, ca) = secure_amazon(true).await;
    let egress = Egress::start(Some("clerk:s3cret pass"), false).await;
    let secure = secure_url(&amazon);
    let url = format!("http://clerk:s3cret%20pass@{}", egress.addr);
    let proxy = Proxy::with(&amazon, setup(&amazon, &ca, &secure, &[("HTTPS_PROXY", &url)]));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200, "{}", proxy.log());
    assert_eq!(egress.targets().len(), 2);

    // The twin: with the wrong password neither LWA nor the API is reached.
    let wrong = format!("http://clerk:s3cret-not@{}", egress.addr);
    let plain = format!("http://{}", amazon.addr());
    let refused = Proxy::with(&amazon, setup(&amazon, &ca, &plain, &[("HTTPS_PROXY", &wrong)]));
    let answer = refused.get("/v2/profiles").await;
    assert_eq!((answer.status.as_u16(), answer.error()), (502, Some("upstream_unreachable")));
    for proxy in [&proxy, &refused] {
        assert!(!proxy.log().contains("s3cret"), "{}", proxy.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusing_egress_proxy_makes_the_upstream_unreachable() {
    let (amazon, ca) = secure_amazon(true).await;
    let egress = Egress::start(None, true).await;
    let url = format!("http://{}", egress.addr);
    let plain = format!("http://{}", amazon.addr());
    let proxy = Proxy::with(&amazon, setup(&amazon, &ca, &plain, &[("HTTPS_PROXY", &url)]));
    for tried in 1..=3 {
        let answer = proxy.post("/_echo", "body").await;
        assert_eq!((answer.status.as_u16(), answer.error()), (502, Some("upstream_unreachable")));
        assert_eq!(egress.targets().len(), tried);
    }
    // An http:// address of this machine is never anybody else's to reach.
    assert_eq!(amazon.state().record.counts().token_calls, 1);
    assert_eq!(amazon.state().record.counts().api_calls, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_egress_proxy_is_no_way_around_it() {
    let (amazon, ca) = secure_amazon(true).await;
    let egress = Egress::start(None, false).await;
    let url = format!("http://{}", egress.addr);
    drop(egress);
    let plain = format!("http://{}", amazon.addr());
    let proxy = Proxy::with(&amazon, setup(&amazon, &ca, &plain, &[("HTTPS_PROXY", &url)]));
    let answer = proxy.get("/v2/profiles").await;
    assert_eq!((answer.status.as_u16(), answer.error()), (502, Some("upstream_unreachable")));
    assert_eq!(amazon.state().record.counts().api_calls, 0);
    eventually("the cause is logged", || proxy.log().contains("cannot connect")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_nobody_vouches_for_is_not_spoken_to() {
    let (amazon, _) = secure_amazon(true).await;
    let (_other, ca) = secure_amazon(true).await;
    let plain = format!("http://{}", amazon.addr());
    let proxy = Proxy::with(&amazon, setup(&amazon, &ca, &plain, &[]));
    let answer = proxy.post("/_echo", "body").await;
    assert_eq!((answer.status.as_u16(), answer.error()), (502, Some("upstream_unreachable")));
    assert_eq!(amazon.state().record.counts().api_calls, 0);
}

/// What listens there speaks TLS only: a `CONNECT` in clear would reach nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_https_proxy_is_spoken_to_by_tls_for_the_api_and_for_lwa() {
    let (tls, ca) = server_tls(false);
    let options = EmulatorOptions { tls: Some(tls.clone()), ..EmulatorOptions::default() };
    let amazon = Emulator::start(options).await.expect("the emulator starts");
    let egress = Egress::secure("clerk:s3cret", tls).await;
    let secure = secure_url(&amazon);
    let url = format!("https://clerk:s3cret@localhost:{}", egress.addr.port());
    let proxy = Proxy::with(&amazon, setup(&amazon, &ca, &secure, &[("HTTPS_PROXY", &url)]));
    let answer = proxy.post("/_echo", "body").await;
    assert_eq!(answer.status, 200, "{}", proxy.log());
    assert_eq!(egress.targets().len(), 2, "one tunnel for LWA, one for the API");
    assert!(!proxy.log().contains("s3cret"));
}

/// Some programs take `REQUEST_METHOD` for a sign that the environment is a web request's.
#[tokio::test(flavor = "multi_thread")]
async fn request_method_in_the_environment_does_not_switch_the_egress_proxy_off() {
    let (amazon, ca) = secure_amazon(true).await;
    let egress = Egress::start(None, false).await;
    let url = format!("http://{}", egress.addr);
    let env = [("HTTPS_PROXY", url.as_str()), ("REQUEST_METHOD", "GET")];
    let proxy = Proxy::with(&amazon, setup(&amazon, &ca, &secure_url(&amazon), &env));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200, "{}", proxy.log());
    assert_eq!(egress.targets().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_cannot_be_used_is_refused_at_start_by_name() {
    let (amazon, ca) = secure_amazon(true).await;
    let secure = secure_url(&amazon);
    for (variable, url, said) in [
        ("HTTPS_PROXY", "socks5://clerk:s3cret@127.0.0.1:1080", "socks5"),
        ("ALL_PROXY", "socks5h://clerk:s3cret@127.0.0.1:1080", "socks5h"),
        ("https_proxy", "http://clerk:s3cret@", "is not the URL of a proxy"),
    ] {
        let setup = setup(&amazon, &ca, &secure, &[(variable, url)]);
        let (code, log) = Proxy::refused(&amazon, &setup);
        assert_eq!(code, 78, "{log}");
        assert!(log.contains(variable) && log.contains(said), "{log}");
        assert!(!log.contains("s3cret"), "{log}");
    }
}
