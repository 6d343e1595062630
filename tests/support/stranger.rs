//! A stranger beside each request: with `ADSPROXY_TEST_STRANGER` set, every request of these helpers
//! is sent by a caller first that may use no account. It learns nothing, and changes nothing of what
//! the test goes on to see.

use super::{callers::TestCaller, proxy::Answer};
use reqwest::{Client, RequestBuilder, redirect::Policy};
use std::{
    collections::BTreeSet,
    env,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

pub const VARIABLE: &str = "ADSPROXY_TEST_STRANGER";

/// What the proxy may say to it of its own accord, besides that there is no such account. The test's
/// own request gets the same, or would have got an account that it did not name.
const OTHERS: [&str; 3] = ["account_required", "overloaded", "draining"];

static STRANGER: LazyLock<Option<TestCaller>> = LazyLock::new(|| {
    env::var_os(VARIABLE).map(|_| TestCaller::new("stranger", "tenant = \"nowhere\""))
});

/// The listeners of data planes that know the stranger.
static DATA_PLANES: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());

/// Keeps no connection: a test may count them, and each has a runtime of its own.
static CLIENT: LazyLock<Client> = LazyLock::new(|| {
    let client = Client::builder().redirect(Policy::none()).no_proxy().pool_max_idle_per_host(0);
    client.build().expect("a client")
});

static SENT: AtomicUsize = AtomicUsize::new(0);

/// Its table of the configuration; empty where there is none.
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

/// What the stranger was told.
pub struct Told(Option<Answer>);

/// Sends `request` with the stranger's key; nothing where it cannot be sent twice, or has a
/// credential of its own.
pub async fn send(request: &RequestBuilder) -> Told {
    let Some(caller) = &*STRANGER else { return Told(None) };
    let Some(Ok(mut request)) = request.try_clone().map(RequestBuilder::build) else {
        return Told(None);
    };
    let known = request.url().socket_addrs(|| None).unwrap_or_default();
    let is_met = known.iter().any(|addr| DATA_PLANES.lock().expect("no panic").contains(addr));
    if !is_met || has_key(request.headers()) {
        return Told(None);
    }
    request.headers_mut().insert("x-ads-key", caller.key.parse().expect("ASCII"));
    let sent = CLIENT.execute(request).await;
    let Ok(response) = sent else { return Told(None) };
    SENT.fetch_add(1, Relaxed);
    let (status, headers) = (response.status(), response.headers().clone());
    let Ok(body) = response.bytes().await else { return Told(None) };
    Told(Some(Answer { status, headers, body: body.to_vec() }))
}

fn has_key(headers: &http::HeaderMap) -> bool {
    let mut values = headers.values().filter_map(|value| value.to_str().ok());
    headers.contains_key("x-ads-key")
        || values.any(|value| value.contains("adsk_") || value.contains("adss_"))
}

impl Told {
    /// Compares with what the test's own request got.
    pub fn judge(self, own: &Answer) {
        let Some(told) = self.0 else { return };
        let code = told.error().unwrap_or("none");
        let is_same = told.status == own.status && told.error() == own.error();
        // The shim speaks as Login with Amazon does.
        let is_shim = told.status == 400
            && (told.text().contains("invalid_grant") || (is_same && told.body == own.body));
        let is_same = is_same && code != "none";
        let is_nothing = told.status == 404 && code == "unknown_account";
        let is_fine = is_nothing || is_same || is_shim || OTHERS.contains(&code);
        assert!(is_fine, "a stranger got {} {code}: {}", told.status, told.text());
    }
}

/// Sends `bytes`, which begin with the head of a request, with the stranger's key in it.
pub fn send_raw(addr: SocketAddr, bytes: &[u8]) {
    let Some(caller) = &*STRANGER else { return };
    let text = String::from_utf8_lossy(bytes);
    let is_met = DATA_PLANES.lock().expect("no panic").contains(&addr);
    let head_ends = text.contains("\r\n\r\n") && text.contains(" HTTP/1.1\r\n");
    let lower = text.to_ascii_lowercase();
    let has_credential = ["x-ads-key", "adsk_", "adss_"].iter().any(|sign| lower.contains(sign));
    if !is_met || !head_ends || has_credential {
        return;
    }
    let line = bytes.windows(2).position(|pair| pair == b"\r\n").expect("a line") + 2;
    let key = format!("X-Ads-Key: {}\r\n", caller.key);
    let Ok(mut stream) = TcpStream::connect(addr) else { return };
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    let _ = stream.write_all(&[&bytes[..line], key.as_bytes(), &bytes[line..]].concat());
    SENT.fetch_add(1, Relaxed);
    let mut told = Vec::new();
    let mut some = [0; 4096];
    while !told.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut some) {
            Ok(read) if read > 0 => told.extend_from_slice(&some[..read]),
            _ => break,
        }
    }
    let told = String::from_utf8_lossy(&told).to_ascii_lowercase();
    let is_ours = told.contains("\r\nx-ads-proxy-error: ") || told.starts_with("http/1.1 400 ");
    assert!(
        told.is_empty() || told.starts_with("http/1.1 100 ") || is_ours,
        "a stranger got {told}"
    );
}
