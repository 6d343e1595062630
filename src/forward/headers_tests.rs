//! Table tests of the header rules.

use super::*;

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name: HeaderName = name.parse().expect("a name");
        headers.append(name, value.parse().expect("a value"));
    }
    headers
}

fn out_with(inbound: &[(&str, &str)], ads: bool, is_chunked: bool) -> HeaderMap {
    let default =
        ("amazon-advertising-api-scope".parse().expect("a name"), "7".parse().expect("v"));
    outgoing(
        &map(inbound),
        &Injection {
            bearer: &HeaderValue::from_static("Bearer ours"),
            client_id: &HeaderValue::from_static("our-id"),
            defaults: &[default],
            names_ads_client: ads,
            pins: &[],
            reads_response: false,
            traceparent: None,
        },
        &HeaderValue::from_static("api.test"),
        is_chunked,
    )
}

fn out(inbound: &[(&str, &str)]) -> HeaderMap {
    out_with(inbound, false, false)
}

#[test]
fn sets_ours_whatever_the_caller_sent() {
    let headers = out_with(
        &[
            ("authorization", "Bearer theirs"),
            ("authorization", "Basic x"),
            ("amazon-advertising-api-clientid", "theirs"),
            ("amazon-ads-clientid", "theirs"),
            ("host", "evil.test"),
        ],
        true,
        false,
    );
    let all = |name: &str| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
    assert_eq!(all("authorization"), ["Bearer ours"]);
    assert_eq!(all("amazon-advertising-api-clientid"), ["our-id"]);
    assert_eq!(all("amazon-ads-clientid"), ["our-id"]);
    assert_eq!(all("host"), ["api.test"]);
}

#[test]
fn a_connection_line_cannot_remove_ours() {
    let headers = out(&[
        ("connection", "close, Authorization"),
        ("connection", "Amazon-Advertising-API-ClientId, host, x-secret"),
        ("x-secret", "1"),
        ("x-kept", "1"),
    ]);
    assert_eq!(headers["authorization"], "Bearer ours");
    assert_eq!(headers["amazon-advertising-api-clientid"], "our-id");
    assert_eq!(headers["host"], "api.test");
    assert!(!headers.contains_key("x-secret") && !headers.contains_key("connection"));
    assert_eq!(headers["x-kept"], "1");
}

#[test]
fn removes_selectors_cookies_hop_by_hop_fields_and_their_look_alikes() {
    for name in [
        "x-ads-account",
        "x-ads-region",
        "x-ads-anything",
        "cookie",
        "te",
        "trailer",
        "upgrade",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "transfer-encoding",
        "x_ads_account",
        "transfer_encoding",
        "authorization_",
        "_authorization",
        "x-ads_region",
        "amazon_advertising_api_clientid",
        "proxy_authorization",
        "content_length",
        "x_other",
        "_",
        "x-api-key",
        "x-auth-token",
        "x-amz-access-token",
        "x-ads-key",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-anything",
    ] {
        let headers = out(&[(name, "v")]);
        let twin = name.replace('_', "-");
        let ours = ["authorization", "amazon-advertising-api-clientid"].contains(&twin.as_str());
        assert!(!headers.contains_key(name), "{name}");
        assert!(ours || !headers.contains_key(&twin), "{name}");
    }
}

#[test]
fn keeps_everything_else_in_order_and_adds_nothing() {
    let lines = [
        ("b-second", "2"),
        ("a-first", "1"),
        ("b-second", "3"),
        ("accept", "x/y"),
        ("amazon-advertising-api-scope", "caller"),
        ("x-amz-target", "t"),
        ("content-length", "3"),
        ("x-request-id", "r"),
    ];
    let headers = out(&lines);
    let kept: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(
        kept,
        [
            "host",
            "b-second",
            "a-first",
            "accept",
            "amazon-advertising-api-scope",
            "x-amz-target",
            "content-length",
            "x-request-id",
            "authorization",
            "amazon-advertising-api-clientid",
        ]
    );
    assert_eq!(headers["amazon-advertising-api-scope"], "caller");
    assert_eq!(headers.get_all("b-second").iter().collect::<Vec<_>>(), ["2", "3"]);
}

#[test]
fn a_default_field_is_added_only_where_the_caller_sent_none() {
    assert_eq!(out(&[])["amazon-advertising-api-scope"], "7");
    assert!(!out(&[]).contains_key("amazon-ads-clientid"));
}

#[test]
fn a_chunked_body_stays_chunked_and_has_no_length() {
    let headers = out_with(&[("content-length", "3")], false, true);
    assert_eq!(headers["transfer-encoding"], "chunked");
    assert!(!headers.contains_key("content-length"));
}

#[test]
fn responses_lose_connection_fields_cookies_and_what_only_we_may_say() {
    let mut headers = map(&[
        ("connection", "close, x-internal"),
        ("x-internal", "1"),
        ("transfer-encoding", "chunked"),
        ("x-ads-proxy-error", "forged"),
        ("x-ads-proxy-request-id", "forged"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("clear-site-data", "*"),
        ("etag", "e"),
        ("www-authenticate", "Bearer"),
    ]);
    assert_eq!(clean_response(&mut headers), Ok(true));
    let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["etag", "www-authenticate"]);
}

#[test]
fn a_length_beside_chunks_is_removed_and_ends_the_connection() {
    let both = [("content-length", "5"), ("transfer-encoding", "chunked"), ("etag", "e")];
    let mut headers = map(&both);
    assert_eq!(clean_response(&mut headers), Ok(false));
    assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["etag"]);
    let mut headers = map(&[("content-length", "5"), ("connection", "keep-alive")]);
    assert_eq!(clean_response(&mut headers), Ok(true));
    assert_eq!(headers["content-length"], "5");
}

