//! Bad input: the table's answer, nothing half-formed at Amazon, and the next request unharmed.

use crate::support::{
    proxy::{Proxy, Setup, amazon},
    socket::{Wire, assert_own, honest},
};
use adsproxy::sandbox::{Emulator, Seen, Surface};
use std::time::Duration;

fn seen(amazon: &Emulator) -> Vec<Seen> {
    amazon.state().record.requests_for(Surface::Api)
}

/// A request whose header lines are all the test's.
fn raw(line: &str, lines: &str) -> Vec<u8> {
    format!("{line}\r\n{lines}\r\n").into_bytes()
}

/// Sends `request` and wants `(status, code)`; nothing reaches Amazon, and honest requests on
/// this connection (if it lives) and on a new one get their own answers.
fn refused(proxy: &Proxy, amazon: &Emulator, request: &[u8], status: u16, code: &str) {
    amazon.state().record.clear();
    let shown = String::from_utf8_lossy(request);
    let shown: String = shown.chars().take(300).collect();
    let mut wire = Wire::open(proxy.addr);
    wire.send(request);
    let Some(answer) = wire.try_answer() else { panic!("no answer to {shown:?}") };
    let told = (answer.status.as_u16(), answer.error().unwrap_or("none"));
    assert_eq!(told, (status, code), "{shown:?}");
    assert!(seen(amazon).is_empty(), "{shown:?} reached Amazon");
    let closes = answer.headers.get("connection").is_some_and(|value| value == "close");
    if closes {
        let rest = wire.rest();
        assert!(rest.is_empty(), "{shown:?} got more: {}", String::from_utf8_lossy(&rest));
    } else {
        wire.ask_honestly("same");
    }
    Wire::open(proxy.addr).ask_honestly("new");
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_are_no_path_and_methods_that_tunnel_or_echo_are_refused() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let lines = "Host: localhost\r\nX-Ads-Account: acme\r\n";
    let rows = [
        ("GET http://localhost/v2/profiles HTTP/1.1", 400),
        ("GET http://169.254.169.254/latest/meta-data/ HTTP/1.1", 400),
        ("GET https://advertising-api.amazon.com/v2/profiles HTTP/1.1", 400),
        ("GET localhost:80 HTTP/1.1", 400),
        ("GET evil.test:443 HTTP/1.1", 400),
        ("GET file:///etc/passwd HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("OPTIONS * HTTP/1.1", 400),
        ("GET ?x HTTP/1.1", 400),
        ("CONNECT evil.test:443 HTTP/1.1", 405),
        ("CONNECT / HTTP/1.1", 405),
        ("TRACE / HTTP/1.1", 405),
        ("TRACE http://localhost/ HTTP/1.1", 405),
    ];
    for (line, status) in rows {
        refused(&proxy, &amazon, &raw(line, lines), status, "bad_request");
    }
    let answer = Wire::open(proxy.addr).send(raw("TRACE / HTTP/1.1", lines)).answer();
    assert!(answer.headers["allow"].to_str().expect("ASCII").contains("GET"));
    assert!(!answer.text().contains("X-Ads-Account: acme"));
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_missing_and_double_hosts_are_refused() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let long = format!("Host: {}\r\n", "a".repeat(10_000));
    let rows: &[(&str, u16, &str)] = &[
        ("", 400, "bad_request"),
        ("Host:\r\n", 400, "bad_request"),
        ("Host: localhost\r\nHost: localhost\r\n", 400, "bad_request"),
        ("Host: localhost\r\nHost: evil.test\r\n", 400, "bad_request"),
        ("Host: localhost, evil.test\r\n", 400, "bad_request"),
        ("Host: user@localhost\r\n", 400, "bad_request"),
        ("Host: localhost/\r\n", 400, "bad_request"),
        ("Host: localhost:x\r\n", 400, "bad_request"),
        ("Host: [::1\r\n", 400, "bad_request"),
        ("Host: evil.test\r\n", 403, "caller_rejected"),
        ("Host: evil.test:8787\r\n", 403, "caller_rejected"),
        ("Host: localhost.evil.test\r\n", 403, "caller_rejected"),
        ("Host: advertising-api.amazon.com\r\n", 403, "caller_rejected"),
        ("Host: 169.254.169.254\r\n", 403, "caller_rejected"),
        ("Host: 0.0.0.0\r\n", 403, "caller_rejected"),
        (&long, 403, "caller_rejected"),
    ];
    for (host, status, code) in rows {
        let lines = format!("{host}X-Ads-Account: acme\r\n");
        refused(&proxy, &amazon, &raw("GET /_sink HTTP/1.1", &lines), *status, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_on_another_page_is_refused_without_a_cors_header() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let rows = [
        "Origin: https://evil.test\r\n",
        "Origin: null\r\n",
        "Origin: http://localhost:3000\r\n",
        "Origin: http://localhost\r\nOrigin: http://localhost\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n",
    ];
    for row in rows {
        let lines = format!("Host: localhost\r\nX-Ads-Account: acme\r\n{row}");
        let request = raw("GET /_sink HTTP/1.1", &lines);
        refused(&proxy, &amazon, &request, 403, "caller_rejected");
    }
    let preflight = "Host: localhost\r\nOrigin: https://evil.test\r\n\
        Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-ads-account\r\n";
    let mut wire = Wire::open(proxy.addr);
    let answer = wire.send(raw("OPTIONS /_sink HTTP/1.1", preflight)).answer();
    assert_eq!(answer.error(), Some("caller_rejected"));
    let cors = |name: &http::HeaderName| name.as_str().starts_with("access-control-");
    assert!(!answer.headers.keys().any(cors));
    // The negative twin: a page of ours, and a caller that is no browser.
    let own = "Host: localhost\r\nOrigin: http://localhost\r\nX-Ads-Account: acme\r\n\
        Sec-Fetch-Site: same-origin\r\n";
    assert_eq!(wire.send(raw("GET /_sink HTTP/1.1", own)).answer().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_no_http_get_a_marked_400_and_the_connection_ends() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let good = "Host: localhost\r\nX-Ads-Account: acme\r\n";
    let heads: Vec<Vec<u8>> = vec![
        b"GET /\r\n\r\n".to_vec(),
        b"GET  / HTTP/1.1\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
        b"\0\0\0\0\r\n\r\n".to_vec(),
        b"hello\r\n\r\n".to_vec(),
        raw("GET / HTTP/0.9", good),
        raw("GET / HTTP/1.2", good),
        raw("GET / HTTP/2.0", good),
        raw("GET / HTTP/3", good),
        raw("GET / http/1.1", good),
        raw("GET / HTTP/1.1 extra", good),
        raw("GET /x y HTTP/1.1", good),
        raw("GET /\x01 HTTP/1.1", good),
        raw("GET /\x7f HTTP/1.1", good),
        raw("G\x00T / HTTP/1.1", good),
        raw("G(T / HTTP/1.1", good),
        raw(" GET / HTTP/1.1", good),
        raw("GET / HTTP/1.1", &format!("{good}X Y: space in the name\r\n")),
        raw("GET / HTTP/1.1", &format!("{good}X-Y : space before the colon\r\n")),
        raw("GET / HTTP/1.1", &format!("{good}X-Y\t: tab before the colon\r\n")),
        raw("GET / HTTP/1.1", &format!("{good}: empty name\r\n")),
        raw("GET / HTTP/1.1", &format!("{good}no colon\r\n")),
        raw("GET / HTTP/1.1", &format!("{good}X-Y: nul \0 inside\r\n")),
        raw("GET / HTTP/1.1", &format!("{good}X-Y: bare \r inside\r\n")),
        raw("GET / HTTP/1.1", &format!("{good}X-Y: bell \x07 inside\r\n")),
        raw("GET / HTTP/1.1", &format!("{good}X-Y: folded\r\n once\r\n")),
        raw("GET / HTTP/1.1", &format!("{good}X-Y: folded\r\n\ttwice\r\n")),
        raw("GET / HTTP/1.1", &format!(" leading fold\r\n{good}")),
        raw("GET / HTTP/1.1", &format!("{good}X(Y): name with brackets\r\n")),
        raw("GET / HTTP/1.1", &format!("{good}X\u{e9}: name beyond ASCII\r\n")),
        raw("POST / HTTP/1.1", &format!("{good}Content-Length: 1\r\nContent-Length: 2\r\n")),
    ];
    let before = proxy.metric(r#"adsproxy_requests_total{code_class="4xx"}"#);
    for head in &heads {
        refused(&proxy, &amazon, head, 400, "bad_request");
    }
    let after = proxy.metric(r#"adsproxy_requests_total{code_class="4xx"}"#);
    assert_eq!(after - before, heads.len() as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http_allows_is_not_refused() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let good = "Host: localhost\r\nX-Ads-Account: acme\r\n";
    let heads: Vec<Vec<u8>> = vec![
        raw("GET /_sink HTTP/1.1", good),
        raw("\r\nGET /_sink HTTP/1.1", good),
        raw("GET /_sink HTTP/1.0", good),
        raw("GET /_sink HTTP/1.1", &format!("{good}X-Empty:\r\n")),
        raw("GET /_sink HTTP/1.1", &format!("{good}X-Obs: caf\u{e9}\r\n")),
        raw("GET /_sink HTTP/1.1", &format!("{good}X-Tab: a\tb\r\n")),
        raw("PROPFIND /_sink HTTP/1.1", good),
        raw("DELETE /_sink HTTP/1.1", good),
        raw("get /_sink HTTP/1.1", good),
        // RFC 9112 section 2.2 lets a line end in LF alone; it is cleaned on the way.
        String::from_utf8_lossy(&raw("GET /_sink HTTP/1.1", good)).replace('\r', "").into_bytes(),
    ];
    for head in heads {
        let shown = String::from_utf8_lossy(&head).into_owned();
        amazon.state().record.clear();
        let answer = Wire::open(proxy.addr).send(&head).answer();
        assert_eq!(answer.status, 200, "{shown:?}: {}", answer.text());
        assert_eq!(seen(&amazon)[0].version, http::Version::HTTP_11, "{shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_heads_get_a_marked_431_at_every_size() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let good = "Host: localhost\r\nX-Ads-Account: acme\r\n";
    // Between the cap (64 KiB) and what the parser holds (128 KiB), at its edge, far beyond.
    for size in [66_000, 100_000, 131_000, 131_072, 140_000, 1 << 20, 4 << 20] {
        let one = format!("{good}X-Long: {}\r\n", "x".repeat(size));
        refused(&proxy, &amazon, &raw("GET / HTTP/1.1", &one), 431, "headers_too_large");
    }
    // No line end in sight.
    refused(&proxy, &amazon, &vec![b'G'; 300_000], 431, "headers_too_large");
    for size in [65_530, 65_534, 65_535, 70_000, 200_000] {
        let line = format!("GET /{} HTTP/1.1", "x".repeat(size));
        refused(&proxy, &amazon, &raw(&line, good), 431, "headers_too_large");
    }
    for count in [101, 128, 200, 5_000] {
        let lines: String = (0..count).map(|n| format!("X-{n}: 1\r\n")).collect();
        let lines = format!("{good}{lines}");
        refused(&proxy, &amazon, &raw("GET / HTTP/1.1", &lines), 431, "headers_too_large");
    }
    let hits = proxy.metric(r#"adsproxy_limit_hits_total{limit="headers"}"#);
    assert_eq!(hits, 17.0);
    // The negative twin: just under each cap.
    let fits = format!("{good}X-Long: {}\r\n", "x".repeat(65_000));
    let answer = Wire::open(proxy.addr).send(raw("GET /_sink HTTP/1.1", &fits)).answer();
    assert_eq!(answer.status, 200, "{:?} {}", answer.headers, answer.text());
    let lines: String = (0..98).map(|n| format!("X-{n}: 1\r\n")).collect();
    let nobody = good.replace("acme", "nobody");
    let many = raw("GET / HTTP/1.1", &format!("{nobody}{lines}"));
    assert_eq!(Wire::open(proxy.addr).send(many).answer().error(), Some("unknown_account"));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_after_an_honest_request_is_refused_behind_its_whole_answer() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    for size in [0, 1, 1000, 300_000, 3_000_000] {
        let request = format!(
            "GET /_bytes/{size} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\r\n\
             \x01\x02garbage\r\n\r\n"
        );
        let mut wire = Wire::open(proxy.addr);
        wire.send(request);
        let answer = wire.answer();
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, size));
        assert!(answer.body.iter().all(|byte| *byte == b'x'));
        let refusal = wire.answer();
        assert_eq!((refusal.status.as_u16(), refusal.error()), (400, Some("bad_request")));
        assert!(wire.is_closed());
    }
    // The refusal is the end: what follows it is not even looked at.
    let mut wire = Wire::open(proxy.addr);
    wire.send(format!("\x01\r\n\r\n{}", honest("late")));
    assert_eq!(wire.answer().status, 400);
    assert!(wire.is_closed());
    assert!(!seen(&amazon).iter().any(|seen| seen.target.contains("late")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_amazons_that_looks_like_a_parsers_refusal_is_left_alone() {
    let amazon = amazon().await;
    let twin = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    amazon.state().api.faults.add(
        adsproxy::sandbox::ApiFault::Answer(adsproxy::sandbox::Scripted {
            status: http::StatusCode::OK,
            headers: vec![("Content-Type".into(), "message/http".into())],
            body: bytes::Bytes::from_static(twin),
        }),
        adsproxy::sandbox::Times::Forever,
    );
    let proxy = Proxy::start(&amazon);
    let mut wire = Wire::open(proxy.addr);
    wire.send(honest("1").repeat(20));
    for _ in 0..20 {
        assert_eq!(wire.answer().body, twin);
    }
}

/// How a spelling may be taken.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Taken {
    /// 400, and the connection ends.
    Refused,
    /// One request with one clean framing, whose body is empty.
    Empty,
    /// The same, and the connection ends (RFC 9112 section 6.1): the length beside the chunks is
    /// never looked at.
    EmptyAndClosed,
    /// One clean request with five bytes of body.
    Five,
}

/// Sends a request in which a hidden one follows the framing lines, and judges what came of it.
fn smuggle(proxy: &Proxy, amazon: &Emulator, lines: &str, taken: Taken) {
    amazon.state().record.clear();
    // By chunks the first body is empty, by Content-Length it is `0\r\n\r\n`. What is left is a
    // request that names no account: only a desynchronized upstream would ever see it.
    let hidden = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let request = format!(
        "POST /_sink HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n{lines}\r\n\
         0\r\n\r\n{hidden}"
    );
    let mut wire = Wire::open(proxy.addr);
    wire.send(request);
    let answer = wire.answer();
    let seen = seen(amazon);
    let shown = lines.escape_debug().to_string();
    assert!(seen.iter().all(|seen| seen.target == "/_sink"), "smuggled: {shown}");
    match taken {
        Taken::Refused => {
            assert_eq!(
                (answer.status.as_u16(), answer.error()),
                (400, Some("bad_request")),
                "{shown}"
            );
            assert!(seen.is_empty(), "{shown} reached Amazon");
            assert!(wire.is_closed(), "{shown} kept its connection");
        }
        Taken::Empty | Taken::EmptyAndClosed | Taken::Five => {
            assert_eq!(answer.status, 200, "{shown}: {}", answer.text());
            assert_eq!(seen.len(), 1, "{shown}");
            let length = if taken == Taken::Five { 5 } else { 0 };
            assert_eq!((seen[0].body_len, seen[0].body_complete), (length, true), "{shown}");
            let framings =
                seen[0].values("transfer-encoding").len() + seen[0].values("content-length").len();
            assert!(framings <= 1, "{shown}: {:?}", seen[0].headers);
            let chunked = seen[0].values("transfer-encoding");
            assert!(chunked.is_empty() || chunked == ["chunked"], "{shown}: {chunked:?}");
            // What is left is a request of its own, which names no account.
            if taken == Taken::EmptyAndClosed {
                assert!(wire.is_closed(), "{shown} kept its connection");
            } else {
                assert_eq!(wire.answer().error(), Some("account_required"), "{shown}");
            }
        }
    }
    Wire::open(proxy.addr).ask_honestly("after");
}

#[tokio::test(flavor = "multi_thread")]
async fn dressed_transfer_encodings_are_refused_or_become_one_clean_request() {
    use Taken::{Empty, EmptyAndClosed, Refused};
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let rows = [
        ("Transfer-Encoding: chunked\r\n", Empty),
        ("transfer-encoding:chunked\r\n", Empty),
        ("Transfer-Encoding: Chunked\r\n", Empty),
        ("TRANSFER-ENCODING: CHUNKED\r\n", Empty),
        ("Transfer-Encoding:  chunked \t\r\n", Empty),
        ("Transfer-Encoding:\tchunked\r\n", Empty),
        ("Transfer-Encoding: identity\r\n", Refused),
        ("Transfer-Encoding: gzip\r\n", Refused),
        ("Transfer-Encoding: gzip, chunked\r\n", Refused),
        ("Transfer-Encoding: chunked, gzip\r\n", Refused),
        ("Transfer-Encoding: chunked, chunked\r\n", Refused),
        ("Transfer-Encoding: identity, chunked\r\n", Refused),
        ("Transfer-Encoding: chunked, identity\r\n", Refused),
        ("Transfer-Encoding: ,chunked\r\n", Refused),
        ("Transfer-Encoding: chunked,\r\n", Refused),
        ("Transfer-Encoding: chunked;q=1\r\n", Refused),
        ("Transfer-Encoding: \"chunked\"\r\n", Refused),
        ("Transfer-Encoding: 'chunked'\r\n", Refused),
        ("Transfer-Encoding: xchunked\r\n", Refused),
        ("Transfer-Encoding: chunkedx\r\n", Refused),
        ("Transfer-Encoding: chunk\r\n", Refused),
        ("Transfer-Encoding:\r\n", Refused),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Refused),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", Refused),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", Refused),
        ("Transfer-Encoding : chunked\r\n", Refused),
        (" Transfer-Encoding: chunked\r\n", Refused),
        ("Transfer-Encoding: chunked\r\n \r\n", Refused),
        ("Transfer-Encoding:\r\n chunked\r\n", Refused),
        ("Transfer-Encoding\r\n: chunked\r\n", Refused),
        ("X: y\rTransfer-Encoding: chunked\r\n", Refused),
        ("Transfer-Encoding: \x0bchunked\r\n", Refused),
        ("Transfer-Encoding: chunked\0\r\n", Refused),
        ("Transfer-Encoding: \u{a0}chunked\r\n", Refused),
        // With a length beside it: never both, whatever their order.
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", EmptyAndClosed),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", EmptyAndClosed),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", EmptyAndClosed),
        ("Content-Length: 5\r\nTransfer-Encoding: identity\r\n", Refused),
        ("Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n", Refused),
        ("Transfer-Encoding: chunked\r\nContent-Length: x\r\n", EmptyAndClosed),
        // A look-alike is not the field; it is dropped, and the length counts.
        ("Content-Length: 5\r\nTransfer_Encoding: chunked\r\n", Taken::Five),
        ("Content-Length: 5\r\nX-Transfer-Encoding: chunked\r\n", Taken::Five),
    ];
    for (lines, taken) in rows {
        smuggle(&proxy, &amazon, lines, taken);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dressed_content_lengths_are_refused_or_become_one_clean_request() {
    use Taken::{Five, Refused};
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let rows = [
        ("Content-Length: 5\r\n", Five),
        ("content-length:5\r\n", Five),
        ("Content-Length:  5 \t\r\n", Five),
        ("Content-Length: 05\r\n", Five),
        ("Content-Length: 5\r\nContent_Length: 999\r\n", Five),
        ("Content-Length: +5\r\n", Refused),
        ("Content-Length: -5\r\n", Refused),
        ("Content-Length: 5.0\r\n", Refused),
        ("Content-Length: 5e0\r\n", Refused),
        ("Content-Length: 0x5\r\n", Refused),
        ("Content-Length: 5,\r\n", Refused),
        ("Content-Length: ,5\r\n", Refused),
        ("Content-Length: 5 5\r\n", Refused),
        ("Content-Length: 5, 6\r\n", Refused),
        ("Content-Length: \"5\"\r\n", Refused),
        ("Content-Length: five\r\n", Refused),
        ("Content-Length:\r\n", Refused),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", Refused),
        ("Content-Length: 0\r\nContent-Length: 5\r\n", Refused),
        ("Content-Length: 18446744073709551616\r\n", Refused),
        ("Content-Length: 99999999999999999999999999\r\n", Refused),
        ("Content-Length : 5\r\n", Refused),
        (" Content-Length: 5\r\n", Refused),
        ("Content-Length:\r\n 5\r\n", Refused),
        ("Content-Length: 5\r\n 6\r\n", Refused),
        ("Content-Length: 5\0\r\n", Refused),
        ("Content-Length: \u{665}\r\n", Refused),
    ];
    for (lines, taken) in rows {
        smuggle(&proxy, &amazon, lines, taken);
    }
    // The same length twice is one length to the parser; to Amazon it is one, too.
    amazon.state().record.clear();
    let lines =
        "Host: localhost\r\nX-Ads-Account: acme\r\nContent-Length: 5\r\nContent-Length: 5\r\n";
    let mut wire = Wire::open(proxy.addr);
    let answer = wire.send(raw("POST /_sink HTTP/1.1", lines)).send("12345").answer();
    assert_eq!(answer.status, 200);
    assert_eq!(seen(&amazon)[0].values("content-length"), ["5"]);
    wire.ask_honestly("after");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_with_chunks_is_refused_and_upgrades_go_nowhere() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let chunks = "Host: localhost\r\nX-Ads-Account: acme\r\nTransfer-Encoding: chunked\r\n";
    let mut request = raw("POST /_sink HTTP/1.0", chunks);
    request.extend_from_slice(b"0\r\n\r\n");
    refused(&proxy, &amazon, &request, 400, "bad_request");
    let upgrade = "Host: localhost\r\nX-Ads-Account: acme\r\n\
        Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    amazon.state().record.clear();
    let mut wire = Wire::open(proxy.addr);
    let answer = wire.send(raw("GET /_sink HTTP/1.1", upgrade)).answer();
    assert_eq!(answer.status, 200);
    let seen = seen(&amazon);
    for name in ["upgrade", "connection", "http2-settings"] {
        assert!(seen[0].values(name).is_empty(), "{name} reached Amazon");
    }
    wire.ask_honestly("after");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_chunks_end_the_request_and_its_connection() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let head = "POST /_sink HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\
        Transfer-Encoding: chunked\r\n\r\n";
    let bodies = [
        "x\r\nabc\r\n0\r\n\r\n",
        "-1\r\na\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcdef\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3 x\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "3;\n\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nX: a\0b\r\n\r\n",
    ];
    for body in bodies {
        amazon.state().record.clear();
        let mut wire = Wire::open(proxy.addr);
        wire.send(format!("{head}{body}{}", honest("behind")));
        let shown = body.escape_debug().to_string();
        let answer = wire.answer();
        assert_eq!(
            (answer.status.as_u16(), answer.error()),
            (400, Some("bad_request")),
            "{shown}: {}",
            answer.text()
        );
        assert!(wire.rest().is_empty(), "{shown} kept its connection");
        assert!(!seen(&amazon).iter().any(|seen| seen.body_complete), "{shown}");
        Wire::open(proxy.addr).ask_honestly("after");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_shorter_than_announced_are_never_taken_for_whole() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let good = "Host: localhost\r\nX-Ads-Account: acme\r\n";
    let rows = [
        format!("POST /_sink HTTP/1.1\r\n{good}Content-Length: 10\r\n\r\n12345"),
        format!("POST /_sink HTTP/1.1\r\n{good}Content-Length: 10\r\n\r\n"),
        format!(
            "POST /_sink HTTP/1.1\r\n{good}Content-Length: 900000\r\n\r\n{}",
            "x".repeat(800_000)
        ),
        format!("POST /_sink HTTP/1.1\r\n{good}Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n"),
        format!("POST /_sink HTTP/1.1\r\n{good}Transfer-Encoding: chunked\r\n\r\n5\r\n123"),
        format!("POST /_sink HTTP/1.1\r\n{good}Transfer-Encoding: chunked\r\n\r\n0\r\n"),
    ];
    for request in rows {
        amazon.state().record.clear();
        let shown: String = request.chars().take(120).collect();
        let mut wire = Wire::open(proxy.addr);
        let answer = wire.send(&request).finish().try_answer();
        if let Some(answer) = answer {
            assert_eq!(answer.error(), Some("bad_request"), "{shown:?}");
        }
        assert!(wire.is_closed(), "{shown:?}");
        let seen = seen(&amazon);
        assert!(seen.iter().all(|seen| !seen.body_complete), "{shown:?} was taken for whole");
        Wire::open(proxy.addr).ask_honestly("after");
    }
    crate::support::proxy::eventually("no request is left in flight", || {
        proxy.metric("adsproxy_in_flight_requests") == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_request_behind_an_early_refusal_is_never_read_out_of_the_body() {
    let amazon = amazon().await;
    let toml = "[limits]\nbody_max_bytes = 100000\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let inner = honest("inner");
    for (target, account, length, status) in [
        ("/_sink", "nobody", inner.len(), 404),
        ("/_sink", "nobody", 90_000, 404),
        ("/_sink", "acme", 1 << 20, 413),
    ] {
        amazon.state().record.clear();
        let mut wire = Wire::open(proxy.addr);
        wire.send(format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: {account}\r\n\
             Content-Length: {length}\r\n\r\n"
        ));
        assert_eq!(wire.answer().status.as_u16(), status);
        // The body comes late, and holds a request.
        let mut body = inner.repeat(length / inner.len() + 1);
        body.truncate(length);
        wire.send(body).send(honest("second"));
        match wire.read_answer() {
            Ok(Some(answer)) => assert_own(&answer, "second"),
            Ok(None) | Err(_) => {}
        }
        let read = seen(&amazon).iter().any(|seen| seen.target.contains("inner"));
        assert!(!read, "a body was read as a request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_refusal_reaches_a_caller_that_is_still_sending() {
    let amazon = amazon().await;
    let toml = "[limits]\nbody_max_bytes = 100000\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let good = "Host: localhost\r\nX-Ads-Account: acme\r\n";
    let body = vec![b'x'; 16 << 20];
    let mut chunked = format!("{:x}\r\n", body.len()).into_bytes();
    chunked.extend_from_slice(&body);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let rows = [
        (format!("POST /_sink HTTP/1.1\r\n{good}Content-Length: {}\r\n", body.len()), &body, 413),
        (format!("POST /_sink HTTP/1.1\r\n{good}Transfer-Encoding: chunked\r\n"), &chunked, 413),
        (
            format!(
                "POST /_sink HTTP/1.1\r\nHost: evil.test\r\nContent-Length: {}\r\n",
                body.len()
            ),
            &body,
            403,
        ),
        ("POST /_sink HTTP/1.1\r\nbad head\r\n".to_owned(), &body, 400),
    ];
    for (head, body, status) in rows {
        for _ in 0..5 {
            // Sends everything before it reads, as simple callers do.
            let mut wire = Wire::open(proxy.addr);
            wire.send(format!("{head}\r\n")).send(body.as_slice());
            let answer = wire.read_answer().ok().flatten();
            let told = answer.map(|answer| answer.status.as_u16());
            assert_eq!(told, Some(status), "{head}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_get_their_own_answers_in_order() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let mut wire = Wire::open(proxy.addr);
    let requests: String = (0..50).map(|n| honest(&n.to_string())).collect();
    wire.send(requests);
    for n in 0..50 {
        assert_own(&wire.answer(), &n.to_string());
    }
    // Good, refused, good: a refusal has its place in the order, too.
    let refused = "GET /_sink HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    wire.send(format!("{}{refused}{}", honest("a"), honest("b")));
    assert_own(&wire.answer(), "a");
    assert_eq!(wire.answer().error(), Some("caller_rejected"));
    assert_own(&wire.answer(), "b");
}

/// A small generator of repeatable randomness (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("small")
    }
}

fn mutate(random: &mut Random) -> Vec<u8> {
    const SEEDS: [&str; 7] = [
        "GET /_sink?fuzz=1 HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\r\n",
        "POST /a/acme/_sink HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n12345",
        "POST /_sink HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\
         Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\nX: y\r\n\r\n",
        "POST /a/acme/auth/o2/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 61\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n\
         grant_type=refresh_token&refresh_token=Atzr%7Cacme&client_id=",
        "PUT /_sink HTTP/1.1\r\nHost: [::1]:80\r\nX-Ads-Account: globex\r\nX-Ads-Region: eu\r\n\
         Connection: close, x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x05\x01\x05\0\0\0\x01AAAAA",
        "HEAD /a/acme@eu/_bytes/10 HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer Atza|acme\r\n\r\n",
    ];
    const PIECES: [&[u8]; 22] = [
        b"\r\n",
        b"\r",
        b"\n",
        b"\0",
        b" ",
        b":",
        b",",
        b"\r\n ",
        b"\xff",
        b"%",
        b"/",
        b"//",
        b"..",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: localhost\r\n",
        b"X-Ads-Account: acme\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"@",
    ];
    let mut input = SEEDS[random.below(SEEDS.len())].as_bytes().to_vec();
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        match random.below(6) {
            0 if at < input.len() => input[at] = random.next().to_le_bytes()[0],
            1 if at < input.len() => input[at] ^= 1 << random.below(8),
            2 => {
                let piece = PIECES[random.below(PIECES.len())];
                input.splice(at..at, piece.iter().copied());
            }
            3 => {
                let end = (at + random.below(20)).min(input.len());
                input.drain(at..end);
            }
            4 => {
                let end = (at + random.below(60)).min(input.len());
                let copy = input[at..end].to_vec();
                input.splice(at..at, copy);
            }
            _ => input.truncate(at.max(1)),
        }
        if input.is_empty() {
            input.push(b'G');
        }
    }
    input
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_mutated_requests_neither_end_nor_confuse_it() {
    const THREADS: u64 = 4;
    const EACH: usize = 5_000;
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    Wire::open(proxy.addr).ask_honestly("before");
    let (addr, before) = (proxy.addr, proxy.memory());
    let threads: Vec<_> = (0..THREADS)
        .map(|seed| {
            std::thread::spawn(move || {
                let mut random = Random(seed);
                let mut answered = 0;
                for round in 0..EACH {
                    let input = mutate(&mut random);
                    let mut wire = Wire::open(addr);
                    wire.send(&input).finish();
                    answered += usize::from(wire.rest().starts_with(b"HTTP/1.1 "));
                    if round % 500 == 0 {
                        Wire::open(addr).ask_honestly(&format!("{seed}-{round}"));
                    }
                }
                answered
            })
        })
        .collect();
    let answered: usize = threads.into_iter().map(|run| run.join().expect("no thread fails")).sum();
    println!("{answered} of {} inputs were answered", THREADS * EACH as u64);
    assert!(answered > 5_000, "most inputs are near enough to HTTP for an answer: {answered}");
    Wire::open(proxy.addr).ask_honestly("after");
    crate::support::proxy::eventually("nothing is left of them", || {
        // The connection that asks is one on another listener.
        proxy.metric("adsproxy_in_flight_requests") == 0.0
            && proxy.metric("adsproxy_connections") == 0.0
    })
    .await;
    let grown = proxy.memory().saturating_sub(before);
    assert!(grown < 96 << 20, "memory grew by {grown} bytes");
    let slowest = Duration::from_secs(1);
    let started = std::time::Instant::now();
    Wire::open(proxy.addr).ask_honestly("quick");
    assert!(started.elapsed() < slowest);
}
