//! Decides from Host, Origin and Sec-Fetch-Site whether a request may be served at all.
//!
//! A listener on loopback is reachable for every page in a browser on the same machine: by a
//! cross-site request, or by a name of the attacker's that resolves to 127.0.0.1 (rebinding).
//! So only loopback names and configured hosts are accepted, and a browser must have been on a
//! page of ours, and say so. Pure functions, no allocation: this runs for every request.

use super::fields::{Field, Fields, bearer_token};
use crate::config;
use http::{HeaderValue, Uri, Version, request::Parts};
use std::{
    net::{Ipv4Addr, Ipv6Addr},
    str,
};

#[derive(Debug, Clone, Default)]
pub struct Guard {
    names: Box<[Box<str>]>,
    v6: Box<[Ipv6Addr]>,
    /// Pages of other sites that may ask, as a browser names them.
    origins: Box<[Box<str>]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GuardRejection {
    #[error("the request names no host")]
    MissingHost,
    /// Several Host lines, or Host and target disagree.
    #[error("the request names more than one host")]
    DuplicateHost,
    #[error("the host is malformed")]
    MalformedHost,
    /// Not a loopback name, and not in `guard.allowed_hosts`.
    #[error("the host is not allowed")]
    ForeignHost,
    /// A browser asks on behalf of another site.
    #[error("the request comes from another site")]
    ForeignOrigin,
    /// A browser asks, and names no page.
    #[error("a browser sends the request and does not say for which page")]
    UnnamedPage,
}

impl Guard {
    /// Accepts loopback names, and the hosts and origins of `config`.
    pub fn new(config: &config::GuardConfig) -> Self {
        let (mut names, mut v6) = (Vec::new(), Vec::new());
        for host in &config.allowed_hosts {
            let bare = host.trim_start_matches('[').trim_end_matches([']', '.']);
            match bare.parse() {
                Ok(address) => v6.push(address),
                Err(_) => names.push(bare.into()),
            }
        }
        let origins = config.allowed_origins.iter().map(|origin| origin.as_str().into());
        Self { names: names.into(), v6: v6.into(), origins: origins.collect() }
    }

    pub fn check(&self, head: &Parts, fields: &Fields<'_>) -> Result<(), GuardRejection> {
        let host = self.accepted_host(head, fields)?;
        if let Field::One(origin) = fields.origin
            && self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
        {
            return Ok(());
        }
        // `same-site` is rejected: another port of localhost is the same site.
        let is_own_page = fields.fetch_site.allows(|site| matches!(site, b"same-origin" | b"none"));
        let is_own_origin = fields.origin.allows(|origin| is_same_origin(origin, &host));
        own(is_own_page && is_own_origin)
    }

    /// As [`Guard::check`], for an address that another site may send a browser to: Amazon's response
    /// to a login, or a link in a mail. It must be the person's own way to a page, which a frame, an
    /// image or a script of the other site is not; what is behind it must hold a secret of its own.
    pub fn check_link(&self, head: &Parts) -> Result<(), GuardRejection> {
        let fields = Fields::of(&head.headers);
        self.accepted_host(head, &fields)?;
        let is = |name: &str, wanted: &[u8]| {
            let mut values = head.headers.get_all(name).iter();
            values.next().is_some_and(|value| value.as_bytes() == wanted) && values.next().is_none()
        };
        // An old browser, or none, names no site.
        let navigates = fields
            .fetch_site
            .allows(|_| is("sec-fetch-mode", b"navigate") && is("sec-fetch-dest", b"document"));
        // A browser names no origin as it follows a link; `null` after some redirects.
        own(navigates && fields.origin.allows(|origin| origin == b"null"))
    }

    /// As [`Guard::check`], for a form on a page of ours that names no referrer: browsers then call
    /// its origin `null`, which is believed only beside their own word that it is ours.
    pub fn check_form(&self, head: &Parts) -> Result<(), GuardRejection> {
        let mut fields = Fields::of(&head.headers);
        if let (Field::One(origin), Field::One(site)) = (fields.origin, fields.fetch_site)
            && (origin == "null" && site == "same-origin")
        {
            fields.origin = Field::Absent;
        }
        self.check(head, &fields)
    }

