//! The cookie of a session: by which name, with which attributes, and what is in it.
//!
//! It names the entry of its session and holds a secret, of which the store has the hash: the name
//! may be shown, and is worth nothing without the secret.

use crate::{
    admin::arguments::cookies, login::key_of, lwa::authorize::random_text, secret::Secret,
};
use http::{
    HeaderMap, HeaderValue,
    header::{HOST, ORIGIN},
};

/// The cookie where the browser comes by HTTPS. A page of another host or path cannot set it.
const SECURE_COOKIE: &str = "__Host-adsproxy";
/// The cookie elsewhere, with the port: cookies know no ports, and a machine may have two servers.
const PLAIN_COOKIE: &str = "adsproxy_dashboard";

/// Characters of a name that are those of its visitor, and those that are its own.
pub(super) const TAG_LEN: usize = 16;
pub(super) const NAME_LEN: usize = 32;

/// What a cookie holds.
#[derive(Debug)]
pub(super) struct SessionCookie {
    pub(super) name: String,
    pub(super) secret: Secret,
    /// It is one of HTTPS.
    pub(super) is_secure: bool,
}

impl SessionCookie {
    /// A new one of the visitor `tag`.
    pub(super) fn new(tag: &str, is_secure: bool) -> Self {
        let own = key_of(random_text().expose());
        let name = format!("{tag}{}", &own[..NAME_LEN - TAG_LEN]);
        Self { name, secret: random_text(), is_secure }
    }

    /// What the store keeps of the secret.
    pub(super) fn digest(&self) -> Secret {
        Secret::new(key_of(self.secret.expose()))
    }

    /// What the forms of the session hold: bound to it, and says nothing of the cookie.
    pub(super) fn csrf(&self) -> Secret {
        Secret::new(key_of(&format!("csrf {}", self.secret.expose())))
    }

    /// The field that gives it to the browser, which `headers` are of.
    pub(super) fn set(&self, headers: &HeaderMap) -> HeaderValue {
        field(headers, self.is_secure, &format!("{}.{}", self.name, self.secret.expose()), "")
    }

    fn parse(value: &Secret, is_secure: bool) -> Option<Self> {
        let (name, secret) = value.expose().split_once('.')?;
        is_name(name).then(|| Self { name: name.to_owned(), secret: secret.into(), is_secure })
    }
}

/// Whether `text` can be the name of a session's entry.
pub(super) fn is_name(text: &str) -> bool {
    text.len() == NAME_LEN && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The field that takes the cookie from the browser.
pub(super) fn removal(headers: &HeaderMap) -> HeaderValue {
    field(headers, is_secure(headers), "", "; Max-Age=0")
}

/// Whether the browser came by HTTPS, which only it knows: a proxy in front may end TLS. It names its
/// page in every form.
pub(super) fn is_secure(headers: &HeaderMap) -> bool {
    headers.get(ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"))
}

fn field(headers: &HeaderMap, is_secure: bool, value: &str, more: &str) -> HeaderValue {
    let name = if is_secure { SECURE_COOKIE.to_owned() } else { plain_name(headers) };
    line(&name, value, is_secure, more)
}

/// A cookie for the whole of this host, and for no script.
pub(super) fn line(name: &str, value: &str, is_secure: bool, more: &str) -> HeaderValue {
    let secure = if is_secure { "; Secure" } else { "" };
    let line = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{more}");
    let mut line = HeaderValue::try_from(line).expect("the name and the value are ASCII");
    line.set_sensitive(true);
    line
}

fn plain_name(headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let port = host.rsplit_once(':').map_or("80", |(_, port)| port);
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    format!("{PLAIN_COOKIE}_{}", if is_port { port } else { "80" })
}

/// The cookies that may be of a session. Of two with one name, of which another page has set one,
/// neither counts.
pub(super) fn presented(headers: &HeaderMap) -> Vec<SessionCookie> {
    let plain = plain_name(headers);
    let names = [(SECURE_COOKIE, true), (plain.as_str(), false)];
    let parsed = |(name, is_secure)| SessionCookie::parse(&single(headers, name)?, is_secure);
    names.into_iter().filter_map(parsed).collect()
}

/// The value of the one cookie of this name.
pub(super) fn single(headers: &HeaderMap, name: &str) -> Option<Secret> {
    let mut found = cookies(headers).into_iter().filter(|(it, _)| it == name);
    let (_, value) = found.next()?;
    found.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let value = |value: &str| HeaderValue::from_str(value).expect("a value");
        lines.iter().map(|(name, it)| (name.parse().expect("a name"), value(it))).collect()
    }

    #[test]
    fn the_cookie_is_bound_to_the_host_by_https_and_to_the_port_elsewhere() {
        let text = |lines: &[_]| {
            let headers = headers(lines);
            let cookie = field(&headers, is_secure(&headers), "x", "");
            cookie.to_str().expect("ASCII").to_owned()
        };
        let https = text(&[("origin", "https://ads.example.com"), ("host", "ads.example.com")]);
        assert_eq!(https, "__Host-adsproxy=x; Path=/; HttpOnly; SameSite=Lax; Secure");
        let plain = text(&[("origin", "http://localhost:8788"), ("host", "localhost:8788")]);
        assert_eq!(plain, "adsproxy_dashboard_8788=x; Path=/; HttpOnly; SameSite=Lax");
        for host in ["localhost", "localhost:x;y=z", "[::1]"] {
            assert_eq!(plain_name(&headers(&[("host", host)])), "adsproxy_dashboard_80", "{host}");
        }
    }

    #[test]
    fn a_cookie_that_is_there_twice_or_is_malformed_is_none() {
        let value = format!("{}.s", "a".repeat(NAME_LEN));
        let count = |line: &str| {
            let line = line.replace('V', &value);
            presented(&headers(&[("host", "localhost:1"), ("cookie", &line)])).len()
        };
        assert_eq!(count("adsproxy_dashboard_1=V; __Host-adsproxy=V; other=V"), 2);
        assert_eq!(count("adsproxy_dashboard_1=V; adsproxy_dashboard_1=V"), 0);
        assert_eq!(count("adsproxy_dashboard_2=V"), 0);
        for wrong in ["a.s", "V".trim_end_matches('V'), "../a.s", &"A".repeat(NAME_LEN)] {
            assert_eq!(count(&format!("adsproxy_dashboard_1={wrong}")), 0, "{wrong}");
        }
    }

    #[test]
    fn what_the_store_and_the_forms_have_does_not_show_the_secret() {
        let [one, other] = ["0123456789abcdef"; 2].map(|tag| SessionCookie::new(tag, false));
        assert!(is_name(&one.name) && one.name != other.name);
        let line = one.set(&headers(&[]));
        assert!(line.to_str().expect("ASCII").contains(one.secret.expose()) && line.is_sensitive());
        for derived in [one.csrf(), one.digest(), Secret::from(&*one.name)] {
            assert!(!derived.expose().contains(one.secret.expose()));
        }
        assert!(one.csrf() != one.digest() && one.csrf() != other.csrf());
    }
}
