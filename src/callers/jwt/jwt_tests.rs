//! Whole tokens against an issuer whose keys are known, and the cost of one.

use super::{
    samples::{
        ISSUER, NOW, Signer, algorithms, claims, clerk, clerk_claims, ec, issuer, other_rsa,
        published, rsa, with,
    },
    *,
};
use crate::{
    clock::ManualClock,
    config::{JwtAlgorithm, MetricsConfig},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// Issuers with the keys of `signers`, and one worker.
struct Scene {
    issuers: Issuers,
    cache: TokenCache<VerifiedJwt>,
    clock: ManualClock,
}

impl Scene {
    fn new(config: IssuerConfig, signers: &[&Signer]) -> Self {
        let metrics = Metrics::new(&MetricsConfig::default(), Arc::default());
        let issuers = Issuers::idle(&[config], &metrics);
        let scene = Self { issuers, cache: TokenCache::default(), clock: ManualClock::new() };
        let keys: Vec<_> = signers.iter().map(|signer| &signer.jwk).collect();
        scene.publish(&keys);
        scene
    }

    fn publish(&self, keys: &[&Value]) {
        self.issuers.issuers[0].keys.replace(&published(keys)).unwrap();
    }

    /// As a worker does it.
    fn verify(&self, token: &str) -> Result<VerifiedJwt, JwtRejection> {
        let (now, epoch) = (self.clock.now(), self.issuers.epoch());
        if let Some(known) = self.cache.get(token, epoch, now) {
            return Ok(known);
        }
        let verified = self
            .issuers
            .verify_now(token, now, &super::claims::verify)
            .map_err(|(_, cause)| cause)?;
        let ends = Duration::from_secs(verified.bearer.expires);
        self.cache.insert(token, epoch, now, ends, verified.clone());
        Ok(verified)
    }
}

fn usual() -> Scene {
    Scene::new(issuer(), &[rsa()])
}

#[test]
fn a_token_of_the_issuer_passes() {
    let scene = usual();
    let verified = scene.verify(&rsa().token(&claims())).unwrap();
    assert_eq!((verified.issuer, verified.bearer.subject.as_str()), (0, "user_1"));
    assert_eq!(verified.bearer.expires, NOW + 65);
}

#[test]
fn tokens_of_clerk_pass_by_session_and_templates_only_where_allowed() {
    let scene = Scene::new(clerk(), &[rsa()]);
    let session = clerk_claims();
    assert_eq!(
        scene.verify(&rsa().token(&session)).unwrap().bearer.session.as_deref(),
        Some("sess_1")
    );
    let template = rsa().token(&with(session, "sid", json!(null)));
    assert_eq!(scene.verify(&template), Err(JwtRejection::Session));
    let scene = Scene::new(IssuerConfig { require_sid: Some(false), ..clerk() }, &[rsa()]);
    assert!(scene.verify(&template).is_ok());
}

#[test]
fn the_algorithm_is_the_configurations() {
    let ec = ec();
    let scene = Scene::new(issuer(), &[rsa()]);
    assert_eq!(scene.verify(&ec.token(&claims())), Err(JwtRejection::Algorithm));
    let both = algorithms(issuer(), &[JwtAlgorithm::Rs256, JwtAlgorithm::Es256]);
    let scene = Scene::new(both, &[rsa(), &ec]);
    for signer in [rsa(), &ec] {
        assert!(scene.verify(&signer.token(&claims())).is_ok());
    }
    // The key of one under the name of the other's algorithm.
    let header = json!({ "alg": "ES256", "kid": "rsa" }).to_string();
    let token = rsa().sign(&header, &claims().to_string());
    assert_eq!(scene.verify(&token), Err(JwtRejection::UnknownKey));
}

#[test]
fn none_and_a_secret_made_of_the_public_key_are_refused() {
    use aws_lc_rs::hmac;
    let scene = usual();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let message = format!("{}.{}", part(&json!({ "alg": alg, "kid": "rsa" })), part(&claims()));
        for token in [format!("{message}."), format!("{message}.AA"), message.clone()] {
            let rejection = scene.verify(&token).unwrap_err();
            let is_known = [JwtRejection::Algorithm, JwtRejection::Malformed].contains(&rejection);
            assert!(is_known, "{alg} {rejection:?}");
        }
    }
    let n = rsa().jwk["n"].as_str().unwrap();
    let decoded = URL_SAFE_NO_PAD.decode(n).unwrap();
    let document = rsa().jwk.to_string();
    for secret in [n.as_bytes(), &decoded, document.as_bytes()] {
        for (alg, kind) in [("HS256", hmac::HMAC_SHA256), ("HS512", hmac::HMAC_SHA512)] {
            let header = json!({ "alg": alg, "kid": "rsa" });
            let message = format!("{}.{}", part(&header), part(&claims()));
            let tag = hmac::sign(&hmac::Key::new(kind, secret), message.as_bytes());
            let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
            assert_eq!(scene.verify(&token), Err(JwtRejection::Algorithm));
        }
    }
}

