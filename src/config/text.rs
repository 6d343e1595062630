//! The texts that a value may be: addresses, URLs, host names, names of headers.

use super::{
    ClientAuth, JwtAlgorithm, ListenAddress, LogFormat, StoreKind, log_filter, secret_ref::MASK,
};
use crate::{
    event::Kind,
    id::{AccountId, InvalidAccountId, InvalidTenant, Region, Tenant},
    provider::ads,
};
use http::{HeaderName, HeaderValue, Uri, header, uri::Authority};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use toml::de::DeValue;

/// What a name may be.
pub(super) const NAME: &str = "must be 1 to 64 letters, digits, '.', '_' or '-'";

pub(super) fn any_text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

pub(super) fn parse_name(text: &str) -> Result<String, String> {
    if AccountId::is_alias(text) { Ok(text.to_owned()) } else { Err(NAME.to_owned()) }
}

/// The public part of a caller's key.
pub(super) fn parse_key_id(text: &str) -> Result<String, String> {
    let is_id = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_id.then(|| text.to_owned()).ok_or_else(|| {
        "is not the 8 letters and digits behind the prefix of a key: the key itself must not be \
         written here\nrun `adsproxy caller add`, which prints the lines to add"
            .to_owned()
    })
}

pub(super) fn parse_sha256(text: &str) -> Result<String, String> {
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| text.to_ascii_lowercase()).ok_or_else(|| {
        "is not 64 hexadecimal digits: the key itself must not be written here\n\
         run `adsproxy caller add`, which prints the lines to add"
            .to_owned()
    })
}

/// A name of an MCP tool, where `*` is any text and `?` one character.
pub(super) fn parse_tool(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.*?".contains(&byte);
    let is_glob = (1..=128).contains(&text.len()) && text.bytes().all(allowed);
    is_glob.then(|| text.to_owned()).ok_or_else(|| {
        format!(
            "{text:?} is no name of an MCP tool such as \"campaign_management-query_campaign\" or \
             \"*-query_*\""
        )
    })
}

/// A pattern of names of accounts.
pub(super) fn parse_account_glob(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.~*?".contains(&byte);
    let is_glob = (1..=200).contains(&text.len()) && text.bytes().all(allowed);
    (is_glob && text.matches('~').count() < 2).then(|| text.to_owned()).ok_or_else(|| {
        format!("{text:?} is neither an account nor a pattern such as \"eu-*\" or \"t1~*\"")
    })
}

/// A pattern of tenants.
pub(super) fn parse_tenant_glob(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.*?".contains(&byte);
    let is_glob = (1..=64).contains(&text.len()) && text.bytes().all(allowed);
    is_glob
        .then(|| text.to_owned())
        .ok_or_else(|| format!("{text:?} is neither a tenant nor a pattern such as \"org_*\""))
}

/// A method that the data plane serves.
pub(super) fn parse_method(text: &str) -> Result<String, String> {
    const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    METHODS
        .contains(&text)
        .then(|| text.to_owned())
        .ok_or_else(|| format!("{text:?} is none of {}, in upper case", METHODS.join(", ")))
}

/// A pattern of paths that some path can match.
pub(super) fn parse_path_glob(text: &str) -> Result<String, String> {
    let begins = text.starts_with(['/', '*']);
    let never = ["?", "#", ";", "\\", "//", "/./", "/../"];
    let fits = text.len() <= 1024 && text.bytes().all(|byte| byte.is_ascii_graphic());
    let can_match = begins && fits && !never.iter().any(|part| text.contains(part));
    can_match.then(|| text.to_owned()).ok_or_else(|| {
        format!(
            "{text:?} matches no path: write a path without query such as \"/reporting/*\", where \
             * is any text"
        )
    })
}

