//! Bad input: the table's answer, nothing half-formed at Amazon, and the next request unharmed.

use crate::support::{
    proxy::{Proxy, Setup, amazon},
    socket::{Wire, honest, raw},
};
use adsproxy::sandbox::{Emulator, SeenRequest, Surface};
use std::time::Duration;

fn seen(amazon: &Emulator) -> Vec<SeenRequest> {
    amazon.state().record.requests_for(Surface::Api)
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
        ("trace / HTTP/1.1", 405),
        ("get / HTTP/1.1", 405),
        ("TRACK / HTTP/1.1", 405),
        ("DEBUG / HTTP/1.1", 405),
        ("PROPFIND / HTTP/1.1", 405),
    ];
    for (line, status) in rows {
        refused(&proxy, &amazon, &raw(line, lines), status, "bad_request");
    }
    let answer = Wire::open(proxy.addr).send(raw("TRACE / HTTP/1.1", lines)).answer();
    assert!(answer.headers["allow"].to_str().expect("ASCII").contains("GET"));
    assert!(!answer.text().contains("X-Ads-Account: acme"));
    let whole = raw("GET http://localhost/v2/profiles HTTP/1.1", lines);
    let answer = Wire::open(proxy.addr).send(whole).answer();
    assert!(answer.text().contains("as a base URL, not as a proxy"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_of_the_contract_is_forwarded() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        amazon.state().record.clear();
        let request = proxy.request(method.parse().expect("a method"), "/_sink");
        let answer = proxy.send(request.header("X-Ads-Account", "acme")).await;
        assert_eq!(answer.error(), None, "{method}");
        assert_eq!(seen(&amazon).len(), 1, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_sixteen_names_over_all_connection_lines_are_refused() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let names = |count: usize| vec!["x-name"; count].join(", ");
    let lines =
        |connection: String| format!("Host: localhost\r\nX-Ads-Account: acme\r\n{connection}");
    let request = |connection| raw("GET /_sink HTTP/1.1", &lines(connection));
    for connection in [
        format!("Connection: {}\r\n", names(17)),
        format!("Connection: {}\r\nConnection: keep-alive\r\n", names(16)),
        format!("Connection: {}\r\n", ",".repeat(100)),
    ] {
        refused(&proxy, &amazon, &request(connection), 400, "bad_request");
    }
    let answer = Wire::open(proxy.addr)
        .send(request(format!("Connection: {}\r\nConnection: {}\r\n", names(8), names(8))))
        .answer();
    assert_eq!(answer.status, 200);
}

/// Before a worker has accepted any Host there is none that could be taken for it.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_host_is_refused_also_as_the_first_a_worker_sees() {
    let amazon = amazon().await;
    let toml = "[proxy]\nworkers = 1\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let request = b"GET /_sink HTTP/1.1\r\nHost:\r\nX-Ads-Account: acme\r\n\r\n";
    refused(&proxy, &amazon, request, 400, "bad_request");
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

/// Over plain HTTP a browser says of loopback names only for which page it asks, and an old one of none.
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_names_no_page_is_refused_and_a_program_is_not() {
    const CHROMIUM: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 \
        (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36\r\n";
    let amazon = amazon().await;
    let toml = "[guard]\nallowed_hosts = [\"ads.internal\"]\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let mut wire = Wire::open(proxy.addr);
    for host in ["ads.internal:8787", "localhost", "127.0.0.1:8787", "[::1]:1"] {
        let mut ask = |lines: &str| {
            let lines = format!("Host: {host}\r\n{lines}");
            wire.send(raw("GET /a/acme/_sink HTTP/1.1", &lines)).answer()
        };
        // The Host is known to be accepted by now, and read no second time.
        assert_eq!(ask("User-Agent: curl/8\r\n").status, 200, "{host}");
        for lines in [
            CHROMIUM,
            "User-Agent: AppleCoreMedia/1.0.0.21G93 (iPhone; U; CPU OS 17_6 like Mac OS X)\r\n",
            &format!("{CHROMIUM}Authorization: Basic bWU6bWU=\r\n"),
            &format!("{CHROMIUM}Referer: http://{host}/\r\nUpgrade-Insecure-Requests: 1\r\n"),
        ] {
            let answer = ask(lines);
            assert_eq!(answer.error(), Some("caller_rejected"), "{host}: {lines}");
            assert!(answer.text().contains("X-Ads-Account"), "{}", answer.text());
        }
        // What a page of another site cannot send, and what its browser says of our own.
        for lines in [
            "X-Ads-Account: acme\r\n",
            "Authorization: Bearer Atza|acme\r\n",
            "Sec-Fetch-Site: none\r\n",
        ] {
            assert_eq!(ask(&format!("{CHROMIUM}{lines}")).status, 200, "{host}: {lines}");
        }
        let shell = "User-Agent: Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) \
            WindowsPowerShell/5.1.19041.1\r\n";
        assert_eq!(ask(shell).status, 200, "{host}: no browser");
        assert_eq!(ask("").status, 200, "{host}");
    }
}

/// The caller may only have to be configured.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_host_or_origin_is_named_with_the_key_that_allows_it() {
    let amazon = amazon().await;
    let toml = "[guard]\nallowed_origins = [\"https://app.example.com\"]\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let ask = |lines: &str| {
        let lines = format!("X-Ads-Account: acme\r\n{lines}");
        Wire::open(proxy.addr).send(raw("GET /_sink HTTP/1.1", &lines)).answer()
    };
    let rows = [
        ("Host: ads.internal:8787\r\n", "ads.internal:8787", "guard.allowed_hosts"),
        (
            "Host: localhost\r\nOrigin: http://localhost:3000\r\n",
            "http://localhost:3000",
            "guard.allowed_origins",
        ),
        (
            "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
            "Sec-Fetch-Site",
            "guard.allowed_origins",
        ),
    ];
    for (lines, refused, key) in rows {
        let answer = ask(lines);
        assert_eq!(answer.error(), Some("caller_rejected"), "{lines}");
        let text = answer.json()["detail"].as_str().expect("a text").to_owned();
        assert!(text.contains(refused) && text.contains(key), "{text}");
    }
    let own =
        "Host: localhost\r\nOrigin: https://app.example.com\r\nSec-Fetch-Site: cross-site\r\n";
    assert_eq!(ask(own).status, 200);
    // What is no text of a header is not repeated.
    let odd = ask("Host: localhost\r\nOrigin: caf\u{e9}\u{1}\r\n");
    assert!(!odd.text().contains("caf"), "{}", odd.text());
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
        raw("DELETE /_sink HTTP/1.1", good),
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
    // Also when the answer is still stuck behind a caller that does not read.
    let mut wire = Wire::open(proxy.addr);
    let size = 20_000_000;
    wire.send(format!(
        "GET /_bytes/{size} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\r\n\
         \x01\x02garbage\r\n\r\n"
    ));
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(20));
        wire.read_some(1_000_000);
    }
    let answer = wire.answer();
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, size));
    assert!(answer.body.iter().all(|byte| *byte == b'x'));
    assert_eq!(wire.answer().error(), Some("bad_request"));
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
        adsproxy::sandbox::ApiFault::Respond(adsproxy::sandbox::Scripted {
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
