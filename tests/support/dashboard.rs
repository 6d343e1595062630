//! A browser at the dashboard made of requests: its cookie, its forms, its streams of events.

use super::{
    callers::OPERATOR,
    load::TEST_TIMEOUT,
    login::{Reply, client},
    proxy::{assert_no_secret, write_private},
};
use adsproxy::{
    sandbox::{CLIENT_ID, CLIENT_SECRET, Emulator},
    testing::{App, ManualClock, load},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use reqwest::header::SET_COOKIE;
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
};

/// A browser that is signed in.
#[derive(Clone, Debug)]
pub struct Visitor {
    pub admin: SocketAddr,
    pub cookie: String,
}

/// What a browser sends that is at a page of `admin`, which it calls localhost.
pub fn origin(admin: SocketAddr) -> String {
    format!("http://localhost:{}", admin.port())
}

/// A server with a clock of the test's own, on the store of `store`.
pub fn with_clock(amazon: &Emulator, dir: &Path, store: &str) -> (App, Arc<ManualClock>) {
    let [secret, key] = ["secret", "key"].map(|name| dir.join(name));
    write_private(&secret, CLIENT_SECRET);
    write_private(&key, &STANDARD.encode([7; 32]));
    let toml = format!(
        "[listen]\nproxy = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n[proxy]\nworkers = 1\n\
         [lwa]\nclient_id = {CLIENT_ID:?}\nclient_secret = {{ file = {secret:?} }}\n\
         token_url = \"http://{}/auth/o2/token\"\n[store]\n{store}\n\
         [encryption]\nkeys = [{{ id = \"k1\", secret = {{ file = {key:?} }} }}]\n\
         [accounts.acme]\nregion = \"na\"\n{}",
        amazon.addr(),
        OPERATOR.toml,
    );
    let path = dir.join("proxy.toml");
    fs::write(&path, toml).expect("a file");
    let options = load::Options { path: Some(path), ..load::Options::default() };
    let config = load::load(&options).expect("a configuration").config;
    let clock = Arc::new(ManualClock::new());
    let app = tokio::task::block_in_place(|| App::start_with(config, clock.clone()));
    (app.expect("it starts"), clock)
}

/// Sends a request of a browser; `fields` come last, and those of a name that is there take its place.
pub async fn send(
    admin: SocketAddr,
    method: Method,
    path: &str,
    fields: &[(&str, &str)],
    form: &[(&str, &str)],
) -> Reply {
    let host = format!("localhost:{}", admin.port());
    let own = origin(admin);
    let mut all = vec![("host", host.as_str()), ("accept", "text/html")];
    if method == Method::POST {
        all.extend([("content-type", "application/x-www-form-urlencoded"), ("origin", &*own)]);
    }
    all.retain(|(name, _)| !fields.iter().any(|(other, _)| other == name));
    all.extend(fields.iter().filter(|(_, value)| !value.is_empty()));
    let mut request = client().request(method, format!("http://{admin}{path}"));
    for (name, value) in all {
        request = request.header(name, value);
    }
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let response = request.body(body).send().await.expect("a response");
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.expect("text");
    assert_no_secret("a page of the dashboard", text.as_bytes());
    assert_eq!(headers["x-content-type-options"], "nosniff");
    Reply { status, headers, text }
}

/// The form to sign in, sent.
pub async fn try_sign_in(admin: SocketAddr, form: &[(&str, &str)]) -> Reply {
    send(admin, Method::POST, "/dashboard/sign-in", &[], form).await
}

impl Visitor {
    /// Signs in with a key.
    pub async fn with_key(admin: SocketAddr, key: &str) -> Self {
        Self::of(admin, &try_sign_in(admin, &[("key", key)]).await)
    }

    /// What a good sign-in makes.
    pub fn of(admin: SocketAddr, reply: &Reply) -> Self {
        assert_eq!(reply.status, 303, "{}", reply.text);
        Self { admin, cookie: reply.cookie() }
    }

