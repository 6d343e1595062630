//! `proxy.example.toml` and the sections say the same.

use super::{
    document::Document,
    environment::Environment,
    reader::{ConfigReader, Section},
    sections::*,
    value::Displayed,
};
use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, time::Duration};
use toml::{Table, Value};

const EXAMPLE: &str = include_str!("../../proxy.example.toml");

const DIRECT: &str = "DATABASE_DIRECT_URL";

/// Reads `text` with the secrets that the example refers to.
fn try_read(text: &str) -> Result<Config, String> {
    let home = tempfile::tempdir().unwrap();
    let key = home.path().join(".config/adsproxy/key");
    fs::create_dir_all(key.parent().unwrap()).unwrap();
    fs::write(&key, "A".repeat(43)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let mut variables: Vec<(&str, &str)> = [
        "AMAZON_CLIENT_SECRET",
        "ACME_REFRESH_TOKEN",
        "HOOK_SECRET",
        "OIDC_CLIENT_SECRET",
        "DATABASE_URL",
        DIRECT,
    ]
    .map(|name| (name, "x"))
    .into();
    variables.push(("HOME", home.path().to_str().unwrap()));
    let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let environment: Environment = variables.collect();
    let (document, syntax) = Document::parse(None, text);
    let mut reader = ConfigReader::new(&document, &environment);
    let config = Config::read(&mut reader, &[]);
    match syntax.into_iter().chain(reader.problems).next() {
        Some(problem) => Err(problem.to_string()),
        None => Ok(config),
    }
}

fn read(text: &str) -> Config {
    try_read(text).unwrap()
}

fn table(config: &Config) -> Table {
    match config.shown() {
        Some(Value::Table(table)) => table,
        other => panic!("{other:?}"),
    }
}

/// The defaults, with an empty `[lwa]`.
fn defaults() -> Config {
    Config { lwa: Some(ApplicationConfig::default()), ..Config::default() }
}

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
    assert_eq!(table(&read(EXAMPLE)), table(&defaults()));
}

#[test]
fn example_with_every_key_uncommented_holds_exactly_the_defaults() {
    let mut shown = table(&read(&uncommented()));
    // Keys without a default show an example: taken out, nothing but defaults may be left.
    let mut take = |section: &str, keys: &[&str]| {
        let mut at = &mut shown;
        for part in section.split('.') {
            at = match &mut at[part] {
                Value::Table(table) => table,
                Value::Array(items) => items[0].as_table_mut().unwrap(),
                other => panic!("{other}"),
            };
        }
        for key in keys {
            assert!(at.remove(*key).is_some(), "{section}.{key}");
        }
        at.clone()
    };
    take("lwa", &["client_id", "client_secret", "revocation_url"]);
    let acme = take("accounts.acme", &["region", "refresh_token"]);
    assert!(!acme["headers"].as_table().unwrap().is_empty());
    take("accounts.acme", &["headers"]);
    take("listen.tls", &["cert_file", "key_file", "client_ca_file"]);
    take("listen", &["public", "health", "tls"]);
    take("proxy", &["default_account"]);
    take("upstream", &["ca_file"]);
    take("tls", &["ca_file"]);
    take("replay", &["directory"]);
    take("login", &["company"]);
    let scopes = take("dashboard.oidc", &["issuer", "client_id", "client_secret", "operators"]);
    assert_eq!(scopes["scopes"].as_array().unwrap().len(), 1);
    take("dashboard", &["url", "oidc"]);
    take("log", &["format"]);
    take("store", &["url", "listen_url", "ca_file"]);
    take("audit", &["path"]);
    assert_eq!(take("encryption", &[])["keys"].as_array().unwrap().len(), 1);
    let hook = take("hooks", &["name", "url", "secret", "command"]);
    let acme = take("accounts.acme", &[]);
    let caller = take(
        "callers",
        &[
            "name",
            "keys",
            "unix_uids",
            "unix_gids",
            "mtls_san",
            "tenant",
            "session_ttl_max_secs",
            "accounts",
            "methods",
            "paths",
            "profiles",
            "requests_per_minute",
            "mcp",
            "tools",
            "deny",
        ],
    );
    assert!(caller.values().all(|value| value.as_bool() == Some(false)), "{caller}");
    take(
        "issuers",
        &[
            "name",
            "issuer",
            "jwks_url",
            "jwks",
            "audience",
            "authorized_parties",
            "require_sid",
            "accounts",
            "methods",
            "paths",
            "profiles",
            "requests_per_minute",
            "mcp",
            "tools",
            "deny",
        ],
    );

    let mut config = defaults();
    config.accounts.insert("acme".parse().unwrap(), AccountConfig::default());
    config.hooks.push(HookConfig::default());
    let mut expected = table(&config);
    let account = expected["accounts"]["acme"].as_table_mut().unwrap();
    account.remove("region");
    account.remove("headers");
    assert_eq!(&acme, account);
    let default_hook = expected["hooks"][0].as_table_mut().unwrap();
    default_hook.retain(|key, _| !["name", "url", "command"].contains(&key));
    assert_eq!(&hook, default_hook);
    expected["lwa"].as_table_mut().unwrap().remove("client_id");
    for either in [&mut shown, &mut expected] {
        either.retain(|key, _| {
            !["accounts", "callers", "issuers", "hooks", "encryption"].contains(&key)
        });
    }
    assert_eq!(shown, expected);
}