/// A profile id of Amazon's.
pub(super) fn parse_profile(text: &str) -> Result<String, String> {
    let is_id = (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_id.then(|| text.to_owned()).ok_or_else(|| format!("{text:?} is no profile id: digits only"))
}

/// An id of Amazon's that goes into a header.
pub(super) fn parse_pin(text: &str) -> Result<String, String> {
    let is_id = (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_id.then(|| text.to_owned()).ok_or_else(|| {
        format!("{text:?} is no id: 1 to 128 visible ASCII characters without spaces")
    })
}

/// A day, which begins in UTC, or a time.
pub(super) fn parse_expiry(text: &str) -> Result<jiff::Timestamp, String> {
    let day = text.parse::<jiff::civil::Date>().map(|_| format!("{text}T00:00:00Z"));
    day.as_deref().unwrap_or(text).parse().map_err(|_| {
        format!("{text:?} is neither a date such as 2027-03-01 nor a time of RFC 3339")
    })
}

/// `localhost` means both loopback addresses.
pub(super) fn parse_proxy(text: &str) -> Result<Vec<ListenAddress>, String> {
    let first = parse_listen(text, ", unix:/path or systemd:NAME")?;
    let port = first.tcp().map_or(0, |address| address.port());
    let is_both = text.starts_with("localhost:") && port != 0 && has_ipv6_loopback();
    let second = is_both.then(|| ListenAddress::Tcp((Ipv6Addr::LOCALHOST, port).into()));
    Ok([first].into_iter().chain(second).collect())
}

pub(super) fn parse_admin(text: &str) -> Result<Option<ListenAddress>, String> {
    match text {
        "off" => Ok(None),
        _ => parse_listen(text, ", unix:/path, systemd:NAME or \"off\"").map(Some),
    }
}

/// An address beyond loopback, too, so none of the file system.
pub(super) fn parse_beside(text: &str) -> Result<ListenAddress, String> {
    match text.strip_prefix("unix:") {
        Some(_) => Err(format!("{text:?} is neither IP:PORT nor systemd:NAME")),
        None => parse_listen(text, " or systemd:NAME"),
    }
}

/// An address; `others` says what else there is than those of TCP.
fn parse_listen(text: &str, others: &str) -> Result<ListenAddress, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(ListenAddress::Unix(path.into()));
    }
    match text.strip_prefix("systemd:") {
        Some(name) => parse_socket_name(name).map(ListenAddress::Inherited),
        None => parse_tcp(text).map(ListenAddress::Tcp).map_err(|message| message + others),
    }
}

/// The `FileDescriptorName=` of a socket unit.
fn parse_socket_name(name: &str) -> Result<String, String> {
    let allowed = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b':';
    let is_name = (1..=255).contains(&name.len()) && name.bytes().all(allowed);
    is_name.then(|| name.to_owned()).ok_or_else(|| {
        format!(
            "{name:?} is no FileDescriptorName= of a socket unit: 1 to 255 ASCII characters, no :"
        )
    })
}

pub(super) fn parse_tcp(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok());
    let localhost = port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    localhost
        .or_else(|| text.parse().ok())
        .ok_or_else(|| format!("{text:?} is no address such as localhost:8787, [::]:8787"))
}

/// Says whether this machine has `::1`, which containers often lack.
fn has_ipv6_loopback() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// A host name as the guard compares it.
pub(super) fn parse_host(host: &str) -> Result<String, String> {
    if host.contains('*') {
        return Err(format!("{host:?}: there are no patterns, list every host"));
    }
    match host.parse::<Authority>() {
        Ok(authority) if authority.host() == host => Ok(host.to_ascii_lowercase()),
        _ => Err(format!("{host:?} is no host name: write it without scheme, port and path")),
    }
}

/// `text` as a browser sends it: lower case, without the default port.
pub(super) fn parse_origin(text: &str) -> Result<String, String> {
    let origin = text.to_ascii_lowercase();
    let (rest, default_port) = match origin.split_once("://") {
        Some(("https", rest)) => (rest, ":443"),
        Some(("http", rest)) => (rest, ":80"),
        _ => return Err(format!("{text:?} is no origin such as https://app.example.com")),
    };
    if rest.contains('*') {
        return Err(format!("{text:?} is a pattern: list every origin"));
    }
    match rest.parse::<Authority>() {
        Ok(authority) if !authority.as_str().contains('@') && !authority.host().is_empty() => {
            Ok(origin.strip_suffix(default_port).unwrap_or(&origin).to_owned())
        }
        _ => Err(format!("{text:?} is no origin: write scheme, host and port, without a path")),
    }
}

/// Checks the scheme and the authority of a URL. It may hold a password, so no message repeats it.
pub(super) fn parse_url(text: &str) -> Result<Uri, String> {
    if text.contains('#') {
        return Err("must not have a fragment".into());
    }
    let uri: Uri = text.parse().map_err(|error| format!("is no URL: {error}"))?;
    let Some(authority) = uri.authority() else {
        return Err("is no URL: it must begin with https://".into());
    };
    if authority.as_str().contains('@') {
        return Err("must not have a user name or password in it".into());
    }
    match (authority.host(), uri.scheme_str()) {
        ("", _) => Err("has no host".into()),
        (_, Some("https")) => Ok(uri),
        (host, Some("http")) if is_loopback(host) => Ok(uri),
        (_, Some("http")) => Err("must begin with https://; http:// is for this machine only \
                                  (localhost, 127.0.0.1, [::1])"
            .into()),
        _ => Err("must begin with https://".into()),
    }
}

