//! The three parts of a JWT, read before anything about it is known to be true.
//!
//! Source: RFC 7515, RFC 7519, RFC 8725 (best current practices).

use super::JwtRejection;
use crate::callers::json;
use crate::config::JwtAlgorithm;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

/// The longest token; nothing of a longer one is decoded.
const TOKEN_MAX_BYTES: usize = 8 * 1024;

/// Fields by which a token would choose its own key, or ask for rules that nobody here knows.
const FORBIDDEN: [&str; 6] = ["jwk", "jku", "x5u", "x5c", "crit", "enc"];

/// What `typ` may say: other kinds (of a logout, of a proof) are signed by the same keys.
const TYPES: [&str; 2] = ["jwt", "at+jwt"];

/// A token whose signature was not checked.
#[derive(Debug)]
pub(super) struct UnverifiedToken<'t> {
    /// What is signed: the first two parts with the dot between them.
    pub(super) message: &'t str,
    pub(super) signature: &'t str,
    /// None: it is none that we know, `none` and HMAC included.
    pub(super) algorithm: Option<JwtAlgorithm>,
    pub(super) key_id: Option<String>,
    pub(super) claims: Map<String, Value>,
}

impl<'t> UnverifiedToken<'t> {
    pub(super) fn parse(token: &'t str) -> Result<Self, JwtRejection> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(JwtRejection::TooLong);
        }
        let parts = || {
            let (message, signature) = token.rsplit_once('.')?;
            let (header, claims) = message.split_once('.')?;
            Some((message, signature, decoded(header)?, decoded(claims)?))
        };
        let (message, signature, header, claims) = parts().ok_or(JwtRejection::Malformed)?;
        if FORBIDDEN.iter().any(|name| header.contains_key(*name)) {
            return Err(JwtRejection::ForbiddenHeader);
        }
        if header.get("typ").is_some_and(|kind| !is_known_type(kind)) {
            return Err(JwtRejection::Type);
        }
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(JwtRejection::Malformed),
        };
        let algorithm = header.get("alg").and_then(Value::as_str);
        let algorithm = algorithm.and_then(JwtAlgorithm::from_name);
        Ok(Self { message, signature, algorithm, key_id, claims })
    }
}

/// The object that `part` is; a dot in it is no base64.
fn decoded(part: &str) -> Option<Map<String, Value>> {
    json::object(&URL_SAFE_NO_PAD.decode(part).ok()?)
}

fn is_known_type(kind: &Value) -> bool {
    let Some(kind) = kind.as_str() else { return false };
    let kind = kind.to_ascii_lowercase();
    TYPES.contains(&kind.strip_prefix("application/").unwrap_or(&kind))
}
