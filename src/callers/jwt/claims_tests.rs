//! What claims must say, case by case.

use super::*;
use crate::callers::jwt::samples::{NOW, claims, clerk, clerk_claims, issuer, with};
use serde_json::json;
use std::time::Duration;

fn verified(claims: &Value, issuer: &IssuerConfig) -> Result<Bearer, JwtRejection> {
    verify(claims.as_object().unwrap(), issuer, NOW)
}

fn rejection(claims: &Value, issuer: &IssuerConfig) -> JwtRejection {
    verified(claims, issuer).expect_err("the claims are not good enough")
}

#[test]
fn good_claims_name_subject_session_tenant_and_end() {
    let bearer = verified(&clerk_claims(), &clerk()).unwrap();
    let tenant = Some("org_1".parse().unwrap());
    let session = Some("sess_1".to_owned());
    assert_eq!(bearer, Bearer { subject: "user_1".into(), session, tenant, expires: NOW + 65 });
    let bearer = verified(&claims(), &issuer()).unwrap();
    assert_eq!((bearer.session, bearer.tenant), (None, Some("user_1".parse().unwrap())));
}

#[test]
fn the_end_is_demanded_and_the_leeway_counts() {
    for (exp, is_good) in [
        (json!(NOW + 1), true),
        (json!(NOW - 4), true),
        (json!(NOW - 5), false),
        (json!(0), false),
        (json!(-1), false),
        (json!(NOW as f64 + 60.5), false),
        (json!(1e300), false),
        (json!(u64::MAX), true),
        (json!((NOW + 60).to_string()), false),
        (json!([NOW + 60]), false),
        (json!(null), false),
    ] {
        let result = verified(&with(claims(), "exp", exp.clone()), &issuer());
        assert_eq!(result.is_ok(), is_good, "{exp}");
        assert!(result.is_ok() || result == Err(JwtRejection::Expired), "{exp}");
    }
    let strict = IssuerConfig { leeway: Duration::ZERO, ..issuer() };
    assert!(verified(&with(claims(), "exp", json!(NOW + 1)), &strict).is_ok());
    assert!(verified(&with(claims(), "exp", json!(NOW)), &strict).is_err());
}

#[test]
fn a_token_from_the_future_is_refused() {
    for name in ["nbf", "iat"] {
        for (time, is_good) in [
            (json!(NOW + 5), true),
            (json!(NOW + 6), false),
            (json!(u64::MAX), false),
            (json!("soon"), false),
            (json!(-5), false),
            (json!(0), true),
        ] {
            let result = verified(&with(claims(), name, time.clone()), &issuer());
            assert_eq!(result.is_ok(), is_good, "{name} {time}");
            assert!(result.is_ok() || result == Err(JwtRejection::NotYetValid), "{name} {time}");
        }
        assert!(verified(&with(claims(), name, Value::Null), &issuer()).is_ok(), "{name}");
    }
}

#[test]
fn a_token_for_another_audience_or_none_is_refused() {
    for aud in [json!("adsproxy"), json!(["other", "adsproxy"])] {
        assert!(verified(&with(claims(), "aud", aud), &issuer()).is_ok());
    }
    for aud in [
        json!(null),
        json!("other"),
        json!(["other"]),
        json!([]),
        json!(["other", ["adsproxy"]]),
        json!({ "adsproxy": 1 }),
        json!("adsproxy "),
        json!(1),
    ] {
        let claims = with(claims(), "aud", aud.clone());
        assert_eq!(rejection(&claims, &issuer()), JwtRejection::Audience, "{aud}");
    }
}

#[test]
fn a_token_for_an_audience_is_refused_where_none_is_configured() {
    let claims = with(clerk_claims(), "aud", json!("hasura"));
    assert_eq!(rejection(&claims, &clerk()), JwtRejection::Audience);
}

