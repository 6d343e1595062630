//! The dashboard: its address, and the OpenID provider that signs people in to it.

use super::*;
use crate::config::ListenAddress;

sections! {
    /// `[dashboard]`
    DashboardConfig {
        /// The origin at which browsers reach it; none: see [`Config::dashboard_url`].
        url: Option<String> = None, opt(text(parse_dashboard_url));
        oidc: Option<OidcConfig> = None, opt(table);
    }

    /// `[dashboard.oidc]`
    OidcConfig {
        /// The name of the entry of `[[issuers]]` that signs the ID tokens.
        issuer: String = String::new(), text(parse_name);
        client_id: String = String::new(), text(parse_oidc_client_id);
        /// None: a public client, which PKCE alone protects.
        client_secret: Option<Secret> = None, opt(one_secret);
        scopes: Vec<String> = vec!["openid".to_owned()], list(parse_scope);
        /// Subjects (`sub`) who are operators, whatever the issuer's rules make of them.
        operators: Vec<String> = Vec::new(), list(parse_subject);
    }
}

impl Config {
    /// The origin at which browsers reach the dashboard, without a slash at its end: by default
    /// `http://localhost` and the port of `listen.admin`. None where that is no TCP address.
    pub fn dashboard_url(&self) -> Option<String> {
        let admin = || match self.listen.admin {
            Some(ListenAddress::Tcp(address)) => Some(match address.port() {
                80 => "http://localhost".to_owned(),
                port => format!("http://localhost:{port}"),
            }),
            _ => None,
        };
        self.dashboard.url.clone().or_else(admin)
    }
}

fn parse_dashboard_url(text: &str) -> Result<String, String> {
    let uri = parse_url(text)?;
    match uri.path_and_query() {
        Some(path) if path != "/" => {
            Err("must not have a path: the dashboard is at /dashboard".to_owned())
        }
        _ => parse_origin(text.trim_end_matches('/')),
    }
}

fn parse_oidc_client_id(text: &str) -> Result<String, String> {
    let is_id = (1..=512).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_id.then(|| text.to_owned()).ok_or_else(|| "must be 1 to 512 visible ASCII characters".into())
}

/// RFC 6749, 3.3.
fn parse_scope(text: &str) -> Result<String, String> {
    let is_scope = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    is_scope.then(|| text.to_owned()).ok_or_else(|| format!("{text:?} is no scope"))
}

fn parse_subject(text: &str) -> Result<String, String> {
    let is_subject = (1..=255).contains(&text.len()) && !text.contains(char::is_control);
    is_subject
        .then(|| text.to_owned())
        .ok_or_else(|| "is no subject (`sub`) of 1 to 255 printable characters".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_an_origin_by_https_or_of_this_machine() {
        for (text, origin) in [
            ("https://Ads.Example.com/", "https://ads.example.com"),
            ("https://ads.example.com:443", "https://ads.example.com"),
            ("https://ads.example.com:8443", "https://ads.example.com:8443"),
            ("http://localhost:8788", "http://localhost:8788"),
        ] {
            assert_eq!(parse_dashboard_url(text).as_deref(), Ok(origin), "{text}");
        }
        for wrong in [
            "http://ads.example.com",
            "https://ads.example.com/dashboard",
            "https://ads.example.com?x",
            "https://user@ads.example.com",
            "ads.example.com",
            "",
        ] {
            assert!(parse_dashboard_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn without_an_address_it_is_the_admin_listeners_on_this_machine() {
        let url = |admin: Option<ListenAddress>, url: Option<&str>| {
            let mut config = Config::default();
            config.listen.admin = admin;
            config.dashboard.url = url.map(str::to_owned);
            config.dashboard_url()
        };
        let tcp = Some(ListenAddress::Tcp(([0, 0, 0, 0], 8788).into()));
        assert_eq!(url(tcp.clone(), None).as_deref(), Some("http://localhost:8788"));
        assert_eq!(url(tcp, Some("https://a")).as_deref(), Some("https://a"));
        assert_eq!(url(Some(ListenAddress::Unix("/run/x".into())), None), None);
        assert_eq!(url(None, None), None);
    }
}
