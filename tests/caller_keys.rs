//! Keys of callers: whatever is wrong with one, the response is the same, and no key is in a log.

use crate::support::{
    callers::TestCaller,
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
