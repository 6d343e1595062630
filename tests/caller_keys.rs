//! Keys of callers: whatever is wrong with one, the response is the same, and no key is in a log.

use crate::support::{
    callers::{OPERATOR, TestCaller},
    proxy::{Answer, Proxy, Setup, amazon, eventually},
    socket::Wire,
};
use adsproxy::{sandbox::Surface, testing::PresentedKey};

const REQUIRED: &str = "\n[auth]\nrequired = true\n";

fn ask(proxy: &Proxy, target: &str, lines: &str) -> Answer {
    let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
    Wire::open(proxy.addr).send(head).answer()
}

/// All of the answer but what differs from request to request.
fn shape(answer: &Answer) -> (u16, Vec<String>, String) {
    let id = answer.headers["x-ads-proxy-request-id"].to_str().expect("ASCII");
    let lines = answer.headers.iter().filter(|(name, _)| *name != "date");
    let lines = lines.map(|(name, value)| format!("{name}: {value:?}").replace(id, "ID"));
    (answer.status.as_u16(), lines.collect(), answer.text().replace(id, "ID"))
}

/// `checked` with the checksum that the documentation describes.
fn with_checksum(checked: &str) -> String {
    const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let number = u64::from(crc32fast::hash(checked.as_bytes()));
    let place = |power| char::from(DIGITS[(number / 62_u64.pow(power) % 62) as usize]);
    checked.chars().chain((0..6).rev().map(place)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_id_wrong_secret_wrong_checksum_and_expired_key_get_the_same_bytes() {
    let amazon = amazon().await;
    let (caller, other) = (TestCaller::new("reports", ""), TestCaller::new("other", ""));
    let late = TestCaller::new("late", "");
    let expired = late.toml.replace("\" }]", "\", expires = \"2026-01-01\" }]");
    assert_ne!(expired, late.toml);
    let toml = caller.toml.clone() + &expired + REQUIRED;
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    assert_eq!(with_checksum(&caller.key[..45]), caller.key, "as documented");
    let wrong_secret = with_checksum(&format!("{}{}", &caller.key[..13], &other.key[13..45]));
    let wrong_kind = with_checksum(&caller.key[..45].replace("adsk_", "adss_"));
    for key in [&wrong_secret, &wrong_kind] {
        assert!(PresentedKey::parse(key).is_ok(), "only a look-up shows what is wrong");
    }
    let wrong_sum = format!("{}{}", &caller.key[..45], &other.key[45..]);
    assert!(PresentedKey::parse(&wrong_sum).is_err());
    let unknown = shape(&ask(&proxy, "/a/acme/_sink", &other.line()));
    assert_eq!(unknown.0, 403);
    for key in [wrong_secret, wrong_kind, wrong_sum, late.key.clone(), "x".repeat(5_000)] {
        for target in ["/a/acme/_sink", "/a/nobody/_sink", "/_sink"] {
            let line = format!("X-Ads-Key: {key}\r\n");
            assert_eq!(shape(&ask(&proxy, target, &line)), unknown, "{target} {key}");
        }
    }
    assert!(amazon.state().record.requests_for(Surface::Api).is_empty());
    assert_eq!(ask(&proxy, "/a/acme/_sink", &caller.line()).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_a_path_is_no_credential_here_goes_nowhere_and_is_masked_in_the_log() {
    let amazon = amazon().await;
    let (caller, other) = (TestCaller::new("reports", ""), TestCaller::new("other", ""));
    let toml = caller.toml.clone() + "\n[proxy]\ndefault_account = \"acme\"\n";
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    for (target, line) in [
        (format!("/k/{}/a/acme/_sink", caller.key), String::new()),
        (format!("/k/{}/a/acme/_sink", other.key), caller.line()),
    ] {
        assert_eq!(ask(&proxy, &target, &line).error(), Some("caller_rejected"), "{target}");
    }
    assert!(amazon.state().record.requests_for(Surface::Api).is_empty());
    // What is no key of ours may be a path of Amazon's.
    ask(&proxy, "/k/00112233445566778899aabbccddeeff/v2/profiles", "");
    ask(&proxy, &format!("/a/{}/v2/profiles", caller.key), "");
    eventually("all are logged", || proxy.log().matches("url.path").count() >= 4).await;
    let log = proxy.log();
    assert!(log.contains("/k/[masked]/v2/profiles"), "{log}");
    let id = &caller.key[..13];
    assert!(log.contains(&format!("/k/{id}[masked]/a/acme/_sink")), "{log}");
    for secret in [&caller.key[13..45], &other.key[13..45], "00112233445566778899"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_anywhere_in_a_request_but_where_it_belongs_is_not_forwarded_and_never_shown() {
    let amazon = amazon().await;
    let caller = TestCaller::new("reports", "accounts = [\"acme\"]\npaths = [\"/v2/*\"]");
    let proxy = Proxy::with(&amazon, Setup { toml: caller.toml.clone(), ..Setup::default() });
    let other = TestCaller::new("other", "");
    let (key, line) = (&other.key, caller.line());
    let session = key.replace("adsk_", "adss_");
    for target in [
        format!("/a/acme/k/{key}/v2/profiles"),
        format!("/a/acme/v2/{session}"),
        format!("/a/acme/v2/x-{key}-y"),
        format!("/v2/profiles/{key}"),
        format!("/a/{key}/v2/profiles"),
    ] {
        assert_eq!(ask(&proxy, &target, &line).error(), Some("caller_rejected"), "{target}");
    }
    let account = format!("{line}X-Ads-Account: {key}\r\n");
    assert_eq!(ask(&proxy, "/v2/profiles", &account).status, 404);
    assert!(amazon.state().record.requests_for(Surface::Api).is_empty());
    let id = ask(&proxy, "/a/acme/v2/profiles", &format!("{line}X-Request-Id: {key}\r\n"));
    assert_ne!(id.headers["x-ads-proxy-request-id"].to_str().expect("ASCII"), key.as_str());
    // The twins: what is no key is a path, a name and an id like any other.
    let named = format!("{line}X-Request-Id: adsk_short\r\n");
    let twin = ask(&proxy, "/a/acme/v2/k/adsk_short/profiles", &named);
    assert_eq!(twin.headers["x-ads-proxy-request-id"], "adsk_short");
    let seen = amazon.state().record.requests_for(Surface::Api);
    assert!(seen.iter().any(|it| it.target == "/v2/k/adsk_short/profiles"), "{seen:?}");
    eventually("all are logged", || proxy.log().matches("url.path").count() >= 8).await;
    let listed = || {
        let head = "GET /api/v1/requests HTTP/1.1\r\nHost: localhost\r\n".to_owned();
        crate::support::proxy::ask(proxy.admin, &(head + OPERATOR.line().trim_end()))
    };
    eventually("all are listed", || listed().matches("\"request_id\"").count() >= 8).await;
    for (name, text) in [("the log", proxy.log()), ("the list", listed())] {
        assert!(
            text.contains(&format!("/a/acme/k/{}[masked]/v2/profiles", &key[..13])),
            "{name}: {text}"
        );
        assert!(!text.contains(&key[13..45]), "{name}: {text}");
    }
    let log = proxy.log();
    assert!(log.contains(&format!("{}[masked] is none of", &key[..13])), "{log}");
}
