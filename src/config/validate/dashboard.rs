//! The dashboard's address and OpenID provider: whether the rest of the configuration knows them.

use crate::config::{Config, reader::ConfigReader, text::is_loopback};
use http::Uri;

impl ConfigReader<'_> {
    pub(super) fn dashboard(&mut self, config: &Config) {
        if let Some(url) = &config.dashboard.url {
            self.dashboard_host(config, url);
        }
        let Some(oidc) = &config.dashboard.oidc else { return };
        let at = |name| ["dashboard", "oidc", name];
        self.require(&at("issuer"), "is missing: the `name` of an entry of [[issuers]]", None);
        self.require(&at("client_id"), "is missing: the provider gives one to each client", None);
        let names: Vec<&str> = config.issuers.iter().map(|issuer| &*issuer.name).collect();
        if !names.contains(&&*oidc.issuer) && !self.lost(&["issuers"]) {
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let message = format!("no entry of [[issuers]] has this name; configured: {known}");
            self.missing(&at("issuer"), message, None);
        }
        if !oidc.scopes.iter().any(|scope| scope == "openid") && !self.lost(&at("scopes")) {
            self.fail(&at("scopes"), "lacks openid, and without it there is no ID token");
        }
        if config.dashboard_url().is_none() {
            let message = "is missing: where browsers reach the dashboard, \
                           https://ads.example.com for example";
            self.missing(&["dashboard", "url"], message, None);
        }
    }

    /// A name that the admin listener does not serve leads nowhere.
    fn dashboard_host(&mut self, config: &Config, url: &str) {
        let uri: Uri = url.parse().unwrap_or_default();
        let host = uri.host().unwrap_or_default();
        if !is_loopback(host) && !config.guard.allowed_hosts.iter().any(|allowed| allowed == host) {
            let message = format!(
                "the admin listener refuses requests for {host}: add it to guard.allowed_hosts"
            );
            self.warn(&["dashboard", "url"], message);
        }
    }
}