    pub async fn get(&self, path: &str) -> Reply {
        send(self.admin, Method::GET, path, &[("cookie", &self.cookie)], &[]).await
    }

    /// The text of a page that is there.
    pub async fn page(&self, path: &str) -> String {
        let reply = self.get(path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        reply.text
    }

    /// The token of the forms of this session.
    pub async fn csrf(&self) -> String {
        let page = self.page("/dashboard").await;
        let (_, rest) = page.split_once("name=\"csrf\" value=\"").expect("a form");
        rest.split('"').next().expect("a value").to_owned()
    }

    /// Sends a form of its own.
    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> Reply {
        let csrf = self.csrf().await;
        let form = [form, &[("csrf", csrf.as_str())]].concat();
        send(self.admin, Method::POST, path, &[("cookie", &self.cookie)], &form).await
    }

    /// Whether it is still signed in.
    pub async fn is_signed_in(&self) -> bool {
        let reply = self.get("/dashboard").await;
        assert!(matches!(reply.status.as_u16(), 200 | 303), "{}", reply.text);
        reply.status == 200
    }
}

/// The events of a live page, as they come.
pub struct PageEvents {
    stream: TcpStream,
    pub status: u16,
    pub head: String,
    /// What has come and was not looked at.
    text: Vec<u8>,
}

impl PageEvents {
    /// Asks for the events of a page as HTTP/1.0, whose bodies are not in chunks; `lines` are more
    /// header lines.
    pub fn open(visitor: &Visitor, path: &str, lines: &str) -> Self {
        let mut stream = TcpStream::connect(visitor.admin).expect("a connection");
        stream.set_read_timeout(Some(TEST_TIMEOUT)).expect("set");
        let (port, cookie) = (visitor.admin.port(), &visitor.cookie);
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: localhost:{port}\r\nAccept: text/event-stream\r\n\
             Cookie: {cookie}\r\n{lines}\r\n"
        )
        .expect("sent");
        let mut events = Self { stream, status: 0, head: String::new(), text: Vec::new() };
        events.head = events.until("\r\n\r\n").to_ascii_lowercase();
        events.status = events.head.split(' ').nth(1).expect("a status").parse().expect("a number");
        events
    }

    /// One that is given.
    pub fn of(visitor: &Visitor, path: &str) -> Self {
        let events = Self::open(visitor, path, "");
        assert_eq!(events.status, 200, "{path}: {}", events.head);
        assert!(events.head.contains("content-type: text/event-stream"), "{}", events.head);
        events
    }

    /// What comes until `end`, and `end`.
    pub fn until(&mut self, end: &str) -> String {
        let mut piece = [0; 16 * 1024];
        loop {
            if let Some(at) = String::from_utf8_lossy(&self.text).find(end) {
                let rest = self.text.split_off(at + end.len());
                let text = std::mem::replace(&mut self.text, rest);
                return String::from_utf8(text).expect("UTF-8");
            }
            let length = self.stream.read(&mut piece).expect("events");
            let text = String::from_utf8_lossy(&self.text);
            assert!(length > 0, "the stream has ended, without {end:?}: {text}");
            self.text.extend_from_slice(&piece[..length]);
        }
    }

    /// What comes until the server ends the stream.
    pub fn rest(mut self) -> String {
        let read = self.stream.read_to_end(&mut self.text);
        // It may be cut.
        let is_reset = |error: &std::io::Error| error.kind() == ErrorKind::ConnectionReset;
        assert!(read.as_ref().err().is_none_or(is_reset), "the stream goes on: {read:?}");
        assert_no_secret("a stream of the dashboard", &self.text);
        String::from_utf8_lossy(&self.text).into_owned()
    }
}

/// The attributes of the cookie that a response sets.
pub fn attributes(reply: &Reply) -> String {
    let line = reply.headers[SET_COOKIE].to_str().expect("ASCII");
    line.split_once(';').expect("attributes").1.trim().to_owned()
}