/// A URL that must be sent letter for letter.
pub(super) fn parse_url_text(text: &str) -> Result<String, String> {
    parse_url(text).map(|_| text.to_owned())
}

/// A host of Amazon's API.
pub(super) fn parse_base_url(text: &str) -> Result<Uri, String> {
    let uri = parse_url(text)?;
    match uri.path_and_query() {
        Some(path) if path != "/" => Err("must not have a path: the caller's is used".into()),
        _ => Ok(uri),
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

pub(super) fn without_path(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    match url[start..].find(['/', '?', '#']) {
        Some(end) => format!("{}/{MASK}", &url[..start + end]),
        None => url.to_owned(),
    }
}

pub(super) fn parse_client_id(text: &str) -> Result<String, String> {
    let is_right = (1..=ads::CLIENT_ID_MAX_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_right.then(|| text.to_owned()).ok_or_else(|| {
        format!("must be 1 to {} visible ASCII characters", ads::CLIENT_ID_MAX_BYTES)
    })
}

pub(super) fn parse_account(text: &str) -> Result<AccountId, String> {
    text.parse().map_err(|error: InvalidAccountId| error.to_string())
}

pub(super) fn parse_tenant(text: &str) -> Result<Tenant, String> {
    text.parse().map_err(|error: InvalidTenant| error.to_string())
}

pub(super) fn parse_algorithm(text: &str) -> Result<JwtAlgorithm, String> {
    JwtAlgorithm::from_name(text).ok_or_else(|| {
        let known = JwtAlgorithm::ALL.map(JwtAlgorithm::as_str).join(", ");
        let why = match text {
            "HS256" | "HS384" | "HS512" => {
                " (it needs a secret, and what an issuer publishes is none)"
            }
            _ => "",
        };
        format!("{text:?} is not accepted{why}; known: {known}")
    })
}

pub(super) fn parse_region(text: &str) -> Result<Region, String> {
    ads::region(text).ok_or_else(|| format!("{text:?}: {}", ads::REGION_SPELLING))
}

pub(super) fn parse_client_auth(text: &str) -> Result<ClientAuth, String> {
    let unknown = || format!("{text:?} is neither \"optional\" nor \"required\"");
    ClientAuth::from_name(text).ok_or_else(unknown)
}

pub(super) fn parse_store_kind(text: &str) -> Result<StoreKind, String> {
    match text {
        "keyring" if !cfg!(feature = "keyring") => {
            Err("this adsproxy was built without the feature \"keyring\"".into())
        }
        "postgres" if !cfg!(feature = "postgres") => {
            Err("this adsproxy was built without the feature \"postgres\"".into())
        }
        text => StoreKind::from_name(text).ok_or_else(|| {
            format!("{text:?} is none of \"memory\", \"file\", \"keyring\" and \"postgres\"")
        }),
    }
}

pub(super) fn parse_format(text: &str) -> Result<LogFormat, String> {
    LogFormat::from_name(text).ok_or_else(|| format!("{text:?} is neither \"text\" nor \"json\""))
}

pub(super) fn parse_filter(text: &str) -> Result<String, String> {
    log_filter::check(text).map(|()| text.to_owned())
}

pub(super) fn parse_event(text: &str) -> Result<Kind, String> {
    let known = || format!("is no event\nknown: {}", Kind::ALL.map(Kind::as_str).join(", "));
    Kind::from_name(text).ok_or_else(known)
}

/// Headers an account must not set: adsproxy writes or removes them itself, as all of `X-Ads-*`.
const RESERVED: [HeaderName; 15] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::COOKIE,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("amazon-advertising-api-clientid"),
    HeaderName::from_static("amazon-ads-clientid"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

pub(super) fn default_header(
    name: &str,
    value: &DeValue<'_>,
    others: &[(HeaderName, HeaderValue)],
) -> Result<(HeaderName, HeaderValue), &'static str> {
    let name: HeaderName = name.parse().map_err(|_| "is no header name")?;
    // A server may read `_` as `-`, so a look-alike is as reserved as the name itself.
    let alike = name.as_str().replace('_', "-");
    if alike.starts_with("x-ads-") || RESERVED.iter().any(|taken| *taken == *alike) {
        return Err("is set or removed by adsproxy itself");
    }
    if others.iter().any(|(other, _)| *other == name) {
        return Err("is there twice; header names have no case");
    }
    let value = match value {
        DeValue::Integer(number) => HeaderValue::from_str(&number.to_string()).ok(),
        DeValue::String(text) => HeaderValue::from_str(text).ok(),
        _ => None,
    };
    match value.filter(|value| !value.is_empty()) {
        Some(value) => Ok((name, value)),
        None => Err("must be one or more visible ASCII characters"),
    }
}