    /// As [`Guard::check_form`], for a form that a session of the dashboard is behind: the browser
    /// must name its page, and that must be one of this very origin, whatever is allowed elsewhere.
    pub fn check_own_form(&self, head: &Parts) -> Result<(), GuardRejection> {
        let fields = Fields::of(&head.headers);
        let host = self.accepted_host(head, &fields)?;
        let is_named = fields.origin.first().is_some();
        let is_own_page = fields.fetch_site.allows(|site| matches!(site, b"same-origin"));
        own(is_named && is_own_page && fields.origin.allows(|origin| is_same_origin(origin, &host)))
    }

    /// The one host that the request is for, which is accepted.
    fn accepted_host<'a>(
        &self,
        head: &'a Parts,
        fields: &Fields<'a>,
    ) -> Result<Host<'a>, GuardRejection> {
        let malformed = GuardRejection::MalformedHost;
        let line = fields.host.single(GuardRejection::DuplicateHost)?;
        let line = line.map(|value| parse(value.as_bytes()).ok_or(malformed)).transpose()?;
        // HTTP/2 puts the host into `:authority`; HTTP/1 into an absolute target beside Host.
        let target = head.uri.authority();
        let target = target.map(|name| parse(name.as_str().as_bytes()).ok_or(malformed));
        let host = match (line, target.transpose()?) {
            (Some(one), Some(two)) if !one.has_name_of(&two) || one.port != two.port => {
                return Err(GuardRejection::DuplicateHost);
            }
            (Some(host), _) => host,
            (None, Some(host)) if head.version >= Version::HTTP_2 => host,
            (None, _) => return Err(GuardRejection::MissingHost),
        };
        if self.accepts(&host) { Ok(host) } else { Err(GuardRejection::ForeignHost) }
    }

    /// Says whether a request for `host`, without port, is accepted.
    pub fn answers_host(&self, host: &str) -> bool {
        parse(host.as_bytes()).is_some_and(|host| self.accepts(&host))
    }

    fn accepts(&self, host: &Host<'_>) -> bool {
        if let Some(address) = host.v6 {
            return address.is_loopback() || self.v6.contains(&address);
        }
        host.name.eq_ignore_ascii_case("localhost")
            || host.name.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
            || self.names.iter().any(|allowed| host.name.eq_ignore_ascii_case(allowed))
    }
}

/// Rejects what a browser sends without saying for which page: any page may have made it do so.
///
/// Browsers send Sec-Fetch-Site by HTTPS and to loopback names only, and Origin with scripts and forms
/// only. So an image or a link names no page over plain HTTP, by a name of `guard.allowed_hosts` or
/// through a reverse proxy; of Safari before 16.4, nowhere. Then a browser is known by the name that it
/// gives itself: a page cannot change that in a request without Origin, and cannot add our own fields,
/// so what has one of them is a program's. A browser that was set to call itself something else is not recognised.
///
/// Source: Fetch standard, "no-CORS-safelisted request-header"; Fetch Metadata, "potentially
/// trustworthy URL"; seen in Chromium 156.
pub fn check_page(fields: &Fields<'_>) -> Result<(), GuardRejection> {
    let (Field::Absent, Field::Absent) = (fields.origin, fields.fetch_site) else { return Ok(()) };
    let agent = fields.user_agent.first().map_or(&b""[..], HeaderValue::as_bytes);
    if !is_browser(agent) || is_only_of_programs(fields) {
        return Ok(());
    }
    Err(GuardRejection::UnnamedPage)
}

/// Every browser calls itself Mozilla, and Safari's media player AppleCoreMedia; so does PowerShell,
/// which is no browser.
fn is_browser(agent: &[u8]) -> bool {
    let no_browser = b"PowerShell/";
    agent.starts_with(b"AppleCoreMedia/")
        || agent.starts_with(b"Mozilla/")
            && !agent.windows(no_browser.len()).any(|part| part == no_browser)
}

