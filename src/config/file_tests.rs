//! `proxy.example.toml` and the serde mirror say the same.

use super::*;
use std::collections::BTreeSet;
use std::time::Duration;

const EXAMPLE: &str = include_str!("../../proxy.example.toml");

/// The name of the table whose header, commented out or not, `line` is.
fn header(line: &str) -> Option<&str> {
    let line = line.strip_prefix("# ").unwrap_or(line);
    let one_of_many = line.strip_prefix("[[").and_then(|line| line.strip_suffix("]]"));
    one_of_many.or_else(|| line.strip_prefix('[')?.strip_suffix(']'))
}

/// A commented-out line that is a key, or the header of a table, without its comment sign.
fn key_line(line: &str) -> Option<&str> {
    let key = line.strip_prefix("# ")?;
    if header(line).is_some() {
        return Some(key);
    }
    let name = key.split_once(" = ")?.0;
    name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_').then_some(key)
}

fn uncommented() -> String {
    EXAMPLE.lines().map(|line| format!("{}\n", key_line(line).unwrap_or(line))).collect()
}

/// Every key of the example: its section, its name, and the comment above it.
fn keys() -> Vec<(String, String, String)> {
    let (mut section, mut comment, mut keys) = (String::new(), String::new(), Vec::new());
    for line in EXAMPLE.lines() {
        if let Some(header) = header(line) {
            section = header.to_owned();
        } else if let Some(key) = key_line(line) {
            let name = key.split_once(" = ").unwrap().0;
            keys.push((section.clone(), name.to_owned(), comment.clone()));
        } else if line.is_empty() {
            comment.clear();
        } else {
            comment.push_str(line);
        }
    }
    keys
}

#[test]
fn example_parses_as_it_stands_to_the_defaults() {
    let file: File = toml::from_str(EXAMPLE).unwrap();
    let expected = File { lwa: Some(Application::default()), ..File::default() };
    assert_eq!(file, expected);
}

#[test]
fn example_with_every_key_uncommented_holds_exactly_the_defaults() {
    let mut file: File = toml::from_str(&uncommented()).unwrap();
    // Keys without a default show an example: taken out, nothing but defaults may be left.
    let mut lwa = file.lwa.take().unwrap();
    assert!(lwa.client_id.take().is_some() && lwa.client_secret.take().is_some());
    assert!(lwa.revocation_url.take().is_some());
    let mut acme = file.accounts.remove("acme").unwrap();
    assert!(acme.region.take().is_some() && acme.refresh_token.take().is_some());
    assert!(!std::mem::take(&mut acme.headers).is_empty());
    let tls = file.listen.tls.take().unwrap();
    assert!(tls.cert_file.is_some() && tls.key_file.is_some());
    assert!(file.listen.health.take().is_some());
    assert!(file.proxy.default_account.take().is_some());
    assert!(file.upstream.ca_file.take().is_some());
    assert!(file.tls.ca_file.take().is_some());
    assert!(file.replay.directory.take().is_some());
    assert!(file.log.format.take().is_some());
    assert!(file.audit.path.take().is_some());
    assert_eq!(std::mem::take(&mut file.encryption.keys).len(), 1);

    let mut hook = file.hooks.pop().unwrap();
    assert!(hook.name.take().is_some() && hook.url.take().is_some());
    assert!(hook.secret.take().is_some() && hook.command.take().is_some());
    assert_eq!(hook, Hook::default());
    assert_eq!(acme, Account::default());
    let mut defaults = File { lwa: Some(Application::default()), ..File::default() };
    defaults.settle();
    assert_eq!(Some(lwa), defaults.lwa.take());
    assert_eq!(file, defaults);
}

#[test]
fn example_has_every_key_once_and_no_other() {
    let sections: [(&str, &[&str]); 19] = [
        ("listen", Listen::KEYS),
        ("listen.tls", ListenTls::KEYS),
        ("proxy", Proxy::KEYS),
        ("guard", Guard::KEYS),
        ("lwa", Application::KEYS),
        ("upstream", Upstream::KEYS),
        ("tls", Tls::KEYS),
        ("token", Token::KEYS),
        ("replay", Replay::KEYS),
        ("limits", Limits::KEYS),
        ("store", Store::KEYS),
        ("encryption", Encryption::KEYS),
        ("audit", Audit::KEYS),
        ("accounts.acme", Account::KEYS),
        ("hooks", Hook::KEYS),
        ("outbox", Outbox::KEYS),
        ("login", Login::KEYS),
        ("log", Log::KEYS),
        ("metrics", Metrics::KEYS),
    ];
    let mirrored: Vec<(&str, &str)> = sections
        .iter()
        .flat_map(|(section, keys)| keys.iter().map(move |&key| (*section, key)))
        .filter(|&key| key != ("listen", "tls"))
        .collect();
    let keys = keys();
    let written: Vec<(&str, &str)> =
        keys.iter().map(|(section, key, _)| (section.as_str(), key.as_str())).collect();
    assert!(written.len() > 60, "{}", written.len());
    assert_eq!(written, mirrored);

    let roots: BTreeSet<&str> =
        sections.iter().map(|(name, _)| name.split('.').next().unwrap()).collect();
    let known = File::KEYS.iter().copied().filter(|&key| key != "applications").collect();
    assert_eq!(roots, known);
}

