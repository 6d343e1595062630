//! The OpenID provider that signs people in: where it is, a code for an ID token, what that says.
//!
//! It knows neither browsers nor pages. Nothing of a response's text leaves this module except known
//! error codes: a provider may echo what was sent.
//!
//! Source: OpenID Connect Core 1.0, 3.1; RFC 6749, 4.1.3 and 2.3.1.

use super::{
    Callers,
    jwt::{Bearer, IdTokenRules, JwtRejection, SignInEndpoints, SourceError, sign_in_endpoints},
};
use crate::{clock::Clock, config::OidcConfig, https::LwaHttp, secret::Secret};
use http::{
    StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde::Deserialize;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Mutex, time::timeout};
use zeroize::Zeroizing;

/// For a discovery document or a code, the response included. A person waits; less than the timeout of
/// the client, so that it is known which of both it was.
const TIMEOUT: Duration = Duration::from_secs(8);
/// How long a discovery document is used, and how long after a failure the next one is read.
const DISCOVERED_FOR: Duration = Duration::from_secs(600);
const FAILED_FOR: Duration = Duration::from_secs(5);
/// The largest response that is read, bytes.
const RESPONSE_MAX_BYTES: usize = 64 * 1024;

/// Why a provider gives no usable ID token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OidcError {
    #[error("the discovery document cannot be used")]
    Discovery(#[source] Arc<SourceError>),
    #[error("the provider does not respond within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("the token endpoint cannot be reached")]
    Unreachable(#[source] Arc<reqwest::Error>),
    /// With one of [`KNOWN`], or `unknown`.
    #[error("the token endpoint responds {status} ({code})")]
    Refused { status: StatusCode, code: &'static str },
    #[error("the response of the token endpoint holds no ID token")]
    NoIdToken,
    #[error("the ID token: {0}")]
    IdToken(JwtRejection),
}

/// What a token endpoint may say is wrong.
const KNOWN: [&str; 6] = [
    "invalid_grant",
    "invalid_client",
    "unauthorized_client",
    "invalid_request",
    "invalid_scope",
    "unsupported_grant_type",
];

/// The last discovery document; held while one is read, so that one request serves all.
pub(super) type Discovery = Mutex<Option<KnownEndpoints>>;

/// What was read, of which issuer, and until when it counts.
#[derive(Debug)]
pub(super) struct KnownEndpoints {
    issuer: String,
    until: Instant,
    found: Result<SignInEndpoints, OidcError>,
}

/// What is exchanged for an ID token.
#[derive(Debug)]
pub struct CodeExchange<'e> {
    pub token_url: &'e str,
    pub takes_basic: bool,
    pub code: &'e Secret,
    /// The return address, as the provider was given it.
    pub redirect_uri: &'e str,
    pub verifier: &'e Secret,
}

#[derive(Deserialize)]
struct TokenResponse {
    id_token: Option<Secret>,
}

#[derive(Deserialize)]
struct TokenRejection {
    error: String,
}

impl Callers {
    /// Where people sign in at `issuer`. Its document is read once in ten minutes; a failure counts for
    /// five seconds.
    ///
    /// # Errors
    /// `Discovery` and `Timeout`.
    ///
    /// # Cancel safety
    /// Safe: the next caller reads it.
    pub async fn sign_in_endpoints(
        &self,
        http: &LwaHttp,
        issuer: &str,
    ) -> Result<SignInEndpoints, OidcError> {
        let known = &mut *self.discovery.lock().await;
        if let Some(one) = known
            && one.issuer == issuer
            && Instant::now() < one.until
        {
            return one.found.clone();
        }
        let read = timeout(TIMEOUT, sign_in_endpoints(http, issuer)).await;
        let found = match read {
            Ok(found) => found.map_err(|error| OidcError::Discovery(Arc::new(error))),
            Err(_) => Err(OidcError::Timeout),
        };
        let lasts = if found.is_ok() { DISCOVERED_FOR } else { FAILED_FOR };
        let until = Instant::now() + lasts;
        *known = Some(KnownEndpoints { issuer: issuer.to_owned(), until, found: found.clone() });
        found
    }

    /// Who the ID token says has signed in, by the keys and rules of its issuer. May wait for the keys,
    /// 2 s at most.
    ///
    /// # Errors
    /// `IdToken`.
    pub async fn of_id_token(
        &self,
        token: &Secret,
        rules: &IdTokenRules<'_>,
        clock: &dyn Clock,
    ) -> Result<Bearer, OidcError> {
        let configured = self.configured();
        let verified = configured.issuers().verify_id_token(token.expose(), rules, clock).await;
        verified.map_err(OidcError::IdToken)
    }
}

/// Exchanges a code for an ID token. Asks once, as a code works once; but a provider that does not know
/// the client by the head of the request is asked again with the secret in the body: providers list what
/// they take, and each client may have one way only.
///
/// # Errors
/// `Timeout`, `Unreachable`, `Refused`, `NoIdToken`.
///
/// # Cancel safety
/// The code may be used up.
pub async fn exchange(
    http: &LwaHttp,
    client: &OidcConfig,
    exchange: &CodeExchange<'_>,
) -> Result<Secret, OidcError> {
    let is_unknown = |error: &OidcError| {
        matches!(error, OidcError::Refused { code: "invalid_client" | "unauthorized_client", .. })
    };
    let ask = async {
        let in_head = exchange.takes_basic && client.client_secret.is_some();
        match ask(http, client, exchange, in_head).await {
            Err(error) if in_head && is_unknown(&error) => ask(http, client, exchange, false).await,
            result => result,
        }
    };
    timeout(TIMEOUT, ask).await.unwrap_or(Err(OidcError::Timeout))
}

/// One request; the secret goes `in_head` or into the body.
async fn ask(
    http: &LwaHttp,
    client: &OidcConfig,
    exchange: &CodeExchange<'_>,
    in_head: bool,
) -> Result<Secret, OidcError> {
    let uri: Uri = exchange.token_url.parse().unwrap_or_default();
    let mut request = http.client(&uri).post(exchange.token_url);
    if let Some(secret) = client.client_secret.as_ref().filter(|_| in_head) {
        let [id, secret] = [&client.client_id, secret.expose()].map(encoded);
        request = request.basic_auth(id.as_str(), Some(secret.as_str()));
    }
    let request = request
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form(client, exchange, in_head));
    let failed = |error: reqwest::Error| OidcError::Unreachable(Arc::new(error.without_url()));
    let mut response = request.send().await.map_err(failed)?;
    let mut body = Zeroizing::new(Vec::with_capacity(RESPONSE_MAX_BYTES));
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > RESPONSE_MAX_BYTES {
            return Err(OidcError::NoIdToken);
        }
        body.extend_from_slice(&chunk);
    }
    read(response.status(), &body)
}

