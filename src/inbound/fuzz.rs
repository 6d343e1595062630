//! Fuzz targets of keys in paths, of hosts and origins, and of request ids.

use super::{
    fields::Fields,
    guard::{self, Guard},
    path_key::{holds_key, masked, of, take},
    request_id,
};
use crate::{
    config::GuardConfig,
    fuzz::{Target, head, text},
};
use http::Uri;
use std::net::{Ipv4Addr, Ipv6Addr};

pub const TARGETS: &[Target] = &[
    Target { name: "path_key", run: path_key, seeds: PATHS },
    Target { name: "guard", run: browser_guard, seeds: HEADS },
];

const PATHS: &[&str] = &[
    "/k/KEY/a/acme/v2/profiles?x=%2F",
    "/k/KEY?q",
    "http://localhost:1/k/KEY/v2",
    "/a/Atza%7C*/v2",
    "/a/acme/k/*",
    "/k/k/adsk_*/adss_*",
];

/// Behind its id: no log may show it.
const SECRET: &str = "ZQZQZQZQZQZQZQZQZQZQZQZQZQZQZQZQZQZQZQ";

/// The key is taken off and the rest stays byte for byte; a key is found and masked wherever it is.
fn path_key(input: &[u8]) {
    let Some(text) = text(input) else { return };
    if let Ok(mut uri) = text.parse::<Uri>() {
        let whole = uri.clone();
        let key = of(&whole).map(str::to_owned);
        assert_eq!(take(&mut uri), key, "two readings of one path");
        let path = |uri: &Uri| uri.path_and_query().map_or("/".to_owned(), ToString::to_string);
        match key {
            None => assert_eq!(uri, whole),
            Some(key) => {
                let rest = path(&whole)["/k/".len() + key.len()..].to_owned();
                let slash = if rest.starts_with('/') { "" } else { "/" };
                assert_eq!(path(&uri), format!("{slash}{rest}"));
                assert_eq!((uri.scheme(), uri.authority()), (whole.scheme(), whole.authority()));
            }
        }
    }
    let once = masked(text).into_owned();
    assert_eq!(masked(&once), once, "a mask of a masked path");
    // The key stands where the input has a star, and nowhere else.
    if let Some((before, behind)) = text.split_once('*').filter(|_| !text.contains(&SECRET[..8])) {
        let path = format!("{before}adsk_7Fh2kQ9x{SECRET}{behind}");
        assert!(holds_key(&path), "{path}");
        let shown = masked(&path);
        assert!(!shown.contains(&SECRET[..8]), "{path} is shown as {shown}");
    }
}

const HEADS: &[&str] = &[
    "GET /v2/profiles 1\nhost: localhost:8787",
    "GET /v2 1\nhost: [::1]:8787\norigin: http://[::1]:8787\nsec-fetch-site: same-origin",
    "GET http://127.0.0.1/ 2\norigin: null\nsec-fetch-site: same-origin\nuser-agent: Mozilla/5.0",
    "GET / 1\nhost: ads.example.com.\norigin: https://app.example.com\nsec-fetch-site: cross-site",
    "GET / 1\nhost: localhost\nsec-fetch-site: none\nsec-fetch-mode: navigate\nsec-fetch-dest: document",
    "GET / 1\nhost: 10.0.0.1\nx-request-id: abc-1\nuser-agent: AppleCoreMedia/1 PowerShell/\nx-ads-key: k",
];

/// Only hosts of ours are accepted, and what the strict checks accept the lenient ones accept, too.
fn browser_guard(input: &[u8]) {
    let Some(head) = head(input) else { return };
    let guard = Guard::new(&GuardConfig {
        allowed_hosts: vec!["ads.example.com".to_owned(), "[fd00::1]".to_owned()],
        allowed_origins: vec!["https://app.example.com".to_owned()],
    });
    let fields = Fields::of(&head.headers);
    let checked = guard.check(&head, &fields);
    let of_form = guard.check_form(&head);
    let of_own_form = guard.check_own_form(&head);
    let of_link = guard.check_link(&head);
    if checked.is_ok() || of_form.is_ok() || of_own_form.is_ok() || of_link.is_ok() {
        let host = head.headers.get("host").map(|host| host.as_bytes());
        let host = host.or(head.uri.authority().map(|host| host.as_str().as_bytes()));
        let host = str::from_utf8(host.expect("a host")).expect("ASCII");
        assert!(is_ours(host), "{host} is accepted");
        assert!(head.headers.get_all("host").iter().count() < 2);
    }
    assert!(of_own_form.is_err() || of_form.is_ok(), "{head:?}");
    assert!(checked.is_err() || of_form.is_ok(), "{head:?}");
    for rejection in [checked, of_form, of_own_form, of_link].into_iter().filter_map(Result::err) {
        let text = guard::explain(rejection, &head.uri, &fields).unwrap_or_default();
        assert!(!text.contains(char::is_control) && text.is_ascii(), "{text:?}");
    }
    let _ = guard::check_page(&fields);
    if let Some(id) = request_id::of(&fields) {
        assert!(id.len() <= 128 && id.to_str().is_ok_and(|id| !id.is_empty()));
    }
}

/// Another reading of a host that names this machine, or that the configuration allows.
fn is_ours(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => &host,
    };
    if let Some(address) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        let address: Option<Ipv6Addr> = address.parse().ok();
        return address
            .is_some_and(|v6| v6.is_loopback() || v6 == Ipv6Addr::from((0xfd00 << 112) | 1));
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_v4 = |name: &str| name.starts_with("127.") && name.parse::<Ipv4Addr>().is_ok();
    matches!(name, "localhost" | "ads.example.com") || is_v4(name)
}
