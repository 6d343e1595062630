//! All mistakes of a file at once: their lines, columns and suggestions.

use super::*;

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
kind = \"postgras\"
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
        "p.toml:17:8: store.kind: \"postgras\" is none of \"memory\", \"file\", \"keyring\" and \"postgres\"",
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
fn every_wrong_item_of_a_list_is_found() {
    let found = errors(&format!("{MINIMAL}[listen]\nproxy = [1, \"127.0.0.1:0\", 2]\n"), &[]);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("p.toml:10:10:") && found[1].starts_with("p.toml:10:28:"));
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
fn no_secret_is_fetched_beside_a_syntax_error() {
    let reference = "[accounts.b]\nregion = \"na\"\nrefresh_token = { file = \"/not/there\" }\n";
    let found = errors(&format!("{MINIMAL}{reference}[limits]\nheaders_max = =\n"), &[]).join("\n");
    assert!(!found.is_empty() && !found.contains("/not/there"), "{found}");
    assert!(error(reference).contains("cannot read /not/there"), "the twin");
}
