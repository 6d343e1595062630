//! Which account, which region, which path: read from the request, judged once.
//!
//! Selectors that disagree are an error, never a guess; a bearer that names no known account is
//! no selector, because SDKs send tokens of their own.

use super::{error::Error, view::View};
use crate::{
    callers::credential::is_key,
    forward::headers::has_too_many_connection_names,
    id::{AccountId, Region, placeholder_alias},
    inbound::fields::{Field, Fields, bearer_token},
    problem::Code,
    provider::ads::{Service, service},
    sync::Account,
};
use http::{HeaderMap, Method, Uri, header::AUTHORIZATION, request::Parts, uri::PathAndQuery};
use std::sync::Arc;

#[derive(Debug)]
pub struct Selection {
    pub account: Arc<Account>,
    pub region: Region,
    /// The service its path belongs to.
    pub service: Service,
    /// Whether its path wants the newer client id field.
    pub names_ads_client: bool,
    /// The target without our prefix, byte for byte.
    pub target: Uri,
    /// The prefix that was taken off (`/a/acme`), empty if none.
    pub prefix: String,
}

/// The `/a/<alias>[@<region>]` in front of a path.
pub struct Prefix<'a> {
    pub alias: &'a str,
    region: Option<Region>,
    /// Path and query behind it.
    rest: &'a str,
    /// The prefix itself.
    pub(super) text: &'a str,
}

/// Rejects what no honest client sends: targets that are not in origin form, methods that would
/// make a tunnel or an echo, bodies framed twice.
pub fn validate(head: &Parts, fields: &Fields<'_>) -> Result<(), Error> {
    match head.method {
        Method::GET | Method::POST | Method::PUT | Method::PATCH => {}
        Method::DELETE | Method::HEAD | Method::OPTIONS => {}
        _ => return Err(Error::MethodRejected),
    }
    let uri = &head.uri;
    let http2 = head.version >= http::Version::HTTP_2;
    let foreign = !http2 && (uri.scheme().is_some() || uri.authority().is_some());
    if foreign || !uri.path().starts_with('/') {
        return Err(Error::BadRequest(if uri.scheme().is_some() {
            "The request target is a whole URL: use adsproxy as a base URL, not as a proxy \
             (HTTP_PROXY)."
        } else {
            "The request target must be a path."
        }));
    }
    // A shorter one cannot hold so many.
    let may_have_many = !fields.connection.allows(|names| names.len() < 32);
    if may_have_many && has_too_many_connection_names(&head.headers) {
        return Err(Error::BadRequest("The Connection header names more than 16 fields."));
    }
    match (fields.transfer_encoding, fields.content_length) {
        (Field::Absent, Field::Absent | Field::One(_)) => Ok(()),
        (Field::One(coding), Field::Absent)
            if coding.as_bytes().eq_ignore_ascii_case(b"chunked") =>
        {
            Ok(())
        }
        _ => Err(Error::AmbiguousFraming),
    }
}

