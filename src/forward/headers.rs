//! Which header fields go to Amazon and which come back: pure functions.
//!
//! The order is the defence: first everything a caller could use to speak for us is removed, then
//! our own fields are set, so that nothing of the caller's can take them away again.

use super::Malformed;
use crate::{
    provider::ads::{ADS_CLIENT_ID, CLIENT_ID, may_choose_account},
    trace_context::TRACEPARENT,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, LOCATION,
        TRANSFER_ENCODING,
    },
};

#[derive(Debug)]
pub struct Injection<'a> {
    pub bearer: &'a HeaderValue,
    pub client_id: &'a HeaderValue,
    pub defaults: &'a [(HeaderName, HeaderValue)],
    /// Whether the path belongs to an API that wants the newer client id field too.
    pub names_ads_client: bool,
    /// What chooses the account in place of all that the caller and the defaults say of it.
    pub pins: &'a [(HeaderName, HeaderValue)],
    /// Whether the response must come unencoded, to be read here.
    pub reads_response: bool,
    /// In the place of the caller's, where the request is recorded.
    pub traceparent: Option<&'a HeaderValue>,
}

/// Builds the fields of a request to `host` at Amazon from those of the caller. The body is delimited
/// as it came, unless it `is_chunked`.
pub fn outgoing(
    inbound: &HeaderMap,
    inject: &Injection<'_>,
    host: &HeaderValue,
    is_chunked: bool,
) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(inbound.len() + inject.defaults.len() + 4);
    out.insert(HOST, host.clone());
    let named = ConnectionNamed::of(inbound);
    for (name, value) in inbound {
        if !is_removed(name) && !named.contains(name) {
            out.append(name.clone(), value.clone());
        }
    }
    for (name, value) in inject.defaults {
        if !out.contains_key(name) {
            out.append(name.clone(), value.clone());
        }
    }
    if !inject.pins.is_empty() {
        pin(&mut out, inject.pins);
    }
    if inject.reads_response {
        out.remove(ACCEPT_ENCODING);
    }
    if let Some(ours) = inject.traceparent
        && let Some(callers) = out.get_mut(&TRACEPARENT)
    {
        callers.clone_from(ours);
    }
    if is_chunked {
        out.remove(CONTENT_LENGTH);
        out.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    out.insert(AUTHORIZATION, inject.bearer.clone());
    out.insert(CLIENT_ID.clone(), inject.client_id.clone());
    if inject.names_ads_client {
        out.insert(ADS_CLIENT_ID.clone(), inject.client_id.clone());
    }
    out
}

/// Removes whatever may choose an account, then chooses it.
fn pin(out: &mut HeaderMap, pins: &[(HeaderName, HeaderValue)]) {
    let chosen = out.keys().filter(|name| may_choose_account(name.as_str()));
    for name in chosen.cloned().collect::<Vec<_>>() {
        out.remove(name);
    }
    out.extend(pins.iter().cloned());
}

/// The header of a request of our own.
pub fn of_our_own(bearer: &HeaderValue, client_id: &HeaderValue) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(4);
    out.insert(ACCEPT, HeaderValue::from_static("application/json"));
    out.insert(AUTHORIZATION, bearer.clone());
    out.insert(CLIENT_ID.clone(), client_id.clone());
    out
}

/// Whether a caller's field never reaches Amazon, whatever its value.
fn is_removed(name: &HeaderName) -> bool {
    let name = name.as_str();
    // Amazon has no field with `_`, and servers exist that read `_` as `-`.
    is_hop_by_hop(name) || is_credential(name) || name.contains('_')
}

/// Credentials, selectors, and fields that describe the caller or its connection.
fn is_credential(name: &str) -> bool {
    match name {
        "amazon-ads-clientid"
        | "amazon-advertising-api-clientid"
        | "authorization"
        | "cookie"
        | "forwarded"
        | "host"
        | "http2-settings"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "trailer"
        | "x-amz-access-token"
        | "x-api-key"
        | "x-auth-token" => true,
        _ => name.starts_with("x-ads-") || name.starts_with("x-forwarded-"),
    }
}

/// RFC 9110 section 7.6.1, without the names in `Connection` lines.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "proxy-connection" | "te" | "transfer-encoding" | "upgrade"
    )
}

/// Whether a field of Amazon's never reaches the caller.
fn is_removed_from_response(name: &str) -> bool {
    is_hop_by_hop(name)
        || matches!(name, "clear-site-data" | "proxy-authenticate" | "set-cookie" | "set-cookie2")
        || name.starts_with("x-ads-proxy-")
}