fn form(client: &OidcConfig, exchange: &CodeExchange<'_>, in_head: bool) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "authorization_code")
        .append_pair("code", exchange.code.expose())
        .append_pair("redirect_uri", exchange.redirect_uri)
        .append_pair("code_verifier", exchange.verifier.expose());
    if !in_head {
        form.append_pair("client_id", &client.client_id);
        if let Some(secret) = &client.client_secret {
            form.append_pair("client_secret", secret.expose());
        }
    }
    form.finish()
}

/// As a part of a form, which parts of Basic are, too (RFC 6749, 2.3.1).
fn encoded(text: &str) -> Zeroizing<String> {
    Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect())
}

/// The parser's messages could quote the response, so they are dropped.
fn read(status: StatusCode, body: &[u8]) -> Result<Secret, OidcError> {
    if status == StatusCode::OK {
        let said: Option<TokenResponse> = serde_json::from_slice(body).ok();
        return said.and_then(|said| said.id_token).ok_or(OidcError::NoIdToken);
    }
    let said: Option<TokenRejection> = serde_json::from_slice(body).ok();
    let code = said.and_then(|said| KNOWN.into_iter().find(|code| *code == said.error));
    Err(OidcError::Refused { status, code: code.unwrap_or("unknown") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The form of a client with `secret`.
    fn form_with(secret: Option<&str>, in_head: bool) -> String {
        let client = OidcConfig {
            client_id: "us".to_owned(),
            client_secret: secret.map(Secret::from),
            ..OidcConfig::default()
        };
        let exchange = CodeExchange {
            token_url: "https://op.example.com/token",
            takes_basic: true,
            code: &"c+/&".into(),
            redirect_uri: "https://ads.example.com/dashboard/oidc/callback",
            verifier: &"v".into(),
        };
        form(&client, &exchange, in_head)
    }

    #[test]
    fn a_client_shows_its_secret_in_one_place_and_a_public_one_its_id_alone() {
        let form = form_with(Some("s3 cret"), false);
        let begins = "grant_type=authorization_code&code=c%2B%2F%26&redirect_uri=https%3A%2F%2F";
        assert!(form.starts_with(begins), "{form}");
        assert!(form.ends_with("&client_id=us&client_secret=s3+cret"), "{form}");
        assert!(form_with(Some("s3 cret"), true).ends_with("&code_verifier=v"));
        assert!(form_with(None, false).ends_with("&code_verifier=v&client_id=us"));
    }

    #[test]
    fn of_a_response_nothing_but_a_token_and_known_codes_is_read() {
        let said = |status: u16, body: &str| {
            read(StatusCode::from_u16(status).expect("a status"), body.as_bytes())
        };
        let token = said(200, r#"{"id_token":"eyJ.CANARY.x","access_token":7}"#);
        assert_eq!(token.expect("a token").expose(), "eyJ.CANARY.x");
        for body in ["", "{}", "[]", r#"{"id_token":7}"#, "<html>CANARY"] {
            assert!(matches!(said(200, body), Err(OidcError::NoIdToken)), "{body}");
        }
        for (status, body, expected) in [
            (400, r#"{"error":"invalid_grant","error_description":"CANARY"}"#, "invalid_grant"),
            (401, r#"{"error":"invalid_client"}"#, "invalid_client"),
            (400, r#"{"error":"CANARY"}"#, "unknown"),
            (302, "", "unknown"),
            (503, "<html>CANARY", "unknown"),
        ] {
            let error = said(status, body).expect_err("no token");
            assert!(
                matches!(error, OidcError::Refused { code, .. } if code == expected),
                "{error}"
            );
            assert!(!format!("{error} {error:?}").contains("CANARY"));
        }
    }
}