#[test]
fn the_party_must_be_listed_and_may_be_absent_only_where_that_is_said() {
    for party in [json!("https://evil.example.com"), json!(["https://app.example.com"]), json!(1)] {
        for require_azp in [true, false] {
            let issuer = IssuerConfig { require_azp, ..clerk() };
            let claims = with(clerk_claims(), "azp", party.clone());
            assert_eq!(rejection(&claims, &issuer), JwtRejection::AuthorizedParty, "{party}");
        }
    }
    let absent = with(clerk_claims(), "azp", json!(null));
    assert_eq!(rejection(&absent, &clerk()), JwtRejection::AuthorizedParty);
    assert!(verified(&absent, &IssuerConfig { require_azp: false, ..clerk() }).is_ok());
    // Without a list the audience alone decides.
    assert!(verified(&with(claims(), "azp", json!("any")), &issuer()).is_ok());
}

#[test]
fn a_template_token_has_no_session_and_is_refused_unless_that_is_allowed() {
    let template = with(clerk_claims(), "sid", json!(null));
    assert_eq!(rejection(&template, &clerk()), JwtRejection::Session);
    let issuer = IssuerConfig { require_sid: Some(false), ..clerk() };
    assert_eq!(verified(&template, &issuer).unwrap().session, None);
    for sid in [json!(""), json!(1), json!("s\n")] {
        let claims = with(clerk_claims(), "sid", sid);
        assert_eq!(rejection(&claims, &clerk()), JwtRejection::Session);
    }
}

#[test]
fn an_issuer_of_audiences_demands_a_session_only_where_that_is_said() {
    let issuer = IssuerConfig { require_sid: Some(true), ..issuer() };
    assert_eq!(rejection(&claims(), &issuer), JwtRejection::Session);
    assert!(verified(&with(claims(), "sid", json!("s")), &issuer).is_ok());
}

#[test]
fn a_pending_session_is_none() {
    let claims = with(clerk_claims(), "sts", json!("pending"));
    assert_eq!(rejection(&claims, &clerk()), JwtRejection::Session);
}

#[test]
fn a_subject_is_demanded_that_can_stand_in_a_log() {
    for sub in [json!(null), json!(""), json!(7), json!("a\nb"), json!("x".repeat(256))] {
        let claims = with(claims(), "sub", sub);
        assert_eq!(rejection(&claims, &issuer()), JwtRejection::Subject);
    }
}

#[test]
fn the_tenant_is_the_first_claim_that_is_there() {
    let tenant =
        |claims: &Value| verified(claims, &clerk()).map(|it| it.tenant.unwrap().to_string());
    // Version 1 has the organisation beside the others.
    let v1 = with(with(clerk_claims(), "o", json!(null)), "org_id", json!("org_2"));
    assert_eq!(tenant(&v1).unwrap(), "org_2");
    assert_eq!(tenant(&with(clerk_claims(), "org_id", json!("org_2"))).unwrap(), "org_2");
    assert_eq!(tenant(&clerk_claims()).unwrap(), "org_1");
    let alone = with(clerk_claims(), "o", json!(null));
    assert_eq!(tenant(&alone).unwrap(), "user_1");
    let mut null = clerk_claims();
    null["org_id"] = Value::Null;
    assert_eq!(tenant(&null).unwrap(), "org_1");
}

#[test]
fn a_tenant_that_is_no_name_is_refused_and_the_next_claim_not_asked() {
    for org in [json!("a/b"), json!("a~b"), json!(""), json!(".a"), json!(7), json!(["a"])] {
        let claims = with(clerk_claims(), "org_id", org);
        assert_eq!(rejection(&claims, &clerk()), JwtRejection::Tenant);
    }
    let issuer = IssuerConfig { tenant_claim: vec!["org_id".into()], ..clerk() };
    assert_eq!(rejection(&clerk_claims(), &issuer), JwtRejection::Tenant);
    let issuer = IssuerConfig { tenant_claim: Vec::new(), ..clerk() };
    assert_eq!(verified(&clerk_claims(), &issuer).unwrap().tenant, None);
}

#[test]
fn a_claim_with_dots_in_its_name_is_found() {
    let issuer = IssuerConfig { tenant_claim: vec!["https://example.com/org".into()], ..issuer() };
    let claims = with(claims(), "https://example.com/org", json!("t1"));
    assert_eq!(verified(&claims, &issuer).unwrap().tenant, Some("t1".parse().unwrap()));
}