#[test]
fn a_header_that_brings_a_key_or_an_extension_is_refused() {
    let scene = usual();
    let jwk = &other_rsa().jwk;
    for (name, value) in [
        ("jwk", jwk.clone()),
        ("jku", json!("https://evil.example.com/jwks.json")),
        ("x5u", json!("https://evil.example.com/cert.pem")),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("enc", json!("A128GCM")),
    ] {
        for signer in [rsa(), other_rsa()] {
            let header = with(signer.header(), name, value.clone()).to_string();
            let token = signer.sign(&header, &claims().to_string());
            assert_eq!(scene.verify(&token), Err(JwtRejection::ForbiddenHeader), "{name}");
        }
    }
}

#[test]
fn two_algorithms_and_any_member_twice_are_refused() {
    let scene = usual();
    let good = claims().to_string();
    for header in [
        r#"{"alg":"RS256","alg":"none","kid":"rsa"}"#,
        r#"{"alg":"none","alg":"RS256","kid":"rsa"}"#,
        r#"{"alg":"RS256","kid":"rsa","kid":"rsa"}"#,
        r#"{"alg":["RS256","none"],"kid":"rsa"}"#,
        r#"{"alg":"RS256","kid":1}"#,
    ] {
        let rejection = scene.verify(&rsa().sign(header, &good)).unwrap_err();
        let is_known = [JwtRejection::Malformed, JwtRejection::Algorithm].contains(&rejection);
        assert!(is_known, "{header} {rejection:?}");
    }
    let twice = format!("{{\"sub\":\"a\",{}", &good[1..]);
    let token = rsa().sign(&rsa().header().to_string(), &twice);
    assert_eq!(scene.verify(&token), Err(JwtRejection::Malformed));
}

#[test]
fn tokens_of_other_kinds_are_refused() {
    let scene = usual();
    for (kind, is_good) in [
        (json!("JWT"), true),
        (json!("at+jwt"), true),
        (json!("application/at+jwt"), true),
        (json!(null), true),
        (json!("logout+jwt"), false),
        (json!("dpop+jwt"), false),
        (json!(1), false),
    ] {
        let header = with(rsa().header(), "typ", kind.clone()).to_string();
        let result = scene.verify(&rsa().sign(&header, &claims().to_string()));
        assert_eq!(result.is_ok(), is_good, "{kind}");
        assert!(result.is_ok() || result == Err(JwtRejection::Type), "{kind}");
    }
}

#[test]
fn another_issuer_another_key_and_another_text_are_refused() {
    let scene = usual();
    for iss in [json!("https://clerk.example.com/"), json!([ISSUER]), json!(null), json!(1)] {
        let token = rsa().token(&with(claims(), "iss", iss));
        assert_eq!(scene.verify(&token), Err(JwtRejection::UnknownIssuer));
    }
    assert_eq!(scene.verify(&other_rsa().token(&claims())), Err(JwtRejection::UnknownKey));
    let posing = other_rsa().sign(&rsa().header().to_string(), &claims().to_string());
    assert_eq!(scene.verify(&posing), Err(JwtRejection::Signature));
    let token = rsa().token(&claims());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let other = rsa().token(&with(claims(), "sub", json!("user_2")));
    let swapped = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
    assert_eq!(scene.verify(&swapped), Err(JwtRejection::Signature));
    assert_eq!(scene.verify(&format!("{message}.")), Err(JwtRejection::Signature));
}

#[test]
fn what_is_no_token_is_refused_before_any_of_it_is_decoded_if_long() {
    let scene = usual();
    let token = rsa().token(&claims());
    for text in ["", ".", "..", "...", "a.b.c", "eyJ.eyJ.eyJ", "é.é.é"] {
        assert_eq!(scene.verify(text), Err(JwtRejection::Malformed), "{text}");
    }
    for text in [format!("{token}.a"), format!(" {token}"), token.replacen('.', "=.", 1)] {
        assert_eq!(scene.verify(&text), Err(JwtRejection::Malformed), "{text}");
    }
    let long = rsa().token(&with(claims(), "pad", json!("x".repeat(8192))));
    assert_eq!(scene.verify(&long), Err(JwtRejection::TooLong));
    let fits = rsa().token(&with(claims(), "pad", json!("x".repeat(5000))));
    assert!(scene.verify(&fits).is_ok());
}

#[test]
fn a_token_ends_by_the_clock_also_when_it_is_remembered() {
    let scene = usual();
    let token = rsa().token(&claims());
    for step in [0, 30, 34] {
        scene.clock.advance(Duration::from_secs(step));
        assert!(scene.verify(&token).is_ok());
    }
    scene.clock.advance(Duration::from_secs(1));
    assert_eq!(scene.verify(&token), Err(JwtRejection::Expired));
}

#[test]
fn a_key_that_is_withdrawn_ends_its_tokens_also_when_they_are_remembered() {
    let scene = usual();
    let token = rsa().token(&claims());
    assert!(scene.verify(&token).is_ok());
    scene.publish(&[&other_rsa().jwk]);
    assert_eq!(scene.verify(&token), Err(JwtRejection::UnknownKey));
    assert!(scene.verify(&other_rsa().token(&claims())).is_ok());
}

