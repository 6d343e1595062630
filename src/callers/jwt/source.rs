//! Where an issuer's keys are read from: a file, a URL, or what its discovery document names.
//!
//! Source: OpenID Connect Discovery 1.0, section 4.

use super::key_set::DOCUMENT_MAX_BYTES;
use crate::{config::IssuerConfig, https::LwaHttp};
use http::{StatusCode, Uri};
use serde::Deserialize;
use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

/// Why a document cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot read {path}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{url} cannot be reached")]
    Unreachable { url: String, source: reqwest::Error },
    #[error("{url} responds {status}{}", redirect(*.status))]
    Status { url: String, status: StatusCode },
    #[error("{0} is larger than {DOCUMENT_MAX_BYTES} bytes")]
    TooLarge(String),
    #[error("{0} is no URL that an issuer may name: it must begin with https://")]
    Url(String),
    #[error("{url} is the discovery document of another issuer, {issuer:?}")]
    OtherIssuer { url: String, issuer: String },
    #[error("{0} is no discovery document")]
    Discovery(String),
    #[error("{url} names no {member}")]
    Missing { url: String, member: &'static str },
}

fn redirect(status: StatusCode) -> &'static str {
    if status.is_redirection() { ", and redirects are not followed: set `jwks_url`" } else { "" }
}

#[derive(Debug)]
pub(super) enum KeySource {
    File(PathBuf),
    Url(String),
    /// The URL that the issuer is named by.
    Discovery(String),
}

/// What is used of a discovery document.
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: Option<String>,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    /// None: `client_secret_basic` alone.
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// Where people sign in at an issuer, and codes are exchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignInEndpoints {
    pub authorization: String,
    pub token: String,
    /// The secret of a client goes into the head of a request (RFC 6749, 2.3.1), not into its body.
    pub takes_basic: bool,
    /// Each response names its issuer (RFC 9207).
    pub names_issuer: bool,
}

impl KeySource {
    pub(super) fn of(config: &IssuerConfig) -> Self {
        match (&config.jwks, &config.jwks_url) {
            (Some(jwks), _) => Self::File(jwks.file.clone()),
            (None, Some(url)) => Self::Url(url.to_string()),
            (None, None) => Self::Discovery(config.issuer.clone()),
        }
    }

    /// The JWK set as it stands.
    pub(super) async fn read(&self, http: &LwaHttp) -> Result<Vec<u8>, SourceError> {
        match self {
            Self::File(path) => read_file(path),
            Self::Url(url) => get(http, url).await,
            Self::Discovery(issuer) => get(http, &discover(http, issuer).await?).await,
        }
    }
}

/// The URL of the keys of `issuer`. One that has no discovery document publishes them beside it.
async fn discover(http: &LwaHttp, issuer: &str) -> Result<String, SourceError> {
    let usual = format!("{}/.well-known/jwks.json", issuer.trim_end_matches('/'));
    let found = match document(http, issuer).await {
        Err(SourceError::Status { status, .. }) if status.is_client_error() => return Ok(usual),
        found => found?,
    };
    match found.jwks_uri {
        None => Ok(usual),
        Some(url) => allowed(&url, issuer).map(|()| url),
    }
}

/// Where people sign in at `issuer`, as its discovery document says.
pub(in crate::callers) async fn sign_in_endpoints(
    http: &LwaHttp,
    issuer: &str,
) -> Result<SignInEndpoints, SourceError> {
    let found = document(http, issuer).await?;
    let endpoint = |member, url: Option<String>| {
        let missing = || SourceError::Missing { url: discovery_url(issuer), member };
        let url = url.ok_or_else(missing)?;
        allowed(&url, issuer).map(|()| url)
    };
    let methods = found.token_endpoint_auth_methods_supported;
    Ok(SignInEndpoints {
        authorization: endpoint("authorization_endpoint", found.authorization_endpoint)?,
        token: endpoint("token_endpoint", found.token_endpoint)?,
        takes_basic: methods.is_none_or(|all| all.iter().any(|it| it == "client_secret_basic")),
        names_issuer: found.authorization_response_iss_parameter_supported,
    })
}

fn discovery_url(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
}

/// The discovery document of `issuer`, which must be its own.
async fn document(http: &LwaHttp, issuer: &str) -> Result<Discovered, SourceError> {
    let url = discovery_url(issuer);
    let document = get(http, &url).await?;
    let found: Result<Discovered, _> = serde_json::from_slice(&document);
    match found {
        Err(_) => Err(SourceError::Discovery(url)),
        Ok(found) if found.issuer != issuer => {
            Err(SourceError::OtherIssuer { url, issuer: found.issuer })
        }
        Ok(found) => Ok(found),
    }
}

/// Without TLS, an issuer on this machine alone may name what is on this machine.
fn allowed(url: &str, issuer: &str) -> Result<(), SourceError> {
    let uri: Uri = url.parse().unwrap_or_default();
    let is_here = matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let is_allowed = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => is_here && issuer.starts_with("http://"),
        _ => false,
    };
    if is_allowed { Ok(()) } else { Err(SourceError::Url(url.to_owned())) }
}

async fn get(http: &LwaHttp, url: &str) -> Result<Vec<u8>, SourceError> {
    let uri: Uri = url.parse().map_err(|_| SourceError::Url(url.to_owned()))?;
    let failed = |source: reqwest::Error| SourceError::Unreachable {
        url: url.to_owned(),
        // The URL is in our own text.
        source: source.without_url(),
    };
    let request = http.client(&uri).get(url).header("accept", "application/json");
    let mut response = request.send().await.map_err(failed)?;
    let status = response.status();
    if status != StatusCode::OK {
        return Err(SourceError::Status { url: url.to_owned(), status });
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > DOCUMENT_MAX_BYTES {
            return Err(SourceError::TooLarge(url.to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn read_file(path: &PathBuf) -> Result<Vec<u8>, SourceError> {
    let mut content = Vec::new();
    let room = DOCUMENT_MAX_BYTES as u64 + 1;
    File::open(path)
        .and_then(|file| file.take(room).read_to_end(&mut content))
        .map_err(|source| SourceError::File { path: path.clone(), source })?;
    match content.len() > DOCUMENT_MAX_BYTES {
        true => Err(SourceError::TooLarge(path.display().to_string())),
        false => Ok(content),
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
