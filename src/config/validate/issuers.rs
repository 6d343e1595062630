//! Issuers of JWTs: what binds their tokens to us, and no two that are one.

use crate::config::{IssuerConfig, reader::ConfigReader};
use std::{collections::BTreeSet, time::Duration};

/// Clerk's tokens live for a minute: a longer leeway would more than double that.
const LEEWAY_MAX: Duration = Duration::from_secs(60);

impl ConfigReader<'_> {
    pub(super) fn issuers(&mut self, issuers: &mut [IssuerConfig]) {
        let mut seen = BTreeSet::new();
        for (index, issuer) in issuers.iter_mut().enumerate() {
            let index = index.to_string();
            let at = |name| ["issuers", index.as_str(), name];
            self.require(&at("issuer"), "is missing: the `iss` of its tokens", None);
            if !seen.insert(issuer.issuer.clone()) {
                let url = &issuer.issuer;
                self.fail(&at("issuer"), format_args!("{url} is that of another entry too"));
            }
            if issuer.audience.is_empty() && issuer.authorized_parties.is_empty() {
                let help = "its tokens for other programs would be accepted: write \
                            audience = [\"…\"] (the `aud` of tokens for us), or, for Clerk, \
                            authorized_parties = [\"https://app.example.com\"] (their `azp`)";
                let message = "is empty, and so is authorized_parties";
                self.missing(&at("audience"), message, Some(help));
            }
            if issuer.algorithms.is_empty() {
                self.missing(&at("algorithms"), "needs at least one algorithm", None);
            }
            if issuer.leeway > LEEWAY_MAX {
                self.fail(&at("leeway_secs"), "is more than 60 seconds");
            }
            self.jwks(&index, issuer);
        }
    }

    fn jwks(&mut self, index: &str, issuer: &mut IssuerConfig) {
        let Some(jwks) = &mut issuer.jwks else { return };
        let file = ["issuers", index, "jwks", "file"];
        if issuer.jwks_url.is_some() {
            let message = "an issuer has jwks_url or jwks, not both";
            self.fail(&["issuers", index, "jwks"], message);
        }
        match self.document.contains(&file) {
            true => self.readable(&file, Some(&mut jwks.file)),
            false => self.missing(&file, "is missing", None),
        }
    }
}
