//! What an ID token must say, case by case.

use super::*;
use crate::callers::jwt::samples::{ISSUER, NOW, claims, clerk, issuer, with};
use serde_json::json;

const CLIENT: &str = "dashboard";

fn id_token() -> Value {
    with(with(claims(), "aud", json!(CLIENT)), "nonce", json!("n-1"))
}

fn verified(
    claims: &Value,
    issuer: &IssuerConfig,
    since: Option<u64>,
) -> Result<Bearer, JwtRejection> {
    let rules = IdTokenRules {
        issuer: ISSUER,
        client_id: CLIENT,
        nonce: &"n-1".into(),
        authenticated_since: since,
        operators: &["boss".to_owned()],
    };
    verify_id_token(claims.as_object().unwrap(), issuer, &rules, NOW)
}

#[test]
fn a_good_one_names_subject_and_tenant_and_needs_no_audience_of_credentials() {
    let bearer = verified(&id_token(), &issuer(), None).unwrap();
    assert_eq!((&*bearer.subject, bearer.tenant), ("user_1", Some("user_1".parse().unwrap())));
    // That of a page's session needs a session id and the page as its party.
    assert!(verified(&id_token(), &clerk(), None).is_ok());
}

#[test]
fn it_is_for_the_client_that_asked_and_for_no_other_party() {
    let case = |aud: Value, azp: Value| {
        verified(&with(with(id_token(), "aud", aud), "azp", azp), &issuer(), None)
    };
    let (audience, party) = (Err(JwtRejection::Audience), Err(JwtRejection::AuthorizedParty));
    assert!(case(json!([CLIENT]), json!(null)).is_ok());
    assert!(case(json!(CLIENT), json!(CLIENT)).is_ok());
    assert!(case(json!([CLIENT, "api"]), json!(CLIENT)).is_ok());
    for aud in [json!("adsproxy"), json!(["other"]), json!([]), json!(null), json!({}), json!(1)] {
        assert_eq!(case(aud.clone(), json!(CLIENT)), audience, "{aud}");
    }
    for azp in [json!("other"), json!([CLIENT]), json!(1)] {
        assert_eq!(case(json!(CLIENT), azp.clone()), party, "{azp}");
    }
    assert_eq!(case(json!([CLIENT, "api"]), json!(null)), party, "which of both asked?");
}

#[test]
fn it_is_of_this_sign_in_of_this_issuer_and_of_now() {
    for (name, value, why) in [
        ("nonce", json!("n-2"), JwtRejection::Nonce),
        ("nonce", json!(null), JwtRejection::Nonce),
        ("nonce", json!(["n-1"]), JwtRejection::Nonce),
        ("nonce", json!(""), JwtRejection::Nonce),
        ("exp", json!(NOW - 5), JwtRejection::Expired),
        ("exp", json!(null), JwtRejection::Expired),
        ("iat", json!(NOW + 60), JwtRejection::NotYetValid),
        ("sub", json!(null), JwtRejection::Subject),
        ("sub", json!("a\nb"), JwtRejection::Subject),
        ("sub", json!("no/tenant"), JwtRejection::Tenant),
    ] {
        let claims = with(id_token(), name, value.clone());
        assert_eq!(verified(&claims, &issuer(), None), Err(why), "{name}: {value}");
    }
    let other = IssuerConfig { issuer: "https://b.example.com".to_owned(), ..issuer() };
    assert_eq!(verified(&id_token(), &other, None), Err(JwtRejection::UnknownIssuer));
}

#[test]
fn a_person_who_was_to_be_asked_again_was() {
    let at = |time: Value| verified(&with(id_token(), "auth_time", time), &issuer(), Some(NOW));
    for good in [json!(null), json!(NOW), json!(NOW - 5), json!(NOW + 1)] {
        assert!(at(good.clone()).is_ok(), "{good}");
    }
    for wrong in [json!(NOW - 6), json!("now"), json!(-1)] {
        assert_eq!(at(wrong.clone()), Err(JwtRejection::Authentication), "{wrong}");
    }
    let old = with(id_token(), "auth_time", json!(0));
    assert!(verified(&old, &issuer(), None).is_ok(), "the twin: nobody was to be asked");
}

#[test]
fn an_operator_needs_no_tenant_and_nobody_else_is_one() {
    let of = |sub: &str, tenants: &str| {
        let config = IssuerConfig { tenant_claim: vec![tenants.to_owned()], ..issuer() };
        verified(&with(id_token(), "sub", json!(sub)), &config, None)
    };
    assert_eq!(of("boss", "org_id").unwrap().tenant, None);
    assert_eq!(of("boss", "sub").unwrap().tenant, None, "the list decides");
    for other in ["boss2", "Boss", "bos"] {
        assert_eq!(of(other, "org_id"), Err(JwtRejection::Tenant), "{other}");
    }
}
