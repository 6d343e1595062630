//! A sign-in under way: from the page of the dashboard to the provider's response.
//!
//! It is an entry in the store, so that the response may reach another server: good for ten minutes
//! and for one response, and bound to the browser by a cookie, so that neither the response to another
//! browser's sign-in nor one that was never asked for signs a browser in.

use super::{cookie, oidc::Failure, session::item};
use crate::{
    admin::AdminCall,
    callers::jwt::SignInEndpoints,
    config::{IssuerConfig, OidcConfig},
    login::{exposed, key_of},
    lwa::authorize::{challenge, random_text},
    secret::Secret,
    store::{Limit, Space},
};
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

/// From the way to the provider until the response.
const LIFETIME_SECS: u64 = 600;
/// Sign-ins under way.
const ATTEMPTS_MAX: usize = 3000;

/// What is kept of a sign-in under way.
#[derive(Serialize, Deserialize)]
pub(super) struct SignInAttempt {
    /// The name and the URL of the issuer.
    pub(super) name: String,
    pub(super) issuer: String,
    pub(super) client_id: String,
    pub(super) token_url: String,
    pub(super) takes_basic: bool,
    pub(super) names_issuer: bool,
    pub(super) redirect_uri: String,
    #[serde(with = "exposed")]
    pub(super) verifier: Secret,
    #[serde(with = "exposed")]
    pub(super) nonce: Secret,
    /// The hash of what the cookie holds.
    #[serde(with = "exposed")]
    cookie: Secret,
    /// Where to go then.
    pub(super) next: String,
    /// The provider was to authenticate the person again.
    pub(super) is_fresh: bool,
    /// In seconds since 1970.
    pub(super) begun: u64,
}

/// A sign-in that was begun.
pub(super) struct BegunAttempt {
    /// Where the browser is to go.
    pub(super) url: String,
    pub(super) cookie: HeaderValue,
}

/// Begins a sign-in at `issuer`, which has `endpoints`, for the browser of `call`.
pub(super) async fn begin(
    call: &AdminCall,
    (oidc, issuer): (&OidcConfig, &IssuerConfig),
    endpoints: &SignInEndpoints,
    redirect_uri: String,
    (next, is_fresh): (String, bool),
) -> Result<BegunAttempt, Failure> {
    let (state, cookie, now) = (random_text(), random_text(), call.admin.unix_now());
    let attempt = SignInAttempt {
        name: issuer.name.clone(),
        issuer: issuer.issuer.clone(),
        client_id: oidc.client_id.clone(),
        token_url: endpoints.token.clone(),
        takes_basic: endpoints.takes_basic,
        names_issuer: endpoints.names_issuer,
        redirect_uri,
        verifier: random_text(),
        nonce: random_text(),
        cookie: Secret::new(key_of(cookie.expose())),
        next,
        is_fresh,
        begun: now,
    };
    let (key, limit) =
        (key_of(state.expose()), Limit { max: ATTEMPTS_MAX, now_ms: now.saturating_mul(1000) });
    let attempts = call.logins.engine.store().entries(Space::SignInAttempts);
    attempts.put(&key, &item(&attempt, now + LIFETIME_SECS), limit).await?;
    let name = cookie_name(&key, &attempt.redirect_uri);
    let age = format!("; Max-Age={LIFETIME_SECS}");
    let cookie = cookie::line(&name, cookie.expose(), attempt.is_secure(), &age);
    Ok(BegunAttempt { url: attempt.url(oidc, &endpoints.authorization, &state), cookie })
}

/// The sign-in that `state` is of, taken: no other response gets it. With the cookie that goes with it.
pub(super) async fn claim(
    call: &AdminCall,
    state: &str,
) -> Result<(SignInAttempt, HeaderValue), Failure> {
    let (key, headers) = (key_of(state), &call.parts.headers);
    let attempts = call.logins.engine.store().entries(Space::SignInAttempts);
    let read = |item: crate::store::Item| -> Option<SignInAttempt> {
        serde_json::from_str(item.text.expose()).ok()
    };
    let attempt = attempts.get(&key).await?.and_then(read).ok_or(Failure::Unknown)?;
    let name = cookie_name(&key, &attempt.redirect_uri);
    // Before it is taken: who has seen the state alone must not end the sign-in.
    if !is_bound(headers, &name, &attempt) {
        return Err(Failure::OtherBrowser);
    }
    attempts.take(&key).await?.ok_or(Failure::Unknown)?;
    // A clock that was set back must not keep a sign-in alive.
    let now = call.admin.unix_now();
    if now >= attempt.begun + LIFETIME_SECS || attempt.begun > now + 60 {
        return Err(Failure::TooLate);
    }
    let removal = cookie::line(&name, "", attempt.is_secure(), "; Max-Age=0");
    Ok((attempt, removal))
}

