//! For which calls a response about throttling speaks.
//!
//! Amazon's limits are dynamic, per region and per API, and it does not say their bounds. So a scope is
//! narrow: a call that would have gone through must not wait. It never spans two tenants, who must
//! not learn of each other, nor, where no profile is named, two accounts.

use crate::{
    id::{AccountId, Region},
    provider::operations::{OperationClass, classify},
};
use http::Method;

/// The longest profile and API name that are kept as they are, bytes.
const NAME_MAX_BYTES: usize = 64;

/// The calls of one region, application, profile, API and class of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ThrottleScope<S> {
    pub region: Region,
    /// The client id of the application.
    pub client_id: S,
    /// The account's tenant, or the account where no profile is named.
    pub(super) owner: S,
    /// The advertiser's profile, if one is named in the form of one.
    pub profile: Option<S>,
    /// The API: the first part of the path that is no version.
    pub api: S,
    pub class: OperationClass,
}

impl<'a> ThrottleScope<&'a str> {
    /// The scope of a call for `account` with `profile` as its header says it.
    pub fn of(
        region: Region,
        client_id: &'a str,
        account: &'a AccountId,
        profile: Option<&'a [u8]>,
        call: (&Method, &'a str),
    ) -> Self {
        let profile = profile.and_then(|profile| std::str::from_utf8(profile).ok());
        let profile = profile.filter(|profile| is_name(profile));
        let owner = match profile {
            Some(_) => account.tenant().unwrap_or_default(),
            None => account.as_str(),
        };
        let (method, path) = call;
        let class = classify(method, path);
        Self { region, client_id, owner, profile, api: api(path), class }
    }

    pub(super) fn to_owned(self) -> ThrottleScope<Box<str>> {
        ThrottleScope {
            region: self.region,
            client_id: self.client_id.into(),
            owner: self.owner.into(),
            profile: self.profile.map(Into::into),
            api: self.api.into(),
            class: self.class,
        }
    }
}

impl ThrottleScope<Box<str>> {
    pub(super) fn borrowed(&self) -> ThrottleScope<&str> {
        ThrottleScope {
            region: self.region,
            client_id: &self.client_id,
            owner: &self.owner,
            profile: self.profile.as_deref(),
            api: &self.api,
            class: self.class,
        }
    }
}

/// Whether `text` can be shown and kept: an id or a short name.
fn is_name(text: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NAME_MAX_BYTES).contains(&text.len()) && text.bytes().all(is_name)
}

/// The API that `path` belongs to: `sp`, `reporting`, `adsApi`.
fn api(path: &str) -> &str {
    let is_version = |part: &str| {
        part.strip_prefix('v').is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let first = path.split('/').find(|part| !part.is_empty() && !is_version(part));
    first.filter(|part| is_name(part)).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope<'a>(
        account: &'a AccountId,
        profile: Option<&'a str>,
        path: &'a str,
    ) -> ThrottleScope<&'a str> {
        let profile = profile.map(str::as_bytes);
        ThrottleScope::of(Region::Na, "app", account, profile, (&Method::POST, path))
    }

    fn id(text: &str) -> AccountId {
        text.parse().expect("an id")
    }

    #[test]
    fn accounts_share_a_scope_where_they_name_one_profile_within_one_tenant() {
        let ids = ["acme", "globex", "t1~acme", "t1~globex", "t2~acme"].map(id);
        let [a, b, a1, b1, a2] = ids.each_ref().map(|id| scope(id, Some("123"), "/sp/campaigns"));
        assert_eq!((a, a1), (b, b1));
        assert!(a != a1 && a1 != a2);
        let [a, b, a1, b1, a2] = ids.each_ref().map(|id| scope(id, None, "/sp/campaigns"));
        assert!(a != b && a1 != b1 && a1 != a2 && a != a1);
    }

    #[test]
    fn whatever_else_differs_is_another_scope() {
        let acme = id("acme");
        let of = |region, client_id, method: Method, path: &'static str| {
            ThrottleScope::of(region, client_id, &acme, Some(b"1"), (&method, path))
        };
        let one = of(Region::Na, "app", Method::GET, "/sp/campaigns");
        assert_eq!(one, of(Region::Na, "app", Method::GET, "/sp/keywords/7"));
        for other in [
            of(Region::Eu, "app", Method::GET, "/sp/campaigns"),
            of(Region::Na, "other", Method::GET, "/sp/campaigns"),
            of(Region::Na, "app", Method::POST, "/sp/campaigns"),
            of(Region::Na, "app", Method::GET, "/sb/campaigns"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn what_is_no_profile_is_none() {
        let acme = id("acme");
        let long = "9".repeat(65);
        for text in ["", "1 2", "1,2", "ü", "a\"b", &long] {
            assert_eq!(scope(&acme, Some(text), "/").profile, None, "{text}");
        }
        for text in ["123", "amzn1.ads-account.g.x_y", "ENTITY1"] {
            assert_eq!(scope(&acme, Some(text), "/").profile, Some(text));
        }
        let bytes = Some(&b"\xff"[..]);
        let odd = ThrottleScope::of(Region::Na, "app", &acme, bytes, (&Method::GET, "/"));
        assert_eq!(odd.profile, None);
    }

    #[test]
    fn the_api_is_the_first_part_that_is_no_version() {
        for (path, expected) in [
            ("/sp/campaigns/list", "sp"),
            ("//sp/campaigns", "sp"),
            ("/v2/profiles", "profiles"),
            ("/v2/sp/campaigns", "sp"),
            ("/adsApi/v1/query/campaigns", "adsApi"),
            ("/mcp", "mcp"),
            ("/vendors", "vendors"),
            ("/", "other"),
            ("/%2e/x", "other"),
        ] {
            assert_eq!(api(path), expected, "{path}");
        }
    }
}
