//! The address of the consent page: PKCE S256 always, a state, the exact return address.
//!
//! Source: RFC 7636; Amazon's authorization grants page, read 2026-11-20. Without a method Amazon
//! takes a challenge for a plain one, so the method is always named.

use super::{Application, wire::percent_encode};
use crate::{id::Region, provider::ads, secret::Secret};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// 256 random bits as 43 characters that need no escape anywhere.
pub fn random_text() -> Secret {
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *bytes).expect("the system's random generator works");
    Secret::new(URL_SAFE_NO_PAD.encode(*bytes))
}

/// The S256 challenge of a PKCE verifier.
pub fn challenge(verifier: &Secret) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.expose().as_bytes()))
}

/// Where a browser is sent to consent; it comes back with `state`.
pub fn url(
    application: &Application,
    region: Option<Region>,
    state: &Secret,
    verifier: &Secret,
) -> String {
    let mut url = page(application, region);
    let mut separator = if url.contains('?') { '&' } else { '?' };
    for (name, value) in [
        ("client_id", application.client_id()),
        ("scope", &application.config.scopes.join(" ")),
        ("response_type", "code"),
        ("redirect_uri", &application.config.redirect_uri),
        ("state", state.expose()),
        ("code_challenge", &challenge(verifier)),
        ("code_challenge_method", "S256"),
    ] {
        url.push(separator);
        url.push_str(name);
        url.push('=');
        percent_encode(value, &mut url);
        separator = '&';
    }
    url
}

/// The region's own page, unless another than the default is configured.
fn page(application: &Application, region: Option<Region>) -> String {
    match (application.config.authorize_url.to_string(), region) {
        (configured, Some(region)) if configured == ads::AUTHORIZE_URL => {
            ads::authorize_url(region).to_owned()
        }
        (configured, _) => configured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn application(authorize_url: &str) -> Application {
        let config = config::ApplicationConfig {
            client_id: "id.1".into(),
            client_secrets: vec!["CANARY-secret".into()],
            token_url: "https://api.amazon.com/auth/o2/token".parse().expect("a URL"),
            fallback_token_urls: Vec::new(),
            authorize_url: authorize_url.parse().expect("a URL"),
            redirect_uri: "http://localhost:8788/api/auth/amazon/callback".into(),
            scopes: vec!["advertising::campaign_management".into(), "profile".into()],
            ..config::ApplicationConfig::default()
        };
        Application::new("default", &config)
    }

    #[test]
    fn the_address_names_everything_once_and_holds_neither_secret_nor_verifier() {
        let (state, verifier) = (Secret::from("the-state"), Secret::from("CANARY-verifier"));
        let url = url(&application(ads::AUTHORIZE_URL), None, &state, &verifier);
        let challenge = challenge(&verifier);
        assert_eq!(
            url,
            format!(
                "https://www.amazon.com/ap/oa?client_id=id.1\
                 &scope=advertising%3A%3Acampaign_management%20profile&response_type=code\
                 &redirect_uri=http%3A%2F%2Flocalhost%3A8788%2Fapi%2Fauth%2Famazon%2Fcallback\
                 &state=the-state&code_challenge={challenge}&code_challenge_method=S256"
            )
        );
        assert!(!url.contains("CANARY"));
    }

    #[test]
    fn each_region_has_its_page_unless_one_is_configured() {
        let (state, verifier) = (Secret::from("s"), Secret::from("v"));
        let host = |authorize_url: &str, region| {
            let url = url(&application(authorize_url), region, &state, &verifier);
            url.split('?').next().expect("a first part").to_owned()
        };
        assert_eq!(host(ads::AUTHORIZE_URL, None), ads::AUTHORIZE_URL);
        assert_eq!(host(ads::AUTHORIZE_URL, Some(Region::Na)), ads::AUTHORIZE_URL);
        assert_eq!(
            host(ads::AUTHORIZE_URL, Some(Region::Eu)),
            "https://eu.account.amazon.com/ap/oa"
        );
        assert_eq!(
            host(ads::AUTHORIZE_URL, Some(Region::Fe)),
            "https://apac.account.amazon.com/ap/oa"
        );
        for region in [None, Some(Region::Eu), Some(Region::Fe)] {
            assert_eq!(host("http://127.0.0.1:1/ap/oa", region), "http://127.0.0.1:1/ap/oa");
        }
    }

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        // RFC 7636, appendix B.
        let verifier = Secret::from("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(challenge(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn random_texts_have_256_bits_and_differ() {
        let (one, two) = (random_text(), random_text());
        assert_eq!(URL_SAFE_NO_PAD.decode(one.expose()).expect("base64").len(), 32);
        assert_ne!(one, two);
    }
}
