//! What a record says is taken as it is, or refused without being shown.

use super::{super::plan::tests::config, *};

/// 2026-11-20 00:00 UTC.
const NOW: u64 = 1_795_132_800;

fn raw(values: &[(&str, &str)]) -> Raw {
    let mut raw = Raw::at(3, None);
    values.iter().for_each(|(name, text)| raw.add(name, text));
    raw
}

fn read(raw: &Raw, account: Option<&str>) -> ImportRecord {
    let account = account.map(|alias| alias.parse().expect("an alias"));
    let reader = RecordReader {
        keys: None,
        known: BTreeSet::from(["shop".parse().expect("an alias")]),
        account: account.as_ref(),
        unnamed: None,
        config: &config(),
        region: None,
        application: None,
        replace: Replace::Never,
        now: NOW,
    };
    reader.read(raw)
}

fn read_with(values: &[(&str, &str)], account: Option<&str>) -> ImportRecord {
    read(&raw(values), account)
}

/// Reads an account `acme` with a refresh token and `more`; else why not.
fn acme(more: &[(&str, &str)]) -> Result<ImportEntry, String> {
    let base = [("account", "acme"), ("refresh_token", "Atzr|CANARY")];
    let kept = base.into_iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name));
    let record = read_with(&kept.chain(more.iter().copied()).collect::<Vec<_>>(), None);
    assert!(!format!("{record:?}").contains("CANARY"));
    record.entry.ok_or(record.note)
}

#[test]
fn a_field_is_known_however_it_is_written_and_whatever_tool_wrote_it() {
    for name in [
        "refresh_token",
        "Refresh Token",
        "refreshToken",
        "REFRESH-TOKEN",
        "lwa_refresh_token",
        "AMAZON_ADS_REFRESH_TOKEN",
        "AD_API_REFRESH_TOKEN",
        "amazonAdvertisingRefreshToken",
    ] {
        assert_eq!(field(name), Some("refresh_token"), "{name}");
    }
    for name in [
        "clientId",
        "lwa_client_id",
        "lwaClientIdentifier",
        "amazon_client_id",
        "Amazon-Advertising-API-ClientId",
        "amazon_lwa_client_id",
        "oauth.client_id",
        "client.id",
        "app_client_id",
    ] {
        assert_eq!(field(name), Some("client_id"), "{name}");
    }
    for name in ["", "token", "refresh", "id", "Atzr|x", "app_name", "amazon_account", "ads"] {
        assert_eq!(field(name), None, "{name}");
    }
    for (own, ..) in FIELDS {
        assert_eq!(field(own), Some(own));
    }
}

#[test]
fn nothing_is_no_value_and_two_values_are_one_too_many() {
    let mut raw = raw(&["", "  ", "null", "NULL", "None"].map(|nothing| ("region", nothing)));
    assert_eq!(raw.text("region"), None);
    raw.add("region", " eu ");
    raw.add("Region", "eu");
    assert_eq!((raw.text("region"), &raw.broken), (Some("eu"), &None));
    raw.add("marketplace", "US");
    assert_eq!(raw.broken.as_deref(), Some("region is there twice"));
}

#[test]
fn a_client_id_is_known_by_its_value_and_other_names_are_kept_as_unused() {
    let raw = raw(&[("app_key", "amzn1.application-oa2-client.x"), ("scope", "y"), ("note", "")]);
    assert_eq!(raw.text("client_id"), Some("amzn1.application-oa2-client.x"));
    assert_eq!(raw.unused.iter().collect::<Vec<_>>(), ["scope"]);
}

#[test]
fn every_field_is_taken() {
    let entry = acme(&[
        ("region", "DE"),
        ("application", "second"),
        ("profile_id", "9007199254740993"),
        ("consented_at", "2026-11-01"),
        ("token_type", "Bearer"),
    ])
    .expect("an entry");
    assert_eq!(entry.alias.as_str(), "acme");
    let given = entry.given;
    assert_eq!((given.region, given.application), (Some(Region::Eu), Some("second".to_owned())));
    assert_eq!(entry.profile_id.as_deref(), Some("9007199254740993"));
    assert_eq!(given.consented_at, Some(NOW - 19 * 86_400));
    assert!(!entry.had_access_token);
}