#[test]
fn example_has_every_key_once_and_no_other() {
    let sections = [
        ("listen", Listen::keys()),
        ("listen.tls", ListenTls::keys()),
        ("proxy", Proxy::keys()),
        ("guard", GuardConfig::keys()),
        ("auth", AuthConfig::keys()),
        ("lwa", ApplicationConfig::keys()),
        ("upstream", Upstream::keys()),
        ("throttling", ThrottlingConfig::keys()),
        ("tls", Tls::keys()),
        ("token", Token::keys()),
        ("replay", Replay::keys()),
        ("limits", Limits::keys()),
        ("store", StoreConfig::keys()),
        ("encryption", Encryption::keys()),
        ("audit", AuditConfig::keys()),
        ("accounts.acme", AccountConfig::keys()),
        ("callers", CallerConfig::keys()),
        ("issuers", IssuerConfig::keys()),
        ("tenants", TenantsConfig::keys()),
        ("hooks", HookConfig::keys()),
        ("outbox", OutboxConfig::keys()),
        ("login", LoginConfig::keys()),
        ("dashboard", DashboardConfig::keys()),
        ("dashboard.oidc", OidcConfig::keys()),
        ("log", LogConfig::keys()),
        ("metrics", MetricsConfig::keys()),
    ];
    let known_keys: Vec<(&str, &str)> = sections
        .iter()
        .flat_map(|(section, keys)| keys.iter().map(move |key| (*section, *key)))
        .filter(|key| ![("listen", "tls"), ("dashboard", "oidc")].contains(key))
        .collect();
    let keys = keys();
    let written: Vec<(&str, &str)> =
        keys.iter().map(|(section, key, _)| (section.as_str(), key.as_str())).collect();
    assert!(written.len() > 60, "{}", written.len());
    assert_eq!(written, known_keys);

    let roots: BTreeSet<&str> =
        sections.iter().map(|(name, _)| name.split('.').next().unwrap()).collect();
    let all = Config::keys().into_iter().filter(|&key| key != "applications").collect();
    assert_eq!(roots, all);
}

#[test]
fn example_shows_every_part_of_an_encryption_key() {
    let (_, section) = EXAMPLE.split_once("[encryption]\n").unwrap();
    let (section, rest) = section.split_once("\n# keys = ").unwrap();
    // One of them is in the comment: a key has it in place of the one in the line.
    let text = format!("{section}{}", rest.lines().next().unwrap());
    let parts = EncryptionKey::keys();
    assert!(parts.iter().all(|key| text.contains(&format!("{key} = "))), "{text}");
    assert_eq!(parts.len(), 3);
}

#[test]
fn a_hook_is_told_everything_but_refreshes_that_go_well() {
    let all = crate::event::Kind::ALL.map(crate::event::Kind::as_str);
    let told: Vec<&str> = all.into_iter().filter(|name| *name != "token.refreshed").collect();
    let default = HookConfig::default().events;
    assert_eq!(told, default.iter().map(|kind| kind.as_str()).collect::<Vec<_>>());
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
        let hook = HookConfig { url: url.into(), ..HookConfig::default() };
        assert_eq!(hook.shown().unwrap()["url"].as_str(), Some(shown));
        assert!(!format!("{hook:?}").contains("CANARY"));
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
        "listen.public",
        "listen.health",
        "listen.tls.cert_file",
        "listen.tls.key_file",
        "listen.tls.client_ca_file",
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
        "callers.name",
        "issuers.name",
        "issuers.issuer",
        "issuers.audience",
        "hooks.name",
        "hooks.url",
        "hooks.secret",
        "hooks.command",
        "login.company",
        "dashboard.oidc.issuer",
        "dashboard.oidc.client_id",
        "log.format",
    ];
    assert_eq!(said, absent.map(str::to_owned).into());
}

#[test]
fn seconds_may_be_fractions_but_not_negative_or_endless() {
    let drain = |text: &str| {
        let config = try_read(&format!("proxy.drain_timeout_secs = {text}"));
        config.map(|config| config.proxy.drain_timeout)
    };
    assert_eq!(drain("0").unwrap(), Duration::ZERO);
    assert_eq!(drain("1.5").unwrap(), Duration::from_millis(1500));
    for wrong in ["-1", "-0.5", "nan", "inf", "1e300", "1000000001", "true", "'1'"] {
        assert!(drain(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_text_stands_for_a_list() {
    assert_eq!(read("guard.allowed_hosts = 'a, b,'").guard.allowed_hosts, ["a", "b"]);
    assert!(try_read("guard.allowed_hosts = [1]").is_err());
}
