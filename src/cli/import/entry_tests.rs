//! What a record says is taken as it is, or refused without being shown.

use super::*;
use crate::cli::import::fields::Collector;

/// 2026-11-20 00:00 UTC.
const NOW: u64 = 1_795_132_800;

fn draft(values: &[(Field, &str)]) -> Draft {
    let mut collector = Collector::default();
    for (field, text) in values {
        collector.add(*field, text).expect("said once");
    }
    Draft { line: Some(3), key: None, values: Ok(collector.finish()) }
}

fn read(values: &[(Field, &str)]) -> Result<Entry, Rejected> {
    let known = BTreeSet::from(["shop".parse().expect("an alias")]);
    Reading { keys: None, known: &known, account: None, unnamed: None, now: NOW }
        .read(draft(values))
}

/// Reads an account `acme` with a refresh token and `more`.
fn acme(more: &[(Field, &str)]) -> Result<Entry, Rejection> {
    let base = [(Field::Account, "acme"), (Field::RefreshToken, "Atzr|CANARY")];
    read(&[&base, more].concat()).map_err(|rejected| rejected.why)
}

#[test]
fn every_field_is_taken() {
    let entry = acme(&[
        (Field::Region, "DE"),
        (Field::Application, "second"),
        (Field::ProfileId, "9007199254740993"),
        (Field::ConsentedAt, "2026-11-01"),
        (Field::TokenType, "Bearer"),
    ])
    .expect("an entry");
    assert_eq!(entry.line, Some(3));
    assert_eq!(entry.alias.as_str(), "acme");
    assert_eq!(entry.region, Some(Region::Eu));
    assert_eq!(entry.application, Some(Secret::from("second")));
    assert_eq!(entry.profile_id.as_deref(), Some("9007199254740993"));
    assert_eq!(entry.consented_at, Some(NOW - 19 * 86_400));
    assert_eq!(entry.access_token, AccessToken::Absent);
    assert!(!format!("{entry:?}").contains("CANARY"));
}

#[test]
fn what_cannot_be_right_is_refused() {
    use Field::*;
    for (field, text, why) in [
        (Region, "moon", Rejection::NotARegion),
        (ProfileId, "ENTITY1", Rejection::NotAProfile),
        (ProfileId, "1.2E+15", Rejection::RoundedProfile),
        (ProfileId, "1234567890.0", Rejection::RoundedProfile),
        (ConsentedAt, "soon", Rejection::NotADay),
        (ConsentedAt, "2026-11-22", Rejection::NotADay),
        (ConsentedAt, "2012-12-31", Rejection::NotADay),
        (ConsentedAt, "46346", Rejection::NotADay),
        (TokenType, "mac", Rejection::NotBearer),
        (AccessToken, "two words", Rejection::NotAToken("access_token")),
        (AccessToken, "gAAAAABx", Rejection::Encrypted("access_token")),
    ] {
        assert_eq!(acme(&[(field, text)]).expect_err("refused"), why, "{text}");
    }
    for (token, why) in [
        ("", Rejection::NoRefreshToken),
        ("null", Rejection::NoRefreshToken),
        ("Atza|access", Rejection::AccessTokenInstead),
        ("gAAAAABx", Rejection::Encrypted("refresh_token")),
        ("a\u{7}b", Rejection::NotAToken("refresh_token")),
        (&"x".repeat(8193), Rejection::NotAToken("refresh_token")),
    ] {
        let read = read(&[(Account, "acme"), (RefreshToken, token)]);
        assert_eq!(read.expect_err("refused").why, why, "{token}");
    }
}

#[test]
fn a_placeholder_of_our_own_is_no_refresh_token() {
    use Field::{ClientId, RefreshToken};
    let why = |values: &[(Field, &str)]| {
        let all = [&[(Field::Account, "acme")], values].concat();
        read(&all).map_err(|rejected| rejected.why).map(|entry| entry.refresh_token)
    };
    for token in ["Atzr|acme", "Atzr|shop", "Atzr%7Cacme"] {
        assert_eq!(why(&[(RefreshToken, token)]), Err(Rejection::Placeholder), "{token}");
    }
    let unknown = [(RefreshToken, "Atzr|elsewhere"), (ClientId, "adsproxy")];
    assert_eq!(why(&unknown), Err(Rejection::Placeholder));
    for token in ["Atzr|elsewhere", "Atzr|acme|", "acme"] {
        assert_eq!(why(&[(RefreshToken, token)]), Ok(token.into()));
    }
}

#[test]
fn a_record_without_a_name_takes_the_one_that_is_given() {
    let record = [(Field::RefreshToken, "Atzr|x")];
    assert_eq!(read(&record).expect_err("refused").why, Rejection::NoAccount);
    let given = "shop".parse().expect("an alias");
    let known = BTreeSet::new();
    let reading =
        Reading { keys: None, known: &known, account: Some(&given), unnamed: None, now: NOW };
    assert_eq!(reading.read(draft(&record)).expect("an entry").alias, given);
    let named = |name| draft(&[record[0], (Field::Account, name)]);
    assert_eq!(reading.read(named("shop")).expect("an entry").alias, given);
    let other = reading.read(named("acme")).expect_err("refused").why;
    assert_eq!(other, Rejection::OtherName("acme".parse().expect("an alias"), given));
}

#[test]
fn a_name_that_is_a_secret_is_never_shown() {
    for (name, token) in [
        ("Atzr|CANARY-a-refresh-token", "acme"),
        ("CANARY-another-kind-of-token", "CANARY-another-kind-of-token"),
    ] {
        let rejected = read(&[(Field::Account, name), (Field::RefreshToken, token)]);
        let rejected = rejected.expect_err("refused");
        assert_eq!(rejected.why, Rejection::SecretName);
        assert_eq!(rejected.name, None);
    }
}

#[test]
fn an_access_token_is_taken_while_it_lives() {
    let token = |more: &[(Field, &str)]| {
        let all = [&[(Field::AccessToken, "Atza|x")], more].concat();
        acme(&all).expect("an entry").access_token
    };
    let valid = |issued_at, expires_at| {
        let token = Secret::from("Atza|x");
        AccessToken::Valid(StoredAccessToken { token, issued_at, expires_at })
    };
    let at = |secs: u64| secs.to_string();
    let expires = |secs: u64| (Field::ExpiresAt, at(secs));
    for (secs, expected) in [
        (NOW, AccessToken::Expired),
        (NOW + 1, valid(NOW + 1 - 3600, NOW + 1)),
        (NOW + 3600, valid(NOW, NOW + 3600)),
        // No access token lives that long: a local time was taken for UTC.
        (NOW + 3601, AccessToken::Expired),
    ] {
        let (field, text) = expires(secs);
        assert_eq!(token(&[(field, &text)]), expected, "{secs}");
    }
    assert_eq!(token(&[]), AccessToken::Expired);
    assert_eq!(token(&[(Field::ExpiresAt, "soon")]), AccessToken::Expired);
    let iso = (Field::ExpiresAt, "2026-11-20T00:30:00+00:00");
    assert_eq!(
        token(&[iso, (Field::UpdatedAt, "2026-11-19T23:45:00Z")]),
        valid(NOW - 900, NOW + 1800)
    );
    for wrong in ["2026-11-20T00:10:00Z", "1990-01-01", "x"] {
        assert_eq!(token(&[iso, (Field::UpdatedAt, wrong)]), valid(NOW - 1800, NOW + 1800));
    }
}
