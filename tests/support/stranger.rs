//! A stranger beside each request: with `ADSPROXY_TEST_STRANGER` set, every request of these helpers
//! is sent by a caller of another tenant first. It has accounts of the same names as those of the
//! tests, without a grant: a request for one of them goes as far as the token, and no further. The
//! stranger learns nothing, and changes nothing of what the test goes on to see.

use super::{callers::TestCaller, proxy::Answer};
use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::{Body, Client, Request, redirect::Policy};
use std::{
    collections::BTreeSet,
    env,
    fs::OpenOptions,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// Names the file that gets, line by line, the names of the test files beside which it has sent.
pub const VARIABLE: &str = "ADSPROXY_TEST_STRANGER";

/// What the proxy may say to it of its own accord, besides that there is no such account: that its own
/// has no grant, or what the test's own request gets, or would have got had it named no account.
const OTHERS: [&str; 4] =
    ["reauthorization_required", "account_required", "overloaded", "draining"];

/// The accounts of its own.
const ACCOUNTS: &str = "\n[accounts.\"nowhere~acme\"]\nregion = \"na\"\n\
                        [accounts.\"nowhere~globex\"]\nregion = \"eu\"\n";

/// What is said before an account is looked up. Of bytes, it is not known what the test gets.
const BEFORE: [&str; 8] = [
    "unknown_account",
    "account_conflict",
    "bad_request",
    "caller_rejected",
    "headers_too_large",
    "body_too_large",
    "not_found",
    "too_many_requests",
];

static STRANGER: LazyLock<Option<TestCaller>> = LazyLock::new(|| {
    env::var_os(VARIABLE).map(|_| {
        let caller = TestCaller::new("stranger", "tenant = \"nowhere\"");
        TestCaller { toml: caller.toml + ACCOUNTS, ..caller }
    })
});

/// The listeners of data planes that know the stranger.
static DATA_PLANES: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());

/// Keeps no connection: a test may count them, and each has a runtime of its own.
static CLIENT: LazyLock<Client> = LazyLock::new(|| {
    let client = Client::builder().redirect(Policy::none()).no_proxy().pool_max_idle_per_host(0);
    client.build().expect("a client")
});

static SENT: AtomicUsize = AtomicUsize::new(0);

/// The test files beside which it has sent.
static BESIDE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Its tables of the configuration; empty where there is none.
pub fn table() -> &'static str {
    STRANGER.as_ref().map_or("", |caller| &caller.toml)
}

/// How many requests it has sent in this process.
pub fn sent() -> usize {
    SENT.load(Relaxed)
}

/// The data plane at `addr` has [`table`] in its configuration.
pub fn meet(addr: SocketAddr) {
    if STRANGER.is_some() {
        DATA_PLANES.lock().expect("no panic").insert(addr);
    }
}

/// The stranger, where it knows the data plane at one of `addrs`.
fn of(addrs: &[SocketAddr]) -> Option<&'static TestCaller> {
    let stranger = STRANGER.as_ref()?;
    let met = DATA_PLANES.lock().expect("no panic");
    addrs.iter().any(|addr| met.contains(addr)).then_some(stranger)
}

/// Counts a request beside the test `name`, which is that of its thread.
fn note(name: Option<&str>) {
    SENT.fetch_add(1, Relaxed);
    let Some((file, _)) = name.and_then(|name| name.split_once("::")) else { return };
    if BESIDE.lock().expect("no panic").insert(file.to_owned()) {
        let path = env::var_os(VARIABLE).expect("a file");
        let mut list = OpenOptions::new().append(true).create(true).open(path).expect("a file");
        list.write_all(format!("{file}\n").as_bytes()).expect("written");
    }
}

/// What the stranger was told.
pub struct Told(Option<Answer>);

/// Sends `request` with the stranger's key; nothing where it has a credential of its own. Of a body
/// that is made while it is sent, the stranger sends a beginning.
pub async fn send(request: &Request) -> Told {
    if STRANGER.is_none() {
        return Told(None);
    }
    let addrs = request.url().socket_addrs(|| None).unwrap_or_default();
    let Some(caller) = of(&addrs).filter(|_| !has_key(request.headers())) else {
        return Told(None);
    };
    let mut copy = Request::new(request.method().clone(), request.url().clone());
    copy.headers_mut().clone_from(request.headers());
    copy.headers_mut().insert("x-ads-key", caller.key.parse().expect("ASCII"));
    *copy.body_mut() = request.body().map(|body| match body.as_bytes() {
        Some(bytes) => Body::from(bytes.to_vec()),
        None => {
            copy.headers_mut().remove("content-length");
            Body::wrap(super::bodies::Streamed::chunked(b"a beginning", 3))
        }
    });
    let Ok(response) = CLIENT.execute(copy).await else { return Told(None) };
    note(thread::current().name());
    Told::of(response.into()).await
}

