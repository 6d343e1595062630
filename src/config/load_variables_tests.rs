//! Environment variables and flags as sources of keys.

use super::*;
use std::time::Duration;

#[test]
fn variables_beat_the_file() {
    let config = load_with(
        MINIMAL,
        &[
            ("ADSPROXY_LISTEN__PROXY", "127.0.0.1:1, unix:/run/a"),
            ("ADSPROXY_GUARD__ALLOWED_HOSTS", "[\"A.example\"]"),
            ("ADSPROXY_PROXY__WORKERS", "3"),
            ("ADSPROXY_PROXY__DRAIN_TIMEOUT_SECS", "0.5"),
            ("ADSPROXY_LOG__ACCESS", "false"),
            ("ADSPROXY_LWA__CLIENT_ID", "12345"),
            ("ADSPROXY_ACCOUNTS__ACME__REGION", "eu"),
            ("ADSPROXY_ACCOUNTS__ACME__HEADERS", "{ a = \"b\" }"),
            ("ADSPROXY_ACCOUNTS__NEW_ONE__REGION", "fe"),
            ("ADSPROXY_CONFIG", "not a key"),
            ("ADSPROXY_PORT_8787_TCP", "not a key"),
        ],
    );
    let config = config.unwrap().config;
    assert_eq!(config.listen.proxy.len(), 2);
    assert_eq!(config.guard.allowed_hosts, ["a.example"]);
    assert_eq!(config.proxy.workers, 3);
    assert_eq!(config.proxy.drain_timeout, Duration::from_millis(500));
    assert!(!config.log.access);
    assert_eq!(config.applications["default"].client_id, "12345");
    assert_eq!(config.accounts["acme"].region, Region::Eu);
    assert_eq!(config.accounts["acme"].headers.len(), 1);
    assert_eq!(config.accounts["new_one"].region, Region::Fe);
}

#[test]
fn aliases_in_variables_match_without_case_dots_and_hyphens() {
    let text = MINIMAL.replace("acme", "Acme-DE");
    let config = load_with(&text, &[("ADSPROXY_ACCOUNTS__ACME_DE__REGION", "eu")]).unwrap().config;
    assert_eq!(config.accounts["Acme-DE"].region, Region::Eu);
    assert_eq!(config.accounts.len(), 1);
}

#[test]
fn variables_of_secret_keys_hold_the_secret_itself_or_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    fs::write(&path, "from-file\n").unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let variables = [
        ("ADSPROXY_LWA__CLIENT_SECRET", "123"),
        ("ADSPROXY_ACCOUNTS__ACME__REFRESH_TOKEN_FILE", path.to_str().unwrap()),
        ("ADSPROXY_ENCRYPTION__KEYS", key),
    ];
    let config = load_with(MINIMAL, &variables).unwrap().config;
    assert_eq!(config.applications["default"].client_secrets[0].expose(), "123");
    assert_eq!(config.accounts["acme"].refresh_token.as_ref().unwrap().expose(), "from-file");
    assert_eq!(config.encryption.keys[0].id, "default");

    let both = [variables[1], ("ADSPROXY_ACCOUNTS__ACME__REFRESH_TOKEN", "x")];
    let found = errors(MINIMAL, &both);
    assert!(found[0].contains("a secret has one source"), "{found:?}");
}

#[test]
fn wrong_variables_are_named_with_a_suggestion() {
    let found = errors(
        MINIMAL,
        &[
            ("ADSPROXY_LISTEN__PROXI", "127.0.0.1:1"),
            ("ADSPROXY_PROXY__WORKERS", "many"),
            ("ADSPROXY_LWA__CLIENT_SECRT", "CANARY"),
            ("ADSPROXY_ACCOUNTS__ACME__REGION", "xx"),
        ],
    );
    let expected = [
        "environment variable ADSPROXY_ACCOUNTS__ACME__REGION: accounts.acme.region: \"xx\"",
        "environment variable ADSPROXY_LISTEN__PROXI: unknown key `listen.proxi`\n  = did you mean ADSPROXY_LISTEN__PROXY?",
        "environment variable ADSPROXY_LWA__CLIENT_SECRT: unknown key",
        "environment variable ADSPROXY_PROXY__WORKERS: proxy.workers: expected a whole number",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (error, start) in found.iter().zip(expected) {
        assert!(error.starts_with(start), "{error}");
    }
    assert!(!found.join("").contains("CANARY"));
}

#[test]
fn flags_beat_variables() {
    let loaded = load(&Options {
        path: None,
        environment: environment(&[
            ("AMAZON_CLIENT_ID", "id"),
            ("AMAZON_CLIENT_SECRET", "CANARY"),
            ("ADSPROXY_STORE__KIND", "memory"),
            ("ADSPROXY_LOG__FORMAT", "text"),
            ("XDG_CONFIG_HOME", "/none"),
        ]),
        overrides: vec![Override {
            flag: "--log-format",
            key: &["log", "format"],
            value: "json".into(),
        }],
    })
    .unwrap();
    assert_eq!(loaded.config.log.format, Some(crate::config::LogFormat::Json));
    assert_eq!(loaded.config.source, None);
}

#[test]
fn amazons_variables_fill_what_is_not_set_otherwise() {
    let amazon =
        [("AMAZON_CLIENT_ID", "id-of-amazon"), ("AMAZON_CLIENT_SECRET", "secret-of-amazon")];
    let config = load_with("store.kind = 'memory'", &amazon).unwrap().config;
    assert_eq!(config.applications["default"].client_id, "id-of-amazon");
    assert_eq!(config.applications["default"].client_secrets[0].expose(), "secret-of-amazon");
    let config = load_with(MINIMAL, &amazon).unwrap().config;
    assert_eq!(config.applications["default"].client_id, "amzn1.application-oa2-client.test");
    let only_named = MINIMAL
        .replace("[lwa]", "[applications.x]")
        .replace("[accounts.acme]", "[accounts.acme]\napplication = 'x'");
    assert_eq!(load_with(&only_named, &amazon[..1]).unwrap().config.applications.len(), 1);
}
