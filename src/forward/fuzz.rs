//! Fuzz targets of the rules for header fields: what goes to Amazon and what comes back.

use super::headers::{
    Injection, clean_response, has_too_many_connection_names, outgoing, rewrite_location,
};
use crate::{
    fuzz::{Target, fields},
    provider::ads,
};
use http::{HeaderMap, HeaderValue, Uri, header};

pub const TARGETS: &[Target] = &[
    Target { name: "request_fields", run: request_fields, seeds: REQUESTS },
    Target { name: "response_fields", run: response_fields, seeds: RESPONSES },
];

const REQUESTS: &[&str] = &[
    "1\nauthorization: Bearer theirs\nconnection: close, x-secret\nx-secret: a",
    "2\nconnection: Authorization, amazon-advertising-api-clientid\nte: trailers\nkeep-alive: 1",
    "3\namazon-ads-accountid: 1\nadvertiserid: 2\naccept-encoding: gzip\ncontent-length: 3",
    "0\nx-ads-account: acme\nx_amz: a\ncookie: a=b\nx-forwarded-for: 1\nexpect: 100-continue",
    "7\ntransfer-encoding: chunked\nhost: evil\nproxy-connection: x\ntraceparent: 00-1",
];

/// The first byte chooses what we add. Ours is there once whatever the caller sends, and nothing is
/// left that is of the connection, a credential, or named by a `Connection` line.
fn request_fields(input: &[u8]) {
    let Some((flags, rest)) = input.split_first() else { return };
    let Some(inbound) = fields(rest.split(|byte| *byte == b'\n')) else { return };
    let (pins, is_chunked) = (flags & 1 != 0, flags & 2 != 0);
    let (bearer, id) =
        (HeaderValue::from_static("Bearer ours"), HeaderValue::from_static("our-id"));
    let ours = HeaderValue::from_static("ours");
    let pinned = [
        (ads::MCP_MODE.clone(), ads::MCP_MODE_FIXED.clone()),
        (ads::MCP_ACCOUNT.clone(), ours.clone()),
    ];
    let inject = Injection {
        bearer: &bearer,
        client_id: &id,
        defaults: &[(ads::SCOPE_FIELD.clone(), ours)],
        names_ads_client: flags & 4 != 0,
        pins: if pins { &pinned } else { &[] },
        reads_response: flags & 8 != 0,
        traceparent: None,
    };
    let host = HeaderValue::from_static("api.test");
    let out = outgoing(&inbound, &inject, &host, is_chunked);
    let all = |name: &str| out.get_all(name).iter().cloned().collect::<Vec<_>>();
    assert_eq!(all("authorization"), ["Bearer ours"]);
    assert_eq!(all("amazon-advertising-api-clientid"), ["our-id"]);
    assert_eq!(all("host"), ["api.test"]);
    assert!(all("amazon-ads-clientid").iter().all(|value| value == "our-id"));
    assert_eq!(all("transfer-encoding").len(), usize::from(is_chunked));
    assert!(!is_chunked || all("content-length").is_empty());
    for name in out.keys().map(|name| name.as_str()) {
        let is_removed = matches!(name, "connection" | "keep-alive" | "proxy-connection" | "te")
            || matches!(name, "upgrade" | "cookie" | "proxy-authorization" | "x-api-key")
            || ["x-ads-", "x-forwarded-"].iter().any(|start| name.starts_with(start));
        assert!(!is_removed && !name.contains('_'), "{name} goes on");
        if pins && ads::may_choose_account(name) {
            let is_ours = all(name)
                .iter()
                .all(|value| value == "ours" || value == "FIXED" || value == "our-id");
            assert!(is_ours && all(name).len() == 1, "{name} chooses an account");
        }
        assert!(!is_named(&inbound, name) || is_set_by_us(name), "{name} is of the connection");
    }
    assert_eq!(outgoing(&out, &inject, &host, is_chunked), out, "ours are taken for the caller's");
}

/// Whether a `Connection` line names the field.
fn is_named(inbound: &HeaderMap, name: &str) -> bool {
    let lines = inbound.get_all(header::CONNECTION).iter();
    let mut names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    names.any(|named| named.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
}

fn is_set_by_us(name: &str) -> bool {
    matches!(name, "authorization" | "host" | "expect" | "transfer-encoding")
        || ads::may_choose_account(name)
}

const RESPONSES: &[&str] = &[
    "/a/acme\nlocation: https://api.test/v2/x?y#z\nset-cookie: a=b\ncontent-length: 1\ntransfer-encoding: chunked",
    "/k\nlocation: /v2/x\nconnection: x-y, close\nx-y: 1\nx-ads-proxy-error: forged\nkeep-alive: 5",
    "\nlocation: //evil\nupgrade: h2c\nproxy-authenticate: Basic",
    "/a/acme\nlocation: https://api.test:443//evil",
];

/// What is of the connection or only ours to say is removed; a changed `Location` leads to us.
fn response_fields(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let Some(prefix) = lines.next().and_then(|prefix| str::from_utf8(prefix).ok()) else { return };
    // Only what was taken off a path is ever put in front of one.
    let is_of_names = |byte: u8| byte.is_ascii_alphanumeric() || b"._-~@".contains(&byte);
    let is_prefix = prefix.is_empty()
        || prefix.strip_prefix("/a/").is_some_and(|it| it.bytes().all(is_of_names));
    let Some(mut headers) = fields(lines).filter(|_| is_prefix) else { return };
    let had_both =
        ["transfer-encoding", "content-length"].iter().all(|it| headers.contains_key(*it));
    let has_too_many = has_too_many_connection_names(&headers);
    let Ok(may_be_kept) = clean_response(&mut headers) else {
        assert!(has_too_many);
        return;
    };
    assert!(!(had_both && may_be_kept), "its end can be read in two ways");
    for name in headers.keys().map(|name| name.as_str()) {
        let is_removed = matches!(name, "connection" | "keep-alive" | "te" | "transfer-encoding")
            || matches!(name, "set-cookie" | "clear-site-data" | "upgrade" | "proxy-connection")
            || name.starts_with("x-ads-proxy-");
        assert!(!is_removed, "{name} comes back");
    }
    let clean = headers.clone();
    assert!(clean_response(&mut headers).is_ok() && headers == clean);
    rewrite_location(&mut headers, &Uri::from_static("https://api.test"), prefix);
    let (before, location) = (clean.get("location"), headers.get("location"));
    if before != location {
        let location = location.expect("one").to_str().expect("ASCII");
        assert!(location.starts_with('/') && location.starts_with(prefix), "{location}");
        assert!(!location.starts_with("//"), "{location} names another host");
        let before = before.expect("one").to_str().expect("ASCII");
        let rest = match before.split_once("://") {
            Some((_, rest)) if !before.starts_with('/') => {
                rest.find(['/', '?', '#']).map_or("", |at| &rest[at..])
            }
            _ => before,
        };
        assert!(location.ends_with(rest), "{before} becomes {location}");
    }
}
