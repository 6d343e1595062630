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
            self.tenants(&index, issuer);
            self.jwks(&index, issuer);
        }
        self.shared_tenants(issuers);
    }

    fn tenants(&mut self, index: &str, issuer: &IssuerConfig) {
        let key = ["issuers", index, "tenants"];
        let Some(globs) = &issuer.tenants else { return };
        if globs.is_empty() && !self.lost(&key) {
            self.fail(&key, "is empty, and allows nothing: leave it out to allow all");
        }
        if issuer.tenant_claim.is_empty() {
            self.fail(&key, "names tenants, but with tenant_claim = [] no token has one");
        }
    }

    /// Warns of issuers whose tokens can name the same tenant: their users share its accounts.
    fn shared_tenants(&mut self, issuers: &[IssuerConfig]) {
        let any = ["*".to_owned()];
        let globs = |issuer: &IssuerConfig| match issuer.tenant_claim.is_empty() {
            true => Vec::new(),
            false => issuer.tenants.as_deref().unwrap_or(&any).to_vec(),
        };
        for (index, issuer) in issuers.iter().enumerate() {
            let own = globs(issuer);
            let overlaps = |other: &&IssuerConfig| {
                let others = globs(other);
                own.iter().any(|one| others.iter().any(|other| can_both_match(one, other)))
            };
            let Some(other) = issuers[..index].iter().find(overlaps) else { continue };
            let name = &other.name;
            let message = format!(
                "a token of this issuer can name a tenant that one of {name} can name too, and their \
                 users then share its accounts: give each `tenants` that the other does not match"
            );
            self.warn(&["issuers", &index.to_string(), "tenants"], message);
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

/// Whether there is a text that both globs match; `*` is any text, `?` one character.
fn can_both_match(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    // By how much of `other` is left: whether what is left of both can match one text.
    let mut rest = vec![false; other.len() + 1];
    for at in (0..=one.len()).rev() {
        let mut next = vec![false; other.len() + 1];
        for of in (0..=other.len()).rev() {
            next[of] = match (one.get(at), other.get(of)) {
                (None, None) => true,
                (Some(b'*'), None) => rest[of],
                (Some(b'*'), Some(_)) => rest[of] || next[of + 1],
                (None, Some(b'*')) => next[of + 1],
                (Some(_), Some(b'*')) => next[of + 1] || rest[of],
                (Some(a), Some(b)) => (a == b || *a == b'?' || *b == b'?') && rest[of + 1],
                _ => false,
            };
        }
        rest = next;
    }
    rest[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_overlap_where_one_text_matches_both() {
        for (one, other, expected) in [
            ("*", "org_*", true),
            ("org_*", "user_*", false),
            ("org_*", "*_x", true),
            ("a", "a", true),
            ("a", "b", false),
            ("a?", "?b", true),
            ("a?", "a", false),
            ("*a", "*b", false),
            ("a*b*c", "*bc", true),
            ("a*", "*a", true),
            ("ab*", "a?", true),
            ("ab*", "b*", false),
            ("**", "?", true),
        ] {
            assert_eq!(can_both_match(one, other), expected, "{one} {other}");
            assert_eq!(can_both_match(other, one), expected, "{other} {one}");
        }
    }
}
