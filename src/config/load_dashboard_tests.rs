//! The dashboard's address and its OpenID provider: what fits the rest of the configuration.

use super::*;

const ISSUER: &str =
    "[[issuers]]\nname = \"op\"\nissuer = \"https://op.example.com\"\naudience = [\"x\"]\n";
const OIDC: &str = "[dashboard.oidc]\nissuer = \"op\"\nclient_id = \"us\"\n";

#[test]
fn a_provider_is_an_issuer_and_knows_us_by_an_id() {
    let good = format!("{MINIMAL}{ISSUER}{OIDC}");
    let config = load_with(&good, &[]).unwrap().config;
    let oidc = config.dashboard.oidc.unwrap();
    assert_eq!(
        (&*oidc.issuer, &*oidc.scopes, oidc.operators.len()),
        ("op", &["openid".to_owned()][..], 0)
    );
    for (lines, part) in [
        (format!("{ISSUER}[dashboard.oidc]\n"), "oidc.issuer: is missing"),
        (format!("{ISSUER}[dashboard.oidc]\nissuer = \"op\"\n"), "oidc.client_id: is missing"),
        (OIDC.to_owned(), "no entry of [[issuers]] has this name; configured: none"),
        (format!("{ISSUER}{}", OIDC.replace("\"op\"", "\"other\"")), "configured: op"),
        (format!("{ISSUER}{OIDC}scopes = [\"email\"]\n"), "scopes: lacks openid"),
        (format!("{ISSUER}{OIDC}scopes = [\"openid email\"]\n"), "is no scope"),
        (format!("{ISSUER}{OIDC}operators = [\"\"]\n"), "is no subject"),
        (format!("{ISSUER}{OIDC}client_secret = \"CANARY\"\n"), "never written into"),
        (
            format!("{ISSUER}{OIDC}[listen]\nadmin = \"unix:/run/a.sock\"\n"),
            "dashboard.url: is missing",
        ),
        ("[dashboard]\nurl = \"http://ads.example.com\"\n".to_owned(), "must begin with https://"),
        ("[dashboard]\nurl = \"https://a/dashboard\"\n".to_owned(), "must not have a path"),
    ] {
        let found = errors(&format!("{MINIMAL}{lines}"), &[]);
        assert!(found.iter().any(|text| text.contains(part)), "{part}: {found:#?}");
        assert!(!found.concat().contains("CANARY"));
    }
    let behind =
        "[dashboard]\nurl = \"https://ads.example.com\"\n[listen]\nadmin = \"unix:/run/a.sock\"\n";
    assert!(load_with(&format!("{good}{behind}"), &[]).is_ok());
}

#[test]
fn an_address_that_the_guard_refuses_is_warned_of() {
    let url = "[dashboard]\nurl = \"https://ads.example.com\"\n";
    for (more, is_warned) in [
        ("", true),
        ("[guard]\nallowed_hosts = [\"other.example.com\"]\n", true),
        ("[guard]\nallowed_hosts = [\"ads.example.com\"]\n", false),
    ] {
        let warnings = load_with(&format!("{MINIMAL}{url}{more}"), &[]).unwrap().warnings;
        let found = warnings.iter().any(|one| one.message.starts_with("dashboard.url"));
        assert_eq!(found, is_warned, "{more}: {warnings:?}");
    }
}
