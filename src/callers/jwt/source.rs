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
pub(super) enum SourceError {
    #[error("cannot read {path}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{url} cannot be reached")]
    Unreachable { url: String, source: reqwest::Error },
    #[error("{url} responds {status}{}", redirect(*.status))]
    Status { url: String, status: StatusCode },
    #[error("{0} is larger than {DOCUMENT_MAX_BYTES} bytes")]
    TooLarge(String),
    #[error("{0} is no URL that keys are fetched from: it must begin with https://")]
    Url(String),
    #[error("{url} is the discovery document of another issuer, {issuer:?}")]
    OtherIssuer { url: String, issuer: String },
    #[error("{0} is no discovery document")]
    Discovery(String),
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

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: Option<String>,
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
    let base = issuer.trim_end_matches('/');
    let usual = format!("{base}/.well-known/jwks.json");
    let url = format!("{base}/.well-known/openid-configuration");
    let document = match get(http, &url).await {
        Err(SourceError::Status { status, .. }) if status.is_client_error() => return Ok(usual),
        document => document?,
    };
    let found: Result<Discovered, _> = serde_json::from_slice(&document);
    match found {
        Err(_) => Err(SourceError::Discovery(url)),
        Ok(found) if found.issuer != issuer => {
            Err(SourceError::OtherIssuer { url, issuer: found.issuer })
        }
        Ok(Discovered { jwks_uri: None, .. }) => Ok(usual),
        Ok(Discovered { jwks_uri: Some(url), .. }) => allowed(&url, issuer).map(|()| url),
    }
}

/// Without TLS, an issuer on this machine alone may name keys, and those on this machine.
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