#[test]
fn what_cannot_be_right_is_refused() {
    for (field, text, why) in [
        ("region", "moon", "region is none of"),
        ("profile_id", "ENTITY1", "/v2/profiles"),
        ("profile_id", "1.2E+15", "spreadsheets"),
        ("profile_id", "1234567890.0", "spreadsheets"),
        ("consented_at", "soon", "no day"),
        ("consented_at", "2026-11-22", "no day"),
        ("consented_at", "2012-12-31", "no day"),
        ("consented_at", "46346", "no day"),
        ("token_type", "mac", "not bearer"),
        ("access_token", "two words", "access_token is no token"),
        ("access_token", "gAAAAABx", "access_token looks Fernet-encrypted"),
        ("refresh_token", "", "no refresh token"),
        ("refresh_token", "null", "no refresh token"),
        ("refresh_token", "Atza|access", "this is an access token"),
        ("refresh_token", "gAAAAABx", "refresh_token looks Fernet-encrypted"),
        ("refresh_token", "a\u{7}b", "visible ASCII"),
        ("refresh_token", &"x".repeat(8193), "more than"),
        ("refresh_token", "\"Atzr|CANARY\"", "remove the quotes"),
        ("refresh_token", "'Atzr|CANARY'", "remove the quotes"),
        ("refresh_token", "amzn1.oa2-cs.v1.CANARY", "belongs to the application"),
        ("refresh_token", "Atzr|acme", "placeholder"),
        ("refresh_token", "Atzr|shop", "placeholder"),
        ("refresh_token", "Atzr%7Cacme", "placeholder"),
        ("client_id", "adsproxy", "placeholder"),
    ] {
        let error = acme(&[(field, text)]).expect_err(text);
        assert!(error.contains(why), "{text}: {error}");
    }
    for token in ["Atzr|elsewhere", "Atzr|acme|", "acme"] {
        assert_eq!(
            acme(&[("refresh_token", token)]).expect(token).given.refresh_token,
            token.into()
        );
    }
}

#[test]
fn a_record_has_its_own_name_or_that_of_the_flag_and_never_two() {
    let token = ("refresh_token", "Atzr|x");
    let alias = |values: &[(&str, &str)], flag| {
        let record = read_with(values, flag);
        record.entry.map_or(record.note, |entry| entry.alias.to_string())
    };
    assert!(alias(&[token], None).contains("names no account"));
    assert_eq!(alias(&[token], Some("acme")), "acme");
    assert_eq!(alias(&[token, ("account", "acme")], Some("acme")), "acme");
    let both = alias(&[token, ("account", "stall")], Some("acme"));
    assert!(both.contains("called stall here, and acme by --account"), "{both}");
}

#[test]
fn a_name_that_is_a_secret_is_never_shown() {
    for (name, token) in [
        ("Atzr|CANARY-a-refresh-token", "acme"),
        ("CANARY-another-kind-of-token", "CANARY-another-kind-of-token"),
    ] {
        let record = read_with(&[("account", name), ("refresh_token", token)], None);
        assert!(record.entry.is_none() && record.name.is_none());
        assert!(record.note.contains("looks like a secret"));
        let mut raw = raw(&[("account", name), ("refresh_token", token)]);
        raw.broken = Some("region is there twice".into());
        assert_eq!(read(&raw, None).name, None);
    }
}

#[test]
fn a_name_makes_one_alias() {
    for (name, expected) in [
        ("acme", "acme"),
        ("Acme-1.de_x-", "Acme-1.de_x-"),
        ("Acme GmbH & Co. KG", "Acme-GmbH-Co.-KG"),
        ("  (Acme)  ", "Acme"),
        ("Müller", "M-ller"),
        ("acme/de", "acme-de"),
        (&"x".repeat(70), &"x".repeat(64)),
    ] {
        assert_eq!(alias(name).expect("an alias").as_str(), expected, "{name}");
    }
    for name in ["", "---", "日本", " "] {
        assert_eq!(alias(name), None, "{name}");
    }
}

#[test]
fn an_access_token_is_taken_while_it_lives() {
    let token = |more: &[(&str, &str)]| {
        let all = [&[("access_token", "Atza|x")], more].concat();
        let entry = acme(&all).expect("an entry");
        assert!(entry.had_access_token);
        entry.given.access_token.map(|token| (token.issued_at, token.expires_at))
    };
    for (secs, expected) in [
        (NOW, None),
        (NOW + 1, Some((NOW + 1 - 3600, NOW + 1))),
        (NOW + 3600, Some((NOW, NOW + 3600))),
        // No access token lives that long: a local time was taken for UTC.
        (NOW + 3601, None),
    ] {
        assert_eq!(token(&[("expires_at", &secs.to_string())]), expected, "{secs}");
    }
    assert_eq!(token(&[]), None);
    assert_eq!(token(&[("expires_at", "soon")]), None);
    let iso = ("expires_at", "2026-11-20T00:30:00+00:00");
    let issued = token(&[iso, ("updated_at", "2026-11-19T23:45:00Z")]);
    assert_eq!(issued, Some((NOW - 900, NOW + 1800)));
    for wrong in ["2026-11-20T00:10:00Z", "1990-01-01", "x"] {
        assert_eq!(token(&[iso, ("updated_at", wrong)]), Some((NOW - 1800, NOW + 1800)));
    }
}
