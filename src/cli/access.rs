//! How an app reaches one account, told in environment variables.
//!
//! Several names for one thing: each is read by somebody's program as it stands. Not among them are
//! `AMAZON_CLIENT_ID` and `AMAZON_CLIENT_SECRET`, because adsproxy itself reads those.

use crate::id::{AccountId, Region};

/// Fits wherever a client insists on a client id or a secret: adsproxy removes what an app sends.
pub(super) const PLACEHOLDER: &str = "adsproxy";

/// Those of python-amazon-ad-api.
const AD_API: [&str; 3] = ["AD_API_CLIENT_ID", "AD_API_CLIENT_SECRET", "AD_API_REFRESH_TOKEN"];
const AD_API_PROFILE: &str = "AD_API_PROFILE_ID";

/// The names for this machine, which no egress proxy can reach.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "::1"];

/// One account behind one listener.
#[derive(Debug)]
pub(super) struct Access<'a> {
    /// Scheme, authority, and the mount of a private listener.
    pub(super) origin: String,
    pub(super) account: &'a AccountId,
    pub(super) region: Option<Region>,
    /// The placeholder token: `Atza|acme`.
    pub(super) bearer: String,
    /// For clients that want a profile in the environment.
    pub(super) profile: Option<u64>,
}

impl Access<'_> {
    /// The base URL, without a slash at its end.
    pub(super) fn base_url(&self) -> String {
        let region = self.region.map(|region| format!("@{region}")).unwrap_or_default();
        format!("{}/a/{}{region}", self.origin, self.account)
    }

    /// Names and values; `known` looks up what is set already. Holds no secret of Amazon's.
    pub(super) fn variables(
        &self,
        known: impl Fn(&str) -> Option<String>,
    ) -> Vec<(&'static str, String)> {
        let base = self.base_url();
        let mut variables = vec![
            ("ADSPROXY_ACCOUNT", self.account.to_string()),
            ("ADS_API_BASE_URL", base.clone()),
            ("AMAZON_ADS_API_BASE_URL", base.clone()),
            ("AMAZON_ADS_BASE_URL", base.clone()),
            ("AMAZON_ADS_TOKEN_URL", format!("{base}/auth/o2/token")),
            ("AMAZON_ADS_ACCESS_TOKEN", self.bearer.clone()),
        ];
        variables.extend(self.ad_api(&known));
        for name in ["NO_PROXY", "no_proxy"] {
            variables.push((name, without_egress_proxy(known(name))));
        }
        variables
    }

    /// python-amazon-ad-api takes all or nothing of these from the environment, and then ignores
    /// what the code says, the profile included. So they are set only where a profile is named, or
    /// where they are in use already and hold the real thing.
    fn ad_api(&self, known: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
        let in_use = AD_API.iter().all(|name| known(name).is_some());
        if self.profile.is_none() && !in_use {
            return Vec::new();
        }
        let refresh_token = format!("Atzr|{}", self.account);
        let values = [PLACEHOLDER.to_owned(), PLACEHOLDER.to_owned(), refresh_token];
        let profile = self.profile.map(|profile| (AD_API_PROFILE, profile.to_string()));
        AD_API.into_iter().zip(values).chain(profile).collect()
    }
}

/// `NO_PROXY` with this machine in it.
fn without_egress_proxy(known: Option<String>) -> String {
    let known = known.unwrap_or_default();
    let mut names: Vec<&str> =
        known.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if !names.contains(&"*") {
        names.extend(LOOPBACK.iter().filter(|name| !known.split(',').any(|k| k.trim() == **name)));
    }
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn variables(profile: Option<u64>, known: &[(&str, &str)]) -> BTreeMap<&'static str, String> {
        let known: BTreeMap<&str, &str> = known.iter().copied().collect();
        let access = Access {
            origin: "http://127.0.0.1:8787".to_owned(),
            account: &"acme".parse().expect("an alias"),
            region: Some(Region::Eu),
            bearer: "Atza|acme".to_owned(),
            profile,
        };
        let variables = access.variables(|name| known.get(name).map(|v| (*v).to_owned()));
        variables.into_iter().collect()
    }

    #[test]
    fn every_name_for_the_base_url_holds_it() {
        let set = variables(None, &[]);
        for name in ["ADS_API_BASE_URL", "AMAZON_ADS_API_BASE_URL", "AMAZON_ADS_BASE_URL"] {
            assert_eq!(set[name], "http://127.0.0.1:8787/a/acme@eu");
        }
        assert_eq!(set["AMAZON_ADS_TOKEN_URL"], "http://127.0.0.1:8787/a/acme@eu/auth/o2/token");
        assert_eq!(set["AMAZON_ADS_ACCESS_TOKEN"], "Atza|acme");
        assert!(!set.contains_key("AMAZON_CLIENT_ID"), "adsproxy itself reads it");
    }

    #[test]
    fn what_would_silence_the_profile_in_the_code_is_set_only_when_asked_or_in_use() {
        assert!(!variables(None, &[]).contains_key("AD_API_CLIENT_ID"));
        let some = [("AD_API_CLIENT_ID", "a"), ("AD_API_CLIENT_SECRET", "b")];
        assert!(
            !variables(None, &some).contains_key("AD_API_CLIENT_ID"),
            "two of three: not in use"
        );
        let asked = variables(Some(123), &[]);
        assert_eq!(asked["AD_API_REFRESH_TOKEN"], "Atzr|acme");
        assert_eq!(asked["AD_API_PROFILE_ID"], "123");
        let all = AD_API.map(|name| (name, "real"));
        let replaced = variables(None, &all);
        assert!(AD_API.iter().all(|name| replaced[name] != "real"));
        assert!(!replaced.contains_key("AD_API_PROFILE_ID"), "the one that is set stays");
    }

    #[test]
    fn loopback_is_kept_from_the_egress_proxy_once() {
        let no_proxy = |known: &[(&str, &str)]| variables(None, known)["NO_PROXY"].clone();
        assert_eq!(no_proxy(&[]), "127.0.0.1,localhost,::1");
        assert_eq!(no_proxy(&[("NO_PROXY", ".corp, localhost")]), ".corp,localhost,127.0.0.1,::1");
        assert_eq!(no_proxy(&[("NO_PROXY", "*")]), "*");
        let again = no_proxy(&[]);
        assert_eq!(no_proxy(&[("NO_PROXY", &again)]), again);
    }
}