#[test]
fn example_shows_every_part_of_an_encryption_key() {
    let (_, section) = EXAMPLE.split_once("[encryption]\n").unwrap();
    let (section, rest) = section.split_once("\n# keys = ").unwrap();
    // One of them is in the comment: a key has it in place of the one in the line.
    let text = format!("{section}{}", rest.lines().next().unwrap());
    assert!(EncryptionKey::KEYS.iter().all(|key| text.contains(&format!("{key} = "))), "{text}");
    assert_eq!(EncryptionKey::KEYS.len(), 3);
}

#[test]
fn a_hook_is_told_everything_but_refreshes_that_go_well() {
    let all = crate::event::Kind::ALL.map(crate::event::Kind::as_str);
    let told: Vec<&str> = all.into_iter().filter(|name| *name != "token.refreshed").collect();
    assert_eq!(told, HOOK_EVENTS);
    let names = |line: &str| all.iter().filter(|name| line.contains(*name)).count();
    let comment = keys().into_iter().find(|key| (&*key.0, &*key.1) == ("hooks", "events"));
    assert_eq!(names(&comment.unwrap().2), all.len(), "the example names every event");
}

#[test]
fn only_the_host_of_a_receiver_is_shown() {
    for (url, shown) in [
        ("https://host.example/services/CANARY", "https://host.example/***"),
        ("https://host.example?CANARY", "https://host.example/***"),
        ("https://host.example", "https://host.example"),
        ("/CANARY", "/***"),
    ] {
        let url = HookUrl(url.to_owned());
        assert_eq!((url.to_string(), format!("{url:?}")), (shown.into(), format!("{shown:?}")));
    }
}

#[test]
fn example_explains_every_key() {
    for (section, key, comment) in keys() {
        assert!(comment.len() > 20, "{section}.{key}: {comment:?}");
    }
}

#[test]
fn example_says_what_becomes_of_a_count_beyond_its_limit() {
    let comment = |section: &str, key: &str| {
        let found = keys().into_iter().find(|(s, k, _)| s == section && k == key);
        found.expect("a key").2
    };
    for (section, key) in [("upstream", "connections_max"), ("limits", "in_flight_max")] {
        assert!(comment(section, key).contains("equal share, rounded up"), "{section}.{key}");
    }
    let labels = comment("metrics", "account_labels_max");
    let metric = labels.split([' ', '.']).find(|word| word.starts_with("adsproxy_")).unwrap();
    assert!(include_str!("../metrics.rs").contains(&format!("{metric:?}")), "{metric}");
}

#[test]
fn example_says_of_every_absent_default_that_there_is_none() {
    let said: BTreeSet<String> = keys()
        .into_iter()
        .filter(|(.., comment)| comment.contains("No default"))
        .map(|(section, key, _)| format!("{section}.{key}"))
        .collect();
    let absent = [
        "listen.health",
        "listen.tls.cert_file",
        "listen.tls.key_file",
        "proxy.default_account",
        "lwa.client_id",
        "lwa.client_secret",
        "upstream.ca_file",
        "replay.directory",
        "tls.ca_file",
        "encryption.keys",
        "audit.path",
        "accounts.acme.region",
        "accounts.acme.refresh_token",
        "accounts.acme.headers",
        "hooks.name",
        "hooks.url",
        "hooks.secret",
        "hooks.command",
        "log.format",
    ];
    assert_eq!(said, absent.map(str::to_owned).into());
}

#[test]
fn fallback_hosts_belong_to_amazons_endpoint_alone() {
    let settled = |text: &str| {
        let mut file: File = toml::from_str(text).unwrap();
        file.settle();
        file.lwa.unwrap().fallback_token_urls.unwrap().0
    };
    assert_eq!(settled("[lwa]"), crate::provider::ads::FALLBACK_TOKEN_URLS);
    assert!(settled("[lwa]\ntoken_url = 'http://localhost:1/t'").is_empty());
    assert_eq!(settled("[lwa]\nfallback_token_urls = ['http://[::1]:1/t']"), ["http://[::1]:1/t"]);
}

#[test]
fn seconds_may_be_fractions_but_not_negative_or_endless() {
    let drain = |text: &str| {
        let file: Result<File, _> = toml::from_str(&format!("proxy.drain_timeout_secs = {text}"));
        file.map(|file| file.proxy.drain_timeout_secs.0)
    };
    assert_eq!(drain("0").unwrap(), Duration::ZERO);
    assert_eq!(drain("1.5").unwrap(), Duration::from_millis(1500));
    for wrong in ["-1", "-0.5", "nan", "inf", "1e300", "1000000001", "true", "'1'"] {
        assert!(drain(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_text_stands_for_a_list() {
    let file: File = toml::from_str("guard.allowed_hosts = 'a, b,'").unwrap();
    assert_eq!(file.guard.allowed_hosts.0, ["a", "b"]);
    assert!(toml::from_str::<File>("guard.allowed_hosts = [1]").is_err());
}