#[test]
fn the_issuer_of_a_token_is_the_one_that_it_names() {
    let metrics = Metrics::new(&MetricsConfig::default(), Arc::default());
    let second = IssuerConfig { issuer: "https://b.example.com".into(), ..issuer() };
    let issuers = Issuers::idle(&[issuer(), second], &metrics);
    for (at, signer) in [rsa(), other_rsa()].into_iter().enumerate() {
        issuers.issuers[at].keys.replace(&published(&[&signer.jwk])).unwrap();
    }
    let now = ManualClock::new().now();
    let of_second = with(claims(), "iss", json!("https://b.example.com"));
    let found =
        issuers.verify_now(&other_rsa().token(&of_second), now, &super::claims::verify).unwrap();
    assert_eq!(found.issuer, 1);
    let posing = issuers.verify_now(&rsa().token(&of_second), now, &super::claims::verify);
    assert_eq!(posing.unwrap_err(), (Some(1), JwtRejection::UnknownKey));
}

#[tokio::test]
async fn a_listener_that_remembers_no_tokens_verifies_each_and_counts_failures() {
    use crate::{
        callers::{Callers, Configured, Proof, Unauthenticated, credential::Presented},
        inbound::peer::{ConnectionInfo, Origin, Peer},
    };
    let config = Config { issuers: vec![issuer()], ..Config::default() };
    let issuers = usual().issuers;
    let callers = Callers::with(&config, Configured::new(&config, issuers, None));
    assert!(callers.reads_tokens());
    let clock = ManualClock::new();
    let ask = async |token: &str, host: u8| {
        let origin = Origin::Address([10, 0, 0, host].into());
        callers.of_token(token, origin, &clock).await
    };
    let good = rsa().token(&claims());
    let principal = ask(&good, 1).await.unwrap();
    assert_eq!((&*principal.caller.name, principal.is_operator()), ("clerk", false));
    assert_eq!(principal.tenant, Some("user_1".parse().unwrap()));
    assert_eq!(principal.proof, Proof::Token { subject: "user_1".into(), session: None });
    // Of a key that is here: for others it waits.
    let bad = good[..good.len() - 8].to_owned() + "AAAAAAAA";
    for host in [2, 3] {
        for _ in 0..20 {
            assert_eq!(ask(&bad, host).await.unwrap_err(), Unauthenticated::Rejected);
        }
    }
    assert!(ask(&good, 2).await.is_ok(), "a new user behind the same address gets in");
    for _ in 0..20 {
        assert!(matches!(ask(&bad, 3).await, Err(Unauthenticated::TooMany(_))));
    }
    // Not even looked at, from there; elsewhere it is.
    assert!(matches!(ask(&good, 3).await, Err(Unauthenticated::TooMany(_))));
    assert!(ask(&good, 1).await.is_ok());
    clock.advance(Duration::from_secs(1));
    assert!(ask(&good, 3).await.is_ok(), "a second later it is");
    // Wrong keys are another matter.
    let peer = Peer::Tcp(([10, 0, 0, 4], 1).into());
    let connection = ConnectionInfo { peer, is_exposed: true, certificate: None };
    for number in 0..50 {
        let wrong = Presented::Key("adsk_wrong".into());
        let told = callers.authenticate(wrong, &connection, clock.now()).unwrap_err();
        assert_eq!(told == Unauthenticated::Rejected, number < 20, "{told:?}");
    }
    assert!(ask(&good, 4).await.is_ok());
}

/// What a token costs: `cargo test --release --lib callers::jwt -- --ignored --nocapture`.
#[test]
#[ignore = "measures, proves nothing"]
fn the_cost_of_a_token() {
    use std::time::Instant;
    let ec = ec();
    let both = algorithms(clerk(), &[JwtAlgorithm::Rs256, JwtAlgorithm::Es256]);
    let scene = Scene::new(both, &[rsa(), &ec]);
    let now = scene.clock.now();
    let each = |what: &str, count: u32, mut run: Box<dyn FnMut() + '_>| {
        let begun = Instant::now();
        (0..count).for_each(|_| run());
        println!("{what}: {:?}", begun.elapsed() / count);
    };
    for signer in [rsa(), &ec] {
        let token = signer.token(&clerk_claims());
        let verify =
            || drop(scene.issuers.verify_now(&token, now, &super::claims::verify).unwrap());
        each(&format!("{} verified, {} bytes", signer.id, token.len()), 2_000, Box::new(verify));
        let cached = || drop(scene.verify(&token).unwrap());
        each(&format!("{} remembered", signer.id), 200_000, Box::new(cached));
    }
    let garbage = other_rsa().token(&with(clerk_claims(), "iss", json!("x")));
    let reject = || assert!(scene.verify(&garbage).is_err());
    each("of no issuer", 20_000, Box::new(reject));
}