#[test]
fn sixteen_connection_names_are_enough_over_all_lines() {
    let eight = ["x"; 8].join(",");
    let lines = |more: &'static str| {
        map(&[("connection", eight.as_str()), ("connection", eight.as_str()), ("connection", more)])
    };
    assert!(!has_too_many_connection_names(&lines("")));
    assert!(!has_too_many_connection_names(&lines(" , , ")));
    assert!(has_too_many_connection_names(&lines("x")));
    assert_eq!(clean_response(&mut lines("x")), Err(Malformed::ConnectionNames));
    let commas = ",".repeat(100);
    assert!(has_too_many_connection_names(&map(&[("connection", &commas)])), "nothing but commas");
}

#[test]
fn only_a_location_on_the_same_host_is_rewritten() {
    let upstream: Uri = "https://api.test".parse().expect("a uri");
    for (location, prefix, expected) in [
        ("https://api.test/v2/x?y#z", "", "/v2/x?y#z"),
        ("https://API.test:443/v2/x", "/a/acme", "/a/acme/v2/x"),
        ("https://api.test", "", "/"),
        ("https://api.test?q=1", "", "/?q=1"),
        ("https://api.test//evil.test/x", "", "/.//evil.test/x"),
        ("/v2/x", "/a/acme", "/a/acme/v2/x"),
        ("/v2/x", "", "/v2/x"),
        ("/v2/x?next=https://b.test/y", "/a/acme", "/a/acme/v2/x?next=https://b.test/y"),
        ("http://api.test/x", "", "http://api.test/x"),
        ("https://api.test:8443/x", "", "https://api.test:8443/x"),
        ("https://api.test.evil/x", "", "https://api.test.evil/x"),
        (
            "https://b.s3.amazonaws.com/k?X-Amz-Signature=s",
            "/a/acme",
            "https://b.s3.amazonaws.com/k?X-Amz-Signature=s",
        ),
    ] {
        let mut headers = map(&[("location", location)]);
        rewrite_location(&mut headers, &upstream, prefix);
        assert_eq!(headers["location"], expected, "{location}");
    }
}

#[test]
fn pins_choose_the_account_whatever_the_caller_and_the_defaults_say() {
    let pins =
        [("amazon-ads-ai-account-selection-mode", "FIXED"), ("amazon-ads-accountid", "ours")]
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
    let defaults = [("amazon-advertising-api-scope", "7"), ("x-default", "1")]
        .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
    let inbound = map(&[
        ("amazon-ads-accountid", "theirs"),
        ("amazon-ads-account-id", "theirs"),
        ("amazon_ads_accountid", "theirs"),
        ("amazonadsaccountid", "theirs"),
        ("amazon-ads-manager-accountid", "theirs"),
        ("amazon-ads-ai-account-selection-mode", "DYNAMIC"),
        ("amazon-advertising-api-scope", "theirs"),
        ("amazon-ads-clientid", "theirs"),
        ("advertiserid", "theirs"),
        ("connection", "amazon-ads-accountid, amazon-ads-ai-account-selection-mode"),
        ("accept-encoding", "gzip"),
        ("mcp-session-id", "s"),
    ]);
    let bearer = HeaderValue::from_static("Bearer ours");
    let client_id = HeaderValue::from_static("our-id");
    let mut inject = Injection {
        bearer: &bearer,
        client_id: &client_id,
        defaults: &defaults,
        names_ads_client: true,
        pins: &pins,
        reads_response: true,
        traceparent: None,
    };
    let headers = outgoing(&inbound, &inject, &HeaderValue::from_static("api.test"), false);
    let mut fields: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    fields.sort_unstable();
    let expected: [(&str, &[u8]); 8] = [
        ("amazon-ads-accountid", b"ours"),
        ("amazon-ads-ai-account-selection-mode", b"FIXED"),
        ("amazon-ads-clientid", b"our-id"),
        ("amazon-advertising-api-clientid", b"our-id"),
        ("authorization", b"Bearer ours"),
        ("host", b"api.test"),
        ("mcp-session-id", b"s"),
        ("x-default", b"1"),
    ];
    assert_eq!(fields, expected);
    (inject.pins, inject.reads_response) = (&[], false);
    let headers = outgoing(&inbound, &inject, &HeaderValue::from_static("api.test"), false);
    assert_eq!(headers["amazon-advertising-api-scope"], "theirs", "nothing changes without");
    assert_eq!(headers["accept-encoding"], "gzip");
}

#[test]
fn the_callers_traceparent_is_replaced_where_it_is_there_and_never_added() {
    let (bearer, client_id) = (HeaderValue::from_static("Bearer x"), HeaderValue::from_static("c"));
    let (ours, host) = (HeaderValue::from_static("ours"), HeaderValue::from_static("h"));
    let inject = Injection {
        bearer: &bearer,
        client_id: &client_id,
        defaults: &[],
        names_ads_client: false,
        pins: &[],
        reads_response: false,
        traceparent: Some(&ours),
    };
    let mut inbound = HeaderMap::new();
    assert!(!outgoing(&inbound, &inject, &host, false).contains_key("traceparent"));
    inbound.insert("traceparent", HeaderValue::from_static("theirs"));
    let out = outgoing(&inbound, &inject, &host, false);
    assert_eq!(out.get_all("traceparent").iter().collect::<Vec<_>>(), [&ours]);
    // Hop by hop, it is the caller's affair.
    inbound.insert("connection", HeaderValue::from_static("traceparent"));
    assert!(!outgoing(&inbound, &inject, &host, false).contains_key("traceparent"));
}