/// Whether a path, with or without our prefix, is one that MCP clients look for on their own when
/// they think that they must log in, or browsers when they show a response.
pub fn is_reserved(uri: &Uri) -> bool {
    let path = uri.path();
    let path = match path.strip_prefix("/a/") {
        Some(behind) => behind.find('/').map_or("/", |at| &behind[at..]),
        None => path,
    };
    let well_known = |path: &str| {
        let rest = path.strip_prefix("/.well-known");
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    matches!(path, "/register" | "/authorize" | "/token" | "/favicon.ico")
        || well_known(path)
        || path.strip_prefix("/mcp").is_some_and(well_known)
}

/// Finds the account and everything that depends on the path.
pub fn select(
    uri: &Uri,
    headers: &HeaderMap,
    fields: &Fields<'_>,
    view: View<'_>,
) -> Result<Selection, Error> {
    let prefix = Prefix::of(uri)?;
    let known = |name: &str| view.find(name).is_some();
    let account = view.account(choose(headers, fields, prefix.as_ref(), known)?)?.clone();
    let in_path = prefix.as_ref().and_then(|prefix| prefix.region);
    let region = header_region(fields)?.or(in_path).unwrap_or(account.region);
    let target = match &prefix {
        None => uri.path_and_query().cloned().map_or_else(|| uri.clone(), Uri::from),
        Some(prefix) => prefix.target()?,
    };
    let (service, names_ads_client) = service(target.path());
    let prefix = prefix.map(|prefix| prefix.text.to_owned()).unwrap_or_default();
    Ok(Selection { account, region, service, names_ads_client, target, prefix })
}

/// Which name the selectors agree on; none if there are none.
pub(super) fn choose<'a>(
    headers: &'a HeaderMap,
    fields: &Fields<'a>,
    prefix: Option<&Prefix<'a>>,
    known: impl Fn(&str) -> bool,
) -> Result<Option<&'a str>, Error> {
    let mut chosen = header_alias(fields)?;
    let bearers = placeholders(headers, fields).filter(|alias| known(alias));
    for alias in prefix.map(|prefix| prefix.alias).into_iter().chain(bearers) {
        if chosen.is_some_and(|other| other != alias) {
            return Err(Error::Rejected(Code::AccountConflict));
        }
        chosen = Some(alias);
    }
    Ok(chosen)
}

/// The alias that `X-Ads-Account` names.
pub fn header_alias<'a>(fields: &Fields<'a>) -> Result<Option<&'a str>, Error> {
    let rejection = || Error::BadRequest("X-Ads-Account must be sent once and hold one alias.");
    let Some(value) = fields.account.single(rejection())? else { return Ok(None) };
    match value.to_str() {
        Ok(name) if AccountId::is_id(name) => Ok(Some(name)),
        _ => Err(rejection()),
    }
}

fn header_region(fields: &Fields<'_>) -> Result<Option<Region>, Error> {
    let rejection = || Error::BadRequest("X-Ads-Region must be sent once and be na, eu or fe.");
    let Some(value) = fields.region.single(rejection())? else { return Ok(None) };
    let region = value.to_str().ok().and_then(|text| text.parse().ok());
    region.map(Some).ok_or_else(rejection)
}

/// The names in all `Authorization` lines; most requests have none.
fn placeholders<'a>(headers: &'a HeaderMap, fields: &Fields<'a>) -> impl Iterator<Item = &'a str> {
    let values = fields.authorization.values(headers, AUTHORIZATION);
    let tokens = values.filter_map(bearer_token).filter(|token| token.starts_with(b"Atza"));
    let names = tokens.filter_map(|token| placeholder_alias(str::from_utf8(token).ok()?, "Atza"));
    names.filter(|name| !is_key(name))
}

impl<'a> Prefix<'a> {
    pub fn of(uri: &'a Uri) -> Result<Option<Self>, Error> {
        let whole = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let Some(behind) = whole.strip_prefix("/a/") else { return Ok(None) };
        let rejection =
            || Error::BadRequest("The path prefix must be /a/<alias>/ or /a/<alias>@<region>/.");
        let end = behind.find(['/', '?']).unwrap_or(behind.len());
        let (name, rest) = behind.split_at(end);
        let (alias, region) = match name.split_once('@') {
            None => (name, None),
            Some((alias, region)) => (alias, Some(region.parse().map_err(|_| rejection())?)),
        };
        if !AccountId::is_id(alias) {
            return Err(rejection());
        }
        Ok(Some(Self { alias, region, rest, text: &whole[..whole.len() - rest.len()] }))
    }

    pub(super) fn target(&self) -> Result<Uri, Error> {
        let slash = if self.rest.starts_with('/') { "" } else { "/" };
        PathAndQuery::try_from(format!("{slash}{}", self.rest))
            .map(Uri::from)
            .map_err(|_| Error::BadRequest("The path behind the prefix is malformed."))
    }
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
