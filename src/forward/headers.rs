//! Which header fields go to Amazon and which come back: pure functions.
//!
//! The order is the defence: first everything a caller could use to speak for us is removed, then
//! our own fields are set, so that nothing of the caller's can take them away again.

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{
        ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, LOCATION,
        TRANSFER_ENCODING,
    },
};

/// The classic client id field, set on every request.
pub static CLIENT_ID: HeaderName = HeaderName::from_static("amazon-advertising-api-clientid");
/// The client id field of Ads API v1 and MCP.
pub static ADS_CLIENT_ID: HeaderName = HeaderName::from_static("amazon-ads-clientid");

/// What is ours in a request to Amazon.
#[derive(Debug)]
pub struct Injection<'a> {
    /// `Authorization`.
    pub bearer: &'a HeaderValue,
    /// The application's client id.
    pub client_id: &'a HeaderValue,
    /// The upstream's authority.
    pub host: &'a HeaderValue,
    /// The account's default fields.
    pub defaults: &'a [(HeaderName, HeaderValue)],
    /// Whether the path belongs to an API that wants the newer client id field too.
    pub names_ads_client: bool,
    /// How the body is delimited on the way out.
    pub framing: Framing,
}

/// How a request body is delimited towards Amazon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By the caller's `Content-Length`, or there is no body.
    AsItCame,
    /// `Transfer-Encoding: chunked` (HTTP/1.1 only).
    Chunked,
}

/// Builds the fields of a request to Amazon from those of the caller.
#[must_use]
pub fn outgoing(inbound: &HeaderMap, inject: &Injection<'_>) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(inbound.len() + inject.defaults.len() + 4);
    out.insert(HOST, inject.host.clone());
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
    if inject.framing == Framing::Chunked {
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

/// The header of a request that is nobody's but ours.
#[must_use]
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
    if name.bytes().any(|b| b == b'_') {
        // Servers exist that read `_` as `-`: a look-alike of a removed field is removed too.
        let twin = name.replace('_', "-");
        return is_removed_text(twin.trim_matches('-'));
    }
    is_removed_text(name)
}

fn is_removed_text(name: &str) -> bool {
    match name {
        "authorization"
        | "amazon-advertising-api-clientid"
        | "amazon-ads-clientid"
        | "cookie"
        | "host"
        | "http2-settings"
        | "keep-alive"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "trailer" => true,
        _ => is_hop_by_hop(name) || name.starts_with("x-ads-"),
    }
}

/// RFC 9110 section 7.6.1, without what a `Connection` line names.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "proxy-connection" | "te" | "transfer-encoding" | "upgrade"
    )
}

/// The fields named in any `Connection` line.
struct ConnectionNamed<'a>(Vec<&'a [u8]>);

impl<'a> ConnectionNamed<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut named = Vec::new();
        for line in headers.get_all(CONNECTION) {
            for token in line.as_bytes().split(|b| *b == b',') {
                let token = token.trim_ascii();
                let usual = token.eq_ignore_ascii_case(b"keep-alive")
                    || token.eq_ignore_ascii_case(b"close")
                    || token.is_empty();
                if !usual {
                    named.push(token);
                }
            }
        }
        Self(named)
    }

    fn contains(&self, name: &HeaderName) -> bool {
        // `Connection: expect` would leave the caller waiting for a 100 that Amazon never sends.
        self.0.iter().any(|token| token.eq_ignore_ascii_case(name.as_str().as_bytes()))
            && *name != EXPECT
    }
}

/// Removes from Amazon's answer what belongs to the connection it came on, and anything that only
/// adsproxy may say.
pub fn clean_answer(headers: &mut HeaderMap) {
    let unclean = |name: &HeaderName| {
        let name = name.as_str();
        is_hop_by_hop(name) || name == "proxy-authenticate" || name.starts_with("x-ads-proxy-")
    };
    if !headers.keys().any(unclean) {
        return;
    }
    let named = ConnectionNamed::of(headers);
    let doomed: Vec<HeaderName> =
        headers.keys().filter(|name| unclean(name) || named.contains(name)).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
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
        Some(at) => {
            location[at + 3..].find(['/', '?', '#']).map_or("/", |i| &location[at + 3 + i..])
        }
        None => location,
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
