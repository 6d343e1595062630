//! How an app reaches one account, in environment variables.
//!
//! Several names for one thing: each is read by some program. Not among them are
//! `AMAZON_CLIENT_ID` and `AMAZON_CLIENT_SECRET`, because adsproxy itself reads those.

use super::region;
use crate::{
    config::load::Environment,
    id::{AccountId, Region},
};

/// Fits wherever a client insists on a client id or a secret: adsproxy removes what an app sends.
pub(super) const PLACEHOLDER: &str = "adsproxy";

/// Those of python-amazon-ad-api.
const AD_API: [&str; 3] = ["AD_API_CLIENT_ID", "AD_API_CLIENT_SECRET", "AD_API_REFRESH_TOKEN"];

/// The names for this machine, which no egress proxy can reach.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "::1"];

/// The account, and what a client of it wants.
#[derive(Debug, clap::Args)]
pub(super) struct Access {
    /// Its alias
    pub(super) alias: AccountId,
    /// Another region than the account's: na, eu, fe or a marketplace
    #[arg(long, value_parser = region::flag)]
    region: Option<Region>,
    /// Also set AD_API_* of python-amazon-ad-api, with this advertiser profile
    #[arg(long, value_name = "ID")]
    profile: Option<u64>,
}

impl Access {
    /// Names and values for a listener at `origin`: scheme, authority, and the mount of a private
    /// one. `bearer` is the placeholder token. Holds no secret of Amazon's.
    pub(super) fn variables(
        &self,
        origin: &str,
        bearer: String,
        environment: &Environment,
    ) -> Vec<(&'static str, String)> {
        let alias = &self.alias;
        let region = self.region.map(|region| format!("@{region}")).unwrap_or_default();
        let base = format!("{origin}/a/{alias}{region}");
        let mut variables = vec![
            ("ADSPROXY_ACCOUNT", alias.to_string()),
            ("ADS_API_BASE_URL", base.clone()),
            ("AMAZON_ADS_API_BASE_URL", base.clone()),
            ("AMAZON_ADS_BASE_URL", base.clone()),
            ("AMAZON_ADS_TOKEN_URL", format!("{base}/auth/o2/token")),
            ("AMAZON_ADS_ACCESS_TOKEN", bearer),
        ];
        // python-amazon-ad-api takes all or nothing of these from the environment, and then ignores
        // what the code says, the profile included. So they are set only where a profile is named,
        // or where they are in use already and hold the real thing.
        if self.profile.is_some() || AD_API.iter().all(|name| environment.get(name).is_some()) {
            let values = [PLACEHOLDER.to_owned(), PLACEHOLDER.to_owned(), format!("Atzr|{alias}")];
            variables.extend(AD_API.into_iter().zip(values));
        }
        variables.extend(self.profile.map(|profile| ("AD_API_PROFILE_ID", profile.to_string())));
        for name in ["NO_PROXY", "no_proxy"] {
            variables.push((name, with_loopback(environment.get(name).unwrap_or_default())));
        }
        variables
    }
}

/// The value of `NO_PROXY` with this machine in it.
fn with_loopback(known: &str) -> String {
    let mut names: Vec<&str> =
        known.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if !names.contains(&"*") {
        let missing: Vec<_> = LOOPBACK.into_iter().filter(|name| !names.contains(name)).collect();
        names.extend(missing);
    }
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn variables(profile: Option<u64>, known: &[(&str, &str)]) -> BTreeMap<&'static str, String> {
        let known = known.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let alias = "acme".parse().expect("an alias");
        let access = Access { alias, region: Some(Region::Eu), profile };
        let bearer = "Atza|acme".to_owned();
        let variables = access.variables("http://127.0.0.1:8787", bearer, &known.collect());
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