/// The most names that the `Connection` lines of one message may hold together: each is compared
/// with every field.
pub(super) const CONNECTION_NAMES_MAX: usize = 16;
/// The most elements, empty ones included.
const CONNECTION_ELEMENTS_MAX: usize = 64;

/// Whether the `Connection` lines of `headers` name more fields than a message needs.
pub fn has_too_many_connection_names(headers: &HeaderMap) -> bool {
    let (mut names, mut elements) = (0, 0);
    for element in connection_elements(headers) {
        elements += 1;
        names += usize::from(!element.is_empty());
        if names > CONNECTION_NAMES_MAX || elements > CONNECTION_ELEMENTS_MAX {
            return true;
        }
    }
    false
}

fn connection_elements(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(CONNECTION).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii)
}

/// The fields named in any `Connection` line.
struct ConnectionNamed<'a>(Vec<&'a [u8]>);

impl<'a> ConnectionNamed<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        // Cheaper than a look-up, which hashes the name: most messages have no such line.
        if !headers.keys().any(|name| *name == CONNECTION) {
            return Self(Vec::new());
        }
        let is_option = |token: &&[u8]| {
            token.eq_ignore_ascii_case(b"keep-alive")
                || token.eq_ignore_ascii_case(b"close")
                || token.is_empty()
        };
        Self(connection_elements(headers).filter(|token| !is_option(token)).collect())
    }

    fn contains(&self, name: &HeaderName) -> bool {
        // `Connection: expect` would leave the caller waiting for a 100 that Amazon never sends.
        self.0.iter().any(|token| token.eq_ignore_ascii_case(name.as_str().as_bytes()))
            && *name != EXPECT
    }
}

/// Removes from a response what belongs to the connection it came on, and what only adsproxy or
/// the caller's own server may say. Says whether that connection may serve another request: not
/// where the end of the response can be read in two ways (RFC 9112 section 6.3).
pub fn clean_response(headers: &mut HeaderMap) -> Result<bool, Malformed> {
    if !headers.keys().any(|name| is_removed_from_response(name.as_str())) {
        return Ok(true);
    }
    if has_too_many_connection_names(headers) {
        return Err(Malformed::ConnectionNames);
    }
    let named = ConnectionNamed::of(headers);
    let is_removed =
        |name: &&HeaderName| is_removed_from_response(name.as_str()) || named.contains(name);
    let removed: Vec<HeaderName> = headers.keys().filter(is_removed).cloned().collect();
    let is_ambiguous =
        headers.contains_key(TRANSFER_ENCODING) && headers.remove(CONTENT_LENGTH).is_some();
    for name in removed {
        headers.remove(name);
    }
    Ok(!is_ambiguous)
}

/// Rewrites a `Location` that points back at the same upstream host, so that a caller that
/// follows it comes to adsproxy again. Any other one passes as it is.
pub fn rewrite_location(headers: &mut HeaderMap, upstream: &Uri, prefix: &str) {
    let Some(location) = headers.get(LOCATION).and_then(|value| value.to_str().ok()) else {
        return;
    };
    let Ok(target) = location.parse::<Uri>() else { return };
    let same = |a: &Uri, b: &Uri| {
        let port = |uri: &Uri| {
            uri.port_u16().or(match uri.scheme_str() {
                Some("https") => Some(443),
                _ => Some(80),
            })
        };
        a.scheme() == b.scheme()
            && a.host().zip(b.host()).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
            && port(a) == port(b)
    };
    // Two slashes begin a host's name, whatever the parser says.
    let relative = location.starts_with('/') && !location.starts_with("//") && !prefix.is_empty();
    if !same(&target, upstream) && !relative {
        return;
    }
    // Everything behind the authority, taken from the text so that a fragment survives.
    let rest = match location.find("://") {
        // A relative one may name a whole address behind its path: `/login?next=https://…`.
        Some(at) if !relative => {
            location[at + 3..].find(['/', '?', '#']).map_or("/", |i| &location[at + 3 + i..])
        }
        _ => location,
    };
    let slash = if rest.starts_with('/') { "" } else { "/" };
    // Two slashes at the start would name a host instead of a path.
    let rest = if prefix.is_empty() && rest.starts_with("//") {
        format!("/.{rest}")
    } else {
        rest.to_owned()
    };
    if let Ok(value) = HeaderValue::from_str(&format!("{prefix}{slash}{rest}")) {
        headers.insert(LOCATION, value);
    }
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