/// As [`send`], for a request over HTTP/2 to the data plane at `addr`.
pub async fn send_http2<B>(addr: SocketAddr, request: &http::Request<B>) -> Told {
    let Some(caller) = of(&[addr]).filter(|_| !has_key(request.headers())) else {
        return Told(None);
    };
    let mut copy = http::Request::new(Full::<Bytes>::default());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    copy.headers_mut().clone_from(request.headers());
    copy.headers_mut().remove("content-length");
    copy.headers_mut().insert("x-ads-key", caller.key.parse().expect("ASCII"));
    let Ok(stream) = tokio::net::TcpStream::connect(addr).await else { return Told(None) };
    let made = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let Ok((mut sender, connection)) = made else { return Told(None) };
    tokio::spawn(connection);
    let Ok(response) = sender.send_request(copy).await else { return Told(None) };
    note(thread::current().name());
    Told::of(response).await
}

fn has_key(headers: &HeaderMap) -> bool {
    let mut values = headers.values().filter_map(|value| value.to_str().ok());
    let has_one = |value: &str| {
        let value = value.to_ascii_lowercase();
        CREDENTIALS.iter().any(|sign| value.contains(sign))
    };
    headers.contains_key("x-ads-key") || values.any(has_one)
}

impl Told {
    async fn of<B: http_body::Body>(response: Response<B>) -> Self {
        let (head, body) = response.into_parts();
        let Ok(body) = body.collect().await else { return Self(None) };
        let body = body.to_bytes().to_vec();
        Self(Some(Answer { status: head.status, headers: head.headers, body }))
    }

    /// Compares with what the test's own request got.
    pub fn judge(self, own: &Answer) {
        let Some(told) = self.0 else { return };
        let code = told.error().unwrap_or("none");
        let is_same = told.status == own.status && told.error() == own.error();
        // The shim speaks as Login with Amazon does.
        let is_shim = told.status == 400
            && (told.text().contains("invalid_grant") || (is_same && told.body == own.body))
            || told.status == 200 && is_placeholder(&told.text());
        let is_same = is_same && code != "none";
        let is_nothing = told.status == 404 && code == "unknown_account";
        let is_fine = is_nothing || is_same || is_shim || OTHERS.contains(&code);
        assert!(is_fine, "a stranger got {} {code}: {}", told.status, told.text());
    }
}

/// Sends `bytes`, where they have the head of a request, with the stranger's key in each head.
pub fn send_raw(addr: SocketAddr, bytes: &[u8]) {
    send_raw_beside(addr, bytes, thread::current().name());
}

/// As [`send_raw`], while others use this thread.
pub async fn send_bytes(addr: SocketAddr, bytes: &[u8]) {
    if begins_request(bytes) && STRANGER.is_some() {
        let (bytes, name) = (bytes.to_vec(), thread::current().name().map(str::to_owned));
        let sent = move || send_raw_beside(addr, &bytes, name.as_deref());
        tokio::task::spawn_blocking(sent).await.expect("what the stranger got is fine");
    }
}

fn send_raw_beside(addr: SocketAddr, bytes: &[u8], name: Option<&str>) {
    let Some(caller) = of(&[addr]).filter(|_| begins_request(bytes)) else { return };
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    if CREDENTIALS.iter().any(|sign| text.contains(sign)) || !text.contains("\r\n\r\n") {
        return;
    }
    let Ok(mut stream) = TcpStream::connect(addr) else { return };
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    let _ = stream.write_all(&with_key(bytes, &caller.line()));
    note(name);
    let mut told = Vec::new();
    let mut some = [0; 4096];
    while !told.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut some) {
            Ok(read) if read > 0 => told.extend_from_slice(&some[..read]),
            _ => break,
        }
    }
    let told = String::from_utf8_lossy(&told).to_ascii_lowercase();
    let code = told.lines().find_map(|line| line.strip_prefix("x-ads-proxy-error: "));
    let is_fine = match code {
        Some(code) => BEFORE.contains(&code) || OTHERS.contains(&code),
        // Of the shim; over TLS, an alert, or nothing.
        None => {
            !told.starts_with("http/")
                || told.starts_with("http/1.1 400 ")
                || told.starts_with("http/1.1 200 ") && told.contains("charset=utf-8")
        }
    };
    assert!(is_fine, "a stranger got {told}");
}

/// Whether the shim hands out nothing but the name of an account of the stranger's own.
fn is_placeholder(text: &str) -> bool {
    ["acme", "globex"].iter().any(|name| text.contains(&format!("\"Atza|{name}\"")))
}

const LINE_END: &str = " http/1.1\r\n";

/// What is in a head that has a credential of its own, in small letters.
const CREDENTIALS: [&str; 4] = ["x-ads-key", "adsk_", "adss_", "bearer eyj"];

/// Whether there is a request line. The rest of an upload, of which there is much, has none.
fn begins_request(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(8 * 1024)];
    String::from_utf8_lossy(start).to_ascii_lowercase().contains(LINE_END)
}

/// `bytes` with `line` behind each request line: what is sent at once may be several requests.
fn with_key(bytes: &[u8], line: &str) -> Vec<u8> {
    let mut with = Vec::with_capacity(bytes.len() + line.len());
    for byte in bytes {
        with.push(*byte);
        let end = with.len().saturating_sub(LINE_END.len());
        if with[end..].eq_ignore_ascii_case(LINE_END.as_bytes()) {
            with.extend_from_slice(line.as_bytes());
        }
    }
    with
}