/// Whether there is a field that a page of another site sends only after it has asked (CORS), with
/// its Origin. Basic authentication is not one: a browser adds it by itself.
fn is_only_of_programs(fields: &Fields<'_>) -> bool {
    fields.account.first().is_some()
        || fields.key.first().is_some()
        || fields.authorization.first().is_some_and(|value| bearer_token(value).is_some())
}

fn own(is_own: bool) -> Result<(), GuardRejection> {
    if is_own { Ok(()) } else { Err(GuardRejection::ForeignOrigin) }
}

/// What was rejected and how to allow it, for a caller that may only have to be configured.
pub fn explain(rejection: GuardRejection, uri: &Uri, fields: &Fields<'_>) -> Option<String> {
    let shown = |value: &[u8]| {
        let text: String = value.iter().take(100).map(|b| char::from(*b)).collect();
        let is_visible = text.chars().all(|c| c.is_ascii_graphic());
        (is_visible && !text.is_empty()).then_some(text)
    };
    match rejection {
        GuardRejection::ForeignHost => {
            let line = fields.host.first().map(HeaderValue::as_bytes);
            let host = line.or(uri.authority().map(|name| name.as_str().as_bytes()));
            let host = host.and_then(shown)?;
            Some(format!(
                "The Host {host} is not accepted. Use localhost or 127.0.0.1 in the base URL, or \
                 add the name, without its port, to guard.allowed_hosts."
            ))
        }
        GuardRejection::ForeignOrigin => {
            let origin = fields.origin.first().and_then(|value| shown(value.as_bytes()));
            Some(match origin {
                Some(origin) => format!(
                    "Requests from a page of {origin} are not accepted. If that page may use the \
                     accounts, add its origin to guard.allowed_origins."
                ),
                None => "The browser sends this request for another site (Sec-Fetch-Site), which \
                    is not accepted. A page that may use the accounts must send its Origin, and \
                    that must be in guard.allowed_origins."
                    .to_owned(),
            })
        }
        GuardRejection::UnnamedPage => Some(
            "A browser sends this request and does not say for which page: over plain HTTP \
             browsers say so of loopback names only, and old ones never do. Use localhost or HTTPS. \
             A program that sends the User-Agent of a browser must send X-Ads-Account, too."
                .to_owned(),
        ),
        _ => None,
    }
}

/// A host with its port, if it names one.
#[derive(Debug, Clone, Copy)]
struct Host<'a> {
    /// A name or an IPv4 address, without trailing dot; empty for an IPv6 address.
    name: &'a str,
    /// What stood in brackets.
    v6: Option<Ipv6Addr>,
    port: Option<u16>,
}

impl Host<'_> {
    fn has_name_of(&self, other: &Self) -> bool {
        self.v6 == other.v6 && self.name.eq_ignore_ascii_case(other.name)
    }
}

/// Reads `host`, `host:port` or `[address]:port`.
fn parse(bytes: &[u8]) -> Option<Host<'_>> {
    let text = str::from_utf8(bytes).ok()?;
    let (name, v6, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let (address, rest) = inner.split_once(']')?;
            ("", Some(address.parse().ok()?), rest)
        }
        None => {
            let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            let name = name.strip_suffix('.').unwrap_or(name);
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if name.is_empty() || !name.bytes().all(legal) {
                return None;
            }
            (name, None, rest)
        }
    };
    let port = match rest.strip_prefix(':') {
        // `parse` alone would take a sign.
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok()?)
        }
        None if rest.is_empty() => None,
        Some(_) | None => return None,
    };
    Some(Host { name, v6, port })
}

/// Says whether `origin` is an http or https page of `host` itself. `null` is not.
fn is_same_origin(origin: &[u8], host: &Host<'_>) -> bool {
    let http = origin.strip_prefix(b"http://").map(|rest| (rest, 80));
    let https = || origin.strip_prefix(b"https://").map(|rest| (rest, 443));
    let Some((rest, default_port)) = http.or_else(https) else { return false };
    parse(rest).is_some_and(|page| {
        page.has_name_of(host)
            && page.port.unwrap_or(default_port) == host.port.unwrap_or(default_port)
    })
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
