//! Sources, their order, and everything that can be wrong with them.

use super::*;
use crate::{
    config::{AdminAddress, ProxyAddress, StoreKind},
    id::Region,
};
use std::{fs, time::Duration};

/// Enough for a configuration without errors.
const MINIMAL: &str = "\
[lwa]
client_id = \"amzn1.application-oa2-client.test\"
client_secret = { env = \"TEST_SECRET\" }
[store]
kind = \"memory\"
[accounts.acme]
region = \"na\"
refresh_token = { env = \"TEST_TOKEN\" }
";

const SECRETS: [(&str, &str); 2] =
    [("TEST_SECRET", "CANARY-secret"), ("TEST_TOKEN", "CANARY-token")];

fn load_with(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, LoadError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.toml");
    fs::write(&path, text).unwrap();
    load(&Options { path: Some(path), environment: environment(variables), overrides: Vec::new() })
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    let all = SECRETS.iter().chain(variables).map(|&(k, v)| (k.to_owned(), v.to_owned()));
    all.collect()
}

/// The errors in `text`, with the directory of the file taken out of them.
fn errors(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    match load_with(text, variables) {
        Ok(_) => Vec::new(),
        Err(LoadError::Invalid(problems)) => problems
            .iter()
            .map(|problem| {
                let text = problem.to_string();
                text.find("p.toml").map_or(text.clone(), |at| text[at..].to_owned())
            })
            .collect(),
        Err(other) => panic!("{other}"),
    }
}

/// The one error in `MINIMAL` with `more` behind it.
fn error(more: &str) -> String {
    let found = errors(&format!("{MINIMAL}{more}"), &[]);
    let [error] = &found[..] else { panic!("{found:#?}") };
    error.clone()
}

#[test]
fn minimal_file_is_enough_and_the_rest_is_default() {
    let loaded = load_with(MINIMAL, &[]).unwrap();
    let config = loaded.config;
    assert_eq!(config.listen.proxy[0], ProxyAddress::Tcp("127.0.0.1:8787".parse().unwrap()));
    assert_eq!(config.listen.admin.to_string(), "127.0.0.1:8788");
    assert!(config.proxy.workers >= 1);
    assert_eq!(config.store.kind, StoreKind::Memory);
    let lwa = &config.applications["default"];
    assert_eq!(lwa.client_secrets[0].expose(), "CANARY-secret");
    assert_eq!(lwa.fallback_token_urls.len(), 2);
    assert_eq!(*config.upstream.api()[2], "https://advertising-api-fe.amazon.com");
    assert_eq!(config.upstream.mcp()[0].host(), Some("advertising-ai.amazon.com"));
    let acme = &config.accounts["acme"];
    assert_eq!((acme.region, acme.application.as_str()), (Region::Na, "default"));
    assert_eq!(acme.refresh_token.as_ref().unwrap().expose(), "CANARY-token");
    assert!(config.source.is_some());
}

#[test]
fn every_error_is_found_at_once_with_its_line_and_column() {
    let text = "\
[listen]
proxi = [\"127.0.0.1:1\"]
admin = 8788
[lwa]
client_id = \"id\"
client_secret = { env = \"NOT_THERE\" }
[proxy]
workers = -1
[token]
wait_timeout_secs = 0
[accounts.acme]
region = \"xx\"
  aplication = \"default\"
[accounts.\"-bad\"]
region = \"na\"
[store]
kind = \"postgres\"
[nonsense]
x = 1
";
    let found = errors(text, &[]);
    let places = [
        "p.toml:2:1: unknown key `listen.proxi`",
        "p.toml:3:9: listen.admin: expected a string, found integer `8788`",
        "p.toml:6:17: lwa.client_secret: environment variable NOT_THERE is not set",
        "p.toml:8:11: proxy.workers: expected a whole number, 0 or more, found integer `-1`",
        "p.toml:10:21: token.wait_timeout_secs: must be more than 0 seconds",
        "p.toml:12:10: accounts.acme.region: \"xx\": a region is na, eu or fe, or a marketplace",
        "p.toml:13:3: unknown key `accounts.acme.aplication`",
        "p.toml:14:11: accounts.-bad: an account alias",
        "p.toml:17:8: store.kind: \"postgres\" is not built yet; there are \"memory\", \"file\" and \"keyring\"",
        "p.toml:18:2: unknown key `nonsense`",
    ];
    assert_eq!(found.len(), places.len(), "{found:#?}");
    for (error, place) in found.iter().zip(places) {
        assert!(error.starts_with(place), "{error}\n{place}");
    }
    assert!(found[0].contains("did you mean `listen.proxy`?"), "{}", found[0]);
    assert!(found[0].contains("2 | proxi = [") && found[0].contains("| ^^^^^\n"), "{}", found[0]);
    assert!(found[9].contains("known here: listen, proxy, guard"), "{}", found[9]);
}

#[test]
fn a_misspelt_key_is_not_also_reported_missing() {
    let text = MINIMAL.replace("client_id", "client_idd").replace("region", "regoin");
    let found = errors(&text, &[]);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].contains("did you mean `lwa.client_id`?"));
    assert!(found[1].contains("did you mean `accounts.acme.region`?"));
}

#[test]
fn a_misspelt_key_hides_no_mistake_beside_it() {
    for (text, parts) in [
        (
            MINIMAL.replace(
                "[lwa]\n",
                "[lwa]\ntokn_url = \"x\"\ntoken_url = \"http://example.com/auth\"\n",
            ),
            ["did you mean `lwa.token_url`?", "lwa.token_url: must begin with https://"],
        ),
        (
            format!("{MINIMAL}[accounts.\"-bad\"]\nregion = \"na\"\nrefresh_token = \"CANARY\"\n"),
            ["accounts.-bad: an account alias", "never written into the configuration"],
        ),
        (
            format!(
                "{MINIMAL}[accounts.b]\nregion = \"na\"\nreffresh_token = {{ env = \"X\" }}\n\
                 refresh_token = {{ env = \"NOT_THERE\" }}\n"
            ),
            ["did you mean `accounts.b.refresh_token`?", "NOT_THERE is not set"],
        ),
        (
            format!("{MINIMAL}[listen]\nproxy = [1, \"bad\"]\n"),
            ["expected a string, found integer", "\"bad\" is no address"],
        ),
    ] {
        let found = errors(&text, &[]);
        assert_eq!(found.len(), 2, "{found:#?}");
        for part in parts {
            assert!(found.iter().any(|error| error.contains(part)), "{part}\n{found:#?}");
        }
        assert!(!found.join("").contains("CANARY"), "{found:#?}");
    }
}

#[test]
fn a_list_that_lost_its_only_item_is_not_also_reported_empty() {
    for wrong in ["[listen]\nproxy = [1]\n", "[encryption]\nkeys = [1]\n"] {
        assert_eq!(errors(&format!("{MINIMAL}{wrong}"), &[]).len(), 1, "{wrong}");
    }
    let file = MINIMAL.replace("\"memory\"", "\"file\"\npath = \"/tmp/x\"");
    let found = errors(&format!("{file}[encryption]\nkeys = [1]\n"), &[]);
    assert_eq!(found.len(), 1, "{found:#?}");
}

#[test]
fn every_syntax_error_is_found_beside_the_others() {
    let found = errors("[listen]\nproxy = \nadmin = [1\n[proxy]\nworker = 1\n", &[]);
    assert!(found.iter().any(|error| error.starts_with("p.toml:2:")), "{found:#?}");
    assert!(found.iter().all(|error| !error.contains("LWA")), "{found:#?}");
}

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
fn every_wrong_item_of_a_list_is_found() {
    let found = errors(&format!("{MINIMAL}[listen]\nproxy = [1, \"127.0.0.1:0\", 2]\n"), &[]);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("p.toml:10:10:") && found[1].starts_with("p.toml:10:28:"));
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
fn listeners_beyond_loopback_need_permission() {
    for (key, value) in [
        ("admin", "\"0.0.0.0:8788\""),
        ("proxy", "[\"10.1.2.3:80\"]"),
        ("proxy", "[\"127.0.0.1:1\", \"[::]:8787\"]"),
    ] {
        let text = error(&format!("[listen]\n{key} = {value}\n"));
        for line in ["[listen]\n", "unsafe_allow_unauthenticated = true\n", "[guard]\n"] {
            assert!(text.contains(line), "{text}");
        }
        let allowed = format!("[listen]\n{key} = {value}\nunsafe_allow_unauthenticated = true\n");
        assert!(load_with(&format!("{MINIMAL}{allowed}"), &[]).is_ok());
    }
}

#[test]
fn loopback_unix_and_health_listeners_need_none() {
    let listen = "[listen]\nproxy = [\"127.9.9.9:0\", \"[::1]:0\", \"[::ffff:127.0.0.1]:0\", \"unix:/run/a.sock\"]\n\
                  admin = \"[::1]:0\"\nhealth = \"0.0.0.0:0\"\n";
    let config = load_with(&format!("{MINIMAL}{listen}"), &[]).unwrap().config;
    assert_eq!(config.listen.proxy[3], ProxyAddress::Unix("/run/a.sock".into()));
}

#[test]
fn hosts_and_origins_are_compared_whole_so_patterns_are_refused() {
    for (wrong, part) in [
        ("allowed_hosts = [\"*.example.com\"]", "no patterns, list every host"),
        ("allowed_hosts = [\"https://a.example\"]", "without scheme"),
        ("allowed_origins = [\"https://*.example.com\"]", "a pattern: list every origin"),
        ("allowed_origins = [\"app.example.com\"]", "no origin such as"),
        ("allowed_origins = [\"null\"]", "no origin such as"),
        ("allowed_origins = [\"https://a.example/\"]", "without a path"),
        ("allowed_origins = [\"https://me@a.example\"]", "without a path"),
    ] {
        let text = error(&format!("[guard]\n{wrong}\n"));
        assert!(text.contains(part), "{text}");
    }
    let good =
        "[guard]\nallowed_origins = [\"https://App.example.com:443\", \"http://[::1]:3000\"]\n";
    let config = load_with(&format!("{MINIMAL}{good}"), &[]).unwrap().config;
    assert_eq!(config.guard.allowed_origins, ["https://app.example.com", "http://[::1]:3000"]);
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

#[test]
fn localhost_is_both_loopback_addresses() {
    let tcp = |text: &str| ProxyAddress::Tcp(text.parse().unwrap());
    let ipv6 = std::net::UdpSocket::bind("[::1]:0").is_ok();
    let listen = |text: &str| load_with(&format!("{MINIMAL}{text}"), &[]).unwrap().config.listen;
    let proxy = listen("[listen]\nproxy = [\"localhost:9999\", \"127.0.0.1:1\"]\n").proxy;
    let second = ipv6.then(|| tcp("[::1]:9999"));
    let expected = [tcp("127.0.0.1:9999")].into_iter().chain(second).chain([tcp("127.0.0.1:1")]);
    assert!(proxy.iter().cloned().eq(expected), "{proxy:?}");
    assert_eq!(listen("").proxy.len(), 1 + usize::from(ipv6), "so is the default");
    assert_eq!(listen("[listen]\nproxy = [\"localhost:0\"]\n").proxy, [tcp("127.0.0.1:0")]);
    assert_eq!(listen("[listen]\nadmin = \"localhost:8\"\n").admin.to_string(), "127.0.0.1:8");
}

#[test]
fn wrong_listeners_are_named() {
    for (wrong, part) in [
        ("proxy = [\"localhost\"]", "is no address such as"),
        ("proxy = []", "at least one"),
        ("proxy = [\"unix:a.sock\"]", "must begin with /"),
        ("proxy = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", "listed twice"),
        ("admin = \"127.0.0.1:8787\"", "address of listen.proxy too"),
        ("health = \"127.0.0.1:8788\"", "address of listen.admin too"),
        ("tls = { cert_file = \"/dev/null\" }", "listen.tls.key_file: is missing"),
        ("tls = { cert_file = \"/none\", key_file = \"/dev/null\" }", "cannot read /none"),
    ] {
        let text = error(&format!("[listen]\n{wrong}\n"));
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn urls_are_https_or_local() {
    for good in
        ["https://a.example:8443", "http://localhost:1", "http://127.0.0.2", "http://[::1]:9/"]
    {
        assert!(
            load_with(&format!("{MINIMAL}[upstream]\neu = \"{good}\"\n"), &[]).is_ok(),
            "{good}"
        );
    }
    for (bad, part) in [
        ("http://a.example", "https://"),
        ("http://localhost.evil.example", "https://"),
        ("ftp://localhost", "https://"),
        ("advertising-api.amazon.com", "https://"),
        ("/path", "https://"),
        ("", "is no URL"),
        ("https://me@a.example", "user name"),
        ("https://a.example/path", "must not have a path"),
        ("https://a.example/?q", "must not have a path"),
        ("https://a.example/#f", "fragment"),
    ] {
        let text = error(&format!("[upstream]\neu = \"{bad}\"\n"));
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn accounts_refer_to_applications_that_exist() {
    let text = error("[accounts.b]\nregion = \"eu\"\napplication = \"agency\"\n");
    assert!(text.contains("no application \"agency\"; configured: default"), "{text}");
    let only_named = MINIMAL
        .replace("[lwa]", "[applications.agency]")
        .replace("region = \"na\"", "region = \"na\"\napplication = \"agency\"");
    assert_eq!(load_with(&only_named, &[]).unwrap().config.accounts["acme"].application, "agency");
    let found = errors("[store]\nkind = \"memory\"\n", &[]);
    assert!(found[0].contains("there is no LWA application"), "{found:?}");
}

#[test]
fn default_headers_are_checked() {
    let config = load_with(
        &MINIMAL.replace("region", "headers = { \"Amazon-Advertising-API-Scope\" = 123 }\nregion"),
        &[],
    );
    let headers = config.unwrap().config.accounts["acme"].headers.clone();
    assert_eq!(headers[0].0, "amazon-advertising-api-scope");
    assert_eq!(headers[0].1, "123");
    for (wrong, part) in [
        ("\"authorization\" = \"x\"", "adsproxy itself"),
        ("\"Amazon_Ads_ClientId\" = \"x\"", "adsproxy itself"),
        ("\"X-Ads-Region\" = \"eu\"", "adsproxy itself"),
        ("\"a b\" = \"x\"", "no header name"),
        ("\"a\" = \"\"", "visible ASCII"),
        ("\"a\" = \"x\\ny\"", "visible ASCII"),
        ("\"a\" = \"x\", \"A\" = \"y\"", "twice"),
    ] {
        let text = error(&format!("[accounts.b]\nregion = \"na\"\nheaders = {{ {wrong} }}\n"));
        assert!(text.contains(part), "{text}");
    }
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
fn store_kinds_that_do_not_exist_are_refused() {
    for (kind, part) in
        [("postgres", "not built yet"), ("redis", "none of \"memory\", \"file\" and \"keyring\"")]
    {
        let found = errors(&MINIMAL.replace("memory", kind), &[]);
        assert!(found[0].contains(part), "{found:?}");
    }
}

#[test]
fn an_audit_log_has_a_place_a_key_and_files_of_some_size() {
    assert_eq!(load_with(MINIMAL, &[]).unwrap().config.audit.path, None);
    let key = [("ADSPROXY_ENCRYPTION__KEYS", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")];
    let stored = MINIMAL.replace("\"memory\"", "\"file\"\npath = \"/s\"");
    let audit = load_with(&stored, &key).unwrap().config.audit;
    assert_eq!(audit.path, Some("/s/audit.jsonl".into()));
    assert_eq!((audit.max_bytes, audit.keep), (16 << 20, 0));
    let elsewhere = format!("{MINIMAL}[audit]\npath = \"/a/log\"\n");
    assert_eq!(load_with(&elsewhere, &key).unwrap().config.audit.path, Some("/a/log".into()));

    assert!(error("[audit]\npath = \"/a/log\"\n").contains("encryption.keys, is missing"));
    assert!(error("[audit]\nmax_bytes = 100\n").contains("neither 0 nor at least 4096"));
    let with_key = |path: &str| errors(&format!("{MINIMAL}[audit]\npath = {path:?}\n"), &key);
    assert!(with_key("/a/log.head")[0].contains("must not end in .head"));
    assert!(with_key("/")[0].contains("does not name a file"));
    assert!(with_key("")[0].contains("is empty"));
}

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

#[test]
fn no_configuration_anywhere_lists_where_it_was_looked_for() {
    let environment = environment(&[("HOME", "/home/nobody-here")]);
    let Err(LoadError::NotFound { searched }) =
        load(&Options { environment, ..Options::default() })
    else {
        panic!()
    };
    let searched: Vec<_> = searched.iter().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(
        searched,
        ["/home/nobody-here/.config/adsproxy/proxy.toml", "/etc/adsproxy/proxy.toml"],
    );
}

#[test]
fn a_named_file_must_be_there() {
    let options = Options { path: Some("/none/p.toml".into()), ..Options::default() };
    assert!(matches!(load(&options), Err(LoadError::Unreadable { .. })));
    let environment = environment(&[("ADSPROXY_CONFIG", "/none/p.toml")]);
    let options = Options { environment, ..Options::default() };
    assert!(matches!(load(&options), Err(LoadError::Unreadable { .. })));
}

#[test]
fn effective_values_are_complete_and_masked_and_load_again() {
    let loaded = load_with(MINIMAL, &[("ADSPROXY_PROXY__WORKERS", "2")]).unwrap();
    let text = &loaded.effective;
    assert!(!text.contains("CANARY"), "{text}");
    for line in [
        "workers = 2",
        "client_secret = \"***\"",
        "refresh_token = \"***\"",
        "kind = \"memory\"",
        "region = \"na\"",
        "idle_timeout_secs = 75",
        "fallback_token_urls = [",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let text = text
        .replace("client_secret = \"***\"", "client_secret = { env = \"TEST_SECRET\" }")
        .replace("refresh_token = \"***\"", "refresh_token = { env = \"TEST_TOKEN\" }");
    let again = load_with(&text, &[]).unwrap();
    assert_eq!(again.effective, loaded.effective);
}

#[test]
fn nothing_shows_a_secret_in_debug() {
    let loaded = load_with(MINIMAL, &[]).unwrap();
    let environment = environment(&[]);
    let options = Options { environment, ..Options::default() };
    let text = format!("{loaded:?} {options:?}");
    assert!(!text.contains("CANARY"), "{text}");
}

#[test]
fn a_file_of_errors_ends() {
    let text: String = (0..2000).map(|n| format!("unknown{n} = 1\n")).collect();
    assert_eq!(errors(&text, &[]).len(), 50);
}

#[test]
fn hostile_texts_are_refused_without_a_panic() {
    for text in [
        "\0",
        "=",
        "[",
        "[[[]]]",
        "a.b.c = {",
        "\u{feff}[listen",
        "lwa = 3",
        "[[listen]]",
        "accounts = []",
        "x = '''",
        "é = \"",
        "[lwa]\nclient_secret = [[[[]]]]",
    ] {
        assert!(!errors(text, &[("ADSPROXY_LWA__CLIENT_ID", "x")]).is_empty(), "{text}");
    }
}

#[test]
fn addresses_are_read_without_the_secrets() {
    let text =
        "[listen]\nadmin = \"127.0.0.1:9\"\n[lwa]\nclient_secret = { env = \"NONE\" }\nx = 1\n";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.toml");
    let asked = |text: &str| {
        fs::write(&path, text).unwrap();
        addresses(&Options { path: Some(path.clone()), ..Options::default() })
    };
    let found = asked(text).unwrap();
    assert_eq!((found.admin.to_string().as_str(), found.health), ("127.0.0.1:9", None));
    for wrong in [
        "[listen]\nadmin = \"x\"\n",
        "[listen]\nadmin = 1\n",
        "[listen]\nadmni = 1\n",
        "[listne]\nadmin = \"127.0.0.1:9\"\n",
        "[",
    ] {
        match asked(wrong) {
            Err(LoadError::Invalid(problems)) => assert!(!problems.is_empty(), "{wrong}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn no_secret_is_fetched_beside_a_syntax_error() {
    let reference = "[accounts.b]\nregion = \"na\"\nrefresh_token = { file = \"/not/there\" }\n";
    let found = errors(&format!("{MINIMAL}{reference}[limits]\nheaders_max = =\n"), &[]).join("\n");
    assert!(!found.is_empty() && !found.contains("/not/there"), "{found}");
    assert!(error(reference).contains("cannot read /not/there"), "the twin");
}

#[test]
fn addresses_without_any_configuration_are_the_defaults() {
    let found = addresses(&Options::default()).unwrap();
    assert_eq!((found.admin.to_string().as_str(), found.health), ("127.0.0.1:8788", None));
}

#[test]
fn a_region_may_be_named_by_a_marketplace() {
    for (text, region) in [("US", Region::Na), ("DE", Region::Eu), ("jp", Region::Fe)] {
        let text = MINIMAL.replace("region = \"na\"", &format!("region = {text:?}"));
        assert_eq!(load_with(&text, &[]).expect("valid").config.accounts["acme"].region, region);
    }
}

#[test]
fn fallback_hosts_belong_to_amazons_endpoint_alone() {
    let hosts = |lwa: &str| {
        let text = MINIMAL.replace("[lwa]\n", &format!("[lwa]\n{lwa}\n"));
        let config = load_with(&text, &[]).unwrap().config;
        let hosts = config.applications["default"].fallback_token_urls.clone();
        hosts.iter().map(http::Uri::to_string).collect::<Vec<_>>()
    };
    assert_eq!(hosts(""), ads::FALLBACK_TOKEN_URLS);
    assert!(hosts("token_url = 'http://localhost:1/t'").is_empty());
    assert_eq!(hosts("fallback_token_urls = ['http://[::1]:1/t']"), ["http://[::1]:1/t"]);
}

#[test]
fn the_admin_listener_may_be_a_unix_socket_or_off() {
    let admin = |text: &str| {
        let text = format!("{MINIMAL}[listen]\nadmin = {text:?}\n");
        load_with(&text, &[("HOME", "/home/x")]).unwrap().config.listen.admin
    };
    assert_eq!(admin("unix:~/admin.sock"), AdminAddress::Unix("/home/x/admin.sock".into()));
    assert_eq!(admin("off"), AdminAddress::Off);
    for (wrong, part) in [
        (
            "admin = \"on\"",
            "is no address such as localhost:8787, [::]:8787, unix:/path or \"off\"",
        ),
        ("admin = \"unix:a\"", "must begin with /"),
        ("admin = \"unix:/a\"\nproxy = [\"unix:/a\"]", "address of listen.proxy too"),
    ] {
        let text = error(&format!("[listen]\n{wrong}\n"));
        assert!(text.contains(part), "{text}");
    }
}
