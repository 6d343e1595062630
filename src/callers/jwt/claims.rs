//! What the claims of a token whose signature is right must say, and what is taken from them.

use super::JwtRejection;
use crate::{callers::glob::matches_name, config::IssuerConfig, id::Tenant, secret::Secret};
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

/// What an ID token must say besides what every token of its issuer must.
#[derive(Debug)]
pub struct IdTokenRules<'r> {
    /// The `iss` of the one issuer that was asked.
    pub issuer: &'r str,
    pub client_id: &'r str,
    pub nonce: &'r Secret,
    /// The person must have been authenticated since, in seconds since 1970, where the token says when.
    pub authenticated_since: Option<u64>,
    /// Subjects that need no tenant.
    pub operators: &'r [String],
}

/// Checks the claims of an ID token. `audience`, `authorized_parties` and `require_sid` of the issuer are
/// for credentials; this one is for the client that asked for it.
///
/// Source: OpenID Connect Core 1.0, 3.1.3.7.
pub(super) fn verify_id_token(
    claims: &Claims,
    issuer: &IssuerConfig,
    rules: &IdTokenRules<'_>,
    now: u64,
) -> Result<Bearer, JwtRejection> {
    if issuer.issuer != rules.issuer {
        return Err(JwtRejection::UnknownIssuer);
    }
    let expires = valid_until(claims, issuer, now)?;
    for_client(claims, rules.client_id)?;
    let nonce = claims.get("nonce").and_then(Value::as_str);
    if nonce.map(Secret::from).as_ref() != Some(rules.nonce) {
        return Err(JwtRejection::Nonce);
    }
    if let (Some(since), Some(at)) = (rules.authenticated_since, claims.get("auth_time"))
        && at.as_u64().is_none_or(|at| at.saturating_add(issuer.leeway.as_secs()) < since)
    {
        return Err(JwtRejection::Authentication);
    }
    let subject = name(claims.get("sub")).ok_or(JwtRejection::Subject)?.to_owned();
    let is_operator = rules.operators.contains(&subject);
    let tenant = if is_operator { None } else { tenant(claims, issuer)? };
    Ok(Bearer { subject, session: None, tenant, expires })
}

/// The client is an audience, and the authorized party where there is one or several audiences.
fn for_client(claims: &Claims, client_id: &str) -> Result<(), JwtRejection> {
    let is_client = |one: &Value| one == client_id;
    let (is_for_us, has_others) = match claims.get("aud") {
        Some(Value::Array(all)) => (all.iter().any(is_client), all.len() > 1),
        Some(one) => (is_client(one), false),
        None => (false, false),
    };
    if !is_for_us {
        return Err(JwtRejection::Audience);
    }
    match claims.get("azp") {
        None if !has_others => Ok(()),
        Some(party) if is_client(party) => Ok(()),
        _ => Err(JwtRejection::AuthorizedParty),
    }
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
    let tenant = tenant(claims, issuer)?;
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

/// What the first of the issuer's paths that is there leads to.
fn tenant(claims: &Claims, issuer: &IssuerConfig) -> Result<Option<Tenant>, JwtRejection> {
    let paths = &issuer.tenant_claim;
    if paths.is_empty() {
        return Ok(None);
    }
    let found = paths.iter().find_map(|path| at(claims, path)).and_then(Value::as_str);
    let tenant: Option<Tenant> = found.and_then(|tenant| tenant.parse().ok());
    let tenant = tenant.ok_or(JwtRejection::Tenant)?;
    match accepts_tenant(issuer, &tenant) {
        true => Ok(Some(tenant)),
        false => Err(JwtRejection::ForeignTenant),
    }
}

/// Whether users of `tenant` may come from `issuer`.
pub fn accepts_tenant(issuer: &IssuerConfig, tenant: &Tenant) -> bool {
    let listed = issuer.tenants.as_ref();
    listed.is_none_or(|globs| globs.iter().any(|glob| matches_name(glob, tenant.as_str())))
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

#[cfg(test)]
#[path = "id_token_tests.rs"]
mod id_token_tests;