fn is_bound(headers: &HeaderMap, name: &str, attempt: &SignInAttempt) -> bool {
    let held = cookie::single(headers, name);
    held.is_some_and(|held| Secret::new(key_of(held.expose())) == attempt.cookie)
}

impl SignInAttempt {
    /// Whether the browser comes back by HTTPS.
    pub(super) fn is_secure(&self) -> bool {
        self.redirect_uri.starts_with("https://")
    }

    /// The page of the provider, which sends the browser back with `state`.
    fn url(&self, oidc: &OidcConfig, authorization: &str, state: &Secret) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.client_id)
            .append_pair("scope", &oidc.scopes.join(" "))
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("state", state.expose())
            .append_pair("nonce", self.nonce.expose())
            .append_pair("code_challenge", &challenge(&self.verifier))
            .append_pair("code_challenge_method", "S256");
        if self.is_fresh {
            // Both: some providers know one of them only.
            query.append_pair("prompt", "login").append_pair("max_age", "0");
        }
        let separator = if authorization.contains('?') { '&' } else { '?' };
        format!("{authorization}{separator}{}", query.finish())
    }
}

/// The cookie of the sign-in that is kept as `key`: each has its own, so that two tabs do not disturb
/// each other. By HTTPS no page of another host can set it.
fn cookie_name(key: &str, redirect_uri: &str) -> String {
    let prefix = if redirect_uri.starts_with("https://") { "__Host-" } else { "" };
    format!("{prefix}adsproxy_oidc_{}", &key[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(is_fresh: bool) -> SignInAttempt {
        SignInAttempt {
            name: "op".to_owned(),
            issuer: "https://op.example.com".to_owned(),
            client_id: "us".to_owned(),
            token_url: "https://op.example.com/token".to_owned(),
            takes_basic: true,
            names_issuer: false,
            redirect_uri: "https://ads.example.com/dashboard/oidc/callback".to_owned(),
            verifier: "CANARY-verifier".into(),
            nonce: "n".into(),
            cookie: "c".into(),
            next: "/dashboard".to_owned(),
            is_fresh,
            begun: 0,
        }
    }

    #[test]
    fn the_address_names_everything_once_and_does_not_hold_the_verifier() {
        let oidc = OidcConfig {
            scopes: ["openid", "email"].map(str::to_owned).into(),
            ..OidcConfig::default()
        };
        let url =
            |is_fresh| attempt(is_fresh).url(&oidc, "https://op.example.com/auth", &"s".into());
        let challenge = challenge(&"CANARY-verifier".into());
        let expected = format!(
            "https://op.example.com/auth?response_type=code&client_id=us&scope=openid+email\
             &redirect_uri=https%3A%2F%2Fads.example.com%2Fdashboard%2Foidc%2Fcallback&state=s&nonce=n\
             &code_challenge={challenge}&code_challenge_method=S256"
        );
        assert_eq!(url(false), expected);
        assert_eq!(url(true), expected + "&prompt=login&max_age=0");
        let with_query = attempt(false).url(&oidc, "https://op.example.com/auth?p=1", &"s".into());
        assert!(with_query.starts_with("https://op.example.com/auth?p=1&response_type=code&"));
    }

    #[test]
    fn the_cookie_is_the_hosts_alone_by_https() {
        let key = key_of("state");
        let name = |uri: &str| cookie_name(&key, uri);
        assert!(name("https://a/").starts_with("__Host-adsproxy_oidc_"));
        assert!(name("http://localhost:1/").starts_with("adsproxy_oidc_"));
        assert_ne!(name("http://a"), cookie_name(&key_of("other"), "http://a"));
    }
}
