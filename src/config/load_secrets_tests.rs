//! References to secrets, what they lead to, and that nothing repeats a secret.

use super::*;

#[test]
fn an_inline_secret_is_refused_and_not_repeated() {
    for (from, inline) in [
        ("{ env = \"TEST_SECRET\" }", "\"CANARY\""),
        ("{ env = \"TEST_SECRET\" }", "[{ env = \"TEST_SECRET\" }, \"CANARY\"]"),
        ("{ env = \"TEST_SECRET\" }", "[\n\"CANARY\"]"),
        ("{ env = \"TEST_TOKEN\" }", "\"CANARY\""),
    ] {
        let found = errors(&MINIMAL.replace(from, inline), &[]);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("{ env = \"NAME\" }"), "{}", found[0]);
        assert!(!found[0].contains("CANARY"), "{}", found[0]);
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    for wrong in [
        "[log]\nclient_secret = \"CANARY\"",
        "[limits]\nheaders_max = \"Atzr|CANARY\"",
        "[upstream]\nna = \"https://user:CANARY@localhost\"",
        "[applications.x]\nclient_secret = CANARY",
        "[applications.x]\nclient_secret = 20262026",
        "[applications.x]\nclient_secret = { evn = \"CANARY\" }",
    ] {
        let found = errors(&format!("{MINIMAL}{wrong}"), &[]).join("\n");
        assert!(!found.is_empty() && !found.contains("CANARY"), "{found}");
        assert!(!found.contains("20262026"), "{found}");
    }
    // The line is shown where nothing hints at a secret, but the message itself never quotes it.
    let found = error("[limits]\nheaders_max = \"many\"");
    assert!(found.contains("expected a whole number, 0 or more, found a string"), "{found}");
}

#[test]
fn a_reference_names_exactly_one_place() {
    for (wrong, part) in [
        ("{ env = \"A\", file = \"/b\" }", "not from both"),
        ("{}", "write a reference such as"),
        ("{ evn = \"A\" }", "write a reference such as"),
        ("7", "expected a reference such as"),
        ("[{ env = \"TEST_TOKEN\" }]", "takes one secret, not a list"),
        ("{ file = \"/does/not/exist\" }", "cannot read /does/not/exist"),
    ] {
        let text = error(&format!("[accounts.b]\nregion = \"na\"\nrefresh_token = {wrong}\n"));
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_placeholder_of_our_own_is_no_refresh_token() {
    for token in ["Atzr|acme", "Atzr|b"] {
        let more = "[accounts.b]\nregion = \"na\"\nrefresh_token = { env = \"OTHER\" }\n";
        let found = errors(&format!("{MINIMAL}{more}"), &[("OTHER", token)]);
        assert!(
            found.len() == 1 && found[0].contains("a placeholder of adsproxy's own"),
            "{found:?}"
        );
    }
    let more = "[accounts.b]\nregion = \"na\"\nrefresh_token = { env = \"OTHER\" }\n";
    assert!(
        load_with(&format!("{MINIMAL}{more}"), &[("OTHER", "Atzr|longer-and-unknown")]).is_ok()
    );
}

#[test]
fn what_cannot_be_a_refresh_token_is_an_error_and_what_is_odd_a_warning() {
    let more = "[accounts.b]\nregion = \"na\"\nrefresh_token = { env = \"OTHER\" }\n";
    let with = |token: &str| load_with(&format!("{MINIMAL}{more}"), &[("OTHER", token)]);
    for (token, part) in [
        ("\"Atzr|CANARY\"", "remove the quotes"),
        ("Atza|CANARY", "this is an access token"),
        ("amzn1.oa2-cs.v1.CANARY", "belongs to the application"),
        ("CAN ARY", "visible ASCII"),
    ] {
        let error = with(token).unwrap_err().to_string();
        assert!(error.contains("p.toml:11:17: accounts.b.refresh_token: "), "{error}");
        assert!(error.contains(part) && !error.contains("CANARY"), "{error}");
    }
    let warnings = |token: &str| -> Vec<String> {
        let warnings = with(token).unwrap().warnings;
        let mut texts: Vec<_> = warnings.into_iter().map(|warning| warning.message).collect();
        texts.retain(|text| text.starts_with("accounts.b"));
        texts
    };
    assert!(warnings("unusual-token")[0].contains("does not begin with `Atzr|`"));
    assert_eq!(warnings("\u{feff}Atzr|usual\n"), Vec::<String>::new());
}

#[test]
fn several_live_secrets_keep_their_order() {
    let text = MINIMAL.replace(
        "{ env = \"TEST_SECRET\" }",
        "[{ env = \"TEST_TOKEN\" }, { env = \"TEST_SECRET\" }]",
    );
    let config = load_with(&text, &[]).unwrap().config;
    let secrets = config.applications["default"].client_secrets.iter();
    assert!(secrets.map(|s| s.expose()).eq(["CANARY-token", "CANARY-secret"]));
}

#[test]
fn every_name_of_a_secret_is_known_in_use_or_not() {
    let variables = [
        ("ADSPROXY_PASSPHRASE", "correct horse battery"),
        ("AMAZON_CLIENT_SECRET", "x"),
        ("AMAZON_REFRESH_TOKEN", "x"),
        ("ADSPROXY_ACCOUNTS__B__REFRESH_TOKEN", "Atzr|x"),
        ("ADSPROXY_ACCOUNTS__B__REGION", "eu"),
        ("ADSPROXY_LOG__FILTER", "info"),
        ("HOME", "/home/x"),
    ];
    let names = load_with(MINIMAL, &variables).unwrap().secret_variables;
    let expected = [
        "ADSPROXY_ACCOUNTS__B__REFRESH_TOKEN",
        "ADSPROXY_PASSPHRASE",
        "AMAZON_CLIENT_SECRET",
        "AMAZON_REFRESH_TOKEN",
        "TEST_SECRET",
        "TEST_TOKEN",
    ];
    assert!(names.iter().eq(expected), "{names:?}");
}

/// The first key of the configuration, which is one of 32 bytes.
fn key_of(config: &Config) -> &str {
    match &config.encryption.keys[0].material {
        crate::config::Material::Secret(secret) => secret.expose(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn file_store_needs_a_key_of_the_right_size() {
    let file = MINIMAL.replace("\"memory\"", "\"file\"\npath = \"/tmp/x\"");
    let found = errors(&file, &[]);
    assert!(found[0].contains("run `adsproxy key init`"), "{found:?}");

    let with_key =
        format!("{file}[encryption]\nkeys = [{{ id = \"a\", secret = {{ env = \"KEY\" }} }}]\n");
    let right = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    for key in [right, right.trim_end_matches('=')] {
        let config = load_with(&with_key, &[("KEY", key)]).unwrap().config;
        assert_eq!(key_of(&config), right);
    }
    for key in ["AAEC", "not base64 at all!", &right[4..], &format!("AAAA{right}")] {
        let found = errors(&with_key, &[("KEY", key)]);
        assert!(found[0].contains("not the base64 of 32 bytes"), "{found:?}");
        assert!(!found[0].contains(key));
    }
    let twice = with_key.replace("[{", "[{ id = \"a\", secret = { env = \"KEY\" } }, {");
    assert!(errors(&twice, &[("KEY", right)])[0].contains("earlier key"));
}

#[test]
fn nothing_shows_a_secret_in_debug() {
    let loaded = load_with(MINIMAL, &[]).unwrap();
    let environment = environment(&[]);
    let options = Options { environment, ..Options::default() };
    let text = format!("{loaded:?} {options:?}");
    assert!(!text.contains("CANARY"), "{text}");
}
