//! Header hygiene: what goes to Amazon and what comes back, field by field.

use crate::support::{
    proxy::{Proxy, Setup, amazon},
    socket::{Act, Upstream, Wire},
};
use adsproxy::sandbox::{CLIENT_ID, Emulator, SeenRequest, Surface};
use std::sync::{Arc, Mutex};

fn seen(amazon: &Emulator) -> SeenRequest {
    let mut seen = amazon.state().record.requests_for(Surface::Api);
    assert_eq!(seen.len(), 1, "one request per question");
    amazon.state().record.clear();
    seen.remove(0)
}

fn get(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n{lines}\r\n")
}

/// A proxy in front of an upstream that answers bytes of the test's, and what it was sent.
fn scripted(
    amazon: &Emulator,
    toml: &str,
    script: impl Fn(&str) -> Act + Send + Sync + 'static,
) -> (Proxy, Upstream, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = heads.clone();
    let upstream = Upstream::start(move |head| {
        kept.lock().expect("no script panics").push(head.to_owned());
        script(head)
    });
    let setup = Setup { upstream: Some(upstream.url()), toml: toml.into(), ..Setup::default() };
    (Proxy::with(amazon, setup), upstream, heads)
}

fn ok() -> Act {
    Act::Say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec())
}

/// The lines of a head without the access token, which is checked and cut.
fn lines(head: &str) -> Vec<String> {
    let cut = |line: &str| match line.strip_prefix("authorization: Bearer Atza|") {
        Some(token) => {
            assert!(token.len() > 100, "not a token of the emulator's: {token}");
            "authorization: Bearer <token>".to_owned()
        }
        None => line.to_owned(),
    };
    head.trim_end().split("\r\n").map(cut).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_reaches_amazon_as_it_came_with_our_fields_behind_it() {
    let amazon = amazon().await;
    let (proxy, upstream, heads) = scripted(&amazon, "", |_| ok());
    let mut wire = Wire::open(proxy.addr);
    let target = "/v2/profiles?b=2&a=1";
    wire.send(get(
        target,
        "User-Agent: sdk/1.0\r\nAccept-Encoding: gzip;q=0.5, br\r\nX-B: 2\r\nX-A: 1\r\n\
         X-B: 3\r\nAccept-Language:\r\nAuthorization: Bearer mine\r\nForwarded: for=1.2.3.4\r\n\
         X-Forwarded-For: 1.2.3.4\r\nAmazon-Advertising-API-Scope: 1234\r\n",
    ));
    assert_eq!(wire.answer().body, b"ok");
    let head = heads.lock().expect("no panic").remove(0);
    let expected = [
        "GET /v2/profiles?b=2&a=1 HTTP/1.1",
        &format!("host: {}", upstream.addr),
        "user-agent: sdk/1.0",
        "accept-encoding: gzip;q=0.5, br",
        "x-b: 2",
        "x-b: 3",
        "x-a: 1",
        "accept-language: ",
        "amazon-advertising-api-scope: 1234",
        "authorization: Bearer <token>",
        &format!("amazon-advertising-api-clientid: {CLIENT_ID}"),
    ];
    assert_eq!(lines(&head), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_request_gains_nothing_but_the_contracts_fields() {
    let amazon = amazon().await;
    let (proxy, upstream, heads) = scripted(&amazon, "", |_| ok());
    let host = format!("host: {}", upstream.addr);
    let client_id = format!("amazon-advertising-api-clientid: {CLIENT_ID}");
    let ads_client_id = format!("amazon-ads-clientid: {CLIENT_ID}");
    let bearer = "authorization: Bearer <token>";
    let plain: &[&str] = &[&host, bearer, &client_id];
    let newer: &[&str] = &[&host, bearer, &client_id, &ads_client_id];
    let rows = [
        ("/v2/profiles", plain),
        ("/adsApi/v1/query/campaigns", newer),
        ("/adsApi", plain),
        ("/adsapi/v1", plain),
        ("/x/adsApi/v1", plain),
        ("/mcp", newer),
        ("/mcp?x", newer),
        ("/mcp/lite", newer),
        ("/mcpx", plain),
        ("/amc/reporting", plain),
    ];
    for (target, expected) in rows {
        Wire::open(proxy.addr).send(get(target, "")).answer();
        let head = heads.lock().expect("no panic").remove(0);
        assert_eq!(lines(&head)[1..], *expected, "{target}");
    }
    // A body keeps the framing it came with.
    let post = "POST /x HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n";
    Wire::open(proxy.addr).send(format!("{post}Content-Length: 2\r\n\r\nab")).answer();
    let head = heads.lock().expect("no panic").remove(0);
    assert_eq!(lines(&head)[1..], [&*host, "content-length: 2", bearer, &*client_id]);
    let chunks = "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    Wire::open(proxy.addr).send(format!("{post}{chunks}")).answer();
    let head = heads.lock().expect("no panic").remove(0);
    assert_eq!(lines(&head)[1..], [&*host, "transfer-encoding: chunked", bearer, &*client_id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_a_caller_says_speaks_for_us_or_stays_on_the_wire() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let stripped = [
        ("Authorization", "Bearer stolen"),
        ("Authorization", "Basic c3RvbGVu"),
        ("Proxy-Authorization", "Basic c3RvbGVu"),
        ("Proxy-Authenticate", "Basic"),
        ("Amazon-Advertising-API-ClientId", "stolen"),
        ("Amazon-Ads-ClientId", "stolen"),
        ("Cookie", "session=stolen"),
        ("X-Ads-Proxy-Error", "stolen"),
        ("X-Ads-Proxy-Request-Id", "stolen"),
        ("X-Ads-Anything", "stolen"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "trailers"),
        ("Trailer", "X-Sum"),
        ("Upgrade", "websocket"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ("Authorization_", "stolen"),
        ("_Authorization", "stolen"),
        ("Proxy_Authorization", "stolen"),
        ("Amazon_Advertising_API_ClientId", "stolen"),
        ("Amazon-Advertising_API-ClientId", "stolen"),
        ("Amazon_Ads_ClientId", "stolen"),
        ("X_Ads_Account", "globex"),
        ("X-Ads_Account", "globex"),
        ("Transfer_Encoding", "chunked"),
        ("Connection_", "x"),
        ("COOKIE", "session=stolen"),
        ("Content_Length", "5"),
        ("X_Other", "stolen"),
        ("X-Api-Key", "stolen"),
        ("X-Auth-Token", "stolen"),
        ("X-Amz-Access-Token", "stolen"),
        ("Forwarded", "for=stolen"),
        ("X-Forwarded-For", "stolen"),
        ("X-Forwarded-Client-Cert", "stolen"),
    ];
    for (name, value) in stripped {
        let line = format!("{name}: {value}\r\n");
        // Once, twice, and named in Connection as well.
        for lines in
            [line.clone(), format!("{line}{line}"), format!("Connection: {name}\r\n{line}")]
        {
            let answer = Wire::open(proxy.addr).send(get("/adsApi/v1/x", &lines)).answer();
            assert_ne!(answer.status, 401, "{lines}");
            let seen = seen(&amazon);
            assert_eq!(seen.account.as_deref(), Some("acme"), "{lines}");
            assert_eq!(seen.values("authorization").len(), 1);
            for ours in ["amazon-advertising-api-clientid", "amazon-ads-clientid"] {
                assert_eq!(seen.values(ours), [CLIENT_ID], "{lines}");
            }
            let lower = name.to_ascii_lowercase();
            let all = &seen.headers;
            let ours = ["authorization", "amazon-advertising-api-clientid", "amazon-ads-clientid"];
            let left = all.iter().any(|(have, _)| *have == lower && !ours.contains(&&*lower));
            assert!(
                !left && !all.iter().any(|(_, value)| value.contains("stolen")),
                "{lines}{all:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_lines_remove_what_they_name_and_nothing_of_ours() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let connection = "Connection: close, Authorization, Amazon-Advertising-API-ClientId, Host\r\n\
        Connection: x-one , , X-Two\r\nconnection:Amazon-Ads-ClientId,Content-Length\r\n";
    let fields = "X-One: 1\r\nX-Two: 2\r\nX-Three: 3\r\nAuthorization: Bearer mine\r\n";
    let answer =
        Wire::open(proxy.addr).send(get("/adsApi/v1/x", &format!("{connection}{fields}"))).answer();
    assert_ne!(answer.status, 401);
    let seen = seen(&amazon);
    assert_eq!(seen.account.as_deref(), Some("acme"));
    for name in ["x-one", "x-two", "connection"] {
        assert!(seen.values(name).is_empty(), "{name}");
    }
    for name in [
        "x-three",
        "host",
        "authorization",
        "amazon-advertising-api-clientid",
        "amazon-ads-clientid",
    ] {
        assert_eq!(seen.values(name).len(), 1, "{name}");
    }
    // A body whose length line is named there still arrives whole, framed once.
    let post = "POST /_sink HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\
        Connection: Content-Length, Transfer-Encoding\r\nContent-Length: 5\r\n\r\n12345";
    assert_eq!(Wire::open(proxy.addr).send(post).answer().status, 200);
    let seen = self::seen(&amazon);
    assert_eq!((seen.body_len, seen.body_complete), (5, true));
    let framings = seen.values("content-length").len() + seen.values("transfer-encoding").len();
    assert_eq!(framings, 1, "{:?}", seen.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn default_headers_of_an_account_fill_gaps_only() {
    let amazon = amazon().await;
    // TOML lets a table be reopened by its sub-table, which `Setup` does not write.
    let toml = "[accounts.initech]\nregion = \"na\"\nrefresh_token = { env = \"ACME_REFRESH\" }\n\
        headers = { \"Amazon-Advertising-API-Scope\" = \"42\", \"X-Team\" = \"blue\" }\n";
    let proxy = Proxy::with(&amazon, Setup { toml: toml.into(), ..Setup::default() });
    let ask = |lines: &str| {
        let request = format!(
            "GET /_sink HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: initech\r\n{lines}\r\n"
        );
        assert_eq!(Wire::open(proxy.addr).send(request).answer().status, 200);
        seen(&amazon)
    };
    let seen = ask("");
    assert_eq!(seen.values("amazon-advertising-api-scope"), ["42"]);
    assert_eq!(seen.values("x-team"), ["blue"]);
    let seen = ask("AMAZON-ADVERTISING-API-SCOPE: 7\r\n");
    assert_eq!(seen.values("amazon-advertising-api-scope"), ["7"]);
    assert_eq!(seen.values("x-team"), ["blue"]);
    // Sent empty is sent.
    let seen = ask("Amazon-Advertising-API-Scope:\r\n");
    assert_eq!(seen.values("amazon-advertising-api-scope"), [""]);
    let answer = Wire::open(proxy.addr).send(get("/_sink", "")).answer();
    assert_eq!(answer.status, 200);
    assert!(self::seen(&amazon).values("x-team").is_empty(), "another account's default");
}

#[tokio::test(flavor = "multi_thread")]
async fn request_trailers_are_dropped_and_select_nothing() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let request = "POST /_sink HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\
        Trailer: X-Ads-Account\r\nTransfer-Encoding: chunked\r\n\r\n\
        2\r\nab\r\n0\r\nX-Ads-Account: globex\r\nAuthorization: Bearer x\r\nX-Sum: 1\r\n\r\n";
    let mut wire = Wire::open(proxy.addr);
    assert_eq!(wire.send(request).answer().status, 200);
    let seen = seen(&amazon);
    assert_eq!(seen.account.as_deref(), Some("acme"));
    assert_eq!((seen.body_len, seen.has_trailers), (2, false));
    wire.ask_honestly("after");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_request_id_comes_back_if_it_is_fit_to_be_one() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let ask = |lines: &str| {
        let answer = Wire::open(proxy.addr).send(get("/_sink", lines)).answer();
        answer.headers["x-ads-proxy-request-id"].to_str().expect("ASCII").to_owned()
    };
    assert_eq!(ask("X-Request-Id: abc-1\r\n"), "abc-1");
    let (long, longer) = ("x".repeat(128), "x".repeat(129));
    assert_eq!(ask(&format!("X-Request-Id: {long}\r\n")), long);
    assert_ne!(ask(&format!("X-Request-Id: {longer}\r\n")), longer);
    assert_ne!(ask("X-Request-Id: a b\r\n"), "a b");
    assert_ne!(ask("X-Request-Id: caf\u{e9}\r\n").len(), 0);
    assert_ne!(ask(""), ask(""), "fresh ids differ");
}
