//! Selection: which account, region and path a request gets, and that none is ever guessed.

use crate::support::{
    proxy::{Proxy, Setup, amazon},
    socket::Wire,
};
use adsproxy::sandbox::{Emulator, EmulatorOptions, SeenRequest, Surface};
use http::Method;
use std::sync::Arc;

/// What Amazon saw of API calls.
fn seen(amazon: &Emulator) -> Vec<SeenRequest> {
    amazon.state().record.requests_for(Surface::Api)
}

fn get(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_selector_names_the_account_and_none_of_them_reaches_amazon() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let rows = [
        ("/_sink", "X-Ads-Account: acme\r\n", "acme"),
        ("/_sink", "x-ads-account:globex\r\n", "globex"),
        ("/_sink", "X-ADS-ACCOUNT:  acme \t\r\n", "acme"),
        ("/a/acme/_sink", "", "acme"),
        ("/a/globex@na/_sink", "", "globex"),
        ("/_sink", "Authorization: Bearer Atza|globex\r\n", "globex"),
        ("/_sink", "Authorization: bearer Atza%7Cacme\r\n", "acme"),
        ("/_sink", "Authorization: BEARER Atza%7cacme\r\n", "acme"),
        ("/a/acme/_sink", "X-Ads-Account: acme\r\nAuthorization: Bearer Atza|acme\r\n", "acme"),
        // A token of the SDK's own is no selector.
        ("/_sink", "X-Ads-Account: acme\r\nAuthorization: Bearer Atza|nobody\r\n", "acme"),
        ("/_sink", "X-Ads-Account: acme\r\nAuthorization: Basic Z2xvYmV4\r\n", "acme"),
        // Named in Connection, the line still selects.
        ("/_sink", "Connection: X-Ads-Account\r\nX-Ads-Account: globex\r\n", "globex"),
    ];
    let mut wire = Wire::open(proxy.addr);
    for (target, lines, account) in rows {
        amazon.state().record.clear();
        let answer = wire.send(get(target, lines)).answer();
        assert_eq!(answer.status, 200, "{target} {lines}: {}", answer.text());
        let seen = seen(&amazon);
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].account.as_deref(), Some(account), "{target} {lines}");
        assert_eq!(seen[0].target, "/_sink");
        assert!(seen[0].values("x-ads-account").is_empty());
        assert_eq!(seen[0].values("authorization").len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_that_are_missing_malformed_doubled_or_at_odds_get_the_tables_answer() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let long = format!("X-Ads-Account: {}\r\n", "a".repeat(65));
    let two = "X-Ads-Account: acme\r\nX-Ads-Account: globex\r\n";
    let rows: &[(&str, &str, u16, &str)] = &[
        ("/_sink", "", 400, "account_required"),
        ("/_sink?X-Ads-Account=acme", "", 400, "account_required"),
        ("/_sink", "Authorization: Bearer Atza|nobody\r\n", 400, "account_required"),
        ("/_sink", "Authorization: Bearer acme\r\n", 400, "account_required"),
        ("/_sink", "Authorization: Atza|acme\r\n", 400, "account_required"),
        ("/_sink", "X_Ads_Account: acme\r\n", 400, "account_required"),
        ("/_sink", "Connection: X-Ads-Account\r\n", 400, "account_required"),
        ("/_sink", "Cookie: X-Ads-Account=acme\r\n", 400, "account_required"),
        ("/_sink", two, 400, "bad_request"),
        ("/_sink", "X-Ads-Account: acme\r\nx-ads-account: acme\r\n", 400, "bad_request"),
        ("/_sink", "X-Ads-Account: acme, globex\r\n", 400, "bad_request"),
        ("/_sink", "X-Ads-Account: acme,acme\r\n", 400, "bad_request"),
        ("/_sink", "X-Ads-Account:\r\n", 400, "bad_request"),
        ("/_sink", "X-Ads-Account: \"acme\"\r\n", 400, "bad_request"),
        ("/_sink", "X-Ads-Account: ac me\r\n", 400, "bad_request"),
        ("/_sink", "X-Ads-Account: -acme\r\n", 400, "bad_request"),
        ("/_sink", "X-Ads-Account: ../acme\r\n", 400, "bad_request"),
        ("/_sink", "X-Ads-Account: acme@na\r\n", 400, "bad_request"),
        ("/_sink", "X-Ads-Account: acm\u{e9}\r\n", 400, "bad_request"),
        ("/_sink", &long, 400, "bad_request"),
        ("/a/acme@/_sink", "", 400, "bad_request"),
        ("/a/acme@xx/_sink", "", 400, "bad_request"),
        ("/a/acme@na@eu/_sink", "", 400, "bad_request"),
        ("/a//_sink", "", 400, "bad_request"),
        ("/a/%61cme/_sink", "", 400, "bad_request"),
        ("/a/../acme/_sink", "", 400, "bad_request"),
        ("/_sink", "X-Ads-Account: acme\r\nX-Ads-Region: us\r\n", 400, "bad_request"),
        ("/_sink", "X-Ads-Account: acme\r\nX-Ads-Region:\r\n", 400, "bad_request"),
        (
            "/_sink",
            "X-Ads-Account: acme\r\nX-Ads-Region: na\r\nX-Ads-Region: na\r\n",
            400,
            "bad_request",
        ),
        ("/a/globex/_sink", "X-Ads-Account: acme\r\n", 400, "account_conflict"),
        (
            "/_sink",
            "X-Ads-Account: acme\r\nAuthorization: Bearer Atza|globex\r\n",
            400,
            "account_conflict",
        ),
        ("/a/acme/_sink", "Authorization: Bearer Atza|globex\r\n", 400, "account_conflict"),
        ("/a/nobody/_sink", "X-Ads-Account: acme\r\n", 400, "account_conflict"),
        ("/_sink", "X-Ads-Account: nobody\r\n", 404, "unknown_account"),
        ("/_sink", "X-Ads-Account: ACME\r\n", 404, "unknown_account"),
        ("/a/nobody/_sink", "", 404, "unknown_account"),
    ];
    let mut wire = Wire::open(proxy.addr);
    for (number, (target, lines, status, code)) in rows.iter().enumerate() {
        let answer = wire.send(get(target, lines)).answer();
        let told = (answer.status.as_u16(), answer.error());
        assert_eq!(told, (*status, Some(*code)), "{target} {lines}");
        assert!(seen(&amazon).is_empty(), "{target} {lines} reached Amazon");
        // Neither this connection nor a new one is any worse for it.
        wire.ask_honestly(&format!("same{number}"));
        Wire::open(proxy.addr).ask_honestly(&format!("new{number}"));
        assert_eq!(seen(&amazon).len(), 2);
        amazon.state().record.clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_account_serves_only_requests_that_name_none() {
    let amazon = amazon().await;
    let toml = "[proxy]\ndefault_account = \"globex\"\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let rows = [
        ("", "globex"),
        ("Authorization: Bearer Atza|nobody\r\n", "globex"),
        ("X-Ads-Account: acme\r\n", "acme"),
        ("Connection: X-Ads-Account\r\nX-Ads-Account: acme\r\n", "acme"),
    ];
    for (lines, account) in rows {
        amazon.state().record.clear();
        assert_eq!(Wire::open(proxy.addr).send(get("/_sink", lines)).answer().status, 200);
        assert_eq!(seen(&amazon)[0].account.as_deref(), Some(account), "{lines}");
    }
    amazon.state().record.clear();
    for lines in ["X-Ads-Account: nobody\r\n", "X-Ads-Account:\r\n", "X-Ads-Account: a, b\r\n"] {
        let answer = Wire::open(proxy.addr).send(get("/_sink", lines)).answer();
        assert!(answer.status.is_client_error() && answer.error().is_some(), "{lines}");
    }
    assert!(seen(&amazon).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_region_picks_the_host_and_mcp_has_hosts_of_its_own() {
    let main = amazon().await;
    let mut hosts = Vec::new();
    for _ in 0..5 {
        let twin = Emulator::start_with(EmulatorOptions::default(), Arc::clone(main.state())).await;
        hosts.push(twin.expect("the emulator starts"));
    }
    hosts.insert(0, main);
    let mut toml = "[upstream]\n".to_owned();
    for (name, host) in ["na", "eu", "fe", "mcp_na", "mcp_eu", "mcp_fe"].iter().zip(&hosts) {
        toml.push_str(&format!("{name} = \"http://{}\"\n", host.addr()));
    }
    let proxy = Proxy::with(&hosts[0], Setup { toml, ..Setup::default() });
    let rows = [
        ("/_sink", "X-Ads-Account: acme\r\n", 0),
        ("/_sink", "X-Ads-Account: globex\r\n", 1),
        ("/_sink", "X-Ads-Account: acme\r\nX-Ads-Region: fe\r\n", 2),
        ("/a/acme@eu/_sink", "", 1),
        // A header says more than a path.
        ("/a/acme@eu/_sink", "X-Ads-Region: fe\r\n", 2),
        ("/mcp", "X-Ads-Account: acme\r\n", 3),
        ("/mcp/lite", "X-Ads-Account: globex\r\n", 4),
        ("/a/acme@fe/mcp?x=1", "", 5),
        ("/mcpx", "X-Ads-Account: acme\r\n", 0),
        ("/adsApi/mcp", "X-Ads-Account: acme\r\n", 0),
    ];
    for (target, lines, host) in rows {
        hosts[0].state().record.clear();
        Wire::open(proxy.addr).send(get(target, lines)).answer();
        let seen = seen(&hosts[0]);
        assert_eq!(seen.len(), 1, "{target}");
        let addr = hosts[host].addr().to_string();
        assert_eq!(seen[0].values("host"), [addr.as_str()], "{target} {lines}");
        assert!(seen[0].values("x-ads-region").is_empty());
    }
    // One access token serves all regions of an account.
    assert_eq!(hosts[0].state().lwa.grants().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_queries_reach_amazon_byte_for_byte() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let targets = [
        "/",
        "/?",
        "//",
        "//evil.test/x",
        "///v2//profiles",
        "/./v2/../x",
        "/../../etc/passwd",
        "/%2e%2e/%2E%2E/x",
        "/..;/x",
        "/..%2f..%2fx",
        "/a%2Facme%2f_echo",
        "/A/acme/_sink",
        "/x;jsessionid=1/y;z",
        "/x%00y",
        "/x%0d%0aHost:%20evil.test",
        "/x%",
        "/x%zz",
        "/x\\y",
        "/x|y{z}^`\"<>",
        "/x?a=b&&c==d?e/f:@!$'()*+,;",
        "/x?a=%26&b=+%20",
        "/x?q=[1]{2}|\\^`",
        "/x?http://evil.test/",
        "/x:80@evil.test/",
        "/@evil.test",
        "/x?#",
        "/v2/profiles?X-Ads-Account=globex",
        "/a/acme",
        "/A/globex",
    ];
    for target in targets {
        for (sent, expected) in [
            (target.to_owned(), target.to_owned()),
            (format!("/a/acme{target}"), target.to_owned()),
        ] {
            if sent == "/a/acme" {
                continue;
            }
            amazon.state().record.clear();
            let lines = "X-Ads-Account: acme\r\n";
            let answer = Wire::open(proxy.addr).send(get(&sent, lines)).answer();
            let seen = seen(&amazon);
            if let Some(code) = answer.error() {
                // Refused is as good as identical; changed would not be.
                assert_eq!(code, "bad_request", "{sent}");
                assert!(seen.is_empty(), "{sent}");
                println!("refused: {sent}");
                continue;
            }
            assert_eq!(seen.len(), 1, "{sent}");
            let expected = expected.split('#').next().unwrap_or_default();
            assert_eq!(seen[0].target, expected, "{sent}");
            assert_eq!(seen[0].account.as_deref(), Some("acme"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_beyond_ascii_in_a_target_are_passed_on_or_refused_but_never_changed() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    for byte in 0x80..=0xff {
        for place in ["/x", "/x?q="] {
            amazon.state().record.clear();
            let mut request = format!("GET {place}").into_bytes();
            request.push(byte);
            let lines = " HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\r\n";
            request.extend_from_slice(lines.as_bytes());
            let answer = Wire::open(proxy.addr).send(&request).answer();
            let refused = answer.error() == Some("bad_request") && seen(&amazon).is_empty();
            let passed = seen(&amazon).iter().any(|seen| seen.target.starts_with(place));
            assert!(refused || passed, "{byte:#x}");
        }
    }
    Wire::open(proxy.addr).ask_honestly("after");
}

/// MCP clients look for a login at these paths, browsers for an icon. Amazon has none of them.
#[tokio::test(flavor = "multi_thread")]
async fn paths_that_mcp_clients_and_browsers_probe_are_answered_here_without_a_token() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let reserved = [
        "/favicon.ico",
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/a/acme/mcp",
        "/.well-known/oauth-authorization-server?x",
        "/.well-known/",
        "/.well-known",
        "/register",
        "/authorize?client_id=x",
        "/token",
        "/mcp/.well-known/openid-configuration",
    ];
    for path in reserved {
        for prefix in ["", "/a/acme", "/a/acme@eu", "/a/unknown"] {
            for method in [Method::GET, Method::POST] {
                let request = proxy.request(method, &format!("{prefix}{path}"));
                let answer = proxy.send(request.header("X-Ads-Account", "acme")).await;
                let told = (answer.status.as_u16(), answer.error());
                assert_eq!(told, (404, Some("not_found")), "{prefix}{path}");
            }
        }
    }
    assert!(seen(&amazon).is_empty());
    for path in
        ["/registers", "/token/x", "/x/authorize", "/.well-knownx", "/mcp", "/a/acme/v2/token"]
    {
        let answer = proxy.get(path).await;
        assert_ne!(answer.error(), Some("not_found"), "{path}");
    }
}
