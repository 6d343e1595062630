//! A person who logs in: a proxy whose answers come back to it, and a browser made of requests.

use super::callers::OPERATOR;
use super::proxy::{Proxy, Setup, assert_no_secret};
use adsproxy::{
    sandbox::{CLIENT_ID, Country, Emulator, Profile},
    testing::{Actor, Config, Engine, Logins, Metrics, SystemClock, load},
};
use http::{HeaderMap, Method, StatusCode};
use reqwest::header::{COOKIE, SET_COOKIE};
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};
use tokio::runtime::Handle;

/// What an Amazon user who is nobody's account is called.
pub const INITECH: &str = "initech";
/// The profile of that user.
pub const INITECH_PROFILE: i64 = 3_456_789_012_345_678;

/// A proxy in front of `amazon` to which logins come back.
pub fn proxy(amazon: &Emulator, setup: Setup) -> Proxy {
    Proxy::with(amazon, login_setup(amazon, setup))
}

/// `setup` with what a login needs, on a port that is known before the start.
pub fn login_setup(amazon: &Emulator, mut setup: Setup) -> Setup {
    let profile = Profile::seller(INITECH_PROFILE, Country::Jp, "Initech");
    amazon.state().lwa.add_grant(INITECH, CLIENT_ID, "Atzr|unused-initech", vec![profile]);
    let admin = *setup.admin.get_or_insert_with(free_address);
    setup.lwa.push_str(&format!(
        "authorize_url = \"http://{}/ap/oa\"\n\
         redirect_uri = \"http://localhost:{}/api/auth/amazon/callback\"\n",
        amazon.addr(),
        admin.port()
    ));
    setup
}

/// A loopback address that no program listens on, each once. Its port is below those that the system
/// gives to connections: no other test's connection takes it before the test does.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_add(NEXT.fetch_add(1, Relaxed)) % 6_000;
        let port = 10_000 + u16::try_from(number).expect("below 6,000");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// An answer of the admin listener.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    /// The code of a problem.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn location(&self) -> &str {
        self.headers["location"].to_str().expect("ASCII")
    }

    /// `name=value` of the cookie that was set.
    pub fn cookie(&self) -> String {
        let line = self.headers[SET_COOKIE].to_str().expect("ASCII");
        line.split(';').next().expect("a first part").to_owned()
    }
}

/// A client that follows no redirect.
pub fn client() -> reqwest::Client {
    // Fails when another test was first, which is fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    builder.no_proxy().build().expect("a client")
}

/// A login that was begun.
#[derive(Clone, Debug)]
pub struct Begun {
    pub auth_url: String,
    pub state: String,
    pub cookie: String,
}

/// Asks the admin listener, and looks at what every answer must have.
pub async fn ask(admin: SocketAddr, method: Method, path: &str, fields: &[(&str, &str)]) -> Reply {
    ask_with(admin, method, path, fields, String::new()).await
}

pub async fn ask_with(
    admin: SocketAddr,
    method: Method,
    path: &str,
    fields: &[(&str, &str)],
    body: String,
) -> Reply {
    let client = client();
    let mut request = client.request(method, format!("http://{admin}{path}"));
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", format!("localhost:{}", admin.port()));
    }
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let is_credential = |name: &str| ["x-ads-key", "authorization"].contains(&name);
    if !fields.iter().any(|(name, _)| is_credential(&name.to_ascii_lowercase())) {
        request = request.header("x-ads-key", &OPERATOR.key);
    }
    let response = request.body(body).send().await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.expect("text");
    assert_no_secret("an answer of the admin listener", text.as_bytes());
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    if headers["content-type"].to_str().expect("ASCII").starts_with("text/html") {
        let policy = headers["content-security-policy"].to_str().expect("ASCII");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe-"));
        assert_eq!(headers["x-frame-options"], "DENY");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert!(!text.contains("<script"), "{text}");
    }
    Reply { status, headers, text }
}

/// Begins a login as a program does.
pub async fn begin(admin: SocketAddr, account: &str) -> Begun {
    begin_with(admin, &format!("account={account}")).await
}

pub async fn begin_with(admin: SocketAddr, query: &str) -> Begun {
    let reply = ask(admin, Method::GET, &format!("/api/auth/amazon/login?{query}"), &[]).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let json = reply.json();
    let text = |name: &str| json[name].as_str().expect("a text").to_owned();
    Begun { auth_url: text("auth_url"), state: text("state"), cookie: reply.cookie() }
}

/// The consent of `user` on the emulator's page: path and query that the browser comes back with.
pub async fn consent(begun: &Begun, user: &str) -> String {
    at_amazon(&begun.auth_url, &format!("account={user}")).await
}

/// What Amazon's page sends back for `choice`.
pub async fn at_amazon(auth_url: &str, choice: &str) -> String {
    let client = client();
    let response = client.get(format!("{auth_url}&{choice}")).send().await.expect("an answer");
    assert_eq!(response.status(), 302, "{:?}", response.text().await);
    let to = response.headers()["location"].to_str().expect("ASCII");
    let uri: http::Uri = to.parse().expect("an address");
    uri.path_and_query().expect("a path").to_string()
}

/// Comes back with a cookie, as a program.
pub async fn come_back(admin: SocketAddr, path: &str, cookie: &str) -> Reply {
    ask(admin, Method::GET, path, &[(COOKIE.as_str(), cookie)]).await
}

/// Comes back with a cookie, as a browser does that Amazon sent.
pub async fn come_back_in_browser(admin: SocketAddr, path: &str, cookie: &str) -> Reply {
    let fields = [
        (COOKIE.as_str(), cookie),
        ("accept", "text/html,application/xhtml+xml"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ];
    ask(admin, Method::GET, path, &fields).await
}

/// A whole login of `account` as the Amazon user `user`.
pub async fn log_in(admin: SocketAddr, account: &str, user: &str) -> Reply {
    let begun = begin(admin, account).await;
    let back = consent(&begun, user).await;
    come_back(admin, &back, &begun.cookie).await
}

/// Answers a question.
pub async fn answer(admin: SocketAddr, question: &Reply, answer: &str) -> Reply {
    let token = question.json()["token"].as_str().expect("a token").to_owned();
    let body = serde_json::json!({ "token": token, "answer": answer }).to_string();
    let fields = [("content-type", "application/json")];
    ask_with(admin, Method::POST, "/api/auth/amazon/confirm", &fields, body).await
}

/// How often the token endpoint was asked for a code.
pub fn exchanges(amazon: &Emulator) -> usize {
    let seen = amazon.state().record.requests_for(adsproxy::sandbox::Surface::Token);
    let is_code = |body: &[u8]| String::from_utf8_lossy(body).contains("authorization_code");
    seen.iter().filter(|seen| is_code(&seen.body)).count()
}

/// The logins of another process on the proxy's store.
pub fn beside(proxy: &Proxy) -> Logins {
    let options = load::Options {
        path: Some(proxy.dir.path().join("proxy.toml")),
        environment: [
            ("CLIENT_SECRET", "amzn1.oa2-cs.v1.sandbox"),
            ("ACME_REFRESH", "unused-acme"),
            ("GLOBEX_REFRESH", "unused-globex"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into_iter()
        .chain(proxy.env.clone())
        .collect(),
        overrides: Vec::new(),
    };
    let config: Config = load::load(&options).expect("valid").config;
    let metrics = Metrics::new(&config.metrics, Arc::default());
    let engine = Engine::open(
        None,
        Arc::new(config),
        Arc::new(SystemClock),
        metrics,
        Actor::Server,
        Handle::current(),
    );
    Logins::new(engine.expect("an engine"), Actor::Server)
}
