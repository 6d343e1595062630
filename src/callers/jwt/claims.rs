//! What the claims of a token whose signature is right must say, and what is taken from them.

use super::JwtRejection;
use crate::{config::IssuerConfig, id::Tenant};
use serde_json::{Map, Value};

type Claims = Map<String, Value>;

/// The longest subject or session id, in bytes.
const NAME_MAX_BYTES: usize = 255;

/// What a token says of its bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// `sub`: 1 to 255 printable characters.
    pub subject: String,
    /// `sid`.
    pub session: Option<String>,
    /// By `tenant_claim`.
    pub tenant: Option<Tenant>,
    /// When the token ends, the issuer's leeway included, in seconds since 1970.
    pub expires: u64,
}

/// Checks `claims` by the rules of `issuer` at `now` (seconds since 1970); takes what is needed.
pub(super) fn verify(
    claims: &Claims,
    issuer: &IssuerConfig,
    now: u64,
) -> Result<Bearer, JwtRejection> {
    let expires = valid_until(claims, issuer, now)?;
    audience(claims, issuer)?;
    authorized_party(claims, issuer)?;
    let session = session(claims, issuer)?;
    let subject = name(claims.get("sub")).ok_or(JwtRejection::Subject)?.to_owned();
    let tenant = tenant(claims, &issuer.tenant_claim)?;
    Ok(Bearer { subject, session, tenant, expires })
}

/// When the token ends, leeway included. Times are whole seconds: what is none is refused.
fn valid_until(claims: &Claims, issuer: &IssuerConfig, now: u64) -> Result<u64, JwtRejection> {
    let leeway = issuer.leeway.as_secs();
    let expires = claims.get("exp").and_then(Value::as_u64).ok_or(JwtRejection::Expired)?;
    let until = expires.saturating_add(leeway);
    if until <= now {
        return Err(JwtRejection::Expired);
    }
    let latest = now.saturating_add(leeway);
    for name in ["nbf", "iat"] {
        let is_past = |time: &Value| time.as_u64().is_some_and(|time| time <= latest);
        if claims.get(name).is_some_and(|time| !is_past(time)) {
            return Err(JwtRejection::NotYetValid);
        }
    }
    Ok(until)
}

/// One audience of the token's is one of the issuer's. A token for an audience is refused where
/// none is configured (RFC 7519, 4.1.3).
fn audience(claims: &Claims, issuer: &IssuerConfig) -> Result<(), JwtRejection> {
    let is_listed =
        |one: &Value| one.as_str().is_some_and(|one| issuer.audience.iter().any(|our| our == one));
    let is_for_us = match claims.get("aud") {
        None => issuer.audience.is_empty(),
        Some(Value::Array(all)) => all.iter().any(is_listed),
        Some(one) => is_listed(one),
    };
    if is_for_us { Ok(()) } else { Err(JwtRejection::Audience) }
}

fn authorized_party(claims: &Claims, issuer: &IssuerConfig) -> Result<(), JwtRejection> {
    let listed = &issuer.authorized_parties;
    let is_right = match claims.get("azp") {
        _ if listed.is_empty() => true,
        None => !issuer.require_azp,
        Some(party) => listed.iter().any(|one| Some(one.as_str()) == party.as_str()),
    };
    if is_right { Ok(()) } else { Err(JwtRejection::AuthorizedParty) }
}

/// The id of the session. A session of Clerk's is `pending` until its user has done all that the
/// application asks of him at sign-in.
fn session(claims: &Claims, issuer: &IssuerConfig) -> Result<Option<String>, JwtRejection> {
    let session = name(claims.get("sid")).map(str::to_owned);
    let is_pending = claims.get("sts").is_some_and(|state| state == "pending");
    let is_required = issuer.require_sid.unwrap_or(!issuer.authorized_parties.is_empty());
    if is_required && (session.is_none() || is_pending) {
        return Err(JwtRejection::Session);
    }
    Ok(session)
}

/// What the first of `paths` that is there leads to.
fn tenant(claims: &Claims, paths: &[String]) -> Result<Option<Tenant>, JwtRejection> {
    if paths.is_empty() {
        return Ok(None);
    }
    let found = paths.iter().find_map(|path| at(claims, path)).and_then(Value::as_str);
    let tenant = found.and_then(|tenant| tenant.parse().ok());
    tenant.map(Some).ok_or(JwtRejection::Tenant)
}

/// The claim of this name, else the one that the dots lead to. Null is not there.
fn at<'c>(claims: &'c Claims, path: &str) -> Option<&'c Value> {
    let nested = || {
        let mut parts = path.split('.');
        let first = claims.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    };
    claims.get(path).or_else(nested).filter(|value| !value.is_null())
}

/// A text that can stand in a log.
fn name(value: Option<&Value>) -> Option<&str> {
    let text = value?.as_str()?;
    let fits = (1..=NAME_MAX_BYTES).contains(&text.len()) && !text.contains(char::is_control);
    fits.then_some(text)
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
